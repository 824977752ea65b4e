//! Containers as Docker shows them. Sandboxes of `weft run` are shown too: running, of image `host`.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use netns_setup::{Space, process};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weft_control::{
    Container, Endpoint, Phase, Sandbox,
    api::{EndpointCreate, PublishInfo},
    cluster::WAY_OUT,
    container::{Config, HostConfig},
    docker::Filters,
    names::Link,
    volume::Bind,
};

use super::{
    containers::{find, is_true},
    locked,
    networks::PREDEFINED,
    system::HOST_IMAGE_ID,
    types::{Result, bad, conflict, rfc3339},
};
use crate::{
    control::runtime::{Inner, Runtime},
    output_log::now_ns,
};

/// What a sandbox is as a container.
pub(super) fn shown(sandbox: &Sandbox) -> Container {
    sandbox.container.clone().unwrap_or_else(|| Container {
        config: Config {
            image: "host".into(),
            cmd: sandbox.command.clone(),
            env: sandbox.env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            hostname: sandbox.hostname.clone().unwrap_or_default(),
            ..Config::default()
        },
        host: HostConfig { network_mode: if sandbox.endpoints.is_empty() { "none".into() } else { "default".into() }, auto_remove: sandbox.auto_remove, ..HostConfig::default() },
        phase: Phase::Running,
        started_ns: sandbox.created_ns,
        ..Container::default()
    })
}

#[derive(Deserialize)]
pub(super) struct Listing {
    all: Option<String>,
    limit: Option<i64>,
    filters: Option<String>,
}

const FILTERS: &[&str] = &["id", "name", "network", "status", "label", "ancestor", "exited"];

pub(super) async fn list(State(runtime): State<Runtime>, Query(query): Query<Listing>) -> Result<Json<Value>> {
    let filters = Filters::parse(query.filters.as_deref(), FILTERS)?;
    for word in filters.words("status") {
        if !matches!(word.as_str(), "created" | "running" | "exited" | "paused" | "restarting" | "removing" | "dead") {
            return Err(bad(format!("invalid filter 'status={word}'")));
        }
    }
    let limit = query.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    // As Docker: who asks for a state, or for the last ones, wants to see those at rest.
    let all = is_true(query.all.as_deref()) || limit.is_some() || !filters.words("status").is_empty() || !filters.words("exited").is_empty();
    locked(runtime, move |inner| {
        let published = inner.publish_infos()?;
        let mut sandboxes: Vec<&Sandbox> = inner.model.sandboxes.values().filter(|sandbox| sandbox.container.is_some() || sandbox.is_ours()).collect();
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_ns));
        let wanted = |sandbox: &&Sandbox| (all || !sandbox.is_at_rest()) && matches(inner, sandbox, &filters);
        let listed = sandboxes.into_iter().filter(wanted).take(limit.unwrap_or(usize::MAX));
        Ok(Json(listed.map(|sandbox| summary(inner, sandbox, &published)).collect()))
    })
    .await
}

fn matches(inner: &Inner, sandbox: &Sandbox, filters: &Filters) -> bool {
    let container = shown(sandbox);
    let networks = networks_of(inner, sandbox, &container);
    let exit = (container.phase == Phase::Exited).then(|| container.exit_code.to_string());
    filters.any("id", |word| sandbox.id.starts_with(word))
        && filters.any("name", |word| sandbox.name.contains(word.trim_start_matches(['/', '^']).trim_end_matches('$')))
        && filters.any("network", |word| networks.iter().any(|(name, view)| name == word || view["NetworkID"].as_str().is_some_and(|id| id.starts_with(word))))
        && filters.any("status", |word| container.phase.name() == word)
        && filters.any("ancestor", |word| container.config.image == word || (word == "host:latest" && container.config.image == "host"))
        && filters.any("exited", |word| exit.as_deref() == Some(word))
        && filters.labels(&container.config.labels)
}

