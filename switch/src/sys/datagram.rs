//! Datagrams of tunnels: one call sends many of one flow (udp(7), UDP_SEGMENT), or takes in many batches that
//! the kernel joined (UDP_GRO), with what their IP headers say.

use std::{
    io::{self, IoSlice},
    mem::zeroed,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd},
    ptr,
};

use packet::{Frame, HEADROOM, Pool};
use socket2::{SockAddr, Socket};

use super::{
    batch::{Batch, Control, HEADER, Message},
    socket::{address_of, set},
};

/// Buffers of one receiving call.
const BATCH: usize = 16;
/// Room for three control messages of one int, or two and an address: 2 * CMSG_SPACE(4) + CMSG_SPACE(20).
const CONTROL: usize = 2 * SPACE + 40;
const SPACE: usize = 24;
/// Congestion field of a traffic class.
const ECN: u8 = 3;

/// What goes into the outer headers of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) to: SocketAddr,
    pub(crate) ecn: u8,
    /// The system's default when missing.
    pub(crate) ttl: Option<u8>,
}

/// Asks for datagrams joined, with their traffic class and where they were sent to.
///
/// # Errors
/// When the kernel cannot join (before Linux 5.0).
pub(crate) fn set_up_receiving(socket: &Socket, ipv6: bool) -> io::Result<()> {
    let (level, options) = if ipv6 { (libc::IPPROTO_IPV6, [libc::IPV6_RECVTCLASS, libc::IPV6_RECVPKTINFO]) } else { (libc::IPPROTO_IP, [libc::IP_RECVTOS, libc::IP_PKTINFO]) };
    options.into_iter().try_for_each(|option| set(socket, level, option, 1))?;
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Datagrams carry "do not fragment" and are refused when they are too long for the path (RFC 7348 section 4.3).
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn set_do_not_fragment(socket: &Socket, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
    }
}

/// Control messages to send, one behind the other, at most [`CONTROL`] bytes.
struct Labels {
    words: [u64; CONTROL / 8],
    used: usize,
}

impl Labels {
    /// Adds a message with an int, or with the u16 that UDP_SEGMENT takes.
    fn push(&mut self, level: i32, kind: i32, value: &[u8]) {
        let header = libc::cmsghdr { cmsg_len: HEADER + value.len(), cmsg_level: level, cmsg_type: kind };
        debug_assert!(self.used + SPACE <= CONTROL && value.len() <= 8);
        let at = self.words[self.used / 8..].as_mut_ptr();
        // SAFETY: SPACE bytes from `at` on are ours, aligned as a header needs, and hold header and value.
        unsafe {
            at.cast::<libc::cmsghdr>().write(header);
            ptr::copy_nonoverlapping(value.as_ptr(), at.cast::<u8>().add(HEADER), value.len());
        }
        self.used += SPACE;
    }
}

/// Sends `parts` as one datagram, or as several of `segment` bytes, of which the last may be shorter.
///
/// # Errors
/// As sendmsg(2).
pub(crate) fn send(socket: &Socket, label: &Label, segment: Option<u16>, parts: &[IoSlice<'_>]) -> io::Result<()> {
    let to = SockAddr::from(label.to);
    let mut control = Labels { words: [0; CONTROL / 8], used: 0 };
    if let Some(segment) = segment {
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
    }
    let (level, class, hops) = match label.to {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS, libc::IP_TTL),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::IPV6_HOPLIMIT),
    };
    if label.ecn != 0 {
        control.push(level, class, &i32::from(label.ecn).to_ne_bytes());
    }
    if let Some(ttl) = label.ttl {
        control.push(level, hops, &i32::from(ttl).to_ne_bytes());
    }
    // SAFETY: msghdr is plain data for which zero is valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    (message.msg_name, message.msg_namelen) = (to.as_ptr().cast_mut().cast(), to.len());
    // An IoSlice has the layout of an iovec.
    (message.msg_iov, message.msg_iovlen) = (parts.as_ptr().cast_mut().cast(), parts.len());
    if control.used > 0 {
        (message.msg_control, message.msg_controllen) = (control.words.as_mut_ptr().cast(), control.used);
    }
    loop {
        // SAFETY: all that the message points at outlives the call, which only reads it.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Datagrams of one sender, as the kernel gave them.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) from: SocketAddr,
    /// Destination of the IP header.
    pub(crate) to: IpAddr,
    /// The congestion field of the IP header.
    pub(crate) ecn: u8,
    /// Bytes of each but the last, when there are several.
    pub(crate) segment: usize,
    pub(crate) frame: Frame,
}

