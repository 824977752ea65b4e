//! Packet translation against its standards, requirement by requirement, in virtual time: RFC 4787 (UDP),
//! RFC 5382 (TCP), RFC 5508 (ICMP) with the updates of RFC 7857, RFC 6888 for `cgnat`.
//!
//! Not here, because they are not translation's: RFC 4787 REQ-7 (overlapping realms: control refuses an
//! uplink inside a network's subnet), REQ-10 and RFC 5382 REQ-6 (there are no application gateways), REQ-13
//! and RFC 5508 REQ-9, REQ-11 (what a router says itself: `dataplane`), RFC 5382 REQ-9 is RFC 5508's.

mod common;

use std::collections::HashSet;

use common::{A, ACK, B, EXTERNAL, EXTERNAL6, FIN, L4, RST, SYN, World, bytes_of, end, fragments_of, icmp_error};
use packet::Duration;
use weft_nat::{Behaviour, Inside, Lifetimes, NatConfig, NatDrop, Translation};

const EVERY: [Behaviour; 5] = [Behaviour::FULL_CONE, Behaviour::RESTRICTED, Behaviour::PORT_RESTRICTED, Behaviour::SYMMETRIC, Behaviour::CGNAT];
const CONES: [Behaviour; 4] = [Behaviour::FULL_CONE, Behaviour::RESTRICTED, Behaviour::PORT_RESTRICTED, Behaviour::CGNAT];

// ---- RFC 4787, UDP ----

#[test]
fn rfc4787_req_1_endpoint_independent_mapping() {
    for behaviour in CONES {
        let mut world = World::new(behaviour);
        let first = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap();
        let second = world.udp_out("10.0.0.2:5000", "192.0.2.9:9999").unwrap();
        assert_eq!(first.source, second.source);
        assert_eq!((first.to, first.source.ip()), (None, EXTERNAL.parse().unwrap()));
    }
    let mut world = World::new(Behaviour::SYMMETRIC);
    let ends: HashSet<_> = (0..20).map(|at| world.udp_out("10.0.0.2:5000", &format!("192.0.2.1:{}", 1000 + at)).unwrap().source).collect();
    assert_eq!(ends.len(), 20, "address and port dependent: another port for each");
}

#[test]
fn rfc4787_req_2_paired_pooling() {
    let mut world = World::new(Behaviour::default());
    let pool: Vec<std::net::IpAddr> = (1..=4).map(|at| format!("198.51.100.{at}").parse().unwrap()).collect();
    let subnets = vec!["10.0.0.0/24".parse().unwrap()];
    world.nat.set_network(A, Inside { subnets, translation: Translation::Source(pool.clone()), prefixes: None, behaviour: Behaviour::default() });
    let mut used = HashSet::new();
    for host in 2..60 {
        let addresses: HashSet<_> = (0..8).map(|at| world.udp_out(&format!("10.0.0.{host}:{}", 2000 + at), "192.0.2.1:53").unwrap().source.ip()).collect();
        assert_eq!(addresses.len(), 1, "host {host} keeps its address");
        used.extend(addresses);
    }
    assert_eq!(used, pool.into_iter().collect(), "all of the pool is used");
}

#[test]
fn rfc4787_req_3_no_port_overloading_and_ranges() {
    for behaviour in EVERY {
        let mut world = World::new(behaviour);
        let ends: HashSet<_> = (2..40).map(|host| world.udp_out(&format!("10.0.0.{host}:5000"), "192.0.2.1:53").unwrap().source).collect();
        assert_eq!(ends.len(), 38, "one port each");
        // 3a: well-known ports stay well-known.
        assert!((2..20).all(|host| world.udp_out(&format!("10.0.0.{host}:123"), "192.0.2.1:123").unwrap().source.port() < 1024));
        assert!(ends.iter().all(|end| end.port() >= 1024));
    }
}

