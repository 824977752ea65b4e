//! The user-mode uplink: flows of sandboxes, carried by host sockets.
//!
//! A packet that a gateway sends on comes in by [`Proxy::frame`]; what the host has comes in by
//! [`Proxy::ready`]; frames for sandboxes come out in a vector. A flow is known by its two ends as the
//! sandbox sees them, so whoever is outside keeps his address and port on the inside.
//!
//! Bounds: flows and datagram sockets are limited; at the limit the one idle for longest gives way
//! (datagrams), or the new one is refused (TCP).

mod datagram;
mod flows;
mod network;
mod published;
mod reassemble;
mod route;
pub mod sockets;
mod tcp;
mod timers;
mod view;
mod write;

use std::{
    collections::{BTreeMap, HashMap},
    hash::RandomState,
    net::{IpAddr, SocketAddr},
};

use packet::{Checksum, Frame, Instant, Mac, NetworkId, Parsed, Pool, checksum::protocol};

pub use network::{Network, Resolvers};
pub use sockets::{NetworkError, Ready, SocketId, Sockets};
pub use view::{FlowView, PublishView, Transport};

use crate::watch::{FlowEvent, Watch};
use datagram::{Binding, Datagrams};
use published::Published;
use reassemble::Reassembler;
use tcp::{Budget, Segment, Tcp, Verdict};
use timers::Timers;

/// TCP flows at most, and of one sandbox's address.
const MOST_FLOWS: usize = 100_000;
const MOST_OF_ONE: usize = 32_768;
/// Port of name servers.
const DNS: u16 = 53;

/// A published port: what comes in on a host socket goes to a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The sandbox's network.
    pub network: NetworkId,
    /// TCP or UDP.
    pub transport: Transport,
    /// Where the host listens.
    pub host: SocketAddr,
    /// Where it goes: each connection to the next in turn.
    pub targets: Vec<Target>,
}

/// Where what comes in by a published port goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The sandbox's end.
    pub inside: SocketAddr,
    /// Its address on the link.
    pub mac: Mac,
}

/// The two ends of a flow, as the sandbox sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    network: NetworkId,
    inside: SocketAddr,
    outside: SocketAddr,
}

impl Key {
    fn event(&self, protocol: u8, began: bool) -> FlowEvent {
        FlowEvent { began, network: self.network, protocol, inside: self.inside.into(), outside: self.outside.into(), external: None }
    }
}

#[derive(Debug)]
struct Flow {
    key: Key,
    mac: Mac,
    /// The published port that it came in by, and how many would not have it before.
    via: Option<(SocketId, usize)>,
    rx_bytes: u64,
    tx_bytes: u64,
    tcp: Tcp,
    /// When the clock looks at it.
    noted: Option<Instant>,
}

/// Who is behind a host socket.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Flow(usize),
    Binding(usize),
    Publish,
}

/// Frames to put into networks.
pub type Output = Vec<(NetworkId, Frame)>;

/// Counters of what was not carried, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyStats {
    /// Destinations that no router forwards to.
    pub martian: u64,
    /// With a wrong checksum, or a length that lies.
    pub broken: u64,
    /// Malformed, or of a protocol that host sockets cannot carry.
    pub unsupported: u64,
    /// Fragments of TCP, which has no need of them.
    pub fragment: u64,
    /// Flows refused at the limit.
    pub full: u64,
    /// Datagrams from outside that no one inside had asked for.
    pub filtered: u64,
    /// Flows refused because the network is internal.
    pub internal: u64,
    /// Segments ahead of a hole that there was no memory for; they are sent again.
    pub ahead: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Proxy {
    pool: Pool,
    networks: HashMap<NetworkId, Network>,
    /// Addresses whose link takes less than their network's.
    mtus: BTreeMap<(NetworkId, IpAddr), u16>,
    index: HashMap<Key, usize>,
    flows: Vec<Option<Flow>>,
    free: Vec<usize>,
    /// How many flows an address inside has.
    counts: HashMap<(NetworkId, IpAddr), usize>,
    owners: HashMap<SocketId, Owner>,
    /// With what came in by each.
    publishes: HashMap<SocketId, Published>,
    datagrams: Datagrams,
    fragments: Reassembler,
    /// Datagram sockets that may have more to read than their turn allowed.
    again: Vec<SocketId>,
    /// Flows that owe an acknowledgement, or have more to send, at the end of the turn.
    pending: Vec<usize>,
    isn_key: RandomState,
    timers: Timers,
    /// For what TCP flows hold behind holes.
    budget: Budget,
    /// Frames of the flow in hand, kept so that nothing is allocated.
    scratch: Vec<Frame>,
    watch: Watch,
    /// Flows that networks opened, by family (true is IPv4).
    opened: BTreeMap<(NetworkId, bool), u64>,
    stats: ProxyStats,
}

