//! Networks in Docker's words.

use std::collections::BTreeMap;

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
    Code, ConfigNetwork, Network, Sandbox,
    api::{EndpointCreate, NetworkCreate},
    docker::{self, Filters, Leave, NetworkRequest},
};

use super::{
    containers::find as find_container,
    locked,
    types::{Failure, Result, bad, forbidden, not_found, rfc3339},
};
use crate::{
    control::runtime::{Inner, Runtime, new_id},
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
        let used = inner.model.networks_in_use();
        let ours = inner.model.networks.values().map(|network| (view(inner, network, false), network.name == "bridge", used.contains(network.id.as_str()), network.labels.clone()));
        let modes = PREDEFINED.iter().map(|mode| (predefined_view(inner, mode, false), true, false, BTreeMap::new()));
        let configs = inner.model.configs.values().map(|config| (config_view(config), false, config_users(inner, config) > 0, config.request.labels.clone()));
        let mut all = Vec::new();
        for (view, builtin, used, labels) in ours.chain(modes).chain(configs) {
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
        if let (Err(_), Some(config)) = (inner.model.network(&reference), inner.model.config(&reference)) {
            return Ok(Json(config_view(config)));
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
            // What its clients look for; there is no device of that name.
            ("com.docker.network.bridge.name", "docker0".to_owned()),
            ("com.docker.network.driver.mtu", network.mtu.to_string()),
        ]);
    }
    if let Some(problem) = inner.secrets_problem(network) {
        options.insert("weft.keys", format!("not usable: {problem}"));
    }
    if let Some(problem) = with_members.then(|| inner.parent_problems().remove(&network.id)).flatten() {
        options.insert("weft.parent", format!("not usable: {}", problem.message));
    }
    let mut containers = Map::new();
    for (sandbox, endpoint) in with_members.then(|| inner.model.members(&network.id)).into_iter().flatten() {
        containers.insert(sandbox.id.clone(), member(&sandbox.name, &endpoint.id, &endpoint.mac, &endpoint.addresses));
    }
    // As Docker calls those of other nodes.
    for (id, endpoint) in inner.model.remote_members(&network.id).filter(|_| with_members) {
        containers.insert(format!("ep-{id}"), member(&endpoint.name, id, &endpoint.mac, &endpoint.addresses));
    }
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created_ns),
        "Scope": if network.is_global() { "global" } else { "local" },
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
        "Ingress": network.ingress,
        "ConfigFrom": { "Network": network.config_from.as_deref().unwrap_or_default() },
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
        containers.insert(sandbox.id.clone(), member(&sandbox.name, &sandbox.id, "", &[]));
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

/// A configuration of networks: as it was asked for, with a driver of nothing.
fn config_view(config: &ConfigNetwork) -> Value {
    let NetworkCreate { name, subnets, gateways, ip_range, aux_addresses, no_ipam, ipv6, no_ipv4, labels, options, .. } = &config.request;
    let pool = |subnet: &IpNetwork| {
        let mut pool = Map::from_iter([("Subnet".to_owned(), json!(subnet.to_string()))]);
        pool.extend(gateways.iter().find(|gateway| subnet.contains(**gateway)).map(|gateway| ("Gateway".to_owned(), json!(gateway))));
        pool.extend(ip_range.iter().find(|range| range.is_ipv4() == subnet.is_ipv4()).map(|range| ("IPRange".to_owned(), json!(range.to_string()))));
        let aux: BTreeMap<_, _> = aux_addresses.iter().filter(|(_, address)| subnet.contains(**address)).collect();
        pool.extend((!aux.is_empty()).then(|| ("AuxiliaryAddresses".to_owned(), json!(aux))));
        Value::Object(pool)
    };
    json!({
        "Name": name,
        "Id": config.id,
        "Created": rfc3339(config.created_ns),
        "Scope": "local",
        "Driver": "null",
        "EnableIPv4": !no_ipv4,
        "EnableIPv6": ipv6,
        "IPAM": { "Driver": if *no_ipam { "null" } else { "default" }, "Options": {}, "Config": subnets.iter().map(pool).collect::<Vec<_>>() },
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": true,
        "Containers": {},
        "Options": options,
        "Labels": labels,
    })
}

/// Networks that were made from it.
fn config_users(inner: &Inner, config: &ConfigNetwork) -> usize {
    inner.model.networks.values().filter(|network| network.config_from.as_ref() == Some(&config.request.name)).count()
}

