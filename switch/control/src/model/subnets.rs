//! The subnets of a network, and what of them is kept for its gateway and for DHCP.

use ipnetwork::IpNetwork;

use super::{L2, Model, Network, Pool, invalid};
use crate::{
    api::NetworkCreate,
    error::{Code, ControlError, Result},
    ipam,
};

impl NetworkCreate {
    /// # Errors
    /// When no family is left, or one is both named and left out.
    pub(crate) fn check_families(&self) -> Result<()> {
        if !self.no_ipv4 {
            return Ok(());
        }
        let refused = |message: String| ControlError::new(Code::Invalid, &self.name, message);
        match self.subnets.iter().find(|subnet| subnet.is_ipv4()) {
            Some(subnet) => Err(refused(format!("subnet {subnet} is of IPv4, which the network is to be without")).hint("leave one of the two out")),
            // Docker's words.
            None if !self.ipv6 && self.subnets.is_empty() => Err(refused("IPv4 or IPv6 must be enabled".into()).hint("add --ipv6; a network without addresses is one with --ipam-driver null")),
            None => Ok(()),
        }
    }
}

impl Model {
    pub(super) fn pools_of(&self, request: &NetworkCreate, id: &str) -> Result<Vec<Pool>> {
        let mut subnets = request.subnets.clone();
        if request.no_ipam {
            let said = [("subnet", !subnets.is_empty()), ("gateway", !request.gateways.is_empty()), ("ip-range", request.ip_range.is_some()), ("aux-address", !request.aux_addresses.is_empty())];
            return match said.iter().find(|(_, said)| *said) {
                Some((what, _)) => Err(invalid(&request.name, format!("a network without IPAM has no {what}: leave one of the two out"))),
                None => Ok(Vec::new()),
            };
        }
        request.check_families()?;
        if subnets.is_empty() && !request.no_ipv4 {
            let free = |pool: &IpNetwork| self.overlapping(*pool).is_none();
            let free = if request.global == Some(true) { ipam::global_pools().find(free) } else { self.defaults.subnets(true).find(free) };
            subnets.push(free.ok_or_else(|| ControlError::new(Code::Exhausted, &request.name, "all predefined address pools have been fully subnetted").hint("give --subnet"))?);
        }
        if request.ipv6 && subnets.iter().all(IpNetwork::is_ipv4) {
            let free = self.defaults.subnets(false).find(|pool| self.overlapping(*pool).is_none());
            subnets.push(free.unwrap_or_else(|| ipam::unique_local(id)));
        }
        if subnets.len() > 2 || (subnets.len() == 2 && subnets[0].is_ipv4() == subnets[1].is_ipv4()) {
            return Err(invalid(&request.name, "at most one IPv4 and one IPv6 subnet per network"));
        }
        for gateway in &request.gateways {
            if !subnets.iter().any(|subnet| ipam::is_usable(*subnet, *gateway)) {
                return Err(invalid(gateway.to_string(), format!("gateway {gateway} is not a host address in the subnet {}", join(&subnets)))
                    .hint("choose one inside, or leave --gateway out"));
            }
        }
        let mut pools = Vec::new();
        for subnet in subnets {
            if subnet.ip() != subnet.network() {
                return Err(invalid(subnet.to_string(), format!("{subnet} has host bits set")).hint(format!("did you mean {}/{}?", subnet.network(), subnet.prefix())));
            }
            if subnet.ip().is_loopback() || subnet.ip().is_multicast() || subnet.ip().is_unspecified() {
                return Err(invalid(subnet.to_string(), format!("{subnet}: no host can have such an address")).hint("want a private one, e.g. 10.9.0.0/24"));
            }
            if let Some(other) = self.overlapping(subnet) {
                return Err(ControlError::new(Code::Conflict, subnet.to_string(), format!("subnet {subnet} overlaps with network {other}"))
                    .hint("choose another --subnet, or remove that network"));
            }
            let range = match request.ip_range {
                Some(range) if range.is_ipv4() == subnet.is_ipv4() => {
                    if !(subnet.contains(range.network()) && subnet.contains(range.broadcast())) {
                        return Err(invalid(range.to_string(), format!("--ip-range {range} is not inside the subnet {subnet}")));
                    }
                    range
                }
                _ => subnet,
            };
            let given = request.gateways.iter().find(|gateway| gateway.is_ipv4() == subnet.is_ipv4());
            let gateway = given.copied().unwrap_or_else(|| ipam::first_usable(subnet));
            pools.push(Pool { subnet, gateway, range, cursor: None });
        }
        Ok(pools)
    }

