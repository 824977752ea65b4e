//! Packet translation: forwards, prefixes, tables under attack, hostile bytes.

mod common;

use common::{A, ACK, B, EXTERNAL, EXTERNAL6, L4, SYN, World, bytes_of, end, icmp_error};
use packet::{Checksum, Gso, Instant, NetworkId, Offload, Pool, PoolConfig, checksum};
use proptest::prelude::*;
use weft_nat::{Behaviour, Forward, ForwardError, Inside, NatConfig, NatDrop, Plain, Prefixes, Translation};

fn forward(protocol: u8, ports: (u16, u16), network: NetworkId, to: &str) -> Forward {
    let to = end(to);
    Forward { protocol, address: None, ports, network, to: weft_nat::End::new(to.ip(), to.port()) }
}

#[test]
fn a_forward_keeps_the_client() {
    for (external, client, server) in [(EXTERNAL, "192.0.2.7:40000", "10.0.0.2:80"), (EXTERNAL6, "[2001:db8::7]:40000", "[fd00:a::2]:80")] {
        let mut world = World::new(Behaviour::default());
        let id = world.nat.add_forward(forward(6, (8080, 8080), A, server)).unwrap();
        let published = std::net::SocketAddr::new(external.parse().unwrap(), 8080);
        let seen = world.tcp_in(client, published, SYN).unwrap();
        assert_eq!((seen.to, seen.source, seen.destination), (Some(A), end(client), end(server)));
        let answer = world.tcp_out(server, client, SYN | ACK).unwrap();
        assert_eq!((answer.to, answer.source), (None, published));
        let view = world.nat.forwards()[0];
        assert_eq!((view.connections, view.packets), (1, 2));
        assert_eq!(world.nat.add_forward(forward(6, (8000, 9000), A, server)), Err(ForwardError::Taken));
        world.nat.remove_forward(id);
        assert!(world.is_empty());
        assert_eq!(world.tcp_in(client, published, SYN), Err(NatDrop::NoMapping));
    }
}

/// From the server itself, from its neighbour, and from another network (SPEC P10).
#[test]
fn a_forward_is_reached_from_inside() {
    for (network, from) in [(A, "10.0.0.2:5000"), (A, "10.0.0.3:5000"), (B, "10.0.1.9:5000")] {
        let mut world = World::new(Behaviour::default());
        world.nat.add_forward(forward(6, (8080, 8080), A, "10.0.0.2:80")).unwrap();
        let published = end(&format!("{EXTERNAL}:8080"));
        let seen = world.out_bytes(network, &bytes_of(L4::Tcp(end(from), published, SYN), b"")).unwrap().remove(0);
        assert_eq!((seen.to, seen.source.ip(), seen.destination), (Some(A), published.ip(), end("10.0.0.2:80")));
        let back = world.out(L4::Tcp(end("10.0.0.2:80"), seen.source, SYN | ACK)).unwrap();
        assert_eq!((back.to, back.source, back.destination), (Some(network), published, end(from)));
    }
}

#[test]
fn a_forwarded_port_is_nobodys_mapping() {
    let mut world = World::new(Behaviour::default());
    let before = world.udp_out("10.0.0.9:8080", "192.0.2.1:53").unwrap().source;
    assert_eq!(before.port(), 8080);
    world.nat.add_forward(forward(17, (8000, 8999), A, "10.0.0.2:8000")).unwrap();
    // Who has the port keeps his connections, and the answers to them; strangers reach what was published.
    assert_eq!(world.udp_out("10.0.0.9:8080", "192.0.2.1:53").unwrap().source, before);
    assert_eq!(world.udp_in("192.0.2.1:53", before).unwrap().destination, end("10.0.0.9:8080"));
    assert_eq!(world.udp_in("192.0.2.7:99", before).unwrap().destination, end("10.0.0.2:8080"));
    // A new mapping keeps off the published ports.
    assert_ne!(world.udp_out("10.0.0.9:8081", "192.0.2.1:53").unwrap().source.port() / 1000, 8);
}