fn summary(inner: &Inner, sandbox: &Sandbox, published: &[PublishInfo]) -> Value {
    let container = shown(sandbox);
    let mut ports = Vec::new();
    for info in published.iter().filter(|info| info.sandbox == sandbox.name) {
        let (ip, port) = info.host.rsplit_once(':').unwrap_or((&info.host, ""));
        ports.push(json!({ "IP": ip.trim_matches(['[', ']']), "PrivatePort": port_number(&info.inside), "PublicPort": port.parse::<u16>().unwrap_or(0), "Type": info.protocol.to_string() }));
    }
    for exposed in container.config.exposed_ports.keys() {
        let (port, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
        let port = port.parse::<u16>().unwrap_or(0);
        if !ports.iter().any(|other| other["PrivatePort"] == port && other["Type"] == protocol) && !sandbox.is_at_rest() {
            ports.push(json!({ "PrivatePort": port, "Type": protocol }));
        }
    }
    json!({
        "Id": sandbox.id,
        "Names": [format!("/{}", sandbox.name)],
        "Image": container.config.image,
        "ImageID": HOST_IMAGE_ID,
        "Command": container.command().join(" "),
        "Created": sandbox.created_ns / 1_000_000_000,
        "Ports": ports,
        "Labels": container.config.labels,
        "State": container.phase.name(),
        "Status": status(&container),
        "HostConfig": { "NetworkMode": container.host.network_mode },
        "NetworkSettings": { "Networks": networks_of(inner, sandbox, &container) },
        "Mounts": mounts(&container),
    })
}

fn port_number(at: &str) -> u16 {
    at.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0)
}

fn status(container: &Container) -> String {
    match container.phase {
        Phase::Created => "Created".into(),
        Phase::Running => format!("Up {}", duration(now_ns().saturating_sub(container.started_ns))),
        Phase::Exited => format!("Exited ({}) {} ago", container.exit_code, duration(now_ns().saturating_sub(container.finished_ns))),
    }
}

