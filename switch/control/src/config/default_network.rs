//! What the daemon's file says of the default network, in the words of Docker's daemon.json.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    api::NetworkCreate,
    error::{Code, ControlError, Result},
    ipam,
};

/// Name of the network that sandboxes join when they name none.
pub const DEFAULT_NETWORK: &str = "bridge";

/// `[default-network]`, or the keys of that name in daemon.json. What is not said is as Docker has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct DefaultNetwork {
    /// `none`: there is no default network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// The gateway's address with the subnet's length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bip: Option<IpNetwork>,
    /// Part of the subnet that is handed out; without `bip` the subnet itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_cidr: Option<IpNetwork>,
    /// The IPv6 subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_cidr_v6: Option<IpNetwork>,
    /// Where sandboxes' default routes lead; `bip` when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_gateway: Option<Ipv4Addr>,
    /// The same for IPv6; the first address when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_gateway_v6: Option<Ipv6Addr>,
    /// It has IPv6 addresses too.
    pub ipv6: bool,
    /// Largest packet, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Its sandboxes may talk to one another; they may when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icc: Option<bool>,
    /// Its sandboxes may open flows to the outside; they may when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_masq: Option<bool>,
    /// Where its ports are published unless they say otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Its sandboxes know each other by name; they do when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<bool>,
    /// Servers for other names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
}

impl DefaultNetwork {
    /// There is to be none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.bridge.as_deref() == Some("none")
    }

    /// What was said without effect.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let unused = [("fixed-cidr-v6", self.fixed_cidr_v6.is_some()), ("default-gateway-v6", self.default_gateway_v6.is_some())];
        let unused = unused.iter().filter(|(_, said)| *said && !self.ipv6);
        unused.map(|(key, _)| format!("{key}: without effect, because ipv6 is not true")).collect()
    }

    /// The network that is meant.
    ///
    /// # Errors
    /// Naming all keys that contradict each other, and what to do.
    pub fn request(&self) -> Result<NetworkCreate> {
        let mut wrong = Vec::new();
        let mut request = NetworkCreate {
            name: DEFAULT_NETWORK.into(),
            mtu: self.mtu,
            masquerade: self.ip_masq,
            isolated_default: self.icc == Some(false),
            host_binding: self.ip,
            names: self.names,
            dns: self.dns.clone(),
            ipv6: self.ipv6,
            ..NetworkCreate::default()
        };
        if let Some(name) = self.bridge.as_deref().filter(|name| !matches!(*name, "" | "none" | "docker0")) {
            wrong.push(format!("bridge {name}: weft has no bridges of the kernel; leave it out, say \"none\", or put the device into a network with `weft attach NET --dev {name}`"));
        }
        self.v4(&mut request, &mut wrong);
        if self.ipv6 {
            self.v6(&mut request, &mut wrong);
        }
        if wrong.is_empty() {
            return Ok(request);
        }
        Err(ControlError::new(Code::Invalid, DEFAULT_NETWORK, format!("the default network contradicts itself:\n  {}", wrong.join("\n  "))))
    }

    fn v4(&self, request: &mut NetworkCreate, wrong: &mut Vec<String>) {
        let gateway = self.default_gateway.map(IpAddr::V4);
        for (key, network) in [("bip", self.bip), ("fixed-cidr", self.fixed_cidr)] {
            if let Some(network) = network.filter(IpNetwork::is_ipv6) {
                wrong.push(format!("{key} {network}: want IPv4"));
                return;
            }
        }
        let (subnet, key) = match (self.bip, self.fixed_cidr) {
            (Some(bip), fixed) => {
                let subnet = masked(bip);
                if !ipam::is_usable(subnet, bip.ip()) {
                    wrong.push(format!("bip {bip}: not the address of a host in {subnet}"));
                }
                if let Some(fixed) = fixed.filter(|fixed| !is_part(*fixed, subnet)) {
                    wrong.push(format!("fixed-cidr {fixed} is not inside the subnet of bip {bip} ({subnet}): choose a part of {subnet}, or leave bip out, and fixed-cidr is the subnet"));
                }
                request.ip_range = fixed.map(masked).filter(|fixed| *fixed != subnet);
                // Docker's bridge keeps the address that it has when sandboxes are sent to another one.
                request.own_addresses = gateway.filter(|gateway| *gateway != bip.ip()).map(|_| bip.ip()).into_iter().collect();
                request.gateways.push(gateway.unwrap_or(bip.ip()));
                (subnet, format!("the subnet of bip {bip}"))
            }
            (None, Some(fixed)) => {
                request.gateways.extend(gateway);
                (masked(fixed), "fixed-cidr, which is the subnet where there is no bip".into())
            }
            // In whatever subnet it gets.
            (None, None) => return request.gateways.extend(gateway),
        };
        if let Some(gateway) = gateway.filter(|gateway| !ipam::is_usable(subnet, *gateway)) {
            wrong.push(format!("default-gateway {gateway} is not an address in {key} ({subnet}): choose one inside, or leave default-gateway out"));
        }
        request.subnets.push(subnet);
    }

    fn v6(&self, request: &mut NetworkCreate, wrong: &mut Vec<String>) {
        let gateway = self.default_gateway_v6.map(IpAddr::V6);
        request.gateways.extend(gateway);
        let Some(fixed) = self.fixed_cidr_v6 else {
            if let Some(gateway) = gateway {
                wrong.push(format!("default-gateway-v6 {gateway} needs fixed-cidr-v6, a subnet that it is in"));
            }
            return;
        };
        if fixed.is_ipv4() {
            wrong.push(format!("fixed-cidr-v6 {fixed}: want IPv6"));
            return;
        }
        let subnet = masked(fixed);
        if let Some(gateway) = gateway.filter(|gateway| !ipam::is_usable(subnet, *gateway)) {
            wrong.push(format!("default-gateway-v6 {gateway} is not an address in fixed-cidr-v6 ({subnet}): choose one inside, or leave default-gateway-v6 out"));
        }
        request.subnets.push(subnet);
    }
}