#[test]
fn prefixes_without_state() {
    let mut world = World::new(Behaviour::default());
    let prefixes = Prefixes::new("fd00:a::/48".parse().unwrap(), "2001:db8:77::/48".parse().unwrap());
    let subnets = vec!["fd00:a::/64".parse().unwrap()];
    world.nat.set_network(A, Inside { subnets, translation: Translation::Masquerade, prefixes, behaviour: Behaviour::default() });
    let original = bytes_of(L4::Udp(end("[fd00:a::2]:5000"), end("[2001:db8::1]:53")), b"payload!");
    let sent = world.out_bytes(A, &original).unwrap().remove(0);
    assert!(sent.source.ip().to_string().starts_with("2001:db8:77:") && sent.source.port() == 5000);
    let back = world.udp_in("[2001:db8::9]:1", sent.source).unwrap();
    assert_eq!((back.to, back.destination), (Some(A), end("[fd00:a::2]:5000")), "anybody may call");
    let error = icmp_error("2001:db8::fe", &sent.source.ip().to_string(), 1, 0, &sent.bytes);
    let seen = world.in_bytes(&error).unwrap().remove(0);
    assert_eq!(seen.destination.ip(), end("[fd00:a::2]:1").ip());
    assert_eq!(seen.bytes[62..], original[14..14 + seen.bytes.len() - 62]);
    assert!(world.is_empty());
}

#[test]
fn routed_networks_show_their_addresses() {
    let mut world = World::new(Behaviour::default());
    let subnets = vec!["10.0.0.0/24".parse().unwrap()];
    world.nat.set_network(A, Inside { subnets, translation: Translation::Routed, prefixes: None, behaviour: Behaviour::default() });
    assert_eq!(world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap().source, end("10.0.0.2:5000"));
    assert_eq!(world.udp_in("192.0.2.1:53", end("10.0.0.2:5000")).unwrap().to, Some(A));
    assert_eq!(world.udp_in("192.0.2.1:53", end("10.0.1.2:5000")), Err(NatDrop::NotOurs), "the other is translated");
}

#[test]
fn spoofed_and_martian() {
    let mut world = World::new(Behaviour::FULL_CONE);
    let external = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap().source;
    for from in ["10.0.0.2:5000", "10.0.1.7:1", "127.0.0.1:1", "224.0.0.1:1", "0.0.0.0:1", "255.255.255.255:1", "169.254.1.1:1"] {
        assert_eq!(world.udp_in(from, external), Err(NatDrop::Martian), "{from}");
    }
    for to in ["127.0.0.1:1", "224.0.0.1:1", "255.255.255.255:1", "10.0.1.5:1", "10.0.0.77:1"] {
        assert_eq!(world.udp_out("10.0.0.2:5000", to), Err(NatDrop::Martian), "{to}");
    }
    assert_eq!(world.udp_out("172.16.0.1:5000", "192.0.2.1:53"), Err(NatDrop::Martian));
}

#[test]
fn a_flood_leaves_established_connections_alone() {
    let config = NatConfig { seed: 3, most: 1024, ..NatConfig::default() };
    let mut world = World::with(Behaviour::FULL_CONE, config);
    let mut established = Vec::new();
    for host in 2..12 {
        let from = format!("10.0.0.{host}:5000");
        let external = world.tcp_out(&from, "192.0.2.1:80", SYN).unwrap().source;
        world.tcp_in("192.0.2.1:80", external, SYN | ACK).unwrap();
        established.push((from, external));
    }
    let mut refused = 0;
    for at in 0..20_000_u32 {
        let from = format!("10.0.1.{}:{}", 2 + at % 250, 1024 + at % 60_000);
        refused += u32::from(world.out_bytes(B, &bytes_of(L4::Udp(end(&from), end(&format!("192.0.2.{}:53", 1 + at % 250))), b"")).is_err());
        assert!(world.nat.sizes().0 <= 1024);
    }
    assert!(refused < 200, "the flood takes from itself: {refused}");
    for (from, external) in established {
        assert_eq!(world.tcp_in("192.0.2.1:80", external, ACK).unwrap().destination, end(&from));
    }
    world.wait(8000);
    assert!(world.is_empty(), "and nothing stays: {:?}", world.nat.sizes());
}

