//! `POST /containers/create`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{bad, endpoint::wanted, read, refuse_others};
use crate::{
    container::{Config, Container, HostConfig},
    error::Result,
    names::Link,
    volume::{Bind, Mount},
};

const CONFIG_FIELDS: &[&str] = &[
    "Hostname", "AttachStdin", "AttachStdout", "AttachStderr", "ExposedPorts", "Tty", "OpenStdin", "StdinOnce", "Env", "Cmd", "Image", "WorkingDir", "Entrypoint", "Labels", "HostConfig", "NetworkingConfig", "MacAddress",
    "ArgsEscaped", "OnBuild",
];

/// A container of the host's files has the host's rights, so that Privileged and CapAdd ask for what is.
const HOST_FIELDS: &[&str] = &[
    "NetworkMode", "PortBindings", "PublishAllPorts", "AutoRemove", "ExtraHosts", "Dns", "DnsSearch", "DnsOptions", "RestartPolicy", "ConsoleSize", "Privileged", "CapAdd", "ContainerIDFile", "Links", "Binds", "Mounts", "LogConfig",
];

/// A container as it was asked for, checked as far as that goes before it starts.
///
/// # Errors
/// Naming what has no sense or no effect.
pub fn definition(mut body: Value) -> Result<Container> {
    if let Some(volume) = body["Volumes"].as_object().and_then(|volumes| volumes.keys().next()) {
        return Err(bad(format!("weft does not support volumes ({volume}): bind a directory of the host with -v /HOST:{volume}")));
    }
    refuse_others("", &body, CONFIG_FIELDS)?;
    let (host, networking, mac) = (body["HostConfig"].take(), body["NetworkingConfig"].take(), body["MacAddress"].take());
    refuse_others("HostConfig.", &host, HOST_FIELDS)?;
    refuse_others("NetworkingConfig.", &networking, &["EndpointsConfig"])?;
    if !(networking.is_null() || networking.is_object()) {
        return Err(bad("invalid request: NetworkingConfig: want an object"));
    }
    for shell_form in ["Cmd", "Entrypoint"] {
        if body[shell_form].is_string() {
            body[shell_form] = json!([body[shell_form].take()]);
        }
    }
    let object = |value: Value| if value.is_null() { json!({}) } else { value };
    for key in ["HostConfig", "NetworkingConfig", "MacAddress", "Volumes"] {
        body.as_object_mut().map(|fields| fields.remove(key));
    }
    let config: Config = read(body)?;
    let mut host: HostConfig = read(object(host))?;
    check_policy(&host)?;
    if matches!(host.network_mode.as_str(), "" | "default") {
        host.network_mode = "bridge".into();
    }
    check_mode(&config, &host)?;
    // `--mount type=bind` and `-v` are two ways to say one thing.
    let mounts: Vec<Mount> = std::mem::take(&mut host.mounts);
    host.binds.extend(mounts.iter().map(Mount::bind).collect::<Result<Vec<_>>>()?);
    host.binds.iter().try_for_each(|bind| bind.parse::<Bind>().map(drop))?;
    host.log_config.bound()?;
    let mode = host.network_mode.as_str();
    let configs: BTreeMap<String, Value> = read(object(networking["EndpointsConfig"].clone()))?;
    let mut networks = wanted(mode, configs)?;
    if let (Some(mac), Some(first)) = (mac.as_str().filter(|mac| !mac.is_empty()), networks.first_mut()) {
        first.mac.get_or_insert_with(|| mac.to_owned());
    }
    // Docker discards what cannot be published, with the host's network.
    if matches!(mode, "host" | "none") {
        host.port_bindings.clear();
        host.publish_all_ports = false;
    }
    for link in &host.links {
        let link: Link = link.parse()?;
        if let Some(first) = networks.first_mut().filter(|first| !first.link.contains(&link)) {
            first.link.push(link);
        }
    }
    let container = Container { config, host, networks, ..Container::default() };
    if container.command().is_empty() {
        return Err(bad("no command specified: the image host has no default, e.g. use `docker run host sh`"));
    }
    if let Some(word) = container.config.env.iter().find(|word| word.starts_with('=') || word.contains('\0')) {
        return Err(bad(format!("invalid environment variable: {word:?}")));
    }
    if let Some(word) = container.command().iter().chain([&container.config.working_dir]).find(|word| word.contains('\0')) {
        return Err(bad(format!("invalid command or directory: {word:?} has a zero byte")));
    }
    container.publish()?;
    Ok(container)
}

fn check_policy(host: &HostConfig) -> Result<()> {
    match host.restart_policy.name.as_str() {
        "" | "no" => Ok(()),
        "always" | "unless-stopped" | "on-failure" if !host.auto_remove => Ok(()),
        "always" | "unless-stopped" | "on-failure" => Err(bad("can't create 'AutoRemove' container with restart policy")),
        other => Err(bad(format!("invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"))),
    }
}

fn check_mode(config: &Config, host: &HostConfig) -> Result<()> {
    let mode = host.network_mode.as_str();
    if mode.starts_with("container:") {
        if !config.hostname.is_empty() {
            return Err(bad("conflicting options: hostname and the network mode"));
        }
        if !host.port_bindings.is_empty() || host.publish_all_ports {
            return Err(bad("conflicting options: port publishing and the container type network mode"));
        }
    }
    if (mode == "host" || mode == "none" || mode.starts_with("container:")) && !host.links.is_empty() {
        return Err(bad(format!("conflicting options: --link with network mode {mode}: such a container has nobody to be linked to")));
    }
    let about_names = [&host.dns, &host.dns_search, &host.dns_options, &host.extra_hosts];
    if (mode == "host" || mode.starts_with("container:")) && about_names.iter().any(|words| !words.is_empty()) {
        return Err(bad(format!("conflicting options: Dns and ExtraHosts with network mode {mode}: such a container has the /etc of another")));
    }
    Ok(())
}
