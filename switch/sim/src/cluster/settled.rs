//! Whether all nodes know what there is, and how long that took.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use control::store::memory::Link;
use packet::{UnicastMac, Vni};
use vxlan::RemoteKind;

use super::{
    Cluster, NodeId,
    node::{Node, station},
};

/// How exactly convergence is measured.
const STEP: Duration = Duration::from_millis(5);

/// An endpoint of a network.
struct There {
    node: usize,
    mac: UnicastMac,
    at: SocketAddr,
    addresses: Vec<IpAddr>,
}

impl Cluster {
    /// Runs until all nodes that reach the store have settled; gives how long that took, in virtual time.
    ///
    /// # Panics
    /// When they have not after `limit`; the message names what is wrong.
    pub fn settle(&mut self, limit: Duration) -> Duration {
        let start = self.now;
        loop {
            let Some(wrong) = self.unsettled() else { return self.now.since(start) };
            let before = self.version;
            while self.version == before {
                assert!(self.now.since(start) < limit, "{}: not settled after {limit:?}: {wrong}", self.context());
                self.run_for(STEP);
            }
        }
    }

    /// What a node that reaches the store has wrong of what those nodes have: exactly their nodes are its peers, exactly their
    /// stations are behind these, and exactly their addresses are answered for. Nothing when all is right.
    #[must_use]
    pub fn unsettled(&self) -> Option<String> {
        let nodes: Vec<_> = self.places.iter().filter(|place| place.link == Link::Whole).filter_map(|place| place.node.as_ref()).collect();
        let networks = nodes.iter().filter(|node| node.follows).flat_map(|node| node.model.networks.keys());
        let mut there: BTreeMap<&str, Vec<There>> = networks.map(|network| (network.as_str(), Vec::new())).collect();
        for node in &nodes {
            for (network, endpoint) in node.model.sandboxes.values().flat_map(|sandbox| &sandbox.endpoints).map(|endpoint| (endpoint.network.as_str(), endpoint)) {
                let at = SocketAddr::new(node.identity.address, vxlan::PORT);
                let addresses = endpoint.addresses.iter().map(|address| address.ip()).collect();
                there.entry(network).or_default().push(There { node: node.identity.number, mac: station(&endpoint.mac), at, addresses });
            }
        }
        nodes.iter().filter(|node| node.follows).find_map(|node| self.wrong_at(node, &there))
    }

    fn wrong_at(&self, node: &Node, there: &BTreeMap<&str, Vec<There>>) -> Option<String> {
        let name = &node.identity.name;
        if !node.is_in_touch() {
            return Some(format!("{name} is not in touch"));
        }
        if let Some(missing) = there.keys().find(|network| !node.plane.is_open(network)) {
            return Some(format!("{name} has no tunnel for network {missing}"));
        }
        for network in node.model.networks.values() {
            let Some(vni) = network.overlay.as_ref().and_then(|overlay| Vni::new(overlay.vni)) else { continue };
            let others = || there.get(network.id.as_str()).into_iter().flatten().filter(|other| other.node != node.identity.number);
            let peers: BTreeSet<_> = others().map(|other| other.at).collect();
            if !node.plane.vtep.peers(vni).iter().eq(&peers) {
                return Some(format!("{name} has {} peers in {}, want {}", node.plane.vtep.peers(vni).len(), network.name, peers.len()));
            }
            let stations: BTreeMap<_, _> = others().map(|other| (other.mac, other.at)).collect();
            let (told, learned): (Vec<_>, Vec<_>) = node.plane.vtep.remotes(vni, self.now).into_iter().partition(|remote| remote.kind == RemoteKind::Static);
            if !told.iter().map(|remote| (&remote.mac, &remote.to)).eq(&stations) {
                return Some(format!("{name} knows {} stations in {}, want {}, or other places", told.len(), network.name, stations.len()));
            }
            if let Some(stale) = learned.iter().find(|remote| !peers.contains(&remote.to)) {
                return Some(format!("{name} believes {} behind {}, which is no peer", stale.mac, stale.to));
            }
            let addresses: BTreeMap<_, _> = others().flat_map(|other| other.addresses.iter().map(|address| (*address, other.mac))).collect();
            if !node.plane.vtep.neighbours(vni).map(|(ip, neighbour)| (ip, neighbour.mac)).eq(addresses) {
                return Some(format!("{name} answers for other addresses in {}", network.name));
            }
        }
        None
    }

    /// Behind which node another believes a station, told or learned.
    ///
    /// # Panics
    /// When the node has ended.
    #[must_use]
    pub fn believed(&self, node: NodeId, network: &str, mac: packet::Mac) -> Option<NodeId> {
        let Some(node) = self.places[node.0].node.as_ref() else { panic!("node {} has ended", node.0) };
        let vni = node.model.network(network).ok()?.overlay.as_ref().and_then(|overlay| Vni::new(overlay.vni))?;
        let remote = node.plane.vtep.remotes(vni, self.now).into_iter().find(|remote| remote.mac.get() == mac)?;
        self.addresses.get(&remote.to.ip()).copied().map(NodeId)
    }
}
