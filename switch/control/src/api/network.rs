//! Networks, and routes between them.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{model::{L2, NatPreset, Storm}, overlay::Remote};

/// `POST /v1/networks`; also a `[[network]]` of an `up` file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkCreate {
    /// Unique name.
    pub name: String,
    /// `bridge` (the default), `overlay` or `lan` (also by Docker's names, `macvlan` and `ipvlan`).
    #[serde(default)]
    pub driver: Option<String>,
    /// Address pools; the next free private one when empty.
    #[serde(default, alias = "subnet", deserialize_with = "one_or_many")]
    pub subnets: Vec<IpNetwork>,
    /// Gateway of each pool, by order; the first address when missing.
    #[serde(default, alias = "gateway", deserialize_with = "one_or_many")]
    pub gateways: Vec<IpAddr>,
    /// Part of the first pool that is handed out.
    #[serde(default)]
    pub ip_range: Option<IpNetwork>,
    /// Addresses never handed out, by label.
    #[serde(default)]
    pub aux_addresses: BTreeMap<String, IpAddr>,
    /// Further addresses that the gateway answers for (Docker's `bip` beside a `default-gateway`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_addresses: Vec<IpAddr>,
    /// No way out: no default route.
    #[serde(default)]
    pub internal: bool,
    /// The gateway lends IPv4 addresses: to sandboxes their own, to other stations those of `dhcp-range`.
    #[serde(default)]
    pub dhcp: bool,
    /// Part of the IPv4 subnet that only DHCP hands out; the upper quarter when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_range: Option<IpNetwork>,
    /// The gateway advertises itself and the IPv6 subnet (router advertisements).
    #[serde(default)]
    pub ra: bool,
    /// Largest packet, bytes (default 1500; of an overlay 1450, or 1430 over IPv6).
    #[serde(default)]
    pub mtu: Option<u32>,
    /// How it forwards.
    #[serde(default)]
    pub l2: L2,
    /// No addresses at all.
    #[serde(default)]
    pub no_ipam: bool,
    /// An IPv6 subnet too; a unique local one (RFC 4193) unless `subnets` has one.
    #[serde(default)]
    pub ipv6: bool,
    /// No IPv4 subnet where none is named; wants `ipv6`, or a subnet of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_ipv4: bool,
    /// Whether its sandboxes may open flows to the outside; they may unless told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masquerade: Option<bool>,
    /// How translation behaves towards peers, on an uplink of packets: a preset of RFC 4787's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<NatPreset>,
    /// Addresses that packets leave under, instead of the uplink's own; an inside address keeps to one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub nat_source: Vec<IpAddr>,
    /// External prefix of IPv6 instead of one address (RFC 6296), on an uplink of packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat_prefix: Option<ipnetwork::Ipv6Network>,
    /// Where its ports are published unless they say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_binding: Option<IpAddr>,
    /// Interfaces inside are called so, with a number behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifname_prefix: Option<String>,
    /// Its ports are isolated from one another unless an endpoint says otherwise.
    #[serde(default)]
    pub isolated_default: bool,
    /// Storm control of its ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storm: Option<Storm>,
    /// Idle time after which a learned address is forgotten, seconds.
    #[serde(default)]
    pub ageing_s: Option<u32>,
    /// Its sandboxes know each other by name; they do unless told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<bool>,
    /// Servers for other names; the host's when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub dns: Vec<IpAddr>,
    /// Of all nodes of the cluster; so are overlays, in a cluster, unless they name their peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<bool>,
    /// Of an overlay: its number on the wire; the first free one from 4096 when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// Of an overlay: the other nodes, `IP` or `IP:PORT`. An address of this node is left out.
    #[serde(default, alias = "peer", skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub peers: Vec<Remote>,
    /// Of an overlay: learn which station is behind which node (default), or only be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<bool>,
    /// Of an overlay: only peers may speak; so by default, unless there is a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Of an overlay: UDP port of all nodes; the daemon's when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan_port: Option<u16>,
    /// Of an overlay: hops of packets between nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// Of an overlay: a multicast group to join and flood to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<IpAddr>,
    /// Of an overlay: what goes between nodes is encrypted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// Of an encrypted overlay: an absolute path on each node, where the daemon reads the keys (see `weft vxlan rekey --help`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Of a lan: the device of the host that is its port there, or `DEVICE.VLAN`; an isolated network without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Of a lan: the addresses that the host has on the device. The node looks; no request says it.
    #[serde(skip)]
    pub host_addresses: Vec<IpAddr>,
    /// Of an encrypted overlay of a cluster: how long a key is used, seconds (43200); 0 for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rekey_s: Option<u32>,
    /// Free text by key.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Docker's driver options as they were given, to be shown; their effect is in the other fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Shown, as Docker does for networks of one host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attachable: bool,
    /// Of an overlay: the one that published ports of services come in by.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ingress: bool,
    /// Its addresses and options are those of this configuration (`docker network create --config-only`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_from: Option<String>,
}

/// `POST` and `DELETE /v1/routes`, and an entry of `GET /v1/routes`: two networks that reach each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutePair {
    /// Names or ids of the networks.
    pub networks: [String; 2],
}

/// An entry of `GET /v1/networks/{network}/leases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// The address.
    pub address: std::net::Ipv4Addr,
    /// A MAC address or a client identifier; none when a client found a stranger there.
    pub client: Option<String>,
    /// The name that goes with it.
    pub host_name: Option<String>,
    /// Seconds that it is still lent; none when it is kept for its station.
    pub expires_s: Option<u64>,
}

fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an address such as 10.0.0.1 or 10.0.0.0/24, or a list of them")]
    enum OneOrMany<T> {
        One(T),
        Many(Vec<T>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}
