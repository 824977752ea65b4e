//! Nodes that share networks through a [`Store`](crate::store::Store): what they write there, and what they make of it.
//!
//! The model stays the only truth that a node acts on: it holds the cluster's networks, and of the other nodes what
//! [`Elsewhere`] has. [`Replica`] is the store as it was last seen; [`reconcile`] makes the model match it. What this
//! node changes goes to the store first, as one transaction that holds only if nobody was there before ([`Member`]).
//! Everything that belongs to a node hangs on its lease; networks do not.

mod keys;
mod member;
mod mesh;
mod reconcile;
mod record;
mod replica;
mod secrets;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    net::IpAddr,
};

use imbl::OrdMap;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

pub use keys::{Keys, PREFIX};
pub use member::{ClusterError, Lost, Member};
pub use reconcile::{missing, reconcile};
pub use record::{NodeRecord, RecordError};
pub use replica::{Replica, SecretsError};
pub use secrets::{Epochs, Rotation};

use crate::{
    mesh::{MeshClaim, MeshPort},
    publish::Protocol,
};

/// The network of a node that gives sandboxes of shared networks their way out, as Docker calls it.
pub const WAY_OUT: &str = "docker_gwbridge";

/// What is known of the cluster's nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// All nodes, this one too, by name.
    #[serde(default)]
    pub nodes: OrdMap<String, Node>,
    /// Endpoints on other nodes, by id.
    #[serde(default)]
    pub endpoints: OrdMap<String, RemoteEndpoint>,
    /// Whose the ports of the routing mesh are, by what [`MeshClaim::id`] says.
    #[serde(default)]
    pub mesh: OrdMap<String, MeshClaim>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Unique name.
    pub name: String,
    /// Where other nodes reach it.
    pub ip: IpAddr,
    /// Its API's port, if it advertises one.
    #[serde(default)]
    pub api_port: Option<u16>,
    /// UDP port of its tunnels.
    pub vxlan_port: u16,
    /// When it joined, nanoseconds since 1970.
    pub since_ns: u64,
    /// The Ethernet address of its station in the routing mesh, if it takes part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub station: Option<String>,
}

/// An endpoint on another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteEndpoint {
    /// Id of the network.
    pub network: String,
    /// Name of the node.
    pub node: String,
    /// Id of its sandbox.
    pub sandbox: String,
    /// Name of its sandbox.
    pub name: String,
    /// It is known by that name on this node too.
    pub named: bool,
    /// Host name inside.
    pub hostname: Option<String>,
    /// Further names.
    pub aliases: Vec<String>,
    /// Services whose virtual addresses lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<String>,
    /// Ethernet address.
    pub mac: String,
    /// Addresses with the subnet's prefix length.
    pub addresses: Vec<IpNetwork>,
    /// What it publishes.
    pub services: BTreeSet<(Protocol, u16)>,
    /// What it serves in the routing mesh.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub mesh: BTreeSet<MeshPort>,
    /// It forwards.
    pub up: bool,
}

impl RemoteEndpoint {
    /// Its name and where it is.
    #[must_use]
    pub fn described(&self) -> String {
        format!("{} on {}", self.name, self.node)
    }
}
