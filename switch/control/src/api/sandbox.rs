//! Sandboxes and named namespaces.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::EndpointCreate;
use crate::model::NetnsTarget;

/// `POST /v1/sandboxes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SandboxCreate {
    /// Unique name; made up when missing.
    #[serde(default)]
    pub name: Option<String>,
    /// Whose network namespace.
    #[serde(default)]
    pub netns: NetnsTarget,
    /// Networks to join.
    #[serde(default)]
    pub endpoints: Vec<EndpointCreate>,
    /// Command to start, detached.
    #[serde(default)]
    pub command: Vec<String>,
    /// Added to its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Host name inside.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Ports to publish, in the words of `docker run -p`.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Remove when its process ends.
    #[serde(default, alias = "rm")]
    pub auto_remove: bool,
    /// Servers for names that are not ours; the network's, or the host's, when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Domains tried behind a name; `.` for none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// Options of resolv.conf(5).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_option: Vec<String>,
    /// Further lines of /etc/hosts: NAME:IP, or NAME:host-gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_host: Vec<String>,
    /// Sandboxes by a name that only this one knows: NAME[:ALIAS].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link: Vec<String>,
}

/// `POST /v1/sandboxes/{id}/process`: the caller started a process inside.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessStarted {
    /// Its id, as the caller sees it.
    pub pid: i32,
}

/// `POST /v1/netns`: a named namespace, for those who cannot make one themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetnsCreate {
    /// Its name.
    pub name: String,
}

/// An entry of `GET /v1/netns`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsInfo {
    /// Its name.
    pub name: String,
    /// Where it is pinned; of a rootless daemon, in the daemon's mount namespace.
    pub path: String,
    /// Processes inside.
    pub pids: Vec<i32>,
}