#[test]
fn rfc4787_req_4_parity() {
    for behaviour in [Behaviour::FULL_CONE, Behaviour::RESTRICTED, Behaviour::PORT_RESTRICTED, Behaviour::CGNAT] {
        let mut world = World::new(behaviour);
        for host in 2..40 {
            for port in [6000, 6001] {
                let external = world.udp_out(&format!("10.0.0.{host}:{port}"), "192.0.2.1:53").unwrap().source.port();
                assert_eq!(external % 2, port % 2);
            }
        }
    }
}

#[test]
fn rfc4787_req_5_timer() {
    for behaviour in EVERY {
        let mut world = World::new(behaviour);
        let external = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap().source;
        world.wait(299);
        assert!(world.udp_in("192.0.2.1:53", external).is_ok(), "five minutes by default");
        let mut world = World::new(behaviour);
        world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap();
        world.wait(302);
        assert!(world.is_empty(), "and not for ever");
    }
    // 5b: configurable, not below two minutes.
    let lifetimes = Lifetimes { udp: Duration::from_secs(120), ..Lifetimes::default() };
    assert_eq!(lifetimes.below_minimum(), None);
    let mut world = World::with(Behaviour::default(), NatConfig { lifetimes, ..NatConfig::default() });
    let external = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap().source;
    world.wait(121);
    assert_eq!(world.udp_in("192.0.2.1:53", external), Err(NatDrop::NoMapping));
}

#[test]
fn rfc4787_req_6_refresh() {
    let mut world = World::new(Behaviour::FULL_CONE);
    let external = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap().source;
    for _ in 0..10 {
        world.wait(250);
        world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap();
    }
    assert_eq!(world.udp_in("192.0.2.1:53", external).unwrap().destination, end("10.0.0.2:5000"));
    // A stranger alone keeps no mapping alive (section 12's attack).
    for _ in 0..10 {
        world.wait(100);
        drop(world.udp_in("203.0.113.9:1", external));
    }
    assert!(world.udp_in("203.0.113.9:1", external).is_err());
}

#[test]
fn rfc4787_req_8_filtering() {
    let probe = |behaviour| {
        let mut world = World::new(behaviour);
        let external = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap().source;
        ["192.0.2.1:53", "192.0.2.1:54", "192.0.2.2:53"].map(|from| world.udp_in(from, external).map(|seen| seen.destination == end("10.0.0.2:5000")))
    };
    let (pass, stop) = (Ok(true), Err(NatDrop::Filtered));
    assert_eq!(probe(Behaviour::FULL_CONE), [pass, pass, pass]);
    assert_eq!(probe(Behaviour::RESTRICTED), [pass, pass, stop]);
    assert_eq!(probe(Behaviour::PORT_RESTRICTED), [pass, stop, stop]);
    assert_eq!(probe(Behaviour::SYMMETRIC), [pass, stop, stop]);
    assert_eq!(probe(Behaviour::CGNAT), [pass, pass, pass], "RFC 6888 REQ-7");
}

#[test]
fn rfc4787_req_9_hairpinning() {
    for behaviour in [Behaviour::FULL_CONE, Behaviour::CGNAT] {
        let mut world = World::new(behaviour);
        let server = world.udp_out("10.0.0.3:7000", "192.0.2.1:53").unwrap().source;
        let client = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap().source;
        let there = world.out(L4::Udp(end("10.0.0.2:5000"), server)).unwrap();
        assert_eq!((there.to, there.source, there.destination), (Some(A), client, end("10.0.0.3:7000")), "external source address and port");
        let back = world.out(L4::Udp(end("10.0.0.3:7000"), client)).unwrap();
        assert_eq!((back.to, back.source, back.destination), (Some(A), server, end("10.0.0.2:5000")));
    }
    // Filters hold for neighbours as for strangers.
    let mut world = World::new(Behaviour::PORT_RESTRICTED);
    let server = world.udp_out("10.0.0.3:7000", "192.0.2.1:53").unwrap().source;
    assert_eq!(world.out(L4::Udp(end("10.0.0.2:5000"), server)), Err(NatDrop::Filtered));
    assert_eq!(world.nat.sizes().0, 1, "nothing stays of what was refused");
}

