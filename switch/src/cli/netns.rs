//! `weft netns ...` in iproute2's words, and finding a namespace by whatever names it.

use std::{path::PathBuf, thread::sleep, time::Duration};

use netns_setup::{NamespaceDir, Netns, nsid};
use serde_json::{Value, json};
use weft_control::{Code, ControlError, NetnsTarget};

use super::{End, Place, args::NetnsAction, invalid, network::each, print, print_json, sandbox::exec_in, try_print, unavailable};
use crate::client::escape;

/// A namespace to go into.
pub(super) struct Target {
    pub(super) netns: Netns,
    /// The process whose user and mount namespace must be joined first.
    pub(super) host: Option<i32>,
    /// It is the one we are in: no entering, and no privilege, is needed.
    pub(super) is_here: bool,
    /// Files that lie over those of /etc inside.
    pub(super) etc: Option<PathBuf>,
    /// Host name inside, where it is not the host's.
    pub(super) hostname: Option<String>,
}

/// By sandbox name or id, namespace name, path, or pid.
pub(super) fn find(name: &str, place: &Place) -> Result<Target, ControlError> {
    if let Ok(sandbox) = place.client.get(&format!("/v1/sandboxes/{}", escape(name))) {
        if let Some(path) = sandbox["netns_path"].as_str() {
            let text = |key: &str| sandbox[key].as_str().map(str::to_owned);
            return Ok(Target { etc: text("etc_path").map(PathBuf::from), hostname: text("hostname"), ..open_at(path, rootless_daemon(place)?)? });
        }
        let target = serde_json::from_value(sandbox["netns"].clone()).unwrap_or_default();
        return open(&target, place);
    }
    open(&target(name), place)
}

/// The process that holds a rootless daemon's namespaces, when it is one.
fn rootless_daemon(place: &Place) -> Result<Option<i32>, ControlError> {
    let info = place.client.get("/v1/info")?;
    let pid = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    Ok(pid.filter(|_| info["rootless"] == json!(true)))
}

/// Pins of a rootless daemon are seen only in its mount namespace: through /proc/PID/root.
fn open_at(path: &str, host: Option<i32>) -> Result<Target, ControlError> {
    let path = host.map_or_else(|| path.to_owned(), |pid| format!("/proc/{pid}/root{path}"));
    Ok(Target { netns: Netns::open_path(path).map_err(unavailable)?, host, is_here: false, etc: None, hostname: None })
}

fn open(target: &NetnsTarget, place: &Place) -> Result<Target, ControlError> {
    let opened = match target {
        NetnsTarget::Host | NetnsTarget::New => Netns::current(),
        NetnsTarget::Device(device) => return Err(invalid(device, format!("{device} is a device: it has no namespace of its own"))),
        NetnsTarget::Name(name) => match Names::of(place) {
            Names::Here(names) => names.open(name),
            Names::Daemon { host, .. } => {
                let Some(pin) = place.client.get("/v1/netns")?.as_array().and_then(|all| all.iter().find(|info| info["name"] == json!(name)).cloned()) else {
                    return Err(unknown(name, format!("no sandbox and no namespace {name}")));
                };
                return open_at(pin["path"].as_str().unwrap_or_default(), Some(host));
            }
        },
        NetnsTarget::Pid(pid) => Netns::open_pid(*pid),
        NetnsTarget::Path(path) => Netns::open_path(path),
    };
    let is_here = matches!(target, NetnsTarget::Host);
    opened.map(|netns| Target { netns, host: None, is_here, etc: None, hostname: None }).map_err(|error| unknown("", error.to_string()))
}

