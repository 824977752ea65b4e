//! The files that a sandbox finds in its /etc: resolv.conf, hosts, hostname.

use std::{fmt::Write, net::IpAddr};

use ipnetwork::IpNetwork;

use super::options::{HostAddress, MOST_SERVERS};
use crate::model::{Endpoint, Model, Network, Sandbox};

/// Contents by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// `resolv.conf`.
    pub resolv_conf: String,
    /// `hosts`.
    pub hosts: String,
    /// `hostname`.
    pub hostname: String,
}

/// What the host lends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Its resolv.conf.
    pub resolv_conf: String,
    /// Its address, as sandboxes reach it.
    pub address: Option<IpAddr>,
}

const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

impl Files {
    /// The files of a sandbox.
    #[must_use]
    pub fn of(model: &Model, sandbox: &Sandbox, host: &Surroundings) -> Self {
        let own = sandbox.hostname.as_deref().unwrap_or(&sandbox.name);
        Self { resolv_conf: resolv_conf(model, sandbox, host), hosts: hosts(model, sandbox, own, host), hostname: format!("{own}\n") }
    }
}

fn resolv_conf(model: &Model, sandbox: &Sandbox, host: &Surroundings) -> String {
    let mut servers = resolvers(model, sandbox);
    if servers.is_empty() {
        // Nobody here answers: the sandbox asks for itself, and without word of its own whom the host asks.
        if sandbox.names.dns.is_empty() {
            return host.resolv_conf.clone();
        }
        servers.clone_from(&sandbox.names.dns);
    }
    let mut text = format!("# By weft, for {}; written anew when it joins or leaves a network.\n", sandbox.name);
    for server in servers.iter().take(MOST_SERVERS) {
        writeln!(text, "nameserver {server}").ok();
    }
    let defaults = &model.defaults;
    let search = match (&sandbox.names.dns_search[..], &defaults.dns_search[..]) {
        ([], []) => words(&host.resolv_conf, "search"),
        ([], usual) => usual.to_vec(),
        (own, _) => own.to_vec(),
    };
    if !search.is_empty() && search != ["."] {
        writeln!(text, "search {}", search.join(" ")).ok();
    }
    let mut options = if sandbox.names.dns_option.is_empty() { defaults.dns_option.clone() } else { sandbox.names.dns_option.clone() };
    // Names in here have no dots: they are asked for as they are.
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".into());
    }
    writeln!(text, "options {}", options.join(" ")).ok();
    text
}

/// Each network's resolver answers for all networks of the sandbox; those with a way out first.
fn resolvers(model: &Model, sandbox: &Sandbox) -> Vec<IpAddr> {
    let mut networks: Vec<_> = joined(model, sandbox).map(|(network, _)| network).collect();
    networks.sort_by_key(|network| network.internal);
    let mut servers: Vec<IpAddr> = networks.iter().flat_map(|network| network.resolvers()).collect();
    // Those of LANs share one.
    let mut seen = std::collections::BTreeSet::new();
    servers.retain(|server| seen.insert(*server));
    servers
}

fn hosts(model: &Model, sandbox: &Sandbox, own: &str, host: &Surroundings) -> String {
    let mut text = HOSTS.to_owned();
    let mut line = |address: IpAddr, names: &[&str]| {
        let mut seen = Vec::new();
        for name in names {
            if !seen.contains(name) {
                seen.push(*name);
            }
        }
        writeln!(text, "{address}\t{}", seen.join(" ")).ok();
    };
    for address in sandbox.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
        line(address.ip(), &[own, &sandbox.name]);
    }
    for added in &sandbox.names.add_host {
        let address = match added.address {
            HostAddress::Ip(ip) => Some(ip),
            HostAddress::Host => host.address,
        };
        if let Some(address) = address {
            line(address, &[&added.name]);
        }
    }
    for link in sandbox.names.link.iter().chain(sandbox.endpoints.iter().flat_map(|endpoint| &endpoint.link)) {
        let Ok(other) = model.sandbox(&link.sandbox) else { continue };
        for address in shared(sandbox, other) {
            line(address, &[&link.alias, other.hostname.as_deref().unwrap_or(&other.name), &other.name]);
        }
    }
    text
}

/// Addresses of `other` on networks that both are in.
fn shared<'a>(sandbox: &'a Sandbox, other: &'a Sandbox) -> impl Iterator<Item = IpAddr> + 'a {
    let is_shared = |endpoint: &&Endpoint| sandbox.endpoints.iter().any(|own| own.network == endpoint.network);
    other.endpoints.iter().filter(is_shared).flat_map(|endpoint| &endpoint.addresses).map(IpNetwork::ip)
}

fn joined<'a>(model: &'a Model, sandbox: &'a Sandbox) -> impl Iterator<Item = (&'a Network, &'a Endpoint)> {
    sandbox.endpoints.iter().filter_map(|endpoint| Some((model.networks.get(&endpoint.network)?, endpoint)))
}

/// Words of the last line that has `key`, as resolv.conf(5) reads them.
fn words(text: &str, key: &str) -> Vec<String> {
    let mut lines = text.lines().rev().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next() == Some(key)).then(|| words.map(str::to_owned).collect())).unwrap_or_default()
}

/// The servers that a resolv.conf names, as far as they are asked.
#[must_use]
pub fn nameservers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(str::split_whitespace);
    lines.filter_map(|mut words| (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()).take(MOST_SERVERS).collect()
}
