//! Datagrams of tunnels: one call sends many of one flow (udp(7), UDP_SEGMENT), or takes in many batches that
//! the kernel joined (UDP_GRO), with what their IP headers say.

use std::{
    io::{self, IoSlice},
    mem::{size_of, zeroed},
    net::SocketAddr,
    os::fd::AsRawFd,
    ptr,
};

use packet::{BufferClass, Frame, HEADROOM, Pool};
use socket2::{SockAddr, Socket};

use super::socket::{address_of, set};

/// Buffers of one receiving call.
const BATCH: usize = 16;
/// Room for three control messages of one int: 3 * CMSG_SPACE(4).
const CONTROL: usize = 3 * SPACE;
const SPACE: usize = 24;
const HEADER: usize = size_of::<libc::cmsghdr>();
/// Room for any address.
#[expect(clippy::cast_possible_truncation, reason = "128")]
const NAME: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
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

/// Asks for datagrams joined, with their traffic class.
///
/// # Errors
/// When the kernel cannot join (before Linux 5.0).
pub(crate) fn set_up_receiving(socket: &Socket, ipv6: bool) -> io::Result<()> {
    let (level, option) = if ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS) } else { (libc::IPPROTO_IP, libc::IP_RECVTOS) };
    set(socket, level, option, 1)?;
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

/// Control messages, one behind the other, at most [`CONTROL`] bytes.
struct Control {
    words: [u64; CONTROL / 8],
    used: usize,
}

impl Control {
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
    let mut control = Control { words: [0; CONTROL / 8], used: 0 };
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
    /// The congestion field of the IP header.
    pub(crate) ecn: u8,
    /// Bytes of each but the last, when there are several.
    pub(crate) segment: usize,
    pub(crate) frame: Frame,
}

/// Reusable arrays for recvmmsg.
pub(crate) struct Receiver {
    headers: Box<[libc::mmsghdr; BATCH]>,
    vectors: Box<[libc::iovec; BATCH]>,
    names: Box<[libc::sockaddr_storage; BATCH]>,
    control: Box<[[u64; CONTROL / 8]; BATCH]>,
    frames: [Option<Frame>; BATCH],
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receiver")
    }
}

impl Receiver {
    pub(crate) fn new() -> Self {
        // SAFETY: plain data for which zero is valid.
        let (headers, vectors, names) = unsafe { (Box::new(zeroed()), Box::new(zeroed()), Box::new(zeroed())) };
        Self { headers, vectors, names, control: Box::new([[0; CONTROL / 8]; BATCH]), frames: [const { None }; BATCH] }
    }

    /// Receives up to a batch; true when more may wait.
    ///
    /// # Errors
    /// As recvmmsg(2); would-block when there is nothing.
    pub(crate) fn receive(&mut self, socket: &Socket, pool: &Pool, mut each: impl FnMut(Received)) -> io::Result<bool> {
        let offered = self.offer(pool);
        if offered == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let count = u32::try_from(offered).unwrap_or_default();
        // SAFETY: the first `offered` headers point at names, vectors, buffers and control space that `self`
        // owns, unshared, for the length of the call.
        let received = unsafe { libc::recvmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, ptr::null_mut()) };
        let Ok(received) = usize::try_from(received) else { return Err(io::Error::last_os_error()) };
        for index in 0..received {
            let (header, length) = (&self.headers[index].msg_hdr, self.headers[index].msg_len as usize);
            let (Some(mut frame), Some(from)) = (self.frames[index].take(), address_of(&self.names[index], header.msg_namelen)) else { continue };
            frame.set_bounds(HEADROOM, length);
            let (ecn, segment) = read_control(&self.control[index], header.msg_controllen);
            each(Received { from, ecn, segment, frame });
        }
        Ok(received == offered)
    }

    fn offer(&mut self, pool: &Pool) -> usize {
        for index in 0..BATCH {
            let frame = match &mut self.frames[index] {
                Some(frame) => frame,
                none => match pool.take(BufferClass::Large) {
                    Some(frame) => none.insert(frame),
                    None => return index,
                },
            };
            let storage = &mut frame.storage_mut()[HEADROOM..];
            self.vectors[index] = libc::iovec { iov_base: storage.as_mut_ptr().cast(), iov_len: storage.len() };
            let header = &mut self.headers[index].msg_hdr;
            (header.msg_name, header.msg_namelen) = ((&raw mut self.names[index]).cast(), NAME);
            (header.msg_iov, header.msg_iovlen) = (&raw mut self.vectors[index], 1);
            (header.msg_control, header.msg_controllen) = (self.control[index].as_mut_ptr().cast(), CONTROL);
        }
        BATCH
    }
}

/// The congestion field, and the length of segments (zero when there is one datagram).
fn read_control(words: &[u64; CONTROL / 8], length: usize) -> (u8, usize) {
    let (mut ecn, mut segment, mut at) = (0, 0, 0);
    let byte = |at: usize| words.get(at / 8).map_or(0, |word| word.to_ne_bytes()[at % 8]);
    let int = |at: usize| i32::from_ne_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
    while at + HEADER < length.min(CONTROL) {
        match (int(at + 8), int(at + 12)) {
            // One byte of IPv4, an int of IPv6: native order, so of a small value one byte or the other.
            (libc::IPPROTO_IP, libc::IP_TOS) => ecn = byte(at + HEADER) & ECN,
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => ecn = u8::try_from(int(at + HEADER)).unwrap_or_default() & ECN,
            (libc::SOL_UDP, libc::UDP_GRO) => segment = usize::try_from(int(at + HEADER)).unwrap_or_default(),
            _ => {}
        }
        at += usize::try_from(int(at)).unwrap_or_default().max(HEADER).next_multiple_of(8);
    }
    (ecn, segment)
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
            assert!(seen.iter().all(|received| received.from == sender.local_addr().unwrap().as_socket().unwrap()));
            assert_eq!((seen[0].ecn, seen[0].segment, seen[0].frame.len()), (1, 100, 240));
            assert_eq!((seen[1].ecn, seen[1].segment, seen[1].frame.bytes()), (0, 0, &[9; 5][..]));
            let again = arrays.receive(&receiver, &pool, drop).unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
