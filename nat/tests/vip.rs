//! Virtual addresses: who gets a connection, that it stays there, and what happens when an endpoint goes.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;

use common::{A, ACK, FIN, L4, RST, SYN, bytes_of, end, fragments_of, icmp_error};
use packet::{Duration, Frame, Instant, Parsed, Pool, PoolConfig, checksum};
use weft_nat::{Nat, NatConfig, NatDrop, Sent, Vip};

const VIP: &str = "10.0.0.100:80";
const CLIENT: &str = "10.0.0.9";

struct World {
    nat: Nat,
    now: Instant,
    pool: Pool,
}

/// Source and destination of what came out.
type Ends = (String, String);

fn ends(bytes: &[u8]) -> Ends {
    assert!(checksum::verify(bytes), "a checksum is out of step: {bytes:02x?}");
    let parsed = Parsed::new(bytes).unwrap();
    let ip = parsed.ip.unwrap();
    let (from, to) = parsed.l4_ports(bytes).filter(|_| ip.fragment_offset == 0).unwrap_or((0, 0));
    (std::net::SocketAddr::new(ip.source, from).to_string(), std::net::SocketAddr::new(ip.destination, to).to_string())
}

impl World {
    fn new(vip: &str, endpoints: &[&str]) -> Self {
        Self::seeded(7, vip, endpoints)
    }

    fn seeded(seed: u64, vip: &str, endpoints: &[&str]) -> Self {
        let nat = Nat::new(NatConfig { seed, most: 4096, ..NatConfig::default() });
        let mut world = Self { nat, now: Instant::from_nanos(1_000_000_000), pool: Pool::new(PoolConfig::default()) };
        world.serve(vip, endpoints);
        world
    }

    fn serve(&mut self, vip: &str, endpoints: &[&str]) {
        let endpoints = endpoints.iter().map(|ip| ip.parse().unwrap()).collect();
        self.nat.set_vips(vec![Vip { address: end(vip).ip(), endpoints }]);
    }

    fn frame(&self, bytes: &[u8]) -> Frame {
        self.pool.copy_of(bytes).unwrap()
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Ends>, NatDrop> {
        let (frame, mut out) = (self.frame(bytes), Vec::new());
        self.nat.to_vip(A, frame, self.now, &mut out).map_err(|refused| refused.reason)?;
        Ok(out.iter().map(|translated| ends(translated.frame.bytes())).collect())
    }

    fn send(&mut self, l4: L4) -> Result<Ends, NatDrop> {
        self.send_bytes(&bytes_of(l4, b"question")).map(|all| all[0].clone())
    }

    /// A client's segment; whom it reaches.
    fn tcp(&mut self, from: &str, to: &str, flags: u8) -> Result<String, NatDrop> {
        self.send(L4::Tcp(end(from), end(to), flags)).map(|(_, destination)| destination)
    }

    /// An endpoint's segment; whom it seems to be from. Nothing when it is kept from the client.
    fn back(&mut self, from: &str, to: &str, flags: u8) -> Option<String> {
        self.back_bytes(&bytes_of(L4::Tcp(end(from), end(to), flags), b"")).map(|(source, _)| source)
    }

    fn back_bytes(&mut self, bytes: &[u8]) -> Option<Ends> {
        let frame = self.frame(bytes);
        match self.nat.from_endpoint(A, frame, self.now).unwrap() {
            Sent::Own(frame) | Sent::Translated(frame) => Some(ends(frame.bytes())),
            Sent::Declined => None,
        }
    }

    fn wait(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.nat.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.nat.handle_timeout(self.now, drop);
        }
        self.now = until;
    }
}

const TWO: &[&str] = &["10.0.0.2", "10.0.0.3"];

