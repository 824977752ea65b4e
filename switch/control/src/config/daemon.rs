//! The daemon's own file, `weft daemon --config`.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use serde::Deserialize;

use super::{DefaultNetwork, docker};
use crate::{api::NetworkCreate, defaults::AddressPool};

/// The daemon's file: `weft daemon --config`. Docker's daemon.json is one in other words.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonFile {
    /// `[daemon]`.
    #[serde(default)]
    pub daemon: DaemonSection,
    /// `[default-network]`.
    #[serde(default, rename = "default-network")]
    pub default_network: Option<DefaultNetwork>,
    /// `[cluster]`.
    #[serde(default)]
    pub cluster: ClusterSection,
    /// `[nat]`.
    #[serde(default)]
    pub nat: NatSection,
    /// `[[network]]`: made at start unless they are there.
    #[serde(default, rename = "network")]
    pub networks: Vec<NetworkCreate>,
    /// What was said without effect, to be told.
    #[serde(skip)]
    pub notices: Vec<String>,
}

impl DaemonFile {
    /// Reads a file's text: TOML, or Docker's daemon.json if it begins with a brace.
    ///
    /// # Errors
    /// With the key, and in TOML line and column, of what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut file = if text.trim_start().starts_with('{') { docker::parse(text)? } else { toml::from_str(text).map_err(|error| error.to_string())? };
        if let Some(network) = &file.default_network {
            network.request().map_err(|error| error.to_string())?;
            file.notices.extend(network.notices());
        }
        Ok(file)
    }
}

/// `[daemon]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DaemonSection {
    /// `auto`, `uring` or `epoll`.
    #[serde(default)]
    pub io: Option<String>,
    /// As `--log`.
    #[serde(default)]
    pub log: Option<String>,
    /// In a user namespace of its own, even as root.
    #[serde(default)]
    pub rootless: bool,
    /// As `--uplink`.
    #[serde(default)]
    pub uplink: Option<String>,
    /// As `-H` of `weft daemon`: where the API listens.
    #[serde(default, alias = "listen")]
    pub hosts: Vec<String>,
    /// `tcp://` speaks TLS.
    #[serde(default)]
    pub tls: bool,
    /// And only to clients whose certificate `tlscacert` signed.
    #[serde(default)]
    pub tlsverify: bool,
    /// Who signs clients' certificates; a file in PEM.
    #[serde(default)]
    pub tlscacert: Option<PathBuf>,
    /// The daemon's certificate; a file in PEM.
    #[serde(default)]
    pub tlscert: Option<PathBuf>,
    /// Its key; a file in PEM.
    #[serde(default)]
    pub tlskey: Option<PathBuf>,
    /// As `log = "debug"`.
    #[serde(default)]
    pub debug: bool,
    /// `debug`, `info`, `warn`, `error` or `fatal`.
    #[serde(default)]
    pub log_level: Option<String>,
    /// KEY=VALUE, shown by `docker info`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Servers for names that are not ours, where a network has none of its own; the host's when empty.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Domains tried behind a name, where a sandbox has none of its own; the host's when empty.
    #[serde(default)]
    pub dns_search: Vec<String>,
    /// Options of resolv.conf(5), where a sandbox has none of its own.
    #[serde(default)]
    pub dns_opts: Vec<String>,
    /// Where networks without a subnet get theirs from; Docker's when empty.
    #[serde(default)]
    pub default_address_pools: Vec<AddressPool>,
    /// Driver options of new networks, by driver.
    #[serde(default)]
    pub default_network_opts: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether sandboxes on the default network know each other by name (in Docker they do not).
    #[serde(default)]
    pub bridge_names: Option<bool>,
    /// As `--vxlan-port`.
    #[serde(default)]
    pub vxlan_port: Option<u16>,
}

/// `[nat]`: how long what is translated lives without being used, seconds; the RFCs' values when missing.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NatSection {
    /// UDP (RFC 4787 REQ-5).
    pub udp_s: Option<u64>,
    /// TCP, established (RFC 5382 REQ-5).
    pub tcp_established_s: Option<u64>,
    /// TCP, opening or closing (RFC 5382 REQ-5).
    pub tcp_transitory_s: Option<u64>,
    /// ICMP queries (RFC 5508 REQ-2).
    pub icmp_s: Option<u64>,
    /// Other protocols.
    pub other_s: Option<u64>,
}

/// `[cluster]`: as the options `--cluster-...` and `--node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ClusterSection {
    /// `etcd://HOST[:PORT][,...]`.
    pub store: Option<String>,
    /// `IP[:PORT]`.
    pub advertise: Option<String>,
    /// Name of this node.
    pub node: Option<String>,
    /// `15s`.
    pub lease: Option<String>,
    /// Path of everything in the store.
    pub prefix: Option<String>,
    /// As `--cluster-ca`.
    pub ca: Option<PathBuf>,
    /// As `--cluster-cert`.
    pub cert: Option<PathBuf>,
    /// As `--cluster-key`.
    pub key: Option<PathBuf>,
    /// As `--cluster-user`.
    pub user: Option<String>,
    /// As `--cluster-password-file`.
    pub password_file: Option<PathBuf>,
    /// Docker's `cluster-store-opts`.
    pub store_opts: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_may_span_nodes() {
        let text = "[daemon]\nvxlan-port = 8472\n\n[[network]]\nname = \"wide\"\ndriver = \"overlay\"\nvni = 4096\npeers = [\"192.0.2.2\", \"192.0.2.3:4789\"]\n";
        let file = DaemonFile::parse(text).unwrap();
        let peers: Vec<_> = file.networks[0].peers.iter().map(ToString::to_string).collect();
        assert_eq!((file.daemon.vxlan_port, file.networks[0].vni, peers), (Some(8472), Some(4096), vec!["192.0.2.2".into(), "192.0.2.3:4789".into()]));
        assert!(DaemonFile::parse(&text.replace("192.0.2.2", "node2")).unwrap_err().contains("node2"));
    }
}
