mod balance;

use packet::{Duration, PoolConfig};

use super::*;
use crate::{BridgeConfig, CaptureConfig, CaptureScope, Command, Guard, PortChange, PortConfig, Reply, VlanMode};

struct Bench {
    switch: Switch,
    out: Outbox,
    network: NetworkId,
}

impl Bench {
    fn new() -> Self {
        Self::with(BridgeConfig::new("net"))
    }

    fn with(config: BridgeConfig) -> Self {
        let mut switch = Switch::new(SwitchConfig::default(), Pool::new(PoolConfig::default()));
        let mut out = Outbox::new(64);
        let Ok(Reply::Network(network)) = switch.apply(Command::AddBridge(config), Instant::ZERO, &mut out) else { panic!("no bridge") };
        Self { switch, out, network }
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.switch.apply(command, Instant::ZERO, &mut self.out).unwrap()
    }

    fn port(&mut self, change: impl FnOnce(&mut PortConfig)) -> PortId {
        let mut config = PortConfig::new(self.network, "p");
        change(&mut config);
        match self.apply(Command::AddPort(config)) {
            Reply::Port(port) => port,
            other => panic!("{other:?}"),
        }
    }

    /// Sends a frame of 60 bytes; the ports it leaves by.
    fn send(&mut self, from: PortId, to: u8, source: u8) -> Vec<PortId> {
        let mut bytes = [0; 60];
        bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, source, 0x88, 0xb5]);
        if to == 0xff {
            bytes[..6].fill(0xff);
        }
        self.send_bytes(from, &bytes)
    }

    fn send_bytes(&mut self, from: PortId, bytes: &[u8]) -> Vec<PortId> {
        let frame = self.switch.pool().copy_of(bytes).unwrap();
        self.switch.ingress(from, frame, Instant::ZERO, &mut self.out);
        let mut ports: Vec<_> = self.out.frames.drain(..).map(|(port, _)| port).collect();
        ports.sort_unstable_by_key(|port| port.index());
        ports
    }

    fn drops(&mut self, port: PortId, reason: DropReason) -> u64 {
        let Reply::Ports(views) = self.apply(Command::ShowPorts(None)) else { panic!("no ports") };
        let view = views.into_iter().find(|view| view.id == port).unwrap();
        view.counters.drops.iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| count)
    }
}

#[test]
fn floods_learns_and_forgets() {
    let mut bench = Bench::new();
    let [a, b, c] = [(); 3].map(|()| bench.port(|_| {}));
    assert_eq!(bench.send(a, 2, 1), [b, c], "unknown");
    assert_eq!(bench.send(b, 1, 2), [a], "known");
    assert_eq!(bench.send(a, 1, 9), [], "behind the same port");
    assert_eq!(bench.drops(a, DropReason::SamePort), 1);
    bench.apply(Command::RemovePort(a));
    assert_eq!(bench.send(b, 1, 2), [c], "its entries went with the port");
    // The slot is used again, under another id: the old one reaches nothing.
    let d = bench.port(|_| {});
    assert_eq!(bench.send(a, 0xff, 1), []);
    assert_eq!(bench.send(d, 0xff, 4), [b, c]);
}

#[test]
fn isolated_ports_and_horizon_groups_stay_apart() {
    let mut bench = Bench::new();
    let [a, b] = [(); 2].map(|()| bench.port(|config| config.isolated = true));
    let [c, d] = [(); 2].map(|()| bench.port(|config| config.horizon = Some(0)));
    assert_eq!(bench.send(a, 0xff, 1), [c, d]);
    assert_eq!(bench.send(c, 0xff, 3), [a, b]);
    assert_eq!(bench.send(b, 1, 2), [], "unicast too");
    assert_eq!(bench.drops(b, DropReason::Isolated), 1);
    assert_eq!(bench.send(b, 3, 2), [c]);
}

#[test]
fn a_port_that_is_down_neither_speaks_nor_hears() {
    let mut bench = Bench::new();
    let [a, b, c] = [(); 3].map(|()| bench.port(|_| {}));
    bench.send(b, 0xff, 2);
    bench.apply(Command::SetPort(b, PortChange::Up(false)));
    assert_eq!(bench.send(a, 2, 1), [c], "forgotten, so flooded");
    assert_eq!(bench.send(b, 1, 2), []);
    assert_eq!(bench.drops(b, DropReason::PortDown), 1);
    bench.apply(Command::SetPort(b, PortChange::Up(true)));
    assert_eq!(bench.send(b, 1, 2), [a]);
}