#[test]
fn connections_go_round_and_stay() {
    for (vip, client, endpoints) in [(VIP, CLIENT, &["10.0.0.2", "10.0.0.3", "10.0.0.4"][..]), ("[fd00::64]:80", "[fd00::9]", &["fd00::2", "fd00::3", "fd00::4"])] {
        let mut world = World::new(vip, endpoints);
        let mut hits: BTreeMap<String, usize> = BTreeMap::new();
        for port in 1000..1300 {
            let from = format!("{client}:{port}");
            let to = world.tcp(&from, vip, SYN).unwrap();
            *hits.entry(to.clone()).or_default() += 1;
            // The client's address is kept, and the answer is the virtual address's.
            assert_eq!(world.back(&to, &from, SYN | ACK).as_deref(), Some(vip));
            for _ in 0..3 {
                assert_eq!(world.tcp(&from, vip, ACK).unwrap(), to);
            }
            let (seen_from, _) = world.send(L4::Tcp(end(&from), end(vip), ACK)).unwrap();
            assert_eq!(seen_from, from);
        }
        assert_eq!(hits.values().copied().collect::<Vec<_>>(), [100, 100, 100]);
        let views = world.nat.vips(world.now);
        assert!(views[0].endpoints.iter().all(|(_, open, given)| (*open, *given) == (100, 100)), "{views:?}");
    }
}

#[test]
fn the_seed_says_who_is_first() {
    let first = |seed| World::seeded(seed, VIP, TWO).tcp("10.0.0.9:1000", VIP, SYN).unwrap();
    assert_eq!(first(1), first(1));
    assert_eq!((0..32).map(first).collect::<std::collections::BTreeSet<_>>().len(), 2);
}

/// UDP both ways, one way for longer than any lifetime, and a hole that nobody used.
#[test]
fn datagrams_stay_while_they_flow() {
    let mut world = World::new(VIP, TWO);
    let send = |world: &mut World| world.send(L4::Udp(end("10.0.0.9:5000"), end(VIP))).unwrap().1;
    let first = send(&mut world);
    for _ in 0..10 {
        world.wait(200);
        assert_eq!(send(&mut world), first);
    }
    assert_eq!(world.back_bytes(&bytes_of(L4::Udp(end(&first), end("10.0.0.9:5000")), b"answer")), Some((VIP.into(), "10.0.0.9:5000".into())));
    world.wait(301);
    assert_eq!(world.nat.sizes(), (0, 0));
    assert_ne!(send(&mut world), first, "a new one, for the next");
}

#[test]
fn who_goes_leaves_at_once() {
    let mut world = World::new(VIP, TWO);
    let mut of: BTreeMap<String, String> = BTreeMap::new();
    for port in 1000..1010 {
        let from = format!("{CLIENT}:{port}");
        let to = world.tcp(&from, VIP, SYN).unwrap();
        world.back(&to, &from, SYN | ACK);
        of.insert(from, to);
    }
    world.serve(VIP, &["10.0.0.3"]);
    for (from, to) in &of {
        let left = world.tcp(from, VIP, ACK);
        assert_eq!(left, if to == "10.0.0.3:80" { Ok(to.clone()) } else { Err(NatDrop::NoConnection) });
    }
    for port in 2000..2010 {
        assert_eq!(world.tcp(&format!("{CLIENT}:{port}"), VIP, SYN).unwrap(), "10.0.0.3:80");
    }
    world.serve(VIP, &[]);
    assert_eq!(world.tcp("10.0.0.9:3000", VIP, SYN), Err(NatDrop::NoEndpoint));
    assert_eq!(world.nat.sizes(), (0, 0));
    world.serve(VIP, TWO);
    assert!(world.tcp("10.0.0.9:3000", VIP, SYN).is_ok());
}

/// A process has died and control has not noticed: its kernel refuses, and the client is none the wiser.
#[test]
fn a_refusal_is_for_the_next_endpoint() {
    let mut world = World::new(VIP, TWO);
    for port in 1000..1010 {
        let from = format!("{CLIENT}:{port}");
        let first = world.tcp(&from, VIP, SYN).unwrap();
        let other = if first == "10.0.0.2:80" { "10.0.0.3:80" } else { "10.0.0.2:80" };
        assert_eq!(world.back(&first, &from, RST | ACK), None);
        world.wait(1);
        assert_eq!(world.tcp(&from, VIP, SYN).unwrap(), other);
        // Nobody is left to ask: the client hears it.
        assert_eq!(world.back(other, &from, RST | ACK).as_deref(), Some(VIP));
    }
    // An answered connection is reset as any.
    let to = world.tcp("10.0.0.9:2000", VIP, SYN).unwrap();
    world.back(&to, "10.0.0.9:2000", SYN | ACK);
    assert_eq!(world.back(&to, "10.0.0.9:2000", RST).as_deref(), Some(VIP));
}