#[test]
fn what_reached_nobody_is_forgotten() {
    let mut world = World::new(Behaviour::default());
    let frame = |world: &World, l4| {
        let mut frame = world.pool.copy_of(&bytes_of(l4, b"")).unwrap();
        assert!(frame.make_unique());
        frame
    };
    let external = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap().source;
    let sent = frame(&world, L4::Udp(external, end("192.0.2.1:53")));
    world.nat.undelivered(None, &sent);
    assert!(world.is_empty(), "nobody outside had it");
    world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap();
    world.udp_in("192.0.2.1:53", external).unwrap();
    world.nat.undelivered(None, &sent);
    assert_eq!(world.nat.sizes(), (1, 1), "what was answered stays");
    world.nat.add_forward(forward(6, (8080, 8080), A, "10.0.0.2:80")).unwrap();
    world.tcp_in("192.0.2.1:4000", end(&format!("{EXTERNAL}:8080")), SYN).unwrap();
    let sent = frame(&world, L4::Tcp(end("192.0.2.1:4000"), end("10.0.0.2:80"), SYN));
    world.nat.undelivered(Some(A), &sent);
    assert_eq!(world.nat.sizes(), (1, 1), "and so is what came in for a sandbox that is not there");
}

#[test]
fn masquerade_counts_as_a_rule_does() {
    let mut world = World::new(Behaviour::default());
    let external = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap().source;
    world.udp_in("192.0.2.1:53", external).unwrap();
    let counted = |world: &World| world.nat.traffic().iter().find(|view| view.network == A && view.is_ipv4 && !view.is_hairpin).map(|view| (view.traffic.connections, view.traffic.packets)).unwrap();
    assert_eq!(counted(&world), (1, 2));
    world.nat.remove_inside(A, end("10.0.0.2:1").ip());
    assert_eq!(counted(&world), (1, 2), "also when the connection has ended");
    world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap();
    assert_eq!(counted(&world), (2, 3));
}

#[test]
fn a_packet_that_was_not_taken_leaves_nothing() {
    let mut world = World::new(Behaviour::default());
    world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap();
    world.nat.undo();
    assert!(world.is_empty());
    world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap();
    world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap();
    world.nat.undo();
    assert_eq!(world.nat.sizes(), (1, 1), "what was there before stays");
}

#[test]
fn a_rehearsal_changes_nothing() {
    let mut world = World::new(Behaviour::FULL_CONE);
    world.nat.add_forward(forward(6, (8080, 8080), A, "10.0.0.2:80")).unwrap();
    let udp = bytes_of(L4::Udp(end("10.0.0.2:5000"), end("192.0.2.1:53")), b"");
    let knock = bytes_of(L4::Tcp(end("192.0.2.7:1000"), end(&format!("{EXTERNAL}:8080")), SYN), b"");
    let stranger = bytes_of(L4::Tcp(end("192.0.2.7:1000"), end(&format!("{EXTERNAL}:8081")), SYN), b"");
    for known in [false, true] {
        let before = (world.nat.connections(world.now), world.nat.sizes(), *world.nat.drops(), world.nat.forwards()[0].connections, world.nat.poll_timeout().is_some());
        for (network, bytes) in [(Some(A), &udp), (None, &knock), (None, &stranger)] {
            let (frame, mut out) = (world.frame(bytes), Vec::new());
            drop(world.nat.rehearse(network, frame, world.now, &mut out));
        }
        let after = (world.nat.connections(world.now), world.nat.sizes(), *world.nat.drops(), world.nat.forwards()[0].connections, world.nat.poll_timeout().is_some() && known);
        assert_eq!(before, after);
        world.out_bytes(A, &udp).unwrap();
        world.in_bytes(&knock).unwrap();
    }
}

#[test]
fn other_protocols_by_address() {
    let mut world = World::new(Behaviour::default());
    let (gre, peer) = (47, "192.0.2.1".parse().unwrap());
    assert_eq!(world.out(L4::Other("10.0.0.2".parse().unwrap(), peer, gre)).unwrap().source.ip(), EXTERNAL.parse::<std::net::IpAddr>().unwrap());
    assert_eq!(world.inwards(L4::Other(peer, EXTERNAL.parse().unwrap(), gre)).unwrap().destination.ip(), end("10.0.0.2:1").ip());
    assert_eq!(world.out(L4::Other("10.0.0.3".parse().unwrap(), peer, gre)), Err(NatDrop::PortsExhausted), "one at a time");
    assert_eq!(world.inwards(L4::Other("192.0.2.2".parse().unwrap(), EXTERNAL.parse().unwrap(), gre)), Err(NatDrop::NoMapping));
}

