//! A smoltcp host behind a link that loses frames, the proxy, and a host that echoes: every byte comes
//! back, in order, and both ends close. Virtual time, seeded.
#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests")]

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
};

use weft_nat::proxy::{Network, NetworkError, Output, Proxy, Ready, Resolvers, SocketId, Sockets};
use packet::{Duration, Frame, Gso, Instant, Mac, NetworkId, Pool, PoolConfig, checksum, segment};
use smoltcp::{
    iface::{Config, Interface, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp,
    time::Instant as SmolInstant,
    wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address},
};

const INSIDE: Mac = Mac([2, 0, 0, 0, 0, 2]);
const GATEWAY: Mac = Mac([2, 0x42, 10, 0, 0, 1]);

/// Connections whose far end sends back what it gets, until it is told that no more will come.
#[derive(Default)]
struct Echo {
    streams: HashMap<u32, Stream>,
    next: u32,
    /// Bytes that a stream takes before it is read: back-pressure.
    buffer: usize,
}

#[derive(Default)]
struct Stream {
    waiting: VecDeque<u8>,
    peeked: usize,
    ended: bool,
    echoed: usize,
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

    fn tcp_peek(&mut self, socket: SocketId, into: &mut [u8]) -> io::Result<usize> {
        let stream = self.streams.get_mut(&socket.0).unwrap();
        let count = into.len().min(stream.waiting.len() - stream.peeked);
        if count == 0 && !stream.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for (to, from) in into.iter_mut().zip(stream.waiting.range(stream.peeked..)) {
            *to = *from;
        }
        stream.peeked += count;
        Ok(count)
    }

    fn tcp_rewind(&mut self, socket: SocketId) {
        self.streams.get_mut(&socket.0).unwrap().peeked = 0;
    }

