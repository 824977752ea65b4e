//! The routing mesh: what comes to a published port of any node reaches a replica on any node, under the client's own address.
//!
//! Each node has a station of its own in the ingress network, the mesh port: a port of the switch without a device.
//!
//! ```text
//! the client's node:   proxy (the client's address) --> send --> mesh port --(from our station to that of the replica's node)--> tunnel
//! the replica's node:  tunnel --> mesh port --> arrive: who sent it is noted --> as from the gateway --> replica
//!                      replica --(to its gateway)--> back: of a noted flow --> mesh port --(to the station that was noted)--> tunnel
//! the client's node:   tunnel --> mesh port --> arrive --> proxy
//! ```
//!
//! So a replica speaks with its client by its own node's gateway, as over any published port. What is noted is only where a
//! flow came in, and every packet of its client notes it anew: what gave way to others, or was lost with a restart, comes back.
//! A client that speaks with one replica by two nodes, from the same L4 port, is answered by way of the one it spoke to last.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use packet::{Duration, Frame, Instant, IpView, Mac, NetworkId, Parsed, PortId, UnicastMac, checksum::protocol};

/// What the proxy calls the network that the mesh port's flows are in: no bridge has this number.
pub const MESH: NetworkId = NetworkId::new(u32::MAX, 0);

/// Flows that are noted at most; those idle for longest give way, an eighth at a time.
const MOST: usize = 65_536;
/// RFC 5382 REQ-5: established connections that are idle live 2 h 4 min at least.
const TCP: Duration = Duration::from_secs(7440);
/// After the end of either side.
const TCP_CLOSING: Duration = Duration::from_secs(240);
/// RFC 4787 REQ-5.
const UDP: Duration = Duration::from_secs(300);
const SWEEP: Duration = Duration::from_secs(30);
/// Datagrams whose fragments are on their way, at most.
const FRAGMENTED: usize = 256;

/// Where a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this node, under this address on the link.
    Here(UnicastMac),
    /// On another, which has this station.
    There(UnicastMac),
}

/// The mesh as control wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// The ingress network.
    pub network: NetworkId,
    /// The mesh port there.
    pub port: PortId,
    /// This node's station.
    pub station: UnicastMac,
    /// The network's gateway.
    pub gateway: UnicastMac,
    /// The gateway's addresses, each with its subnet.
    pub gateways: Vec<IpNetwork>,
    /// Stations of the other nodes.
    pub nodes: BTreeSet<UnicastMac>,
    /// Replicas of all services, by address.
    pub replicas: BTreeMap<IpAddr, Place>,
}

/// What becomes of a frame.
#[derive(Debug)]
pub enum Routed {
    /// To a network, as from its gateway.
    Gateway(NetworkId, Frame),
    /// Into the ingress network, by the mesh port.
    Port(PortId, Frame),
    /// To the proxy, as of [`MESH`].
    Proxy(Frame),
    /// Not of the mesh.
    NotMine(Frame),
    /// Counted, or of no concern to anybody.
    Gone,
}

/// What was not carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshStats {
    /// To or from nobody who is a replica, or not from where it should be.
    pub stray: u64,
    /// No buffer.
    pub no_buffer: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Flow {
    protocol: u8,
    replica: (IpAddr, u16),
    client: (IpAddr, u16),
}

#[derive(Clone, Copy, Debug)]
struct Noted {
    /// The station by which the client is.
    node: Mac,
    expires: Instant,
    closing: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Mesh {
    config: Option<MeshConfig>,
    flows: HashMap<Flow, Noted>,
    /// Where later fragments of an answer go: by source, destination and identification.
    fragments: HashMap<(IpAddr, IpAddr, u32), Mac>,
    next: Option<Instant>,
    /// What was not carried.
    pub stats: MeshStats,
}

impl Mesh {
    /// Is as `config` says; what was noted stays as long as its replica is here.
    pub fn configure(&mut self, config: Option<MeshConfig>) {
        let is_here = |flow: &Flow| config.as_ref().is_some_and(|config| matches!(config.replicas.get(&flow.replica.0), Some(Place::Here(_))));
        self.flows.retain(|flow, _| is_here(flow));
        self.config = config;
    }

    /// Whether a port is the mesh port.
    #[must_use]
    pub fn is_port(&self, port: PortId) -> bool {
        self.config.as_ref().is_some_and(|config| config.port == port)
    }

    /// Whether a network is the ingress network.
    #[must_use]
    pub fn is_network(&self, network: NetworkId) -> bool {
        self.config.as_ref().is_some_and(|config| config.network == network)
    }

    /// How many flows are noted.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// A packet of the proxy, to a replica.
    pub fn send(&mut self, frame: Frame, now: Instant) -> Routed {
        let Some((config, ip)) = self.config.as_ref().zip(ip_of(&frame)) else { return self.stray() };
        let own = config.station.get();
        match config.replicas.get(&ip.destination) {
            Some(Place::Here(_)) => self.deliver(frame, &ip, own, now),
            Some(Place::There(node)) => {
                let (port, node) = (config.port, node.get());
                self.address(frame, node, own, |frame| Routed::Port(port, frame))
            }
            None => self.stray(),
        }
    }

