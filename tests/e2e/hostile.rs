//! Frames that no honest host sends, into live ports: counted, never fatal, and nobody else notices.

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    ns::Ns,
    runner::{Need, test},
    wire::Wire,
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("hostile::every_length_into_a_tap", NEEDS, || every_length("tap")),
        test("hostile::every_length_into_a_veth", NEEDS, || every_length("veth")),
        test("hostile::lying_virtio_headers_tap", NEEDS, || lying_headers("tap")),
        test("hostile::lying_virtio_headers_veth", NEEDS, || lying_headers("veth")),
    ]
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

struct World {
    lab: Lab,
    wire: Wire,
    one: Ns,
    _others: [Ns; 2],
}

/// `one` and `two` on a network of jumbo MTU; raw frames go in at `one`.
fn world(kind: &str, vnet_hdr: bool) -> World {
    let lab = Lab::start();
    lab.weft("network create net --subnet 10.9.0.0/24 --mtu 65521").ok();
    let (one, two, small) = (lab.ns("one"), lab.ns("two"), lab.ns("small"));
    lab.weft(&format!("attach net {} --ifname eth0 --kind {kind} --ip 10.9.0.2", one.path())).ok();
    lab.weft(&format!("attach net {} --ifname eth0 --kind {kind} --ip 10.9.0.3", two.path())).ok();
    // A port with a small MTU and tags: what does not fit has to be cut, or dropped by name.
    lab.weft(&format!("attach net {} --ifname eth0 --kind {kind} --ip 10.9.0.4 --mtu 1500 --vlan 7", small.path())).ok();
    let wire = Wire::new(&one, "eth0", vnet_hdr);
    World { lab, wire, one, _others: [two, small] }
}

impl World {
    /// The daemon lives and forwards.
    fn check(&self) {
        assert!(self.one.pings("10.9.0.3"), "{}", self.lab.log());
        assert!(!self.lab.log().contains("panic"), "{}", self.lab.log());
    }

    fn counted(&self) -> u64 {
        self.lab.api("/v1/stats")["rx_frames"].as_u64().expect("a number")
    }
}

fn every_length(kind: &str) {
    let world = world(kind, false);
    let before = world.counted();
    let (mut taken, mut refused) = (0_u64, 0_u64);
    for length in 0..=65_535 {
        let mut frame = noise(length as u64 + 1, length);
        // Half are for everybody; the source is nobody's.
        if length % 2 == 0 && length >= 6 {
            frame[..6].fill(0xff);
        }
        match world.wire.send(&frame) {
            Ok(()) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 65_000, "{taken} frames taken by the kernel, {refused} refused");
    world.check();
    // A ring that is full loses frames before the switch sees them; most must have come through.
    let seen = world.counted() - before;
    assert!(seen > taken / 10, "{seen} of {taken} frames reached the switch");
}

fn lying_headers(kind: &str) {
    let world = world(kind, true);
    let mut taken = 0;
    for number in 0..20_000_u64 {
        let header = noise(number * 7 + 3, 10);
        let length = usize::try_from(number * 131 % 9000).expect("small");
        let mut frame = noise(number + 11, length);
        if length > 40 {
            // IPv4 with TCP or UDP, or IPv6, so that the kernel believes some of it.
            frame[..6].fill(0xff);
            frame[12..15].copy_from_slice(if number % 3 == 0 { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] });
            frame[if number % 3 == 0 { 20 } else { 23 }] = if number % 2 == 0 { 6 } else { 17 };
        }
        // Flags and GSO types that exist, half of the time.
        let mut header = header;
        if number % 2 == 0 {
            header[0] &= 3;
            header[1] = [0, 1, 3, 4, 5, 0x81][usize::try_from(number / 2 % 6).expect("small")];
        }
        taken += u32::from(world.wire.send(&[header, frame].concat()).is_ok());
    }
    assert!(taken > 100, "the kernel believed {taken} headers");
    world.check();
}