#[test]
fn rfc4787_req_11_deterministic() {
    for behaviour in CONES {
        let mut world = World::new(behaviour);
        for host in 2..60 {
            let ends: HashSet<_> = (1..5).map(|at| world.udp_out(&format!("10.0.0.{host}:5000"), &format!("192.0.2.{at}:53")).unwrap().source).collect();
            assert_eq!(ends.len(), 1, "a conflict changes the port, not the behaviour");
        }
    }
}

#[test]
fn rfc4787_req_12_icmp_errors_end_nothing() {
    for behaviour in EVERY {
        let mut world = World::new(behaviour);
        let sent = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap();
        for code in 0..=13 {
            let error = icmp_error("192.0.2.254", EXTERNAL, 3, code, &sent.bytes);
            let seen = world.in_bytes(&error).unwrap();
            assert_eq!((seen[0].to, seen[0].destination.ip()), (Some(A), "10.0.0.2".parse().unwrap()));
        }
        assert!(world.udp_in("192.0.2.1:53", sent.source).is_ok());
    }
}

#[test]
fn rfc4787_req_14_fragments_in_any_order() {
    let payload: Vec<u8> = (0..4000_u32).map(|at| at.to_le_bytes()[0]).collect();
    for (from, to) in [("10.0.0.2:5000", "192.0.2.1:53"), ("[fd00:a::2]:5000", "[2001:db8::1]:53")] {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
            let mut world = World::new(Behaviour::default());
            let parts = fragments_of(end(from), end(to), &payload, 1400);
            assert_eq!(parts.len(), 3);
            let mut out = Vec::new();
            for at in order {
                out.extend(world.out_bytes(A, &parts[at]).unwrap());
            }
            assert_eq!(out.len(), 3, "{order:?}");
            let external = out[0].source.ip();
            assert!(out.iter().all(|one| one.source.ip() == external && one.destination.ip() == end(to).ip() && one.to.is_none()));
            // And the answer, likewise.
            let external = world.udp_out(from, to).unwrap().source;
            let parts = fragments_of(end(to), external, &payload, 1400);
            let back: Vec<_> = order.iter().flat_map(|&at| world.in_bytes(&parts[at]).unwrap()).collect();
            assert_eq!(back.len(), 3);
            assert!(back.iter().all(|one| one.destination.ip() == end(from).ip() && one.to == Some(A)));
        }
    }
    // 14a: bounded. Fragments without a first take a moment and some memory, and no more.
    let mut world = World::new(Behaviour::default());
    let parts = fragments_of(end("10.0.0.2:5000"), end("192.0.2.1:53"), &payload, 1400);
    let taken = (0..1000).filter(|_| world.out_bytes(A, &parts[1]).is_ok()).count();
    assert!(taken < 300, "{taken}");
    world.wait(3);
    assert_eq!(world.nat.drops().get(NatDrop::FragmentOrphan), 1000);
}

// ---- RFC 5382, TCP ----

#[expect(clippy::unwrap_used, reason = "a test fails by panic")]
fn open(world: &mut World, from: &str, to: &str) -> std::net::SocketAddr {
    let external = world.tcp_out(from, to, SYN).unwrap().source;
    world.tcp_in(to, external, SYN | ACK).unwrap();
    world.tcp_out(from, to, ACK).unwrap();
    external
}

#[test]
fn rfc5382_req_1_endpoint_independent_mapping() {
    for behaviour in CONES {
        let mut world = World::new(behaviour);
        assert_eq!(open(&mut world, "10.0.0.2:5000", "192.0.2.1:80"), open(&mut world, "10.0.0.2:5000", "192.0.2.2:443"));
    }
}

