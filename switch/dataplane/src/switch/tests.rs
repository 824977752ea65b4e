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
        let mut switch = Switch::new(SwitchConfig::default(), Pool::new(PoolConfig::default()));
        let mut out = Outbox::new(64);
        let Ok(Reply::Network(network)) = switch.apply(Command::AddBridge(BridgeConfig::new("net")), Instant::ZERO, &mut out) else { panic!("no bridge") };
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
        let frame = self.switch.pool().copy_of(&bytes).unwrap();
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
    bench.apply(Command::StartCapture(CaptureConfig { scope: CaptureScope::All, whole: false }));
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
