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

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use packet::{Duration, Frame, HashKey, Instant, NetworkId, PacketMut, checksum::protocol, keyed_hash};

use crate::{
    NatDrop, NatDrops,
    conntrack::{Connection, ConnectionView, Conntrack, sent_to},
    fast::deltas,
    fragment::{Datagram, Fragments, Later, Rewrite, identification, rewrite},
    icmp::{Quoted, Which, seal},
    keyed::Keyed,
    lifetime::{Lifetimes, UNSOLICITED_SYN},
    mapping::Mappings,
    port_alloc::Dice,
    rule::{Forward, ForwardError, ForwardId, ForwardView, Forwards, Inside, Translation},
    tcp_state::TcpState,
    tuple::{Direction, End, Kind, Tuple, read},
    watch::{FlowEvent, Watch},
};

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

/// How often a part of the table is swept.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// SYNs from outside that wait at most.
const MOST_UNSOLICITED: usize = 256;

#[derive(Debug)]
struct Unsolicited {
    deadline: Instant,
    external: End,
    outside: End,
    quote: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Nat {
    pub(crate) key: HashKey,
    pub(crate) config: NatConfig,
    networks: Vec<Option<(NetworkId, Inside)>>,
    externals: Vec<IpAddr>,
    /// These, and the networks' pools.
    translated_to: Vec<IpAddr>,
    forwards: Forwards,
    mappings: Mappings,
    pub(crate) conntrack: Conntrack,
    fragments: Fragments,
    dice: Dice,
    /// How many connections an address inside has.
    counts: HashMap<(NetworkId, IpAddr), u32, Keyed>,
    unsolicited: std::collections::VecDeque<Unsolicited>,
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
        let key = [seed(0), seed(1)];
        Self {
            key,
            config,
            networks: Vec::new(),
            externals: Vec::new(),
            translated_to: Vec::new(),
            forwards: Forwards::default(),
            mappings: Mappings::new(key, config.most),
            conntrack: Conntrack::new(key, config.most),
            fragments: Fragments::new(key),
            dice: Dice::new([seed(2), seed(3)]),
            counts: HashMap::with_hasher(Keyed(key)),
            unsolicited: std::collections::VecDeque::new(),
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
        let ports = forward.ports.0..=forward.ports.1;
        let is_in_use = self.conntrack.iter().any(|connection| {
            let external = connection.external;
            connection.mapping.is_some() && connection.protocol == forward.protocol && ports.contains(&external.port) && forward.address.is_none_or(|ip| ip == external.ip)
        });
        let id = self.forwards.add(forward)?;
        // A user's word is stronger than a port drawn by chance.
        if is_in_use {
            self.end_where(|connection| connection.mapping.is_some() && connection.protocol == forward.protocol && ports.contains(&connection.external.port));
        }
        Ok(id)
    }

    /// Stops forwarding, and ends what came in that way.
    pub fn remove_forward(&mut self, id: ForwardId) {
        self.forwards.remove(id);
        self.end_where(|connection| connection.forward == Some(id));
    }

    fn end_where(&mut self, ends: impl Fn(&Connection) -> bool) {
        for at in self.conntrack.select(ends) {
            self.end(at, Instant::ZERO);
        }
    }

    fn end(&mut self, at: u32, now: Instant) {
        let Some(connection) = self.conntrack.remove(at) else { return };
        self.watch.tell(|| event_of(&connection, false));
        let host = (connection.network, connection.inside.ip);
        if let Some(count) = self.counts.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&host);
            }
        }
        if let Some(forward) = connection.forward {
            self.forwards.count(forward, 0, connection.packets.iter().sum(), connection.bytes.iter().sum());
        }
        if let Some(mapping) = connection.mapping {
            let rest = self.inside(connection.network).map_or(Duration::ZERO, |inside| inside.behaviour.hold_down);
            self.mappings.release(mapping, sent_to(&connection), (!rest.is_zero()).then(|| now + rest));
        }
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
        let step = self.outwards(network, frame, now, out);
        let result = match step {
            // Back in by the same door.
            Ok(Some((frame, None))) if self.is_hairpin(&frame) => self.inwards(frame, now, out),
            other => other,
        };
        self.finish(result, out)
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
                self.drops.count(reason, 1);
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

    fn is_hairpin(&self, frame: &Frame) -> bool {
        // The common case first: one address, IPv4 without tags.
        let bytes = frame.bytes();
        let destination = match bytes.get(12..14) {
            Some([8, 0]) => bytes.get(30..34).and_then(|octets| octets.first_chunk::<4>()).map(|octets| IpAddr::from(*octets)),
            _ => bytes.get(38..54).and_then(|octets| octets.first_chunk::<16>()).map(|octets| IpAddr::from(*octets)),
        };
        destination.is_some_and(|ip| self.is_external(ip))
    }

    fn outwards(&mut self, network: NetworkId, mut frame: Frame, now: Instant, out: &mut Vec<Translated>) -> Step {
        match self.rewrite_outwards(network, &mut frame, now) {
            Ok(Done::Passed) => Ok(Some((frame, None))),
            Ok(Done::First(datagram, rewrite)) => {
                for waiting in self.fragments.first(datagram, rewrite, now) {
                    drop(self.outwards_again(network, waiting, now, out));
                }
                Ok(Some((frame, None)))
            }
            Ok(Done::Later(datagram)) => self.follow(datagram, frame, now),
            Err(reason) => Err((reason, frame)),
        }
    }

    /// Fragments that waited, after their first.
    fn outwards_again(&mut self, network: NetworkId, frame: Frame, now: Instant, out: &mut Vec<Translated>) -> Result<(), Refused> {
        let step = match self.outwards(network, frame, now, out) {
            Ok(Some((frame, None))) if self.is_hairpin(&frame) => self.inwards(frame, now, out),
            other => other,
        };
        self.deliver(step, out)
    }

    fn inwards(&mut self, mut frame: Frame, now: Instant, out: &mut Vec<Translated>) -> Step {
        match self.rewrite_inwards(&mut frame, now) {
            Ok((Done::Passed, to)) => Ok(Some((frame, Some(to)))),
            Ok((Done::First(datagram, rewrite), to)) => {
                for waiting in self.fragments.first(datagram, rewrite, now) {
                    let step = self.inwards(waiting, now, out);
                    drop(self.deliver(step, out));
                }
                Ok(Some((frame, Some(to))))
            }
            Ok((Done::Later(datagram), _)) => self.follow(datagram, frame, now),
            Err(reason) => {
                if reason == NatDrop::NoMapping {
                    self.note_unsolicited(&frame, now);
                }
                Err((reason, frame))
            }
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

    // ---- outwards ----

    #[inline]
    fn rewrite_outwards(&mut self, network: NetworkId, frame: &mut Frame, now: Instant) -> Result<Done, NatDrop> {
        if !frame.make_unique() {
            return Err(NatDrop::NoBuffer);
        }
        let length = frame.len();
        let mut packet = PacketMut::new(frame).ok_or(NatDrop::Malformed)?;
        let kind = read(&packet)?;
        let Kind::Flow(tuple) = kind else { return self.outwards_special(network, kind, frame, now) };
        let found = self.conntrack.by_inside(network, tuple.protocol, tuple.source, tuple.destination);
        let at = match found {
            Some(at) if self.conntrack.get(at).is_some_and(|connection| connection.expires > now) => at,
            found => {
                if let Some(expired) = found {
                    self.end(expired, now);
                }
                match self.stateless_outwards(network, &mut packet)? {
                    true => return Ok(Done::Passed),
                    false => self.open_outwards(network, &tuple, now)?,
                }
            }
        };
        self.note(at);
        let Some(connection) = self.conntrack.get_mut(at) else { return Err(NatDrop::NoConnection) };
        let met = (!connection.sent).then_some(connection.mapping).flatten();
        connection.packet(Direction::Out, tuple.flags, length, now, &self.config.lifetimes);
        let external = connection.external;
        if let Some(mapping) = met {
            self.mappings.meet(mapping, tuple.destination.ip);
        }
        let before = packet.ip().is_fragment().then(|| datagram_of(Some(network), &packet, frame_id(&packet)));
        write_source(&mut packet, external);
        Ok(match before {
            None => Done::Passed,
            Some(datagram) => Done::First(datagram, rewrite(external, tuple.destination, None)),
        })
    }

    /// ICMP errors and fragments without ports.
    #[inline(never)]
    fn outwards_special(&mut self, network: NetworkId, kind: Kind, frame: &mut Frame, now: Instant) -> Result<Done, NatDrop> {
        let mut packet = PacketMut::new(frame).ok_or(NatDrop::Malformed)?;
        if kind == Kind::LaterFragment {
            return match self.stateless_outwards(network, &mut packet)? {
                true => Ok(Done::Passed),
                false => Ok(Done::Later(datagram_of(Some(network), &packet, frame_id(&packet)))),
            };
        }
        packet::checksum::complete(frame);
        let quoted = Quoted::of(frame)?;
        let prefixes = self.inside(network).and_then(|inside| inside.prefixes);
        if let (Some(prefixes), IpAddr::V6(ip)) = (prefixes, quoted.tuple.destination.ip)
            && let Some(outside) = prefixes.outward(ip)
        {
            quoted.rewrite(frame.bytes_mut(), Which::Destination, End::new(outside.into(), quoted.tuple.destination.port));
            let mut packet = PacketMut::new(frame).ok_or(NatDrop::Malformed)?;
            return self.stateless_outwards(network, &mut packet).map(|_| Done::Passed);
        }
        if self.inside(network).is_some_and(|inside| inside.translation == Translation::Routed) {
            return Ok(Done::Passed);
        }
        let at = self.conntrack.by_inside(network, quoted.tuple.protocol, quoted.tuple.destination, quoted.tuple.source);
        let connection = at.and_then(|at| self.conntrack.get(at)).filter(|connection| connection.expires > now).ok_or(NatDrop::IcmpQuote)?;
        let external = connection.external;
        quoted.rewrite(frame.bytes_mut(), Which::Destination, external);
        let mut packet = PacketMut::new(frame).ok_or(NatDrop::Malformed)?;
        write_source(&mut packet, external);
        let ip = *packet.ip();
        seal(frame.bytes_mut(), &ip);
        Ok(Done::Passed)
    }

    /// Prefix translation, or none at all. True when that was it.
    fn stateless_outwards(&self, network: NetworkId, packet: &mut PacketMut<'_>) -> Result<bool, NatDrop> {
        let inside = self.inside(network).ok_or(NatDrop::NotOurs)?;
        let (source, destination) = (packet.ip().source, packet.ip().destination);
        if !inside.contains(source) || is_martian(destination) || self.networks.iter().flatten().any(|(_, other)| other.contains(destination)) {
            return Err(NatDrop::Martian);
        }
        if let (Some(prefixes), IpAddr::V6(ip)) = (inside.prefixes, source) {
            let outside = prefixes.outward(ip).ok_or(NatDrop::NoExternal)?;
            return Ok(packet.set_source(outside.into()));
        }
        Ok(inside.translation == Translation::Routed)
    }

    #[inline(never)]
    fn open_outwards(&mut self, network: NetworkId, tuple: &Tuple, now: Instant) -> Result<u32, NatDrop> {
        if !tuple.opens() {
            return Err(NatDrop::NoConnection);
        }
        let inside = self.inside(network).ok_or(NatDrop::NotOurs)?;
        let behaviour = inside.behaviour;
        let pool = if let Translation::Source(pool) = &inside.translation { pool } else { &self.externals };
        // A family that the pool lacks leaves under the uplink's own.
        let address = paired(self.key, pool, tuple.source.ip).or_else(|| paired(self.key, &self.externals, tuple.source.ip)).ok_or(NatDrop::NoExternal)?;
        self.make_room(network, tuple.source.ip, now)?;
        let has_ports = matches!(tuple.protocol, protocol::TCP | protocol::UDP | protocol::ICMP | protocol::ICMPV6);
        let (mapping, external) = if has_ports {
            let known = self.mappings.find(network, tuple.protocol, tuple.source, tuple.destination, &behaviour);
            let forwards = &self.forwards;
            let at = match known {
                Some(at) => at,
                None => self.mappings.make(network, tuple.protocol, tuple.source, tuple.destination, address, &behaviour, &mut self.dice, now, |end| {
                    forwards.find(tuple.protocol, end).is_some()
                })?,
            };
            (Some(at), self.mappings.get(at).ok_or(NatDrop::NoMapping)?.external)
        } else {
            (None, End::new(address, 0))
        };
        if let Some(mapping) = mapping {
            self.mappings.hold(mapping);
        }
        let other = self.conntrack.by_outside(tuple.protocol, external, tuple.destination);
        if !self.clear(other, now) {
            self.let_go(mapping);
            return Err(if has_ports { NatDrop::Clash } else { NatDrop::PortsExhausted });
        }
        Ok(self.insert(network, tuple.protocol, (tuple.source, tuple.destination, external), mapping, None, now))
    }

    // ---- inwards ----

    #[inline]
    fn rewrite_inwards(&mut self, frame: &mut Frame, now: Instant) -> Result<(Done, NetworkId), NatDrop> {
        if !frame.make_unique() {
            return Err(NatDrop::NoBuffer);
        }
        let length = frame.len();
        let mut packet = PacketMut::new(frame).ok_or(NatDrop::Malformed)?;
        let kind = read(&packet)?;
        let Kind::Flow(tuple) = kind else { return self.inwards_special(kind, frame, now) };
        let found = self.conntrack.by_outside(tuple.protocol, tuple.destination, tuple.source);
        let at = match found {
            Some(at) if self.conntrack.get(at).is_some_and(|connection| connection.expires > now) => at,
            found => {
                if let Some(expired) = found {
                    self.end(expired, now);
                }
                match self.stateless_inwards(&mut packet)? {
                    Some(network) => return Ok((Done::Passed, network)),
                    None => self.open_inwards(&tuple, now)?,
                }
            }
        };
        self.note(at);
        let Some(connection) = self.conntrack.get_mut(at) else { return Err(NatDrop::NoConnection) };
        connection.packet(Direction::In, tuple.flags, length, now, &self.config.lifetimes);
        let (inside, network) = (connection.inside, connection.network);
        let before = packet.ip().is_fragment().then(|| datagram_of(None, &packet, frame_id(&packet)));
        write_destination(&mut packet, inside);
        let done = match before {
            None => Done::Passed,
            Some(datagram) => Done::First(datagram, rewrite(tuple.source, inside, Some(network))),
        };
        Ok((done, network))
    }

    #[inline(never)]
    fn inwards_special(&mut self, kind: Kind, frame: &mut Frame, now: Instant) -> Result<(Done, NetworkId), NatDrop> {
        let mut packet = PacketMut::new(frame).ok_or(NatDrop::Malformed)?;
        if kind == Kind::LaterFragment {
            return match self.stateless_inwards(&mut packet)? {
                Some(network) => Ok((Done::Passed, network)),
                None => Ok((Done::Later(datagram_of(None, &packet, frame_id(&packet))), NetworkId::new(0, 0))),
            };
        }
        packet::checksum::complete(frame);
        let quoted = Quoted::of(frame)?;
        let at = self.conntrack.by_outside(quoted.tuple.protocol, quoted.tuple.source, quoted.tuple.destination);
        let connection = at.and_then(|at| self.conntrack.get(at)).filter(|connection| connection.expires > now);
        let Some(connection) = connection else {
            if let IpAddr::V6(ip) = quoted.tuple.source.ip
                && let Some(inside) = self.networks.iter().flatten().find_map(|(_, network)| network.prefixes?.inward(ip))
            {
                quoted.rewrite(frame.bytes_mut(), Which::Source, End::new(inside.into(), quoted.tuple.source.port));
            }
            let mut packet = PacketMut::new(frame).ok_or(NatDrop::Malformed)?;
            return self.stateless_inwards(&mut packet)?.map(|network| (Done::Passed, network)).ok_or(NatDrop::IcmpQuote);
        };
        let (inside, network) = (connection.inside, connection.network);
        quoted.rewrite(frame.bytes_mut(), Which::Source, inside);
        let mut packet = PacketMut::new(frame).ok_or(NatDrop::Malformed)?;
        write_destination(&mut packet, inside);
        let ip = *packet.ip();
        seal(frame.bytes_mut(), &ip);
        Ok((Done::Passed, network))
    }

    /// Prefix translation, or none at all: the network that the packet is for. Nothing when it is for an
    /// external address.
    fn stateless_inwards(&self, packet: &mut PacketMut<'_>) -> Result<Option<NetworkId>, NatDrop> {
        let (source, destination) = (packet.ip().source, packet.ip().destination);
        let networks = || self.networks.iter().flatten();
        if is_martian(source) || networks().any(|(_, inside)| inside.contains(source)) {
            return Err(NatDrop::Martian);
        }
        if self.is_external(destination) {
            return Ok(None);
        }
        if let IpAddr::V6(ip) = destination
            && let Some((network, inside)) = networks().find_map(|(id, network)| Some((*id, network.prefixes?.inward(ip)?)))
        {
            return Ok(packet.set_destination(inside.into()).then_some(network));
        }
        let routed = networks().find(|(_, inside)| inside.translation == Translation::Routed && inside.contains(destination));
        routed.map(|(id, _)| Some(*id)).ok_or(NatDrop::NotOurs)
    }

    #[inline(never)]
    fn open_inwards(&mut self, tuple: &Tuple, now: Instant) -> Result<u32, NatDrop> {
        let is_query = matches!(tuple.protocol, protocol::ICMP | protocol::ICMPV6);
        if !tuple.opens() || is_query {
            return Err(NatDrop::NoConnection);
        }
        let external = tuple.destination;
        let (network, inside, mapping, forward) = if let Some((forward, network, inside)) = self.forwards.find(tuple.protocol, external) {
            (network, inside, None, Some(forward))
        } else {
            let at = self.mappings.by_external(tuple.protocol, external).ok_or(NatDrop::NoMapping)?;
            let mapping = *self.mappings.get(at).ok_or(NatDrop::NoMapping)?;
            let filtering = self.inside(mapping.network).ok_or(NatDrop::NotOurs)?.behaviour.filtering;
            if !self.mappings.admits(at, tuple.source, filtering) {
                return Err(NatDrop::Filtered);
            }
            (mapping.network, mapping.inside, Some(at), None)
        };
        if let Some(mapping) = mapping {
            self.mappings.hold(mapping);
        }
        let other = self.conntrack.by_inside(network, tuple.protocol, inside, tuple.source);
        let room = if self.clear(other, now) { self.make_room(network, inside.ip, now) } else { Err(NatDrop::Clash) };
        if let Err(reason) = room {
            self.let_go(mapping);
            return Err(reason);
        }
        if let Some(forward) = forward {
            self.forwards.count(forward, 1, 0, 0);
        }
        Ok(self.insert(network, tuple.protocol, (inside, tuple.source, external), mapping, forward, now))
    }

    // ---- telling ----

    /// What would become of a packet of `network`, or of one from outside without a network: the same path,
    /// after which all is as it was. (A full table gives way, as it would.)
    ///
    /// # Errors
    /// When it would not go on.
    pub fn rehearse(&mut self, network: Option<NetworkId>, frame: Frame, now: Instant, out: &mut Vec<Translated>) -> Result<Rehearsed, Refused> {
        let (drops, forwards, unsolicited) = (self.drops, self.forwards.clone(), self.unsolicited.len());
        self.journal = Some(Vec::new());
        let watch = std::mem::take(&mut self.watch);
        let result = match network {
            Some(network) => self.outbound(network, frame, now, out),
            None => self.inbound(frame, now, out),
        };
        let made = if self.made_connection() { Rehearsed::NewConnection } else { Rehearsed::KnownConnection };
        self.undo();
        for (at, before) in self.journal.take().unwrap_or_default().into_iter().rev() {
            if let Some(connection) = self.conntrack.get_mut(at) {
                *connection = before;
            }
        }
        (self.drops, self.forwards, self.watch) = (drops, forwards, watch);
        self.unsolicited.truncate(unsolicited);
        result.map(|()| made)
    }

    fn note(&mut self, at: u32) {
        if let Some(journal) = &mut self.journal
            && let Some(connection) = self.conntrack.get(at)
        {
            journal.push((at, *connection));
        }
    }

    // ---- the table ----

    /// Makes sure that a key is free: true unless a connection that lives has it.
    fn clear(&mut self, other: Option<u32>, now: Instant) -> bool {
        let Some(other) = other else { return true };
        let lives = self.conntrack.get(other).is_some_and(|other| other.expires > now);
        if !lives {
            self.end(other, now);
        }
        !lives
    }

    fn let_go(&mut self, mapping: Option<u32>) {
        if let Some(mapping) = mapping {
            self.mappings.release(mapping, None, None);
        }
    }

    fn make_room(&mut self, network: NetworkId, inside: IpAddr, now: Instant) -> Result<(), NatDrop> {
        // Nobody has more than half of the table: beyond that he takes from himself.
        let least = if self.counts.get(&(network, inside)).is_some_and(|count| *count as usize >= self.config.most / 2) {
            let own = |connection: &Connection| connection.network == network && connection.inside.ip == inside;
            Some(self.conntrack.least_established(now, own).ok_or(NatDrop::Quota)?)
        } else if self.conntrack.has_room() {
            None
        } else {
            Some(self.conntrack.least_established(now, |_| true).ok_or(NatDrop::Full)?)
        };
        if let Some(least) = least {
            self.end(least, now);
        }
        Ok(())
    }

    fn insert(&mut self, network: NetworkId, protocol: u8, (inside, outside, external): (End, End, End), mapping: Option<u32>, forward: Option<ForwardId>, now: Instant) -> u32 {
        *self.counts.entry((network, inside.ip)).or_default() += 1;
        self.next_sweep = self.next_sweep.or(Some(now + SWEEP_INTERVAL));
        let (address_delta, port_delta) = deltas(inside, external);
        let connection = Connection {
            hairpin: self.translated_to.contains(&outside.ip),
            address_delta,
            port_delta,
            network,
            protocol,
            inside,
            outside,
            external,
            mapping,
            forward,
            sent: false,
            answered: false,
            tcp: TcpState::default(),
            expires: now,
            packets: [0; 2],
            bytes: [0; 2],
        };
        self.watch.tell(|| event_of(&connection, true));
        self.conntrack.insert(connection)
    }

    /// RFC 5382 REQ-4: the sender of a SYN that nobody asked for hears of it after six seconds, unless
    /// inside opens that connection by then.
    fn note_unsolicited(&mut self, frame: &Frame, now: Instant) {
        let Some(parsed) = packet::Parsed::new(frame.bytes()) else { return };
        let (Some(ip), Some((from, to))) = (parsed.ip, parsed.l4_ports(frame.bytes())) else { return };
        if ip.protocol != protocol::TCP || self.unsolicited.len() >= MOST_UNSOLICITED {
            return;
        }
        let quote = frame.bytes()[ip.offset..ip.end().min(ip.l4_offset + 8)].to_vec();
        let (external, outside) = (End::new(ip.destination, to), End::new(ip.source, from));
        self.unsolicited.push_back(Unsolicited { deadline: now + UNSOLICITED_SYN, external, outside, quote });
    }

    // ---- the clock ----

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let unsolicited = self.unsolicited.front().map(|syn| syn.deadline);
        [self.next_sweep, self.fragments.poll_timeout(self.config.lifetimes.fragment), unsolicited].into_iter().flatten().min()
    }

    /// Deadlines up to `now` are due. SYNs that nobody wanted are given to `unwanted`.
    pub fn handle_timeout(&mut self, now: Instant, mut unwanted: impl FnMut(Unwanted)) {
        let orphans = self.fragments.expire(now, self.config.lifetimes.fragment);
        self.drops.count(NatDrop::FragmentOrphan, orphans as u64);
        while self.unsolicited.front().is_some_and(|syn| syn.deadline <= now) {
            if let Some(syn) = self.unsolicited.pop_front()
                && self.conntrack.by_outside(protocol::TCP, syn.external, syn.outside).is_none()
            {
                unwanted(Unwanted { quote: syn.quote });
            }
        }
        if self.next_sweep.is_some_and(|at| at <= now) {
            let mut gone = std::mem::take(&mut self.gone);
            self.conntrack.commit();
            self.conntrack.sweep(now, &mut gone);
            for at in gone.drain(..) {
                self.end(at, now);
            }
            self.gone = gone;
            self.next_sweep = (self.conntrack.len() > 0).then(|| now + SWEEP_INTERVAL);
        }
    }

    // ---- views ----

    /// Connections that live, sorted.
    #[must_use]
    pub fn connections(&self, now: Instant) -> Vec<ConnectionView> {
        let live = self.conntrack.iter().filter(|connection| connection.expires > now);
        let mut all: Vec<_> = live.map(|connection| ConnectionView::of(connection, now)).collect();
        all.sort_by_key(|view| (view.protocol, view.inside, view.outside, view.network));
        all
    }

    /// How many connections and mappings there are.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.conntrack.len(), self.mappings.len())
    }

    /// Port forwards with their counters, those of connections that live included.
    #[must_use]
    pub fn forwards(&self) -> Vec<ForwardView> {
        let mut views = self.forwards.views().to_vec();
        for connection in self.conntrack.iter() {
            if let Some(forward) = connection.forward
                && let Ok(at) = views.binary_search_by_key(&forward, |view| view.id)
            {
                views[at].packets += connection.packets.iter().sum::<u64>();
                views[at].bytes += connection.bytes.iter().sum::<u64>();
            }
        }
        views
    }

    /// What was not translated, by reason.
    #[must_use]
    pub const fn drops(&self) -> &NatDrops {
        &self.drops
    }
}