#[test]
fn rfc5382_req_2_simultaneous_open() {
    for behaviour in EVERY {
        let mut world = World::new(behaviour);
        let external = world.tcp_out("10.0.0.2:5000", "192.0.2.1:80", SYN).unwrap().source;
        assert!(world.tcp_in("192.0.2.1:80", external, SYN).is_ok());
        assert!(world.tcp_out("10.0.0.2:5000", "192.0.2.1:80", SYN | ACK).is_ok());
        assert!(world.tcp_in("192.0.2.1:80", external, SYN | ACK).is_ok());
        assert_eq!(world.nat.connections(world.now)[0].state, "ESTABLISHED");
    }
}

#[test]
fn rfc5382_req_3_filtering() {
    let probe = |behaviour| {
        let mut world = World::new(behaviour);
        let external = open(&mut world, "10.0.0.2:5000", "192.0.2.1:80");
        ["192.0.2.1:81", "192.0.2.2:80"].map(|from| world.tcp_in(from, external, SYN).map(|seen| seen.destination == end("10.0.0.2:5000")))
    };
    let (pass, stop) = (Ok(true), Err(NatDrop::Filtered));
    assert_eq!(probe(Behaviour::FULL_CONE), [pass, pass]);
    assert_eq!(probe(Behaviour::RESTRICTED), [pass, stop]);
    assert_eq!(probe(Behaviour::PORT_RESTRICTED), [stop, stop]);
}

#[test]
fn rfc5382_req_4_unsolicited_syn_waits_six_seconds() {
    let external = end(&format!("{EXTERNAL}:5000"));
    let mut world = World::new(Behaviour::PORT_RESTRICTED);
    assert_eq!(world.tcp_in("192.0.2.1:80", external, SYN), Err(NatDrop::NoMapping));
    world.wait(5);
    assert!(world.unwanted.is_empty(), "nothing is said before");
    world.wait(2);
    assert_eq!(world.unwanted.len(), 1);
    // Unless inside opens the same connection meanwhile.
    let mut world = World::new(Behaviour::PORT_RESTRICTED);
    assert_eq!(world.tcp_in("192.0.2.1:80", external, SYN), Err(NatDrop::NoMapping));
    world.wait(3);
    assert_eq!(world.tcp_out("10.0.0.2:5000", "192.0.2.1:80", SYN).unwrap().source, external);
    world.wait(5);
    assert!(world.unwanted.is_empty());
}

#[test]
fn rfc5382_req_5_timers() {
    let mut world = World::new(Behaviour::default());
    let external = open(&mut world, "10.0.0.2:5000", "192.0.2.1:80");
    world.wait(7439);
    assert!(world.tcp_in("192.0.2.1:80", external, ACK).is_ok(), "2 h 4 min established");
    // Half-closed is established still (RFC 7857 section 2.1), closing is transitory: four minutes.
    world.tcp_out("10.0.0.2:5000", "192.0.2.1:80", FIN | ACK).unwrap();
    world.wait(7000);
    assert!(world.tcp_in("192.0.2.1:80", external, FIN | ACK).is_ok());
    world.wait(239);
    assert!(world.tcp_out("10.0.0.2:5000", "192.0.2.1:80", ACK).is_ok());
    world.wait(242);
    assert!(world.is_empty());
    // A SYN without an answer, and a reset that may be forged (RFC 7857 section 2.2): four minutes.
    let mut world = World::new(Behaviour::default());
    let external = open(&mut world, "10.0.0.2:5000", "192.0.2.1:80");
    world.tcp_in("192.0.2.1:80", external, RST).unwrap();
    world.wait(239);
    assert!(world.tcp_out("10.0.0.2:5000", "192.0.2.1:80", ACK).is_ok());
    world.wait(7000);
    assert!(world.tcp_in("192.0.2.1:80", external, ACK).is_ok(), "the reset was not believed");
}