/// Docker's words for how long.
fn duration(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match (seconds, seconds / 60, seconds / 3600) {
        (0, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, minutes @ ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".into(),
        (_, _, hours @ ..48) => format!("{hours} hours"),
        (_, _, hours @ ..336) => format!("{} days", hours / 24),
        (_, _, hours) => format!("{} weeks", hours / 168),
    }
}

/// Its networks by name: as they are while it runs, else as they are wanted.
fn networks_of(inner: &Inner, sandbox: &Sandbox, container: &Container) -> Map<String, Value> {
    let mut networks = Map::new();
    if let Some(mode) = PREDEFINED.iter().find(|mode| mode.name == container.host.network_mode) {
        networks.insert(mode.name.into(), network_settings(mode.id, None, None, sandbox));
    }
    for wanted in &container.networks {
        let id = inner.model.network(&wanted.network).map_or("", |network| network.id.as_str());
        networks.insert(wanted.network.clone(), network_settings(id, None, Some(wanted), sandbox));
    }
    for endpoint in &sandbox.endpoints {
        let name = inner.model.networks.get(&endpoint.network).map_or("", |network| network.name.as_str());
        let wanted = container.networks.iter().find(|wanted| wanted.network == name || endpoint.network.starts_with(&wanted.network));
        match wanted {
            Some(wanted) => drop(networks.remove(&wanted.network)),
            // Docker does not show it either.
            None if name == WAY_OUT => continue,
            None => {}
        }
        networks.insert(name.into(), network_settings(&endpoint.network, Some(endpoint), wanted, sandbox));
    }
    networks
}

fn network_settings(id: &str, endpoint: Option<&Endpoint>, wanted: Option<&EndpointCreate>, sandbox: &Sandbox) -> Value {
    let ipam = wanted.filter(|wanted| wanted.ip.is_some() || wanted.ip6.is_some() || !wanted.link_local.is_empty()).map(|wanted| {
        let link_local = (!wanted.link_local.is_empty()).then(|| json!(wanted.link_local));
        let fields = [("IPv4Address", wanted.ip.map(|ip| json!(ip))), ("IPv6Address", wanted.ip6.map(|ip| json!(ip))), ("LinkLocalIPs", link_local)];
        fields.into_iter().filter_map(|(key, ip)| Some((key, ip?))).collect::<BTreeMap<_, _>>()
    });
    let at = Addresses::of(endpoint);
    let links = wanted.map(|wanted| &wanted.link).filter(|links| !links.is_empty());
    let aliases = wanted.map(|wanted| wanted.aliases.clone()).filter(|aliases| !aliases.is_empty());
    let mut names = vec![sandbox.name.clone()];
    names.extend(aliases.iter().flatten().cloned());
    names.push(sandbox.id[..12].to_owned());
    json!({
        "IPAMConfig": ipam,
        "Links": links,
        "Aliases": aliases,
        "MacAddress": at.mac,
        "DriverOpts": wanted.map(|wanted| &wanted.options).filter(|options| !options.is_empty()),
        "GwPriority": wanted.map_or(0, |wanted| wanted.gw_priority),
        "NetworkID": id,
        "EndpointID": endpoint.map_or("", |endpoint| endpoint.id.as_str()),
        "Gateway": at.gateway,
        "IPAddress": at.ip,
        "IPPrefixLen": at.prefix,
        "IPv6Gateway": at.gateway6,
        "GlobalIPv6Address": at.ip6,
        "GlobalIPv6PrefixLen": at.prefix6,
        "DNSNames": names,
    })
}

/// An endpoint's addresses in the form Docker has them.
#[derive(Default)]
struct Addresses {
    ip: String,
    prefix: u8,
    gateway: String,
    ip6: String,
    prefix6: u8,
    gateway6: String,
    mac: String,
}

impl Addresses {
    fn of(endpoint: Option<&Endpoint>) -> Self {
        let Some(endpoint) = endpoint else { return Self::default() };
        let address = |v4: bool| endpoint.addresses.iter().find(|address| address.is_ipv4() == v4);
        let gateway = |v4: bool| endpoint.gateways.iter().find(|gateway| gateway.is_ipv4() == v4).map(ToString::to_string).unwrap_or_default();
        let text = |v4: bool| address(v4).map(|address| address.ip().to_string()).unwrap_or_default();
        let prefix = |v4: bool| address(v4).map_or(0, ipnetwork::IpNetwork::prefix);
        Self { ip: text(true), prefix: prefix(true), gateway: gateway(true), ip6: text(false), prefix6: prefix(false), gateway6: gateway(false), mac: endpoint.mac.clone() }
    }
}

pub(super) async fn inspect(State(runtime): State<Runtime>, Path(reference): Path<String>) -> Result<Json<Value>> {
    locked(runtime, move |inner| {
        let sandbox = find(inner, &reference)?;
        let published = inner.publish_infos()?;
        Ok(Json(view(inner, sandbox, &published)))
    })
    .await
}

fn view(inner: &Inner, sandbox: &Sandbox, published: &[PublishInfo]) -> Value {
    let container = shown(sandbox);
    let (config, running) = (&container.config, container.phase == Phase::Running);
    let command = container.command();
    let (program, arguments) = command.split_first().map_or(("", &[][..]), |(program, arguments)| (program.as_str(), arguments));
    let mut shown_config = json!(config);
    let hostname = match (config.hostname.as_str(), container.host.network_mode.as_str()) {
        ("", "host") => nix::unistd::gethostname().map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned()),
        ("", _) => sandbox.id[..12].to_owned(),
        (given, _) => given.to_owned(),
    };
    for (key, value) in [("Hostname", json!(hostname)), ("Domainname", json!("")), ("User", json!("")), ("Volumes", Value::Null)] {
        shown_config[key] = value;
    }
    if config.entrypoint.is_empty() {
        shown_config["Entrypoint"] = Value::Null;
    }
    let mut host = json!(container.host);
    if container.host.restart_policy.name.is_empty() {
        host["RestartPolicy"]["Name"] = json!("no");
    }
    if container.host.log_config.kind.is_empty() {
        host["LogConfig"]["Type"] = json!("json-file");
    }
    let links: Vec<String> = container.host.links.iter().filter_map(|link| link.parse::<Link>().ok()).map(|link| format!("/{}:/{}/{}", link.sandbox, sandbox.name, link.alias)).collect();
    for (key, value) in [("Links", json!(Some(links).filter(|links| !links.is_empty()))), ("Binds", json!(Some(&container.host.binds).filter(|binds| !binds.is_empty()))), ("Privileged", json!(false)), ("IpcMode", json!("host")), ("PidMode", json!("host"))] {
        host[key] = value;
    }
    let log = inner.dirs.output_of(&sandbox.id);
    json!({
        "Id": sandbox.id,
        "Created": rfc3339(sandbox.created_ns),
        "Path": program,
        "Args": arguments,
        "State": {
            "Status": container.phase.name(),
            "Running": running,
            "Paused": false,
            "Restarting": false,
            "OOMKilled": false,
            "Dead": false,
            "Pid": sandbox.process.map_or(0, |process| process.pid),
            "ExitCode": container.exit_code,
            "Error": container.error,
            "StartedAt": rfc3339(container.started_ns),
            "FinishedAt": rfc3339(container.finished_ns),
        },
        "Image": HOST_IMAGE_ID,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": log.to_string_lossy(),
        "Name": format!("/{}", sandbox.name),
        "RestartCount": container.restarts,
        "Driver": "host",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host,
        "GraphDriver": { "Name": "host", "Data": null },
        "Mounts": mounts(&container),
        "Config": shown_config,
        "NetworkSettings": settings(inner, sandbox, &container, published),
    })
}

