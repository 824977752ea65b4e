//! The short way of a packet against the long way: whatever was asked for and sent before, both do the same.

use nat::{Forward, ForwardError, ForwardId, Inside, Translation};
use packet::{Duration, PoolConfig, checksum};
use proptest::prelude::*;

use super::*;

const INSIDE: NetworkId = NetworkId::new(0, 0);
const BESIDE: NetworkId = NetworkId::new(1, 0);
const UPLINK: NetworkId = NetworkId::new(2, 0);
const EXTERNAL: [u8; 4] = [192, 0, 2, 9];

fn station(number: u8) -> UnicastMac {
    UnicastMac::new(Mac([2, 0, 0, 0, 0, number])).unwrap()
}

fn link(number: u8, address: &str, mtu: u16) -> Link {
    Link { mac: station(number), addresses: vec![address.parse().unwrap()], mtu }
}

/// What is done to both.
#[derive(Clone, Debug)]
enum Step {
    /// A packet from a sandbox, or to what stands for it outside.
    Packet { inwards: bool, is_tcp: bool, host: u8, port: u16, remote: u8, flags: u8, hops: u8, size: usize, whole: bool },
    Wait(u64),
    SetUplink(u8, u16),
    SetNetwork(u8, u16),
    RemoveNetwork,
    RemoveInside(u8),
    SetMtu(u8, Option<u16>),
    SetVip(Option<u8>),
    Forward(u16),
    SetRoute(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![1 => Just(2_u8), 6 => Just(16), 1 => Just(17), 1 => Just(4)];
    let packet = (any::<bool>(), any::<bool>(), 2..5_u8, 0..2_u16, 1..4_u8, flags, prop_oneof![8 => Just(64_u8), 1 => 0..3_u8], 0..900_usize, prop::bool::weighted(0.9));
    prop_oneof![
        30 => packet.prop_map(|(inwards, is_tcp, host, port, remote, flags, hops, size, whole)| Step::Packet { inwards, is_tcp, host, port, remote, flags, hops, size, whole }),
        6 => (0..12_000_u64).prop_map(Step::Wait),
        1 => (0..400_u64).prop_map(|seconds| Step::Wait(seconds * 1000)),
        1 => (100..102_u8, prop_oneof![Just(1500_u16), Just(600)]).prop_map(|(mac, mtu)| Step::SetUplink(mac, mtu)),
        1 => (110..112_u8, prop_oneof![Just(1500_u16), Just(600)]).prop_map(|(mac, mtu)| Step::SetNetwork(mac, mtu)),
        1 => Just(Step::RemoveNetwork),
        1 => (2..5_u8).prop_map(Step::RemoveInside),
        1 => (2..5_u8, proptest::option::of(500..700_u16)).prop_map(|(host, mtu)| Step::SetMtu(host, mtu)),
        1 => proptest::option::of(2..5_u8).prop_map(Step::SetVip),
        1 => (0..2_u16).prop_map(Step::Forward),
        1 => any::<bool>().prop_map(Step::SetRoute),
    ]
}

/// An IPv4 packet to a router, its checksums right.
fn packet(is_tcp: bool, (source, from): ([u8; 4], u16), (destination, to): ([u8; 4], u16), flags: u8, hops: u8, size: usize) -> Vec<u8> {
    let mut l4 = [from.to_be_bytes(), to.to_be_bytes()].concat();
    if is_tcp {
        l4.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    } else {
        l4.extend(u16::try_from(8 + size).unwrap().to_be_bytes());
        l4.extend([0, 0]);
    }
    l4.resize(l4.len() + size, 7);
    let number = if is_tcp { 6 } else { 17 };
    let mut ip = vec![0x45, 0];
    ip.extend(u16::try_from(20 + l4.len()).unwrap().to_be_bytes());
    ip.extend([0, 0, 0, 0, hops, number, 0, 0]);
    ip.extend(source.into_iter().chain(destination));
    let sum = !checksum::fold(checksum::sum(&ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let sum = !checksum::fold(checksum::sum(&l4) + checksum::pseudo_header(&ip, number, l4.len()).unwrap());
    let at = if is_tcp { 16 } else { 6 };
    l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    // Stations have their addresses' last number.
    [&[0; 6][..], &mac_of(source[3]), &[8, 0], &ip, &l4].concat()
}

fn mac_of(host: u8) -> [u8; 6] {
    [2, 0, 0, 1, 0, host]
}

struct World {
    router: Router,
    pool: Pool,
    now: Instant,
    /// Without it every packet goes the long way.
    may_hurry: bool,
}

impl World {
    fn new(may_hurry: bool) -> Self {
        let pool = Pool::new(PoolConfig::default());
        let mut world = Self { router: Router::new(pool.clone(), NatConfig { seed: 3, ..NatConfig::default() }), pool, now: Instant::from_nanos(1), may_hurry };
        for command in [Step::SetUplink(100, 1500), Step::SetNetwork(110, 1500)] {
            world.step(&command);
        }
        world.router.set_network(BESIDE, link(120, "10.0.1.1/24", 1500), None);
        world
    }

    /// Frames of IP that come out, in order. Whoever is asked for answers at once.
    fn take(&mut self, from: NetworkId, bytes: &[u8]) -> Vec<(NetworkId, Vec<u8>)> {
        let mut out = RouterOutput::new();
        let frame = self.pool.copy_of(bytes).unwrap();
        let back = if self.may_hurry { self.router.take(from, frame, self.now, &mut out) } else { self.router.take_slowly(from, frame, self.now, &mut out) };
        let mut seen: Vec<_> = back.map(|frame| (from, frame.bytes().to_vec())).into_iter().collect();
        for (network, frame) in out {
            let bytes = frame.bytes();
            if bytes[12..14] != [8, 6] {
                seen.push((network, bytes.to_vec()));
                continue;
            }
            let mac = mac_of(bytes[41]);
            let answer = [&bytes[6..12], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &mac, &bytes[38..42], &bytes[22..32]].concat();
            seen.extend(self.take(network, &answer));
        }
        seen
    }

    fn step(&mut self, step: &Step) -> Vec<(NetworkId, Vec<u8>)> {
        match *step {
            Step::Packet { inwards, is_tcp, host, port, remote, flags, hops, size, whole } => {
                // The last is in a network that may be reached by a route.
                let outside = if remote == 3 { [10, 0, 1, remote] } else { [198, 51, 100, remote] };
                let (inside, outside) = (([10, 0, 0, host], 5000 + port), (outside, 80));
                let external = (EXTERNAL, 5000 + port);
                let (network, mut bytes) = match inwards {
                    true => (UPLINK, packet(is_tcp, outside, external, flags, hops, size)),
                    false => (INSIDE, packet(is_tcp, inside, outside, flags, hops, size)),
                };
                if !whole {
                    // Not the IP header, which the gateway checked.
                    let at = 34 + size * 7 % (bytes.len() - 34);
                    bytes[at] ^= 1 << (size % 8);
                }
                return self.take(network, &bytes);
            }
            Step::Wait(millis) => {
                let until = self.now + Duration::from_millis(millis);
                while let Some(at) = self.router.poll_timeout().filter(|at| *at <= until) {
                    self.now = self.now.max(at);
                    self.router.handle_timeout(self.now, &mut RouterOutput::new());
                }
                self.now = until;
            }
            Step::SetUplink(mac, mtu) => self.router.set_uplink(PacketUplink {
                network: UPLINK,
                link: link(mac, "192.0.2.9/24", mtu),
                gateways: vec!["192.0.2.1".parse().unwrap()],
            }),
            Step::SetNetwork(mac, mtu) => {
                let link = link(mac, "10.0.0.1/24", mtu);
                let inside = Inside { subnets: link.addresses.clone(), translation: Translation::Masquerade, prefixes: None, behaviour: nat::Behaviour::default() };
                self.router.set_network(INSIDE, link, Some(inside));
            }
            Step::RemoveNetwork => self.router.remove_network(INSIDE),
            Step::RemoveInside(host) => self.router.remove_inside(INSIDE, [10, 0, 0, host].into()),
            Step::SetMtu(host, mtu) => self.router.set_inside_mtu(INSIDE, [10, 0, 0, host].into(), mtu),
            Step::SetVip(host) => self.router.set_vips(INSIDE, &host.map(|host| IpAddr::from([10, 0, 0, host])).into_iter().collect::<Vec<_>>()),
            Step::SetRoute(open) => self.router.set_route(INSIDE, BESIDE, open),
            Step::Forward(port) => {
                let forward = Forward { protocol: 17, address: None, ports: (5000 + port, 5000 + port), network: INSIDE, to: nat::End::new([10, 0, 0, 2].into(), 5000 + port) };
                let _: Result<ForwardId, ForwardError> = self.router.add_forward(forward);
            }
        }
        Vec::new()
    }
}

proptest! {
    #[test]
    fn both_ways_agree(steps in proptest::collection::vec(step(), 1..120)) {
        let (mut long, mut short) = (World::new(false), World::new(true));
        for step in &steps {
            prop_assert_eq!(long.step(step), short.step(step), "{:?}", step);
            prop_assert_eq!(long.router.nat().connections(long.now), short.router.nat().connections(short.now));
        }
        prop_assert_eq!(long.router.nat().drops(), short.router.nat().drops());
    }
}

/// A sandbox that comes back as another station is heard of when it opens a connection, by the short way too.
#[test]
fn another_station_is_heard_of_at_once() {
    let mut world = World::new(true);
    let (inside, outside) = (([10, 0, 0, 2], 5000), ([198, 51, 100, 1], 80));
    let out = packet(false, inside, outside, 0, 64, 10);
    let back = packet(false, outside, (EXTERNAL, 5000), 0, 64, 10);
    for _ in 0..3 {
        world.take(INSIDE, &out);
        assert_eq!(world.take(UPLINK, &back)[0].1[..6], mac_of(2));
    }
    let mut other = packet(false, inside, ([198, 51, 100, 2], 80), 0, 64, 10);
    other[6..12].copy_from_slice(&mac_of(77));
    world.take(INSIDE, &other);
    assert_eq!(world.take(UPLINK, &back)[0].1[..6], mac_of(77));
}
