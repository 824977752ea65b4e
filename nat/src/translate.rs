//! Packet translation: what a router with NAT does to a packet, and nothing of how packets travel.
//!
//! ```text
//!  a network --- outbound ---> [ connection? | new: mapping ] --- rewrite source ------> outside
//!                                                     | to an external address: hairpin
//!  a network <-- rewrite destination --- [ connection? | new: forward, mapping's filter ] <--- inbound --- outside
//! ```
//!
//! A hairpin is nothing special: a packet that was translated outwards and is for an external address is
//! translated inwards as any from outside (RFC 4787 REQ-9, "external source address and port").
//! Super-frames and partial checksums are rewritten as they are.

mod inwards;
mod outwards;
mod table;
mod views;
mod vip;

use std::{collections::HashMap, net::IpAddr};

use packet::{Frame, Instant, Keyed, NetworkId, PacketMut, keyed_hash};

use crate::{
    NatDrop, NatDrops,
    conntrack::{Connection, ConnectionView, Conntrack},
    fragment::{Datagram, Fragments, Later, Rewrite},
    lifetime::Lifetimes,
    mapping::Mappings,
    port_alloc::Dice,
    rule::{Forward, ForwardError, ForwardId, Forwards, Inside, Translation},
    traffic::TrafficByNetwork,
    tuple::End,
    vip::Vips,
    watch::{FlowEvent, Watch},
};
use table::UnsolicitedQueue;
pub use vip::Sent;

/// Bounds and seed.
#[derive(Clone, Copy, Debug)]
pub struct NatConfig {
    /// Seeds hashes and the choice of ports.
    pub seed: u64,
    /// Connections at most, and mappings.
    pub most: usize,
    /// Timeouts.
    pub lifetimes: Lifetimes,
}

impl Default for NatConfig {
    fn default() -> Self {
        Self { seed: 0, most: 131_072, lifetimes: Lifetimes::default() }
    }
}

/// A packet to go on.
#[derive(Debug)]
pub struct Translated {
    /// Into this network; to the outside when there is none.
    pub to: Option<NetworkId>,
    /// The packet; its Ethernet header is as it came.
    pub frame: Frame,
}

/// What a packet that was only rehearsed met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rehearsed {
    /// It would make a connection.
    NewConnection,
    /// It is of one that is there, or needs none.
    KnownConnection,
}

/// A packet that does not go on.
#[derive(Debug)]
pub struct Refused {
    /// Why; it is counted already.
    pub reason: NatDrop,
    /// The packet as it came, unless it was kept.
    pub frame: Frame,
}

/// A SYN that nobody wanted for six seconds (RFC 5382 REQ-4): its sender is to be told "port unreachable".
#[derive(Debug)]
pub struct Unwanted {
    /// The SYN's IP packet as far as an ICMP error quotes it.
    pub quote: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Nat {
    pub(crate) key: Keyed,
    pub(crate) config: NatConfig,
    networks: Vec<Option<(NetworkId, Inside)>>,
    externals: Vec<IpAddr>,
    /// These, and the networks' pools.
    translated_to: Vec<IpAddr>,
    forwards: Forwards,
    vips: Vips,
    mappings: Mappings,
    pub(crate) conntrack: Conntrack,
    fragments: Fragments,
    dice: Dice,
    /// How many connections an address inside has.
    counts: HashMap<(NetworkId, IpAddr), u32, Keyed>,
    traffic: TrafficByNetwork,
    unsolicited: UnsolicitedQueue,
    next_sweep: Option<Instant>,
    /// While rehearsing: connections as they were.
    journal: Option<Vec<(u32, Connection)>>,
    gone: Vec<u32>,
    drops: NatDrops,
    watch: Watch,
}

/// What became of a packet in one direction.
type Step = Result<Option<(Frame, Option<NetworkId>)>, (NatDrop, Frame)>;

impl Nat {
    /// One that translates nothing yet.
    #[must_use]
    pub fn new(config: NatConfig) -> Self {
        let seed = |purpose: u64| keyed_hash([config.seed, 0x6e61_7421], &[purpose]);
        let key = Keyed::new([seed(0), seed(1)]);
        Self {
            key,
            config,
            networks: Vec::new(),
            externals: Vec::new(),
            translated_to: Vec::new(),
            forwards: Forwards::default(),
            vips: Vips::default(),
            mappings: Mappings::new(key, config.most),
            conntrack: Conntrack::new(key, config.most),
            fragments: Fragments::new(key),
            dice: Dice::new([seed(2), seed(3)]),
            counts: HashMap::with_hasher(key),
            traffic: TrafficByNetwork::default(),
            unsolicited: UnsolicitedQueue::new(),
            next_sweep: None,
            journal: None,
            gone: Vec::new(),
            drops: NatDrops::default(),
            watch: Watch::default(),
        }
    }

