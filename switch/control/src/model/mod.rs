//! Networks, sandboxes and their endpoints: the desired state, which is data.
//!
//! Each change validates everything first and either happens whole or not at all.

mod addresses;
mod check;
mod config_network;
mod create_endpoint;
mod create_network;
mod default_route;
mod endpoint;
#[cfg(test)]
mod fixtures;
mod index;
mod network;
mod own_ports;
mod publishes;
mod routes;
mod sandbox;
mod subnets;

use std::collections::BTreeSet;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use self::index::Index;
pub(crate) use self::check::{check_ifname, check_object_name};
pub use self::{
    config_network::ConfigNetwork,
    endpoint::{Endpoint, EndpointKind, Vlan, port_name},
    network::{L2, NatPreset, Network, Pool, Storm},
    sandbox::{NetnsTarget, Process, Sandbox},
};
use crate::{
    cluster::{Elsewhere, RemoteEndpoint},
    defaults::Defaults,
    error::{Code, ControlError, Result},
};

/// Everything that is wanted. A copy shares all that did not change since: copying one to try a change on
/// costs the same however much there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// By id.
    pub networks: OrdMap<String, Network>,
    /// By id.
    pub sandboxes: OrdMap<String, Sandbox>,
    /// Pairs of networks, by id, that reach each other through the router; the smaller id first.
    #[serde(default)]
    pub routes: OrdSet<(String, String)>,
    /// What the daemon was told beside.
    #[serde(skip)]
    pub defaults: Defaults,
    /// Configurations of networks, by id.
    #[serde(default, skip_serializing_if = "OrdMap::is_empty")]
    pub configs: OrdMap<String, ConfigNetwork>,
    #[serde(skip)]
    pub(crate) index: Index,
    /// What other nodes of the cluster have.
    #[serde(default)]
    pub elsewhere: Elsewhere,
}

impl Model {
    /// The network of that name, id or unique id prefix.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn network(&self, reference: &str) -> Result<&Network> {
        let found = resolve(reference, &self.networks, |name| self.networks.values().find(|network| network.name == name));
        found.map_err(|several| missing("network", reference, several, "`weft network ls` lists them"))
    }

    /// The sandbox of that name, id or unique id prefix.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn sandbox(&self, reference: &str) -> Result<&Sandbox> {
        let found = resolve(reference, &self.sandboxes, |name| self.index.named(&self.sandboxes, name));
        found.map_err(|several| missing("sandbox", reference, several, "`weft ps` lists them"))
    }

    /// The endpoint whose port has that name (`SANDBOX:IFNAME`), with its sandbox.
    ///
    /// # Errors
    /// When there is none, or it is a network's own.
    pub fn port(&self, name: &str) -> Result<(&Sandbox, &Endpoint)> {
        let all = self.sandboxes.values().flat_map(|sandbox| sandbox.endpoints.iter().map(move |endpoint| (sandbox, endpoint)));
        let mut found = all.filter(|(sandbox, endpoint)| port_name(sandbox, endpoint) == name || (endpoint.id.starts_with(name) && name.len() >= 6));
        found.next().ok_or_else(|| self.own_port(name).unwrap_or_else(|| missing("port", name, false, "`weft port ls` lists them")))
    }

    /// Endpoints of a network, with their sandboxes.
    pub fn members<'a>(&'a self, network: &'a str) -> impl Iterator<Item = (&'a Sandbox, &'a Endpoint)> {
        self.index.around(&self.sandboxes, network).flat_map(move |sandbox| sandbox.endpoints.iter().filter(move |endpoint| endpoint.network == network).map(move |endpoint| (sandbox, endpoint)))
    }

    /// Ids of the networks that have endpoints, on this node or another.
    #[must_use]
    pub fn networks_in_use(&self) -> BTreeSet<&str> {
        let here = self.sandboxes.values().flat_map(|sandbox| &sandbox.endpoints).map(|endpoint| endpoint.network.as_str());
        here.chain(self.elsewhere.endpoints.values().map(|endpoint| endpoint.network.as_str())).collect()
    }

    /// Brings the index of sandboxes up to date, for those that only read.
    pub fn refresh(&mut self) {
        self.index.refresh(&self.sandboxes);
    }

    /// Endpoints of a network on other nodes, by id.
    pub fn remote_members<'a>(&'a self, network: &'a str) -> impl Iterator<Item = (&'a String, &'a RemoteEndpoint)> {
        self.elsewhere.endpoints.iter().filter(move |(_, endpoint)| endpoint.network == network)
    }

    /// Somebody is in a network, on this node or another.
    #[must_use]
    pub fn is_used(&self, network: &str) -> bool {
        self.members(network).next().is_some() || self.remote_members(network).next().is_some()
    }

    /// Whether the network is the cluster's.
    #[must_use]
    pub fn is_global(&self, network: &str) -> bool {
        self.networks.get(network).is_some_and(Network::is_global)
    }
}

/// By id, by name, by the beginning of an id, in this order.
fn resolve<'a, T>(reference: &str, all: &'a OrdMap<String, T>, named: impl Fn(&str) -> Option<&'a T>) -> std::result::Result<&'a T, bool> {
    if let Some(exact) = all.get(reference).or_else(|| named(reference)) {
        return Ok(exact);
    }
    let mut by_prefix = all.range(reference.to_owned()..).take_while(|(id, _)| reference.len() >= 3 && id.starts_with(reference));
    match (by_prefix.next(), by_prefix.next()) {
        (Some((_, only)), None) => Ok(only),
        (found, _) => Err(found.is_some()),
    }
}

fn missing(kind: &str, reference: &str, several: bool, hint: &str) -> ControlError {
    let message = if several { format!("{reference:?} is the beginning of several {kind} ids") } else { format!("no such {kind}: {reference}") };
    ControlError::new(Code::NotFound, reference, message).hint(hint)
}

fn invalid(subject: impl Into<String>, message: impl Into<String>) -> ControlError {
    ControlError::new(Code::Invalid, subject, message)
}

fn yes() -> bool {
    true
}
