//! What each network did by masquerade or SNAT, for views: the counters of its rule.
//!
//! A packet counts with its connection alone; what has ended is added here, what lives is added when somebody
//! looks.

use std::collections::BTreeMap;

use packet::NetworkId;

use crate::conntrack::Connection;

/// Counters of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that it made.
    pub connections: u64,
    /// Packets of these, both ways.
    pub packets: u64,
    /// Bytes of these, both ways.
    pub bytes: u64,
}

/// A rule of a network, with its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficView {
    /// The network.
    pub network: NetworkId,
    /// Of IPv4, else of IPv6.
    pub is_ipv4: bool,
    /// To an external address, and so back in (RFC 4787 section 6), else outside.
    pub is_hairpin: bool,
    /// Its counters.
    pub traffic: Traffic,
}

/// By network, whether it is IPv4, and whether it comes back in.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrafficByNetwork(BTreeMap<(NetworkId, bool, bool), Traffic>);

impl TrafficByNetwork {
    fn of(&mut self, connection: &Connection) -> &mut Traffic {
        self.0.entry((connection.network, connection.inside.ip.is_ipv4(), connection.hairpin)).or_default()
    }

    pub(crate) fn began(&mut self, connection: &Connection) {
        self.of(connection).connections += 1;
    }

    /// Adds what passed on a connection.
    pub(crate) fn add(&mut self, connection: &Connection) {
        let traffic = self.of(connection);
        traffic.packets += connection.packets.iter().sum::<u64>();
        traffic.bytes += connection.bytes.iter().sum::<u64>();
    }

    pub(crate) fn forget(&mut self, network: NetworkId) {
        self.0.retain(|(other, ..), _| *other != network);
    }

    pub(crate) fn into_views(self) -> Vec<TrafficView> {
        self.0.into_iter().map(|((network, is_ipv4, is_hairpin), traffic)| TrafficView { network, is_ipv4, is_hairpin, traffic }).collect()
    }
}