impl Proxy {
    /// A proxy that carries nothing yet.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            networks: HashMap::new(),
            mtus: BTreeMap::new(),
            index: HashMap::new(),
            flows: Vec::new(),
            free: Vec::new(),
            counts: HashMap::new(),
            owners: HashMap::new(),
            publishes: HashMap::new(),
            datagrams: Datagrams::default(),
            fragments: Reassembler::default(),
            again: Vec::new(),
            pending: Vec::new(),
            isn_key: RandomState::new(),
            timers: Timers::default(),
            budget: Budget::default(),
            scratch: Vec::new(),
            watch: Watch::default(),
            opened: BTreeMap::new(),
            stats: ProxyStats::default(),
        }
    }

    /// Serves a network, or serves it differently.
    pub fn set_network(&mut self, id: NetworkId, network: Network) {
        self.networks.insert(id, network);
    }

    /// Has questions answered by others; what was asked of those before is forgotten.
    pub fn set_resolvers<S: Sockets>(&mut self, id: NetworkId, resolvers: Resolvers, sockets: &mut S) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let gateways: Vec<_> = network.gateways.iter().map(ipnetwork::IpNetwork::ip).collect();
        let before = std::mem::replace(&mut network.resolvers, resolvers.clone());
        let changed = |key: &Key| key.network == id && key.outside.port() == DNS && gateways.contains(&key.outside.ip()) && before.of(key.inside.ip()) != resolvers.of(key.inside.ip());
        self.end_flows(sockets, changed);
        self.datagrams.end(sockets, &mut self.owners, changed);
    }

    /// Ends all flows of a network.
    pub fn remove_network<S: Sockets>(&mut self, id: NetworkId, sockets: &mut S) {
        self.networks.remove(&id);
        self.opened.retain(|(network, _), _| *network != id);
        self.mtus.retain(|(network, _), _| *network != id);
        self.end_flows(sockets, |key| key.network == id);
        self.datagrams.end(sockets, &mut self.owners, |key| key.network == id);
    }

    /// Says what an address inside takes, where that is less than its network does.
    pub fn set_inside_mtu(&mut self, network: NetworkId, inside: IpAddr, mtu: Option<u16>) {
        match mtu {
            Some(mtu) => self.mtus.insert((network, inside), mtu),
            None => self.mtus.remove(&(network, inside)),
        };
    }

    /// Ends all flows of a sandbox's address: it left.
    pub fn remove_inside<S: Sockets>(&mut self, network: NetworkId, inside: IpAddr, sockets: &mut S) {
        self.end_flows(sockets, |key| key.network == network && key.inside.ip() == inside);
        self.datagrams.end(sockets, &mut self.owners, |key| key.network == network && key.inside.ip() == inside);
    }

    /// Tells of flows as they come and go, or no longer.
    pub fn watch(&mut self, on: bool) {
        self.watch.set(on);
    }

    /// What was to tell since; answers how many events there was no room for.
    pub fn take_events(&mut self, each: impl FnMut(FlowEvent)) -> u64 {
        self.watch.take(each)
    }

    // ---- from sandboxes ----

    /// A frame that its gateway sends on.
    pub fn frame<S: Sockets>(&mut self, network: NetworkId, frame: &Frame, now: Instant, sockets: &mut S, out: &mut Output) {
        let bytes = frame.bytes();
        let Some(parsed) = Parsed::new(bytes) else { return };
        let Some(ip) = parsed.ip else { return };
        // What a device finished may be broken; what is still to be finished is as the sandbox made it.
        if frame.offload.checksum == Checksum::Complete && !packet::checksum::verify(bytes) {
            self.stats.broken += 1;
            return;
        }
        let whole;
        let l4 = if ip.is_fragment() {
            // TCP finds its segment size by itself; only datagrams are worth the memory.
            if ip.protocol == protocol::TCP {
                self.stats.fragment += 1;
                return;
            }
            let Some(datagram) = self.fragments.add(network, &ip, bytes, now) else { return };
            whole = datagram;
            &whole[..]
        } else {
            &bytes[ip.l4_offset..ip.end()]
        };
        let ports = l4.first_chunk::<4>().map(|&[a, b, c, d]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
        let hops = if ip.source.is_ipv4() { bytes[ip.offset + 8] } else { bytes[ip.offset + 7] };
        let mac = parsed.ethernet.source;
        match (ip.protocol, ports) {
            (protocol::TCP, Some((from, to))) => {
                let key = Key { network, inside: SocketAddr::new(ip.source, from), outside: SocketAddr::new(ip.destination, to) };
                match Segment::parse(l4) {
                    Some(segment) => self.tcp(key, mac, &segment, now, sockets, out),
                    None => self.stats.unsupported += 1,
                }
            }
            (protocol::UDP, Some((from, to))) if l4.len() >= 8 => {
                // A length of zero is a jumbogram's, or a super-frame's (RFC 2675 4).
                let length = match usize::from(u16::from_be_bytes([l4[4], l4[5]])) {
                    0 => l4.len(),
                    length => length,
                };
                let Some(payload) = l4.get(8..length) else {
                    self.stats.broken += 1;
                    return;
                };
                let key = Key { network, inside: SocketAddr::new(ip.source, from), outside: SocketAddr::new(ip.destination, to) };
                let size = if let packet::Gso::Udp { size } = frame.offload.gso { usize::from(size) } else { usize::MAX };
                self.datagram(key, mac, Transport::Udp, hops, payload, size, now, sockets, out);
            }
            (protocol::ICMP | protocol::ICMPV6, _) if l4.len() >= 8 && l4[0] == if ip.source.is_ipv4() { 8 } else { 128 } => {
                let ident = u16::from_be_bytes([l4[4], l4[5]]);
                let key = Key { network, inside: SocketAddr::new(ip.source, ident), outside: SocketAddr::new(ip.destination, 0) };
                self.datagram(key, mac, Transport::Echo, hops, l4, usize::MAX, now, sockets, out);
            }
            _ => self.stats.unsupported += 1,
        }
    }

    // ---- from the host ----

    /// A host socket is ready for something.
    pub fn ready<S: Sockets>(&mut self, socket: SocketId, ready: Ready, now: Instant, sockets: &mut S, out: &mut Output) {
        match self.owners.get(&socket).copied() {
            Some(Owner::Flow(at)) => self.flow_ready(at, ready, now, sockets, out),
            Some(Owner::Binding(at)) => self.binding_ready(at, ready, now, sockets, out),
            Some(Owner::Publish) => self.publish_ready(socket, now, sockets, out),
            None => {}
        }
    }

    // ---- flows ----

    /// The end of a turn: acknowledgements that nothing carried, and the next turn of flows that have
    /// more. True when there is more still.
    pub fn flush<S: Sockets>(&mut self, now: Instant, sockets: &mut S, out: &mut Output) -> bool {
        sockets.datagram_flush();
        for socket in std::mem::take(&mut self.again) {
            self.ready(socket, Ready { read: true, ..Ready::default() }, now, sockets, out);
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_unstable();
        pending.dedup();
        for at in pending.drain(..) {
            self.with_flow(at, now, sockets, out, |tcp, cx| {
                let verdict = if tcp.wants_turn() { tcp.pump(cx) } else { Verdict::Keep };
                if verdict == Verdict::Keep && tcp.owes_ack {
                    tcp.acknowledge(cx);
                }
                verdict
            });
            if self.flows[at].as_ref().is_some_and(|flow| flow.tcp.wants_turn()) {
                self.pending.push(at);
            }
        }
        if self.pending.is_empty() {
            self.pending = pending;
        }
        !self.pending.is_empty() || !self.again.is_empty()
    }

    // ---- the clock ----

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.datagrams.poll_timeout()].into_iter().flatten().min()
    }

    /// Deadlines up to `now` are due.
    pub fn handle_timeout<S: Sockets>(&mut self, now: Instant, sockets: &mut S, out: &mut Output) {
        self.datagrams.expire(now, sockets, &mut self.owners, &mut self.watch);
        let mut due = Vec::new();
        self.timers.take_due(now, &mut due);
        for at in due {
            let Some(flow) = self.flows[at].as_mut() else { continue };
            flow.noted = None;
            if flow.tcp.deadline() <= now {
                if flow.tcp.is_unanswered() && self.try_next(at, now, sockets, out) {
                    continue;
                }
                self.with_flow(at, now, sockets, out, Tcp::timeout);
                self.owe(at);
            } else {
                self.timers.note(at, &mut flow.noted, flow.tcp.deadline());
            }
        }
    }
}

/// Largest packet towards a flow's inside end.
fn mtu_of(mtus: &BTreeMap<(NetworkId, IpAddr), u16>, network: &Network, key: &Key) -> u16 {
    if mtus.is_empty() {
        return network.mtu;
    }
    mtus.get(&(key.network, key.inside.ip())).map_or(network.mtu, |own| network.mtu.min(*own))
}

/// Frees what a datagram socket held.
fn release<S: Sockets>(binding: &Binding, sockets: &mut S, owners: &mut HashMap<SocketId, Owner>) {
    owners.remove(&binding.socket);
    sockets.close(binding.socket, false);
}
