//! Endpoints: who joins a network, and how.

use std::{collections::BTreeMap, net::{IpAddr, Ipv4Addr, Ipv6Addr}};

use serde::{Deserialize, Serialize};

use crate::{model::{EndpointKind, NetnsTarget, Vlan}, names::Link};

/// A sandbox's wish to be in a network; also in an `up` file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EndpointCreate {
    /// Name or id of the network.
    pub network: String,
    /// IPv4 address; the next free one when missing.
    #[serde(default)]
    pub ip: Option<Ipv4Addr>,
    /// IPv6 address; the next free one when missing.
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    /// Ethernet address; derived from the IPv4 address when missing.
    #[serde(default)]
    pub mac: Option<String>,
    /// Name inside; the next free `ethN` when missing.
    #[serde(default)]
    pub ifname: Option<String>,
    /// TAP or veth; what the machine allows when missing.
    #[serde(default)]
    pub kind: Option<EndpointKind>,
    /// Largest packet, bytes; the network's when missing.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// VLAN membership.
    #[serde(default)]
    pub vlan: Option<Vlan>,
    /// Talks only to ports that are not isolated.
    #[serde(default)]
    pub isolated: bool,
    /// Split-horizon group.
    #[serde(default)]
    pub horizon: Option<u32>,
    /// Source guard; on for sandboxes that we made, off for others, when missing.
    #[serde(default)]
    pub guard: Option<bool>,
    /// Further names.
    #[serde(default, alias = "alias")]
    pub aliases: Vec<String>,
    /// Services that it is part of: names that lead to one virtual address, whose connections are balanced.
    #[serde(default, alias = "vip", skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<String>,
    /// Sandboxes of this network by a name that only this one knows: NAME[:ALIAS].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link: Vec<Link>,
    /// Further addresses, of the link only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_local: Vec<IpAddr>,
    /// The default route goes by the network with the highest.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gw_priority: i32,
    /// Of the interface; see [`sysctl`](crate::sysctl).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<String>,
    /// Docker's driver options as they were given, to be shown; their effect is in the other fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// `POST /v1/attach`: a namespace or device that is not ours joins a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Attach {
    /// What joins.
    pub target: NetnsTarget,
    /// How.
    pub endpoint: EndpointCreate,
}

/// `POST /v1/detach`: by port name, or by network and target.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Detach {
    /// Name of a port.
    #[serde(default)]
    pub port: Option<String>,
    /// Name or id of a network.
    #[serde(default)]
    pub network: Option<String>,
    /// What leaves it.
    #[serde(default)]
    pub target: Option<NetnsTarget>,
}

/// Docker's endpoint option for [`EndpointCreate::vips`]: names with commas between.
pub const VIP_OPTION: &str = "weft.vip";

/// The services that its value names, with commas between.
pub(crate) fn vips_of(value: &str) -> impl Iterator<Item = String> {
    value.split(',').map(|name| name.trim().to_owned())
}
