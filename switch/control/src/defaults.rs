//! What a daemon was told about networks and sandboxes that do not say it themselves.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    api::NetworkCreate,
    driver::{self, DriverOptions},
    error::{Code, ControlError, Result},
    ipam,
};

/// Subnets to choose from: all of `base`, in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPool {
    /// The whole.
    pub base: IpNetwork,
    /// Prefix length of a piece.
    pub size: u8,
}

/// See the module. Not part of the state: it is the daemon's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Where networks without a subnet get theirs from; Docker's when empty.
    pub pools: Vec<AddressPool>,
    /// Driver options of new networks, by driver.
    pub options: BTreeMap<String, BTreeMap<String, String>>,
    /// Domains tried behind a name.
    pub dns_search: Vec<String>,
    /// Options of resolv.conf(5).
    pub dns_option: Vec<String>,
}

impl Defaults {
    /// # Errors
    /// When a pool cannot be cut so, or a driver or option is unknown.
    pub fn check(&self) -> Result<()> {
        for AddressPool { base, size } in &self.pools {
            let longest = if base.is_ipv4() { 30 } else { 126 };
            if base.ip() != base.network() || !(base.prefix()..=longest).contains(size) {
                let want = format!("want a base without host bits, and a size from {} to {longest}", base.prefix());
                return Err(ControlError::new(Code::Invalid, base.to_string(), format!("default-address-pools: base {base} with size {size}: {want}")));
            }
        }
        for (driver, options) in &self.options {
            driver::check_name(driver).map_err(|error| ControlError { code: Code::Invalid, message: format!("default-network-opts: {}", error.message), ..error })?;
            DriverOptions::parse(options).map_err(|error| ControlError { message: format!("default-network-opts: {driver}: {}", error.message), ..error })?;
        }
        Ok(())
    }

    /// Subnets that a network may get, of one family.
    pub(crate) fn subnets(&self, v4: bool) -> Box<dyn Iterator<Item = IpNetwork> + '_> {
        match self.pools.is_empty() {
            true if v4 => Box::new(ipam::default_pools()),
            _ => Box::new(self.pools.iter().filter(move |pool| pool.base.is_ipv4() == v4).flat_map(|pool| ipam::pieces(pool.base, pool.size))),
        }
    }

    /// The request, with the options that its driver's networks have by default.
    pub(crate) fn fill(&self, request: &NetworkCreate) -> Result<NetworkCreate> {
        let mut request = request.clone();
        let more = self.options.get(request.driver.as_deref().unwrap_or("bridge"));
        // As in Docker, the default network has its own keys.
        if let Some(more) = more.filter(|_| request.name != crate::config::DEFAULT_NETWORK) {
            let more: BTreeMap<_, _> = more.iter().filter(|(key, _)| !request.options.contains_key(*key)).map(|(key, value)| (key.clone(), value.clone())).collect();
            DriverOptions::parse(&more)?.apply(&mut request);
            request.options.extend(more);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;

    #[test]
    fn networks_get_what_they_do_not_say() {
        // J4: default-address-pools and default-network-opts.
        let defaults = Defaults {
            pools: vec![AddressPool { base: "10.10.0.0/23".parse().unwrap(), size: 24 }, AddressPool { base: "fd10::/48".parse().unwrap(), size: 64 }],
            options: BTreeMap::from([("bridge".into(), BTreeMap::from([("com.docker.network.driver.mtu".into(), "1300".into())]))]),
            ..Defaults::default()
        };
        defaults.check().unwrap();
        let mut model = Model { defaults, ..Model::default() };
        let mut make = |name: &str, request: NetworkCreate| {
            let id = model.create_network(&NetworkCreate { name: name.into(), ..request }, format!("{name:0>64}"))?;
            let network = &model.networks[&id];
            Ok::<_, ControlError>((network.pools.iter().map(|pool| pool.subnet.to_string()).collect::<Vec<_>>().join(" "), network.mtu))
        };
        assert_eq!(make("bridge", NetworkCreate::default()).unwrap(), ("10.10.0.0/24".into(), 1500));
        assert_eq!(make("a", NetworkCreate { mtu: Some(1400), ipv6: true, ..NetworkCreate::default() }).unwrap(), ("10.10.1.0/24 fd10::/64".into(), 1400));
        assert!(make("b", NetworkCreate::default()).unwrap_err().message.contains("fully subnetted"));
        assert_eq!(make("c", NetworkCreate { subnets: vec!["10.9.0.0/24".parse().unwrap()], ..NetworkCreate::default() }).unwrap(), ("10.9.0.0/24".into(), 1300));
        for (base, size) in [("10.0.0.0/24", 16), ("10.0.0.0/8", 31), ("10.0.0.1/8", 24)] {
            let bad = Defaults { pools: vec![AddressPool { base: base.parse().unwrap(), size }], ..Defaults::default() };
            assert!(bad.check().unwrap_err().message.contains(base));
        }
        let bad = Defaults { options: BTreeMap::from([("bridge".into(), BTreeMap::from([("what".into(), "1".into())]))]), ..Defaults::default() };
        assert!(bad.check().unwrap_err().message.contains("what"));
    }
}
