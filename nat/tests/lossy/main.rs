//! A smoltcp host behind a link with faults, the proxy, and a host that echoes: every byte comes
//! back, in order, and both ends close. Virtual time, seeded.
#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests")]

mod peer;
mod world;

use packet::{Duration, checksum};
use smoltcp::{
    iface::{Config, Interface, SocketSet},
    socket::tcp,
    time::Instant as SmolInstant,
    wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address},
};
use world::{Faults, GATEWAY, INSIDE, World};

fn pattern(at: usize) -> u8 {
    ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn bulk(seed: u64, faults: Faults, buffer: usize, total: usize) {
    let mut world = World::new(seed, faults, buffer);
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

const fn lost(percent: u64) -> Faults {
    Faults { lost: percent, doubled: 0, delayed: 0 }
}

#[test]
fn whole_without_loss() {
    bulk(1, lost(0), 1 << 20, 8 << 20);
}

#[test]
fn whole_with_one_percent_lost() {
    for seed in 1..6 {
        bulk(seed * 77, lost(1), 1 << 20, 1 << 20);
    }
}

#[test]
fn whole_with_five_percent_lost() {
    for seed in 1..6 {
        bulk(seed * 1313, lost(5), 1 << 20, 256 << 10);
    }
}

#[test]
fn whole_with_packets_that_change_places_or_come_twice() {
    for seed in 1..6 {
        bulk(seed * 11, Faults { delayed: 10, ..lost(0) }, 1 << 20, 256 << 10);
        bulk(seed * 13, Faults { doubled: 10, ..lost(0) }, 1 << 20, 256 << 10);
        bulk(seed * 17, Faults { lost: 3, doubled: 5, delayed: 5 }, 1 << 20, 128 << 10);
    }
}

#[test]
fn back_pressure_of_a_small_buffer() {
    bulk(5, lost(0), 4096, 256 << 10);
    bulk(7, lost(2), 3000, 64 << 10);
    bulk(9, Faults { lost: 2, doubled: 5, delayed: 5 }, 9000, 64 << 10);
}

#[test]
fn flows_that_nobody_uses_end() {
    let mut world = World::new(9, lost(0), 1 << 20);
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
