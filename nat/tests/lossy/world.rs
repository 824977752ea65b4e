//! A sandbox's link that loses, doubles and delays packets, the proxy behind it, and a host that echoes.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
};

use packet::{Frame, Gso, Instant, Mac, NetworkId, Pool, PoolConfig, checksum, segment};
use smoltcp::{
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant as SmolInstant,
};
use weft_nat::proxy::{Network, NetworkError, Output, Proxy, Ready, Resolvers, SocketId, Sockets};

pub(crate) const INSIDE: Mac = Mac([2, 0, 0, 0, 0, 2]);
pub(crate) const GATEWAY: Mac = Mac([2, 0x42, 10, 0, 0, 1]);

/// Connections whose far end sends back what it gets, until it is told that no more will come.
#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) streams: HashMap<u32, Stream>,
    next: u32,
    /// Bytes that a stream takes before it is read: back-pressure.
    buffer: usize,
}

#[derive(Default)]
pub(crate) struct Stream {
    pub(crate) waiting: VecDeque<u8>,
    ended: bool,
    pub(crate) echoed: usize,
}

impl Sockets for Echo {
    fn tcp_connect(&mut self, to: SocketAddr) -> io::Result<SocketId> {
        if to.port() == 81 {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.next += 1;
        self.streams.insert(self.next, Stream::default());
        Ok(SocketId(self.next))
    }

    fn tcp_outcome(&mut self, _: SocketId) -> Option<io::Result<()>> {
        Some(Ok(()))
    }

    fn tcp_accept(&mut self, _: SocketId) -> Option<(SocketId, SocketAddr)> {
        None
    }

    fn tcp_send(&mut self, socket: SocketId, bytes: &[u8]) -> io::Result<usize> {
        let room = self.tcp_room(socket);
        let stream = self.streams.get_mut(&socket.0).unwrap();
        let taken = bytes.len().min(room);
        stream.waiting.extend(&bytes[..taken]);
        stream.echoed += taken;
        Ok(taken)
    }

    fn tcp_room(&mut self, socket: SocketId) -> usize {
        self.buffer.saturating_sub(self.streams[&socket.0].waiting.len())
    }

    fn tcp_peek(&mut self, socket: SocketId, offset: usize, into: &mut [u8]) -> io::Result<usize> {
        let stream = self.streams.get_mut(&socket.0).unwrap();
        let count = into.len().min(stream.waiting.len() - offset);
        if count == 0 && !stream.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for (to, from) in into.iter_mut().zip(stream.waiting.range(offset..)) {
            *to = *from;
        }
        Ok(count)
    }

    fn tcp_discard(&mut self, socket: SocketId, count: usize) {
        let stream = self.streams.get_mut(&socket.0).unwrap();
        drop(stream.waiting.drain(..count));
    }

    fn tcp_shutdown(&mut self, socket: SocketId) {
        self.streams.get_mut(&socket.0).unwrap().ended = true;
    }

    fn udp_open(&mut self, _: bool) -> io::Result<SocketId> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn ping_open(&mut self, _: bool) -> io::Result<SocketId> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn datagram_send(&mut self, _: SocketId, _: SocketAddr, _: u8, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn datagram_receive(&mut self, _: SocketId, _: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn datagram_error(&mut self, _: SocketId) -> Option<NetworkError> {
        None
    }

    fn close(&mut self, socket: SocketId, _: bool) {
        self.streams.remove(&socket.0);
    }
}

#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) to_host: VecDeque<Vec<u8>>,
    pub(crate) from_host: Vec<Vec<u8>>,
}

pub(crate) struct Rx(Vec<u8>);
pub(crate) struct Tx<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut bytes = vec![0; length];
        let result = f(&mut bytes);
        self.0.push(bytes);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Rx, Tx<'_>)> {
        Some((Rx(self.to_host.pop_front()?), Tx(&mut self.from_host)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.from_host))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// What happens to packets, of a hundred.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    /// Come twice.
    pub(crate) doubled: u64,
    /// Come a millisecond late, behind others.
    pub(crate) delayed: u64,
}

pub(crate) struct World {
    pub(crate) proxy: Proxy,
    pub(crate) echo: Echo,
    pub(crate) pool: Pool,
    pub(crate) wire: Wire,
    random: u64,
    faults: Faults,
    /// Packets that are late, to the proxy and to the sandbox.
    late: [Vec<Vec<u8>>; 2],
    pub(crate) now: u64,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults, buffer: usize) -> Self {
        let pool = Pool::new(PoolConfig::default());
        let mut proxy = Proxy::new(pool.clone());
        let network = Network { gateway_mac: GATEWAY, gateways: vec!["10.0.0.1/24".parse().unwrap()], mtu: 1500, resolvers: Resolvers::default(), masquerade: true, stand_in: Vec::new() };
        proxy.set_network(NetworkId::new(0, 0), network);
        Self { proxy, echo: Echo { buffer, ..Echo::default() }, pool, wire: Wire::default(), random: seed, faults, late: [Vec::new(), Vec::new()], now: 0 }
    }