    // ---- what users ask for ----

    /// Sets the uplink's own addresses.
    pub fn set_externals(&mut self, externals: Vec<IpAddr>) {
        self.externals = externals;
        self.note_external();
        let lost = self.conntrack.select(|connection| !self.translated_to.contains(&connection.external.ip));
        lost.into_iter().for_each(|at| self.end(at, Instant::ZERO));
    }

    /// Translates a network, or translates it differently: connections that another rule made end.
    pub fn set_network(&mut self, id: NetworkId, inside: Inside) {
        self.remove_network(id);
        if self.networks.len() <= id.index() {
            self.networks.resize_with(id.index() + 1, || None);
        }
        self.networks[id.index()] = Some((id, inside));
        self.note_external();
    }

    /// Ends all of a network.
    pub fn remove_network(&mut self, id: NetworkId) {
        self.end_where(|connection| connection.network == id);
        self.traffic.forget(id);
        if let Some(slot) = self.networks.get_mut(id.index()).filter(|slot| slot.as_ref().is_some_and(|(network, _)| *network == id)) {
            *slot = None;
        }
        self.note_external();
    }

    /// Ends all of a sandbox's address: it left.
    pub fn remove_inside(&mut self, network: NetworkId, ip: IpAddr) {
        self.end_where(|connection| connection.network == network && connection.inside.ip == ip);
    }

    /// Forwards external ports.
    ///
    /// # Errors
    /// When another has one of them, or the sides do not fit.
    pub fn add_forward(&mut self, forward: Forward) -> Result<ForwardId, ForwardError> {
        // A connection from inside that has one of these ports keeps it: its packets are told apart by the
        // other end. Whatever is new from outside is the forward's.
        self.forwards.add(forward)
    }

    /// Stops forwarding, and ends what came in that way.
    pub fn remove_forward(&mut self, id: ForwardId) {
        self.forwards.remove(id);
        self.end_where(|connection| connection.forward == Some(id));
    }

    fn inside(&self, network: NetworkId) -> Option<&Inside> {
        self.networks.get(network.index())?.as_ref().filter(|(id, _)| *id == network).map(|(_, inside)| inside)
    }

    /// Whether an address is one that is translated to.
    #[must_use]
    pub fn is_external(&self, ip: IpAddr) -> bool {
        self.translated_to.contains(&ip)
    }

    fn note_external(&mut self) {
        self.translated_to.clone_from(&self.externals);
        for (_, inside) in self.networks.iter().flatten() {
            if let Translation::Source(pool) = &inside.translation {
                self.translated_to.extend(pool);
            }
        }
    }

    /// Tells of connections as they come and go, or no longer.
    pub fn watch(&mut self, on: bool) {
        self.watch.set(on);
    }

    /// What was to tell since; answers how many events there was no room for.
    pub fn take_events(&mut self, each: impl FnMut(FlowEvent)) -> u64 {
        self.watch.take(each)
    }