/// Receives from sockets of tunnels.
#[derive(Debug)]
pub(crate) struct Receiver(Batch<BATCH, CONTROL>);

impl Receiver {
    pub(crate) fn new() -> Self {
        Self(Batch::new(HEADROOM, true))
    }

    /// Receives up to a batch; true when more may wait.
    ///
    /// # Errors
    /// As recvmmsg(2); would-block when there is nothing.
    pub(crate) fn receive(&mut self, socket: &Socket, pool: &Pool, mut each: impl FnMut(Received)) -> io::Result<bool> {
        let result = self.0.receive(socket.as_fd(), pool, |Message { frame, control, name: (name, length) }| {
            if let Some(from) = address_of(name, length) {
                let Told { to, ecn, segment } = read_control(control);
                each(Received { from, to, ecn, segment, frame });
            }
        });
        result.map(|(_, more)| more)
    }
}

/// What control messages said; the length of segments is zero when there is one datagram.
struct Told {
    to: IpAddr,
    ecn: u8,
    segment: usize,
}

fn read_control(control: Control<'_>) -> Told {
    let (mut to, mut ecn, mut segment) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, 0);
    for (level, kind, data) in control {
        let int = data.first_chunk().map_or(0, |word| i32::from_ne_bytes(*word));
        match (level, kind) {
            // One byte of IPv4, an int of IPv6.
            (libc::IPPROTO_IP, libc::IP_TOS) => ecn = data.first().map_or(0, |class| class & ECN),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => ecn = u8::try_from(int).unwrap_or_default() & ECN,
            // in_pktinfo(7): interface, local address, destination of the header; in6_pktinfo: the latter first.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => to = data.get(8..).and_then(<[u8]>::first_chunk::<4>).map_or(to, |octets| IpAddr::from(*octets)),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => to = data.first_chunk::<16>().map_or(to, |octets| IpAddr::from(*octets)),
            (libc::SOL_UDP, libc::UDP_GRO) => segment = usize::try_from(int).unwrap_or_default(),
            _ => {}
        }
    }
    Told { to, ecn, segment }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use packet::PoolConfig;

    use super::*;

    #[test]
    fn a_train_of_datagrams_arrives_with_its_marks() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(receiver) = UdpSocket::bind(local) else { continue };
            let (at, sender) = (receiver.local_addr().unwrap(), Socket::from(UdpSocket::bind(local).unwrap()));
            let receiver = Socket::from(receiver);
            set_up_receiving(&receiver, at.is_ipv6()).unwrap();
            set_do_not_fragment(&sender, at.is_ipv6()).unwrap();
            let (one, two, last) = ([1; 100], [2; 100], [3; 40]);
            let label = Label { to: at, ecn: 1, ttl: Some(7) };
            send(&sender, &label, Some(100), &[IoSlice::new(&one), IoSlice::new(&two), IoSlice::new(&last)]).unwrap();
            send(&sender, &Label { ecn: 0, ttl: None, ..label }, None, &[IoSlice::new(&[9; 5])]).unwrap();
            let (pool, mut seen) = (Pool::new(PoolConfig::default()), Vec::new());
            let mut arrays = Receiver::new();
            receiver.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
            assert!(!arrays.receive(&receiver, &pool, |received| seen.push(received)).unwrap());
            let bytes: usize = seen.iter().map(|received| received.frame.len()).sum();
            assert_eq!(bytes, 245);
            assert!(seen.iter().all(|received| received.from == sender.local_addr().unwrap().as_socket().unwrap() && received.to == at.ip()));
            assert_eq!((seen[0].ecn, seen[0].segment, seen[0].frame.len()), (1, 100, 240));
            assert_eq!((seen[1].ecn, seen[1].segment, seen[1].frame.bytes()), (0, 0, &[9; 5][..]));
            let again = arrays.receive(&receiver, &pool, drop).unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