    fn overlapping(&self, subnet: IpNetwork) -> Option<&str> {
        let taken = |network: &&Network| network.pools.iter().any(|pool| ipam::overlap(pool.subnet, subnet));
        self.networks.values().find(taken).map(|network| network.name.as_str())
    }
}

/// The addresses that only DHCP hands out, if it is wanted.
pub(super) fn dhcp_range(request: &NetworkCreate, pools: &[Pool]) -> Result<Option<IpNetwork>> {
    if !request.dhcp {
        return match request.dhcp_range {
            Some(range) => Err(invalid(range.to_string(), "--dhcp-range is for networks with --dhcp").hint("add --dhcp, or leave it out")),
            None => Ok(None),
        };
    }
    let pool = pools.iter().find(|pool| pool.subnet.is_ipv4()).filter(|_| request.l2 == L2::Bridge);
    let pool = pool.ok_or_else(|| invalid(&request.name, "DHCP wants a bridge network with an IPv4 subnet"))?;
    let range = request.dhcp_range.or_else(|| ipam::upper_quarter(pool.subnet));
    let range = range.ok_or_else(|| invalid(pool.subnet.to_string(), format!("{} is too small for DHCP", pool.subnet)))?;
    if range.ip() != range.network() {
        return Err(invalid(range.to_string(), format!("{range} has host bits set")).hint(format!("did you mean {}/{}?", range.network(), range.prefix())));
    }
    let is_inside = range.is_ipv4() && pool.subnet.contains(range.network()) && pool.subnet.contains(range.broadcast());
    if !is_inside || ipam::host_range(range, pool.subnet).is_none() {
        return Err(invalid(range.to_string(), format!("the DHCP range {range} has no host address in the subnet {}", pool.subnet)));
    }
    Ok(Some(range))
}

pub(super) fn join(subnets: &[IpNetwork]) -> String {
    subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::{id, model_with, net};

    #[test]
    fn without_a_subnet_the_next_free_pool() {
        let mut model = model_with(net("172.17.0.0/16"));
        model.create_network(&NetworkCreate { name: "second".into(), ..NetworkCreate::default() }, id(9)).unwrap();
        assert_eq!(model.network("second").unwrap().pools[0].subnet.to_string(), "172.18.0.0/16");
    }

    #[test]
    fn a_network_without_ipv4_wants_ipv6() {
        let mut model = crate::Model::default();
        let without = |subnets: &[&str], ipv6| NetworkCreate { name: "n".into(), no_ipv4: true, ipv6, subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(), ..NetworkCreate::default() };
        for (request, why) in [(without(&[], false), "IPv4 or IPv6 must be enabled"), (without(&["10.9.0.0/24"], true), "subnet 10.9.0.0/24 is of IPv4")] {
            let error = model.create_network(&request, id(1)).unwrap_err();
            assert!(error.code == Code::Invalid && error.message.contains(why), "{error}");
        }
        for (number, request) in [(2, without(&[], true)), (3, without(&["fd09::/64"], false))] {
            let id = model.create_network(&NetworkCreate { name: format!("n{number}"), ..request }, id(number)).unwrap();
            let pools = &model.network(&id).unwrap().pools;
            assert!(pools.len() == 1 && pools[0].subnet.is_ipv6(), "{pools:?}");
        }
        // IPv4 can still come to it.
        let both = model.network("n3").unwrap().patched(&serde_json::json!({ "subnets": ["10.9.0.0/24", "fd09::/64"] })).unwrap();
        assert_eq!(model.edit_network("n3", &both).unwrap().after.pools.len(), 2);
    }
}
