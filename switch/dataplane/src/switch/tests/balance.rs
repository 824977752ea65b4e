//! Virtual addresses: the frames that come of them.

use packet::{Parsed, UnicastMac};

use super::*;
use crate::VipConfig;

const GATEWAY_MAC: [u8; 6] = [2, 0x42, 10, 0, 0, 1];
const VIP: [u8; 4] = [10, 0, 0, 100];
const CLIENT: ([u8; 6], [u8; 4], u16) = ([2, 0, 0, 0, 0, 7], [10, 0, 0, 7], 4000);
const SERVER: ([u8; 6], [u8; 4], u16) = ([2, 0, 0, 0, 0, 2], [10, 0, 0, 2], 80);
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

type Station = ([u8; 6], [u8; 4], u16);

/// A segment without data.
fn tcp(from: Station, to: Station, flags: u8) -> Vec<u8> {
    let mut l4 = [from.2.to_be_bytes(), to.2.to_be_bytes()].concat();
    l4.extend([0, 0, 0, 9, 0, 0, 0, 5, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet(from, to, 6, l4, 16)
}

fn udp(from: Station, to: Station) -> Vec<u8> {
    packet(from, to, 17, [&from.2.to_be_bytes()[..], &to.2.to_be_bytes(), &[0, 12, 0, 0], b"data"].concat(), 6)
}

fn echo(from: Station, to: Station) -> Vec<u8> {
    packet(from, to, 1, vec![8, 0, 0, 0, 0, 1, 0, 1], 2)
}

fn packet(from: Station, to: Station, number: u8, mut l4: Vec<u8>, sum_at: usize) -> Vec<u8> {
    let length = u16::try_from(20 + l4.len()).unwrap().to_be_bytes();
    let mut ip = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, number, 0, 0];
    ip.extend(from.1.into_iter().chain(to.1));
    let sum = !packet::checksum::fold(packet::checksum::sum(&ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let pseudo = if number == 1 { 0 } else { packet::checksum::pseudo_header(&ip, number, l4.len()).unwrap() };
    let sum = !packet::checksum::fold(packet::checksum::sum(&l4) + pseudo);
    l4[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    [&to.0[..], &from.0, &[8, 0], &ip, &l4].concat()
}

fn vip(port: u16) -> Station {
    (GATEWAY_MAC, VIP, port)
}

impl Bench {
    fn serve(&mut self, endpoints: &[Station]) {
        let endpoints = endpoints.iter().map(|station| (station.1.into(), UnicastMac::new(packet::Mac(station.0)).unwrap())).collect();
        self.apply(Command::SetVips(self.network, vec![VipConfig { address: VIP.into(), endpoints }]));
    }

    /// The one frame that comes of one, and where it leaves.
    #[track_caller]
    fn one(&mut self, from: PortId, bytes: &[u8]) -> (PortId, Vec<u8>) {
        let frame = self.switch.pool().copy_of(bytes).unwrap();
        self.switch.ingress(from, frame, Instant::ZERO, &mut self.out);
        assert_eq!(self.out.frames.len(), 1);
        let (port, sendable) = self.out.frames.pop().unwrap();
        let bytes = sendable.frame().bytes().to_vec();
        assert!(packet::checksum::verify(&bytes), "{bytes:02x?}");
        (port, bytes)
    }

    /// Makes the switch know where a station is.
    fn met(&mut self, port: PortId, station: Station) {
        self.send_bytes(port, &tcp(station, ([2, 0, 0, 0, 0, 99], [10, 0, 0, 99], 9), ACK));
    }
}

/// On this node, and behind a tunnel, where no gateway speaks: the client's MAC and address are kept.
#[test]
fn as_if_the_client_had_sent_it_there() {
    for tunnel in [false, true] {
        let mut bench = served();
        let a = bench.port(|_| {});
        let b = bench.port(|config| config.foreign = tunnel);
        bench.serve(&[SERVER]);
        bench.met(b, SERVER);
        let (port, seen) = bench.one(a, &tcp(CLIENT, vip(80), SYN));
        assert_eq!((port, &seen), (b, &tcp(CLIENT, SERVER, SYN)), "hops too");
        let (port, seen) = bench.one(b, &tcp(SERVER, CLIENT, SYN | ACK));
        assert_eq!((port, seen), (a, tcp((SERVER.0, VIP, 80), CLIENT, SYN | ACK)));
        // What is not balanced passes as it was.
        let other = tcp(SERVER, (CLIENT.0, CLIENT.1, 4001), SYN | ACK);
        assert_eq!(bench.one(b, &other), (a, other));
        let Reply::Vips(views) = bench.apply(Command::ShowVips(bench.network)) else { panic!("no views") };
        assert_eq!(views[0].endpoints, [(SERVER.1.into(), 1, 1)]);
        bench.apply(Command::SetVips(bench.network, vec![]));
        let late = tcp(SERVER, CLIENT, ACK);
        assert_eq!(bench.one(b, &late), (a, late));
    }
}

#[test]
fn the_gateway_answers_for_it() {
    let mut bench = served();
    let a = bench.port(|_| {});
    bench.port(|_| {});
    bench.serve(&[]);
    let mut question = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 10, 0, 0, 7];
    question.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 100]);
    assert_eq!(bench.send_bytes(a, &question), [a]);
    let (port, answer) = bench.one(a, &echo(CLIENT, vip(0)));
    assert_eq!((port, &answer[26..30], answer[34]), (a, &VIP[..], 0));
    // Who has an address of another subnet, or the virtual one, is not believed.
    for source in [[10, 0, 9, 7], VIP, [10, 0, 0, 1]] {
        assert_eq!(bench.send_bytes(a, &tcp((CLIENT.0, source, 1), vip(80), SYN)), []);
    }
    assert_eq!(bench.drops(a, DropReason::Martian), 3);
}

#[test]
fn refusals_are_told() {
    let mut bench = served();
    let a = bench.port(|_| {});
    bench.serve(&[]);
    let (_, reset) = bench.one(a, &tcp(CLIENT, vip(80), SYN));
    let ip = Parsed::new(&reset).unwrap().ip.unwrap();
    // RFC 9293 section 3.5.2: of a SYN its number and one more is acknowledged.
    assert_eq!((ip.source, &reset[38..47], reset[47]), (VIP.into(), &[0, 0, 0, 0, 0, 0, 0, 10, 0x50][..], RST | ACK));
    let (_, reset) = bench.one(a, &tcp(CLIENT, vip(80), ACK));
    assert_eq!((&reset[38..42], reset[47]), (&[0, 0, 0, 5][..], RST), "of what acknowledges, that is the number");
    assert_eq!(bench.send_bytes(a, &tcp(CLIENT, vip(80), RST)), [], "never about a reset");
    assert_eq!(bench.drops(a, DropReason::Vip), 1);
    let (_, error) = bench.one(a, &udp(CLIENT, vip(53)));
    assert_eq!((&error[26..30], &error[34..36]), (&VIP[..], &[3, 3][..]), "port unreachable");
}

/// The endpoint's port is told nothing, the client's gets its own repetition answered.
#[test]
fn a_refusal_is_kept_while_another_is_left() {
    let other = ([2, 0, 0, 0, 0, 3], [10, 0, 0, 3], 80);
    let mut bench = served();
    let [a, b, c] = [(); 3].map(|()| bench.port(|_| {}));
    bench.serve(&[SERVER, other]);
    bench.met(b, SERVER);
    bench.met(c, other);
    let (first, _) = bench.one(a, &tcp(CLIENT, vip(80), SYN));
    let (refuser, next) = if first == b { (SERVER, c) } else { (other, b) };
    assert_eq!(bench.send_bytes(first, &tcp(refuser, CLIENT, RST | ACK)), []);
    assert_eq!(bench.one(a, &tcp(CLIENT, vip(80), SYN)).0, next);
}

/// A client behind the router: its packets come under the gateway's MAC, and the answers go back there.
#[test]
fn from_elsewhere() {
    let mut bench = served();
    let b = bench.port(|_| {});
    bench.serve(&[SERVER]);
    bench.met(b, SERVER);
    let far = (GATEWAY_MAC, [10, 8, 0, 2], 4000);
    let frame = bench.switch.pool().copy_of(&tcp(far, vip(80), SYN)).unwrap();
    bench.switch.inject(bench.network, frame, Instant::ZERO, &mut bench.out);
    let (port, seen) = bench.out.frames.pop().unwrap();
    assert_eq!((port, seen.frame().bytes()), (b, &tcp(far, SERVER, SYN)[..]));
    assert_eq!(bench.send_bytes(b, &tcp(SERVER, far, SYN | ACK)), []);
    let (network, back) = bench.out.outside.pop().unwrap();
    assert_eq!((network, back.bytes()), (bench.network, &tcp((SERVER.0, VIP, 80), far, SYN | ACK)[..]));
    // A ping, and a refusal, go back the same way.
    bench.serve(&[]);
    for knock in [echo(far, vip(0)), tcp(far, vip(80), SYN)] {
        let frame = bench.switch.pool().copy_of(&knock).unwrap();
        bench.switch.inject(bench.network, frame, Instant::ZERO, &mut bench.out);
        let (_, answer) = bench.out.outside.pop().unwrap();
        assert_eq!((&answer.bytes()[26..30], &answer.bytes()[30..34]), (&VIP[..], &far.1[..]));
    }
}

/// It is its own client: it hears from the virtual address, through the gateway.
#[test]
fn a_server_asks_itself() {
    let mut bench = served();
    let b = bench.port(|_| {});
    bench.serve(&[SERVER]);
    bench.met(b, SERVER);
    let own = (SERVER.0, SERVER.1, 5000);
    let (port, seen) = bench.one(b, &tcp(own, vip(80), SYN));
    assert_eq!((port, seen), (b, tcp(vip(5000), SERVER, SYN)));
    let (port, seen) = bench.one(b, &tcp(SERVER, vip(5000), SYN | ACK));
    assert_eq!((port, seen), (b, tcp(vip(80), own, SYN | ACK)));
}
