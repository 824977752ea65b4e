//! The host sockets of the uplink. Each is non-blocking and known to mio as [`FIRST`] plus its number.

use std::{
    io,
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use nat::proxy::{NetworkError, SocketId, Sockets};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::sys::socket as sys;

/// Tokens from here on are sockets; ports are far below.
pub(crate) const FIRST: usize = 1 << 40;
/// Send buffer that is asked for where that is allowed, bytes; elsewhere the kernel tunes it.
const SEND_BUFFER: usize = 4 << 20;
/// Bytes that one peek may have to skip on kernels without `SO_PEEK_OFF` for TCP.
const SKIP: usize = 512 * 1024;

#[derive(Debug)]
enum Kind {
    Stream {
        /// Where the kernel peeks next, bytes behind the first that was not taken off; it keeps count itself, if it can.
        next_peek: Option<usize>,
    },
    Listener,
    Datagram {
        hops: u8,
    },
    /// By a raw socket, replies to this identifier are ours; a ping socket sees only its own.
    Echo {
        raw: Option<u16>,
        hops: u8,
    },
}

#[derive(Debug)]
struct Entry {
    socket: Socket,
    kind: Kind,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct HostSockets {
    registry: Registry,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    next_echo: u16,
    skipped: Vec<u8>,
    batch: Batch,
    /// Sockets at most: the rest of the descriptors is for control and ports.
    most: usize,
}

/// Datagrams of one size to one place, for one system call (udp(7), UDP_SEGMENT).
#[derive(Debug, Default)]
struct Batch {
    to: Option<(SocketId, SocketAddr, u8)>,
    size: usize,
    bytes: Vec<u8>,
}

/// The kernel takes 64 segments, and 65,507 bytes, at once.
const SEGMENTS: usize = 64;
const BATCH_BYTES: usize = 60_000;
/// Longer datagrams would be fragmented, which the kernel does not do to segments.
const LONGEST_SEGMENT: usize = 1200;

impl HostSockets {
    /// None yet.
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry, entries: Vec::new(), free: Vec::new(), next_echo: 1, skipped: Vec::new(), batch: Batch::default(), most: most_sockets() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.entries.len()
    }

    /// Takes over a socket that listens (TCP) or is bound (UDP).
    pub(crate) fn add_listener(&mut self, fd: OwnedFd, stream: bool) -> io::Result<SocketId> {
        self.add(Socket::from(fd), if stream { Kind::Listener } else { Kind::Datagram { hops: 0 } })
    }

    fn add(&mut self, socket: Socket, kind: Kind) -> io::Result<SocketId> {
        if self.entries.len() - self.free.len() >= self.most {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.registry.register(&mut SourceFd(&socket.as_raw_fd()), Token(FIRST + id as usize), interest) {
            self.free.push(id);
            return Err(error);
        }
        self.entries[id as usize] = Some(Entry { socket, kind });
        Ok(SocketId(id))
    }

    fn entry(&mut self, id: SocketId) -> io::Result<&mut Entry> {
        self.entries.get_mut(id.0 as usize).and_then(Option::as_mut).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The socket of datagrams, with the hops of those that follow set.
    fn set_hops(&mut self, socket: SocketId, to: SocketAddr, hops: u8) -> io::Result<&mut Entry> {
        let entry = self.entry(socket)?;
        let (Kind::Datagram { hops: set } | Kind::Echo { hops: set, .. }) = &mut entry.kind else { return Err(io::ErrorKind::InvalidInput.into()) };
        if *set != hops {
            *set = hops;
            if to.is_ipv4() { entry.socket.set_ttl_v4(u32::from(hops)) } else { entry.socket.set_unicast_hops_v6(u32::from(hops)) }.ok();
        }
        Ok(entry)
    }

    fn add_stream(&mut self, socket: Socket) -> io::Result<SocketId> {
        socket.set_tcp_nodelay(true).ok();
        // Should this process end, peers must not take what they have for the whole.
        socket.set_linger(Some(std::time::Duration::ZERO)).ok();
        sys::force_send_buffer(&socket, SEND_BUFFER);
        let next_peek = sys::set_peek_offset(&socket, 0).is_ok().then_some(0);
        self.add(socket, Kind::Stream { next_peek })
    }
}

/// Three quarters of the descriptors that this process may have.
fn most_sockets() -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    usize::try_from(soft - soft / 4).unwrap_or(usize::MAX)
}

fn domain(ipv6: bool) -> Domain {
    if ipv6 { Domain::IPV6 } else { Domain::IPV4 }
}

fn address(from: &SockAddr) -> io::Result<SocketAddr> {
    from.as_socket().ok_or_else(|| io::ErrorKind::Interrupted.into())
}

impl Sockets for HostSockets {
    fn tcp_connect(&mut self, to: SocketAddr) -> io::Result<SocketId> {
        let socket = Socket::new(domain(to.is_ipv6()), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        self.add_stream(socket)
    }

    fn tcp_outcome(&mut self, socket: SocketId) -> Option<io::Result<()>> {
        let entry = match self.entry(socket) {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        match entry.socket.take_error() {
            Ok(Some(error)) | Err(error) => Some(Err(error)),
            Ok(None) => entry.socket.peer_addr().is_ok().then_some(Ok(())),
        }
    }

    fn tcp_accept(&mut self, listener: SocketId) -> Option<(SocketId, SocketAddr)> {
        loop {
            let accepted = self.entry(listener).ok()?.socket.accept4_nonblocking();
            match accepted {
                Ok((socket, from)) => {
                    if let (Ok(from), Ok(id)) = (address(&from), self.add_stream(socket)) {
                        return Some((id, from));
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
                Err(_) => return None,
            }
        }
    }

    fn tcp_send(&mut self, socket: SocketId, bytes: &[u8]) -> io::Result<usize> {
        self.entry(socket)?.socket.send_with_flags(bytes, libc::MSG_NOSIGNAL)
    }

    fn tcp_room(&mut self, socket: SocketId) -> usize {
        self.entry(socket).map_or(0, |entry| sys::send_room(&entry.socket))
    }

    fn tcp_peek(&mut self, socket: SocketId, offset: usize, into: &mut [u8]) -> io::Result<usize> {
        let entry = self.entries.get_mut(socket.0 as usize).and_then(Option::as_mut).ok_or(io::ErrorKind::NotConnected)?;
        let Kind::Stream { next_peek } = &mut entry.kind else { return Err(io::ErrorKind::InvalidInput.into()) };
        let Some(next) = next_peek else {
            if self.skipped.is_empty() {
                self.skipped.resize(SKIP, 0);
            }
            return sys::peek(&entry.socket, &mut self.skipped[..offset.min(SKIP)], into);
        };
        if *next != offset {
            sys::set_peek_offset(&entry.socket, i32::try_from(offset).map_err(io::Error::other)?)?;
            *next = offset;
        }
        let count = sys::peek(&entry.socket, &mut [], into)?;
        *next += count;
        Ok(count)
    }

    fn tcp_discard(&mut self, socket: SocketId, count: usize) {
        if let Ok(entry) = self.entry(socket)
            && let Kind::Stream { next_peek } = &mut entry.kind
        {
            *next_peek = next_peek.map(|next| next.saturating_sub(count));
            sys::discard(&entry.socket, count);
        }
    }

    fn tcp_shutdown(&mut self, socket: SocketId) {
        if let Ok(entry) = self.entry(socket) {
            entry.socket.shutdown(Shutdown::Write).ok();
        }
    }

    fn udp_open(&mut self, ipv6: bool) -> io::Result<SocketId> {
        let socket = Socket::new(domain(ipv6), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        sys::report_errors(&socket, ipv6)?;
        self.add(socket, Kind::Datagram { hops: 0 })
    }

    fn ping_open(&mut self, ipv6: bool) -> io::Result<SocketId> {
        let protocol = if ipv6 { Protocol::ICMPV6 } else { Protocol::ICMPV4 };
        let plain = Socket::new(domain(ipv6), Type::DGRAM.nonblocking().cloexec(), Some(protocol));
        let (socket, raw) = match plain {
            Ok(socket) => (socket, None),
            Err(_) => {
                self.next_echo = self.next_echo.wrapping_add(1).max(1);
                (Socket::new(domain(ipv6), Type::RAW.nonblocking().cloexec(), Some(protocol))?, Some(self.next_echo))
            }
        };
        sys::report_errors(&socket, ipv6)?;
        self.add(socket, Kind::Echo { raw, hops: 0 })
    }

    fn datagram_send(&mut self, socket: SocketId, to: SocketAddr, hops: u8, bytes: &[u8]) -> io::Result<()> {
        let entry = self.set_hops(socket, to, hops)?;
        let mut own;
        let mut message = bytes;
        if let Kind::Echo { raw: Some(ident), .. } = entry.kind
            && bytes.len() >= 8
        {
            own = bytes.to_vec();
            own[4..6].copy_from_slice(&ident.to_be_bytes());
            own[2..4].fill(0);
            // A raw socket's ICMP checksum is the sender's to make; ICMPv6's is the kernel's.
            let sum = !packet::checksum::fold(packet::checksum::sum(&own));
            own[2..4].copy_from_slice(&sum.to_be_bytes());
            message = &own;
        }
        // An error of an earlier datagram is reported by the next call: it says nothing about this one.
        for _ in 0..2 {
            match entry.socket.send_to(message, &to.into()) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                other => return other.map(drop),
            }
        }
        Ok(())
    }

    fn datagram_queue(&mut self, socket: SocketId, to: SocketAddr, hops: u8, bytes: &[u8], size: usize) {
        for part in bytes.chunks(size.max(1)) {
            if part.len() > LONGEST_SEGMENT {
                self.datagram_flush();
                drop(self.datagram_send(socket, to, hops, part));
                continue;
            }
            let batch = &mut self.batch;
            let follows = batch.to == Some((socket, to, hops)) && part.len() == batch.size && batch.bytes.len() < batch.size * SEGMENTS && batch.bytes.len() + part.len() <= BATCH_BYTES;
            if !follows {
                self.datagram_flush();
                self.batch.to = Some((socket, to, hops));
                self.batch.size = part.len();
            }
            self.batch.bytes.extend_from_slice(part);
        }
    }

    fn datagram_flush(&mut self) {
        let Some((socket, to, hops)) = self.batch.to.take() else { return };
        let (bytes, size) = (std::mem::take(&mut self.batch.bytes), self.batch.size);
        let many = bytes.len() > size;
        let together = many && self.set_hops(socket, to, hops).is_ok_and(|entry| sys::send_segments(&entry.socket, &to.into(), &bytes, size).is_ok());
        if !together {
            for part in bytes.chunks(size.max(1)) {
                drop(self.datagram_send(socket, to, hops, part));
            }
        }
        self.batch.bytes = bytes;
        self.batch.bytes.clear();
    }

    fn datagram_receive(&mut self, socket: SocketId, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let entry = self.entry(socket)?;
        let view: &mut [MaybeUninit<u8>] = sys::as_uninit(into);
        let (length, from) = entry.socket.recv_from(view).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => error,
            // An error about an earlier datagram; the next call may have a datagram.
            _ => io::ErrorKind::Interrupted.into(),
        })?;
        let from = address(&from)?;
        let Kind::Echo { raw, .. } = entry.kind else { return Ok((length, from)) };
        // A raw IPv4 socket gives the IP header too (raw(7)).
        let skip = if raw.is_some() && from.is_ipv4() { usize::from(into[0] & 0xf) * 4 } else { 0 };
        let reply = if from.is_ipv4() { 0 } else { 129 };
        let is_ours = length >= skip + 8 && into[skip] == reply && raw.is_none_or(|ident| into[skip + 4..skip + 6] == ident.to_be_bytes());
        if !is_ours {
            return Err(io::ErrorKind::Interrupted.into());
        }
        into.copy_within(skip..length, 0);
        Ok((length - skip, from))
    }

    fn datagram_error(&mut self, socket: SocketId) -> Option<NetworkError> {
        sys::next_error(&self.entry(socket).ok()?.socket)
    }

    fn close(&mut self, socket: SocketId, reset: bool) {
        let Some(entry) = self.entries.get_mut(socket.0 as usize).and_then(Option::take) else { return };
        if !reset && matches!(entry.kind, Kind::Stream { .. }) {
            entry.socket.set_linger(None).ok();
        }
        self.registry.deregister(&mut SourceFd(&entry.socket.as_raw_fd())).ok();
        self.free.push(socket.0);
    }
}

/// accept(2) that leaves the new socket non-blocking.
trait AcceptNonblocking {
    fn accept4_nonblocking(&self) -> io::Result<(Socket, SockAddr)>;
}

impl AcceptNonblocking for Socket {
    fn accept4_nonblocking(&self) -> io::Result<(Socket, SockAddr)> {
        let (socket, from) = self.accept()?;
        socket.set_nonblocking(true)?;
        Ok((socket, from))
    }
}
