//! The UDP sockets of tunnels: one of each family receives at a tunnel's port, and a few send, each from a port of
//! its own, so that the network between can tell flows apart by source port (RFC 7348 section 5).

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use dataplane::DropReason;
use packet::{Frame, PortId};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use vxlan::{DATAGRAM_MOST, Datagram, LANES, SEGMENTS_MOST};

use crate::sys::{
    datagram::{self, Label},
    socket as sys,
};

/// Sending sockets of a family, and so source ports: one for each lane.
const SENDERS: u16 = LANES;
/// The dynamic ports, of which RFC 7348 section 5 wants source ports.
const FIRST_PORT: u16 = 49_152;
/// Dynamic ports for each socket to choose from.
const STRIDE: u16 = (u16::MAX - FIRST_PORT) / SENDERS + 1;
/// Buffers that are asked for, bytes: a turn of the other side in super-frames.
const BUFFER: usize = 4 << 20;

/// The families, as an index.
pub(crate) const V4: usize = 0;
pub(crate) const V6: usize = 1;

/// Frames that were lost on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) port: PortId,
    pub(crate) reason: DropReason,
    pub(crate) count: u64,
    /// Where to.
    pub(crate) to: SocketAddr,
}

/// A datagram that waits for the end of the burst.
#[derive(Debug)]
struct Waiting {
    port: PortId,
    label: Label,
    frame: Frame,
    segment: Option<u16>,
}

#[derive(Debug)]
struct Sender {
    socket: Socket,
    queue: Vec<Waiting>,
}

/// The sending sockets of all tunnels.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    families: [Vec<Sender>; 2],
    /// Senders with something in their queue: family, index.
    dirty: Vec<(usize, usize)>,
}

impl Senders {
    /// Opens them, unless they are there. A host without IPv6 has those of IPv4 alone.
    pub(crate) fn open(&mut self) -> io::Result<()> {
        for family in [V4, V6] {
            if self.families[family].is_empty() {
                let made: io::Result<Vec<_>> = (0..SENDERS).map(|index| Sender::new(family, FIRST_PORT + index * STRIDE)).collect();
                match made {
                    Ok(made) => self.families[family] = made,
                    Err(error) if family == V4 => return Err(error),
                    Err(error) => tracing::debug!(%error, "no tunnels over IPv6"),
                }
            }
        }
        Ok(())
    }

    /// Closes them.
    pub(crate) fn close(&mut self) {
        *self = Self::default();
    }

    /// Queues a datagram of a tunnel port. Those of a flow go through one socket, and so stay in order.
    pub(crate) fn push(&mut self, port: PortId, datagram: Datagram, ttl: Option<u8>) -> Result<(), Loss> {
        let index = datagram.lane();
        let Datagram { to, ecn, frame, segment, .. } = datagram;
        let family = family_of(to.ip());
        let lost = Loss { port, reason: DropReason::WriteFailed, count: 1, to };
        let sender = self.families[family].get_mut(index).ok_or(lost)?;
        if sender.queue.is_empty() {
            self.dirty.push((family, index));
        }
        sender.queue.push(Waiting { port, label: Label { to, ecn, ttl }, frame, segment });
        Ok(())
    }

    /// Sends what is queued.
    pub(crate) fn flush(&mut self, mut lost: impl FnMut(Loss)) {
        while let Some((family, index)) = self.dirty.pop() {
            self.families[family][index].flush(&mut lost);
        }
    }
}

