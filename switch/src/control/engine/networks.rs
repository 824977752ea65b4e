//! Networks in Docker's words.

use std::{collections::BTreeMap, net::IpAddr};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weft_control::{
    Code, DriverOptions, Network, Sandbox,
    api::{EndpointCreate, NetworkCreate, VIP_OPTION},
};

use super::{
    containers::find as find_container,
    locked,
    types::{Failure, Filters, Result, bad, conflict, forbidden, not_found, read, refuse_others, rfc3339, value},
};
use crate::{
    control::runtime::{Inner, Runtime},
    output_log::now_ns,
};

/// A network that every host has without our doing.
#[derive(Clone, Copy)]
pub(super) struct Predefined {
    pub(super) name: &'static str,
    driver: &'static str,
    pub(super) id: &'static str,
}

/// Modes of a container that Docker shows as networks.
pub(super) const PREDEFINED: [Predefined; 2] = [
    Predefined { name: "host", driver: "host", id: "686f7374686f7374686f7374686f7374686f7374686f7374686f7374686f7374" },
    Predefined { name: "none", driver: "null", id: "6e6f6e656e6f6e656e6f6e656e6f6e656e6f6e656e6f6e656e6f6e656e6f6e65" },
];

const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";

/// A network by name, id or beginning of an id.
pub(super) fn find<'a>(inner: &'a Inner, reference: &str) -> Result<&'a Network> {
    inner.model.network(reference).map_err(|error| match error.code {
        Code::NotFound if error.message.contains("several") => bad(format!("multiple IDs found with provided prefix: {reference}")),
        _ => not_found(format!("network {reference} not found")),
    })
}

fn predefined(reference: &str) -> Option<&'static Predefined> {
    PREDEFINED.iter().find(|mode| mode.name == reference || (reference.len() >= 3 && mode.id.starts_with(reference)))
}

#[derive(Deserialize)]
pub(super) struct Listing {
    filters: Option<String>,
}

const FILTERS: &[&str] = &["name", "id", "driver", "label", "type", "dangling", "scope"];

pub(super) async fn list(State(runtime): State<Runtime>, Query(query): Query<Listing>) -> Result<Json<Value>> {
    let filters = Filters::parse(query.filters.as_deref(), FILTERS)?;
    let dangling = filters.flag("dangling")?;
    for word in filters.words("type") {
        if !matches!(word.as_str(), "custom" | "builtin") {
            return Err(bad(format!("invalid filter: 'type'='{word}'")));
        }
    }
    locked(runtime, move |inner| {
        let ours = inner.model.networks.values().map(|network| (view(inner, network, false), network.name == "bridge", inner.model.members(&network.id).next().is_some(), network.labels.clone()));
        let modes = PREDEFINED.iter().map(|mode| (predefined_view(inner, mode, false), true, false, BTreeMap::new()));
        let mut all = Vec::new();
        for (view, builtin, used, labels) in ours.chain(modes) {
            let text = |key: &str| view[key].as_str().unwrap_or_default().to_owned();
            let wanted = filters.any("name", |word| text("Name").contains(word))
                && filters.any("id", |word| text("Id").starts_with(word))
                && filters.any("driver", |word| text("Driver") == word)
                && filters.any("scope", |word| text("Scope") == word)
                && filters.any("type", |word| (word == "builtin") == builtin)
                && dangling.is_none_or(|dangling| dangling == (!used && !builtin))
                && filters.labels(&labels);
            if wanted {
                all.push(view);
            }
        }
        Ok(Json(Value::Array(all)))
    })
    .await
}

pub(super) async fn inspect(State(runtime): State<Runtime>, Path(reference): Path<String>) -> Result<Json<Value>> {
    locked(runtime, move |inner| {
        if let (Err(_), Some(mode)) = (inner.model.network(&reference), predefined(&reference)) {
            return Ok(Json(predefined_view(inner, mode, true)));
        }
        Ok(Json(view(inner, find(inner, &reference)?, true)))
    })
    .await
}

