//! The user-mode uplink: flows of sandboxes, carried by host sockets.
//!
//! A packet that a gateway sends on comes in by [`Proxy::frame`]; what the host has comes in by
//! [`Proxy::ready`]; frames for sandboxes come out in a vector. A flow is known by its two ends as the
//! sandbox sees them, so whoever is outside keeps his address and port on the inside.
//!
//! Bounds: flows and datagram sockets are limited; at the limit the one idle for longest gives way
//! (datagrams), or the new one is refused (TCP).

mod datagram;
mod published;
mod reassemble;
pub mod sockets;
mod tcp;
mod timers;
mod view;
mod write;

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use packet::{Checksum, Frame, Instant, Mac, NetworkId, Parsed, Pool, checksum::protocol};

pub use sockets::{NetworkError, Ready, SocketId, Sockets};
pub use view::{FlowView, PublishView, Transport};

use crate::watch::{FlowEvent, Watch};
use datagram::{Binding, Datagrams};
use published::Published;
use reassemble::Reassembler;
use tcp::{Budget, Context, Segment, State, Tcp, Verdict};
use timers::Timers;
use write::Path;

/// TCP flows at most, and of one sandbox's address.
const MOST_FLOWS: usize = 100_000;
const MOST_OF_ONE: usize = 32_768;
/// Port of name servers.
const DNS: u16 = 53;

/// What the proxy knows of a network.
#[derive(Clone, Debug)]
pub struct Network {
    /// Address of the gateway on the link.
    pub gateway_mac: Mac,
    /// The gateway's address and the subnet, by family.
    pub gateways: Vec<ipnetwork::IpNetwork>,
    /// Largest packet on the link, bytes.
    pub mtu: u16,
    /// Where questions to the gateway's port 53 go.
    pub resolvers: Resolvers,
    /// Whether sandboxes may open flows to the outside; published ports work either way.
    pub masquerade: bool,
    /// As whom sandboxes see clients that they could not answer to; as the gateway where there is none of the family.
    pub stand_in: Vec<IpAddr>,
}

/// Who answers questions for names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolvers {
    /// Those of all; nobody when missing.
    pub common: Option<SocketAddr>,
    /// Those of addresses inside that have one of their own.
    pub own: BTreeMap<IpAddr, SocketAddr>,
}

impl Resolvers {
    fn of(&self, inside: IpAddr) -> Option<SocketAddr> {
        self.own.get(&inside).copied().or(self.common)
    }
}

impl Network {
    /// The gateway's address of a family.
    fn gateway(&self, ipv4: bool) -> Option<IpAddr> {
        self.gateways.iter().map(ipnetwork::IpNetwork::ip).find(|ip| ip.is_ipv4() == ipv4)
    }

    fn stand_in(&self, ipv4: bool) -> Option<IpAddr> {
        self.stand_in.iter().copied().find(|ip| ip.is_ipv4() == ipv4).or_else(|| self.gateway(ipv4))
    }

    fn is_inside(&self, ip: IpAddr) -> bool {
        self.gateways.iter().any(|subnet| subnet.contains(ip))
    }
}

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

