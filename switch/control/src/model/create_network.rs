//! Makes networks, once all that was asked is found to make sense, and removes them.

use std::{collections::BTreeMap, net::IpAddr};

use super::{L2, Model, Network, check_ifname, check::check_mtu, invalid, missing, subnets::dhcp_range};
use crate::{
    api::NetworkCreate,
    driver,
    error::{Code, ControlError, Result},
    ipam,
    names::NameOptions,
    overlay::Overlay,
};

const MTU_DEFAULT: u32 = 1500;
const AGEING_DEFAULT_S: u32 = 300;

impl Model {
    /// Makes a network; gives its id.
    ///
    /// # Errors
    /// When the name is taken or a value makes no sense.
    pub fn create_network(&mut self, request: &NetworkCreate, id: String) -> Result<String> {
        self.make_network(&self.complete(request)?, id)
    }

    /// The same of a request that was made complete.
    ///
    /// # Errors
    /// When the name is taken or a value makes no sense.
    pub fn make_network(&mut self, request: &NetworkCreate, id: String) -> Result<String> {
        self.check_network_name(&request.name)?;
        let driver = request.driver.as_deref().unwrap_or("bridge");
        driver::check_name(driver)?;
        NameOptions { dns: request.dns.clone(), ..NameOptions::default() }.check()?;
        self.check_dns(&request.dns)?;
        let overlay = self.overlay_of(request)?;
        let lan = self.lan_of(request)?;
        let mtu = check_mtu(request.mtu.or_else(|| overlay.as_ref().map(Overlay::mtu)).unwrap_or(MTU_DEFAULT))?;
        if let Some(most) = overlay.as_ref().map(|overlay| vxlan::mtu_most(overlay.encrypted)).filter(|most| mtu > u32::from(*most)) {
            return Err(invalid(mtu.to_string(), format!("MTU {mtu} is more than a datagram between nodes holds ({most})")));
        }
        // Each node chooses for itself, and all must choose the same.
        let shared = overlay.as_ref().map(|overlay| format!("{:010x}", overlay.vni));
        let pools = self.pools_of(request, shared.as_deref().unwrap_or(&id))?;
        let dhcp_range = dhcp_range(request, &pools)?;
        if request.ra && (request.l2 != L2::Bridge || pools.iter().all(|pool| pool.subnet.is_ipv4())) {
            return Err(invalid(&request.name, "router advertisements want a bridge network with an IPv6 subnet").hint("add --ipv6"));
        }
        for (label, address) in &request.aux_addresses {
            if !pools.iter().any(|pool| ipam::is_usable(pool.subnet, *address)) {
                return Err(invalid(label, format!("auxiliary address {label}={address} is not in the network's subnet")));
            }
        }
        if let Some(ip) = request.own_addresses.iter().find(|ip| !pools.iter().any(|pool| ipam::is_usable(pool.subnet, **ip))) {
            return Err(invalid(ip.to_string(), format!("the gateway's further address {ip} is not in the network's subnet")));
        }
        if let Some(ip) = request.nat_source.iter().find(|ip| ip.is_multicast() || ip.is_loopback() || ip.is_unspecified() || pools.iter().any(|pool| pool.subnet.contains(**ip))) {
            return Err(invalid(ip.to_string(), format!("--nat-source {ip}: no address outside")));
        }
        if let Some(prefix) = request.nat_prefix {
            let ip = prefix.network();
            if ip.is_multicast() || ip.is_unicast_link_local() || ip.is_loopback() || ip.is_unspecified() {
                return Err(invalid(prefix.to_string(), format!("--nat-prefix {prefix}: no router forwards to such addresses")));
            }
            if let Some(other) = self.networks.values().find(|other| other.nat_prefix.is_some_and(|taken| taken.contains(ip) || prefix.contains(taken.network()))) {
                return Err(ControlError::new(Code::Conflict, prefix.to_string(), format!("--nat-prefix {prefix} overlaps with that of network {}", other.name)));
            }
        }
        if let Some(prefix) = request.nat_prefix
            && !pools.iter().any(|pool| pool.subnet.is_ipv6() && pool.subnet.prefix() == prefix.prefix() && prefix.prefix() <= 64)
        {
            return Err(invalid(prefix.to_string(), format!("--nat-prefix {prefix}: the network needs an IPv6 subnet of the same length, at most /64")));
        }
        if let Some(ifname) = &request.ifname_prefix {
            check_ifname(&format!("{ifname}0"))?;
        }
        let network = Network {
            id: id.clone(),
            name: request.name.clone(),
            driver: driver.into(),
            l2: request.l2,
            mtu,
            internal: request.internal || lan.as_ref().is_some_and(|lan| lan.parent.is_none()),
            ageing_s: request.ageing_s.unwrap_or(AGEING_DEFAULT_S),
            pools,
            aux_addresses: request.aux_addresses.clone(),
            own_addresses: request.own_addresses.clone(),
            vips: BTreeMap::new(),
            labels: request.labels.clone(),
            masquerade: request.masquerade.unwrap_or(lan.is_none()),
            nat: request.nat,
            nat_source: request.nat_source.clone(),
            nat_prefix: request.nat_prefix,
            host_binding: request.host_binding,
            ifname_prefix: request.ifname_prefix.clone(),
            isolated_default: request.isolated_default,
            storm: request.storm,
            dhcp_range,
            ra: request.ra,
            names: request.names.unwrap_or(true),
            dns: request.dns.clone(),
            overlay,
            lan,
            options: request.options.clone(),
            attachable: request.attachable,
            ingress: self.check_ingress(request)?,
            config_from: request.config_from.clone(),
            created_ns: 0,
        };
        self.networks.insert(id.clone(), network);
        Ok(id)
    }

