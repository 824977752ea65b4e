//! `weft run`, `exec`, `ps`, `inspect`, `rm`, `logs`.

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt};

use netns_setup::{
    Netns,
    process::{self, CommandSpec},
};
use serde_json::{Value, json};
use weft_control::{
    ControlError, EndpointKind, NetnsTarget,
    api::{EndpointCreate, SandboxCreate},
};

use super::{
    End, Place, args::{ExecArguments, PsArguments, RunArguments}, invalid,
    netns::{Target, find},
    network::{each, pairs, short},
    print, print_json,
    table::table,
    unavailable,
};
use crate::client::escape;

pub(super) fn run(arguments: RunArguments, place: &Place) -> End {
    let (netns, mut endpoints) = networks(&arguments.networks)?;
    if let Some(first) = endpoints.first_mut() {
        first.ip = arguments.ip.or(first.ip);
        first.mac = arguments.mac.clone().or(first.mac.take());
    }
    let request = SandboxCreate {
        name: arguments.name.clone(),
        netns,
        endpoints,
        command: if arguments.detach { arguments.command.clone() } else { Vec::new() },
        env: pairs(&arguments.env)?,
        hostname: arguments.hostname.clone(),
        auto_remove: true,
    };
    let sandbox = place.client.post("/v1/sandboxes", &json!(request))?;
    let id = sandbox["id"].as_str().unwrap_or_default().to_owned();
    if arguments.detach {
        print(&id);
        return Ok(0);
    }
    let end = foreground(&arguments, &id, place);
    // The daemon removes it when it sees the process end; this is for the case that none started.
    drop(place.client.delete(&format!("/v1/sandboxes/{}?force=true", escape(&id)), None));
    end
}

