//! Ports of sandboxes.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::model::{NetnsTarget, Storm, Vlan};

/// `PATCH /v1/ports/{name}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PortPatch {
    /// Forwarding and carrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// Largest packet, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Isolation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// VLAN membership; `null` makes the port look at no tags.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub vlan: Option<Option<Vlan>>,
    /// Split-horizon group; `null` takes it out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub horizon: Option<Option<u32>>,
    /// Source guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<bool>,
    /// Storm control; `null` lifts it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub storm: Option<Option<Storm>>,
}

/// A field that is there, even as `null`.
fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// `POST /v1/ports/{name}/move`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PortMove {
    /// Where to.
    pub target: NetnsTarget,
    /// Name there; as before when missing.
    #[serde(default)]
    pub ifname: Option<String>,
}

/// A port as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PortInfo {
    /// Unique name, `SANDBOX:IFNAME`.
    pub name: String,
    /// The network.
    pub network: String,
    /// The sandbox or device behind it.
    pub sandbox: String,
    /// Interface inside.
    pub ifname: String,
    /// TAP, veth, device, or uplink.
    pub kind: String,
    /// Forwarding.
    pub up: bool,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Ethernet address inside.
    pub mac: String,
    /// Addresses inside.
    pub addresses: Vec<IpNetwork>,
    /// Isolation.
    pub isolated: bool,
    /// VLAN membership.
    pub vlan: Option<Vlan>,
    /// Frames in.
    pub rx_frames: u64,
    /// Bytes in.
    pub rx_bytes: u64,
    /// Frames out.
    pub tx_frames: u64,
    /// Bytes out.
    pub tx_bytes: u64,
    /// Drops by reason.
    pub drops: BTreeMap<String, u64>,
}
