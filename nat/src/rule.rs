//! What users ask of translation: networks with their kind of it, external addresses, port forwards.

use std::{fmt, net::IpAddr};

use ipnetwork::IpNetwork;
use packet::NetworkId;

use crate::{behaviour::Behaviour, npt::Prefixes, tuple::End};

/// How addresses of a network are changed on their way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Translation {
    /// Whatever external address of the family the uplink has.
    Masquerade,
    /// These addresses; an inside address keeps to one of them (RFC 4787 REQ-2, "paired").
    Source(Vec<IpAddr>),
    /// None: outside knows the way back to the network.
    Routed,
}

/// A network that is translated.
#[derive(Clone, Debug)]
pub struct Inside {
    /// Its subnets.
    pub subnets: Vec<IpNetwork>,
    /// What is done to its addresses.
    pub translation: Translation,
    /// IPv6 by prefix instead (RFC 6296).
    pub prefixes: Option<Prefixes>,
    /// Where the RFCs leave a choice.
    pub behaviour: Behaviour,
}

impl Inside {
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(ip))
    }
}

/// A port forward: DNAT of what comes to an external port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// TCP (6) or UDP (17).
    pub protocol: u8,
    /// The external address; any of them when missing.
    pub address: Option<IpAddr>,
    /// The external ports, first and last.
    pub ports: (u16, u16),
    /// The sandbox's network.
    pub network: NetworkId,
    /// Where the first port goes; the others follow it.
    pub to: End,
}

impl Forward {
    pub(crate) fn takes(&self, protocol: u8, external: End) -> bool {
        self.protocol == protocol
            && self.address.map_or(external.ip.is_ipv4() == self.to.ip.is_ipv4(), |own| own == external.ip)
            && (self.ports.0..=self.ports.1).contains(&external.port)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let addresses = match (self.address, other.address) {
            (Some(one), Some(another)) => one == another,
            _ => self.to.ip.is_ipv4() == other.to.ip.is_ipv4(),
        };
        self.protocol == other.protocol && addresses && self.ports.0 <= other.ports.1 && other.ports.0 <= self.ports.1
    }
}

/// Names a forward while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForwardId(u64);

/// Why a forward was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardError {
    /// Another has one of these ports.
    Taken,
    /// Ports that do not fit the other side, or families that differ.
    Contradiction,
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Taken => "port is already allocated",
            Self::Contradiction => "the two sides do not fit each other",
        })
    }
}

impl std::error::Error for ForwardError {}

/// A forward with what it did.
#[derive(Clone, Copy, Debug)]
pub struct ForwardView {
    /// Its name.
    pub id: ForwardId,
    /// What it does.
    pub forward: Forward,
    /// Connections that it made.
    pub connections: u64,
    /// Packets of these, both ways.
    pub packets: u64,
    /// Bytes of these, both ways.
    pub bytes: u64,
}

/// All forwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forwards {
    all: Vec<ForwardView>,
    last: u64,
}

impl Forwards {
    pub(crate) fn add(&mut self, forward: Forward) -> Result<ForwardId, ForwardError> {
        let span = forward.ports.1.checked_sub(forward.ports.0).ok_or(ForwardError::Contradiction)?;
        let families = forward.address.is_none_or(|ip| ip.is_ipv4() == forward.to.ip.is_ipv4());
        if forward.ports.0 == 0 || forward.to.port == 0 || forward.to.port.checked_add(span).is_none() || !families {
            return Err(ForwardError::Contradiction);
        }
        if self.all.iter().any(|other| other.forward.overlaps(&forward)) {
            return Err(ForwardError::Taken);
        }
        self.last += 1;
        let id = ForwardId(self.last);
        self.all.push(ForwardView { id, forward, connections: 0, packets: 0, bytes: 0 });
        Ok(id)
    }

    pub(crate) fn remove(&mut self, id: ForwardId) -> Option<Forward> {
        let at = self.all.iter().position(|view| view.id == id)?;
        Some(self.all.remove(at).forward)
    }

    /// The forward of an external end, and where it leads.
    pub(crate) fn find(&self, protocol: u8, external: End) -> Option<(ForwardId, NetworkId, End)> {
        let ForwardView { id, forward, .. } = self.all.iter().find(|view| view.forward.takes(protocol, external))?;
        Some((*id, forward.network, End::new(forward.to.ip, forward.to.port + (external.port - forward.ports.0))))
    }

    pub(crate) fn count(&mut self, id: ForwardId, connections: u64, packets: u64, bytes: u64) {
        if let Ok(at) = self.all.binary_search_by_key(&id, |view| view.id) {
            let view = &mut self.all[at];
            view.connections += connections;
            view.packets += packets;
            view.bytes += bytes;
        }
    }

    pub(crate) fn views(&self) -> &[ForwardView] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(ports: (u16, u16), to: u16) -> Forward {
        Forward { protocol: 6, address: None, ports, network: NetworkId::new(0, 0), to: End::new("10.0.0.2".parse().unwrap(), to) }
    }

    #[test]
    fn ranges_lead_in_step() {
        let mut forwards = Forwards::default();
        forwards.add(forward((9000, 9999), 80)).unwrap();
        let at = |port| forwards.find(6, End::new("198.51.100.1".parse().unwrap(), port)).map(|(_, _, end)| end.port);
        assert_eq!((at(8999), at(9000), at(9999), at(10_000)), (None, Some(80), Some(1079), None));
        assert_eq!(forwards.find(17, End::new("198.51.100.1".parse().unwrap(), 9000)), None);
        assert_eq!(forwards.find(6, End::new("2001:db8::1".parse().unwrap(), 9000)), None);
    }

    #[test]
    fn conflicts_and_contradictions() {
        let mut forwards = Forwards::default();
        let id = forwards.add(forward((80, 90), 80)).unwrap();
        assert_eq!(forwards.add(forward((90, 91), 1)), Err(ForwardError::Taken));
        assert_eq!(forwards.add(forward((70, 60), 1)), Err(ForwardError::Contradiction));
        assert_eq!(forwards.add(forward((1, 10), 65_530)), Err(ForwardError::Contradiction));
        assert_eq!(forwards.add(Forward { address: Some("::1".parse().unwrap()), ..forward((1, 1), 1) }), Err(ForwardError::Contradiction));
        forwards.remove(id).unwrap();
        assert!(forwards.add(forward((90, 91), 1)).is_ok());
    }
}
