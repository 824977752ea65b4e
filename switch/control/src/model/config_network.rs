//! Configurations of networks (`docker network create --config-only`), and networks made from them.

use serde::{Deserialize, Serialize};

use super::{Model, check_object_name};
use crate::{
    api::NetworkCreate,
    error::{Code, ControlError, Result},
    overlay,
};

/// A configuration that networks are made from (`docker network create --config-only`); nobody can join it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigNetwork {
    /// 64 hex digits.
    pub id: String,
    /// Nanoseconds since 1970.
    pub created_ns: u64,
    /// What networks take over.
    pub request: NetworkCreate,
}

impl Model {
    pub(crate) fn check_network_name(&self, name: &str) -> Result<()> {
        check_object_name("network", name)?;
        let taken = self.networks.values().map(|network| &network.name).chain(self.configs.values().map(|config| &config.request.name)).any(|other| other == name);
        if taken || matches!(name, "host" | "none") {
            return Err(ControlError::new(Code::Exists, name, format!("network with name {name} already exists")));
        }
        Ok(())
    }

    /// The configuration of that name, id or beginning of an id.
    #[must_use]
    pub fn config(&self, reference: &str) -> Option<&ConfigNetwork> {
        let is_it = |config: &&ConfigNetwork| config.request.name == reference || (reference.len() >= 3 && config.id.starts_with(reference));
        self.configs.values().find(is_it)
    }

    /// Keeps a configuration. It has no driver: its addresses are tried now, its options by the networks that are made from it.
    ///
    /// # Errors
    /// When the name is taken or a value makes no sense.
    pub fn create_config(&mut self, request: NetworkCreate, id: String, created_ns: u64) -> Result<()> {
        // Another network may have its addresses now and not later.
        Self::default().create_network(&driverless(&request), id.clone())?;
        self.check_network_name(&request.name)?;
        self.configs.insert(id.clone(), ConfigNetwork { id, created_ns, request });
        Ok(())
    }

    /// Removes a configuration that no network has; gives it back.
    ///
    /// # Errors
    /// When there is none, or it is in use.
    pub fn remove_config(&mut self, reference: &str) -> Result<ConfigNetwork> {
        let missing = || ControlError::new(Code::NotFound, reference, format!("no such network: {reference}"));
        let config = self.config(reference).ok_or_else(missing)?;
        let (id, name) = (config.id.clone(), config.request.name.clone());
        if self.networks.values().any(|network| network.config_from.as_ref() == Some(&name)) {
            return Err(ControlError::new(Code::InUse, &name, format!("configuration network {name:?} is in use")).hint("remove the networks that were made from it first"));
        }
        self.configs.remove(&id).ok_or_else(missing)
    }

    /// The request with what its configuration and this node's defaults say.
    ///
    /// # Errors
    /// When there is no such configuration, or the request says itself what is the configuration's.
    pub fn complete(&self, request: &NetworkCreate) -> Result<NetworkCreate> {
        let configured = self.configured(request)?;
        self.defaults.fill(configured.as_ref().unwrap_or(request))
    }

    /// The request with what its configuration says, if it has one.
    fn configured(&self, request: &NetworkCreate) -> Result<Option<NetworkCreate>> {
        let Some(from) = &request.config_from else { return Ok(None) };
        let config = self.config(from).ok_or_else(|| ControlError::new(Code::NotFound, from, format!("configuration network {from:?} not found")))?;
        let says = !request.subnets.is_empty() || !request.gateways.is_empty() || request.ip_range.is_some() || !request.aux_addresses.is_empty() || !request.options.is_empty() || request.ipv6 || request.no_ipv4 || request.no_ipam;
        if says {
            return Err(ControlError::new(Code::Invalid, from, "user specified configurations are not supported if the network depends on a configuration network"));
        }
        let base = config.request.clone();
        let mut labels = base.labels.clone();
        labels.extend(request.labels.clone());
        Ok(Some(NetworkCreate {
            name: request.name.clone(),
            driver: request.driver.clone(),
            global: request.global,
            peers: request.peers.clone(),
            internal: request.internal,
            attachable: request.attachable,
            ingress: request.ingress,
            config_from: Some(base.name.clone()),
            labels,
            ..base
        }))
    }

    pub(crate) fn check_ingress(&self, request: &NetworkCreate) -> Result<bool> {
        if !request.ingress {
            return Ok(false);
        }
        if request.driver.as_deref() != Some(overlay::DRIVER) {
            return Err(ControlError::new(Code::Invalid, &request.name, "an ingress network is an overlay: published ports of services come in by it on each node").hint("add -d overlay, or leave --ingress out"));
        }
        match self.networks.values().find(|network| network.ingress) {
            Some(other) => Err(ControlError::new(Code::Conflict, &other.name, format!("ingress network ({}) is already present", other.name))),
            None => Ok(true),
        }
    }
}