#[test]
fn rfc5382_req_7_no_port_overloading() {
    for behaviour in EVERY {
        let mut world = World::new(behaviour);
        let ends: HashSet<_> = (2..40).map(|host| open(&mut world, &format!("10.0.0.{host}:5000"), "192.0.2.1:80")).collect();
        assert_eq!(ends.len(), 38);
    }
}

#[test]
fn rfc5382_req_8_hairpinning() {
    let mut world = World::new(Behaviour::FULL_CONE);
    let server = open(&mut world, "10.0.0.3:7000", "192.0.2.1:80");
    let there = world.out(L4::Tcp(end("10.0.0.2:5000"), server, SYN)).unwrap();
    assert_eq!((there.to, there.destination, there.source.ip()), (Some(A), end("10.0.0.3:7000"), EXTERNAL.parse().unwrap()));
    let back = world.out(L4::Tcp(end("10.0.0.3:7000"), there.source, SYN | ACK)).unwrap();
    assert_eq!((back.to, back.source, back.destination), (Some(A), server, end("10.0.0.2:5000")));
    assert!(world.out(L4::Tcp(end("10.0.0.2:5000"), server, ACK)).is_ok());
}

#[test]
fn rfc5382_req_9_and_10_icmp_errors() {
    let mut world = World::new(Behaviour::default());
    let external = world.tcp_out("10.0.0.2:5000", "192.0.2.1:80", SYN).unwrap();
    let seen = world.in_bytes(&icmp_error("192.0.2.254", EXTERNAL, 3, 4, &external.bytes)).unwrap();
    assert_eq!(seen[0].destination.ip(), end("10.0.0.2:5000").ip());
    assert!(world.tcp_in("192.0.2.1:80", external.source, SYN | ACK).is_ok(), "and the connection goes on");
}

#[test]
fn a_segment_of_no_connection_makes_none() {
    let mut world = World::new(Behaviour::FULL_CONE);
    for flags in [ACK, FIN | ACK, RST, SYN | ACK, 0, SYN | RST] {
        assert_eq!(world.tcp_out("10.0.0.2:5000", "192.0.2.1:80", flags), Err(NatDrop::NoConnection));
    }
    assert!(world.is_empty());
}

// ---- RFC 5508, ICMP ----

#[test]
fn rfc5508_req_1_queries() {
    for behaviour in CONES {
        for (from, one, other) in [("10.0.0.2", "192.0.2.1", "192.0.2.2"), ("fd00:a::2", "2001:db8::1", "2001:db8::2")] {
            let mut world = World::new(behaviour);
            let sent = world.echo_out(from, one, 77).unwrap();
            assert_eq!(world.echo_out(from, other, 77).unwrap().source, sent.source, "1a: whoever is asked");
            let answer = world.echo_in(one, sent.source).unwrap();
            assert_eq!((answer.to, answer.destination), (Some(A), std::net::SocketAddr::new(from.parse().unwrap(), 77)));
            let stranger = if from.contains(':') { "2001:db8::99" } else { "192.0.2.99" };
            assert!(world.echo_in(stranger, sent.source).is_err());
        }
    }
    // Two that chose the same identifier.
    let mut world = World::new(Behaviour::default());
    assert_ne!(world.echo_out("10.0.0.2", "192.0.2.1", 77).unwrap().source, world.echo_out("10.0.0.3", "192.0.2.1", 77).unwrap().source);
}

#[test]
fn rfc5508_req_2_timer() {
    let mut world = World::new(Behaviour::default());
    let external = world.echo_out("10.0.0.2", "192.0.2.1", 77).unwrap().source;
    world.wait(59);
    assert!(world.echo_in("192.0.2.1", external).is_ok());
    world.wait(61);
    assert!(world.echo_in("192.0.2.1", external).is_err());
}

