//! Who has which address: IP addresses are chosen or checked, MAC addresses made or checked.

use std::{collections::BTreeSet, net::IpAddr};

use ipnetwork::IpNetwork;
use packet::{Mac, UnicastMac};

use super::{Model, Network, invalid, subnets::join};
use crate::{
    error::{Code, ControlError, Result},
    ipam,
};

impl Model {
    /// What nobody else may have.
    pub(super) fn used_addresses(&self, network: &Network) -> BTreeSet<IpAddr> {
        let members = self.members(&network.id).flat_map(|(_, endpoint)| endpoint.addresses.iter().map(IpNetwork::ip));
        let own = network.pools.iter().map(|pool| pool.gateway).chain(network.aux_addresses.values().chain(&network.own_addresses).copied());
        let others = self.remote_members(&network.id).flat_map(|(_, endpoint)| endpoint.addresses.iter().map(IpNetwork::ip));
        members.chain(others).chain(own).chain(network.host_addresses().iter().copied()).chain(network.vips.values().flatten().copied()).collect()
    }

    pub(super) fn choose_addresses(&self, network: &Network, asked: [Option<IpAddr>; 2]) -> Result<Vec<IpNetwork>> {
        let used = self.used_addresses(network);
        for address in asked.into_iter().flatten() {
            if let Some((_, endpoint)) = self.remote_members(&network.id).find(|(_, endpoint)| endpoint.addresses.iter().any(|taken| taken.ip() == address)) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is already in use by {}", endpoint.described())));
            }
            if let Some((sandbox, _)) = self.members(&network.id).find(|(_, endpoint)| endpoint.addresses.iter().any(|taken| taken.ip() == address)) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is already in use by {}", sandbox.name)));
            }
            if let Some((label, _)) = network.aux_addresses.iter().find(|(_, aux)| **aux == address) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is kept for {label} (--aux-address) in network {}", network.name)));
            }
            if network.host_addresses().contains(&address) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is the host's own on the device of network {}", network.name)));
            }
            if let Some(name) = network.vip_at(address) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is the virtual address of service {name} in network {}", network.name)));
            }
            if !network.pools.iter().any(|pool| ipam::is_usable(pool.subnet, address)) {
                return Err(invalid(address.to_string(), format!("address {address} is not a host address in network {} ({})", network.name, join_pools(network))));
            }
            if let Some(range) = network.dhcp_range.filter(|range| range.contains(address)) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is in the range {range} that DHCP hands out in network {}", network.name))
                    .hint("choose one outside, or another --dhcp-range"));
            }
        }
        let mut chosen = Vec::new();
        for pool in &network.pools {
            let wanted = asked.into_iter().flatten().find(|address| address.is_ipv4() == pool.subnet.is_ipv4());
            if let Some(address) = wanted.filter(|address| *address == pool.gateway || network.own_addresses.contains(address)) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is the gateway of network {}", network.name)));
            }
            let address = wanted.or_else(|| ipam::next_free(pool.range, network.dhcp_range, pool.cursor, &used)).ok_or_else(|| {
                ControlError::new(Code::Exhausted, &network.name, format!("no free address in network {} ({})", network.name, pool.range)).hint("remove endpoints, or make a larger network")
            })?;
            chosen.extend(IpNetwork::new(address, pool.subnet.prefix()));
        }
        Ok(chosen)
    }

    pub(super) fn check_mac(&self, text: &str, network: &Network) -> Result<Mac> {
        let mac: Mac = text.parse().map_err(|error| invalid(text, format!("{text}: {error}")))?;
        if UnicastMac::new(mac).is_none() {
            return Err(invalid(text, format!("{mac} is a multicast address (or zero): no station may have it")).hint("the second hex digit of a station's address is even"));
        }
        if let Some((sandbox, _)) = self.members(&network.id).find(|(_, endpoint)| endpoint.mac == mac.to_string()) {
            return Err(ControlError::new(Code::Conflict, text, format!("MAC address {mac} is already in use by {}", sandbox.name)));
        }
        if let Some((_, endpoint)) = self.remote_members(&network.id).find(|(_, endpoint)| endpoint.mac == mac.to_string()) {
            return Err(ControlError::new(Code::Conflict, text, format!("MAC address {mac} is already in use by {}", endpoint.described())));
        }
        Ok(mac)
    }

    /// Addresses of the link are nobody's to hand out: only that two have the same is wrong.
    pub(crate) fn check_link_local(&self, wanted: &[IpAddr], network: &Network) -> Result<()> {
        for address in wanted {
            if let Some((sandbox, _)) = self.members(&network.id).find(|(_, endpoint)| endpoint.link_local.contains(address)) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is already in use by {}", sandbox.name)));
            }
        }
        Ok(())
    }
}

/// 02:42 and the IPv4 address, as Docker does; without one, from the id.
pub(super) fn mac_for(addresses: &[IpNetwork], id: &str) -> UnicastMac {
    let v4 = addresses.iter().find_map(|address| match address {
        IpNetwork::V4(v4) => Some(v4.ip().octets()),
        IpNetwork::V6(_) => None,
    });
    UnicastMac::numbered(v4.unwrap_or_else(|| u32::from_str_radix(&id[..8], 16).unwrap_or(0).to_be_bytes()))
}

