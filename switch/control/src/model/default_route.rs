//! Which endpoint of a sandbox its default route goes by, and who lacks one.

use std::{cmp::Reverse, net::IpAddr};

use super::{Endpoint, Model, Network, Sandbox};
use crate::cluster::WAY_OUT;

impl Model {
    /// The default route of each family goes by one endpoint: of the highest priority, and of those the first
    /// that was made, if its network has a way out. What is not ours keeps the routes that it has.
    pub(super) fn settle_gateways(&mut self, sandbox_id: &str) {
        let Some(sandbox) = self.sandboxes.get_mut(sandbox_id).filter(|sandbox| sandbox.is_ours()) else { return };
        let ways: Vec<Vec<IpAddr>> = sandbox.endpoints.iter().map(|endpoint| self.networks.get(&endpoint.network).map_or_else(Vec::new, ways_out)).collect();
        // Clients of the mesh are answered by the way they came.
        let is_mesh: Vec<bool> = sandbox.endpoints.iter().map(|endpoint| self.networks.get(&endpoint.network).is_some_and(Network::is_mesh)).collect();
        for endpoint in &mut sandbox.endpoints {
            endpoint.gateways.clear();
        }
        for is_v4 in [true, false] {
            let way = |at: usize| ways[at].iter().find(|gateway| gateway.is_ipv4() == is_v4);
            let able = sandbox.endpoints.iter().enumerate().filter(|(at, _)| way(*at).is_some());
            if let Some(at) = able.max_by_key(|(at, endpoint)| (endpoint.gw_priority, is_mesh[*at], Reverse(*at))).map(|(at, _)| at) {
                sandbox.endpoints[at].gateways.extend(way(at));
            }
        }
    }

    /// Only shared networks without a way out of their own, and one of them is to have one.
    #[must_use]
    pub fn lacks_way_out(&self, sandbox: &str) -> bool {
        self.sandboxes.get(sandbox).is_some_and(|sandbox| sandbox.is_ours() && self.wants_way_out(sandbox) && sandbox.endpoints.iter().all(|endpoint| endpoint.gateways.is_empty()))
    }

    fn wants_way_out(&self, sandbox: &Sandbox) -> bool {
        let networks = sandbox.endpoints.iter().filter_map(|endpoint| self.networks.get(&endpoint.network));
        networks.filter(|network| network.is_global()).any(|network| !network.internal)
    }

    fn leads_out(&self, endpoint: &Endpoint) -> bool {
        self.networks.get(&endpoint.network).is_some_and(|network| network.name == WAY_OUT)
    }

    /// Whether an endpoint comes and goes with the shared networks that its sandbox is in.
    pub(crate) fn is_way_out(&self, sandbox: &Sandbox, endpoint: &Endpoint) -> bool {
        self.leads_out(endpoint) && self.wants_way_out(sandbox)
    }

    /// Takes away the endpoint of a sandbox that was only its way out of shared networks, when it is in none any more.
    pub fn remove_idle_way_out(&mut self, sandbox: &str) -> Option<Endpoint> {
        let sandbox = self.sandboxes.get(sandbox).filter(|sandbox| !self.wants_way_out(sandbox))?;
        let asked = |name: &str| sandbox.container.as_ref().is_some_and(|container| container.networks.iter().any(|wanted| wanted.network == name));
        let endpoint = sandbox.endpoints.iter().find(|endpoint| self.leads_out(endpoint)).filter(|_| !asked(WAY_OUT))?.id.clone();
        let id = sandbox.id.clone();
        self.remove_endpoint(&id, &endpoint)
    }
}

fn ways_out(network: &Network) -> Vec<IpAddr> {
    if network.internal || (network.is_global() && !network.is_mesh()) { Vec::new() } else { network.pools.iter().map(|pool| pool.gateway).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Code, EndpointKind,
        api::{EndpointCreate, NetworkCreate, SandboxCreate},
    };

    #[test]
    fn one_default_route_by_priority_then_age() {
        let mut model = Model::default();
        for (name, internal) in [("inside", true), ("a", false), ("b", false), ("c", false)] {
            model.create_network(&NetworkCreate { name: name.into(), internal, ..NetworkCreate::default() }, format!("{name:0>64}")).unwrap();
        }
        let id = model.create_sandbox(&SandboxCreate::default(), "5".repeat(64)).unwrap();
        let by = |model: &Model| -> Vec<String> { model.sandboxes[&id].endpoints.iter().filter(|endpoint| !endpoint.gateways.is_empty()).map(|endpoint| endpoint.ifname.clone()).collect() };
        for (number, (network, gw_priority, way)) in [("inside", 9, ""), ("a", 0, "eth1"), ("b", 0, "eth1"), ("c", 1, "eth3")].into_iter().enumerate() {
            let request = EndpointCreate { network: network.into(), gw_priority, ..EndpointCreate::default() };
            model.create_endpoint(&id, &request, format!("{:064x}", number + 100), EndpointKind::Tap).unwrap();
            assert_eq!(by(&model).join(""), way);
        }
        model.remove_endpoint(&id, &format!("{:064x}", 103)).unwrap();
        assert_eq!(by(&model), ["eth1"]);
        model.remove_endpoint(&id, &format!("{:064x}", 101)).unwrap();
        assert_eq!(by(&model), ["eth2"]);
        let other = model.create_sandbox(&SandboxCreate::default(), "6".repeat(64)).unwrap();
        let request = EndpointCreate { network: "a".into(), link_local: vec!["169.254.1.1".parse().unwrap()], ..EndpointCreate::default() };
        model.create_endpoint(&id, &request, "8".repeat(64), EndpointKind::Tap).unwrap();
        assert_eq!(model.create_endpoint(&other, &request, "9".repeat(64), EndpointKind::Tap).unwrap_err().code, Code::Conflict);
    }
}
