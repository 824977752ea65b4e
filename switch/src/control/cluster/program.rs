//! What the cluster changed, carried out: networks that came or went, and where the stations of the others are.

use dataplane::Command;
use packet::{PortId, UnicastMac};
use serde_json::json;
use weft_control::{
    Model, Network, Result,
    overlay::{TunnelChange, changes},
};

use super::super::runtime::Inner;
use crate::tunnel::TunnelCommand;

impl Inner {
    /// Makes `model` the truth, of which only what is the cluster's differs. A network that cannot be opened here is still
    /// known, and tried again.
    pub(super) fn adopt(&mut self, model: Model) {
        let old = self.model.clone();
        // First, since one that came may have the number of one that went.
        for network in old.networks.values().filter(|network| !model.networks.contains_key(&network.id)) {
            self.drop_bridge(&network.id);
            self.event("network destroy", json!({ "network": network.name, "id": network.id }));
        }
        for network in model.networks.values().filter(|network| network.is_global()) {
            if let Err(error) = self.program(old.networks.get(&network.id), network) {
                tracing::error!(network = network.name, %error, "other nodes may not be reached");
            }
        }
        // The store has it, and the data plane: a full disk changes nothing about that.
        if let Err(error) = self.commit(model.clone()) {
            tracing::error!(%error, "what the cluster changed is not saved");
            self.model = model;
            self.serve_names();
        }
        for network in self.model.networks.values().filter(|network| !old.networks.contains_key(&network.id)) {
            if let Some(other) = self.model.networks.values().find(|other| other.name == network.name && other.id != network.id) {
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
        let Some(&port) = self.tunnels.get(&network.id) else {
            // One that cannot be opened says so itself.
            drop(self.open_tunnel(network, bridge));
            return Ok(());
        };
        let (Some(before), Some(after)) = (old.and_then(|old| old.overlay.as_ref()), &network.overlay) else { return Ok(()) };
        changes(before, after, self.udp_port(after)).into_iter().try_for_each(|change| self.carry_out(command(port, change)))?;
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

fn command(port: PortId, change: TunnelChange) -> TunnelCommand {
    match change {
        TunnelChange::AddPeer(at) => TunnelCommand::AddPeer(port, at),
        TunnelChange::RemovePeer(at) => TunnelCommand::RemovePeer(port, at),
        TunnelChange::AddStation(mac, at) => TunnelCommand::AddStation(port, mac, at),
        TunnelChange::RemoveStation(mac) => TunnelCommand::RemoveStation(port, mac),
        TunnelChange::AddNeighbour(ip, mac) => TunnelCommand::AddNeighbour(port, ip, mac),
        TunnelChange::RemoveNeighbour(ip) => TunnelCommand::RemoveNeighbour(port, ip),
    }
}