fn join_pools(network: &Network) -> String {
    if network.pools.is_empty() {
        return "which has no subnet".into();
    }
    join(&network.pools.iter().map(|pool| pool.subnet).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EndpointKind,
        api::{EndpointCreate, NetworkCreate, SandboxCreate},
        model::fixtures::{id, join_request, model_with, net, sandbox},
    };

    #[test]
    fn first_addresses_are_docker_s() {
        let mut model = model_with(net("172.17.0.0/16"));
        let first = model.create_endpoint(&id(2), &join_request(), id(4), EndpointKind::Tap).unwrap();
        let second = model.create_endpoint(&id(3), &join_request(), id(5), EndpointKind::Tap).unwrap();
        assert_eq!(first.addresses[0].to_string(), "172.17.0.2/16");
        assert_eq!((second.addresses[0].to_string().as_str(), second.mac.as_str()), ("172.17.0.3/16", "02:42:ac:11:00:03"));
        assert_eq!(first.gateways, vec!["172.17.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!((first.ifname.as_str(), first.guard), ("eth0", true));
    }

    #[test]
    fn dhcp_has_its_part_of_the_subnet_to_itself() {
        let mut model = model_with(NetworkCreate { dhcp: true, ..net("10.0.0.0/28") });
        let network = model.network("net").unwrap();
        assert_eq!(network.dhcp_range, Some("10.0.0.12/30".parse().unwrap()));
        assert_eq!(network.dhcp_hosts(), Some(("10.0.0.12".parse().unwrap(), "10.0.0.14".parse().unwrap())));
        let error = model.create_endpoint(&id(2), &EndpointCreate { ip: Some("10.0.0.13".parse().unwrap()), ..join_request() }, id(4), EndpointKind::Tap).unwrap_err();
        assert!(error.message.contains("10.0.0.12/30"), "{error}");
        let mut given = Vec::new();
        for number in 10..30 {
            let sandbox = model.create_sandbox(&SandboxCreate { name: Some(format!("s{number}")), ..sandbox() }, id(number)).unwrap();
            match model.create_endpoint(&sandbox, &join_request(), id(number + 100), EndpointKind::Tap) {
                Ok(endpoint) => given.push(endpoint.addresses[0].ip()),
                Err(error) => assert_eq!(error.code, Code::Exhausted),
            }
        }
        let expected: Vec<IpAddr> = (2..12).map(|last| std::net::Ipv4Addr::new(10, 0, 0, last).into()).collect();
        assert_eq!(given, expected);
    }

    proptest::proptest! {
        #[test]
        fn ipam_and_dhcp_share_no_address(prefix in 24..30_u8, dhcp in (0..64_u32, 0..7_u8), handed in (0..64_u32, 0..7_u8), gateway in 1..64_u32) {
            let subnet = ipnetwork::Ipv4Network::new([10, 0, 0, 0].into(), prefix).unwrap();
            let part = |(at, more): (u32, u8)| {
                let part = ipnetwork::Ipv4Network::new(subnet.nth(at % subnet.size()).unwrap(), (prefix + more).min(32)).unwrap();
                IpNetwork::new(part.network().into(), part.prefix()).unwrap()
            };
            let gateways = subnet.nth(gateway).map(IpAddr::V4).filter(|at| ipam::is_usable(IpNetwork::V4(subnet), *at));
            let request = NetworkCreate { dhcp: true, dhcp_range: Some(part(dhcp)), ip_range: Some(part(handed)), gateways: gateways.into_iter().collect(), ..net(&subnet.to_string()) };
            let mut model = Model::default();
            if model.create_network(&request, id(1)).is_err() {
                return Ok(());
            }
            let (first, last) = model.network("net").unwrap().dhcp_hosts().unwrap();
            for number in 10..300 {
                let sandbox = model.create_sandbox(&SandboxCreate { name: Some(format!("s{number}")), ..sandbox() }, id(number)).unwrap();
                let Ok(endpoint) = model.create_endpoint(&sandbox, &join_request(), id(number + 1000), EndpointKind::Tap) else { break };
                let given = endpoint.addresses[0].ip();
                proptest::prop_assert!(given < first || given > last, "{given} is in {first} to {last}");
            }
        }
    }

    #[test]
    fn a_pool_fills_and_frees() {
        let mut model = model_with(net("10.0.0.0/30"));
        let endpoint = model.create_endpoint(&id(2), &join_request(), id(4), EndpointKind::Tap).unwrap();
        let error = model.create_endpoint(&id(3), &join_request(), id(5), EndpointKind::Tap).unwrap_err();
        assert_eq!(error.code, Code::Exhausted);
        assert_eq!(model.remove_network("net").unwrap_err().code, Code::Conflict);
        assert!(model.remove_endpoint(&id(2), &endpoint.id).is_some());
        assert!(model.create_endpoint(&id(3), &join_request(), id(5), EndpointKind::Tap).is_ok());
    }
}
