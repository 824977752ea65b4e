//! Nodes of the cluster.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// An entry of `GET /v1/nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Unique name.
    pub name: String,
    /// Where other nodes reach its tunnels.
    pub ip: IpAddr,
    /// Its API's port, if it advertises one.
    pub api_port: Option<u16>,
    /// UDP port of its tunnels.
    pub vxlan_port: u16,
    /// When it joined, nanoseconds since 1970.
    pub since_ns: u64,
    /// The one that was asked.
    pub own: bool,
}

/// An entry of `GET /v1/cluster/checks`: something that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// It answers as it should.
    pub ok: bool,
    /// What, where, and what came of it.
    pub text: String,
    /// What that may mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
