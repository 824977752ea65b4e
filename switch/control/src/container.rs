//! What a sandbox is beyond its networks when it was made in Docker's way: a definition that is kept
//! while nothing runs, and what became of it. Field names are Docker's, and so is their JSON.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    api::EndpointCreate,
    error::{Code, ControlError, Result},
    volume::Mount,
};

/// What is run, and with which streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    /// Host name inside.
    pub hostname: String,
    /// The creator wants to write to it.
    pub attach_stdin: bool,
    /// The creator wants to read its output.
    pub attach_stdout: bool,
    /// The creator wants to read its error output.
    pub attach_stderr: bool,
    /// Ports that `-P` publishes, as `80/tcp`.
    pub exposed_ports: BTreeMap<String, Nothing>,
    /// It has a terminal.
    pub tty: bool,
    /// Its standard input is not /dev/null.
    pub open_stdin: bool,
    /// Its standard input ends with the first who was attached.
    pub stdin_once: bool,
    /// `KEY=VALUE`.
    pub env: Vec<String>,
    /// Arguments, or the whole command.
    pub cmd: Vec<String>,
    /// What its root file system is: `host`, or a directory.
    pub image: String,
    /// Where it starts.
    pub working_dir: String,
    /// Before `cmd`.
    pub entrypoint: Vec<String>,
    /// Free text by key.
    pub labels: BTreeMap<String, String>,
}

/// How it meets the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HostConfig {
    /// `bridge`, a network, `host`, `none`, or `container:NAME`.
    pub network_mode: String,
    /// Where its ports are published, by `80/tcp`.
    pub port_bindings: BTreeMap<String, Vec<PortBinding>>,
    /// All its exposed ports are published.
    pub publish_all_ports: bool,
    /// It goes when its process ends.
    pub auto_remove: bool,
    /// `NAME:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Domains that are tried.
    pub dns_search: Vec<String>,
    /// Options of resolv.conf.
    pub dns_options: Vec<String>,
    /// What happens when its process ends.
    pub restart_policy: RestartPolicy,
    /// Height and width of the terminal at the start.
    pub console_size: Vec<u16>,
    /// Other containers by a name that only this one knows: `NAME[:ALIAS]`.
    pub links: Vec<String>,
    /// Files of the host in other places; see [`Bind`](crate::volume::Bind).
    pub binds: Vec<String>,
    /// As they come from `--mount`; kept as `binds`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// How much of its output is kept.
    pub log_config: LogConfig,
}

/// What is kept of a container's output: the latest, at most `max-size` bytes of it in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogConfig {
    /// `json-file`, `local` or nothing, which are one thing here.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `max-size`.
    pub config: BTreeMap<String, String>,
}

/// Bytes of a container's output that are kept unless told.
pub const LOG_BOUND: u64 = 64 << 20;
/// A bound below this would not hold the longest line twice.
const LOG_LEAST: u64 = 64 << 10;

impl LogConfig {
    /// Bytes that are kept.
    ///
    /// # Errors
    /// When it asks for something that is not there.
    pub fn bound(&self) -> Result<u64> {
        let bad = |what: String| ControlError::new(Code::Invalid, &self.kind, what);
        if !matches!(self.kind.as_str(), "" | "json-file" | "local") {
            return Err(bad(format!("weft does not support HostConfig.LogConfig {:?}: there are json-file and local, which are the same here", self.kind)));
        }
        if let Some(option) = self.config.keys().find(|option| *option != "max-size") {
            return Err(bad(format!("unknown log opt '{option}' for {} log driver: there is max-size", self.kind)));
        }
        let Some(text) = self.config.get("max-size") else { return Ok(LOG_BOUND) };
        let size = size_of(text).ok_or_else(|| bad(format!("invalid size: '{text}': want a number with k, m or g")))?;
        if size < LOG_LEAST { Err(bad(format!("max-size={text} is too small: want at least {}k", LOG_LEAST >> 10))) } else { Ok(size) }
    }
}

/// `10m`, `100k`, `1g`, or bytes.
fn size_of(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Where a port is published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortBinding {
    /// Everywhere when empty.
    pub host_ip: String,
    /// Any when empty or zero; may be a range.
    pub host_port: String,
}

/// What happens when the process ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// `no` or empty, `always`, `unless-stopped`, or `on-failure`.
    pub name: String,
    /// Of `on-failure`: after so many it stays ended; zero is no limit.
    pub maximum_retry_count: u32,
}

/// `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Never started.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// Its process ended.
    Exited,
}

impl Phase {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// What is run.
    pub config: Config,
    /// How it meets the host.
    pub host: HostConfig,
    /// Networks to join when it starts; they need not exist before.
    pub networks: Vec<EndpointCreate>,
    /// Where it is in its life.
    pub phase: Phase,
    /// When it was started last, nanoseconds since 1970.
    pub started_ns: u64,
    /// When its process ended.
    pub finished_ns: u64,
    /// What its process ended with.
    pub exit_code: i32,
    /// Why it could not be started.
    pub error: String,
    /// How often it was started again by its policy since somebody started it.
    #[serde(default)]
    pub restarts: u32,
    /// Somebody wanted it to end.
    #[serde(default)]
    pub stopped: bool,
}

