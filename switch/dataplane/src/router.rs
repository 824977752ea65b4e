//! The router behind the gateways: between networks that may reach each other, and between networks and a
//! packet uplink, where `nat` translates.
//!
//! ```text
//! Outbox::outside --> to a network that a route leads to ----------------> hops, MTU, neighbour --> inject
//!                 --> to the uplink: nat outwards -----------------------> hops, MTU, neighbour --> inject
//!                 --> from the uplink: nat inwards ----------------------> hops, MTU, neighbour --> inject
//!                 --> none of these: given back, for the user-mode uplink
//! ```
//!
//! The uplink is a network like any other, with the device as its one port and the router's addresses as
//! its gateway's, so ARP, NDP and echo are answered there as everywhere.
//!
//! What cannot go on is told to its sender (RFC 1812 section 4.3, RFC 4443), at a limited rate.

mod configure;
mod explain;
mod fit;
mod met;
mod neighbours;
pub(crate) mod speech;
mod tell;
#[cfg(test)]
mod tests;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnetwork::IpNetwork;
use nat::{Nat, NatConfig, Plain, Refused, Translated};
use packet::{Frame, Instant, Mac, NetworkId, Pool, UnicastMac, ip_destination, ip_source};

use crate::rate::ErrorLimit;
pub use fit::clamp_mss;
use met::{Met, MetLately};
use neighbours::{Known, Neighbours};
use speech::Problem;
use ways::{Way, Ways};

/// A link that is routed: a network with its gateway, or the uplink's.
#[derive(Clone, Debug)]
pub struct Link {
    /// The router's address on the link.
    pub mac: UnicastMac,
    /// Its IP addresses there, with their subnets.
    pub addresses: Vec<IpNetwork>,
    /// Largest packet, bytes.
    pub mtu: u16,
}

impl Link {
    fn own(&self, is_ipv4: bool) -> Option<IpAddr> {
        self.addresses.iter().map(IpNetwork::ip).find(|ip| ip.is_ipv4() == is_ipv4)
    }

    fn reaches(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.contains(ip))
    }
}

/// The uplink that packets leave by.
#[derive(Clone, Debug)]
pub struct PacketUplink {
    /// Its network.
    pub network: NetworkId,
    /// Its link.
    pub link: Link,
    /// The next hop, by family; without one only the link itself is reached.
    pub gateways: Vec<IpAddr>,
}

impl PacketUplink {
    fn next_hop(&self, destination: IpAddr) -> Option<IpAddr> {
        if self.link.reaches(destination) {
            return Some(destination);
        }
        self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == destination.is_ipv4())
    }
}

/// Why the router dropped a packet, beside what translation counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterStats {
    /// Packets that went on.
    pub forwarded: u64,
    /// No next hop.
    pub no_route: u64,
    /// The neighbour did not answer.
    pub no_neighbour: u64,
    /// Too long for the next link, and not to be fragmented.
    pub too_big: u64,
    /// Hops used up.
    pub ttl_expired: u64,
    /// No buffer.
    pub no_buffer: u64,
    /// Answers of neighbours that were not asked.
    pub unasked: u64,
}

/// Frames to put into networks.
pub type RouterOutput = Vec<(NetworkId, Frame)>;

/// See the module.
#[derive(Debug)]
pub struct Router {
    pool: Pool,
    nat: Nat,
    links: BTreeMap<NetworkId, Link>,
    /// Addresses whose link takes less than their network's.
    mtus: BTreeMap<(NetworkId, IpAddr), u16>,
    uplink: Option<PacketUplink>,
    /// Networks whose packets the uplink takes.
    leaving: BTreeSet<NetworkId>,
    routes: BTreeSet<(NetworkId, NetworkId)>,
    /// Virtual addresses, which the gateway of their network leads on.
    vips: BTreeSet<(NetworkId, IpAddr)>,
    neighbours: Neighbours,
    met: MetLately,
    ways: Ways,
    translated: Vec<Translated>,
    errors: ErrorLimit,
    stats: RouterStats,
}