fn foreground(arguments: &RunArguments, id: &str, place: &Place) -> End {
    let Target { netns, host } = find(id, place)?;
    let environment: BTreeMap<_, _> = pairs(&arguments.env)?;
    let spec = CommandSpec {
        command: arguments.command.clone(),
        environment: environment.into_iter().collect(),
        hostname: arguments.hostname.clone(),
        ..CommandSpec::default()
    };
    let mut child = match process::spawn_in(&netns, host, &spec) {
        Ok(child) => child,
        Err(error) => {
            eprintln!("weft: {error}");
            return Ok(if error.cause.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    let noted = place.client.post(&format!("/v1/sandboxes/{}/process", escape(id)), &json!({ "pid": child.id() }));
    if let Err(error) = noted {
        // It may have ended before it could be noted; then there is nothing to watch.
        tracing::debug!(%error, "the process was not noted");
    }
    let status = child.wait().map_err(unavailable)?;
    Ok(code(status))
}

/// As a shell says it.
fn code(status: std::process::ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(255)
}

/// Reads `--net` words.
fn networks(words: &[String]) -> Result<(NetnsTarget, Vec<EndpointCreate>), ControlError> {
    match words {
        [] => Ok((NetnsTarget::New, vec![EndpointCreate { network: "bridge".into(), ..EndpointCreate::default() }])),
        [mode] if mode == "none" => Ok((NetnsTarget::New, Vec::new())),
        [mode] if mode == "host" => Ok((NetnsTarget::Host, Vec::new())),
        many => Ok((NetnsTarget::New, many.iter().map(|word| endpoint(word)).collect::<Result<_, _>>()?)),
    }
}

/// NETWORK[:key=value,...].
fn endpoint(word: &str) -> Result<EndpointCreate, ControlError> {
    let (network, options) = word.split_once(':').unwrap_or((word, ""));
    let mut endpoint = EndpointCreate { network: network.into(), ..EndpointCreate::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let bad = |what: &str| invalid(option, format!("--net {word}: {value:?} is not {what}"));
        match key {
            "ip" => endpoint.ip = Some(value.parse().map_err(|_| bad("an IPv4 address"))?),
            "ip6" => endpoint.ip6 = Some(value.parse().map_err(|_| bad("an IPv6 address"))?),
            "mac" => endpoint.mac = Some(value.into()),
            "ifname" => endpoint.ifname = Some(value.into()),
            "alias" => endpoint.aliases.push(value.into()),
            "mtu" => endpoint.mtu = Some(value.parse().map_err(|_| bad("a number"))?),
            "isolated" => endpoint.isolated = true,
            "noguard" => endpoint.guard = Some(false),
            "kind" => {
                endpoint.kind = Some(match value {
                    "tap" => EndpointKind::Tap,
                    "veth" => EndpointKind::Veth,
                    _ => return Err(bad("tap or veth")),
                });
            }
            _ => return Err(invalid(option, format!("--net {word}: unknown option {key:?}")).hint("there are ip, ip6, mac, ifname, alias, mtu, kind, isolated, noguard")),
        }
    }
    Ok(endpoint)
}

pub(super) fn exec(arguments: &ExecArguments, place: &Place) -> End {
    let Target { netns, host } = find(&arguments.sandbox, place)?;
    exec_in(&netns, host, &arguments.sandbox, &arguments.command)
}

pub(super) fn exec_in(netns: &Netns, host: Option<i32>, name: &str, command: &[String]) -> End {
    let etc_name = (!name.contains('/')).then(|| name.to_owned());
    let spec = CommandSpec { command: command.to_vec(), etc_name, ..CommandSpec::default() };
    match process::exec(netns, host, &spec) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("weft: {error}");
            Ok(if error.cause.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

pub(super) fn ps(arguments: &PsArguments, place: &Place) -> End {
    let all = place.client.get("/v1/sandboxes")?.as_array().cloned().unwrap_or_default();
    let ours = |sandbox: &&Value| arguments.all || arguments.quiet || sandbox["netns"] == json!("new");
    let shown: Vec<_> = all.iter().filter(ours).collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if arguments.json {
        print_json(&json!(shown));
    } else if arguments.quiet {
        shown.iter().for_each(|sandbox| print(&short(&text(&sandbox["id"]))));
    } else {
        let rows: Vec<_> = shown
            .iter()
            .map(|sandbox| {
                let endpoints = sandbox["endpoints"].as_array().cloned().unwrap_or_default();
                let networks: Vec<_> = endpoints.iter().map(|endpoint| text(&endpoint["network_name"])).collect();
                let addresses: Vec<_> = endpoints.iter().flat_map(|endpoint| endpoint["addresses"].as_array().cloned().unwrap_or_default()).map(|address| text(&address)).collect();
                let command: Vec<_> = sandbox["command"].as_array().into_iter().flatten().map(text).collect();
                let status = sandbox["pid"].as_i64().map_or_else(|| "attached".into(), |pid| format!("running ({pid})"));
                vec![short(&text(&sandbox["id"])), text(&sandbox["name"]), command.join(" "), status, networks.join(","), addresses.join(",")]
            })
            .collect();
        table(&["SANDBOX ID", "NAME", "COMMAND", "STATUS", "NETWORKS", "ADDRESSES"], &rows);
    }
    Ok(0)
}

pub(super) fn inspect(names: &[String], place: &Place) -> End {
    let views: Result<Vec<_>, _> = names.iter().map(|name| place.client.get(&format!("/v1/sandboxes/{}", escape(name)))).collect();
    print_json(&json!(views?));
    Ok(0)
}

pub(super) fn rm(names: &[String], force: bool, place: &Place) -> End {
    each(names, |name| place.client.delete(&format!("/v1/sandboxes/{}?force={force}", escape(name)), None))
}

pub(super) fn logs(name: &str, place: &Place) -> End {
    let sandbox = place.client.get(&format!("/v1/sandboxes/{}", escape(name)))?;
    let path = sandbox["log"].as_str().ok_or_else(|| invalid(name, format!("{name} runs no command of ours")))?;
    let mut file = std::fs::File::open(path).map_err(|error| unavailable(format!("cannot open {path}: {error}")))?;
    std::io::copy(&mut file, &mut std::io::stdout()).map_err(unavailable)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn net_words() {
        let parsed = endpoint("lab:ip=10.0.0.5,mac=02:00:00:00:00:01,kind=veth,isolated").unwrap();
        assert_eq!((parsed.network.as_str(), parsed.ip, parsed.kind, parsed.isolated), ("lab", Some("10.0.0.5".parse().unwrap()), Some(EndpointKind::Veth), true));
        assert_eq!(parsed.mac.as_deref(), Some("02:00:00:00:00:01"));
        for (word, part) in [("lab:ip=x", "IPv4"), ("lab:kind=foo", "tap or veth"), ("lab:what=1", "what")] {
            assert!(endpoint(word).unwrap_err().message.contains(part), "{word}");
        }
        assert_eq!(networks(&["none".into()]).unwrap(), (NetnsTarget::New, Vec::new()));
    }
}