#[test]
fn rfc5508_req_3_error_payload_is_checked() {
    let mut world = World::new(Behaviour::default());
    let sent = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap();
    let good = icmp_error("192.0.2.254", EXTERNAL, 3, 1, &sent.bytes);
    let mut wrong_sum = good.clone();
    wrong_sum[36] ^= 1;
    assert_eq!(world.in_bytes(&wrong_sum), Err(NatDrop::Malformed));
    // 3a: the quoted header's checksum.
    let mut quoted = sent.bytes.clone();
    quoted[24] ^= 1;
    assert_eq!(world.in_bytes(&icmp_error("192.0.2.254", EXTERNAL, 3, 1, &quoted)), Err(NatDrop::IcmpQuote));
    // 3c: not that of its transport.
    let mut quoted = sent.bytes.clone();
    quoted[40] ^= 1;
    assert!(world.in_bytes(&icmp_error("192.0.2.254", EXTERNAL, 3, 1, &quoted)).is_ok());
    // Too short to show ports.
    assert_eq!(world.in_bytes(&icmp_error("192.0.2.254", EXTERNAL, 3, 1, &sent.bytes[..36])), Err(NatDrop::IcmpQuote));
    assert!(world.in_bytes(&good).is_ok());
}

#[test]
fn rfc5508_req_4_errors_from_outside() {
    for (from, to, router, external, kind) in
        [("10.0.0.2:5000", "192.0.2.1:53", "192.0.2.254", EXTERNAL, 11), ("[fd00:a::2]:5000", "[2001:db8::1]:53", "2001:db8::fe", EXTERNAL6, 3)]
    {
        let mut world = World::new(Behaviour::default());
        let original = bytes_of(L4::Udp(end(from), end(to)), b"payload!");
        let sent = world.out_bytes(A, &original).unwrap();
        let error = icmp_error(router, external, kind, 0, &sent[0].bytes);
        let seen = world.in_bytes(&error).unwrap().remove(0);
        assert_eq!((seen.source.ip(), seen.destination.ip()), (router.parse().unwrap(), end(from).ip()));
        let ip = if end(from).is_ipv4() { 20 } else { 40 };
        assert_eq!(seen.bytes[14 + ip..14 + ip + 2], [kind, 0], "4b: type and code stay");
        let quote = 14 + ip + 8;
        assert_eq!(seen.bytes[quote..], original[14..14 + seen.bytes.len() - quote], "4a: the quote is what the host sent");
    }
    // About nothing of ours.
    let mut world = World::new(Behaviour::default());
    let stranger = bytes_of(L4::Udp(end(&format!("{EXTERNAL}:1")), end("192.0.2.1:53")), b"payload!");
    assert_eq!(world.in_bytes(&icmp_error("192.0.2.254", EXTERNAL, 3, 0, &stranger)), Err(NatDrop::IcmpQuote));
}

#[test]
fn rfc5508_req_5_errors_from_inside() {
    let mut world = World::new(Behaviour::default());
    let external = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap().source;
    let original = bytes_of(L4::Udp(end("192.0.2.1:53"), external), b"payload!");
    let received = world.in_bytes(&original).unwrap().remove(0);
    let error = icmp_error("10.0.0.2", "192.0.2.1", 3, 3, &received.bytes);
    let seen = world.out_bytes(A, &error).unwrap().remove(0);
    assert_eq!((seen.to, seen.source.ip(), seen.destination.ip()), (None, EXTERNAL.parse().unwrap(), "192.0.2.1".parse().unwrap()));
    assert_eq!(seen.bytes[42..], original[14..14 + seen.bytes.len() - 42], "5a: the quote is what outside sent");
    // A router inside says it: its address does not leave either (5c).
    let error = icmp_error("10.0.0.77", "192.0.2.1", 11, 0, &received.bytes);
    assert_eq!(world.out_bytes(A, &error).unwrap()[0].source.ip(), EXTERNAL.parse::<std::net::IpAddr>().unwrap());
}