#[test]
fn a_guarded_port_has_its_own_address_only() {
    let mut bench = Bench::new();
    let own = packet::UnicastMac::new(packet::Mac([2, 0, 0, 0, 0, 1])).unwrap();
    let a = bench.port(|config| config.guard = Some(Guard { macs: vec![own], ips: vec![], no_router: true }));
    let b = bench.port(|_| {});
    assert_eq!(bench.send(a, 0xff, 1), [b]);
    assert_eq!(bench.send(a, 0xff, 2), []);
    assert_eq!(bench.send(b, 2, 5), [a], "the forged address was not learned behind it");
}

#[test]
fn access_ports_of_two_vlans_are_two_bridges() {
    let mut bench = Bench::new();
    let access = |id: u16| move |config: &mut PortConfig| config.vlan = VlanMode::Access(VlanId::new(id).unwrap());
    let [a, b, c] = [10, 20, 10].map(|id| bench.port(access(id)));
    assert_eq!((bench.send(a, 0xff, 1), bench.send(b, 0xff, 2)), (vec![c], vec![]));
    assert_eq!(bench.send(c, 1, 3), [a]);
    assert_eq!(bench.send(b, 1, 2), [], "a's address is known in its VLAN only");
}

#[test]
fn a_capture_sees_both_sides_and_changes_nothing() {
    let mut bench = Bench::new();
    let [a, b] = [(); 2].map(|()| bench.port(|_| {}));
    bench.apply(Command::StartCapture(CaptureConfig { scope: CaptureScope::All, whole: false, filter: None }));
    assert_eq!(bench.send(a, 0xff, 1), [b]);
    let seen: Vec<_> = bench.out.captures.iter().map(|record| (record.port, record.direction)).collect();
    assert_eq!(seen, [(a, crate::Direction::Ingress), (b, crate::Direction::Egress)]);
}

#[test]
fn ageing_is_swept_and_told() {
    let mut bench = Bench::new();
    let a = bench.port(|_| {});
    bench.send(a, 0xff, 1);
    let mut aged = false;
    for _ in 0..100 {
        let Some((at, _)) = bench.switch.poll_timeout() else { break };
        bench.switch.handle_timeout(at + Duration::from_millis(1), &mut bench.out);
        aged |= bench.out.events.drain(..).any(|event| matches!(event, Event::Aged { .. }));
    }
    assert!(aged);
    assert_eq!(bench.switch.poll_timeout(), None);
}

/// A network whose gateway does all that it can.
fn served() -> Bench {
    let mac = packet::UnicastMac::new(packet::Mac([2, 0x42, 10, 0, 0, 1])).unwrap();
    let addresses = ["10.0.0.1/24", "fd00::1/64"].map(|address| address.parse().unwrap()).to_vec();
    let dhcp = crate::DhcpConfig {
        range: ([10, 0, 0, 200].into(), [10, 0, 0, 210].into()),
        excluded: vec![],
        lease: Duration::from_secs(3600),
        is_router: true,
        mtu: 1500,
    };
    let advertise = crate::AdvertiseConfig { is_router: true, mtu: 1500 };
    let gateway = crate::GatewayConfig { dhcp: Some(dhcp), advertise: Some(advertise), ..crate::GatewayConfig::new(mac, addresses) };
    Bench::with(BridgeConfig { gateway: Some(gateway), ..BridgeConfig::new("net") })
}

