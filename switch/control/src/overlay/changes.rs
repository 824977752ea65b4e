//! What a tunnel has to be told for one state of its overlay to become another.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use packet::{Mac, UnicastMac};

use super::Overlay;

/// A change to a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelChange {
    /// Flood to another node too, and hear it.
    AddPeer(SocketAddr),
    /// Neither any more.
    RemovePeer(SocketAddr),
    /// A station is behind that node, whatever was known of it.
    AddStation(UnicastMac, SocketAddr),
    /// It is not known where the station is.
    RemoveStation(UnicastMac),
    /// That station has the address, whoever had it.
    AddNeighbour(IpAddr, UnicastMac),
    /// Nobody is known to have the address.
    RemoveNeighbour(IpAddr),
}

/// The changes from `before` to `after`, whose nodes are at `udp_port` unless they have a port of their own. In an order in
/// which nobody is sent anywhere unknown: new peers first, old ones last. What is the same causes none.
#[must_use]
pub fn changes(before: &Overlay, after: &Overlay, udp_port: u16) -> Vec<TunnelChange> {
    let is_other = |mac: &String| before.stations.get(mac) != after.stations.get(mac);
    let tells_other = |ip: &IpAddr| before.neighbours.get(ip) != after.neighbours.get(ip);
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (before.peers.iter().collect(), after.peers.iter().collect());
    let mut changes: Vec<_> = new.difference(&old).map(|peer| TunnelChange::AddPeer(peer.at(udp_port))).collect();
    changes.extend(after.stations.iter().filter(|(mac, _)| is_other(mac)).filter_map(|(mac, node)| Some(TunnelChange::AddStation(station(mac)?, node.at(udp_port)))));
    changes.extend(before.stations.keys().filter(|mac| !after.stations.contains_key(*mac)).filter_map(|mac| station(mac)).map(TunnelChange::RemoveStation));
    changes.extend(after.neighbours.iter().filter(|(ip, _)| tells_other(ip)).filter_map(|(ip, mac)| Some(TunnelChange::AddNeighbour(*ip, station(mac)?))));
    changes.extend(before.neighbours.keys().filter(|ip| !after.neighbours.contains_key(*ip)).map(|ip| TunnelChange::RemoveNeighbour(*ip)));
    changes.extend(old.difference(&new).map(|peer| TunnelChange::RemovePeer(peer.at(udp_port))));
    changes
}

fn station(mac: &str) -> Option<UnicastMac> {
    mac.parse::<Mac>().ok().and_then(UnicastMac::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::Remote;

    fn overlay(stations: &[(&str, &str, [u8; 4])]) -> Overlay {
        let none = r#"{"vni":1,"port":null,"peers":[],"stations":{},"learning":true,"strict":true,"ttl":null,"group":null}"#;
        let mut overlay: Overlay = serde_json::from_str(none).unwrap();
        for (mac, node, ip) in stations {
            let node: Remote = node.parse().unwrap();
            overlay.peers.push(node);
            overlay.stations.insert((*mac).into(), node);
            overlay.neighbours.insert(IpAddr::from(*ip), (*mac).into());
        }
        overlay.peers.sort_unstable();
        overlay.peers.dedup();
        overlay
    }

    #[test]
    fn new_peers_first_old_ones_last_and_nothing_for_what_stays() {
        let stays = ("02:00:00:00:00:01", "192.0.2.1", [10, 0, 0, 1]);
        let before = overlay(&[stays, ("02:00:00:00:00:02", "192.0.2.2", [10, 0, 0, 2]), ("02:00:00:00:00:03", "192.0.2.2", [10, 0, 0, 3])]);
        // The second moved to a new node; the third is gone, and another has its address.
        let after = overlay(&[stays, ("02:00:00:00:00:02", "192.0.2.3:4790", [10, 0, 0, 2]), ("02:00:00:00:00:04", "192.0.2.1", [10, 0, 0, 3])]);
        assert_eq!(changes(&before, &before, 4789), []);
        let mac = |last| station(&format!("02:00:00:00:00:{last:02}")).unwrap();
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let expected = [
            TunnelChange::AddPeer(at("192.0.2.3:4790")),
            TunnelChange::AddStation(mac(2), at("192.0.2.3:4790")),
            TunnelChange::AddStation(mac(4), at("192.0.2.1:4789")),
            TunnelChange::RemoveStation(mac(3)),
            TunnelChange::AddNeighbour([10, 0, 0, 3].into(), mac(4)),
            TunnelChange::RemovePeer(at("192.0.2.2:4789")),
        ];
        assert_eq!(changes(&before, &after, 4789), expected);
        let (nothing, all) = (overlay(&[]), changes(&after, &overlay(&[]), 4789));
        assert_eq!((all.len(), changes(&nothing, &after, 4789).len()), (8, 8), "2 nodes, 3 stations, 3 addresses");
    }
}
