//! What the cluster changed, carried out: networks that came or went, and where the stations of the others are.

use dataplane::Command;
use packet::{PortId, UnicastMac};
use serde_json::json;
use weft_control::{Model, Network, Result, overlay::Overlay};

use super::super::runtime::Inner;
use crate::tunnel::TunnelCommand;

impl Inner {
    /// Makes `model` the truth, of which only what is the cluster's differs. A network that cannot be opened here is still
    /// known, and tried again with the next change.
    pub(super) fn adopt(&mut self, model: Model) {
        let old = self.model.clone();
        for network in model.networks.values().filter(|network| network.is_global()) {
            if let Err(error) = self.program(old.networks.get(&network.id), network) {
                tracing::error!(network = network.name, %error, "no way to the other nodes");
            }
        }
        // The store has it, and the data plane: a full disk changes nothing about that.
        if let Err(error) = self.commit(model.clone()) {
            tracing::error!(%error, "what the cluster changed is not saved");
            self.model = model;
            self.serve_names();
        }
        for network in old.networks.values().filter(|network| !self.model.networks.contains_key(&network.id)).cloned().collect::<Vec<_>>() {
            self.drop_bridge(&network.id);
            self.event("network destroy", json!({ "network": network.name, "id": network.id }));
        }
        for network in self.model.networks.values().filter(|network| !old.networks.contains_key(&network.id)) {
            if let Some(other) = old.networks.values().find(|other| other.name == network.name) {
                tracing::warn!(network = network.name, id = network.id, "a network of this node has the same name ({}): use ids", &other.id[..12]);
            }
            self.event("network create", json!({ "network": network.name, "id": network.id }));
        }
        let own = self.cluster.as_ref().map(|cluster| cluster.config.node.as_str());
        let (before, after) = (&old.elsewhere.nodes, &self.model.elsewhere.nodes);
        let others = |(name, _): &(&String, _)| Some(name.as_str()) != own;
        for (name, node) in after.iter().filter(others).filter(|(name, _)| !before.contains_key(*name)) {
            tracing::info!(ip = %node.ip, "{name} joined");
            self.event("node join", json!({ "node": name, "ip": node.ip }));
        }
        for (name, node) in before.iter().filter(others).filter(|(name, _)| !after.contains_key(*name)) {
            tracing::info!(ip = %node.ip, "{name} left");
            self.event("node leave", json!({ "node": name, "ip": node.ip }));
        }
    }

    fn program(&mut self, old: Option<&Network>, network: &Network) -> Result<()> {
        let bridge = match self.bridges.get(&network.id) {
            Some(bridge) => *bridge,
            None => self.add_bridge(network)?,
        };
        let Some(&port) = self.tunnels.get(&network.id) else { return self.open_tunnel(network, bridge) };
        let (Some(before), Some(after)) = (old.and_then(|old| old.overlay.as_ref()), &network.overlay) else { return Ok(()) };
        changes(port, before, after, after.port.unwrap_or(self.vxlan_port)).into_iter().try_for_each(|change| self.carry_out(change))?;
        // Sandboxes here may remember another station for the address.
        for (ip, mac) in after.neighbours.iter().filter(|(ip, mac)| before.neighbours.get(*ip) != Some(mac)) {
            if let Some(mac) = station(mac) {
                self.dataplane.apply(Command::Announce { port, mac, ip: *ip }).ok();
            }
        }
        Ok(())
    }
}

fn station(mac: &str) -> Option<UnicastMac> {
    mac.parse().ok().and_then(UnicastMac::new)
}

/// In an order in which nobody is sent anywhere unknown: new peers first, old ones last.
fn changes(port: PortId, before: &Overlay, after: &Overlay, udp_port: u16) -> Vec<TunnelCommand> {
    let mut changes: Vec<_> = after.peers.iter().filter(|peer| !before.peers.contains(peer)).map(|peer| TunnelCommand::AddPeer(port, peer.at(udp_port))).collect();
    for (mac, node) in after.stations.iter().filter(|(mac, node)| before.stations.get(*mac) != Some(node)) {
        changes.extend(station(mac).map(|mac| TunnelCommand::AddStation(port, mac, node.at(udp_port))));
    }
    for mac in before.stations.keys().filter(|mac| !after.stations.contains_key(*mac)) {
        changes.extend(station(mac).map(|mac| TunnelCommand::RemoveStation(port, mac)));
    }
    for (ip, mac) in after.neighbours.iter().filter(|(ip, mac)| before.neighbours.get(*ip) != Some(mac)) {
        changes.extend(station(mac).map(|mac| TunnelCommand::AddNeighbour(port, *ip, mac)));
    }
    for ip in before.neighbours.keys().filter(|ip| !after.neighbours.contains_key(*ip)) {
        changes.push(TunnelCommand::RemoveNeighbour(port, *ip));
    }
    changes.extend(before.peers.iter().filter(|peer| !after.peers.contains(peer)).map(|peer| TunnelCommand::RemovePeer(port, peer.at(udp_port))));
    changes
}