    fn happens(&mut self, percent: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100 < percent
    }

    /// How often a packet that goes that way arrives now.
    fn copies(&mut self, way: usize, bytes: &[u8]) -> usize {
        let Faults { lost, doubled, delayed } = self.faults;
        if self.happens(lost) {
            return 0;
        }
        if self.happens(delayed) {
            self.late[way].push(bytes.to_vec());
            return 0;
        }
        if self.happens(doubled) { 2 } else { 1 }
    }

    /// One millisecond: what the sandbox sent, the clock, and what comes back.
    pub(crate) fn turn(&mut self) {
        self.now += 1_000_000;
        let now = Instant::from_nanos(self.now);
        let mut out = Output::new();
        let (late, sent) = (std::mem::take(&mut self.late[0]), std::mem::take(&mut self.wire.from_host));
        for bytes in late {
            self.take(&bytes, &mut out);
        }
        for bytes in sent {
            if bytes[12..14] == [8, 6] {
                self.answer_arp(&bytes);
                continue;
            }
            for _ in 0..self.copies(0, &bytes) {
                self.take(&bytes, &mut out);
            }
        }
        let mut sockets: Vec<u32> = self.echo.streams.keys().copied().collect();
        sockets.sort_unstable();
        for socket in sockets {
            self.proxy.ready(SocketId(socket), Ready { read: true, write: true, error: false }, now, &mut self.echo, &mut out);
        }
        if self.proxy.poll_timeout().is_some_and(|at| at <= now) {
            self.proxy.handle_timeout(now, &mut self.echo, &mut out);
        }
        self.proxy.flush(now, &mut self.echo, &mut out);
        let late = std::mem::take(&mut self.late[1]);
        self.wire.to_host.extend(late);
        for (_, frame) in out {
            self.deliver(frame);
        }
    }

    fn take(&mut self, bytes: &[u8], out: &mut Output) {
        let frame = self.pool.copy_of(bytes).unwrap();
        self.proxy.frame(NetworkId::new(0, 0), &frame, Instant::from_nanos(self.now), &mut self.echo, out);
    }

    /// Cut and finished, as a port without offloads gets it.
    fn deliver(&mut self, mut frame: Frame) {
        let mut parts = Vec::new();
        if frame.offload.gso == Gso::None {
            checksum::complete(&mut frame);
            parts.push(frame);
        } else {
            segment(&frame, &self.pool, |part| parts.push(part)).unwrap();
        }
        for part in parts {
            assert!(checksum::verify(part.bytes()), "{part:?}");
            for _ in 0..self.copies(1, part.bytes()) {
                self.wire.to_host.push_back(part.bytes().to_vec());
            }
        }
    }

    fn answer_arp(&mut self, request: &[u8]) {
        let mut reply = request.to_vec();
        reply[..6].copy_from_slice(&request[6..12]);
        reply[6..12].copy_from_slice(&GATEWAY.0);
        reply[21] = 2;
        reply[22..28].copy_from_slice(&GATEWAY.0);
        reply[28..32].copy_from_slice(&request[38..42]);
        reply[32..38].copy_from_slice(&request[22..28]);
        reply[38..42].copy_from_slice(&request[28..32]);
        self.wire.to_host.push_back(reply);
    }
}