    /// A frame that the switch sends to the mesh port.
    pub fn arrive(&mut self, frame: Frame, now: Instant) -> Routed {
        let Some(config) = &self.config else { return self.stray() };
        let Some(parsed) = Parsed::new(frame.bytes()).filter(|parsed| parsed.tags == 0) else { return Routed::Gone };
        // What is flooded is for others.
        if parsed.ethernet.destination != config.station.get() {
            return Routed::Gone;
        }
        let from = parsed.ethernet.source;
        let Some((node, ip)) = UnicastMac::new(from).filter(|from| config.nodes.contains(from)).zip(parsed.ip) else { return self.stray() };
        // Clients may be seen as the gateway.
        let is_inside = |ip: IpAddr| config.gateways.iter().any(|subnet| subnet.contains(ip) && subnet.ip() != ip);
        match (is_inside(ip.source), is_inside(ip.destination)) {
            (false, true) if matches!(config.replicas.get(&ip.destination), Some(Place::Here(_))) => self.deliver(frame, &ip, from, now),
            (true, false) if config.replicas.get(&ip.source) == Some(&Place::There(node)) => Routed::Proxy(frame),
            _ => self.stray(),
        }
    }

    /// A packet of the ingress network to its gateway: the answer of a replica, or anything else.
    pub fn back(&mut self, frame: Frame, now: Instant) -> Routed {
        let Some(config) = &self.config else { return Routed::NotMine(frame) };
        let (own, port) = (config.station.get(), config.port);
        let Some(ip) = ip_of(&frame) else { return Routed::NotMine(frame) };
        let Some(node) = self.noted(&frame, &ip, now) else { return Routed::NotMine(frame) };
        if node == own { Routed::Proxy(frame) } else { self.address(frame, node, own, |frame| Routed::Port(port, frame)) }
    }

    /// The station by which an answer leaves.
    fn noted(&mut self, frame: &Frame, ip: &IpView, now: Instant) -> Option<Mac> {
        let fragment = ip.is_fragment().then(|| (ip.source, ip.destination, ip.identification(frame.bytes())));
        if let Some(name) = fragment.filter(|_| ip.fragment_offset != 0) {
            return self.fragments.get(&name).copied();
        }
        let (flow, ends) = flow_of(frame, ip, false)?;
        let noted = self.flows.get_mut(&flow).filter(|noted| noted.expires > now)?;
        noted.closing |= ends;
        noted.expires = now + lifetime(flow.protocol, noted.closing);
        let node = noted.node;
        if let Some(name) = fragment {
            if self.fragments.len() >= FRAGMENTED {
                self.fragments.clear();
            }
            self.fragments.insert(name, node);
        }
        Some(node)
    }

    /// To a replica on this node; its answers go to `node`.
    fn deliver(&mut self, frame: Frame, ip: &IpView, node: Mac, now: Instant) -> Routed {
        let Some(config) = &self.config else { return self.stray() };
        let Some(Place::Here(station)) = config.replicas.get(&ip.destination).copied() else { return self.stray() };
        let (network, gateway) = (config.network, config.gateway.get());
        if let Some((flow, ends)) = flow_of(&frame, ip, true) {
            self.make_room();
            let closing = ends || self.flows.get(&flow).is_some_and(|noted| noted.closing && !opens(&frame, ip));
            self.flows.insert(flow, Noted { node, expires: now + lifetime(flow.protocol, closing), closing });
            self.next.get_or_insert(now + SWEEP);
        }
        self.address(frame, station.get(), gateway, |frame| Routed::Gateway(network, frame))
    }

    fn address(&mut self, mut frame: Frame, to: Mac, from: Mac, then: impl FnOnce(Frame) -> Routed) -> Routed {
        if !frame.make_unique() {
            self.stats.no_buffer += 1;
            return Routed::Gone;
        }
        let bytes = frame.bytes_mut();
        bytes[..6].copy_from_slice(&to.0);
        bytes[6..12].copy_from_slice(&from.0);
        then(frame)
    }

    fn stray(&mut self) -> Routed {
        self.stats.stray += 1;
        Routed::Gone
    }

    fn make_room(&mut self) {
        if self.flows.len() < MOST {
            return;
        }
        let mut all: Vec<_> = self.flows.iter().map(|(flow, noted)| (noted.expires, *flow)).collect();
        all.sort_unstable();
        for (_, flow) in all.into_iter().take(MOST / 8) {
            self.flows.remove(&flow);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Forgets what was idle for its lifetime.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        self.flows.retain(|_, noted| noted.expires > now);
        self.fragments.clear();
        self.next = (!self.flows.is_empty()).then(|| now + SWEEP);
    }
}

fn ip_of(frame: &Frame) -> Option<IpView> {
    Parsed::new(frame.bytes()).filter(|parsed| parsed.tags == 0)?.ip
}

const fn lifetime(number: u8, closing: bool) -> Duration {
    match (number, closing) {
        (protocol::TCP, false) => TCP,
        (protocol::TCP, true) => TCP_CLOSING,
        _ => UDP,
    }
}

fn tcp_flags(frame: &Frame, ip: &IpView) -> u8 {
    frame.bytes().get(ip.l4_offset + 13).copied().unwrap_or_default()
}

fn opens(frame: &Frame, ip: &IpView) -> bool {
    ip.protocol == protocol::TCP && tcp_flags(frame, ip) & 2 != 0
}

/// The flow of a packet, and whether this is the end of a side; none of what has no ports.
fn flow_of(frame: &Frame, ip: &IpView, to_replica: bool) -> Option<(Flow, bool)> {
    if ip.fragment_offset != 0 || !matches!(ip.protocol, protocol::TCP | protocol::UDP) {
        return None;
    }
    let ports = frame.bytes().get(ip.l4_offset..ip.end())?.first_chunk::<4>()?;
    let (from, to) = (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]));
    let (source, destination) = ((ip.source, from), (ip.destination, to));
    let (replica, client) = if to_replica { (destination, source) } else { (source, destination) };
    // FIN or RST.
    let ends = ip.protocol == protocol::TCP && tcp_flags(frame, ip) & 5 != 0;
    Some((Flow { protocol: ip.protocol, replica, client }, ends))
}

#[cfg(test)]
mod tests;
