//! What an endpoint is.

use std::{fmt, net::IpAddr};

use ipnetwork::IpNetwork;
use packet::VlanId;
use serde::{Deserialize, Serialize};

use super::{Sandbox, Storm, invalid};
use crate::{error::Result, names::Link};

/// What carries an endpoint's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointKind {
    /// A TAP device inside.
    Tap,
    /// A veth pair with a packet socket.
    Veth,
    /// A packet socket on a device of the host.
    Device,
}

impl fmt::Display for EndpointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tap => "tap",
            Self::Veth => "veth",
            Self::Device => "device",
        })
    }
}

/// 802.1Q membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Vlan {
    /// Untagged member of one VLAN.
    Access(u16),
    /// Tagged member of these (of all when empty), untagged of `native`.
    Trunk {
        /// Members.
        #[serde(default)]
        allowed: Vec<u16>,
        /// VLAN of untagged frames.
        #[serde(default)]
        native: Option<u16>,
    },
}

impl Vlan {
    /// # Errors
    /// When an id is outside 1 to 4094.
    pub fn check(&self) -> Result<()> {
        let ids: Vec<u16> = match self {
            Self::Access(id) => vec![*id],
            Self::Trunk { allowed, native } => allowed.iter().copied().chain(*native).collect(),
        };
        match ids.iter().find(|&&id| VlanId::new(id).is_none()) {
            Some(bad) => Err(invalid(bad.to_string(), format!("VLAN {bad} is outside 1 to 4094"))),
            None => Ok(()),
        }
    }
}

/// A sandbox's membership in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hex digits.
    pub id: String,
    /// Id of the network.
    pub network: String,
    /// Name inside.
    pub ifname: String,
    /// What carries the frames.
    pub kind: EndpointKind,
    /// Ethernet address.
    pub mac: String,
    /// Addresses with the subnet's prefix length.
    pub addresses: Vec<IpNetwork>,
    /// Default routes.
    pub gateways: Vec<IpAddr>,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// VLAN membership.
    pub vlan: Option<Vlan>,
    /// Isolation.
    pub isolated: bool,
    /// Split-horizon group.
    pub horizon: Option<u32>,
    /// Source guard.
    pub guard: bool,
    /// Further names.
    pub aliases: Vec<String>,
    /// Services that it is part of, by names that lead to their virtual addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<String>,
    /// Storm control.
    #[serde(default)]
    pub storm: Option<Storm>,
    /// Forwarding and carrier, as `link set` left it.
    #[serde(default = "super::yes")]
    pub up: bool,
    /// Others by a name that only its sandbox knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link: Vec<Link>,
    /// Further addresses, of the link only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_local: Vec<IpAddr>,
    /// The default route goes by the endpoint with the highest.
    #[serde(default)]
    pub gw_priority: i32,
    /// Of the interface.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<String>,
}

impl Endpoint {
    /// Name of the switch's end of a veth pair: 15 characters from the id.
    #[must_use]
    pub fn peer_name(&self) -> String {
        format!("wv{}", &self.id[..13])
    }
}

/// The name of an endpoint's port.
#[must_use]
pub fn port_name(sandbox: &Sandbox, endpoint: &Endpoint) -> String {
    format!("{}:{}", sandbox.name, endpoint.ifname)
}