#[test]
fn silence_is_not_for_ever() {
    let mut world = World::new(VIP, TWO);
    let first = world.tcp("10.0.0.9:1000", VIP, SYN).unwrap();
    for pause in [1, 2] {
        world.wait(pause);
        assert_eq!(world.tcp("10.0.0.9:1000", VIP, SYN).unwrap(), first);
    }
    world.wait(4);
    assert_ne!(world.tcp("10.0.0.9:1000", VIP, SYN).unwrap(), first);
}

/// An endpoint that asks for the service it is part of, and is given to itself.
#[test]
fn an_endpoint_is_its_own_client() {
    let mut world = World::new(VIP, &["10.0.0.2"]);
    let seen = world.send(L4::Tcp(end("10.0.0.2:5000"), end(VIP), SYN)).unwrap();
    assert_eq!(seen, ("10.0.0.100:5000".into(), "10.0.0.2:80".into()));
    // The answer is to the virtual address, and so comes to the gateway.
    let back = world.send(L4::Tcp(end("10.0.0.2:80"), end("10.0.0.100:5000"), SYN | ACK)).unwrap();
    assert_eq!(back, (VIP.into(), "10.0.0.2:5000".into()));
    assert_eq!(world.send(L4::Tcp(end("10.0.0.2:5000"), end(VIP), ACK)).unwrap().1, "10.0.0.2:80");
    assert_eq!(world.nat.vips(world.now)[0].endpoints, [("10.0.0.2".parse().unwrap(), 1, 1)]);
    world.serve(VIP, &[]);
    assert_eq!(world.nat.sizes(), (0, 0), "both halves end");
}

/// By an endpoint's own address: not ours to touch, though a closed connection had the same ends.
#[test]
fn other_talk_of_an_endpoint_passes() {
    let mut world = World::new(VIP, &["10.0.0.2"]);
    assert_eq!(world.back("10.0.0.2:80", "10.0.0.9:1000", SYN | ACK).as_deref(), Some("10.0.0.2:80"));
    world.tcp("10.0.0.9:1000", VIP, SYN).unwrap();
    world.back("10.0.0.2:80", "10.0.0.9:1000", SYN | ACK);
    world.tcp("10.0.0.9:1000", VIP, FIN | ACK).unwrap();
    assert_eq!(world.back("10.0.0.2:80", "10.0.0.9:1000", FIN | ACK).as_deref(), Some(VIP));
    assert_eq!(world.back("10.0.0.2:80", "10.0.0.9:1000", ACK).as_deref(), Some(VIP));
    assert_eq!(world.back("10.0.0.2:80", "10.0.0.9:1000", SYN | ACK).as_deref(), Some("10.0.0.2:80"));
}

#[test]
fn closed_ends_are_a_new_connection() {
    let mut world = World::new(VIP, TWO);
    let first = world.tcp("10.0.0.9:1000", VIP, SYN).unwrap();
    world.back(&first, "10.0.0.9:1000", SYN | ACK);
    world.tcp("10.0.0.9:1000", VIP, FIN | ACK).unwrap();
    world.back(&first, "10.0.0.9:1000", FIN | ACK);
    assert_eq!(world.tcp("10.0.0.9:1000", VIP, ACK).unwrap(), first, "the last word");
    assert_ne!(world.tcp("10.0.0.9:1000", VIP, SYN).unwrap(), first);
}

