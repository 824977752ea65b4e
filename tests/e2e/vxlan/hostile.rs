//! What other nodes, and strangers, may try.

use std::net::Ipv6Addr;

use weft_tests::{
    run::eventually,
    vxlan::{broadcast, header, socket_in},
};

use super::{Fabric, Node};

impl Node {
    /// A clear frame for its encrypted network, from a peer's address, does not come in (CVE-2023-28840); it is the
    /// first one that the node hears.
    pub(crate) fn takes_nothing_clear_from(&self, peer: &Self) {
        let clear = broadcast(4096, [2, 0, 0, 0, 0, 0x66]);
        socket_in(&peer.lab.host).send_to(&clear, (self.underlay().as_str(), 4789)).expect("sent");
        eventually("clear_text", || self.dropped("clear_text") == 1);
        assert!(!self.show()["networks"][0]["remotes"].to_string().contains("02:00:00:00:00:66"));
    }
}

pub(super) fn apart() {
    let fabric = Fabric::new(3, 2, "");
    let [one, two, stranger] = &fabric.nodes[..] else { panic!("three nodes") };
    one.overlay(&format!("--vni 4096 --peer {}", two.underlay()));
    two.overlay(&format!("--vni 4096 --peer {}", one.underlay()));
    let (a, b) = (one.station(18), two.station(34));
    assert!(a.pings("10.0.0.34"));
    // Another VNI with the same peers: neither broadcast nor anything else crosses.
    for (node, range) in [(one, "10.1.0.16/28"), (two, "10.1.0.32/28")] {
        let peer = if node.number == 1 { two } else { one };
        node.lab.weft(&format!("network create -d overlay other --subnet 10.1.0.0/24 --ip-range {range} --vni 5000 --peer {}", peer.underlay())).ok();
    }
    let c = two.lab.ns("other");
    two.lab.weft(&format!("attach other {} --ifname eth0", c.path())).ok();
    c.sh("ip addr flush dev eth0 && ip addr add 10.0.0.99/24 dev eth0").ok();
    assert!(a.cannot_ping("10.0.0.99") && c.cannot_ping("10.0.0.18") && a.pings("10.0.0.34"));
    // Who is no peer is not heard, whatever he knows.
    let socket = socket_in(&stranger.lab.host);
    let before = one.dropped("unknown_remote");
    let frame = broadcast(4096, [2, 0, 0, 0, 0, 9]);
    for _ in 0..3 {
        socket.send_to(&frame, "192.168.88.211:4789").expect("sent");
    }
    eventually("strangers are counted", || one.dropped("unknown_remote") == before + 3);
    let from_peer = socket_in(&two.lab.host);
    let counted = |reason: &str, datagram: &[u8]| {
        let before = one.dropped(reason);
        from_peer.send_to(datagram, "192.168.88.211:4789").expect("sent");
        eventually(reason, || one.dropped(reason) == before + 1);
    };
    counted("unknown_vni", &[&header(4097)[..], &frame[8..]].concat());
    counted("short", &frame[..7]);
    counted("short", &[]);
    counted("bad_flags", &[&[0; 8][..], &frame[8..]].concat());
    counted("inner_runt", &frame[..15]);
    counted("bad_inner_source", &[&frame[..14], &[0xff; 6], &frame[20..]].concat());
    // As long as a datagram can be: it fits no station's link.
    let giant = [&frame[..], &vec![0; 65_507 - frame.len()]].concat();
    let too_big = || one.lab.api("/v1/stats")["drops"]["too_big"].as_u64().unwrap_or(0);
    let before = too_big();
    from_peer.send_to(&giant, "192.168.88.211:4789").expect("sent");
    eventually("too_big", || too_big() == before + 1);
    // Lengths and bytes of all kinds.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..2000_usize {
        let length = if round % 50 == 0 { 65_507 - round % 7 } else { usize::try_from(next() % 1600).expect("small") };
        let mut datagram: Vec<u8> = (0..length).map(|_| next().to_le_bytes()[0]).collect();
        if round % 2 == 0 && length > 8 {
            datagram[..8].copy_from_slice(&header(4096));
        }
        if round % 4 == 0 && length > 40 {
            datagram[8..22].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0]);
        }
        drop(from_peer.send_to(&datagram, "192.168.88.211:4789"));
    }
    assert!(a.pings("10.0.0.34") && b.pings("10.0.0.18"), "and nothing broke");
    let settled = one.lab.api("/v1/stats")["buffers"].clone();
    assert!(settled[1].as_u64().is_some_and(|large| large < 200), "no buffer was lost: {settled}");
}