    /// Servers are asked by the host, which is in none of our networks, but may be on a LAN.
    pub(super) fn check_dns(&self, servers: &[IpAddr]) -> Result<()> {
        for network in self.networks.values().filter(|network| network.lan.is_none()) {
            if let Some(server) = servers.iter().find(|server| network.pools.iter().any(|pool| pool.subnet.contains(**server))) {
                return Err(invalid(server.to_string(), format!("--dns {server}: the host asks it, and does not reach network {}, where it is", network.name)).hint("publish its port 53 on an address of the host, and give that"));
            }
        }
        Ok(())
    }

    /// Removes a network that nobody is in; gives it back.
    ///
    /// # Errors
    /// When there is none, or it is in use.
    pub fn remove_network(&mut self, reference: &str) -> Result<Network> {
        if matches!(reference, "bridge" | "host" | "none") {
            return Err(ControlError::new(Code::Conflict, reference, format!("{reference} is a pre-defined network and cannot be removed")));
        }
        let network = self.network(reference)?;
        let members: Vec<_> = self.members(&network.id).map(|(sandbox, _)| sandbox.name.clone()).chain(self.remote_members(&network.id).map(|(_, endpoint)| endpoint.described())).collect();
        if !members.is_empty() {
            return Err(ControlError::new(Code::Conflict, &network.name, format!("network {} has active endpoints: {}", network.name, members.join(", ")))
                .hint("remove or disconnect them first"));
        }
        let id = network.id.clone();
        self.drop_routes(&id);
        self.networks.remove(&id).ok_or_else(|| missing("network", reference, false, ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::{id, model_with, net};

    #[test]
    fn refusals_name_the_culprit_and_change_nothing() {
        let mut model = model_with(net("10.0.0.0/29"));
        let before = serde_json::to_string(&model).unwrap();
        let gateway = NetworkCreate { name: "x".into(), subnets: vec!["10.1.0.0/24".parse().unwrap()], gateways: vec!["10.2.0.1".parse().unwrap()], ..NetworkCreate::default() };
        for (request, culprit) in [
            (NetworkCreate { name: "net".into(), ..NetworkCreate::default() }, "net"),
            (NetworkCreate { name: "a/b".into(), ..NetworkCreate::default() }, "a/b"),
            (NetworkCreate { name: "x".into(), subnets: vec!["10.0.0.0/8".parse().unwrap()], ..NetworkCreate::default() }, "10.0.0.0/8"),
            (NetworkCreate { name: "x".into(), subnets: vec!["10.1.0.7/24".parse().unwrap()], ..NetworkCreate::default() }, "10.1.0.7/24"),
            (NetworkCreate { name: "x".into(), mtu: Some(10), ..NetworkCreate::default() }, "MTU 10"),
            (NetworkCreate { name: "x".into(), driver: Some("foo".into()), ..NetworkCreate::default() }, "foo"),
            (NetworkCreate { no_ipam: true, subnets: Vec::new(), ..gateway.clone() }, "no gateway"),
            (NetworkCreate { no_ipam: true, gateways: Vec::new(), ..gateway.clone() }, "no subnet"),
            (NetworkCreate { name: "x".into(), no_ipam: true, ip_range: Some("10.1.0.0/25".parse().unwrap()), ..NetworkCreate::default() }, "no ip-range"),
            (gateway, "10.2.0.1"),
        ] {
            let error = model.create_network(&request, id(8)).unwrap_err();
            assert!(error.message.contains(culprit), "{error}");
        }
        assert_eq!(serde_json::to_string(&model).unwrap(), before);
    }

    #[test]
    fn dhcp_and_advertisements_want_something_to_give() {
        let mut model = Model::default();
        let range = |range: &str| NetworkCreate { dhcp: true, dhcp_range: Some(range.parse().unwrap()), ..net("10.0.0.0/24") };
        for (request, culprit) in [
            (NetworkCreate { dhcp: false, ..range("10.0.0.128/25") }, "--dhcp"),
            (range("10.0.1.0/25"), "10.0.1.0/25"),
            (range("10.0.0.1/25"), "host bits"),
            (range("10.0.0.255/32"), "no host"),
            (range("fd00::/64"), "fd00::/64"),
            (NetworkCreate { dhcp: true, ..net("10.0.0.0/30") }, "no host"),
            (NetworkCreate { dhcp: true, ..net("10.0.0.0/31") }, "too small"),
            (NetworkCreate { dhcp: true, ..net("fd00::/64") }, "IPv4"),
            (NetworkCreate { dhcp: true, l2: L2::Hub, ..net("10.0.0.0/24") }, "bridge network"),
            (NetworkCreate { ra: true, ..net("10.0.0.0/24") }, "IPv6"),
        ] {
            let error = model.create_network(&request, id(1)).unwrap_err();
            assert!(error.message.contains(culprit), "{error}");
        }
        model.create_network(&NetworkCreate { dhcp: true, ra: true, ipv6: true, ..net("10.0.0.0/24") }, id(1)).unwrap();
        // A state from before there was DHCP reads as one without it.
        let mut saved = serde_json::to_value(model.network("net").unwrap()).unwrap();
        for field in ["dhcp_range", "ra"] {
            assert!(saved.as_object_mut().unwrap().remove(field).is_some());
        }
        let network: Network = serde_json::from_value(saved).unwrap();
        assert_eq!((network.dhcp_range, network.ra), (None, false));
    }
}
