//! Virtual addresses: a service's name leads to one address of the network's pool for as long as somebody
//! serves it, whoever that is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use crate::{
    api::EndpointCreate,
    error::{Code, ControlError, Result},
    ipam,
    model::{L2, Model, Network, Sandbox},
    names::options::check_host,
};

/// A virtual address, with who answers for it: what a data plane is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The service.
    pub name: String,
    /// Its address, of one family.
    pub address: IpAddr,
    /// Address of that family and MAC of each endpoint that is up.
    pub endpoints: Vec<(IpAddr, String)>,
}

fn conflict(name: &str, text: String) -> ControlError {
    ControlError::new(Code::Conflict, name, text)
}

/// Names that a sandbox has by itself, wherever it is.
fn own_names(sandbox: &Sandbox) -> impl Iterator<Item = &str> {
    [sandbox.name.as_str()].into_iter().chain(sandbox.hostname.as_deref())
}

fn is(name: &str) -> impl Fn(&str) -> bool {
    move |other| other.eq_ignore_ascii_case(name)
}

impl Network {
    /// Has the virtual addresses that it had before it was changed.
    ///
    /// # Errors
    /// When it has no place for one any longer.
    pub(crate) fn keep_vips(&mut self, before: &Self) -> Result<()> {
        for (name, ip) in before.vips.iter().flat_map(|(name, addresses)| addresses.iter().map(move |ip| (name, *ip))) {
            let is_own = self.pools.iter().any(|pool| pool.gateway == ip) || self.own_addresses.contains(&ip) || self.aux_addresses.values().any(|aux| *aux == ip);
            let is_lent = self.dhcp_range.is_some_and(|range| range.contains(ip));
            if is_own || is_lent || !self.names || self.l2 != L2::Bridge || !self.pools.iter().any(|pool| ipam::is_usable(pool.subnet, ip)) {
                return Err(conflict(name, format!("network {}: service {name} has the virtual address {ip}, which has no place there any longer", before.name))
                    .hint("disconnect the service's endpoints first"));
            }
        }
        self.vips.clone_from(&before.vips);
        Ok(())
    }

    /// Whether somebody's address is a virtual one, and whose.
    pub(crate) fn vip_at(&self, address: IpAddr) -> Option<&str> {
        self.vips.iter().find(|(_, addresses)| addresses.contains(&address)).map(|(name, _)| name.as_str())
    }
}

impl Model {
    /// The services that an endpoint of `sandbox` is to join, in lower case.
    ///
    /// # Errors
    /// When a name means something else on that network, or the network has no gateway to balance.
    pub(crate) fn check_vips(&self, network: &Network, sandbox: &Sandbox, request: &EndpointCreate) -> Result<Vec<String>> {
        let wanted: BTreeSet<String> = request.vips.iter().map(|name| name.to_ascii_lowercase()).collect();
        for name in own_names(sandbox).chain(request.aliases.iter().map(String::as_str)) {
            if let Some((service, _)) = network.vips.iter().find(|(service, _)| is(service)(name)).filter(|(service, _)| !wanted.contains(*service)) {
                return Err(conflict(name, format!("{name} is a service with a virtual address on network {}: {} cannot have that name there", network.name, sandbox.name))
                    .hint(format!("join the service with --vip, or take another name than {service}")));
            }
        }
        for name in &wanted {
            check_host("--vip", name)?;
            self.check_vip_name(network, sandbox, name)?;
        }
        if let Some(name) = wanted.first() {
            let lacks = |what: &str| ControlError::new(Code::Invalid, name, format!("--vip {name}: {what}"));
            if network.l2 != L2::Bridge || network.pools.is_empty() || network.lan.is_some() {
                return Err(lacks(&format!("network {} has no gateway of weft's, which is who answers for virtual addresses", network.name)).hint("use a bridge network with a subnet"));
            }
            if !network.names {
                return Err(lacks(&format!("network {} has no names", network.name)).hint("use a network of your own: `weft network create`"));
            }
            if request.vlan.is_some() {
                return Err(lacks("the gateway is on no VLAN").hint("leave --vlan and --trunk out"));
            }
        }
        Ok(wanted.into_iter().collect())
    }

    fn check_vip_name(&self, network: &Network, sandbox: &Sandbox, name: &str) -> Result<()> {
        if own_names(sandbox).any(is(name)) {
            return Err(conflict(name, format!("--vip {name}: that is the sandbox's own name, which leads to itself alone")).hint("give the service a name of its own with --network-alias"));
        }
        let has = |aliases: &[String], vips: &[String]| aliases.iter().any(|alias| is(name)(alias)) && !vips.iter().any(|vip| vip == name);
        let here = self.members(&network.id).map(|(member, endpoint)| (member.name.clone(), own_names(member).any(is(name)), has(&endpoint.aliases, &endpoint.vips)));
        let elsewhere = self.remote_members(&network.id).filter(|(_, endpoint)| endpoint.named);
        let elsewhere = elsewhere.map(|(_, endpoint)| (endpoint.described(), is(name)(&endpoint.name) || endpoint.hostname.as_deref().is_some_and(is(name)), has(&endpoint.aliases, &endpoint.vips)));
        for (member, is_called, is_alias) in here.chain(elsewhere) {
            if is_called {
                return Err(conflict(name, format!("--vip {name}: that is the name of sandbox {member} on network {}", network.name)).hint("give the service another name"));
            }
            if is_alias {
                return Err(conflict(name, format!("--vip {name}: sandbox {member} has that alias on network {} without a virtual address", network.name))
                    .hint("let all of a service join with --vip, or none"));
            }
        }
        Ok(())
    }