fn member(name: &str, endpoint: &str, mac: &str, addresses: &[IpNetwork]) -> Value {
    let of = |v4: bool| addresses.iter().find(|address| address.is_ipv4() == v4).map(ToString::to_string).unwrap_or_default();
    json!({ "Name": name, "EndpointID": endpoint, "MacAddress": mac, "IPv4Address": of(true), "IPv6Address": of(false) })
}

pub(super) async fn create(State(runtime): State<Runtime>, body: Bytes) -> Result<Response> {
    let request = docker::network_request(docker::value(&body)?)?;
    let id = locked(runtime, move |inner| match request {
        NetworkRequest::Network(request) => {
            if let Some(mode) = PREDEFINED.iter().find(|mode| request.driver.as_deref() == Some(mode.driver)) {
                return Err(forbidden(format!("only one instance of {:?} network is allowed", mode.driver)));
            }
            Ok(inner.create_network(&request)?.id)
        }
        NetworkRequest::Config(request) => {
            let (mut model, id) = (inner.model.clone(), new_id()?);
            model.create_config(request, id.clone(), now_ns())?;
            inner.commit(model)?;
            Ok(id)
        }
    })
    .await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id, "Warning": "" }))).into_response())
}

pub(super) async fn remove(State(runtime): State<Runtime>, Path(reference): Path<String>) -> Result<StatusCode> {
    locked(runtime, move |inner| {
        if predefined(&reference).is_some() && inner.model.network(&reference).is_err() {
            return Err(forbidden(format!("{reference} is a pre-defined network and cannot be removed")));
        }
        if inner.remove_config(&reference).map_err(|error| if error.code == Code::InUse { forbidden(error.to_string()) } else { error.into() })?.is_some() {
            return Ok(StatusCode::NO_CONTENT);
        }
        let network = find(inner, &reference)?;
        if network.name == "bridge" {
            return Err(forbidden("bridge is a pre-defined network and cannot be removed"));
        }
        let own = inner.model.members(&network.id).map(|(sandbox, endpoint)| (&sandbox.name, &endpoint.id));
        let others = inner.model.remote_members(&network.id).map(|(id, endpoint)| (&endpoint.name, id));
        let members: Vec<_> = own.chain(others).map(|(name, id)| format!("name:{name:?} id:\"{}\"", &id[..12])).collect();
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
        let names = inner.prune_networks(|network| network.created_ns < until && filters.labels(&network.labels))?;
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

pub(super) async fn connect(State(runtime): State<Runtime>, Path(reference): Path<String>, body: Bytes) -> Result<StatusCode> {
    let (container, endpoint) = docker::membership(&reference, docker::value(&body)?)?;
    locked(runtime, move |inner| {
        swapped(inner, "connect", &reference, &container)?;
        if inner.model.network(&reference).is_err() && inner.model.config(&reference).is_some() {
            return Err(forbidden(format!("cannot create endpoint on configuration-only network {reference}")));
        }
        let sandbox = find_container(inner, &container)?.clone();
        check_mode(&sandbox, &reference)?;
        let network = find(inner, &reference)?.clone();
        let endpoint = EndpointCreate { network: network.name.clone(), ..endpoint };
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
        inner.connect(&sandbox.id, &endpoint).map_err(at_start)?;
    }
    let mut model = inner.model.clone();
    if let Some(container) = model.sandboxes.get_mut(&sandbox.id).and_then(|sandbox| sandbox.container.as_mut()) {
        container.networks.push(endpoint);
        inner.commit(model)?;
    }
    Ok(())
}

pub(super) async fn disconnect(State(runtime): State<Runtime>, Path(reference): Path<String>, body: Bytes) -> Result<StatusCode> {
    let Leave { container } = Leave::parse(docker::value(&body)?)?;
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

/// A pool is used up: Docker's words, and ours.
fn no_address(error: &weft_control::ControlError) -> Failure {
    super::types::broken(format!("no available addresses on this network's address pools: {}: {error}", error.subject))
}

/// Docker reserves the status of a full pool or a taken address at start for "cannot": not ours to use.
pub(super) fn at_start(error: weft_control::ControlError) -> Failure {
    match error.code {
        Code::NotFound => not_found(error.message.replace("no such network: ", "network ") + if error.message.starts_with("no such network") { " not found" } else { "" }),
        Code::Conflict if error.message.starts_with("Bind for") => super::types::broken(format!("driver failed programming external connectivity: {error}")),
        Code::Exhausted => no_address(&error),
        Code::Conflict if error.message.starts_with("address") => forbidden(format!("Address already in use: {error}")),
        _ => error.into(),
    }
}