fn mounts(container: &Container) -> Vec<Value> {
    let binds = container.host.binds.iter().filter_map(|bind| bind.parse::<Bind>().ok());
    binds.map(|bind| json!({ "Type": "bind", "Source": bind.source, "Destination": bind.target, "Mode": if bind.read_only { "ro" } else { "" }, "RW": !bind.read_only, "Propagation": "rprivate" })).collect()
}

fn settings(inner: &Inner, sandbox: &Sandbox, container: &Container, published: &[PublishInfo]) -> Value {
    let is_default = |endpoint: &&Endpoint| inner.model.networks.get(&endpoint.network).is_some_and(|network| network.name == "bridge");
    let on_bridge = sandbox.endpoints.iter().find(is_default);
    let at = Addresses::of(on_bridge);
    let mut ports: BTreeMap<String, Value> = BTreeMap::new();
    if !sandbox.is_at_rest() {
        ports.extend(container.config.exposed_ports.keys().map(|port| (port.clone(), Value::Null)));
    }
    for info in published.iter().filter(|info| info.sandbox == sandbox.name) {
        let (ip, port) = info.host.rsplit_once(':').unwrap_or((&info.host, ""));
        let binding = json!({ "HostIp": ip.trim_matches(['[', ']']), "HostPort": port });
        match ports.entry(format!("{}/{}", port_number(&info.inside), info.protocol)).or_insert(Value::Null) {
            Value::Array(bindings) => bindings.push(binding),
            first => *first = json!([binding]),
        }
    }
    let key = if sandbox.is_ours() && !sandbox.is_at_rest() { inner.dirs.pins().join(&sandbox.id).to_string_lossy().into_owned() } else { String::new() };
    json!({
        "Bridge": "",
        "SandboxID": if sandbox.is_at_rest() { "" } else { &sandbox.id },
        "SandboxKey": key,
        "Ports": ports,
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": on_bridge.map_or("", |endpoint| endpoint.id.as_str()),
        "Gateway": at.gateway,
        "GlobalIPv6Address": at.ip6,
        "GlobalIPv6PrefixLen": at.prefix6,
        "IPAddress": at.ip,
        "IPPrefixLen": at.prefix,
        "IPv6Gateway": at.gateway6,
        "MacAddress": at.mac,
        "Networks": networks_of(inner, sandbox, container),
    })
}

/// Processes of its sessions; the arguments of `docker top` choose nothing here.
pub(super) async fn top(State(runtime): State<Runtime>, Path(reference): Path<String>) -> Result<Json<Value>> {
    let execs = runtime.execs.clone();
    locked(runtime, move |inner| {
        let sandbox = find(inner, &reference)?;
        let Some(main) = sandbox.process.filter(|_| !sandbox.is_at_rest()) else { return Err(conflict(format!("container {} is not running", sandbox.id))) };
        let own = inner.spaces.get(&main.pid).map_or_else(|| process::of_session(main.pid), Space::pids);
        let mut pids: Vec<i32> = execs.sessions(&sandbox.id).into_iter().flat_map(process::of_session).chain(own).collect();
        pids.sort_unstable();
        pids.dedup();
        let read = |pid: i32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let row = |pid: i32| {
            let command = read(pid, "cmdline").trim_end_matches('\0').replace('\0', " ");
            let parent = read(pid, "status").lines().find_map(|line| line.strip_prefix("PPid:").map(|value| value.trim().to_owned())).unwrap_or_default();
            json!([pid.to_string(), parent, command])
        };
        Ok(Json(json!({ "Titles": ["PID", "PPID", "CMD"], "Processes": pids.into_iter().map(row).collect::<Vec<_>>() })))
    })
    .await
}