/// Docker's inspect, key for key; lists leave the members out.
fn view(inner: &Inner, network: &Network, with_members: bool) -> Value {
    let aux = |pool: &IpNetwork| -> BTreeMap<_, _> { network.aux_addresses.iter().filter(|(_, address)| pool.contains(**address)).collect() };
    let config: Vec<_> = network
        .pools
        .iter()
        .map(|pool| {
            let mut config = json!({ "Subnet": pool.subnet.to_string(), "Gateway": pool.gateway.to_string() });
            if pool.range != pool.subnet {
                config["IPRange"] = json!(pool.range.to_string());
            }
            let aux = aux(&pool.subnet);
            if !aux.is_empty() {
                config["AuxiliaryAddresses"] = json!(aux);
            }
            config
        })
        .collect();
    let mut options: BTreeMap<&str, String> = network.options.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    if network.name == "bridge" {
        options.extend([
            (DEFAULT_BRIDGE, "true".to_owned()),
            ("com.docker.network.bridge.enable_icc", (!network.isolated_default).to_string()),
            ("com.docker.network.bridge.enable_ip_masquerade", network.masquerade.to_string()),
            ("com.docker.network.bridge.host_binding_ipv4", network.host_binding.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string())),
            ("com.docker.network.driver.mtu", network.mtu.to_string()),
        ]);
    }
    let mut containers = Map::new();
    for (sandbox, endpoint) in inner.model.members(&network.id).filter(|_| with_members) {
        containers.insert(sandbox.id.clone(), member(sandbox, &endpoint.id, &endpoint.mac, &endpoint.addresses));
    }
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created_ns),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": network.pools.iter().any(|pool| pool.subnet.is_ipv4()),
        "EnableIPv6": network.pools.iter().any(|pool| pool.subnet.is_ipv6()),
        "IPAM": {
            "Driver": if network.pools.is_empty() { "null" } else { "default" },
            "Options": if network.name == "bridge" { Value::Null } else { json!({}) },
            "Config": config,
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": options,
        "Labels": network.labels,
    })
}

/// `host` and `none`: their members have no address.
fn predefined_view(inner: &Inner, mode: &Predefined, with_members: bool) -> Value {
    let is_in = |sandbox: &&Sandbox| sandbox.container.as_ref().is_some_and(|container| container.host.network_mode == mode.name) && !sandbox.is_at_rest();
    let mut containers = Map::new();
    for sandbox in inner.model.sandboxes.values().filter(is_in).filter(|_| with_members) {
        containers.insert(sandbox.id.clone(), member(sandbox, &sandbox.id, "", &[]));
    }
    json!({
        "Name": mode.name,
        "Id": mode.id,
        "Created": rfc3339(inner.model.network("bridge").map_or(0, |bridge| bridge.created_ns)),
        "Scope": "local",
        "Driver": mode.driver,
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": null, "Config": null },
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": {},
        "Labels": {},
    })
}

