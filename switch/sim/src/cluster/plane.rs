//! A node's data plane: its switch, whose tunnel ports lead to its VXLAN endpoint. As the daemon's loop puts them together
//! (`switch/src/tunnel.rs`), without gateways.

use std::{collections::BTreeMap, time::Duration};

use control::{
    Network,
    overlay::{Overlay, TunnelChange},
};
use dataplane::{BridgeConfig, Capabilities, Command, Identity, Outbox, PortConfig, Reply, Switch, SwitchConfig};
use packet::{Frame, Instant, NetworkId, Parsed, Pool, PortId, UnicastMac, Vni};
use vxlan::{Datagram, Neighbour, Outer, RemoteKind, VniConfig, Vtep, VtepConfig};

/// Stations a bridge or a VNI learns about: thousands of nodes are in one process.
const LEARNED_MOST: usize = 1024;

/// A network's port to the other nodes.
#[derive(Clone, Copy, Debug)]
struct Tunnel {
    bridge: NetworkId,
    port: PortId,
    vni: Vni,
}

/// Whoever is at a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Station {
    pub(super) mac: UnicastMac,
    pub(super) vni: Vni,
}

/// What became of a frame.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// To stations of this node.
    pub(super) delivered: Vec<(PortId, Frame)>,
    /// To other nodes, from the network of this VNI.
    pub(super) datagrams: Vec<(Vni, Datagram)>,
}

/// See the module.
pub(super) struct DataPlane {
    switch: Switch,
    pub(super) vtep: Vtep,
    outbox: Outbox,
    /// By id of their network.
    tunnels: BTreeMap<String, Tunnel>,
    vnis: BTreeMap<PortId, Vni>,
    pub(super) stations: BTreeMap<PortId, Station>,
    /// Ports of stations, by id of their endpoint.
    pub(super) ports: BTreeMap<String, PortId>,
    wrapped: Vec<Datagram>,
}

impl DataPlane {
    pub(super) fn new(pool: &Pool, udp_port: u16, seed: u64) -> Self {
        let config = VtepConfig { port: udp_port, learned_most: LEARNED_MOST, ..VtepConfig::default() };
        Self {
            switch: Switch::new(SwitchConfig { seed, ..SwitchConfig::default() }, pool.clone()),
            vtep: Vtep::new(config, pool.clone(), [seed, !seed]),
            outbox: Outbox::new(1 << 16),
            tunnels: BTreeMap::new(),
            vnis: BTreeMap::new(),
            stations: BTreeMap::new(),
            ports: BTreeMap::new(),
            wrapped: Vec::new(),
        }
    }

    fn apply(&mut self, command: Command, now: Instant) -> Reply {
        match self.switch.apply(command, now, &mut self.outbox) {
            Ok(reply) => reply,
            Err(error) => panic!("what control asks of the data plane can be done: {error}"),
        }
    }

    fn add_port(&mut self, config: PortConfig, now: Instant) -> PortId {
        let Reply::Port(port) = self.apply(Command::AddPort(config), now) else { panic!("a port was asked for") };
        port
    }

    pub(super) fn is_open(&self, network: &str) -> bool {
        self.tunnels.contains_key(network)
    }

    /// The bridge and the tunnel of a network, which knows no other node yet.
    pub(super) fn open(&mut self, network: &Network, overlay: &Overlay, now: Instant) {
        let Some((vni, mtu)) = Vni::new(overlay.vni).zip(u16::try_from(network.mtu).ok()) else { panic!("control checks VNI and MTU") };
        let ageing = Duration::from_secs(network.ageing_s.into());
        let bridge = BridgeConfig { ageing, fdb_capacity: LEARNED_MOST, ..BridgeConfig::new(network.name.as_str()) };
        let Reply::Network(bridge) = self.apply(Command::AddBridge(bridge), now) else { panic!("a bridge was asked for") };
        let port = self.add_port(PortConfig { foreign: true, mtu: network.mtu, ..PortConfig::new(bridge, "vxlan") }, now);
        let rules = VniConfig { mtu, learning: overlay.learning, ageing, strict: overlay.strict, ..VniConfig::default() };
        if let Err(error) = self.vtep.add_vni(vni, rules) {
            panic!("VNI {vni:?} has one network: {error}");
        }
        self.vnis.insert(port, vni);
        self.tunnels.insert(network.id.clone(), Tunnel { bridge, port, vni });
    }

