//! Makes the model match the store.

use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdMap;
use ipnetwork::IpNetwork;

use super::{Elsewhere, Node, RemoteEndpoint, Replica};
use crate::{
    model::{Model, Network},
    overlay::{Overlay, Remote},
};

/// Changes of `model` what the store says otherwise; `me` is the name of this node, whose tunnels are at `vxlan_port`. What is
/// `spared` counts as there, see [`missing`].
/// A network that the store does not have, but this node has endpoints in, stays: [`Member::register`](super::Member::register) decides about it.
pub fn reconcile(model: &mut Model, replica: &Replica, me: &str, vxlan_port: u16, spared: &Elsewhere) {
    let elsewhere = &mut model.elsewhere;
    elsewhere.nodes = replica.nodes().filter_map(|record| record.node().ok()).map(|node| (node.name.clone(), node)).collect();
    elsewhere.endpoints = replica
        .endpoints()
        .filter(|record| record.node != me && replica.network(&record.network).is_some())
        .filter_map(|record| Some((record.id.clone(), record.endpoint().ok()?)))
        .collect();
    elsewhere.nodes.extend(spared.nodes.clone());
    elsewhere.endpoints.extend(spared.endpoints.clone());
    networks(model, replica);
    let mesh = model.mesh_network().map(|network| network.id.clone());
    let own = replica.mesh_ports().filter(|port| Some(&port.network) == mesh.as_ref());
    model.elsewhere.mesh = own.filter_map(|port| port.checked().ok()).map(|claim| (claim.id(), claim.clone())).collect();
    tunnels(model, me, vxlan_port);
}

/// Of the nodes and endpoints in `before` those that the store does not have, though it has their networks, and nobody else what was
/// theirs. When nobody could reach the store their leases ended, as this node's may have, and they come back as it does.
#[must_use]
pub fn missing(before: &Elsewhere, replica: &Replica) -> Elsewhere {
    let taken: BTreeSet<_> = replica.endpoints().flat_map(|other| own(&other.network, &other.name, &other.mac, &other.addresses)).collect();
    let is_taken = |endpoint: &RemoteEndpoint| own(&endpoint.network, &endpoint.name, &endpoint.mac, &endpoint.addresses).any(|own| taken.contains(&own));
    let is_known = |id: &String, endpoint: &RemoteEndpoint| replica.endpoint(&endpoint.network, id).is_some();
    let endpoints = before.endpoints.iter().filter(|(id, endpoint)| replica.network(&endpoint.network).is_some() && !is_known(id, endpoint) && !is_taken(endpoint));
    let here: BTreeSet<_> = replica.nodes().map(|node| &node.name).collect();
    Elsewhere {
        nodes: before.nodes.iter().filter(|(name, _)| !here.contains(name)).map(|(name, node)| (name.clone(), node.clone())).collect(),
        endpoints: endpoints.map(|(id, endpoint)| (id.clone(), endpoint.clone())).collect(),
        ..Elsewhere::default()
    }
}

/// What only one endpoint of a network has.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Own<'a> {
    Name(&'a str),
    Mac(&'a str),
    Address(IpNetwork),
}

fn own<'a>(network: &'a str, name: &'a str, mac: &'a str, addresses: &'a [IpNetwork]) -> impl Iterator<Item = (&'a str, Own<'a>)> {
    [Own::Name(name), Own::Mac(mac)].into_iter().chain(addresses.iter().copied().map(Own::Address)).map(move |own| (network, own))
}

fn networks(model: &mut Model, replica: &Replica) {
    let is_gone = |(id, network): &(&String, &Network)| network.is_global() && replica.network(id).is_none() && model.members(id).next().is_none();
    let gone: Vec<String> = model.networks.iter().filter(is_gone).map(|(id, _)| id.clone()).collect();
    for id in &gone {
        model.networks.remove(id);
    }
    model.networks.extend(replica.networks().filter_map(|record| record.network().ok()).map(|network| (network.id.clone(), network)));
    for vip in replica.vips().filter(|vip| replica.network(&vip.network).is_some_and(|network| vip.checked(network).is_ok())) {
        if let Some(network) = model.networks.get_mut(&vip.network) {
            network.vips.insert(vip.name.clone(), vip.addresses.clone());
        }
    }
    model.routes = model.routes.iter().filter(|(one, other)| !gone.contains(one) && !gone.contains(other)).cloned().collect();
}

/// Nodes with endpoints in a network are its peers; where their stations are is known, and who has which address.
fn tunnels(model: &mut Model, me: &str, vxlan_port: u16) {
    let Model { networks, elsewhere, .. } = model;
    let shared: Vec<String> = networks.iter().filter(|(_, network)| network.is_global()).map(|(id, _)| id.clone()).collect();
    for id in &shared {
        let Some(overlay) = networks.get_mut(id).and_then(|network| network.overlay.as_mut()) else { continue };
        (overlay.peers, overlay.stations, overlay.neighbours) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    }
    mesh(networks, elsewhere, me, vxlan_port);
    for endpoint in elsewhere.endpoints.values() {
        let Some(node) = elsewhere.nodes.get(&endpoint.node) else { continue };
        let Some(overlay) = networks.get_mut(&endpoint.network).and_then(|network| network.overlay.as_mut()) else { continue };
        let remote = add_peer(overlay, node, vxlan_port);
        overlay.stations.insert(endpoint.mac.clone(), remote);
        if endpoint.up {
            overlay.neighbours.extend(endpoint.addresses.iter().map(|address| (address.ip(), endpoint.mac.clone())));
        }
    }
}

/// In the network of the routing mesh each node has a station.
fn mesh(networks: &mut OrdMap<String, Network>, elsewhere: &Elsewhere, me: &str, vxlan_port: u16) {
    let Some(id) = networks.values().find(|network| network.is_mesh()).map(|network| network.id.clone()) else { return };
    let Some(overlay) = networks.get_mut(&id).and_then(|network| network.overlay.as_mut()) else { return };
    for (node, station) in elsewhere.nodes.values().filter(|node| node.name != me).filter_map(|node| Some((node, node.station.clone()?))) {
        let remote = add_peer(overlay, node, vxlan_port);
        overlay.stations.insert(station, remote);
    }
}

fn add_peer(overlay: &mut Overlay, node: &Node, vxlan_port: u16) -> Remote {
    // A network's own port is that of all nodes.
    let port = Some(node.vxlan_port).filter(|port| overlay.port.is_none() && *port != vxlan_port);
    let remote = Remote { ip: node.ip, port };
    if let Err(at) = overlay.peers.binary_search(&remote) {
        overlay.peers.insert(at, remote);
    }
    remote
}
