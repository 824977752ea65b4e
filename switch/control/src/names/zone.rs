//! What the networks of one view know: names to addresses, addresses to names, services.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use crate::{
    cluster::RemoteEndpoint,
    model::{Endpoint, Model, Network, Sandbox},
    publish::Protocol,
};

/// See the module. Names are in lower case; a name may have many addresses (a service: an alias that
/// several endpoints share).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    names: BTreeMap<String, BTreeSet<IpAddr>>,
    pointers: BTreeMap<IpAddr, String>,
    /// Who serves what under a name.
    services: BTreeMap<String, BTreeSet<Service>>,
    /// Addresses in these are ours to know: nobody else is asked about them.
    subnets: BTreeSet<IpNetwork>,
}

/// A port that a sandbox publishes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Service {
    pub(super) is_tcp: bool,
    pub(super) port: u16,
    /// The sandbox's own name.
    pub(super) target: String,
}

/// Digits of an id that are a name, as Docker has them.
const SHORT_ID: usize = 12;

impl Zone {
    /// What is known in these networks, which are given by id.
    #[must_use]
    pub fn of(model: &Model, networks: &BTreeSet<String>) -> Self {
        let mut zone = Self::default();
        for network in networks.iter().filter_map(|id| model.networks.get(id)) {
            let here = model.members(&network.id).map(|(sandbox, endpoint)| Entry::of(sandbox, endpoint));
            let elsewhere = model.remote_members(&network.id).filter(|(_, endpoint)| endpoint.named).map(|(_, endpoint)| Entry::of_remote(endpoint));
            for entry in here.chain(elsewhere) {
                zone.add(network, &entry);
            }
        }
        zone
    }

    fn add(&mut self, network: &Network, entry: &Entry<'_>) {
        // On a LAN others have addresses too.
        if network.lan.is_none() {
            self.subnets.extend(network.pools.iter().map(|pool| pool.subnet));
        }
        if !network.names {
            return;
        }
        for (name, addresses) in entry.vips.iter().filter_map(|name| network.vips.get_key_value(name)) {
            self.names.entry(name.clone()).or_default().extend(addresses);
            self.names.entry(format!("{name}.{}", network.name).to_ascii_lowercase()).or_default().extend(addresses);
            self.pointers.extend(addresses.iter().map(|address| (*address, format!("{name}.{}", network.name))));
        }
        // A name leads to those who can answer.
        if !entry.up {
            return;
        }
        let addresses: Vec<IpAddr> = entry.addresses.iter().map(IpNetwork::ip).collect();
        let own = entry.id.get(..SHORT_ID).into_iter().chain([entry.name]).chain(entry.hostname);
        let aliases = entry.aliases.iter().map(String::as_str).filter(|alias| !entry.vips.iter().any(|vip| vip.eq_ignore_ascii_case(alias)));
        for name in own.chain(aliases) {
            for name in [name.to_owned(), format!("{name}.{}", network.name)] {
                let name = name.to_ascii_lowercase();
                let services = entry.services.iter().map(|(protocol, port)| Service { is_tcp: *protocol == Protocol::Tcp, port: *port, target: entry.name.to_owned() });
                self.services.entry(name.clone()).or_default().extend(services);
                self.names.entry(name).or_default().extend(&addresses);
            }
        }
        let full = format!("{}.{}", entry.name, network.name);
        self.pointers.extend(addresses.into_iter().map(|address| (address, full.clone())));
    }

    /// Whether somebody is called so.
    #[cfg(test)]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(super) fn addresses(&self, name: &str) -> Option<&BTreeSet<IpAddr>> {
        self.names.get(name)
    }

    pub(super) fn pointer(&self, address: IpAddr) -> Option<&str> {
        self.pointers.get(&address).map(String::as_str)
    }

    pub(super) fn is_ours(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(address))
    }

    /// Who serves one of `ports` under a known name.
    pub(super) fn servers<'a>(&'a self, name: &str, is_tcp: bool, ports: &'a [u16]) -> impl Iterator<Item = &'a Service> {
        self.services.get(name).into_iter().flatten().filter(move |service| service.is_tcp == is_tcp && ports.contains(&service.port))
    }
}

/// What an endpoint, on whichever node, is called by.
struct Entry<'a> {
    /// Of the sandbox.
    id: &'a str,
    name: &'a str,
    hostname: Option<&'a str>,
    aliases: &'a [String],
    /// Virtual addresses that it stands behind.
    vips: &'a [String],
    addresses: &'a [IpNetwork],
    services: BTreeSet<(Protocol, u16)>,
    up: bool,
}

impl<'a> Entry<'a> {
    fn of(sandbox: &'a Sandbox, endpoint: &'a Endpoint) -> Self {
        Self {
            id: &sandbox.id,
            name: &sandbox.name,
            hostname: sandbox.hostname.as_deref(),
            aliases: &endpoint.aliases,
            vips: &endpoint.vips,
            addresses: &endpoint.addresses,
            services: sandbox.publishes.iter().map(|published| (published.protocol, published.port)).collect(),
            up: endpoint.up,
        }
    }

    fn of_remote(endpoint: &'a RemoteEndpoint) -> Self {
        Self {
            id: &endpoint.sandbox,
            name: &endpoint.name,
            hostname: endpoint.hostname.as_deref(),
            aliases: &endpoint.aliases,
            vips: &endpoint.vips,
            addresses: &endpoint.addresses,
            services: endpoint.services.clone(),
            up: endpoint.up,
        }
    }
}
