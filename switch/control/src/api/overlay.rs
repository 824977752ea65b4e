//! Overlay networks: the nodes and stations they span.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::overlay::Remote;

/// `POST` and `DELETE /v1/networks/{network}/peers`: a node that an overlay spans.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerEdit {
    /// `IP` or `IP:PORT`.
    pub peer: Remote,
}

/// `POST` and `DELETE /v1/networks/{network}/stations`: a station of an overlay, and the node it is behind.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StationEdit {
    /// The station.
    pub mac: String,
    /// The node (to add).
    #[serde(default)]
    pub node: Option<Remote>,
}

/// `GET /v1/overlays`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overlays {
    /// Overlay networks.
    pub networks: Vec<OverlayInfo>,
    /// Drops by reason of all of them, and those that belong to none.
    pub drops: BTreeMap<String, u64>,
}

/// An overlay network as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OverlayInfo {
    /// The network.
    pub network: String,
    /// Its number on the wire.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Largest packet that the tunnel takes now, bytes: less than the network's where a path is smaller.
    pub mtu: u16,
    /// Learns.
    pub learning: bool,
    /// Only peers may speak.
    pub strict: bool,
    /// Hops of packets between nodes; the system's default when missing.
    pub ttl: Option<u8>,
    /// Multicast group.
    pub group: Option<IpAddr>,
    /// How it encrypts, if it does.
    pub encryption: Option<EncryptionInfo>,
    /// Nodes that floods go to.
    pub peers: Vec<String>,
    /// Stations behind other nodes.
    pub remotes: Vec<RemoteStation>,
    /// What passed: `frames_out`, `bytes_out`, `flooded`, `suppressed`, `frames_in`, `bytes_in`, `learned`, `moved`, `evicted`.
    pub counters: BTreeMap<String, u64>,
    /// Drops by reason, those of the tunnel's port among them.
    pub drops: BTreeMap<String, u64>,
}

/// How an overlay encrypts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EncryptionInfo {
    /// The epoch that is sent with; none without keys, when nothing goes.
    pub epoch: Option<u32>,
    /// Epochs that are accepted.
    pub accepted: Vec<u32>,
    /// Sessions of other nodes that are remembered.
    pub sessions: usize,
    /// Why there are no keys, or not those that the cluster's store should have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A station behind another node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoteStation {
    /// The station.
    pub mac: String,
    /// The node.
    pub node: String,
    /// `static`, `pushed` or `learned`.
    pub kind: String,
    /// Seconds since it was heard of, if it was learned.
    pub idle: Option<u64>,
}