/// An ARP packet of a station at 02:..:66 (or `from`) that says that `sender` is there.
fn arp(from: u8, operation: u8, sender: [u8; 4]) -> Vec<u8> {
    let mac = [2, 0, 0, 0, 0, from];
    [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation], &mac, &sender, &[0xff; 6], &[10, 0, 0, 18]].concat()
}

/// A neighbour advertisement of the same station, with the override flag, to all nodes.
fn advertisement(target: &str) -> Vec<u8> {
    let target = target.parse::<Ipv6Addr>().expect("an address").octets();
    let all: Ipv6Addr = "ff02::1".parse().expect("an address");
    let message = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &target, &[2, 1, 2, 0, 0, 0, 0, 0x66]].concat();
    let mut packet = [&[0x60, 0, 0, 0, 0, 32, 58, 255][..], &target, &all.octets(), &message].concat();
    let words = packet[8..].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum::<u32>() + 32 + 58;
    let sum = !u16::try_from((words & 0xffff) + (words >> 16)).expect("no second carry");
    packet[42..44].copy_from_slice(&sum.to_be_bytes());
    [&[0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x66, 0x86, 0xdd][..], &packet].concat()
}

/// A peer that was taken over speaks neither for a station here nor for the gateway; but a station that went away may
/// turn up behind it.
pub(super) fn forged() {
    let fabric = Fabric::new(2, 2, "");
    fabric.overlay(2, false, "");
    let [one, two] = &fabric.nodes[..] else { panic!("two nodes") };
    let (a, other) = (one.lab.ns("a"), one.lab.ns("other"));
    one.lab.weft(&format!("attach net {} --ifname eth0 --ip 10.0.0.18 --ip6 fd0a::18 --mac 02:00:00:00:00:18", a.path())).ok();
    one.lab.weft(&format!("attach net {} --ifname eth0 --ip 10.0.0.19 --ip6 fd0a::19 --mac 02:00:00:00:00:19", other.path())).ok();
    assert!(a.pings("10.0.0.1") && a.pings("fd0a::1") && a.pings("10.0.0.19") && a.pings("fd0a::19"));
    let peer = socket_in(&two.lab.host);
    let send = |inner: &[u8]| peer.send_to(&[&header(4096)[..], inner].concat(), "192.168.88.211:4789").map(drop).expect("sent");
    let counted = |reason: &str, inner: &[u8]| {
        let before = one.dropped(reason);
        send(inner);
        eventually(reason, || one.dropped(reason) == before + 1);
    };
    counted("local_source", &arp(0x19, 1, [10, 0, 0, 77]));
    counted("local_source", &[&[2, 0, 0, 0, 0, 0x18, 2, 0, 0, 0, 0, 0x19, 0x88, 0xb5][..], &[0; 46]].concat());
    for operation in [1, 2] {
        for sender in [[10, 0, 0, 1], [10, 0, 0, 18], [10, 0, 0, 19]] {
            counted("forged_neighbour", &arp(0x66, operation, sender));
        }
    }
    for target in ["fd0a::1", "fd0a::19", "fe80::ff:fe00:19", "fe80::42:aff:fe00:1"] {
        counted("forged_neighbour", &advertisement(target));
    }
    let known = a.ip("neigh show").ok();
    assert!(!known.contains("02:00:00:00:00:66"), "{known}");
    assert!(one.show()["networks"][0]["remotes"].as_array().is_some_and(Vec::is_empty), "nothing was learned");
    assert!(a.pings("10.0.0.19") && a.pings("fd0a::19") && a.pings("10.0.0.1"));
    // What is the peer's to say is heard, and so is who has left.
    send(&arp(0x66, 2, [10, 0, 0, 77]));
    eventually("the peer's station is known", || one.show()["networks"][0]["counters"]["learned"] == 1);
    drop(other);
    eventually("the port is gone", || !one.lab.weft("port ls").ok().contains("other"));
    let moved = two.lab.ns("other");
    two.lab.weft(&format!("attach net {} --ifname eth0 --ip 10.0.0.19 --ip6 fd0a::19 --mac 02:00:00:00:00:19", moved.path())).ok();
    eventually("at its new place", || a.run("ping -c 1 -W 1 10.0.0.19").code == Some(0));
    assert!(a.pings("fd0a::19") && moved.pings("10.0.0.18"));
}