#[test]
fn super_frames_pass_whole() {
    let mut world = World::new(Behaviour::default());
    world.tcp_out("10.0.0.2:5000", "192.0.2.1:80", SYN).unwrap();
    let pool = Pool::new(PoolConfig::default());
    let mut bytes = bytes_of(L4::Tcp(end("10.0.0.2:5000"), end("192.0.2.1:80"), ACK), &[7; 20_000]);
    // As a TAP gives it: the field holds the sum of the pseudo-header.
    let pseudo = checksum::fold(checksum::pseudo_header(&bytes[14..], 6, bytes.len() - 34).unwrap());
    bytes[50..52].copy_from_slice(&pseudo.to_be_bytes());
    let mut frame = pool.copy_of(&bytes).unwrap();
    frame.offload = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Gso::Tcp4 { size: 1448, ecn: false } };
    let mut out = Vec::new();
    world.nat.outbound(A, frame, world.now, &mut out).unwrap();
    let mut sent = out.remove(0).frame;
    assert_eq!((sent.len(), sent.offload.gso), (bytes.len(), Gso::Tcp4 { size: 1448, ecn: false }));
    checksum::complete(&mut sent);
    assert!(checksum::verify(sent.bytes()));
}

#[test]
fn the_short_way_is_for_plain_packets_of_connections() {
    let mut world = World::new(Behaviour::default());
    let plain = L4::Udp(end("10.0.0.2:5000"), end("192.0.2.1:53"));
    let find = |world: &World, l4| Plain::of(&bytes_of(l4, b"x")).and_then(|plain| world.nat.find(Some(A), &plain, world.now)).is_some();
    assert!(!find(&world, plain), "the first takes the long one");
    world.out(plain).unwrap();
    assert!(find(&world, plain));
    world.tcp_out("10.0.0.2:5000", "192.0.2.1:80", SYN).unwrap();
    let segment = |flags| L4::Tcp(end("10.0.0.2:5000"), end("192.0.2.1:80"), flags);
    assert!(find(&world, segment(ACK)) && !find(&world, segment(SYN)) && !find(&world, segment(ACK | 1)) && !find(&world, segment(4)));
    world.wait(300);
    assert!(!find(&world, plain), "not when it has expired");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Whatever comes, either way: no panic, and each packet goes on, waits or is counted.
    #[test]
    fn hostile_bytes(bytes in proptest::collection::vec(any::<u8>(), 14..200), kind in 0..6_usize, flips in proptest::collection::vec((14..100_usize, any::<u8>()), 0..4), inwards: bool) {
        let mut world = World::new(Behaviour::FULL_CONE);
        let sent = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap();
        let external = sent.source;
        let mut bytes = match kind {
            0 => bytes,
            1 => bytes_of(L4::Udp(end("192.0.2.1:53"), external), &bytes),
            2 => bytes_of(L4::Tcp(end("10.0.0.2:5000"), end("192.0.2.1:80"), SYN), &bytes),
            3 => icmp_error("192.0.2.254", EXTERNAL, 3, 4, &sent.bytes),
            4 => bytes_of(L4::Echo("10.0.0.2".parse().unwrap(), "192.0.2.1".parse().unwrap(), 7, true), &bytes),
            _ => bytes_of(L4::Udp(end("[fd00:a::2]:5000"), end("[2001:db8::1]:53")), &bytes),
        };
        for (at, byte) in flips {
            if let Some(target) = bytes.get_mut(at) {
                *target ^= byte;
            }
        }
        let frame = world.frame(&bytes);
        let (mut out, before) = (Vec::new(), world.nat.drops().iter().map(|(_, count)| count).sum::<u64>());
        let result = if inwards { world.nat.inbound(frame, world.now, &mut out) } else { world.nat.outbound(A, frame, world.now, &mut out) };
        let after = world.nat.drops().iter().map(|(_, count)| count).sum::<u64>();
        prop_assert_eq!(after - before, u64::from(result.is_err()));
        world.wait(10_000);
        prop_assert!(world.is_empty());
    }

    /// The short way does what the long way does, but for the hop that it takes.
    #[test]
    fn both_ways_agree(steps in proptest::collection::vec((any::<bool>(), any::<bool>(), 2..5_u8, 0..3_u16, 0..40_usize, 0..3_u8), 1..60)) {
        let (mut long, mut short) = (World::new(Behaviour::default()), World::new(Behaviour::default()));
        let pool = Pool::new(PoolConfig::default());
        for (is_tcp, inwards, host, port, size, form) in steps {
            let (inside, outside) = (end(&format!("10.0.0.{host}:{}", 5000 + port)), end("192.0.2.1:80"));
            let flags = [SYN, ACK, ACK | 8][form as usize];
            let other = end(&format!("{EXTERNAL}:{}", 5000 + port));
            let (from, to) = if inwards { (outside, other) } else { (inside, outside) };
            let mut bytes = bytes_of(if is_tcp { L4::Tcp(from, to, flags) } else { L4::Udp(from, to) }, &vec![7; size]);
            if form == 1 && !is_tcp {
                bytes[40..42].fill(0);
            }
            let mut offload = Offload::NONE;
            if form == 2 {
                let (at, number) = if is_tcp { (50, 6) } else { (40, 17) };
                let pseudo = checksum::fold(checksum::pseudo_header(&bytes[14..], number, bytes.len() - 34).unwrap());
                bytes[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
                offload.checksum = Checksum::Partial { start: 34, offset: u16::try_from(at - 34).unwrap() };
            }
            let network = (!inwards).then_some(A);
            let pass = |world: &mut World, at_once: bool| {
                let mut frame = pool.copy_of(&bytes).unwrap();
                frame.offload = offload;
                if at_once
                    && let Some(plain) = Plain::of(frame.bytes())
                    && let Some(hit) = world.nat.find(network, &plain, world.now)
                {
                    assert!(world.nat.rewrite(&hit, &mut frame, world.now).is_some());
                    return Some((hit.to, frame.bytes().to_vec()));
                }
                let mut out = Vec::new();
                let result = match network {
                    Some(network) => world.nat.outbound(network, frame, world.now, &mut out),
                    None => world.nat.inbound(frame, world.now, &mut out),
                };
                result.ok()?;
                let mut one = out.remove(0);
                // The router's hop.
                let mut packet = packet::PacketMut::new(&mut one.frame).unwrap();
                packet.set_hop_limit(63);
                Some((one.to, one.frame.bytes().to_vec()))
            };
            let (slow, fast) = (pass(&mut long, false), pass(&mut short, true));
            prop_assert_eq!(slow, fast);
            prop_assert_eq!(long.nat.connections(long.now), short.nat.connections(short.now));
        }
    }

    /// Random operations against a naive table: the same ends stand for the same ends.
    #[test]
    fn mappings_agree_with_a_naive_table(steps in proptest::collection::vec((2..8_u8, 0..4_u16, 1..5_u8, 0..400_u64), 1..200)) {
        let mut world = World::new(Behaviour::FULL_CONE);
        let mut model = std::collections::BTreeMap::<(u8, u16), (u16, Instant)>::new();
        for (host, port, remote, pause) in steps {
            world.wait(pause);
            let (now, lifetime) = (world.now, packet::Duration::from_secs(300));
            model.retain(|_, (_, last)| *last + lifetime > now);
            let seen = world.udp_out(&format!("10.0.0.{host}:{}", 5000 + port), &format!("192.0.2.{remote}:53")).unwrap();
            let external = seen.source.port();
            if let Some((known, _)) = model.get(&(host, port)) {
                prop_assert_eq!(*known, external);
            } else {
                prop_assert!(model.values().all(|(other, _)| *other != external));
            }
            model.insert((host, port), (external, now));
            for (&(host, port), &(external, _)) in &model {
                let back = world.udp_in("203.0.113.5:9", end(&format!("{EXTERNAL}:{external}"))).unwrap();
                prop_assert_eq!(back.destination, end(&format!("10.0.0.{host}:{}", 5000 + port)));
            }
        }
    }
}