impl Sender {
    /// Bound to the first free port from `first` on.
    fn new(family: usize, first: u16) -> io::Result<Self> {
        let mut last = io::ErrorKind::AddrInUse.into();
        for port in first..=first.saturating_add(STRIDE - 1) {
            match bound(family, port) {
                Ok(socket) => {
                    datagram::set_do_not_fragment(&socket, family == V6)?;
                    // A group is for other hosts: ours heard it already.
                    if family == V6 { socket.set_multicast_loop_v6(false)? } else { socket.set_multicast_loop_v4(false)? }
                    sys::force_send_buffer(&socket, BUFFER);
                    return Ok(Self { socket, queue: Vec::new() });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn flush(&mut self, lost: &mut impl FnMut(Loss)) {
        let mut rest = &self.queue[..];
        while let Some(first) = rest.first() {
            let (run, behind) = rest.split_at(run_length(rest));
            if let Err(error) = self.send(run) {
                tracing::trace!(%error, to = %first.label.to, "a tunnel's datagram was not sent");
                for waiting in run {
                    lost(Loss { port: waiting.port, reason: reason_of(&error), count: datagrams(waiting), to: waiting.label.to });
                }
            }
            rest = behind;
        }
        self.queue.clear();
    }

    /// Datagrams of one label and length, in one call if the kernel can.
    fn send(&self, run: &[Waiting]) -> io::Result<()> {
        let mut parts = [IoSlice::new(&[]); SEGMENTS_MOST];
        for (part, waiting) in parts.iter_mut().zip(run) {
            *part = IoSlice::new(waiting.frame.bytes());
        }
        let (first, parts) = (&run[0], &parts[..run.len()]);
        let segment = first.segment.or_else(|| if run.len() > 1 { u16::try_from(first.frame.len()).ok() } else { None });
        match (datagram::send(&self.socket, &first.label, segment, parts), segment) {
            // A device that makes no checksums, or a kernel that reports too long ones so.
            (Err(error), Some(size)) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL)) => {
                let datagrams = parts.iter().flat_map(|part| part.chunks(size.into()));
                datagrams.map(|bytes| datagram::send(&self.socket, &first.label, None, &[IoSlice::new(bytes)])).fold(Ok(()), io::Result::and)
            }
            (result, _) => result,
        }
    }
}

/// How many of the first can go with one call: of the first's length but the last, which may be shorter.
fn run_length(queue: &[Waiting]) -> usize {
    let first = &queue[0];
    let (size, mut total) = (first.frame.len(), first.frame.len());
    if first.segment.is_some() {
        return 1;
    }
    for (count, next) in queue.iter().enumerate().skip(1) {
        let length = next.frame.len();
        total += length;
        if next.segment.is_some() || next.label != first.label || length > size || total > DATAGRAM_MOST || count >= SEGMENTS_MOST {
            return count;
        }
        if length < size {
            return count + 1;
        }
    }
    queue.len()
}

fn datagrams(waiting: &Waiting) -> u64 {
    waiting.segment.map_or(1, |segment| waiting.frame.len().div_ceil(usize::from(segment).max(1))) as u64
}

fn reason_of(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => DropReason::UnderlayMtu,
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::EgressFull,
        _ => DropReason::WriteFailed,
    }
}

pub(crate) const fn family_of(ip: IpAddr) -> usize {
    if ip.is_ipv4() { V4 } else { V6 }
}

const fn anywhere(family: usize) -> IpAddr {
    if family == V4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }
}

fn bound(family: usize, port: u16) -> io::Result<Socket> {
    bound_to(SocketAddr::new(anywhere(family), port))
}

fn bound_to(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&at.into())?;
    Ok(socket)
}

/// A socket that receives the datagrams of all tunnels at a port.
pub(crate) fn receiver(family: usize, port: u16) -> io::Result<Socket> {
    let socket = bound(family, port)?;
    datagram::set_up_receiving(&socket, family == V6)?;
    sys::force_receive_buffer(&socket, BUFFER);
    Ok(socket)
}

/// Joins a group on the interface that routes to it, or leaves it.
pub(crate) fn set_membership(socket: &Socket, group: IpAddr, member: bool) -> io::Result<()> {
    match (group, member) {
        (IpAddr::V4(group), true) => socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(0)),
        (IpAddr::V4(group), false) => socket.leave_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(0)),
        (IpAddr::V6(group), true) => socket.join_multicast_v6(&group, 0),
        (IpAddr::V6(group), false) => socket.leave_multicast_v6(&group, 0),
    }
}

/// What is known of the path to another node, bytes.
pub(crate) fn path_mtu(to: SocketAddr) -> Option<u16> {
    let socket = bound(family_of(to.ip()), 0).ok()?;
    socket.connect(&to.into()).ok()?;
    sys::path_mtu(&socket, to.is_ipv6())
}

/// Whether an address is one of this host: only those can be bound.
pub(crate) fn is_own(ip: IpAddr) -> bool {
    !ip.is_multicast() && bound_to(SocketAddr::new(ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use packet::{Pool, PoolConfig};

    use super::*;

    #[test]
    fn runs_are_of_one_label_and_length() {
        let pool = Pool::new(PoolConfig::default());
        let to = |last| SocketAddr::from(([192, 0, 2, last], 4789));
        let waiting = |length: usize, last: u8, segment| Waiting {
            port: PortId::new(0, 0),
            label: Label { to: to(last), ecn: 0, ttl: None },
            frame: pool.copy_of(&vec![0; length]).unwrap(),
            segment,
        };
        let queue = [(100, 1, None), (100, 1, None), (60, 1, None), (60, 1, None), (60, 2, None), (200, 2, Some(100)), (60, 2, None), (61, 2, None)];
        let queue: Vec<_> = queue.into_iter().map(|(length, last, segment)| waiting(length, last, segment)).collect();
        let (mut runs, mut at) = (Vec::new(), 0);
        while at < queue.len() {
            runs.push(run_length(&queue[at..]));
            at += runs[runs.len() - 1];
        }
        assert_eq!(runs, [3, 1, 1, 1, 1, 1]);
        assert_eq!(queue.iter().map(datagrams).max(), Some(2));
        let many: Vec<_> = (0..100).map(|_| waiting(100, 1, None)).collect();
        assert_eq!(run_length(&many), SEGMENTS_MOST);
        let long: Vec<_> = (0..50).map(|_| waiting(1500, 1, None)).collect();
        assert_eq!(run_length(&long), 43);
    }

    #[test]
    fn only_own_addresses_are_own() {
        assert!(is_own([127, 0, 0, 1].into()));
        assert!(!is_own([192, 0, 2, 1].into()) && !is_own([224, 0, 0, 1].into()));
    }
}