    /// Virtual addresses for those of `names` that have none yet; `used` are taken.
    ///
    /// # Errors
    /// When the pool is full.
    pub(crate) fn choose_vips(network: &Network, names: &[String], mut used: BTreeSet<IpAddr>) -> Result<BTreeMap<String, Vec<IpAddr>>> {
        let mut chosen = BTreeMap::new();
        for name in names.iter().filter(|name| !network.vips.contains_key(*name)) {
            let mut addresses = Vec::new();
            for pool in &network.pools {
                let address = ipam::next_free(pool.range, network.dhcp_range, pool.cursor, &used).ok_or_else(|| {
                    ControlError::new(Code::Exhausted, name, format!("no free address for the virtual address of {name} in network {} ({})", network.name, pool.range))
                        .hint("remove endpoints, or make a larger network")
                })?;
                used.insert(address);
                addresses.push(address);
            }
            chosen.insert(name.clone(), addresses);
        }
        Ok(chosen)
    }

    /// Gives back the addresses of services that nobody serves any more; those of shared networks are the cluster's to give back.
    pub fn prune_vips(&mut self) {
        self.refresh();
        let with_services: Vec<String> = self.networks.values().filter(|network| !network.vips.is_empty() && !network.is_global()).map(|network| network.id.clone()).collect();
        for id in with_services {
            let served: BTreeSet<String> = self.members(&id).flat_map(|(_, endpoint)| endpoint.vips.iter().cloned()).collect();
            if let Some(network) = self.networks.get_mut(&id) {
                network.vips.retain(|name, _| served.contains(name));
            }
        }
    }

    /// A name that a sandbox is to have must not be a service's where it is.
    ///
    /// # Errors
    /// When it is.
    pub(crate) fn check_not_a_vip(&self, sandbox: &Sandbox, name: &str) -> Result<()> {
        let networks = sandbox.endpoints.iter().filter_map(|endpoint| self.networks.get(&endpoint.network));
        match networks.into_iter().find(|network| network.vips.keys().any(|service| is(service)(name))) {
            Some(network) => Err(conflict(name, format!("{name} is a service with a virtual address on network {}", network.name))),
            None => Ok(()),
        }
    }

    /// What the data plane is to balance on a network.
    #[must_use]
    pub fn served(&self, network: &Network) -> Vec<Served> {
        let of = |name: &String, address: IpAddr| {
            let end = |addresses: &[IpNetwork], mac: &str| addresses.iter().map(IpNetwork::ip).find(|ip| ip.is_ipv4() == address.is_ipv4()).map(|ip| (ip, mac.to_owned()));
            let here = self.members(&network.id).filter(|(_, endpoint)| endpoint.up && endpoint.vips.contains(name));
            let elsewhere = self.remote_members(&network.id).filter(|(_, endpoint)| endpoint.up && endpoint.vips.contains(name));
            let mut endpoints: Vec<_> = here.filter_map(|(_, endpoint)| end(&endpoint.addresses, &endpoint.mac)).collect();
            endpoints.extend(elsewhere.filter_map(|(_, endpoint)| end(&endpoint.addresses, &endpoint.mac)));
            endpoints.sort();
            Served { name: name.clone(), address, endpoints }
        };
        network.vips.iter().flat_map(|(name, addresses)| addresses.iter().map(move |address| of(name, *address))).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Code, EndpointKind, Model,
        api::{EndpointCreate, NetworkCreate, SandboxCreate},
    };

    fn id(number: u32) -> String {
        format!("{number:064x}")
    }

    fn model(subnet: &str) -> Model {
        let mut model = Model::default();
        model.create_network(&NetworkCreate { name: "lab".into(), subnets: vec![subnet.parse().unwrap()], ..NetworkCreate::default() }, id(1)).unwrap();
        model
    }

    /// A sandbox on the network, of a service or with an alias.
    fn join(model: &mut Model, number: u32, name: &str, vips: &[&str], aliases: &[&str]) -> crate::Result<()> {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut changed = model.clone();
        let sandbox = changed.create_sandbox(&SandboxCreate { name: Some(name.into()), ..SandboxCreate::default() }, id(number))?;
        let request = EndpointCreate { network: "lab".into(), vips: own(vips), aliases: own(aliases), ..EndpointCreate::default() };
        changed.create_endpoint(&sandbox, &request, id(number + 1000), EndpointKind::Tap)?;
        *model = changed;
        Ok(())
    }