/// A DHCPDISCOVER of station 1, without checksums of its own.
fn discover() -> Vec<u8> {
    let mut bytes = vec![0; 14 + 28 + 244];
    bytes[..14].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0]);
    bytes[14..34].copy_from_slice(&[0x45, 0, 1, 16, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    let sum = !packet::checksum::fold(packet::checksum::sum(&bytes[14..34]));
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes[34..45].copy_from_slice(&[0, 68, 0, 67, 0, 252, 0, 0, 1, 1, 6]);
    bytes[70..76].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[278..286].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    bytes
}

#[test]
fn a_dhcp_client_is_answered_and_nobody_else_hears_it() {
    let own = packet::UnicastMac::new(packet::Mac([2, 0, 0, 0, 0, 1])).unwrap();
    let mut bench = served();
    let a = bench.port(|config| config.guard = Some(Guard { macs: vec![own], ips: vec![[10, 0, 0, 5].into()], no_router: true }));
    bench.port(|_| {});
    assert_eq!(bench.send_bytes(a, &discover()), [a], "past the guard, from no address");
    let reservation = crate::Reservation { ip: [10, 0, 0, 5].into(), host_name: None };
    let network = bench.network;
    bench.apply(Command::SetReservation { network, mac: own, reservation });
    bench.switch.ingress(a, bench.switch.pool().copy_of(&discover()).unwrap(), Instant::ZERO, &mut bench.out);
    let (_, offer) = bench.out.frames.drain(..).next().unwrap();
    assert_eq!(offer.frame().bytes()[30..34], [10, 0, 0, 5]);
    // Other broadcasts go where they went.
    let mut other = discover();
    other[36..38].copy_from_slice(&[0, 69]);
    assert_eq!(bench.send_bytes(a, &other), [], "the guard lets a client through, and nothing else");
    assert_eq!(bench.drops(a, DropReason::GuardIp), 1);
}

#[test]
fn without_dhcp_a_client_s_broadcast_is_flooded() {
    let mut bench = Bench::new();
    let [a, b] = [(); 2].map(|()| bench.port(|_| {}));
    assert_eq!(bench.send_bytes(a, &discover()), [b]);
}

#[test]
fn advertisements_are_flooded_by_the_clock() {
    let mut bench = served();
    let [a, b] = [(); 2].map(|()| bench.port(|_| {}));
    let mut told = Vec::new();
    for _ in 0..4 {
        let (at, reason) = bench.switch.poll_timeout().unwrap();
        assert_eq!(reason, TimeoutReason::Advertise(bench.network));
        bench.switch.handle_timeout(at, &mut bench.out);
        let ports: Vec<_> = bench.out.frames.drain(..).map(|(port, _)| port).collect();
        assert_eq!(ports, [a, b]);
        told.push(at.as_nanos() / 1_000_000_000);
    }
    assert_eq!(told, [0, 16, 32, 232]);
    // A solicitation is answered, and heard by other routers.
    let mut solicitation = vec![0x33, 0x33, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 58, 255];
    let addresses = ["fe80::1", "ff02::2"].map(|ip| ip.parse::<std::net::Ipv6Addr>().unwrap().octets());
    solicitation.extend(addresses.as_flattened());
    solicitation.extend([133, 0, 0, 0, 0, 0, 0, 0]);
    let sum = !packet::checksum::fold(packet::checksum::pseudo_header(&solicitation[14..], 58, 8).unwrap() + 133 * 256);
    solicitation[56..58].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(bench.send_bytes(a, &solicitation), [a, b]);
    bench.apply(Command::RemovePort(b));
    assert_eq!(bench.send_bytes(a, &solicitation), [a]);
    assert_eq!(bench.drops(a, DropReason::NoOtherPort), 0);
}

/// Each node has the network's gateway, so no node's is seen through a tunnel.
#[test]
fn a_gateway_and_a_tunnel_do_not_meet() {
    let mut bench = served();
    let a = bench.port(|_| {});
    let tunnel = bench.port(|config| config.foreign = true);
    let (mut told, at) = (Vec::new(), bench.switch.poll_timeout().unwrap().0);
    bench.switch.handle_timeout(at, &mut bench.out);
    told.extend(bench.out.frames.drain(..).map(|(port, _)| port));
    assert_eq!(told, [a], "what it says by itself");
    let mut question = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 10, 0, 0, 7];
    question.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    assert_eq!(bench.send_bytes(a, &question), [a], "answered here, and not asked there");
    assert_eq!(bench.send_bytes(tunnel, &question), [a], "not answered");
    assert_eq!(bench.send_bytes(tunnel, &discover()), [a]);
    let mut outside = discover();
    outside[..6].copy_from_slice(&[2, 0x42, 10, 0, 0, 1]);
    assert_eq!(bench.send_bytes(tunnel, &outside), []);
    assert_eq!(bench.drops(tunnel, DropReason::Isolated), 1);
    assert!(bench.out.outside.is_empty());
    let network = bench.network;
    let to_tunnel = bench.switch.pool().copy_of(&[&[2, 0, 0, 0, 0, 1, 2, 0x42, 10, 0, 0, 1, 8, 0][..], &[0; 46]].concat()).unwrap();
    bench.switch.inject(network, to_tunnel, Instant::ZERO, &mut bench.out);
    assert!(bench.out.frames.is_empty(), "station 1 is behind the tunnel");
    assert_eq!(bench.send(a, 1, 7), [tunnel], "for others it is a port like any");
}

