//! Networks that are part of a LAN: a device of the host is a port of the network's bridge, so its sandboxes are
//! stations of that LAN, with addresses of its subnet. The LAN's own router is their gateway: weft has no address
//! there, answers for none, translates nothing and publishes nothing.
//!
//! Docker has two drivers for this, macvlan and ipvlan (in the modes that bridge); here they are names of one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{
    api::NetworkCreate,
    error::{Code, ControlError, Result},
    model::{Model, NetnsTarget, Pool, check_ifname},
};

/// Names of the driver; inspect shows the one that was given.
pub const DRIVERS: [&str; 3] = ["lan", "macvlan", "ipvlan"];

/// Docker's driver options.
pub(crate) const PARENT: &str = "parent";
pub(crate) const MACVLAN_MODE: &str = "macvlan_mode";
pub(crate) const IPVLAN_MODE: &str = "ipvlan_mode";
pub(crate) const IPVLAN_FLAG: &str = "ipvlan_flag";

/// Where sandboxes of a LAN ask for names, for they cannot ask its gateway. RFC 3927 section 2.1 reserves this /24: no
/// station gives itself such an address, and no frame for it leaves by the device.
const RESOLVER_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 53);
/// The same where there is no IPv4, in a prefix of ours (RFC 4193).
const RESOLVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0x6566, 0x7400, 0, 0, 0, 0, 0x53);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lan {
    /// The device of the host, or `DEVICE.VLAN`. Without one the network is isolated.
    pub parent: Option<String>,
    /// Addresses of the host on it, when the network was made: no sandbox may have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<IpAddr>,
}

/// The device and the VLAN of a parent such as `eth1.10`, if it means that.
///
/// # Errors
/// When the number is no VLAN's (IEEE 802.1Q table 9-2).
pub fn vlan_of(parent: &str) -> Result<Option<(&str, u16)>> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((device, number)) = parent.rsplit_once('.').filter(|(device, number)| !device.is_empty() && is_number(number)) else { return Ok(None) };
    let vlan = number.parse().ok().filter(|vlan| !number.starts_with('0') && (1..=4094).contains(vlan));
    let vlan = vlan.ok_or_else(|| invalid(parent, format!("-o parent={parent}: the host has no device of that name, and {device} has VLAN 1 to 4094")).hint("eth1.10 is VLAN 10 on eth1"))?;
    Ok(Some((device, vlan)))
}

/// Where sandboxes with addresses of these pools ask for names.
pub(crate) fn resolver(pools: &[Pool]) -> Option<IpAddr> {
    let is_v4 = pools.iter().any(|pool| pool.subnet.is_ipv4());
    (!pools.is_empty()).then_some(if is_v4 { RESOLVER_V4.into() } else { RESOLVER_V6.into() })
}

/// Whether a mode of Docker's drivers is what this one does.
pub(crate) fn check_mode(key: &str, mode: &str) -> Result<()> {
    let (driver, usual, others): (_, _, &[&str]) = match key {
        MACVLAN_MODE => ("macvlan", "bridge", &["private", "vepa", "passthru"]),
        IPVLAN_MODE => ("ipvlan", "l2", &["l3", "l3s"]),
        _ => ("ipvlan", "bridge", &["private", "vepa"]),
    };
    match mode {
        "" => Ok(()),
        mode if mode == usual => Ok(()),
        mode if others.contains(&mode) => Err(invalid(mode, format!("-o {key}={mode}: weft has no {driver} mode {mode:?}: its lan networks are bridges")).hint(format!("say -o {key}={usual}, or leave it out"))),
        mode => Err(invalid(mode, format!("requested {driver} mode '{mode}' is not valid, '{usual}' mode is the {driver} driver default"))),
    }
}

