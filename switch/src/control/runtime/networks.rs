//! Networks are made, planned and removed: in the model and as bridges of the data plane.

use std::time::Duration;

use dataplane::{BridgeConfig, Command, L2Mode, Reply};
use packet::NetworkId;
use serde_json::json;
use weft_control::{ConfigNetwork, L2, Network, Result, api::NetworkCreate};

use super::{Inner, new_id, unavailable};
use crate::{control::publishing::gateway_of, uplink::UplinkCommand};

impl Inner {
    pub(crate) fn create_network(&mut self, request: &NetworkCreate) -> Result<Network> {
        let (model, network) = self.claim_network(request)?;
        let made = self.add_bridge(&network).and_then(|bridge| self.open_wires(&network, bridge)).and_then(|()| self.commit(model));
        if let Err(error) = made {
            self.drop_bridge(&network.id);
            drop(self.release_network(&network));
            return Err(error);
        }
        self.event("network create", json!({ "network": network.name, "id": network.id }));
        Ok(network)
    }

    /// The network that `create_network` would make.
    pub(crate) fn plan_network(&self, request: &NetworkCreate) -> Result<Network> {
        let mut model = self.model.clone();
        let id = model.make_network(&self.scoped(request)?, new_id()?)?;
        model.network(&id).cloned()
    }

    /// Removes the networks that nobody is in and that are `wanted`, but for the default one; gives their names. A shared one that
    /// cannot go now (somebody entered it elsewhere, the store is away) stays, and is the error only if there was nothing else.
    pub(crate) fn prune_networks(&mut self, wanted: impl Fn(&Network) -> bool) -> Result<Vec<String>> {
        let used = self.model.networks_in_use();
        let unused = |network: &&Network| network.name != "bridge" && !used.contains(network.id.as_str()) && wanted(network);
        let unused: Vec<Network> = self.model.networks.values().filter(unused).cloned().collect();
        let mut model = self.model.clone();
        let (mut gone, mut stays) = (Vec::new(), None);
        for network in unused {
            let mut without = model.clone();
            without.remove_network(&network.id)?;
            match self.release_network(&network) {
                Ok(()) => {
                    model = without;
                    gone.push(network);
                }
                Err(error) => {
                    tracing::warn!(network = network.name, %error, "an unused network stays");
                    stays = Some(error);
                }
            }
        }
        if let Some(error) = stays.filter(|_| gone.is_empty()) {
            return Err(error);
        }
        self.commit(model)?;
        for network in &gone {
            self.network_gone(network);
        }
        Ok(gone.into_iter().map(|network| network.name).collect())
    }

    /// What a network was, in the data plane.
    fn network_gone(&mut self, network: &Network) {
        self.drop_bridge(&network.id);
        self.event("network destroy", json!({ "network": network.name, "id": network.id }));
    }

    pub(crate) fn add_bridge(&mut self, network: &Network) -> Result<NetworkId> {
        match self.dataplane.apply(Command::AddBridge(bridge_config(network))).map_err(unavailable)? {
            Reply::Network(bridge) => {
                self.bridges.insert(network.id.clone(), bridge);
                self.serve_network(network, bridge)?;
                Ok(bridge)
            }
            other => Err(unavailable(format!("unexpected answer {other:?}"))),
        }
    }

    /// What leads from a network's bridge elsewhere: to other nodes, or to a LAN.
    pub(crate) fn open_wires(&mut self, network: &Network, bridge: NetworkId) -> Result<()> {
        self.open_tunnel(network, bridge)?;
        self.open_parent(network, bridge)
    }

    pub(crate) fn drop_bridge(&mut self, id: &str) {
        self.close_tunnel(id);
        self.close_parent(id);
        if let Some(bridge) = self.bridges.remove(id) {
            self.resolving.forget(bridge);
            self.balanced.remove(&bridge);
            self.forget_mesh_port(bridge);
            drop(self.dataplane.uplink(UplinkCommand::RemoveNetwork(bridge)));
            drop(self.dataplane.apply(Command::RemoveBridge(bridge)));
        }
    }

    pub(crate) fn remove_network(&mut self, reference: &str) -> Result<Network> {
        let mut model = self.model.clone();
        let network = model.remove_network(reference)?;
        self.release_network(&network)?;
        self.commit(model)?;
        self.network_gone(&network);
        Ok(network)
    }

    /// Removes a configuration of networks; nothing if a network, or nobody, is called so.
    pub(crate) fn remove_config(&mut self, reference: &str) -> Result<Option<ConfigNetwork>> {
        if self.model.network(reference).is_ok() || self.model.config(reference).is_none() {
            return Ok(None);
        }
        let mut model = self.model.clone();
        let config = model.remove_config(reference)?;
        self.commit(model)?;
        Ok(Some(config))
    }
}

/// The data plane's form of a network.
pub(crate) fn bridge_config(network: &Network) -> BridgeConfig {
    BridgeConfig {
        l2: match network.l2 {
            L2::Bridge => L2Mode::Bridge,
            L2::Transparent => L2Mode::Transparent,
            L2::Hub => L2Mode::Hub,
        },
        ageing: Duration::from_secs(u64::from(network.ageing_s)),
        gateway: gateway_of(network),
        ..BridgeConfig::new(&network.name)
    }
}
