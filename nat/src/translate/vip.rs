//! Load balancing: from a client to a virtual address, and back from the endpoint that its connection got.
//!
//! ```text
//!  client -- to the virtual address ---> [ connection? | new: the next endpoint ] -- rewrite destination --> endpoint
//!  client <-- rewrite source ------------[ connection? | not of one: as it is   ] <------------------------- endpoint
//! ```
//!
//! The client's address is kept, so an endpoint that is its own client would hear from itself, which no host
//! believes: its connection is a hairpin, and it sees the virtual address as the client.
//!
//! A refused opening (a reset in answer to a SYN) is not told to the client while another endpoint is left:
//! the connection goes to that one, which hears the SYN when the client repeats it. So an endpoint whose death
//! control has not noticed yet costs new connections a second, not their life. One that is silent keeps them
//! until their SYN expires (6 s), and the next one is for another.
//!
//! Who talks to an endpoint by its own address as well, from the same L4 port and at the same time as by the
//! virtual one, is not told apart from it; a connection that has closed gives way to such a one.

use std::{collections::BTreeMap, net::IpAddr};

use packet::{Frame, Instant, NetworkId, PacketMut, checksum::protocol};

use super::{Datagram, Nat, Refused, Step, Translated};
use crate::{
    NatDrop,
    conntrack::Connection,
    icmp::Quoted,
    tcp_state::{ACK, RST, SYN},
    tuple::{Direction, End, Kind, Tuple, read},
    vip::{Vip, VipView},
};

/// Endpoints that may refuse one connection before its client hears of it: the client repeats its SYN after
/// 1, 3 and 7 s (RFC 6298 section 5).
const MOST_TRIES: u8 = 3;

/// What an endpoint sent.
#[derive(Debug)]
pub enum Sent {
    /// Of no balanced connection; it goes on as it is.
    Own(Frame),
    /// Rewritten.
    Translated(Frame),
    /// The endpoint would not have a connection, which goes to another now.
    Declined,
}

impl Nat {
    /// Balances these and no others. Connections to endpoints that are gone end.
    pub fn set_vips(&mut self, vips: Vec<Vip>) {
        let dice = &mut self.dice;
        self.vips.set(vips, || dice.throw());
        self.set_externals(self.vips.addresses().collect());
        let gone = self.conntrack.select(|connection| !self.vips.is_endpoint_of(connection.external.ip, connection.inside.ip));
        gone.into_iter().for_each(|at| self.end(at, Instant::ZERO));
    }

    /// Whether an address is balanced.
    #[inline]
    #[must_use]
    pub fn is_vip(&self, ip: IpAddr) -> bool {
        self.vips.contains(ip)
    }

    /// Whether an address is one of an endpoint.
    #[inline]
    #[must_use]
    pub fn is_endpoint(&self, ip: IpAddr) -> bool {
        self.vips.is_endpoint(ip)
    }

    /// What is balanced, with what it did.
    #[must_use]
    pub fn vips(&self, now: Instant) -> Vec<VipView> {
        let is_open = |connection: &&Connection| connection.balanced.is_some() && connection.expires > now && !connection.tcp.is_over();
        let mut open: BTreeMap<(IpAddr, IpAddr), usize> = BTreeMap::new();
        for connection in self.conntrack.iter().filter(is_open) {
            *open.entry((connection.external.ip, connection.inside.ip)).or_default() += 1;
        }
        self.vips.views(|address, ip| open.get(&(address, ip)).copied().unwrap_or_default())
    }

    /// A packet to a virtual address. What may go on is added to `out`.
    ///
    /// # Errors
    /// When it may not.
    pub fn to_vip(&mut self, network: NetworkId, frame: Frame, now: Instant, out: &mut Vec<Translated>) -> Result<(), Refused> {
        self.conntrack.commit();
        let step = self.balance(network, frame, now, out);
        self.finish(step, out)
    }

    fn balance(&mut self, network: NetworkId, mut frame: Frame, now: Instant, out: &mut Vec<Translated>) -> Step {
        if !frame.make_unique() {
            return Err((NatDrop::NoBuffer, frame));
        }
        let kind = match PacketMut::new(&mut frame).ok_or(NatDrop::Malformed).and_then(|packet| read(&packet)) {
            Ok(kind) => kind,
            Err(reason) => return Err((reason, frame)),
        };
        let Kind::Flow(tuple) = kind else { return self.inwards(frame, now, out) };
        let known = self.conntrack.by_outside(tuple.protocol, tuple.destination, tuple.source);
        if let Some(at) = self.alive(known, now) {
            if !self.is_over(at) || !tuple.opens() {
                return self.inwards(frame, now, out);
            }
            self.end(at, now);
        }
        let hairpin = self.conntrack.by_inside(network, tuple.protocol, tuple.source, tuple.destination);
        if self.alive(hairpin, now).is_some() {
            return self.leave(network, frame, now, out);
        }
        match self.open_balanced(network, &tuple, now) {
            Ok(true) => self.leave(network, frame, now, out),
            Ok(false) => self.inwards(frame, now, out),
            Err(reason) => Err((reason, frame)),
        }
    }

    /// Gives a connection its endpoint; true when that is the client itself.
    fn open_balanced(&mut self, network: NetworkId, tuple: &Tuple, now: Instant) -> Result<bool, NatDrop> {
        if !tuple.opens() || matches!(tuple.protocol, protocol::ICMP | protocol::ICMPV6) {
            return Err(NatDrop::NoConnection);
        }
        let endpoint = self.vips.next(tuple.destination.ip).ok_or(NatDrop::NoEndpoint)?;
        self.lead(network, tuple.protocol, tuple.source, tuple.destination, endpoint, 0, now)
    }