/// What a network of any driver has.
fn driverless(request: &NetworkCreate) -> NetworkCreate {
    let NetworkCreate { name, subnets, gateways, ip_range, aux_addresses, no_ipam, ipv6, no_ipv4, mtu, ifname_prefix, .. } = request.clone();
    NetworkCreate { name, subnets, gateways, ip_range, aux_addresses, no_ipam, ipv6, no_ipv4, mtu, ifname_prefix, ..NetworkCreate::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::{NetworkRequest, network_request};

    fn named(name: &str) -> NetworkCreate {
        NetworkCreate { name: name.into(), ..NetworkCreate::default() }
    }

    #[test]
    fn networks_take_over_what_their_configuration_says() {
        let mut model = Model::default();
        let base = NetworkCreate { subnets: vec!["10.7.0.0/24".parse().unwrap()], mtu: Some(1400), labels: [("a".into(), "1".into())].into(), ..named("base") };
        model.create_config(base, "1".repeat(64), 5).unwrap();
        assert_eq!(model.create_network(&named("base"), "2".repeat(64)).unwrap_err().code, Code::Exists);
        assert!(model.network("base").is_err());
        let from = |name: &str| NetworkCreate { config_from: Some("base".into()), labels: [("b".into(), "2".into())].into(), internal: true, ..named(name) };
        let id = model.create_network(&from("one"), "2".repeat(64)).unwrap();
        let one = &model.networks[&id];
        assert_eq!((one.mtu, one.internal, one.labels.len(), one.pools[0].subnet.to_string(), one.config_from.as_deref()), (1400, true, 2, "10.7.0.0/24".into(), Some("base")));
        assert_eq!(model.create_network(&from("two"), "3".repeat(64)).unwrap_err().code, Code::Conflict);
        for (request, code) in [(NetworkCreate { ipv6: true, ..from("x") }, Code::Invalid), (NetworkCreate { config_from: Some("nope".into()), ..named("x") }, Code::NotFound)] {
            assert_eq!(model.create_network(&request, "4".repeat(64)).unwrap_err().code, code);
        }
        assert_eq!(model.remove_config("base").unwrap_err().code, Code::InUse);
        model.remove_network("one").unwrap();
        assert_eq!(model.remove_config("base").unwrap().id, "1".repeat(64));
        assert_eq!(model.remove_config("base").unwrap_err().code, Code::NotFound);
        let senseless = NetworkCreate { subnets: vec!["10.7.0.1/24".parse().unwrap()], ..named("x") };
        assert!(model.create_config(senseless, "5".repeat(64), 0).is_err());
    }

    /// O7: as the docker command asks, with `bridge` as driver, which a configuration does not have.
    #[test]
    fn options_of_a_configuration_are_for_the_driver_of_its_networks() {
        let mut model = Model::default();
        let mut keep = |name: &str, subnet: &str, options: serde_json::Value| {
            let body = serde_json::json!({ "Name": name, "Driver": "bridge", "ConfigOnly": true, "IPAM": { "Config": [{ "Subnet": subnet }] }, "Options": options });
            let Ok(NetworkRequest::Config(request)) = network_request(body) else { panic!("{name} is no configuration") };
            model.create_config(request, format!("{name:0<64}"), 0).unwrap();
        };
        keep("lan", "192.168.77.0/24", serde_json::json!({ "parent": "eth1.40", "macvlan_mode": "bridge" }));
        keep("wide", "10.98.0.0/24", serde_json::json!({ "encrypted": "" }));
        assert_eq!(model.config("lan").unwrap().request.options["parent"], "eth1.40");
        let mut make = |name: &str, from: &str, driver: &str| {
            let request = NetworkCreate { driver: Some(driver.into()), config_from: Some(from.into()), ..named(name) };
            let id = model.create_network(&request, format!("{name:0<64}"))?;
            model.network(&id).cloned()
        };
        assert!(make("a", "lan", "bridge").unwrap_err().message.contains("parent is for lan networks"));
        assert!(make("a", "wide", "bridge").unwrap_err().message.contains("encrypted is for overlay networks"));
        assert_eq!(make("a", "lan", "macvlan").unwrap().lan.unwrap().parent.as_deref(), Some("eth1.40"));
        let wide = make("b", "wide", "overlay").unwrap();
        assert!(wide.overlay.unwrap().encrypted && wide.options.contains_key("encrypted"));
    }

    #[test]
    fn one_ingress_and_it_is_an_overlay() {
        let mut model = Model::default();
        let ingress = |name: &str, driver: Option<&str>| NetworkCreate { ingress: true, driver: driver.map(str::to_owned), ..named(name) };
        assert_eq!(model.create_network(&ingress("a", None), "1".repeat(64)).unwrap_err().code, Code::Invalid);
        model.create_network(&ingress("a", Some("overlay")), "1".repeat(64)).unwrap();
        assert!(model.network("a").unwrap().ingress);
        assert_eq!(model.create_network(&ingress("b", Some("overlay")), "2".repeat(64)).unwrap_err().code, Code::Conflict);
    }
}