fn unknown(subject: &str, message: String) -> ControlError {
    ControlError::new(Code::NotFound, subject, message).hint("want a sandbox (`weft ps -a`), a namespace (`weft netns ls`), a path or a process id")
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

/// Who keeps the names: /run/netns, or a rootless daemon, in whose mount namespace they are.
enum Names<'a> {
    Here(NamespaceDir),
    Daemon { host: i32, place: &'a Place },
}

impl<'a> Names<'a> {
    fn of(place: &'a Place) -> Self {
        match rootless_daemon(place) {
            Ok(Some(host)) => Self::Daemon { host, place },
            Ok(None) | Err(_) => Self::Here(NamespaceDir::default()),
        }
    }

    fn list(&self) -> Result<Vec<String>, ControlError> {
        match self {
            Self::Here(names) => names.list().map_err(unavailable),
            Self::Daemon { place, .. } => {
                let all = place.client.get("/v1/netns")?;
                Ok(all.as_array().into_iter().flatten().filter_map(|info| info["name"].as_str().map(str::to_owned)).collect())
            }
        }
    }

    fn add(&self, name: &str) -> Result<(), ControlError> {
        match self {
            Self::Here(names) => names.add(name).map(drop).map_err(|error| {
                let refused = unavailable(&error);
                if nix::unistd::geteuid().is_root() { refused } else { refused.hint("start `weft daemon` as this user: it keeps names without root") }
            }),
            Self::Daemon { place, .. } => place.client.post("/v1/netns", &json!({ "name": name })).map(drop),
        }
    }

    fn delete(&self, name: &str) -> Result<Value, ControlError> {
        match self {
            Self::Here(names) => names.delete(name).map(|()| Value::Null).map_err(unavailable),
            Self::Daemon { place, .. } => place.client.delete(&format!("/v1/netns/{}", escape(name)), None),
        }
    }
}

pub(super) fn run(action: NetnsAction, place: &Place) -> End {
    let names = Names::of(place);
    match action {
        NetnsAction::Add { name } => names.add(&name)?,
        NetnsAction::Del { names: given, all } => return delete(&names, given, all),
        NetnsAction::Ls { json } => {
            let listed = names.list()?;
            if json {
                print_json(&json!(listed.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>()));
            } else {
                listed.iter().for_each(|name| print(name));
            }
        }
        NetnsAction::Identify { pid } => {
            let pid = match pid {
                Some(pid) => pid,
                None => i32::try_from(std::process::id()).map_err(unavailable)?,
            };
            identify(pid, &names, place)?.iter().for_each(|name| print(name));
        }
        NetnsAction::Pids { name } => open(&NetnsTarget::Name(name), place)?.netns.pids().iter().for_each(|pid| print(&pid.to_string())),
        NetnsAction::Set { name, id } => {
            let wanted = match id.as_str() {
                "auto" => None,
                digits => Some(digits.parse::<u32>().ok().filter(|id| i32::try_from(*id).is_ok()).ok_or_else(|| invalid(digits, format!("{digits:?} is no namespace id")).hint("want a number, or auto"))?),
            };
            let target = open(&NetnsTarget::Name(name), place)?;
            nsid::set(&target.netns, wanted).map_err(unavailable)?;
        }
        NetnsAction::ListId => {
            for (id, name) in known_ids(&names, place)? {
                print(&format!("nsid {id}{}", name.map_or_else(String::new, |name| format!(" (iproute2 netns name: {name})"))));
            }
        }
        NetnsAction::Monitor => monitor(&names)?,
        NetnsAction::Exec { name, command } => return exec_in(&open(&NetnsTarget::Name(name.clone()), place)?, &name, &command),
    }
    Ok(0)
}

/// Ids in this namespace, with the names of those that have one.
fn known_ids(names: &Names<'_>, place: &Place) -> Result<Vec<(u32, Option<String>)>, ControlError> {
    let mut named = Vec::new();
    for name in names.list()? {
        if let Ok(target) = open(&NetnsTarget::Name(name.clone()), place)
            && let Ok(Some(id)) = nsid::get(&target.netns)
        {
            named.push((id, name));
        }
    }
    let ids = nsid::list().map_err(unavailable)?;
    Ok(ids.into_iter().map(|id| (id, named.iter().find(|(known, _)| *known == id).map(|(_, name)| name.clone()))).collect())
}

/// Silent, as `ip netns del`; goes on where one cannot be taken away.
fn delete(names: &Names<'_>, given: Vec<String>, all: bool) -> End {
    let given = if all { names.list()? } else { given };
    if given.is_empty() && !all {
        return Err(invalid("", "which namespace?").hint("name one, or all with --all"));
    }
    each(&given, |name| names.delete(name), |_| ())
}

fn identify(pid: i32, names: &Names<'_>, place: &Place) -> Result<Vec<String>, ControlError> {
    let wanted = Netns::open_pid(pid).map(|netns| netns.identity().ok()).map_err(unavailable)?;
    let same = |name: &String| open(&NetnsTarget::Name(name.clone()), place).is_ok_and(|found| found.netns.identity().ok() == wanted);
    Ok(names.list()?.into_iter().filter(same).collect())
}

/// `ip netns monitor`'s lines. It looks a few times a second, until nobody reads.
fn monitor(names: &Names<'_>) -> Result<(), ControlError> {
    let mut known = names.list()?;
    loop {
        sleep(Duration::from_millis(200));
        let now = names.list()?;
        let gone = known.iter().filter(|name| !now.contains(name)).map(|name| format!("delete {name}"));
        let new = now.iter().filter(|name| !known.contains(name)).map(|name| format!("add {name}"));
        if gone.chain(new).any(|line| try_print(&line).is_err()) {
            return Ok(());
        }
        known = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_name_a_namespace() {
        assert_eq!(target("42"), NetnsTarget::Pid(42));
        assert_eq!(target("/run/netns/a"), NetnsTarget::Path("/run/netns/a".into()));
        assert_eq!(target("web"), NetnsTarget::Name("web".into()));
    }
}
