//! Frames from strangers on both sides of a router with NAT: whatever they are, nothing panics, no inside
//! address leaves by the uplink, and all buffers come home.

use dataplane::{BridgeConfig, Command, GatewayConfig, GatewayRole, Link, Outbox, PacketUplink, PortConfig, Reply, Router, Switch, SwitchConfig};
use nat::{Behaviour, Forward, Inside, NatConfig, Translation};
use packet::{Duration, Instant, Mac, NetworkId, Parsed, Pool, PoolConfig, PortId, UnicastMac};

/// The router's addresses on both sides.
pub const FACES: [Mac; 2] = [Mac([2, 0x42, 10, 0, 0, 1]), Mac([2, 0x42, 192, 0, 2, 9])];
const OWN: [&str; 2] = ["192.0.2.9", "2001:db8::9"];

/// Frames, each `side, length (2 bytes), bytes`: side is 0 for inside and 1 for the uplink; 2 lets time pass.
pub fn gateway(data: &[u8]) {
    let pool = Pool::new(PoolConfig { small: 600, large: 80 });
    let mut switch = Switch::new(SwitchConfig { seed: 1, ..SwitchConfig::default() }, pool.clone());
    let mut out = Outbox::new(4096);
    let mut face = |side: usize, addresses: [&str; 2], role| -> (NetworkId, Link, PortId) {
        let mac = UnicastMac::new(FACES[side]).expect("unicast");
        let addresses: Vec<_> = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        let gateway = GatewayConfig { role, ..GatewayConfig::new(mac, addresses.clone()) };
        let config = BridgeConfig { gateway: Some(gateway), ..BridgeConfig::new("net") };
        let Ok(Reply::Network(network)) = switch.apply(Command::AddBridge(config), Instant::ZERO, &mut out) else { panic!("no bridge") };
        let Ok(Reply::Port(port)) = switch.apply(Command::AddPort(PortConfig::new(network, "port")), Instant::ZERO, &mut out) else { panic!("no port") };
        (network, Link { mac, addresses, mtu: 1500 }, port)
    };
    let (inside, inside_link, sandbox) = face(0, ["10.0.0.1/24", "fd00::1/64"], GatewayRole::Network);
    let (outside, outside_link, wan) = face(1, ["192.0.2.9/24", "2001:db8::9/64"], GatewayRole::Uplink);
    let mut router = Router::new(pool.clone(), NatConfig { seed: 1, most: 64, ..NatConfig::default() });
    router.set_uplink(PacketUplink { network: outside, link: outside_link, gateways: vec!["192.0.2.1".parse().expect("an address")] });
    let subnets = inside_link.addresses.clone();
    router.set_network(inside, inside_link, Some(Inside { subnets, translation: Translation::Masquerade, prefixes: None, behaviour: Behaviour::FULL_CONE }));
    let to = nat::End::new("10.0.0.2".parse().expect("an address"), 80);
    router.add_forward(Forward { protocol: 6, address: None, ports: (1, 2000), network: inside, to }).expect("a forward");
    let (mut now, mut rest) = (Instant::from_nanos(1), data);
    while let Some((&[side, high, low], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (bytes, next) = after.split_at(length);
        rest = next;
        now = now + if side % 3 == 2 { Duration::from_millis(length as u64) } else { Duration::from_micros(1) };
        if side % 3 < 2
            && let Some(frame) = pool.copy_of(bytes)
        {
            switch.ingress([sandbox, wan][usize::from(side % 3)], frame, now, &mut out);
        }
        let mut routed = Vec::new();
        for (network, frame) in out.outside.drain(..) {
            drop(router.take(network, frame, now, &mut routed));
        }
        if router.poll_timeout().is_some_and(|at| at <= now) {
            router.handle_timeout(now, &mut routed);
        }
        for (network, frame) in routed {
            switch.inject(network, frame, now, &mut out);
        }
        for (port, sendable) in out.frames.drain(..) {
            let frame = sendable.into_frame();
            let Some(ip) = Parsed::new(frame.bytes()).and_then(|parsed| parsed.ip) else { continue };
            assert!(port != wan || OWN.iter().any(|own| ip.source == own.parse::<std::net::IpAddr>().expect("an address")) || ip.source.to_string().starts_with("fe80"), "{} leaves", ip.source);
        }
        out.events.clear();
    }
    drop((switch, router, out));
    assert_eq!((pool.stats().small_used, pool.stats().large_used), (0, 0), "all buffers are home");
}