    #[expect(clippy::too_many_arguments, reason = "a connection and its circumstances")]
    fn lead(&mut self, network: NetworkId, number: u8, client: End, vip: End, endpoint: IpAddr, tries: u8, now: Instant) -> Result<bool, NatDrop> {
        let inside = End::new(endpoint, vip.port);
        let is_hairpin = endpoint == client.ip;
        let outside = if is_hairpin { End::new(vip.ip, client.port) } else { client };
        // An endpoint talks with one end only once: a lingering connection gives way, a live one does not.
        if let Some(other) = self.conntrack.by_inside(network, number, inside, outside) {
            if self.alive(Some(other), now).is_some() && !self.is_over(other) {
                return Err(NatDrop::Clash);
            }
            self.end(other, now);
        }
        self.make_room(network, endpoint, now)?;
        let until = now + self.config.lifetimes.tcp_incoming_syn;
        let at = self.insert(network, number, (inside, outside, vip), (None, None), Direction::In, now);
        if let Some(connection) = self.conntrack.get_mut(at) {
            connection.balanced = Some(tries);
            connection.expires = until;
            // Nobody outside keeps a hole open here: datagrams one way are a use as any.
            connection.sent = number != protocol::TCP;
        }
        if is_hairpin {
            let half = self.insert(network, number, (client, vip, outside), (None, None), Direction::Out, now);
            if let Some(half) = self.conntrack.get_mut(half) {
                half.expires = until;
            }
        }
        Ok(is_hairpin)
    }

    /// A packet of an endpoint: if it is of a balanced connection, the virtual address is its source.
    ///
    /// # Errors
    /// When it is of one, and may not go on.
    pub fn from_endpoint(&mut self, network: NetworkId, mut frame: Frame, now: Instant) -> Result<Sent, Refused> {
        self.conntrack.commit();
        // A flooded frame is shared.
        if !frame.make_unique() {
            self.drops.count(NatDrop::NoBuffer);
            return Err(Refused { reason: NatDrop::NoBuffer, frame });
        }
        let Some(packet) = PacketMut::new(&mut frame) else { return Ok(Sent::Own(frame)) };
        let is_balanced = match read(&packet) {
            Ok(Kind::Flow(tuple)) => {
                let found = self.conntrack.by_inside(network, tuple.protocol, tuple.source, tuple.destination);
                match self.alive(found, now) {
                    Some(at) if self.is_declined(at, &tuple) => {
                        if self.try_next(at, now) {
                            return Ok(Sent::Declined);
                        }
                        true
                    }
                    Some(at) if self.is_of_another(at, &tuple) => {
                        self.end(at, now);
                        false
                    }
                    found => found.is_some(),
                }
            }
            Ok(Kind::LaterFragment) => {
                let datagram = Datagram::of(Some(network), &packet);
                if !self.fragments.knows(&datagram) {
                    return Ok(Sent::Own(frame));
                }
                let step = self.follow(datagram, frame, now);
                return self.sent(step);
            }
            Ok(Kind::Error) => self.is_about_balanced(network, &frame),
            Err(_) => false,
        };
        if !is_balanced {
            return Ok(Sent::Own(frame));
        }
        let mut out = Vec::new();
        let step = self.leave(network, frame, now, &mut out);
        self.sent(step)
    }

    /// Nothing waits here for a first fragment: until that was seen, later ones are taken for anybody's.
    fn sent(&mut self, step: Step) -> Result<Sent, Refused> {
        let mut out = Vec::new();
        self.finish(step, &mut out)?;
        Ok(out.pop().map_or(Sent::Declined, |translated| Sent::Translated(translated.frame)))
    }

    fn is_about_balanced(&self, network: NetworkId, frame: &Frame) -> bool {
        let mut whole = frame.share();
        if !whole.make_unique() {
            return false;
        }
        packet::checksum::complete(&mut whole);
        Quoted::of(&whole).is_ok_and(|quoted| self.conntrack.by_inside(network, quoted.tuple.protocol, quoted.tuple.destination, quoted.tuple.source).is_some())
    }

    /// A reset in answer to a SYN.
    fn is_declined(&self, at: u32, tuple: &Tuple) -> bool {
        tuple.protocol == protocol::TCP && tuple.flags & RST != 0 && self.conntrack.get(at).is_some_and(|connection| connection.balanced.is_some() && !connection.sent)
    }

    /// An end that answers a SYN that it did not get by us.
    fn is_of_another(&self, at: u32, tuple: &Tuple) -> bool {
        tuple.protocol == protocol::TCP && tuple.flags & (SYN | ACK) == SYN | ACK && self.is_over(at)
    }

    fn is_over(&self, at: u32) -> bool {
        self.conntrack.get(at).is_some_and(|connection| connection.tcp.is_over())
    }

    /// A connection that its endpoint would not have goes to the next; false when all had their turn.
    fn try_next(&mut self, at: u32, now: Instant) -> bool {
        let Some(Connection { network, protocol, inside, outside, external, balanced: Some(tries), hairpin: false, .. }) = self.conntrack.get(at).copied() else { return false };
        let tries = tries + 1;
        if usize::from(tries) >= self.vips.count(external.ip) || tries > MOST_TRIES {
            return false;
        }
        let Some(next) = self.vips.after(external.ip, inside.ip) else { return false };
        self.end(at, now);
        self.lead(network, protocol, outside, external, next, tries, now).is_ok()
    }
}
