//! What a network is.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    ipam,
    lan::{self, Lan},
    overlay::Overlay,
};

/// How a network forwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum L2 {
    /// 802.1D.
    #[default]
    Bridge,
    /// Everything passes.
    Transparent,
    /// A repeater.
    Hub,
}

/// How translation behaves (RFC 4787), by the names that are in use for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatPreset {
    /// Whoever learns of a mapping may use it.
    FullCone,
    /// Addresses that were sent to may.
    Restricted,
    /// Ends that were sent to may.
    PortRestricted,
    /// As that, and each destination sees another port.
    Symmetric,
    /// RFC 6888.
    Cgnat,
}

impl NatPreset {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FullCone => "full-cone",
            Self::Restricted => "restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::Cgnat => "cgnat",
        }
    }
}

/// Limit on what a port may cause to be flooded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Storm {
    /// Broadcast, multicast and unknown unicast frames a second.
    pub frames_per_second: u32,
    /// How many at once; a second's worth when missing.
    #[serde(default)]
    pub burst: Option<u32>,
}

/// An address pool of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The subnet.
    pub subnet: IpNetwork,
    /// Reserved for the network itself.
    pub gateway: IpAddr,
    /// Part of the subnet that is handed out.
    pub range: IpNetwork,
    /// Last address handed out.
    pub cursor: Option<IpAddr>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 64 hex digits.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// `bridge`, `overlay`, or a name of the lan driver.
    pub driver: String,
    /// How it forwards.
    pub l2: L2,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// No default route.
    pub internal: bool,
    /// Idle time of learned addresses, seconds.
    pub ageing_s: u32,
    /// At most one per family.
    pub pools: Vec<Pool>,
    /// Never handed out.
    pub aux_addresses: BTreeMap<String, IpAddr>,
    /// Further addresses of the gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_addresses: Vec<IpAddr>,
    /// Virtual addresses by service, one a family.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vips: BTreeMap<String, Vec<IpAddr>>,
    /// Free text by key.
    pub labels: BTreeMap<String, String>,
    /// Whether its sandboxes may open flows to the outside.
    #[serde(default = "super::yes")]
    pub masquerade: bool,
    /// How its translation behaves.
    #[serde(default)]
    pub nat: Option<NatPreset>,
    /// Addresses that its packets leave under; the uplink's own when empty.
    #[serde(default)]
    pub nat_source: Vec<IpAddr>,
    /// Its external IPv6 prefix.
    #[serde(default)]
    pub nat_prefix: Option<ipnetwork::Ipv6Network>,
    /// Where its ports are published unless they say otherwise.
    #[serde(default)]
    pub host_binding: Option<IpAddr>,
    /// Interfaces inside are called so, with a number behind.
    #[serde(default)]
    pub ifname_prefix: Option<String>,
    /// Endpoints are isolated unless they say otherwise.
    #[serde(default)]
    pub isolated_default: bool,
    /// Storm control of endpoints.
    #[serde(default)]
    pub storm: Option<Storm>,
    /// The part of the IPv4 subnet that DHCP hands out; without one there is no DHCP.
    #[serde(default)]
    pub dhcp_range: Option<IpNetwork>,
    /// The gateway advertises itself as an IPv6 router.
    #[serde(default)]
    pub ra: bool,
    /// Its sandboxes know each other by name.
    #[serde(default = "super::yes")]
    pub names: bool,
    /// Servers for other names; the host's when empty.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// How it spans nodes, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    /// How it is part of a LAN, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lan: Option<Lan>,
    /// Driver options as they were given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Shown, as Docker does for networks of one host.
    #[serde(default)]
    pub attachable: bool,
    /// Published ports of services come in by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ingress: bool,
    /// The configuration that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_from: Option<String>,
    /// Nanoseconds since 1970.
    #[serde(default)]
    pub created_ns: u64,
}

impl Network {
    /// Whether it is the cluster's.
    #[must_use]
    pub fn is_global(&self) -> bool {
        self.overlay.as_ref().is_some_and(|overlay| overlay.global)
    }

    /// Of a lan: what the host has on its device.
    pub(super) fn host_addresses(&self) -> &[IpAddr] {
        self.lan.as_ref().map_or(&[], |lan| &lan.host)
    }

    /// Whether weft is its router: to the outside, and in from published ports.
    #[must_use]
    pub fn has_router(&self) -> bool {
        !self.internal && self.l2 == L2::Bridge && !self.pools.is_empty() && self.lan.is_none()
    }

    /// Where its sandboxes ask for names: at its gateway, or on a LAN, whose gateway is another's, at an address
    /// that is nobody else's.
    #[must_use]
    pub fn resolvers(&self) -> Vec<IpAddr> {
        match &self.lan {
            _ if self.l2 != L2::Bridge => Vec::new(),
            Some(_) => lan::resolver(&self.pools).into_iter().collect(),
            None => self.pools.iter().map(|pool| pool.gateway).collect(),
        }
    }

    /// Whether published ports of services come in by it, on each node of the cluster.
    #[must_use]
    pub fn is_mesh(&self) -> bool {
        self.ingress && self.is_global() && !self.internal
    }

    /// First and last address that DHCP may hand out.
    #[must_use]
    pub fn dhcp_hosts(&self) -> Option<(IpAddr, IpAddr)> {
        let pool = self.pools.iter().find(|pool| pool.subnet.is_ipv4())?;
        ipam::host_range(self.dhcp_range?, pool.subnet)
    }
}