impl Router {
    /// A router without links.
    #[must_use]
    pub fn new(pool: Pool, config: NatConfig) -> Self {
        Self {
            pool,
            nat: Nat::new(config),
            links: BTreeMap::new(),
            mtus: BTreeMap::new(),
            uplink: None,
            leaving: BTreeSet::new(),
            routes: BTreeSet::new(),
            vips: BTreeSet::new(),
            neighbours: Neighbours::default(),
            met: MetLately::default(),
            ways: Ways::default(),
            translated: Vec::new(),
            errors: ErrorLimit::default(),
            stats: RouterStats::default(),
        }
    }

    // ---- what control asks for ----

    /// Largest packet towards an address on a link.
    fn mtu_towards(&self, to: NetworkId, link: &Link, destination: IpAddr) -> u16 {
        self.mtus.get(&(to, destination)).map_or(link.mtu, |own| link.mtu.min(*own))
    }

    /// Translation, to look at.
    #[must_use]
    pub const fn nat(&self) -> &Nat {
        &self.nat
    }

    /// What passed and what did not.
    #[must_use]
    pub const fn stats(&self) -> RouterStats {
        RouterStats { no_neighbour: self.stats.no_neighbour + self.neighbours.crowded_out, ..self.stats }
    }

    /// Whether packets leave by it.
    #[must_use]
    pub const fn has_uplink(&self) -> bool {
        self.uplink.is_some()
    }

    fn link(&self, network: NetworkId) -> Option<&Link> {
        match &self.uplink {
            Some(uplink) if uplink.network == network => Some(&uplink.link),
            _ => self.links.get(&network),
        }
    }

    // ---- packets ----

    /// A plain packet of a connection that is there, to a neighbour that was met lately: nothing is left to
    /// decide but the network that it goes into. When it is not that it is left as it is.
    #[inline]
    fn take_at_once(&mut self, from: NetworkId, frame: &mut Frame, now: Instant) -> Option<NetworkId> {
        let plain = Plain::of(frame.bytes())?;
        let way = match self.ways.get(from, &plain, now) {
            Some(way) => way,
            None if self.is_routed(from, frame) => return None,
            None => Self::find_way((&self.nat, &self.met, &mut self.ways), self.uplink.as_ref()?, from, plain, now)?,
        };
        if !fit::fits(frame, way.met.mtu) {
            return None;
        }
        let Some(bytes) = self.nat.rewrite(&way.hit, frame, now) else {
            self.ways.remove(&plain);
            return None;
        };
        bytes[..12].copy_from_slice(&way.met.addresses);
        self.stats.forwarded += 1;
        Some(way.to)
    }

