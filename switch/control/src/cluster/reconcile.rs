//! Makes the model match the store.

use std::collections::BTreeMap;

use super::Replica;
use crate::{
    model::{Model, Network},
    overlay::Remote,
};

/// Changes of `model` what the store says otherwise; `me` is the name of this node, whose tunnels are at `vxlan_port`.
/// A network that the store does not have, but this node has endpoints in, stays: [`Member::register`](super::Member::register) decides about it.
pub fn reconcile(model: &mut Model, replica: &Replica, me: &str, vxlan_port: u16) {
    let elsewhere = &mut model.elsewhere;
    elsewhere.nodes = replica.nodes().filter_map(|record| record.node().ok()).map(|node| (node.name.clone(), node)).collect();
    elsewhere.endpoints = replica
        .endpoints()
        .filter(|record| record.node != me && replica.network(&record.network).is_some())
        .filter_map(|record| Some((record.id.clone(), record.endpoint().ok()?)))
        .collect();
    networks(model, replica);
    tunnels(model, vxlan_port);
}

fn networks(model: &mut Model, replica: &Replica) {
    let is_gone = |(id, network): &(&String, &Network)| network.is_global() && replica.network(id).is_none() && model.members(id).next().is_none();
    let gone: Vec<String> = model.networks.iter().filter(is_gone).map(|(id, _)| id.clone()).collect();
    for id in &gone {
        model.networks.remove(id);
    }
    model.networks.extend(replica.networks().filter_map(|record| record.network().ok()).map(|network| (network.id.clone(), network)));
    model.routes = model.routes.iter().filter(|(one, other)| !gone.contains(one) && !gone.contains(other)).cloned().collect();
}

/// Nodes with endpoints in a network are its peers; where their stations are is known, and who has which address.
fn tunnels(model: &mut Model, vxlan_port: u16) {
    let Model { networks, elsewhere, .. } = model;
    let shared: Vec<String> = networks.iter().filter(|(_, network)| network.is_global()).map(|(id, _)| id.clone()).collect();
    for id in &shared {
        let Some(overlay) = networks.get_mut(id).and_then(|network| network.overlay.as_mut()) else { continue };
        (overlay.peers, overlay.stations, overlay.neighbours) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    }
    for endpoint in elsewhere.endpoints.values() {
        let Some(node) = elsewhere.nodes.get(&endpoint.node) else { continue };
        let Some(overlay) = networks.get_mut(&endpoint.network).and_then(|network| network.overlay.as_mut()) else { continue };
        // A network's own port is that of all nodes.
        let port = Some(node.vxlan_port).filter(|port| overlay.port.is_none() && *port != vxlan_port);
        let remote = Remote { ip: node.ip, port };
        if let Err(at) = overlay.peers.binary_search(&remote) {
            overlay.peers.insert(at, remote);
        }
        overlay.stations.insert(endpoint.mac.clone(), remote);
        if endpoint.up {
            overlay.neighbours.extend(endpoint.addresses.iter().map(|address| (address.ip(), endpoint.mac.clone())));
        }
    }
}