/// Without host bits.
fn masked(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

fn is_part(part: IpNetwork, of: IpNetwork) -> bool {
    of.contains(part.network()) && of.contains(part.broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EndpointKind, Model, NetnsTarget, api::{EndpointCreate, SandboxCreate}};

    fn default(text: &str) -> DefaultNetwork {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_whole_one() {
        // J1.
        let said = default(r#"{"bip":"192.168.1.5/24","fixed-cidr":"192.168.1.0/25","default-gateway":"192.168.1.254","mtu":1400}"#);
        let mut model = Model::default();
        let id = model.create_network(&said.request().unwrap(), "a".repeat(64)).unwrap();
        let network = model.networks[&id].clone();
        let pool = &network.pools[0];
        assert_eq!((pool.subnet.to_string(), pool.gateway.to_string(), pool.range.to_string()), ("192.168.1.0/24".into(), "192.168.1.254".into(), "192.168.1.0/25".into()));
        assert_eq!((network.mtu, network.own_addresses), (1400, vec!["192.168.1.5".parse().unwrap()]));
        // The bridge's own address is nobody else's.
        for (count, expected) in ["192.168.1.1", "192.168.1.2", "192.168.1.3", "192.168.1.4", "192.168.1.6"].iter().enumerate() {
            let sandbox = model.create_sandbox(&SandboxCreate { name: Some(format!("s{count}")), netns: NetnsTarget::New, ..SandboxCreate::default() }, format!("{count:064}")).unwrap();
            let endpoint = model.create_endpoint(&sandbox, &EndpointCreate { network: "bridge".into(), ..EndpointCreate::default() }, format!("{count:063}e"), EndpointKind::Tap).unwrap();
            assert_eq!(endpoint.addresses[0].ip().to_string(), *expected);
        }
    }

    #[test]
    fn contradictions_are_named_with_both_keys() {
        // J2: the sample contradicts itself.
        let sample = r#"{"bip":"192.168.1.5/24","fixed-cidr":"10.20.0.0/16","fixed-cidr-v6":"2001:db8::/64","mtu":1500,"default-gateway":"10.20.1.1","default-gateway-v6":"2001:db8:abcd::89"}"#;
        let error = default(sample).request().unwrap_err().message;
        for line in [["fixed-cidr 10.20.0.0/16", "bip 192.168.1.5/24"], ["default-gateway 10.20.1.1", "bip 192.168.1.5/24"]] {
            assert!(error.lines().any(|said| line.iter().all(|part| said.contains(part))), "{error}");
        }
        let without = default(&sample.replace(r#""bip":"192.168.1.5/24","#, ""));
        let request = without.request().unwrap();
        assert_eq!((request.subnets, request.gateways), (vec!["10.20.0.0/16".parse().unwrap()], vec!["10.20.1.1".parse::<IpAddr>().unwrap()]));
        assert_eq!(without.notices().len(), 2, "IPv6 was not asked for");
        let error = DefaultNetwork { ipv6: true, ..without }.request().unwrap_err().message;
        assert!(error.contains("default-gateway-v6 2001:db8:abcd::89") && error.contains("fixed-cidr-v6"), "{error}");
        for (text, part) in [(r#"{"bip":"192.168.1.0/24"}"#, "bip 192.168.1.0/24"), (r#"{"bridge":"br0"}"#, "bridge br0"), (r#"{"bip":"fd00::1/64"}"#, "want IPv4")] {
            assert!(default(text).request().unwrap_err().message.contains(part));
        }
    }
}