fn event_of(connection: &Connection, began: bool) -> FlowEvent {
    let Connection { network, protocol, inside, outside, external, .. } = *connection;
    FlowEvent { began, network, protocol, inside, outside, external: Some(external) }
}

/// What was done to a packet.
enum Done {
    Passed,
    /// It was the first fragment of a datagram, and rewritten so.
    First(Datagram, Rewrite),
    /// Nothing yet: it follows the first fragment.
    Later(Datagram),
}

fn datagram_of(network: Option<NetworkId>, packet: &PacketMut<'_>, id: u32) -> Datagram {
    Datagram::of(network, packet, id)
}

fn frame_id(packet: &PacketMut<'_>) -> u32 {
    let ip = packet.ip();
    identification(packet.bytes(), ip.offset, ip.l4_offset, ip.source.is_ipv4())
}

/// An inside address keeps to one external address (RFC 4787 REQ-2).
fn paired(key: HashKey, pool: &[IpAddr], inside: IpAddr) -> Option<IpAddr> {
    let count = pool.iter().filter(|ip| ip.is_ipv4() == inside.is_ipv4()).count();
    let mut family = pool.iter().filter(|ip| ip.is_ipv4() == inside.is_ipv4());
    if count <= 1 {
        return family.next().copied();
    }
    let [low, high] = packet::address_words(inside);
    family.nth(usize::try_from(keyed_hash(key, &[low, high]) % count as u64).unwrap_or(0)).copied()
}

fn write_source(packet: &mut PacketMut<'_>, end: End) {
    // Of the right family and protocol: the tuple says so.
    let _ = packet.set_source(end.ip) && (packet.set_source_port(end.port) || packet.set_echo_id(end.port));
}

fn write_destination(packet: &mut PacketMut<'_>, end: End) {
    let _ = packet.set_destination(end.ip) && (packet.set_destination_port(end.port) || packet.set_echo_id(end.port));
}

/// Addresses that no router forwards (RFC 1812 5.3.7, RFC 6890, RFC 4291 2.5).
fn is_martian(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0 || v4.octets()[0] >= 240 || v4 == Ipv4Addr::BROADCAST,
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    }
}