/// Why a flow goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NoNetwork,
    Closed,
    Internal,
    Martian,
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

    fn end_flows<S: Sockets>(&mut self, sockets: &mut S, ends: impl Fn(&Key) -> bool) {
        for at in 0..self.flows.len() {
            if self.flows[at].as_ref().is_some_and(|flow| ends(&flow.key)) {
                self.remove(at, true, sockets);
            }
        }
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

    /// Questions to the gateway leave for nowhere.
    fn count_opened(&mut self, key: &Key, peer: SocketAddr) {
        if peer != key.outside {
            return;
        }
        *self.opened.entry((key.network, key.inside.is_ipv4())).or_default() += 1;
    }

    /// Where a flow to `outside` really goes; `None` when nowhere.
    fn route(&mut self, key: &Key, transport: Transport) -> Option<SocketAddr> {
        match self.decide(key, transport) {
            Ok(outside) => Some(outside),
            Err(refusal) => {
                match refusal {
                    Refusal::Internal => self.stats.internal += 1,
                    Refusal::Martian => self.stats.martian += 1,
                    Refusal::NoNetwork | Refusal::Closed => {}
                }
                None
            }
        }
    }

    fn decide(&self, key: &Key, transport: Transport) -> Result<SocketAddr, Refusal> {
        let network = self.networks.get(&key.network).ok_or(Refusal::NoNetwork)?;
        let to_gateway = network.gateways.iter().any(|gateway| gateway.ip() == key.outside.ip());
        if to_gateway {
            // Names are asked for at the gateway, whose own ports are closed otherwise.
            let resolver = network.resolvers.of(key.inside.ip()).filter(|_| key.outside.port() == DNS && transport != Transport::Echo).ok_or(Refusal::Closed)?;
            return Ok(match resolver {
                // A datagram socket is of its inside's family: an IPv6 one reaches IPv4 by mapped addresses.
                SocketAddr::V4(v4) if transport == Transport::Udp && key.inside.is_ipv6() => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
                resolver => resolver,
            });
        }
        if !network.masquerade {
            return Err(Refusal::Internal);
        }
        // Networks are apart: none is another's outside.
        if packet::is_martian(key.outside.ip()) || self.networks.values().any(|network| network.is_inside(key.outside.ip())) {
            return Err(Refusal::Martian);
        }
        Ok(key.outside)
    }

    fn tcp<S: Sockets>(&mut self, key: Key, mac: Mac, segment: &Segment, now: Instant, sockets: &mut S, out: &mut Output) {
        if let Some(&at) = self.index.get(&key) {
            if let Some(flow) = self.flows[at].as_mut() {
                flow.rx_bytes += segment.payload.len() as u64;
            }
            self.with_flow(at, now, sockets, out, |tcp, cx| tcp.segment(segment, cx));
            self.owe(at);
            return;
        }
        if segment.flags & (tcp::SYN | tcp::ACK | tcp::RST) != tcp::SYN {
            self.refuse(&key, mac, segment, out);
            return;
        }
        if self.index.len() >= MOST_FLOWS || self.counts.get(&(key.network, key.inside.ip())).is_some_and(|count| *count >= MOST_OF_ONE) {
            self.stats.full += 1;
            self.refuse(&key, mac, segment, out);
            return;
        }
        let Some(peer) = self.route(&key, Transport::Tcp) else {
            self.refuse(&key, mac, segment, out);
            return;
        };
        match sockets.tcp_connect(peer) {
            Ok(socket) => {
                self.count_opened(&key, peer);
                let tcp = Tcp::outbound(socket, segment, self.isn(&key, now), now);
                let at = self.insert(Flow { key, mac, via: None, rx_bytes: 0, tx_bytes: 0, tcp, noted: None });
                self.owners.insert(socket, Owner::Flow(at));
                self.outcome(at, now, sockets, out);
            }
            Err(error) => self.failed(&key, mac, segment.seq, &error, out),
        }
    }

    /// Asks how the host's connection went, and tells the sandbox once it is known.
    fn outcome<S: Sockets>(&mut self, at: usize, now: Instant, sockets: &mut S, out: &mut Output) {
        let Some(flow) = self.flows[at].as_ref() else { return };
        let (key, mac) = (flow.key, flow.mac);
        match sockets.tcp_outcome(flow.tcp.socket) {
            None => {}
            Some(Ok(())) => self.with_flow(at, now, sockets, out, |tcp, cx| {
                tcp.connected(cx);
                Verdict::Keep
            }),
            Some(Err(error)) => {
                let seq = flow.tcp.first_number();
                self.remove(at, false, sockets);
                self.failed(&key, mac, seq, &error, out);
            }
        }
    }

    /// The host could not connect: refused is a reset, unreachable is said by ICMP.
    fn failed(&mut self, key: &Key, mac: Mac, seq: u32, error: &io::Error, out: &mut Output) {
        let code = match error.kind() {
            io::ErrorKind::NetworkUnreachable => 0,
            io::ErrorKind::HostUnreachable | io::ErrorKind::TimedOut => 1,
            io::ErrorKind::PermissionDenied => 13,
            _ => {
                self.refuse(key, mac, &Segment::syn(seq), out);
                return;
            }
        };
        let mut quoted = [0; 8];
        quoted[..2].copy_from_slice(&key.inside.port().to_be_bytes());
        quoted[2..4].copy_from_slice(&key.outside.port().to_be_bytes());
        quoted[4..].copy_from_slice(&seq.to_be_bytes());
        self.unreachable(key, mac, protocol::TCP, code, 0, &quoted, out);
    }

    fn refuse(&mut self, key: &Key, mac: Mac, segment: &Segment, out: &mut Output) {
        let Some(path) = self.path(key, mac) else { return };
        let mut frames = Vec::new();
        tcp::refuse(&self.pool, &path, segment, &mut frames);
        out.extend(frames.into_iter().map(|frame| (key.network, frame)));
    }

    fn path(&self, key: &Key, mac: Mac) -> Option<Path> {
        let network = self.networks.get(&key.network)?;
        Some(Path { from_mac: network.gateway_mac, to_mac: mac, from: key.outside, to: key.inside })
    }

    /// RFC 6528: a number that outsiders cannot guess, and that grows with time (4 us a step).
    fn isn(&self, key: &Key, now: Instant) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "thirty-two bits are wanted")]
        let (hash, clock) = (self.isn_key.hash_one(key) as u32, (now.as_nanos() / 4000) as u32);
        hash.wrapping_add(clock)
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

    fn flow_ready<S: Sockets>(&mut self, at: usize, ready: Ready, now: Instant, sockets: &mut S, out: &mut Output) {
        let Some(flow) = self.flows[at].as_ref() else { return };
        if flow.tcp.state == State::Connecting {
            self.outcome(at, now, sockets, out);
            return;
        }
        if ready.error && flow.tcp.is_half_open() {
            // The client is gone before the sandbox answered.
            self.with_flow(at, now, sockets, out, Tcp::break_off);
            return;
        }
        if ready.write && flow.tcp.is_holding() {
            self.with_flow(at, now, sockets, out, Tcp::writable);
        }
        if ready.read || ready.error {
            self.with_flow(at, now, sockets, out, Tcp::readable);
        }
        self.owe(at);
    }

    // ---- flows ----

    fn insert(&mut self, flow: Flow) -> usize {
        let key = flow.key;
        self.watch.tell(|| key.event(protocol::TCP, true));
        let at = self.free.pop().unwrap_or_else(|| {
            self.flows.push(None);
            self.flows.len() - 1
        });
        let flow = self.flows[at].insert(flow);
        self.timers.note(at, &mut flow.noted, flow.tcp.deadline());
        self.index.insert(key, at);
        *self.counts.entry((key.network, key.inside.ip())).or_default() += 1;
        at
    }

    fn remove<S: Sockets>(&mut self, at: usize, reset: bool, sockets: &mut S) {
        if let Some(flow) = self.forget(at) {
            sockets.close(flow.tcp.socket, reset);
        }
    }

    fn forget(&mut self, at: usize) -> Option<Flow> {
        let mut flow = self.flows[at].take()?;
        self.timers.forget(at, &mut flow.noted);
        flow.tcp.release(&mut self.budget);
        self.index.remove(&flow.key);
        self.watch.tell(|| flow.key.event(protocol::TCP, false));
        let inside = (flow.key.network, flow.key.inside.ip());
        if let Some(count) = self.counts.get_mut(&inside) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&inside);
            }
        }
        self.owners.remove(&flow.tcp.socket);
        self.free.push(at);
        Some(flow)
    }

    fn with_flow<S: Sockets>(&mut self, at: usize, now: Instant, sockets: &mut S, out: &mut Output, work: impl FnOnce(&mut Tcp, &mut Context<S>) -> Verdict) {
        let Some(flow) = self.flows[at].as_mut() else { return };
        let Some(network) = self.networks.get(&flow.key.network) else { return };
        let path = Path { from_mac: network.gateway_mac, to_mac: flow.mac, from: flow.key.outside, to: flow.key.inside };
        let mut frames = std::mem::take(&mut self.scratch);
        let mtu = mtu_of(&self.mtus, network, &flow.key);
        let verdict = work(&mut flow.tcp, &mut Context { sockets, pool: &self.pool, path, mtu, now, budget: &mut self.budget, out: &mut frames });
        flow.tx_bytes += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        self.timers.note(at, &mut flow.noted, flow.tcp.deadline());
        let network = flow.key.network;
        out.extend(frames.drain(..).map(|frame| (network, frame)));
        self.scratch = frames;
        match verdict {
            Verdict::Keep => {}
            Verdict::Done => self.remove(at, false, sockets),
            Verdict::Broken => self.remove(at, true, sockets),
            Verdict::Declined if self.try_next(at, now, sockets, out) => {}
            Verdict::Declined => self.remove(at, true, sockets),
        }
    }

    /// Remembers a flow for the end of the turn.
    fn owe(&mut self, at: usize) {
        if self.flows[at].as_ref().is_some_and(|flow| flow.tcp.owes_ack || flow.tcp.wants_turn()) && self.pending.last() != Some(&at) {
            self.pending.push(at);
        }
    }

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