    /// The connection of a packet, whichever way it goes and on whichever side it was seen.
    #[must_use]
    pub fn connection_of(&self, protocol: u8, source: End, destination: End, now: Instant) -> Option<ConnectionView> {
        let networks = self.networks.iter().flatten().map(|(id, _)| *id);
        let outside = [(source, destination), (destination, source)].into_iter().find_map(|(external, outside)| self.conntrack.by_outside(protocol, external, outside));
        let at = outside.or_else(|| {
            networks.flat_map(|network| [(network, source, destination), (network, destination, source)]).find_map(|(network, inside, outside)| self.conntrack.by_inside(network, protocol, inside, outside))
        })?;
        self.conntrack.get(at).map(|connection| ConnectionView::of(connection, now))
    }

    /// Whether the last packet made a connection.
    #[must_use]
    pub fn made_connection(&self) -> bool {
        self.conntrack.has_provisional()
    }

    // ---- packets ----

    /// A packet that a network's gateway sends on. What may go on is added to `out`.
    ///
    /// # Errors
    /// When it may not.
    pub fn outbound(&mut self, network: NetworkId, frame: Frame, now: Instant, out: &mut Vec<Translated>) -> Result<(), Refused> {
        self.conntrack.commit();
        let step = self.leave(network, frame, now, out);
        self.finish(step, out)
    }

    /// A packet from outside. What may go on is added to `out`.
    ///
    /// # Errors
    /// When it may not.
    pub fn inbound(&mut self, frame: Frame, now: Instant, out: &mut Vec<Translated>) -> Result<(), Refused> {
        self.conntrack.commit();
        let step = self.inwards(frame, now, out);
        self.finish(step, out)
    }

    fn finish(&mut self, step: Step, out: &mut Vec<Translated>) -> Result<(), Refused> {
        self.deliver(step, out).inspect_err(|_| self.undo())
    }

    fn deliver(&mut self, step: Step, out: &mut Vec<Translated>) -> Result<(), Refused> {
        match step {
            Ok(Some((frame, to))) => out.push(Translated { to, frame }),
            Ok(None) => {}
            Err((reason, frame)) => {
                self.drops.count(reason);
                return Err(Refused { reason, frame });
            }
        }
        Ok(())
    }

    /// The last packet was not taken: what it made is forgotten.
    pub fn undo(&mut self) {
        while let Some(at) = self.conntrack.undo() {
            self.end(at, Instant::ZERO);
        }
    }

    /// A translated packet could not be delivered, as its next hop does not answer: what it opened, and nobody
    /// answered yet, is forgotten. `to` is the network that it was to enter; none is outside.
    pub fn undelivered(&mut self, to: Option<NetworkId>, frame: &Frame) {
        let Some(parsed) = packet::Parsed::new(frame.bytes()) else { return };
        let (Some(ip), Some((from, port))) = (parsed.ip, parsed.l4_ports(frame.bytes())) else { return };
        let (source, destination) = (End::new(ip.source, from), End::new(ip.destination, port));
        let found = match to {
            None => self.conntrack.by_outside(ip.protocol, source, destination),
            Some(network) => self.conntrack.by_inside(network, ip.protocol, destination, source),
        };
        if let Some(at) = found
            && self.conntrack.get(at).is_some_and(|connection| !(connection.sent && connection.answered))
        {
            self.conntrack.commit();
            self.end(at, Instant::ZERO);
        }
    }

    /// A later fragment goes the way of its first.
    fn follow(&mut self, datagram: Datagram, frame: Frame, now: Instant) -> Step {
        match self.fragments.later(datagram, frame, now) {
            Later::Waits => Ok(None),
            Later::Full(frame) => Err((NatDrop::FragmentOrphan, frame)),
            Later::Follow(rewrite, mut frame) => {
                if let Some(mut packet) = PacketMut::new(&mut frame)
                    && packet.set_source(rewrite.source)
                    && packet.set_destination(rewrite.destination)
                {
                    return Ok(Some((frame, rewrite.to)));
                }
                Err((NatDrop::Malformed, frame))
            }
        }
    }
}

/// What was done to a packet.
enum Done {
    Passed,
    /// It was the first fragment of a datagram, and rewritten so.
    First(Datagram, Rewrite),
    /// Nothing yet: it follows the first fragment.
    Later(Datagram),
}
