//! Puts sandboxes into networks, and takes them out.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Endpoint, EndpointKind, Model, NetnsTarget, Network, Sandbox, addresses::mac_for, check::check_mtu, check_ifname, invalid, missing};
use crate::{
    api::EndpointCreate,
    error::{Code, ControlError, Result},
    names::options::check_host,
};

impl Model {
    /// Puts a sandbox into a network: checks what was asked and chooses the rest.
    ///
    /// # Errors
    /// When an address is taken, a pool is full or a value makes no sense.
    pub fn create_endpoint(&mut self, sandbox_id: &str, request: &EndpointCreate, id: String, default_kind: EndpointKind) -> Result<Endpoint> {
        self.refresh();
        let network = self.network(&request.network)?.clone();
        let sandbox = self.sandboxes.get(sandbox_id).ok_or_else(|| missing("sandbox", sandbox_id, false, ""))?;
        if sandbox.endpoints.iter().any(|endpoint| endpoint.network == network.id) {
            return Err(ControlError::new(Code::Exists, &sandbox.name, format!("endpoint {} already exists in network {}", sandbox.name, network.name)));
        }
        if sandbox.has_name() {
            self.check_endpoint_name(&network, &sandbox.name)?;
        }
        let device = match &sandbox.netns {
            NetnsTarget::Device(name) => Some(name.clone()),
            _ => None,
        };
        let (kind, ours) = (request.kind.unwrap_or(default_kind), sandbox.is_ours());
        let ifname = device.clone().or_else(|| request.ifname.clone()).unwrap_or_else(|| free_ifname(sandbox, network.ifname_prefix.as_deref().unwrap_or("eth")));
        check_ifname(&ifname)?;
        if sandbox.endpoints.iter().any(|endpoint| endpoint.ifname == ifname) {
            return Err(ControlError::new(Code::Exists, &ifname, format!("{} already has an interface {ifname}", sandbox.name)));
        }
        for alias in &request.aliases {
            check_host("--alias", alias)?;
        }
        device.as_deref().map_or(Ok(()), |device| self.check_is_no_parent(device))?;
        let vips = self.check_vips(&network, sandbox, request)?;
        if let (Some(name), Some(device)) = (vips.first(), &device) {
            return Err(invalid(name, format!("--vip {name}: weft does not know the address of what is behind device {device}")));
        }
        let mtu = check_mtu(request.mtu.unwrap_or(network.mtu))?;
        if let Some(vlan) = &request.vlan {
            vlan.check()?;
        }
        let asked = [request.ip.map(IpAddr::V4), request.ip6.map(IpAddr::V6)];
        let addresses = if device.is_some() { Vec::new() } else { self.choose_addresses(&network, asked)? };
        let mut used = self.used_addresses(&network);
        used.extend(addresses.iter().map(IpNetwork::ip));
        let new_vips = Self::choose_vips(&network, &vips, used)?;
        let mac = match &request.mac {
            Some(text) => self.check_mac(text, &network)?,
            None => mac_for(&addresses, &id).get(),
        };
        self.check_link_local(&request.link_local, &network)?;
        let endpoint = Endpoint {
            id,
            network: network.id.clone(),
            ifname,
            kind: if device.is_some() { EndpointKind::Device } else { kind },
            mac: mac.to_string(),
            addresses,
            gateways: Vec::new(),
            mtu,
            vlan: request.vlan.clone(),
            isolated: request.isolated || network.isolated_default,
            horizon: request.horizon,
            guard: request.guard.unwrap_or(ours),
            aliases: request.aliases.clone(),
            vips,
            storm: network.storm,
            up: true,
            link: request.link.clone(),
            link_local: request.link_local.clone(),
            gw_priority: request.gw_priority,
            sysctls: request.sysctls.clone(),
        };
        if let Some(network) = self.networks.get_mut(&network.id) {
            network.vips.extend(new_vips);
            // Of a shared network all nodes hand out the lowest that is free: what each handed out last would tell nothing.
            let is_global = network.is_global();
            for pool in network.pools.iter_mut().filter(|_| !is_global) {
                let given = endpoint.addresses.iter().find(|address| address.is_ipv4() == pool.subnet.is_ipv4());
                pool.cursor = given.map(IpNetwork::ip).or(pool.cursor);
            }
        }
        if let Some(sandbox) = self.sandboxes.get_mut(sandbox_id) {
            sandbox.endpoints.push(endpoint.clone());
        }
        self.settle_gateways(sandbox_id);
        let settled = self.sandboxes.get(sandbox_id).and_then(|sandbox| sandbox.endpoints.last());
        Ok(settled.cloned().unwrap_or(endpoint))
    }

    /// A name is of one endpoint, whichever node has it.
    pub(crate) fn check_endpoint_name(&self, network: &Network, name: &str) -> Result<()> {
        match self.remote_members(&network.id).find(|(_, endpoint)| endpoint.named && endpoint.name == name) {
            Some((_, endpoint)) => Err(ControlError::new(Code::Exists, name, format!("endpoint with name {name} already exists in network {}", network.name)).hint(format!("it is on node {}", endpoint.node))),
            None => Ok(()),
        }
    }

    /// Takes an endpoint away; gives it back.
    pub fn remove_endpoint(&mut self, sandbox_id: &str, endpoint_id: &str) -> Option<Endpoint> {
        let endpoints = &mut self.sandboxes.get_mut(sandbox_id)?.endpoints;
        let at = endpoints.iter().position(|endpoint| endpoint.id == endpoint_id)?;
        let removed = endpoints.remove(at);
        self.settle_gateways(sandbox_id);
        Some(removed)
    }
}

fn free_ifname(sandbox: &Sandbox, prefix: &str) -> String {
    let names = (0..).map(|number| format!("{prefix}{number}"));
    names.into_iter().find(|name| sandbox.endpoints.iter().all(|endpoint| endpoint.ifname != *name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Vlan, fixtures::{id, join_request, model_with, net}};

    #[test]
    fn refusals_name_the_culprit_and_change_nothing() {
        let mut model = model_with(net("10.0.0.0/29"));
        let before = serde_json::to_string(&model).unwrap();
        for (request, culprit) in [
            (EndpointCreate { mac: Some("01:00:5e:00:00:01".into()), ..join_request() }, "multicast"),
            (EndpointCreate { mac: Some("02:00".into()), ..join_request() }, "02:00"),
            (EndpointCreate { ip: Some("10.0.1.2".parse().unwrap()), ..join_request() }, "10.0.1.2"),
            (EndpointCreate { ip: Some("10.0.0.1".parse().unwrap()), ..join_request() }, "gateway"),
            (EndpointCreate { ifname: Some("1234567890123456".into()), ..join_request() }, "1234567890123456"),
            (EndpointCreate { vlan: Some(Vlan::Access(4095)), ..join_request() }, "4095"),
            (EndpointCreate { network: "nope".into(), ..EndpointCreate::default() }, "nope"),
        ] {
            let error = model.create_endpoint(&id(2), &request, id(8), EndpointKind::Tap).unwrap_err();
            assert!(error.message.contains(culprit), "{error}");
        }
        assert_eq!(serde_json::to_string(&model).unwrap(), before);
    }
}
