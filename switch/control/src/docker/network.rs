//! `POST /networks/create`.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::Value;

use super::{bad, not_found, read, refuse_others};
use crate::{api::NetworkCreate, driver::DriverOptions, error::Result};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Create {
    name: String,
    driver: String,
    scope: String,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_only: bool,
    config_from: ConfigFrom,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ConfigFrom {
    network: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Ipam {
    driver: String,
    config: Vec<PoolConfig>,
    options: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct PoolConfig {
    subnet: String,
    #[serde(rename = "IPRange")]
    ip_range: String,
    gateway: String,
    auxiliary_addresses: BTreeMap<String, String>,
}

const FIELDS: &[&str] = &["Name", "Driver", "Scope", "Internal", "Attachable", "Ingress", "ConfigOnly", "ConfigFrom", "EnableIPv4", "EnableIPv6", "IPAM", "Options", "Labels", "CheckDuplicate"];

/// What is to be made.
#[derive(Clone, Debug)]
pub enum NetworkRequest {
    /// A network.
    Network(NetworkCreate),
    /// A configuration for networks (`--config-only`).
    Config(NetworkCreate),
}

/// The request for a network.
///
/// # Errors
/// Naming what has no sense or no effect.
pub fn network_request(body: Value) -> Result<NetworkRequest> {
    refuse_others("", &body, FIELDS)?;
    let create: Create = read(body)?;
    let global = match create.scope.as_str() {
        "" => None,
        "local" => Some(false),
        "global" => Some(true),
        other => return Err(bad(format!("weft has no networks of scope {other:?}: there are local and global"))),
    };
    let no_ipam = match create.ipam.driver.as_str() {
        "" | "default" => false,
        "null" => true,
        other => return Err(not_found(format!("plugin \"{other}\" not found: there are the IPAM drivers default and null"))),
    };
    if let Some((key, _)) = create.ipam.options.first_key_value() {
        return Err(bad(format!("IPAM option {key} is not supported")));
    }
    let from = Some(create.config_from.network).filter(|name| !name.is_empty());
    if create.config_only && from.is_some() {
        return Err(bad("a configuration network cannot depend on another configuration network"));
    }
    if create.config_only && (create.ingress || create.internal || create.attachable || !create.scope.is_empty()) {
        return Err(bad("configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported."));
    }
    let mut request = NetworkCreate {
        name: create.name,
        driver: Some(create.driver).filter(|driver| !driver.is_empty() && driver != "default"),
        internal: create.internal,
        global,
        no_ipam,
        ipv6: create.enable_ipv6,
        no_ipv4: create.enable_ipv4 == Some(false),
        labels: create.labels,
        attachable: create.attachable,
        ingress: create.ingress,
        config_from: from,
        ..NetworkCreate::default()
    };
    for pool in &create.ipam.config {
        add_pool(&mut request, pool)?;
    }
    let options: BTreeMap<_, _> = create.options.into_iter().filter(|(key, _)| key != "com.docker.network.enable_ipv6").collect();
    DriverOptions::parse(&options)?.apply(&mut request);
    request.options = options;
    Ok(if create.config_only { NetworkRequest::Config(request) } else { NetworkRequest::Network(request) })
}

fn add_pool(request: &mut NetworkCreate, pool: &PoolConfig) -> Result<()> {
    if pool.subnet.is_empty() && !(pool.gateway.is_empty() && pool.ip_range.is_empty() && pool.auxiliary_addresses.is_empty()) {
        return Err(bad("invalid subnet: a gateway, range or auxiliary address needs its subnet"));
    }
    let network = |text: &str, what: &str| text.parse::<IpNetwork>().map_err(|_| bad(format!("invalid {what} {text:?}: want ADDRESS/BITS")));
    let address = |text: &str, what: &str| text.parse::<IpAddr>().map_err(|_| bad(format!("invalid {what} {text:?}: want an address")));
    if !pool.subnet.is_empty() {
        request.subnets.push(network(&pool.subnet, "subnet")?);
    }
    if !pool.gateway.is_empty() {
        request.gateways.push(address(&pool.gateway, "gateway")?);
    }
    if !pool.ip_range.is_empty() {
        if request.ip_range.is_some() {
            return Err(bad("weft supports one IPRange per network"));
        }
        request.ip_range = Some(network(&pool.ip_range, "ip-range")?);
    }
    for (label, text) in &pool.auxiliary_addresses {
        request.aux_addresses.insert(label.clone(), address(text, "auxiliary address")?);
    }
    Ok(())
}