    pub(super) fn close(&mut self, network: &str, now: Instant) {
        if let Some(Tunnel { bridge, port, vni }) = self.tunnels.remove(network) {
            self.vnis.remove(&port);
            self.vtep.remove_vni(vni);
            self.apply(Command::RemovePort(port), now);
            self.apply(Command::RemoveBridge(bridge), now);
        }
    }

    /// As the daemon's tunnels do (`switch/src/tunnel/control.rs`).
    pub(super) fn change(&mut self, network: &str, change: TunnelChange, now: Instant) {
        let Some(&Tunnel { vni, .. }) = self.tunnels.get(network) else { return };
        let result = match change {
            TunnelChange::AddPeer(peer) => self.vtep.add_peer(vni, peer),
            TunnelChange::AddStation(mac, to) => self.vtep.set_remote(vni, mac, to, RemoteKind::Static, now),
            TunnelChange::AddNeighbour(ip, mac) => self.vtep.set_neighbour(vni, ip, Neighbour { mac, router: false }),
            TunnelChange::RemovePeer(peer) => {
                self.vtep.remove_peer(vni, peer);
                Ok(())
            }
            TunnelChange::RemoveStation(mac) => {
                self.vtep.remove_remote(vni, mac);
                Ok(())
            }
            TunnelChange::RemoveNeighbour(ip) => {
                self.vtep.remove_neighbour(vni, ip);
                Ok(())
            }
        };
        if let Err(error) = result {
            panic!("{change:?} in VNI {vni:?}: {error}");
        }
    }

    /// A station is connected; nothing happens where its network is not open.
    pub(super) fn plug(&mut self, endpoint: &str, network: &str, mac: UnicastMac, now: Instant) {
        let Some(&Tunnel { bridge, vni, .. }) = self.tunnels.get(network) else { return };
        let identity = Identity { mac: Some(mac), ips: Vec::new() };
        let port = self.add_port(PortConfig { capabilities: Capabilities::NONE, identity, ..PortConfig::new(bridge, "station") }, now);
        self.stations.insert(port, Station { mac, vni });
        self.ports.insert(endpoint.to_owned(), port);
    }

    pub(super) fn unplug(&mut self, endpoint: &str, now: Instant) {
        if let Some(port) = self.ports.remove(endpoint) {
            self.stations.remove(&port);
            self.apply(Command::RemovePort(port), now);
        }
    }

    /// A station sends a frame.
    pub(super) fn send(&mut self, port: PortId, frame: Frame, now: Instant) -> Passed {
        let mut passed = Passed::default();
        self.ingress(port, frame, now, &mut passed);
        passed
    }

    /// A datagram came in.
    pub(super) fn receive(&mut self, outer: Outer, datagram: Frame, now: Instant) -> Passed {
        let mut passed = Passed::default();
        // What is dropped was counted.
        let (switch, tunnels) = (&self.switch, &self.vnis);
        let port_of = |vni: Vni| tunnels.iter().find(|(_, other)| **other == vni).map(|(port, _)| *port);
        let judge = |vni: Vni, parsed: &Parsed, bytes: &[u8]| match port_of(vni).and_then(|port| switch.claim_of(port, parsed, bytes)) {
            None => Ok(()),
            Some(_) => Err(vxlan::DropReason::LocalSource),
        };
        if let Ok((vni, frame)) = self.vtep.decap(outer, datagram, judge, now)
            && let Some(port) = self.vnis.iter().find(|(_, other)| **other == vni).map(|(port, _)| *port)
        {
            self.ingress(port, frame, now, &mut passed);
        }
        passed
    }

    /// At a port of the switch, and on from there.
    fn ingress(&mut self, port: PortId, frame: Frame, now: Instant, passed: &mut Passed) {
        let mut coming = vec![(port, frame)];
        while let Some((port, frame)) = coming.pop() {
            self.switch.ingress(port, frame, now, &mut self.outbox);
            for (to, sendable) in self.outbox.frames.drain(..) {
                let Some(&vni) = self.vnis.get(&to) else {
                    passed.delivered.push((to, sendable.into_frame()));
                    continue;
                };
                if let Ok(Some(answer)) = self.vtep.encap(vni, sendable.into_frame(), now, &mut self.wrapped) {
                    coming.push((to, answer));
                }
                passed.datagrams.extend(self.wrapped.drain(..).map(|datagram| (vni, datagram)));
            }
            self.outbox.events.clear();
        }
    }
}