impl Container {
    /// Program and arguments.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        self.config.entrypoint.iter().chain(&self.config.cmd).cloned().collect()
    }

    /// Whether its policy starts it again.
    #[must_use]
    pub fn wants_restart(&self) -> bool {
        let RestartPolicy { name, maximum_retry_count: most } = &self.host.restart_policy;
        self.phase == Phase::Exited
            && !self.stopped
            && match name.as_str() {
                "always" | "unless-stopped" => true,
                "on-failure" => self.exit_code != 0 && (*most == 0 || self.restarts < *most),
                _ => false,
            }
    }

    /// How long to wait before that: Docker's 100 ms, doubled each time, unless it ran for a while.
    #[must_use]
    pub fn restart_delay(&self) -> Duration {
        const FIRST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(60);
        const A_WHILE_NS: u64 = 10_000_000_000;
        if self.finished_ns.saturating_sub(self.started_ns) > A_WHILE_NS { FIRST } else { (FIRST * (1 << self.restarts.min(10))).min(LONGEST) }
    }

    /// What it publishes, in the words of `docker run -p`.
    ///
    /// # Errors
    /// When a port has no number.
    pub fn publish(&self) -> Result<Vec<String>> {
        let mut specs = Vec::new();
        for (port, bindings) in &self.host.port_bindings {
            for PortBinding { host_ip, host_port } in bindings {
                let host_port = if host_port == "0" { "" } else { host_port };
                let host_ip = if host_ip.contains(':') && !host_ip.starts_with('[') { format!("[{host_ip}]") } else { host_ip.clone() };
                specs.push(match (host_ip.as_str(), host_port) {
                    ("", "") => port.clone(),
                    ("", host) => format!("{host}:{port}"),
                    (ip, host) => format!("{ip}:{host}:{port}"),
                });
            }
        }
        if self.host.publish_all_ports {
            specs.extend(self.config.exposed_ports.keys().filter(|port| !self.host.port_bindings.contains_key(*port)).cloned());
        }
        for spec in &specs {
            crate::publish::parse(spec).map_err(|error| ControlError::new(Code::Invalid, spec, error.message))?;
        }
        Ok(specs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let ended = |name: &str, exit_code, restarts| Container {
            host: HostConfig { restart_policy: RestartPolicy { name: name.into(), maximum_retry_count: 3 }, ..HostConfig::default() },
            phase: Phase::Exited,
            exit_code,
            restarts,
            ..Container::default()
        };
        assert!(ended("always", 0, 9).wants_restart() && ended("unless-stopped", 1, 9).wants_restart() && ended("on-failure", 1, 2).wants_restart());
        assert!(!ended("on-failure", 1, 3).wants_restart() && !ended("on-failure", 0, 0).wants_restart() && !ended("no", 1, 0).wants_restart() && !ended("", 1, 0).wants_restart());
        assert!(!Container { stopped: true, ..ended("always", 0, 0) }.wants_restart() && !Container { phase: Phase::Running, ..ended("always", 0, 0) }.wants_restart());
        assert_eq!([0, 1, 30].map(|restarts| ended("always", 0, restarts).restart_delay().as_millis()), [100, 200, 60_000]);
    }

    #[test]
    fn logs_are_bounded() {
        let config = |kind: &str, options: &[(&str, &str)]| LogConfig { kind: kind.into(), config: options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect() };
        assert_eq!(LogConfig::default().bound().unwrap(), LOG_BOUND);
        assert_eq!(config("json-file", &[("max-size", "10m")]).bound().unwrap(), 10 << 20);
        for (bad, culprit) in [(config("none", &[]), "none"), (config("", &[("tag", "x")]), "tag"), (config("", &[("max-size", "much")]), "much"), (config("", &[("max-size", "1k")]), "small"), (config("", &[("max-size", "99999999999999g")]), "9g")] {
            assert!(bad.bound().unwrap_err().message.contains(culprit), "{bad:?}");
        }
    }

    #[test]
    fn ports_in_the_words_of_the_command_line() {
        let binding = |ip: &str, port: &str| PortBinding { host_ip: ip.into(), host_port: port.into() };
        let bindings = BTreeMap::from([("80/tcp".to_owned(), vec![binding("", "8080"), binding("127.0.0.1", ""), binding("::1", "0")]), ("53/udp".to_owned(), vec![binding("", "0")])]);
        let exposed = BTreeMap::from([("80/tcp".to_owned(), Nothing {}), ("443/tcp".to_owned(), Nothing {})]);
        let container = Container {
            config: Config { exposed_ports: exposed, ..Config::default() },
            host: HostConfig { port_bindings: bindings, publish_all_ports: true, ..HostConfig::default() },
            ..Container::default()
        };
        assert_eq!(container.publish().unwrap(), ["53/udp", "8080:80/tcp", "127.0.0.1::80/tcp", "[::1]::80/tcp", "443/tcp"]);
        let bad = Container { host: HostConfig { port_bindings: BTreeMap::from([("http/tcp".to_owned(), vec![binding("", "")])]), ..HostConfig::default() }, ..Container::default() };
        assert!(bad.publish().unwrap_err().message.contains("http"));
    }
}
