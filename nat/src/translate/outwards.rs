//! From a network to the outside.

use std::net::IpAddr;

use packet::{Frame, Instant, Keyed, NetworkId, PacketMut, address_words, checksum::protocol, ip_destination, is_martian};

use super::{Done, Nat, Step, Translated};
use crate::{
    NatDrop,
    fragment::{Datagram, Rewrite},
    icmp::{Quoted, Which, seal},
    rule::Translation,
    tuple::{Direction, End, Kind, Tuple, read},
};

impl Nat {
    /// Outwards, and what is for an external address back in by the same door.
    #[inline]
    pub(super) fn leave(&mut self, network: NetworkId, frame: Frame, now: Instant, out: &mut Vec<Translated>) -> Step {
        match self.outwards(network, frame, now, out) {
            Ok(Some((frame, None))) if ip_destination(frame.bytes()).is_some_and(|ip| self.is_external(ip)) => self.inwards(frame, now, out),
            other => other,
        }
    }

    fn outwards(&mut self, network: NetworkId, mut frame: Frame, now: Instant, out: &mut Vec<Translated>) -> Step {
        match self.rewrite_outwards(network, &mut frame, now) {
            Ok(Done::Passed) => Ok(Some((frame, None))),
            Ok(Done::First(datagram, rewrite)) => {
                for waiting in self.fragments.first(datagram, rewrite, now) {
                    let step = self.leave(network, waiting, now, out);
                    drop(self.deliver(step, out));
                }
                Ok(Some((frame, None)))
            }
            Ok(Done::Later(datagram)) => self.follow(datagram, frame, now),
            Err(reason) => Err((reason, frame)),
        }
    }

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
        let at = match self.alive(found, now) {
            Some(at) => at,
            None if self.stateless_outwards(network, &mut packet)? => return Ok(Done::Passed),
            None => self.open_outwards(network, &tuple, now)?,
        };
        self.note(at);
        let Some(connection) = self.conntrack.get_mut(at) else { return Err(NatDrop::NoConnection) };
        let met = (!connection.sent).then_some(connection.mapping).flatten();
        connection.packet(Direction::Out, tuple.flags, length, now, &self.config.lifetimes);
        let external = connection.external;
        if let Some(mapping) = met {
            self.mappings.meet(mapping, tuple.destination.ip);
        }
        let before = packet.ip().is_fragment().then(|| Datagram::of(Some(network), &packet));
        write_source(&mut packet, external);
        Ok(match before {
            None => Done::Passed,
            Some(datagram) => Done::First(datagram, Rewrite { source: external.ip, destination: tuple.destination.ip, to: None }),
        })
    }

    /// ICMP errors and fragments without ports.
    #[inline(never)]
    fn outwards_special(&mut self, network: NetworkId, kind: Kind, frame: &mut Frame, now: Instant) -> Result<Done, NatDrop> {
        let mut packet = PacketMut::new(frame).ok_or(NatDrop::Malformed)?;
        if kind == Kind::LaterFragment {
            return match self.stateless_outwards(network, &mut packet)? {
                true => Ok(Done::Passed),
                false => Ok(Done::Later(Datagram::of(Some(network), &packet))),
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
        if self.alive(other, now).is_some() {
            self.let_go(mapping);
            return Err(if has_ports { NatDrop::Clash } else { NatDrop::PortsExhausted });
        }
        Ok(self.insert(network, tuple.protocol, (tuple.source, tuple.destination, external), (mapping, None), Direction::Out, now))
    }
}

/// An inside address keeps to one external address (RFC 4787 REQ-2).
fn paired(key: Keyed, pool: &[IpAddr], inside: IpAddr) -> Option<IpAddr> {
    let count = pool.iter().filter(|ip| ip.is_ipv4() == inside.is_ipv4()).count();
    let mut family = pool.iter().filter(|ip| ip.is_ipv4() == inside.is_ipv4());
    if count <= 1 {
        return family.next().copied();
    }
    let [low, high] = address_words(inside);
    family.nth(usize::try_from(key.words([low, high]) % count as u64).unwrap_or(0)).copied()
}

fn write_source(packet: &mut PacketMut<'_>, end: End) {
    // Of the right family and protocol: the tuple says so.
    let _ = packet.set_source(end.ip) && (packet.set_source_port(end.port) || packet.set_echo_id(end.port));
}
