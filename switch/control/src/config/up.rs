//! The declarative file of `weft up`: networks, and sandboxes with a command each.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

use super::DefaultNetwork;
use crate::{
    api::{EndpointCreate, NetworkCreate, SandboxCreate},
    desired::Desired,
    model::NetnsTarget,
};

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

    pub(super) fn check(&self) -> Result<(), String> {
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
    use crate::config::DaemonFile;

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