impl Model {
    /// What `request` makes of a network as part of a LAN; `None` for other drivers.
    pub(crate) fn lan_of(&self, request: &NetworkCreate) -> Result<Option<Lan>> {
        let parent = request.parent.as_deref();
        if !request.driver.as_deref().is_some_and(|driver| DRIVERS.contains(&driver)) {
            let mode = [MACVLAN_MODE, IPVLAN_MODE, IPVLAN_FLAG].into_iter().find(|key| request.options.contains_key(*key));
            return match parent.map(|_| PARENT).or(mode) {
                Some(key) => Err(invalid(key, format!("{key} is for lan networks")).hint("add --driver lan (or macvlan, ipvlan), or leave it out")),
                None => Ok(None),
            };
        }
        self.check_unserved(request)?;
        let Some(parent) = parent else { return Ok(Some(Lan::default())) };
        if parent == "lo" {
            return Err(invalid(parent, format!("loopback interface is not a valid {} parent link", request.driver.as_deref().unwrap_or_default())));
        }
        check_ifname(parent)?;
        if !request.internal {
            self.check_parent_is_free(&request.name, parent)?;
        }
        Ok(Some(Lan { parent: Some(parent.into()), host: request.host_addresses.clone() }))
    }

    /// What only a gateway of weft's can do.
    fn check_unserved(&self, request: &NetworkCreate) -> Result<()> {
        let said = [
            ("--dhcp", request.dhcp, "the LAN has its own DHCP server, or none"),
            ("--ra", request.ra, "the LAN's own router advertises"),
            ("--nat", request.nat.is_some(), "nothing is translated"),
            ("--nat-source", !request.nat_source.is_empty(), "nothing is translated"),
            ("--nat-prefix", request.nat_prefix.is_some(), "nothing is translated"),
            ("enable_ip_masquerade", request.masquerade == Some(true), "nothing is translated"),
            ("host_binding_ipv4", request.host_binding.is_some(), "no port is published from it"),
            ("own-addresses", !request.own_addresses.is_empty(), "the gateway is the LAN's"),
        ];
        match said.into_iter().find(|(_, said, _)| *said) {
            Some((what, _, why)) => Err(invalid(what, format!("{what} makes no sense for a lan network: {why}")).hint("leave it out")),
            None => Ok(()),
        }
    }

    /// A device, or a VLAN of one, leads to one network, as in Docker 20.10.
    fn check_parent_is_free(&self, name: &str, parent: &str) -> Result<()> {
        let has_it = |lan: &Lan| lan.parent.as_deref() == Some(parent);
        let other = self.networks.values().find(|other| other.name != name && !other.internal && other.lan.as_ref().is_some_and(has_it));
        if let Some(other) = other {
            let vlan = match vlan_of(parent) {
                Ok(Some((device, _))) => format!("another VLAN of {device}"),
                _ => format!("a VLAN: -o parent={parent}.10"),
            };
            return Err(ControlError::new(Code::Conflict, parent, format!("network {} is already using parent interface {parent}", other.name)).hint(format!("put the sandboxes into that network, or use {vlan}")));
        }
        let attached = self.sandboxes.values().find(|sandbox| sandbox.netns == NetnsTarget::Device(parent.into()));
        match attached {
            Some(sandbox) => Err(ControlError::new(Code::Conflict, parent, format!("device {parent} is already attached as {}", sandbox.name)).hint("take it away with `weft detach`, or use another")),
            None => Ok(()),
        }
    }

    /// What is a port of a lan network is no port of another.
    pub(crate) fn check_is_no_parent(&self, device: &str) -> Result<()> {
        match self.networks.values().find(|network| network.parent() == Some(device)) {
            Some(network) => Err(ControlError::new(Code::Conflict, device, format!("device {device} is already the parent of network {}", network.name)).hint(format!("put the sandboxes into {}, or use another device", network.name))),
            None => Ok(()),
        }
    }
}

