//! Files in TOML: the daemon's, that of `weft up`, and what `weft config` reads, which may be either.

mod daemon;
mod default_network;
mod docker;
mod up;

use serde::Deserialize;

pub use self::{
    daemon::{ClusterSection, DaemonFile, DaemonSection, NatSection},
    default_network::{DEFAULT_NETWORK, DefaultNetwork},
    up::{SandboxEntry, UpFile},
};
use crate::{api::NetworkCreate, desired::Desired};

/// A file of `weft config`: that of `weft up`, or the daemon's, whose own sections only count when it starts.
///
/// # Errors
/// With the key, and in TOML line and column, of what is wrong.
pub fn desired(text: &str) -> Result<(Desired, Vec<String>), String> {
    const AT_START: [&str; 4] = ["daemon", "nat", "cluster", "uplink"];
    if text.trim_start().starts_with('{') {
        let file = DaemonFile::parse(text)?;
        let mut notices = file.notices;
        notices.push("of a daemon.json only the default network can change while the daemon runs".into());
        return Ok((Desired { default_network: file.default_network, ..Desired::default() }, notices));
    }
    // Whole first, so that mistakes keep their lines.
    let sections: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let at_start: Vec<_> = AT_START.iter().filter(|key| sections.contains_key(**key)).copied().collect();
    let file: ConfigFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let file = UpFile { uplink: None, default_network: file.default_network, networks: file.networks, sandboxes: file.sandboxes };
    file.check()?;
    let notices = if at_start.is_empty() { Vec::new() } else { vec![format!("{}: read when the daemon starts, not compared", at_start.join(", "))] };
    Ok((file.desired(), notices))
}

/// All that a file may say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    #[serde(default, rename = "daemon")]
    _daemon: DaemonSection,
    #[serde(default, rename = "nat")]
    _nat: NatSection,
    #[serde(default, rename = "cluster")]
    _cluster: ClusterSection,
    #[serde(default, rename = "uplink")]
    _uplink: Option<String>,
    #[serde(default, rename = "default-network")]
    default_network: Option<DefaultNetwork>,
    #[serde(default, rename = "network")]
    networks: Vec<NetworkCreate>,
    #[serde(default, rename = "sandbox")]
    sandboxes: Vec<SandboxEntry>,
}
