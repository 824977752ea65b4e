//! Published ports with several targets: who is offered a connection, and what becomes of it when nobody answers. X5.
#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

mod common;

use std::{collections::VecDeque, io, net::SocketAddr};

use common::{A, ACK, RST, SYN, end, ip_packet, summed};
use packet::{Duration, Instant, Mac, Parsed, Pool, PoolConfig};
use weft_nat::proxy::{Network, NetworkError, Output, Proxy, Publish, Ready, Resolvers, SocketId, Sockets, Target, Transport};

const LISTENER: SocketId = SocketId(1);
const STATION: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// A host whose clients connect, send nothing and wait.
#[derive(Default)]
struct Host {
    clients: VecDeque<(SocketId, SocketAddr)>,
    datagrams: VecDeque<SocketAddr>,
    /// Closed, and whether by a reset.
    closed: Vec<(SocketId, bool)>,
}

impl Sockets for Host {
    fn tcp_connect(&mut self, _: SocketAddr) -> io::Result<SocketId> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
    fn tcp_outcome(&mut self, _: SocketId) -> Option<io::Result<()>> {
        None
    }
    fn tcp_accept(&mut self, _: SocketId) -> Option<(SocketId, SocketAddr)> {
        self.clients.pop_front()
    }
    fn tcp_send(&mut self, _: SocketId, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn tcp_room(&mut self, _: SocketId) -> usize {
        65_536
    }
    fn tcp_peek(&mut self, _: SocketId, _: usize, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn tcp_discard(&mut self, _: SocketId, _: usize) {}
    fn tcp_shutdown(&mut self, _: SocketId) {}
    fn udp_open(&mut self, _: bool) -> io::Result<SocketId> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn ping_open(&mut self, _: bool) -> io::Result<SocketId> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn datagram_send(&mut self, _: SocketId, _: SocketAddr, _: u8, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn datagram_receive(&mut self, _: SocketId, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let client = self.datagrams.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        into[0] = b'x';
        Ok((1, client))
    }
    fn datagram_error(&mut self, _: SocketId) -> Option<NetworkError> {
        None
    }
    fn close(&mut self, socket: SocketId, reset: bool) {
        self.closed.push((socket, reset));
    }
}

fn targets(ends: &[&str]) -> Vec<Target> {
    ends.iter().map(|inside| Target { inside: end(inside), mac: STATION }).collect()
}

struct World {
    proxy: Proxy,
    host: Host,
    now: Instant,
    output: Output,
}

/// Source, destination, flags and sequence number of a segment; flags are 0 of datagrams.
type Seen = (SocketAddr, SocketAddr, u8, u32);

impl World {
    fn new(transport: Transport, ends: &[&str]) -> Self {
        let mut proxy = Proxy::new(Pool::new(PoolConfig::default()));
        let network = Network {
            gateway_mac: Mac([2, 0, 0, 0, 0, 1]),
            gateways: vec!["10.0.0.1/24".parse().unwrap()],
            mtu: 1450,
            resolvers: Resolvers::default(),
            masquerade: false,
            stand_in: vec!["192.0.2.1".parse().unwrap()],
        };
        proxy.set_network(A, network);
        proxy.publish(LISTENER, Publish { network: A, transport, host: end("0.0.0.0:80"), targets: targets(ends) });
        Self { proxy, host: Host::default(), now: Instant::ZERO, output: Output::new() }
    }

    fn connect(&mut self, socket: u32, from: &str) -> Vec<Seen> {
        self.host.clients.push_back((SocketId(socket), end(from)));
        self.ready()
    }

    fn ready(&mut self) -> Vec<Seen> {
        self.proxy.ready(LISTENER, Ready { read: true, ..Ready::default() }, self.now, &mut self.host, &mut self.output);
        self.seen()
    }

    fn seen(&mut self) -> Vec<Seen> {
        let frames = self.output.drain(..).map(|(_, frame)| frame).collect::<Vec<_>>();
        let seen = |bytes: &[u8]| {
            let parsed = Parsed::new(bytes).unwrap();
            let (ip, ports) = (parsed.ip.unwrap(), parsed.l4_ports(bytes).unwrap());
            let l4 = &bytes[ip.l4_offset..];
            let (flags, seq) = if ip.protocol == 6 { (l4[13], u32::from_be_bytes(*l4[4..].first_chunk().unwrap())) } else { (0, 0) };
            (SocketAddr::new(ip.source, ports.0), SocketAddr::new(ip.destination, ports.1), flags, seq)
        };
        frames.iter().map(|frame| seen(frame.bytes())).collect()
    }

    /// A target answers a SYN.
    fn answer(&mut self, (client, inside, _, seq): Seen, flags: u8) -> Vec<Seen> {
        let mut l4 = [inside.port().to_be_bytes(), client.port().to_be_bytes()].concat();
        l4.extend(7_u32.to_be_bytes());
        l4.extend(seq.wrapping_add(1).to_be_bytes());
        l4.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        let ip = ip_packet(inside.ip(), client.ip(), 6, None, &summed(inside.ip(), client.ip(), 6, l4));
        let frame = Pool::new(PoolConfig::default()).copy_of(&[&[2, 0, 0, 0, 0, 1][..], &STATION.0, &[8, 0], &ip].concat()).unwrap();
        self.proxy.frame(A, &frame, self.now, &mut self.host, &mut self.output);
        self.seen()
    }

    fn wait(&mut self, milliseconds: u64) -> Vec<Seen> {
        self.now = self.now + Duration::from_millis(milliseconds);
        self.proxy.handle_timeout(self.now, &mut self.host, &mut self.output);
        self.seen()
    }
}

#[test]
fn each_connection_to_the_next_in_turn_as_from_its_client() {
    let mut world = World::new(Transport::Tcp, &["10.0.0.2:80", "10.0.0.3:81"]);
    for (socket, wanted) in [(10, "10.0.0.2:80"), (11, "10.0.0.3:81"), (12, "10.0.0.2:80")] {
        let seen = world.connect(socket, &format!("203.0.113.9:{}", 4000 + socket));
        assert_eq!((seen.len(), seen[0].0, seen[0].1, seen[0].2), (1, end(&format!("203.0.113.9:{}", 4000 + socket)), end(wanted), SYN));
    }
    // Whom nobody could answer to is seen as the stand-in, the same port of two as two.
    let ports: Vec<_> = [(13, "127.0.0.1:5000"), (14, "10.0.0.77:5000"), (15, "127.0.0.1:5000")].map(|(socket, from)| world.connect(socket, from)[0].0).into();
    assert_eq!(ports[..2], [end("192.0.2.1:5000"), end("192.0.2.1:5000")], "to different targets");
    assert_eq!(ports[2], end("192.0.2.1:49152"));
}

#[test]
fn who_refuses_or_is_silent_is_passed_over_and_the_client_does_not_notice() {
    let mut world = World::new(Transport::Tcp, &["10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"]);
    let first = world.connect(10, "203.0.113.9:4000")[0];
    let second = world.answer(first, RST | ACK);
    assert_eq!((second.len(), second[0].1, second[0].2), (1, end("10.0.0.3:80"), SYN));
    // Once again to the silent one, then to the next.
    assert_eq!(world.wait(200)[0].1, end("10.0.0.3:80"));
    let third = world.wait(400);
    assert_eq!((third.len(), third[0].1, third[0].0), (1, end("10.0.0.4:80"), end("203.0.113.9:4000")));
    let answered = world.answer(third[0], SYN | ACK);
    assert_eq!((answered.len(), answered[0].2 & SYN), (1, 0), "it stands");
    assert!(world.host.closed.is_empty());
    // When all have refused, the client hears of it.
    let mut asked = world.connect(11, "203.0.113.9:4001");
    for _ in 0..3 {
        assert_eq!((asked.len(), world.host.closed.len()), (1, 0));
        asked = world.answer(asked[0], RST | ACK);
    }
    assert_eq!((asked.len(), world.host.closed.as_slice()), (0, &[(SocketId(11), true)][..]));
}

#[test]
fn who_is_no_target_any_more_keeps_nothing() {
    let mut world = World::new(Transport::Tcp, &["10.0.0.2:80", "10.0.0.3:80"]);
    let (open, kept, waiting) = (world.connect(10, "203.0.113.9:4000")[0], world.connect(11, "203.0.113.9:4001")[0], world.connect(12, "203.0.113.9:4002")[0]);
    world.answer(open, SYN | ACK);
    world.answer(kept, SYN | ACK);
    assert_eq!(waiting.1, end("10.0.0.2:80"));
    world.proxy.retarget(LISTENER, targets(&["10.0.0.3:80"]), world.now, &mut world.host, &mut world.output);
    let moved = world.seen();
    assert_eq!((moved.len(), moved[0].0, moved[0].1), (1, waiting.0, end("10.0.0.3:80")), "who waits goes to who is left");
    assert_eq!(world.host.closed, [(SocketId(10), true)], "what was open ends");
    world.proxy.retarget(LISTENER, Vec::new(), world.now, &mut world.host, &mut world.output);
    assert_eq!(world.host.closed.len(), 3);
    assert!(world.connect(13, "203.0.113.9:4003").is_empty());
    assert_eq!(world.host.closed.last(), Some(&(SocketId(13), true)));
}

#[test]
fn datagrams_of_a_client_stay_with_a_target_as_long_as_it_is_one() {
    let mut world = World::new(Transport::Udp, &["10.0.0.2:53", "10.0.0.3:53"]);
    let ask = |world: &mut World, from: &str| {
        world.host.datagrams.push_back(end(from));
        world.ready().into_iter().map(|(client, inside, ..)| (client, inside)).collect::<Vec<_>>()
    };
    let (one, other) = ("203.0.113.9:4000", "203.0.113.9:4001");
    for _ in 0..3 {
        assert_eq!(ask(&mut world, one), [(end(one), end("10.0.0.2:53"))]);
        assert_eq!(ask(&mut world, other), [(end(other), end("10.0.0.3:53"))]);
    }
    world.proxy.retarget(LISTENER, targets(&["10.0.0.3:53"]), world.now, &mut world.host, &mut world.output);
    assert_eq!(ask(&mut world, one), [(end(one), end("10.0.0.3:53"))]);
    assert_eq!(ask(&mut world, other), [(end(other), end("10.0.0.3:53"))]);
}