fn member(sandbox: &Sandbox, endpoint: &str, mac: &str, addresses: &[IpNetwork]) -> Value {
    let of = |v4: bool| addresses.iter().find(|address| address.is_ipv4() == v4).map(ToString::to_string).unwrap_or_default();
    json!({ "Name": sandbox.name, "EndpointID": endpoint, "MacAddress": mac, "IPv4Address": of(true), "IPv6Address": of(false) })
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Create {
    name: String,
    driver: String,
    scope: String,
    internal: bool,
    attachable: bool,
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

const CREATE_FIELDS: &[&str] =
    &["Name", "Driver", "Scope", "Internal", "Attachable", "EnableIPv4", "EnableIPv6", "IPAM", "Options", "Labels", "CheckDuplicate"];

pub(super) async fn create(State(runtime): State<Runtime>, body: Bytes) -> Result<Response> {
    let body = value(&body)?;
    refuse_others("", &body, CREATE_FIELDS)?;
    let request = network_request(read(body)?)?;
    let network = locked(runtime, move |inner| Ok(inner.create_network(&request)?)).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": network.id, "Warning": "" }))).into_response())
}

fn network_request(create: Create) -> Result<NetworkCreate> {
    if !matches!(create.scope.as_str(), "" | "local") {
        return Err(bad(format!("weft has no networks of scope {:?}: leave --scope out", create.scope)));
    }
    if create.enable_ipv4 == Some(false) && create.ipam.driver != "null" {
        return Err(bad("weft does not support a network without IPv4: use --ipam-driver null for one without addresses"));
    }
    let no_ipam = match create.ipam.driver.as_str() {
        "" | "default" => false,
        "null" => true,
        other => return Err(not_found(format!("plugin \"{other}\" not found: there are the IPAM drivers default and null"))),
    };
    if let Some((key, _)) = create.ipam.options.first_key_value() {
        return Err(bad(format!("IPAM option {key} is not supported")));
    }
    let mut request = NetworkCreate {
        name: create.name,
        driver: Some(create.driver).filter(|driver| !driver.is_empty() && driver != "default"),
        internal: create.internal,
        no_ipam,
        ipv6: create.enable_ipv6,
        labels: create.labels,
        attachable: create.attachable,
        ..NetworkCreate::default()
    };
    for pool in &create.ipam.config {
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
    }
    let options: BTreeMap<_, _> = create.options.into_iter().filter(|(key, _)| key != "com.docker.network.enable_ipv6").collect();
    DriverOptions::parse(&options)?.apply(&mut request);
    request.options = options;
    Ok(request)
}

pub(super) async fn remove(State(runtime): State<Runtime>, Path(reference): Path<String>) -> Result<StatusCode> {
    locked(runtime, move |inner| {
        if predefined(&reference).is_some() && inner.model.network(&reference).is_err() {
            return Err(forbidden(format!("{reference} is a pre-defined network and cannot be removed")));
        }
        let network = find(inner, &reference)?;
        if network.name == "bridge" {
            return Err(forbidden("bridge is a pre-defined network and cannot be removed"));
        }
        let members: Vec<_> = inner.model.members(&network.id).map(|(sandbox, endpoint)| format!("name:{:?} id:\"{}\"", sandbox.name, &endpoint.id[..12])).collect();
        if !members.is_empty() {
            return Err(forbidden(format!("error while removing network: network {} has active endpoints ({})", network.name, members.join(", "))));
        }
        let id = network.id.clone();
        inner.remove_network(&id)?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

pub(super) async fn prune(State(runtime): State<Runtime>, Query(query): Query<Listing>) -> Result<Json<Value>> {
    let filters = Filters::parse(query.filters.as_deref(), &["label", "label!", "until"])?;
    let until = match filters.words("until") {
        [] => u64::MAX,
        [text] => super::types::time_ns(text).or_else(|_| duration_ago(text))?,
        _ => return Err(bad("more than one until filter")),
    };
    locked(runtime, move |inner| {
        let unused = |network: &&Network| {
            network.name != "bridge" && inner.model.members(&network.id).next().is_none() && network.created_ns < until && filters.labels(&network.labels)
        };
        let names: Vec<String> = inner.model.networks.values().filter(unused).map(|network| network.name.clone()).collect();
        for name in &names {
            inner.remove_network(name)?;
        }
        Ok(Json(json!({ "NetworksDeleted": names })))
    })
    .await
}

/// `10m`, `1h30m`: so long ago.
fn duration_ago(text: &str) -> Result<u64> {
    let wrong = || bad(format!("invalid until {text:?}: want seconds since 1970, or a time ago such as 24h"));
    let (mut total, mut digits) = (0_u64, String::new());
    for letter in text.chars() {
        let unit = match letter {
            '0'..='9' => {
                digits.push(letter);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return Err(wrong()),
        };
        total = total.saturating_add(digits.parse::<u64>().map_err(|_| wrong())?.saturating_mul(unit));
        digits.clear();
    }
    if digits.is_empty() { Ok(now_ns().saturating_sub(total.saturating_mul(1_000_000_000))) } else { Err(wrong()) }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Membership {
    container: String,
    endpoint_config: Value,
}

pub(super) async fn connect(State(runtime): State<Runtime>, Path(reference): Path<String>, body: Bytes) -> Result<StatusCode> {
    let body = value(&body)?;
    refuse_others("", &body, &["Container", "EndpointConfig"])?;
    let Membership { container, endpoint_config } = read(body)?;
    locked(runtime, move |inner| {
        swapped(inner, "connect", &reference, &container)?;
        let sandbox = find_container(inner, &container)?.clone();
        check_mode(&sandbox, &reference)?;
        let network = find(inner, &reference)?.clone();
        let endpoint = endpoint_request(&network.name, endpoint_config)?;
        join(inner, &sandbox, &network, endpoint)?;
        Ok(StatusCode::OK)
    })
    .await
}

fn check_mode(sandbox: &Sandbox, reference: &str) -> Result<()> {
    let mode = sandbox.container.as_ref().map_or("", |container| container.host.network_mode.as_str());
    match mode {
        "host" => Err(forbidden("container sharing network namespace with another container or host cannot be connected to any other network")),
        _ if mode.starts_with("container:") => Err(forbidden("container sharing network namespace with another container or host cannot be connected to any other network")),
        "none" => Err(forbidden("container cannot be connected to multiple networks with one of the networks in private (none) mode")),
        _ if reference == "host" => Err(forbidden("container cannot be disconnected from host network or connected to host network")),
        _ if reference == "none" => Err(forbidden("container cannot be connected to multiple networks with one of the networks in private (none) mode")),
        _ => Ok(()),
    }
}

/// In the definition, and now too if it runs.
fn join(inner: &mut Inner, sandbox: &Sandbox, network: &Network, endpoint: EndpointCreate) -> Result<()> {
    let already = sandbox.container.as_ref().is_some_and(|container| container.networks.iter().any(|other| other.network == network.name || other.network == network.id));
    if already || sandbox.endpoints.iter().any(|other| other.network == network.id) {
        return Err(forbidden(format!("endpoint with name {} already exists in network {}", sandbox.name, network.name)));
    }
    if !sandbox.is_at_rest() {
        inner.connect(&sandbox.id, &endpoint)?;
    }
    let mut model = inner.model.clone();
    if let Some(container) = model.sandboxes.get_mut(&sandbox.id).and_then(|sandbox| sandbox.container.as_mut()) {
        container.networks.push(endpoint);
        inner.commit(model)?;
    }
    Ok(())
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Leave {
    container: String,
}

pub(super) async fn disconnect(State(runtime): State<Runtime>, Path(reference): Path<String>, body: Bytes) -> Result<StatusCode> {
    let body = value(&body)?;
    refuse_others("", &body, &["Container", "Force"])?;
    let Leave { container } = read(body)?;
    locked(runtime, move |inner| {
        swapped(inner, "disconnect", &reference, &container)?;
        let sandbox = find_container(inner, &container)?.clone();
        if reference == "host" && sandbox.container.as_ref().is_some_and(|container| container.host.network_mode == "host") {
            return Err(forbidden("container cannot be disconnected from host network or connected to host network"));
        }
        let network = find(inner, &reference)?.clone();
        let is_it = |endpoint: &EndpointCreate| endpoint.network == network.name || endpoint.network == network.id;
        let (defined, live) = (sandbox.container.as_ref().is_some_and(|container| container.networks.iter().any(is_it)), sandbox.endpoints.iter().any(|endpoint| endpoint.network == network.id));
        if !defined && !live {
            return Err(forbidden(format!("container {} is not connected to network {}", sandbox.id, network.name)));
        }
        if live {
            inner.disconnect(&sandbox.id, &network.id)?;
        }
        let mut model = inner.model.clone();
        if let Some(container) = model.sandboxes.get_mut(&sandbox.id).and_then(|sandbox| sandbox.container.as_mut()) {
            container.networks.retain(|endpoint| !is_it(endpoint));
            inner.commit(model)?;
        }
        Ok(StatusCode::OK)
    })
    .await
}

/// The two arguments the wrong way round: say so.
fn swapped(inner: &Inner, verb: &str, network: &str, container: &str) -> Result<()> {
    if inner.model.network(network).is_err() && inner.model.network(container).is_ok() && inner.model.sandbox(network).is_ok() {
        return Err(bad(format!("{network} is a container and {container} is a network: the arguments are swapped; did you mean `docker network {verb} {container} {network}`?")));
    }
    Ok(())
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct EndpointConfig {
    #[serde(rename = "IPAMConfig")]
    ipam: IpamConfig,
    aliases: Vec<String>,
    mac_address: String,
    driver_opts: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IpamConfig {
    #[serde(rename = "IPv4Address")]
    v4: String,
    #[serde(rename = "IPv6Address")]
    v6: String,
    #[serde(rename = "LinkLocalIPs")]
    link_local: Vec<String>,
}

/// What of an endpoint's JSON is an answer only; clients send it back as it was.
const ENDPOINT_FIELDS: &[&str] = &[
    "IPAMConfig", "Aliases", "MacAddress", "DriverOpts", "NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "DNSNames",
];

const IFNAME_OPTION: &str = "com.docker.network.endpoint.ifname";

/// An `EndpointConfig` as ours.
pub(super) fn endpoint_request(network: &str, config: Value) -> Result<EndpointCreate> {
    let config = if config.is_null() { json!({}) } else { config };
    refuse_others("EndpointConfig.", &config, ENDPOINT_FIELDS)?;
    let config: EndpointConfig = read(config)?;
    if let Some(address) = config.ipam.link_local.first() {
        return Err(bad(format!("weft does not support EndpointConfig.IPAMConfig.LinkLocalIPs ({address}): leave it out")));
    }
    let mut endpoint = EndpointCreate { network: network.into(), aliases: config.aliases, mac: Some(config.mac_address).filter(|mac| !mac.is_empty()), ..EndpointCreate::default() };
    if !config.ipam.v4.is_empty() {
        endpoint.ip = Some(config.ipam.v4.parse().map_err(|_| bad(format!("invalid IPv4 address: {}", config.ipam.v4)))?);
    }
    if !config.ipam.v6.is_empty() {
        endpoint.ip6 = Some(config.ipam.v6.parse().map_err(|_| bad(format!("invalid IPv6 address: {}", config.ipam.v6)))?);
    }
    for (key, value) in config.driver_opts {
        match key.as_str() {
            IFNAME_OPTION => endpoint.ifname = Some(value),
            VIP_OPTION => endpoint.vips = value.split(',').map(|name| name.trim().to_owned()).collect(),
            _ => return Err(bad(format!("endpoint option {key} is not supported: there are {IFNAME_OPTION} and {VIP_OPTION}"))),
        }
    }
    Ok(endpoint)
}

/// Docker reserves the status of a full pool or a taken address at start for "cannot": not ours to use.
pub(super) fn at_start(error: weft_control::ControlError) -> Failure {
    match error.code {
        Code::NotFound => not_found(error.message.replace("no such network: ", "network ") + if error.message.starts_with("no such network") { " not found" } else { "" }),
        Code::Conflict if error.message.starts_with("Bind for") => super::types::broken(format!("driver failed programming external connectivity: {error}")),
        Code::Conflict if error.message.starts_with("address") => forbidden(format!("Address already in use: {error}")),
        _ => error.into(),
    }
}

/// The networks of a new container: its mode's, and others by name.
pub(super) fn wanted(mode: &str, configs: BTreeMap<String, Value>) -> Result<Vec<EndpointCreate>> {
    let mut configs = configs;
    if matches!(mode, "host" | "none") || mode.starts_with("container:") {
        // There is no endpoint that any of it could be about.
        refuse_others("EndpointConfig.", &configs.remove(mode).unwrap_or_default(), &[])?;
        return match configs.first_key_value() {
            Some((name, _)) => Err(conflict(format!("conflicting options: network mode {mode} and network {name}"))),
            None => Ok(Vec::new()),
        };
    }
    let first = configs.remove(mode).or_else(|| (mode == "bridge").then(|| configs.remove("default")).flatten()).unwrap_or(Value::Null);
    let rest = configs.into_iter().map(|(name, config)| endpoint_request(&name, config));
    std::iter::once(endpoint_request(mode, first)).chain(rest).collect()
}