#[test]
fn rfc5508_req_6_errors_refresh_nothing() {
    let mut world = World::new(Behaviour::default());
    let sent = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap();
    for _ in 0..3 {
        world.wait(99);
        drop(world.in_bytes(&icmp_error("192.0.2.254", EXTERNAL, 3, 1, &sent.bytes)));
    }
    world.wait(5);
    assert_eq!(world.udp_in("192.0.2.1:53", sent.source), Err(NatDrop::NoMapping));
}

#[test]
fn rfc5508_req_7_hairpinned_errors() {
    let mut world = World::new(Behaviour::FULL_CONE);
    let server = world.udp_out("10.0.0.3:7000", "192.0.2.1:53").unwrap().source;
    let original = bytes_of(L4::Udp(end("10.0.0.2:5000"), server), b"payload!");
    let received = world.out_bytes(A, &original).unwrap().remove(0);
    let error = icmp_error("10.0.0.3", EXTERNAL, 3, 3, &received.bytes);
    let seen = world.out_bytes(A, &error).unwrap().remove(0);
    assert_eq!((seen.to, seen.source.ip(), seen.destination.ip()), (Some(A), EXTERNAL.parse().unwrap(), "10.0.0.2".parse().unwrap()));
    assert_eq!(seen.bytes[42..], original[14..14 + seen.bytes.len() - 42]);
}

#[test]
fn rfc5508_req_8_no_flow_to_be_had_is_said() {
    let mut world = World::new(Behaviour { ports_per_host: 2, ..Behaviour::CGNAT });
    assert!(world.udp_out("10.0.0.2:1025", "192.0.2.1:53").is_ok() && world.udp_out("10.0.0.2:1026", "192.0.2.1:53").is_ok());
    let refused = world.udp_out("10.0.0.2:1027", "192.0.2.1:53").unwrap_err();
    assert_eq!((refused, refused.unreachable_code()), (NatDrop::Quota, Some(13)));
    assert!(world.udp_out("10.0.0.3:1027", "192.0.2.1:53").is_ok(), "RFC 6888 REQ-4: one subscriber's share is his alone");
}

#[test]
fn rfc5508_req_10_kinds() {
    let mut world = World::new(Behaviour::default());
    let sent = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap();
    for (kind, passes) in [(3, true), (11, true), (12, true), (5, false), (4, false), (13, false), (17, false), (9, false), (42, false)] {
        let seen = world.in_bytes(&icmp_error("192.0.2.254", EXTERNAL, kind, 0, &sent.bytes));
        assert_eq!(seen.is_ok(), passes, "type {kind}: {seen:?}");
    }
}

// ---- RFC 6888 ----

#[test]
fn rfc6888_req_8_ports_rest() {
    let mut world = World::new(Behaviour { port_preservation: true, ..Behaviour::CGNAT });
    let external = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap().source;
    world.wait(301);
    assert_ne!(world.udp_out("10.0.0.3:5000", "192.0.2.1:53").unwrap().source, external, "somebody else's so soon");
    world.wait(301);
    world.wait(121);
    assert_eq!(world.udp_out("10.0.0.4:5000", "192.0.2.1:53").unwrap().source, external);
}

#[test]
fn networks_with_the_same_addresses_are_apart() {
    let mut world = World::new(Behaviour::default());
    let subnets = vec!["10.0.0.0/24".parse().unwrap()];
    world.nat.set_network(B, Inside { subnets, translation: Translation::Masquerade, prefixes: None, behaviour: Behaviour::default() });
    let one = world.udp_out("10.0.0.2:5000", "192.0.2.1:53").unwrap().source;
    let other = world.out_bytes(B, &bytes_of(L4::Udp(end("10.0.0.2:5000"), end("192.0.2.1:53")), b"")).unwrap()[0].source;
    assert_ne!(one, other);
    assert_eq!(world.udp_in("192.0.2.1:53", one).unwrap().to, Some(A));
    assert_eq!(world.udp_in("192.0.2.1:53", other).unwrap().to, Some(B));
}