    fn tcp_discard(&mut self, socket: SocketId, count: usize) {
        let stream = self.streams.get_mut(&socket.0).unwrap();
        drop(stream.waiting.drain(..count));
        stream.peeked = stream.peeked.saturating_sub(count);
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
struct Wire {
    to_host: VecDeque<Vec<u8>>,
    from_host: Vec<Vec<u8>>,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut Vec<Vec<u8>>);

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

struct World {
    proxy: Proxy,
    echo: Echo,
    pool: Pool,
    wire: Wire,
    random: u64,
    loss_percent: u64,
    now: u64,
}

impl World {
    fn new(seed: u64, loss_percent: u64, buffer: usize) -> Self {
        let pool = Pool::new(PoolConfig::default());
        let mut proxy = Proxy::new(pool.clone());
        let network = Network { gateway_mac: GATEWAY, gateways: vec!["10.0.0.1/24".parse().unwrap()], mtu: 1500, resolvers: Resolvers::default(), masquerade: true };
        proxy.set_network(NetworkId::new(0, 0), network);
        Self { proxy, echo: Echo { buffer, ..Echo::default() }, pool, wire: Wire::default(), random: seed, loss_percent, now: 0 }
    }

    fn is_lost(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100 < self.loss_percent
    }

    /// One millisecond: what the host sent, the clock, and what comes back.
    fn turn(&mut self) {
        self.now += 1_000_000;
        let now = Instant::from_nanos(self.now);
        let mut out = Output::new();
        for bytes in std::mem::take(&mut self.wire.from_host) {
            if bytes[12..14] == [8, 6] {
                self.answer_arp(&bytes);
            } else if !self.is_lost() {
                let frame = self.pool.copy_of(&bytes).unwrap();
                self.proxy.frame(NetworkId::new(0, 0), &frame, now, &mut self.echo, &mut out);
            }
        }
        for socket in self.echo.streams.keys().copied().collect::<Vec<_>>() {
            self.proxy.ready(SocketId(socket), Ready { read: true, write: true, error: false }, now, &mut self.echo, &mut out);
        }
        if self.proxy.poll_timeout().is_some_and(|at| at <= now) {
            self.proxy.handle_timeout(now, &mut self.echo, &mut out);
        }
        self.proxy.flush(now, &mut self.echo, &mut out);
        for (_, frame) in out {
            self.deliver(frame);
        }
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
            if !self.is_lost() {
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

fn pattern(at: usize) -> u8 {
    ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn bulk(seed: u64, loss_percent: u64, buffer: usize, total: usize) {
    let mut world = World::new(seed, loss_percent, buffer);
    let mut interface = Interface::new(Config::new(HardwareAddress::Ethernet(EthernetAddress(INSIDE.0))), &mut world.wire, SmolInstant::ZERO);
    interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, 2), 24)).unwrap());
    interface.routes_mut().add_default_ipv4_route(Ipv4Address::new(10, 0, 0, 1)).unwrap();
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(tcp::Socket::new(tcp::SocketBuffer::new(vec![0; 65_536]), tcp::SocketBuffer::new(vec![0; 65_536])));
    sockets.get_mut::<tcp::Socket>(handle).connect(interface.context(), (IpAddress::v4(192, 0, 2, 7), 80), 4000).unwrap();
    let (mut sent, mut received) = (0, 0);
    for _ in 0..2_000_000 {
        let socket = sockets.get_mut::<tcp::Socket>(handle);
        while socket.can_send() && sent < total {
            let chunk: Vec<u8> = (sent..total.min(sent + 8192)).map(pattern).collect();
            match socket.send_slice(&chunk).unwrap() {
                0 => break,
                count => sent += count,
            }
        }
        if sent == total && socket.may_send() {
            socket.close();
        }
        while socket.can_recv() {
            let fresh = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
            assert!(fresh.iter().enumerate().all(|(at, byte)| *byte == pattern(received + at)), "seed {seed}: bytes {received}..");
            received += fresh.len();
        }
        let at_end = received == total && !socket.may_recv();
        if at_end && world.proxy.flows().is_empty() {
            assert!(world.echo.streams.is_empty(), "seed {seed}: the host socket is closed");
            return;
        }
        interface.poll(SmolInstant::from_micros((world.now / 1000) as i64), &mut world.wire, &mut sockets);
        world.turn();
    }
    panic!("seed {seed}: {sent} sent, {received} of {total} received, flows {:?}", world.proxy.flows());
}

#[test]
fn whole_without_loss() {
    bulk(1, 0, 1 << 20, 8 << 20);
}

#[test]
fn whole_with_one_percent_lost() {
    for seed in 1..6 {
        bulk(seed * 77, 1, 1 << 20, 1 << 20);
    }
}

#[test]
fn whole_with_five_percent_lost() {
    for seed in 1..6 {
        bulk(seed * 1313, 5, 1 << 20, 256 << 10);
    }
}

#[test]
fn back_pressure_of_a_small_buffer() {
    bulk(5, 0, 4096, 256 << 10);
    bulk(7, 2, 3000, 64 << 10);
}

#[test]
fn flows_that_nobody_uses_end() {
    let mut world = World::new(9, 0, 1 << 20);
    let syn = [&GATEWAY.0[..], &INSIDE.0, &[8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 192, 0, 2, 7, 15, 160, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 255, 255, 0, 0, 0, 0]].concat();
    let mut syn = world.pool.copy_of(&syn).unwrap();
    let field = |sum: u64| (!checksum::fold(sum)).to_be_bytes();
    let header = field(checksum::sum(&syn.bytes()[14..34]));
    syn.bytes_mut()[24..26].copy_from_slice(&header);
    let segment = field(checksum::sum(&syn.bytes()[34..]) + checksum::pseudo_header(&syn.bytes()[14..], 6, 20).unwrap());
    syn.bytes_mut()[50..52].copy_from_slice(&segment);
    world.wire.from_host.push(syn.bytes().to_vec());
    world.turn();
    assert_eq!(world.proxy.flows().len(), 1);
    // The handshake is never finished: it is asked for again, and then given up.
    for _ in 0..600 {
        world.now += Duration::from_secs(1).as_nanos() as u64;
        world.turn();
    }
    assert!(world.proxy.flows().is_empty() && world.echo.streams.is_empty());
}
