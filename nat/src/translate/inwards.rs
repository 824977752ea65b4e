//! From the outside into a network.

use std::net::IpAddr;

use packet::{Frame, Instant, NetworkId, PacketMut, checksum::protocol, is_martian};

use super::{Done, Nat, Step, Translated};
use crate::{
    NatDrop,
    fragment::{Datagram, Rewrite},
    icmp::{Quoted, Which, seal},
    rule::Translation,
    tuple::{Direction, End, Kind, Tuple, read},
};

impl Nat {
    pub(super) fn inwards(&mut self, mut frame: Frame, now: Instant, out: &mut Vec<Translated>) -> Step {
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
        let at = match self.alive(found, now) {
            Some(at) => at,
            None => match self.stateless_inwards(&mut packet)? {
                Some(network) => return Ok((Done::Passed, network)),
                None => self.open_inwards(&tuple, now)?,
            },
        };
        self.note(at);
        let Some(connection) = self.conntrack.get_mut(at) else { return Err(NatDrop::NoConnection) };
        connection.packet(Direction::In, tuple.flags, length, now, &self.config.lifetimes);
        let (inside, network) = (connection.inside, connection.network);
        let before = packet.ip().is_fragment().then(|| Datagram::of(None, &packet));
        write_destination(&mut packet, inside);
        let done = match before {
            None => Done::Passed,
            Some(datagram) => Done::First(datagram, Rewrite { source: tuple.source.ip, destination: inside.ip, to: Some(network) }),
        };
        Ok((done, network))
    }

    #[inline(never)]
    fn inwards_special(&mut self, kind: Kind, frame: &mut Frame, now: Instant) -> Result<(Done, NetworkId), NatDrop> {
        let mut packet = PacketMut::new(frame).ok_or(NatDrop::Malformed)?;
        if kind == Kind::LaterFragment {
            return match self.stateless_inwards(&mut packet)? {
                Some(network) => Ok((Done::Passed, network)),
                None => Ok((Done::Later(Datagram::of(None, &packet)), NetworkId::new(0, 0))),
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
        let room = if self.alive(other, now).is_none() { self.make_room(network, inside.ip, now) } else { Err(NatDrop::Clash) };
        if let Err(reason) = room {
            self.let_go(mapping);
            return Err(reason);
        }
        if let Some(forward) = forward {
            self.forwards.count(forward, 1, 0, 0);
        }
        Ok(self.insert(network, tuple.protocol, (inside, tuple.source, external), (mapping, forward), Direction::In, now))
    }
}

fn write_destination(packet: &mut PacketMut<'_>, end: End) {
    let _ = packet.set_destination(end.ip) && (packet.set_destination_port(end.port) || packet.set_echo_id(end.port));
}