    #[inline(never)]
    fn find_way<'a>((nat, met, ways): (&Nat, &MetLately, &'a mut Ways), uplink: &PacketUplink, from: NetworkId, plain: Plain, now: Instant) -> Option<&'a Way> {
        let hit = nat.find((from != uplink.network).then_some(from), &plain, now)?;
        let destination = Ipv4Addr::from(hit.destination).into();
        let (to, next_hop) = match hit.to {
            Some(to) => (to, destination),
            None => (uplink.network, uplink.next_hop(destination)?),
        };
        let entry = met.get(to, next_hop, now)?;
        Some(ways.put(Way::new(from, plain, hit, entry)))
    }

    fn forget_ways(&mut self) {
        self.met.forget();
        self.ways.forget();
    }

    /// A frame that a gateway took. It is given back when it is the user-mode uplink's.
    pub fn take(&mut self, from: NetworkId, mut frame: Frame, now: Instant, out: &mut RouterOutput) -> Option<Frame> {
        let Some(to) = self.take_at_once(from, &mut frame, now) else { return self.take_slowly(from, frame, now, out) };
        out.push((to, frame));
        None
    }

    #[inline(never)]
    fn take_slowly(&mut self, from: NetworkId, frame: Frame, now: Instant, out: &mut RouterOutput) -> Option<Frame> {
        let Some(destination) = ip_destination(frame.bytes()) else {
            self.hear_neighbour(from, &frame, now, out);
            return None;
        };
        if self.uplink.as_ref().is_some_and(|uplink| uplink.network == from) {
            if speech::is_neighbour_advertisement(frame.bytes()) {
                self.hear_neighbour(from, &frame, now, out);
                return None;
            }
            let result = self.nat.inbound(frame, now, &mut self.translated);
            self.after(from, result, now, out);
            return None;
        }
        if speech::is_neighbour_advertisement(frame.bytes()) {
            self.hear_neighbour(from, &frame, now, out);
            return None;
        }
        if let Some(to) = self.routed_to(from, destination) {
            self.forward(to, frame, now, out);
            return None;
        }
        if !self.leaving.contains(&from) || self.links.get(&from).is_some_and(|link| link.addresses.iter().any(|own| own.ip() == destination)) {
            return Some(frame);
        }
        let source = ip_source(frame.bytes());
        let frame = self.checked_for_uplink(from, frame, now, out)?;
        let mac = Mac::source_of(frame.bytes());
        let result = self.nat.outbound(from, frame, now, &mut self.translated);
        // Who opens a connection is known where he lives, and need not be asked.
        if result.is_ok()
            && self.nat.made_connection()
            && let (Some(source), Some(mac)) = (source, mac)
        {
            if self.neighbours.known((from, source), now) != Some(mac) {
                self.forget_ways();
            }
            let waiting = self.neighbours.learn((from, source), mac, now);
            self.send_all(from, mac, waiting, out);
        }
        self.after(from, result, now, out);
        None
    }

    /// The network that `from` may reach a destination in.
    fn routed_to(&self, from: NetworkId, destination: IpAddr) -> Option<NetworkId> {
        if self.routes.is_empty() {
            return None;
        }
        let reached = self.routes.range((from, NetworkId::new(0, 0))..).take_while(|(network, _)| *network == from);
        reached.map(|(_, to)| *to).find(|to| self.links.get(to).is_some_and(|link| link.reaches(destination)))
    }

    fn is_routed(&self, from: NetworkId, frame: &Frame) -> bool {
        ip_destination(frame.bytes()).is_some_and(|destination| self.routed_to(from, destination).is_some())
    }

    /// What is too long for the uplink is told in the words of its sender, before translation.
    fn checked_for_uplink(&mut self, from: NetworkId, frame: Frame, now: Instant, out: &mut RouterOutput) -> Option<Frame> {
        let mtu = self.uplink.as_ref().map_or(u16::MAX, |uplink| uplink.link.mtu);
        if fit::fits(&frame, mtu) || fit::may_be_fragmented(&frame) {
            return Some(frame);
        }
        self.stats.too_big += 1;
        self.tell(from, &frame, fit::too_big(mtu), now, out);
        None
    }

    /// What translation made goes on; what it refused is told.
    fn after(&mut self, from: NetworkId, result: Result<(), Refused>, now: Instant, out: &mut RouterOutput) {
        if let Err(Refused { reason, frame }) = result {
            self.refused(from, reason, &frame, now, out);
        }
        let mut translated = std::mem::take(&mut self.translated);
        for Translated { to, frame } in translated.drain(..) {
            let Some(to) = to.or(self.uplink.as_ref().map(|uplink| uplink.network)) else { continue };
            self.forward(to, frame, now, out);
        }
        self.translated = translated;
    }

    /// The way of a router: hops, size, next hop.
    fn forward(&mut self, to: NetworkId, mut frame: Frame, now: Instant, out: &mut RouterOutput) {
        let (Some(link), Some(destination)) = (self.link(to), ip_destination(frame.bytes())) else { return };
        let mtu = self.mtu_towards(to, link, destination);
        if !frame.make_unique() {
            self.stats.no_buffer += 1;
            return;
        }
        if !fit::use_hop(&mut frame) {
            self.stats.ttl_expired += 1;
            self.tell_back(to, &frame, Problem::TTL_EXPIRED, now, out);
            return;
        }
        fit::clamp_mss(&mut frame, mtu);
        if fit::fits(&frame, mtu) {
            self.send(to, frame, now, out);
        } else if fit::may_be_fragmented(&frame) {
            let mut parts = Vec::new();
            if !fit::fragment(&frame, mtu, &self.pool, &mut parts) {
                self.stats.no_buffer += 1;
            }
            parts.into_iter().for_each(|part| self.send(to, part, now, out));
        } else {
            self.stats.too_big += 1;
            self.tell_back(to, &frame, fit::too_big(mtu), now, out);
        }
    }

    /// To the next hop.
    fn send(&mut self, to: NetworkId, mut frame: Frame, now: Instant, out: &mut RouterOutput) {
        let Some(destination) = ip_destination(frame.bytes()) else { return };
        let Some(next_hop) = self.next_hop(to, destination) else {
            self.stats.no_route += 1;
            self.tell_back(to, &frame, Problem::unreachable(0), now, out);
            return;
        };
        let Some(link) = self.link(to) else { return };
        let (own, mtu) = (link.mac.get(), self.mtu_towards(to, link, destination));
        if !frame.make_unique() {
            self.stats.no_buffer += 1;
            return;
        }
        frame.bytes_mut()[6..12].copy_from_slice(&own.0);
        if !self.vips.is_empty() && self.vips.contains(&(to, next_hop)) {
            frame.bytes_mut()[..6].copy_from_slice(&own.0);
            self.stats.forwarded += 1;
            out.push((to, frame));
            return;
        }
        match self.neighbours.resolve((to, next_hop), frame, now) {
            Known::Yes { mac, mut frame, stale } => {
                frame.bytes_mut()[..6].copy_from_slice(&mac.0);
                self.stats.forwarded += 1;
                out.push((to, frame));
                if stale {
                    self.ask(to, next_hop, out);
                } else if next_hop == destination || !self.mtus.contains_key(&(to, destination)) {
                    self.met.put(to, next_hop, Met::new(mac, own, mtu), now);
                }
            }
            Known::NotYet { ask: true } => self.ask(to, next_hop, out),
            Known::NotYet { ask: false } => {}
        }
    }

    fn next_hop(&self, to: NetworkId, destination: IpAddr) -> Option<IpAddr> {
        match &self.uplink {
            Some(uplink) if uplink.network == to => uplink.next_hop(destination),
            _ => Some(destination),
        }
    }

    // ---- neighbours ----

    fn send_all(&mut self, network: NetworkId, mac: Mac, frames: impl IntoIterator<Item = Frame>, out: &mut RouterOutput) {
        for mut frame in frames {
            if frame.make_unique() {
                frame.bytes_mut()[..6].copy_from_slice(&mac.0);
                self.stats.forwarded += 1;
                out.push((network, frame));
            }
        }
    }

    // ---- the clock ----

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.nat.poll_timeout(), self.neighbours.poll_timeout()].into_iter().flatten().min()
    }

    /// Deadlines up to `now` are due.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut RouterOutput) {
        let mut unwanted = Vec::new();
        self.nat.handle_timeout(now, |syn| unwanted.push(syn));
        for syn in unwanted {
            self.tell_unwanted(&syn.quote, now, out);
        }
        let (mut questions, mut lost) = (Vec::new(), Vec::new());
        self.neighbours.handle_timeout(now, |key| questions.push(key), |key, frame| lost.push((key, frame)));
        for (network, ip) in questions {
            self.ask(network, ip, out);
        }
        for ((network, _), frame) in lost {
            self.stats.no_neighbour += 1;
            self.tell_back(network, &frame, Problem::unreachable(1), now, out);
            let is_uplink = self.uplink.as_ref().is_some_and(|uplink| uplink.network == network);
            self.nat.undelivered((!is_uplink).then_some(network), &frame);
        }
    }
}
