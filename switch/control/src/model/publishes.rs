//! Published ports: where they lead, whether they are free, and how they end.

use std::net::IpAddr;

use super::{Endpoint, Model, Network, Sandbox};
use crate::{
    error::{Code, ControlError, Result},
    publish::{self, Protocol, Published},
};

impl Model {
    /// The endpoint that a sandbox's published ports lead to: its first with an address on a network with a way out.
    #[must_use]
    pub fn publishing_endpoint<'a>(&self, sandbox: &'a Sandbox) -> Option<&'a Endpoint> {
        let able = |endpoint: &&Endpoint| !endpoint.addresses.is_empty() && self.networks.get(&endpoint.network).is_some_and(Network::has_router);
        // Where answers leave by, if that can be.
        let mut by_default = sandbox.endpoints.iter().filter(|endpoint| !endpoint.gateways.is_empty());
        by_default.find(able).or_else(|| sandbox.endpoints.iter().find(able))
    }

    /// Whether another sandbox has that port of the host, even if it is in no network at present that leads there.
    #[must_use]
    pub fn is_published(&self, sandbox_id: &str, host_ip: Option<IpAddr>, host_port: u16, protocol: Protocol) -> bool {
        let is_same = |other: &Published| other.host_port == host_port && other.protocol == protocol && (host_ip.is_none() || other.host_ip.is_none() || host_ip == other.host_ip);
        self.sandboxes.values().any(|other| other.id != sandbox_id && other.publishes.iter().any(is_same))
    }

    /// Takes published ports away: what each of `specs` says, or what leads to that port; gives them back.
    ///
    /// # Errors
    /// When a word makes no sense, or the sandbox has no such port.
    pub fn unpublish(&mut self, reference: &str, specs: &[String]) -> Result<Vec<Published>> {
        let sandbox = self.sandbox(reference)?;
        let (id, mut gone) = (sandbox.id.clone(), Vec::new());
        for spec in specs {
            for request in publish::parse(spec)? {
                let before = gone.len();
                gone.extend(sandbox.publishes.iter().filter(|published| request.is_met_by(published)).cloned());
                if gone.len() == before {
                    return Err(ControlError::new(Code::NotFound, spec, format!("{} does not publish {spec}", sandbox.name)).hint("`weft publish ls` lists what is published"));
                }
            }
        }
        if let Some(sandbox) = self.sandboxes.get_mut(&id) {
            sandbox.publishes.retain(|published| !gone.contains(published));
        }
        Ok(gone)
    }
}