fn invalid(subject: impl Into<String>, message: impl Into<String>) -> ControlError {
    ControlError::new(Code::Invalid, subject, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{EndpointCreate, SandboxCreate},
        driver::DriverOptions,
        model::EndpointKind,
    };

    fn lan(name: &str, parent: Option<&str>, subnet: &str) -> NetworkCreate {
        NetworkCreate { name: name.into(), driver: Some("macvlan".into()), parent: parent.map(Into::into), subnets: vec![subnet.parse().unwrap()], ..NetworkCreate::default() }
    }

    fn id(number: u32) -> String {
        format!("{number:064x}")
    }

    #[test]
    fn the_router_is_the_lan_s_and_names_have_an_address_of_their_own() {
        let mut model = Model::default();
        let request = NetworkCreate { gateways: vec!["192.168.88.254".parse().unwrap()], ip_range: Some("192.168.88.128/28".parse().unwrap()), aux_addresses: [("nas".into(), "192.168.88.129".parse().unwrap())].into(), ..lan("l", Some("eth1"), "192.168.88.0/24") };
        model.create_network(&request, id(1)).unwrap();
        let network = model.network("l").unwrap();
        assert_eq!((network.driver.as_str(), network.internal, network.has_router(), network.resolvers()), ("macvlan", false, false, vec![IpAddr::from(RESOLVER_V4)]));
        let sandbox = model.create_sandbox(&SandboxCreate::default(), id(2)).unwrap();
        let endpoint = model.create_endpoint(&sandbox, &EndpointCreate { network: "l".into(), ..EndpointCreate::default() }, id(3), EndpointKind::Tap).unwrap();
        assert_eq!((endpoint.addresses[0].to_string(), endpoint.gateways[0].to_string()), ("192.168.88.130/24".into(), "192.168.88.254".into()));
        assert!(model.publishing_endpoint(model.sandbox(&sandbox).unwrap()).is_none());
        model.create_network(&NetworkCreate { name: "b".into(), ..NetworkCreate::default() }, id(4)).unwrap();
        assert!(model.set_route(&["l".into(), "b".into()], true).unwrap_err().message.contains('l'));
        let again = model.network("l").unwrap().request();
        assert_eq!((again.parent.as_deref(), again.driver.as_deref()), (Some("eth1"), Some("macvlan")));
        // It is the host's neighbour: a server there can be asked.
        model.create_network(&NetworkCreate { name: "d".into(), dns: vec!["192.168.88.1".parse().unwrap()], ..NetworkCreate::default() }, id(5)).unwrap();
    }

    #[test]
    fn what_others_have_is_not_given_away() {
        let mut model = Model::default();
        let request = NetworkCreate { host_addresses: vec!["10.1.0.2".parse().unwrap()], aux_addresses: [("nas".into(), "10.1.0.3".parse().unwrap())].into(), ..lan("a", Some("eth1"), "10.1.0.0/24") };
        model.create_network(&request, id(1)).unwrap();
        let sandbox = model.create_sandbox(&SandboxCreate::default(), id(2)).unwrap();
        for (ip, why) in [("10.1.0.2", "the host's own"), ("10.1.0.3", "nas")] {
            let error = model.create_endpoint(&sandbox, &EndpointCreate { network: "a".into(), ip: Some(ip.parse().unwrap()), ..EndpointCreate::default() }, id(3), EndpointKind::Tap).unwrap_err();
            assert!(error.code == Code::Conflict && error.message.contains(why), "{error}");
        }
        let endpoint = model.create_endpoint(&sandbox, &EndpointCreate { network: "a".into(), ..EndpointCreate::default() }, id(3), EndpointKind::Tap).unwrap();
        assert_eq!(endpoint.addresses[0].to_string(), "10.1.0.4/24");
        assert_eq!(model.network("a").unwrap().request().host_addresses, request.host_addresses);
    }

    #[test]
    fn one_network_a_parent_and_vlans_are_parents() {
        let mut model = Model::default();
        model.create_network(&lan("a", Some("eth1"), "10.1.0.0/24"), id(1)).unwrap();
        model.create_network(&lan("b", Some("eth1.10"), "10.2.0.0/24"), id(2)).unwrap();
        let error = model.create_network(&lan("c", Some("eth1.10"), "10.3.0.0/24"), id(3)).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::Conflict, "network b is already using parent interface eth1.10"));
        assert!(error.hint.unwrap().ends_with("another VLAN of eth1"));
        let error = model.create_network(&lan("c", Some("eth1"), "10.3.0.0/24"), id(3)).unwrap_err();
        assert!(error.hint.unwrap().ends_with("-o parent=eth1.10"));
        // One without a port on it takes nothing.
        model.create_network(&NetworkCreate { internal: true, ..lan("d", Some("eth1"), "10.4.0.0/24") }, id(4)).unwrap();
        model.create_network(&lan("e", None, "10.5.0.0/24"), id(5)).unwrap();
        assert!(model.network("e").unwrap().internal);
        model.create_sandbox(&SandboxCreate { name: Some("dev-eth2".into()), netns: NetnsTarget::Device("eth2".into()), ..SandboxCreate::default() }, id(6)).unwrap();
        assert_eq!(model.create_network(&lan("f", Some("eth2"), "10.6.0.0/24"), id(7)).unwrap_err().code, Code::Conflict);
        for (parent, expected) in [("eth1.10", Some(("eth1", 10))), ("a.b.4094", Some(("a.b", 4094))), ("eth1", None), ("eth1.", None), (".1", None), ("eth1.+1", None), ("eth1.x", None)] {
            assert_eq!(vlan_of(parent).unwrap(), expected, "{parent}");
        }
        for parent in ["eth1.0", "eth1.4095", "eth1.010", "eth1.70000"] {
            let error = vlan_of(parent).unwrap_err();
            assert!(error.message.contains(parent) && error.message.contains("1 to 4094"), "{parent}");
        }
    }

    #[test]
    fn what_the_device_said_stays_with_it() {
        let mut model = Model::default();
        let request = NetworkCreate { mtu: Some(1400), host_addresses: vec!["10.1.0.5".parse().unwrap()], ..lan("l", Some("eth1"), "10.1.0.0/24") };
        model.create_network(&request, id(1)).unwrap();
        let before = model.clone();
        // A file says neither.
        assert_eq!(model.edit_network("l", &lan("l", Some("eth1"), "10.1.0.0/24")).unwrap().differences(), []);
        assert_eq!(model, before);
        let other = NetworkCreate { host_addresses: vec!["10.1.0.6".parse().unwrap()], ..model.network("l").unwrap().patched(&serde_json::json!({ "parent": "eth2" })).unwrap() };
        let after = model.edit_network("l", &other).unwrap().after;
        assert_eq!(after.lan, Some(Lan { parent: Some("eth2".into()), host: other.host_addresses }));
        // A port of another network it cannot be meanwhile.
        let sandbox = model.create_sandbox(&SandboxCreate { name: Some("dev-eth2".into()), netns: NetnsTarget::Device("eth2".into()), ..SandboxCreate::default() }, id(2)).unwrap();
        model.create_network(&NetworkCreate { name: "b".into(), ..NetworkCreate::default() }, id(3)).unwrap();
        let error = model.create_endpoint(&sandbox, &EndpointCreate { network: "b".into(), ..EndpointCreate::default() }, id(4), EndpointKind::Tap).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::Conflict, "device eth2 is already the parent of network l"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let mut model = Model::default();
        let base = || lan("l", Some("eth1"), "10.1.0.0/24");
        for (request, culprit) in [
            (NetworkCreate { driver: None, ..base() }, "parent is for lan"),
            (NetworkCreate { driver: None, parent: None, options: [(MACVLAN_MODE.into(), "bridge".into())].into(), ..base() }, "macvlan_mode is for lan"),
            (NetworkCreate { dhcp: true, ..base() }, "--dhcp"),
            (NetworkCreate { masquerade: Some(true), ..base() }, "enable_ip_masquerade"),
            (NetworkCreate { host_binding: Some([127, 0, 0, 1].into()), ..base() }, "host_binding"),
            (NetworkCreate { parent: Some("lo".into()), ..base() }, "loopback interface is not a valid macvlan parent link"),
            (NetworkCreate { parent: Some("a/b".into()), ..base() }, "a/b"),
            (NetworkCreate { vni: Some(9), ..base() }, "vni"),
        ] {
            let error = model.create_network(&request, id(1)).unwrap_err();
            assert!(error.message.contains(culprit), "{error}");
        }
        let parse = |key: &str, value: &str| DriverOptions::parse(&[(key.to_owned(), value.to_owned())].into());
        assert_eq!(parse(PARENT, "eth1.10").unwrap().parent.as_deref(), Some("eth1.10"));
        for (key, value, culprit) in [(MACVLAN_MODE, "passthru", "no macvlan mode \"passthru\""), (MACVLAN_MODE, "x", "requested macvlan mode 'x' is not valid"), (IPVLAN_MODE, "l3s", "no ipvlan mode \"l3s\""), (IPVLAN_FLAG, "vepa", "no ipvlan mode \"vepa\"")] {
            assert!(parse(key, value).unwrap_err().message.contains(culprit), "{key}={value}");
        }
        for (key, value) in [(MACVLAN_MODE, "bridge"), (IPVLAN_MODE, "l2"), (IPVLAN_FLAG, "bridge"), (MACVLAN_MODE, ""), (PARENT, "")] {
            parse(key, value).unwrap();
        }
    }
}
