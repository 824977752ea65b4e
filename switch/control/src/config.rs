//! The daemon's file, and the declarative file of `weft up`: networks, and sandboxes with a command each.

mod default_network;
mod docker;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use serde::Deserialize;

use crate::{
    api::{EndpointCreate, NetworkCreate, SandboxCreate},
    defaults::AddressPool,
    desired::Desired,
    model::NetnsTarget,
};

pub use self::default_network::{DEFAULT_NETWORK, DefaultNetwork};

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

/// A whole file of `weft up`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpFile {
    /// As `--uplink` of the daemon.
    #[serde(default)]
    pub uplink: Option<String>,
    /// `[default-network]`.
    #[serde(default, rename = "default-network")]
    pub default_network: Option<DefaultNetwork>,
    /// `[[network]]`.
    #[serde(default, rename = "network")]
    pub networks: Vec<NetworkCreate>,
    /// `[[sandbox]]`.
    #[serde(default, rename = "sandbox")]
    pub sandboxes: Vec<SandboxEntry>,
}

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

/// A `[[sandbox]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SandboxEntry {
    /// Unique name.
    pub name: String,
    /// Networks to join.
    #[serde(default, rename = "endpoint", alias = "endpoints")]
    pub endpoints: Vec<EndpointCreate>,
    /// Program and arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// Added to its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Ports to publish, in the words of `docker run -p`.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Host name inside; the name when missing.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Servers for names that are not ours.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Domains tried behind a name; `.` for none.
    #[serde(default, alias = "dns_search")]
    pub dns_search: Vec<String>,
    /// Options of resolv.conf(5).
    #[serde(default, alias = "dns_option")]
    pub dns_option: Vec<String>,
    /// Further lines of /etc/hosts: NAME:IP, or NAME:host-gateway.
    #[serde(default, alias = "add_host")]
    pub add_host: Vec<String>,
    /// Sandboxes, defined further up, by a name that only this one knows: NAME[:ALIAS].
    #[serde(default)]
    pub link: Vec<String>,
}

impl UpFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// With line, column and key of what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        file.check()?;
        Ok(file)
    }

    /// What is to be, as a whole.
    #[must_use]
    pub fn desired(&self) -> Desired {
        Desired { default_network: self.default_network.clone(), networks: Some(self.networks.clone()), sandboxes: Some(self.sandboxes.iter().map(SandboxEntry::request).collect()) }
    }

    fn check(&self) -> Result<(), String> {
        if let Some(network) = &self.default_network {
            network.request().map_err(|error| error.to_string())?;
        }
        for sandbox in &self.sandboxes {
            for endpoint in &sandbox.endpoints {
                let known = endpoint.network == "bridge" || self.networks.iter().any(|network| network.name == endpoint.network);
                if !known {
                    return Err(format!("sandbox {:?} wants to join network {:?}, which no [[network]] defines", sandbox.name, endpoint.network));
                }
            }
        }
        Ok(())
    }
}

impl SandboxEntry {
    /// The API's form.
    #[must_use]
    pub fn request(&self) -> SandboxCreate {
        SandboxCreate {
            name: Some(self.name.clone()),
            netns: NetnsTarget::New,
            endpoints: self.endpoints.clone(),
            command: self.command.clone(),
            env: self.env.clone(),
            hostname: self.hostname.clone(),
            publish: self.publish.clone(),
            auto_remove: false,
            dns: self.dns.clone(),
            dns_search: self.dns_search.clone(),
            dns_option: self.dns_option.clone(),
            add_host: self.add_host.clone(),
            link: self.link.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_networks_and_sandboxes() {
        let file = UpFile::parse(
            "[[network]]\nname = \"lab\"\nsubnet = \"10.9.0.0/24\"\n\n[[sandbox]]\nname = \"a\"\nendpoint = [{ network = \"lab\", ip = \"10.9.0.5\" }]\ncommand = [\"sleep\", \"1\"]\n",
        )
        .unwrap();
        assert_eq!(file.networks[0].subnets[0].to_string(), "10.9.0.0/24");
        assert_eq!(file.sandboxes[0].endpoints[0].ip, Some("10.9.0.5".parse().unwrap()));
    }

    #[test]
    fn a_network_may_have_dhcp_and_advertisements() {
        let file = UpFile::parse("[[network]]\nname = \"lab\"\ndhcp = true\ndhcp-range = \"10.9.0.128/25\"\nipv6 = true\nra = true\n\n[[network]]\nname = \"plain\"\n").unwrap();
        let [lab, plain] = &file.networks[..] else { panic!("{file:?}") };
        assert_eq!((lab.dhcp, lab.ra, lab.dhcp_range), (true, true, Some("10.9.0.128/25".parse().unwrap())));
        assert_eq!((plain.dhcp, plain.ra, plain.dhcp_range), (false, false, None));
    }

    #[test]
    fn names_in_docker_s_words() {
        let text = "[[sandbox]]\nname = \"a\"\nendpoint = [{ network = \"bridge\", alias = [\"web\"] }]\ndns = [\"9.9.9.9\"]\ndns_search = [\".\"]\nadd_host = [\"x:1.2.3.4\"]\nlink = [\"db:redis\"]\n";
        for text in [text.to_owned(), text.replace("dns_search", "dns-search").replace("add_host", "add-host")] {
            let request = UpFile::parse(&text).unwrap().sandboxes[0].request();
            assert_eq!((request.dns, request.dns_search), (vec!["9.9.9.9".parse().unwrap()], vec![".".to_owned()]));
            assert_eq!((request.add_host, request.link), (vec!["x:1.2.3.4".to_owned()], vec!["db:redis".to_owned()]));
        }
        let file = DaemonFile::parse("[daemon]\ndns = [\"10.20.1.2\"]\nbridge-names = false\n").unwrap();
        assert_eq!((file.daemon.dns.len(), file.daemon.bridge_names), (1, Some(false)));
        assert!(DaemonFile::parse("[daemon]\ndns = [\"x\"]\n").unwrap_err().contains("line 2"));
        let error = DaemonFile::parse("[daemon]\nnane = 1\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("nane"), "{error}");
    }

    #[test]
    fn a_network_may_span_nodes() {
        let text = "[daemon]\nvxlan-port = 8472\n\n[[network]]\nname = \"wide\"\ndriver = \"overlay\"\nvni = 4096\npeers = [\"192.0.2.2\", \"192.0.2.3:4789\"]\n";
        let file = DaemonFile::parse(text).unwrap();
        let peers: Vec<_> = file.networks[0].peers.iter().map(ToString::to_string).collect();
        assert_eq!((file.daemon.vxlan_port, file.networks[0].vni, peers), (Some(8472), Some(4096), vec!["192.0.2.2".into(), "192.0.2.3:4789".into()]));
        assert!(DaemonFile::parse(&text.replace("192.0.2.2", "node2")).unwrap_err().contains("node2"));
    }

    #[test]
    fn mistakes_are_shown_with_line_and_key() {
        for (text, wanted) in [
            ("[[network]]\nname = \"lab\"\nsubmet = \"10.9.0.0/24\"\n", ["line 3", "submet"]),
            ("[[network]]\nname = \"lab\"\nmtu = \"big\"\n", ["line 3", "mtu"]),
            ("[[sandbox]]\nname = \"a\"\nendpoint = [{ network = \"nope\" }]\n", ["\"a\"", "\"nope\""]),
        ] {
            let error = UpFile::parse(text).unwrap_err();
            assert!(wanted.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
