//! Bridges, and what they learned.

use serde::{Deserialize, Serialize};

/// A bridge as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BridgeInfo {
    /// The network.
    pub name: String,
    /// brctl's form: priority and an address.
    pub id: String,
    /// Always false.
    pub stp: bool,
    /// Ports by name.
    pub interfaces: Vec<String>,
    /// Stations known.
    pub fdb_entries: usize,
}

/// `POST` and `DELETE /v1/fdb`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FdbEdit {
    /// The network.
    pub network: String,
    /// The station.
    pub mac: String,
    /// Its VLAN.
    #[serde(default)]
    pub vlan: Option<u16>,
    /// The port it is behind (to add).
    #[serde(default)]
    pub port: Option<String>,
}

/// An FDB entry; keys as in `bridge -j fdb`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FdbEntry {
    /// The station.
    pub mac: String,
    /// The port it is behind.
    pub ifname: String,
    /// Its VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Always empty.
    pub flags: Vec<String>,
    /// The network.
    pub master: String,
    /// `permanent`, or empty.
    pub state: String,
    /// Seconds since last seen.
    pub used: u64,
}