    #[test]
    fn an_address_for_as_long_as_somebody_serves() {
        let mut model = model("10.0.0.0/24");
        join(&mut model, 10, "w1", &["web"], &[]).unwrap();
        let address = model.network("lab").unwrap().vips["web"].clone();
        join(&mut model, 11, "w2", &["WEB"], &["other"]).unwrap();
        assert_eq!(model.network("lab").unwrap().vips["web"], address);
        let served = model.served(model.network("lab").unwrap());
        assert_eq!((served.len(), served[0].address, served[0].endpoints.len()), (1, address[0], 2));
        assert!(served[0].endpoints.iter().all(|(ip, _)| *ip != address[0]));
        let endpoint = model.sandbox("w1").unwrap().endpoints[0].clone();
        model.remove_endpoint(&id(10), &endpoint.id);
        model.prune_vips();
        assert_eq!(model.network("lab").unwrap().vips["web"], address, "w2 is left");
        let endpoint = model.sandbox("w2").unwrap().endpoints[0].clone();
        model.remove_endpoint(&id(11), &endpoint.id);
        model.prune_vips();
        assert!(model.network("lab").unwrap().vips.is_empty());
    }

    #[test]
    fn a_pool_may_be_full_of_them() {
        let mut model = model("10.0.0.0/29");
        join(&mut model, 10, "a", &["one"], &[]).unwrap();
        join(&mut model, 11, "b", &["one"], &[]).unwrap();
        // Two addresses of six are left: gateway, a, its service, b.
        let before = model.clone();
        let error = join(&mut model, 12, "c", &["two", "three"], &[]).unwrap_err();
        assert_eq!((error.code, &model), (Code::Exhausted, &before));
        join(&mut model, 12, "c", &["two"], &[]).unwrap();
        let address = model.network("lab").unwrap().vips["two"][0];
        let request = EndpointCreate { network: "lab".into(), ip: Some(address.to_string().parse().unwrap()), ..EndpointCreate::default() };
        let sandbox = model.create_sandbox(&SandboxCreate { name: Some("d".into()), ..SandboxCreate::default() }, id(13)).unwrap();
        let error = model.create_endpoint(&sandbox, &request, id(1013), EndpointKind::Tap).unwrap_err();
        assert!(error.code == Code::Conflict && error.message.contains("two"), "{error}");
        assert_eq!(join(&mut model, 14, "e", &[], &[]).unwrap_err().code, Code::Exhausted);
    }

    #[test]
    fn a_name_means_one_thing() {
        let mut model = model("10.0.0.0/24");
        join(&mut model, 10, "shop", &[], &["db"]).unwrap();
        join(&mut model, 11, "w1", &["web"], &[]).unwrap();
        for (name, vips, aliases, culprit) in [
            ("api", &["api"][..], &[][..], "own name"),
            ("x", &["shop"], &[], "name of sandbox shop"),
            ("x", &["db"], &[], "without a virtual address"),
            ("x", &[], &["web"], "service"),
            ("web", &[], &[], "service"),
            ("x", &["no such name!"], &[], "--vip"),
        ] {
            let error = join(&mut model, 12, name, vips, aliases).unwrap_err();
            assert!(error.message.contains(culprit), "{error}");
        }
        assert!(model.rename_sandbox("shop", "web").unwrap_err().message.contains("service"));
        join(&mut model, 12, "w2", &["web"], &["web", "second"]).unwrap();
    }

    #[test]
    fn an_edit_keeps_them_or_is_refused() {
        let mut model = model("10.0.0.0/24");
        join(&mut model, 10, "w1", &["web"], &[]).unwrap();
        let (vips, request) = (model.network("lab").unwrap().vips.clone(), model.network("lab").unwrap().request());
        model.edit_network("lab", &NetworkCreate { mtu: Some(1400), ..request.clone() }).unwrap();
        assert_eq!(model.network("lab").unwrap().vips, vips);
        let std::net::IpAddr::V4(own) = vips["web"][0] else { panic!("IPv4") };
        for changed in [NetworkCreate { names: Some(false), ..request.clone() }, NetworkCreate { gateways: vec![own.into()], ..request }] {
            let error = model.edit_network("lab", &changed).unwrap_err();
            assert!(error.message.contains("service web"), "{error}");
        }
    }

    #[test]
    fn a_network_must_have_who_answers() {
        for (request, culprit) in [
            (NetworkCreate { l2: crate::L2::Hub, ..NetworkCreate::default() }, "gateway"),
            (NetworkCreate { no_ipam: true, ..NetworkCreate::default() }, "gateway"),
            (NetworkCreate { names: Some(false), ..NetworkCreate::default() }, "names"),
        ] {
            let mut model = Model::default();
            model.create_network(&NetworkCreate { name: "lab".into(), ..request }, id(1)).unwrap();
            let error = join(&mut model, 10, "w1", &["web"], &[]).unwrap_err();
            assert!(error.message.contains(culprit), "{error}");
        }
    }
}