/// A path between nodes that carries less than the stations' links: no router is there to tell, so the gateway does.
#[test]
fn what_is_too_long_for_a_tunnel_is_told() {
    let mut bench = served();
    let a = bench.port(|_| {});
    let tunnel = bench.port(|config| (config.foreign, config.mtu) = (true, 1350));
    let packet = |length: u16, destination: u8| {
        let mut bytes = vec![destination, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 8, 0, 0x45, 0];
        bytes.extend((length + 20).to_be_bytes());
        bytes.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 7, 10, 0, 0, 8]);
        bytes.resize(34 + usize::from(length), 0);
        bytes
    };
    assert_eq!(bench.send_bytes(a, &packet(1330, 2)), [tunnel], "it fits");
    let frame = bench.switch.pool().copy_of(&packet(1331, 2)).unwrap();
    bench.switch.ingress(a, frame, Instant::ZERO, &mut bench.out);
    let (port, error) = bench.out.frames.pop().unwrap();
    let error = error.into_frame();
    assert_eq!((port, bench.out.frames.len()), (a, 0));
    let bytes = error.bytes();
    assert!(packet::checksum::verify(bytes));
    assert_eq!(bytes[..14], [2, 0, 0, 0, 0, 7, 2, 0x42, 10, 0, 0, 1, 8, 0]);
    assert_eq!((&bytes[26..36], &bytes[38..42]), (&[10, 0, 0, 1, 10, 0, 0, 7, 3, 4][..], &1350_u32.to_be_bytes()[..]));
    assert_eq!(bytes[42..62], packet(1331, 2)[14..34], "the packet it is about");
    assert_eq!(bench.drops(tunnel, DropReason::TooBig), 1);
    assert_eq!(bench.send_bytes(a, &packet(1331, 3)), [], "nothing about groups");
    let told = (0..200).map(|_| bench.send_bytes(a, &packet(1331, 2)).len()).sum::<usize>();
    assert_eq!(told, 99, "no more than the limit");
    let plain = bench.port(|config| config.mtu = 1350);
    bench.apply(Command::RemovePort(tunnel));
    assert_eq!((bench.send_bytes(a, &packet(1331, 2)), bench.drops(plain, DropReason::TooBig)), (vec![], 1), "a port like any");
}

/// On a LAN the router is another: our station answers for names, to whoever is here, and sends nothing on.
#[test]
fn a_resolver_on_a_lan_is_seen_from_inside_only() {
    let mac = packet::UnicastMac::new(packet::Mac([2, 0x42, 169, 254, 0, 53])).unwrap();
    let gateway = crate::GatewayConfig { role: crate::GatewayRole::Resolver, ..crate::GatewayConfig::new(mac, vec!["169.254.0.53/32".parse().unwrap()]) };
    let mut bench = Bench::with(BridgeConfig { gateway: Some(gateway), ..BridgeConfig::new("lan") });
    let a = bench.port(|_| {});
    let lan = bench.port(|config| (config.foreign, config.vlan) = (true, VlanMode::Tagged(VlanId::new(10).unwrap())));
    let ask = |target: [u8; 4]| {
        let mut question = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 192, 168, 88, 7];
        question.extend([0, 0, 0, 0, 0, 0]);
        question.extend(target);
        question
    };
    assert_eq!(bench.send_bytes(a, &ask([169, 254, 0, 53])), [a], "answered here, and not asked there");
    assert_eq!(bench.send_bytes(a, &ask([192, 168, 88, 1])), [lan], "the LAN's router is the LAN's");
    let tagged = |bytes: Vec<u8>| [&bytes[..12], &[0x81, 0, 0, 10], &bytes[12..]].concat();
    assert_eq!(bench.send_bytes(lan, &tagged(ask([169, 254, 0, 53]))), [a], "not answered");
    let datagram = |destination: [u8; 4]| {
        let mut bytes = vec![2, 0x42, 169, 254, 0, 53, 2, 0, 0, 0, 0, 7, 8, 0, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 192, 168, 88, 7];
        bytes.extend(destination);
        let sum = !packet::checksum::fold(packet::checksum::sum(&bytes[14..34]));
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        bytes.extend([4, 0, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4]);
        bytes
    };
    assert_eq!((bench.send_bytes(a, &datagram([169, 254, 0, 53])), bench.out.outside.drain(..).count()), (vec![], 1), "for names, from an address of the LAN");
    assert_eq!((bench.send_bytes(a, &datagram([9, 9, 9, 9])), bench.out.outside.len(), bench.drops(a, DropReason::GatewayNothing)), (vec![], 0, 1), "it is no router");
    bench.apply(Command::StartCapture(CaptureConfig { scope: CaptureScope::All, whole: false, filter: None }));
    let frame = bench.switch.pool().copy_of(&tagged([&[2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 9, 0x88, 0xb5][..], &[0; 46]].concat())).unwrap();
    bench.switch.ingress(lan, frame, Instant::ZERO, &mut bench.out);
    let (port, frame) = bench.out.frames.pop().unwrap();
    let frame = frame.into_frame();
    assert_eq!((port, &frame.bytes()[12..14], frame.len()), (a, &[0x88, 0xb5][..], 60), "without its tag, also where it is captured");
    assert!(bench.out.captures.iter().any(|capture| capture.frame.bytes()[12..16] == [0x81, 0, 0, 10]), "which is captured as it came");
}
