//! `weft netns ...` in iproute2's words, and finding a namespace by whatever names it.

use std::{thread::sleep, time::Duration};

use netns_setup::{NamespaceDir, Netns};
use serde_json::json;
use weft_control::{Code, ControlError, NetnsTarget};

use super::{End, Place, args::NetnsAction, print, print_json, sandbox::exec_in, unavailable};
use crate::client::escape;

/// A namespace, and the process whose user and mount namespace must be joined to enter it.
pub(super) struct Target {
    pub(super) netns: Netns,
    pub(super) host: Option<i32>,
}

/// By sandbox name or id, namespace name, path, or pid.
pub(super) fn find(name: &str, place: &Place) -> Result<Target, ControlError> {
    if let Ok(sandbox) = place.client.get(&format!("/v1/sandboxes/{}", escape(name))) {
        if let Some(path) = sandbox["netns_path"].as_str() {
            return find_pinned(path, place);
        }
        let target = serde_json::from_value(sandbox["netns"].clone()).unwrap_or_default();
        return open(&target);
    }
    open(&target(name))
}

/// Pins of a rootless daemon are seen only in its mount namespace: through /proc/PID/root.
fn find_pinned(path: &str, place: &Place) -> Result<Target, ControlError> {
    let info = place.client.get("/v1/info")?;
    let host = info["rootless"].as_bool().unwrap_or(false).then(|| info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())).flatten();
    let path = host.map_or_else(|| path.to_owned(), |pid| format!("/proc/{pid}/root{path}"));
    Ok(Target { netns: Netns::open_path(path).map_err(unavailable)?, host })
}

fn open(target: &NetnsTarget) -> Result<Target, ControlError> {
    let names = NamespaceDir::default();
    let opened = match target {
        NetnsTarget::Host | NetnsTarget::New | NetnsTarget::Device(_) => Netns::current(),
        NetnsTarget::Name(name) => names.open(name),
        NetnsTarget::Pid(pid) => Netns::open_pid(*pid),
        NetnsTarget::Path(path) => Netns::open_path(path),
    };
    opened.map(|netns| Target { netns, host: None }).map_err(|error| {
        ControlError::new(Code::NotFound, "", error.to_string()).hint("want a sandbox, an `ip netns` name, a path or a process id")
    })
}

/// What a word on the command line means.
pub(super) fn target(word: &str) -> NetnsTarget {
    if word.contains('/') {
        return NetnsTarget::Path(word.into());
    }
    match word.parse() {
        Ok(pid) => NetnsTarget::Pid(pid),
        Err(_) => NetnsTarget::Name(word.into()),
    }
}

pub(super) fn run(action: NetnsAction, _place: &Place) -> End {
    let names = NamespaceDir::default();
    match action {
        NetnsAction::Add { name } => drop(names.add(&name).map_err(unavailable)?),
        NetnsAction::Del { names: given, all } => {
            let given = if all { names.list().map_err(unavailable)? } else { given };
            for name in given {
                names.delete(&name).map_err(unavailable)?;
            }
        }
        NetnsAction::Ls { json } => {
            let listed = names.list().map_err(unavailable)?;
            if json {
                print_json(&json!(listed.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>()));
            } else {
                listed.iter().for_each(|name| print(name));
            }
        }
        NetnsAction::Identify { pid } => names.identify(pid).map_err(unavailable)?.iter().for_each(|name| print(name)),
        NetnsAction::Pids { name } => names.open(&name).map_err(unavailable)?.pids().iter().for_each(|pid| print(&pid.to_string())),
        NetnsAction::Monitor => monitor(&names)?,
        NetnsAction::Exec { name, command } => return exec_in(&names.open(&name).map_err(unavailable)?, None, &name, &command),
    }
    Ok(0)
}

/// `ip netns monitor`'s lines. It looks a few times a second.
fn monitor(names: &NamespaceDir) -> Result<(), ControlError> {
    let mut known = names.list().map_err(unavailable)?;
    loop {
        sleep(Duration::from_millis(200));
        let now = names.list().map_err(unavailable)?;
        known.iter().filter(|name| !now.contains(name)).for_each(|name| print(&format!("delete {name}")));
        now.iter().filter(|name| !known.contains(name)).for_each(|name| print(&format!("add {name}")));
        known = now;
    }
}