#[test]
fn fragments_follow_both_ways_and_wait() {
    for (vip, client, endpoint) in [(VIP, "10.0.0.9:5000", "10.0.0.2"), ("[fd00::64]:80", "[fd00::9]:5000", "fd00::2")] {
        let mut world = World::new(vip, &[endpoint]);
        let there = fragments_of(end(client), end(vip), &[7; 3000], 1000);
        assert_eq!(world.send_bytes(&there[1]).unwrap(), [], "it waits for the first");
        assert_eq!(world.send_raw(&there[0]), 2);
        assert_eq!(world.send_raw(&there[2]), 1);
        let server = std::net::SocketAddr::new(endpoint.parse().unwrap(), end(vip).port());
        for part in fragments_of(server, end(client), &[8; 3000], 1000) {
            let frame = world.frame(&part);
            let Sent::Translated(frame) = world.nat.from_endpoint(A, frame, world.now).unwrap() else { panic!("a fragment is left as it was") };
            assert_eq!(Parsed::new(frame.bytes()).unwrap().ip.unwrap().source, end(vip).ip());
        }
    }
}

impl World {
    /// How many packets come of one; all go to the endpoint.
    fn send_raw(&mut self, bytes: &[u8]) -> usize {
        let (frame, mut out) = (self.frame(bytes), Vec::new());
        self.nat.to_vip(A, frame, self.now, &mut out).unwrap();
        for translated in &out {
            assert!(self.nat.is_endpoint(Parsed::new(translated.frame.bytes()).unwrap().ip.unwrap().destination));
        }
        out.len()
    }
}

/// Errors about the connection name the ends that their reader knows.
#[test]
fn icmp_errors_are_translated_with_their_quotes() {
    let mut world = World::new(VIP, &["10.0.0.2"]);
    world.send(L4::Udp(end("10.0.0.9:5000"), end(VIP))).unwrap();
    let seen = bytes_of(L4::Udp(end("10.0.0.9:5000"), end("10.0.0.2:80")), b"question");
    let frame = world.frame(&icmp_error("10.0.0.2", "10.0.0.9", 3, 3, &seen));
    let Sent::Translated(error) = world.nat.from_endpoint(A, frame, world.now).unwrap() else { panic!("not translated") };
    let bytes = error.bytes();
    assert_eq!((&bytes[26..30], &bytes[58..62], &bytes[64..66]), (&[10, 0, 0, 100][..], &[10, 0, 0, 100][..], &80_u16.to_be_bytes()[..]));
    // The other way: the client's port is closed.
    let answer = bytes_of(L4::Udp(end(VIP), end("10.0.0.9:5000")), b"answer");
    let (frame, mut out) = (world.frame(&icmp_error("10.0.0.9", "10.0.0.100", 3, 3, &answer)), Vec::new());
    world.nat.to_vip(A, frame, world.now, &mut out).unwrap();
    let bytes = out[0].frame.bytes();
    assert_eq!((&bytes[30..34], &bytes[54..58]), (&[10, 0, 0, 2][..], &[10, 0, 0, 2][..]));
    // About no connection of ours: as it was.
    let other = bytes_of(L4::Udp(end("10.0.0.9:5001"), end("10.0.0.2:80")), b"question");
    let frame = world.frame(&icmp_error("10.0.0.2", "10.0.0.9", 3, 3, &other));
    assert!(matches!(world.nat.from_endpoint(A, frame, world.now).unwrap(), Sent::Own(_)));
}

proptest::proptest! {
    /// Whatever comes, nothing panics, and the checksums of what was right stay right.
    #[test]
    fn hostile_bytes(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120), version in 0..2_u8) {
        let mut world = World::new(VIP, TWO);
        let mut bytes = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], if version == 0 { &[8, 0] } else { &[0x86, 0xdd] }, &bytes].concat();
        if let Some(first) = bytes.get_mut(14) {
            *first = if version == 0 { 0x45 } else { 0x60 };
        }
        if version == 0 && bytes.len() >= 34 {
            bytes[30..34].copy_from_slice(&[10, 0, 0, 100]);
        }
        let (one, other, mut out) = (world.frame(&bytes), world.frame(&bytes), Vec::new());
        drop(world.nat.to_vip(A, one, world.now, &mut out));
        drop(world.nat.from_endpoint(A, other, world.now));
    }
}
