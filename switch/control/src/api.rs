//! Bodies of the native HTTP+JSON API. Unknown fields are refused by name.

use std::{collections::BTreeMap, net::{IpAddr, Ipv4Addr, Ipv6Addr}};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{names::Link, overlay::Remote, publish::Protocol};
use crate::model::{EndpointKind, L2, NatPreset, NetnsTarget, Storm, Vlan};

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

/// `POST` and `DELETE /v1/sandboxes/{id}/publish`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishEdit {
    /// Ports, in the words of `docker run -p`.
    pub publish: Vec<String>,
}

/// Docker's endpoint option for [`EndpointCreate::vips`]: names with commas between.
pub const VIP_OPTION: &str = "weft.vip";

/// The services that its value names, with commas between.
pub(crate) fn vips_of(value: &str) -> impl Iterator<Item = String> {
    value.split(',').map(|name| name.trim().to_owned())
}

/// An entry of `GET /v1/vips`: a service with a virtual address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipInfo {
    /// Its network.
    pub network: String,
    /// Its name there.
    pub name: String,
    /// Its addresses, one a family.
    pub addresses: Vec<IpAddr>,
    /// Who answers, by address.
    pub endpoints: Vec<VipEndpoint>,
}

/// Who answers for a virtual address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipEndpoint {
    /// Its sandbox; empty for one on another node.
    pub sandbox: String,
    /// Its own address.
    pub address: IpAddr,
    /// Connections that are open.
    pub connections: usize,
    /// Connections that it was given since it is part of the service.
    pub total: u64,
}

/// An entry of `GET /v1/publishes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishInfo {
    /// Whose port it is; empty for a service of the routing mesh that has no replica on this node.
    pub sandbox: String,
    /// The service, for a port of the routing mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Where the host listens; why it does not, where another program has a port of the mesh.
    pub host: String,
    /// Where it leads.
    pub inside: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Connections, or datagrams, that came in.
    pub hits: u64,
    /// Packets both ways, where packets are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Bytes both ways, where packets are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
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

/// An entry of `GET /v1/nat`: how a subnet leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRule {
    /// The network.
    pub network: String,
    /// Its subnet.
    pub source: String,
    /// In the words of iptables: MASQUERADE, SNAT, NETMAP (RFC 6296), or RETURN (not translated); and HAIRPIN, for what
    /// MASQUERADE or SNAT translate that comes back in at an external address.
    pub target: String,
    /// The addresses of SNAT, the prefix of NETMAP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// Mapping and filtering, where ports are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Connections that it made, where ports are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<u64>,
    /// Packets both ways, where connections are translated packet by packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Bytes both ways, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// An entry of `GET /v1/flows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowInfo {
    /// The sandbox's network.
    pub network: String,
    /// tcp, udp or icmp.
    pub protocol: String,
    /// The sandbox's end; of icmp, the identifier is in the port's place.
    pub inside: String,
    /// The other end, as the sandbox sees it.
    pub outside: String,
    /// What the sandbox's end is called outside, where packets are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// As conntrack names it.
    pub state: String,
    /// `out` when the sandbox opened it, `in` when outside did.
    pub direction: String,
    /// Seconds that it lives on without a packet, where packets are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
    /// From the sandbox and to it, where packets are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<[u64; 2]>,
    /// From the sandbox, bytes of payload.
    pub tx_bytes: u64,
    /// To the sandbox, bytes.
    pub rx_bytes: u64,
}

/// Name of an IP protocol, or its number.
#[must_use]
pub fn protocol_name(number: u8) -> String {
    match number {
        6 => "tcp".into(),
        17 => "udp".into(),
        1 | 58 => "icmp".into(),
        other => other.to_string(),
    }
}

/// `POST /v1/trace`; answers with the steps, a string each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// `SANDBOX:IFNAME`, a sandbox with one port, `host`, or `uplink`.
    pub port: String,
    /// As `tcp 172.17.0.2:4000 > 1.1.1.1:80 ttl 64 len 100 df`.
    pub packet: String,
}

/// `POST` and `DELETE /v1/routes`, and an entry of `GET /v1/routes`: two networks that reach each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutePair {
    /// Names or ids of the networks.
    pub networks: [String; 2],
}

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
pub struct ClusterCheck {
    /// It answers as it should.
    pub ok: bool,
    /// What, where, and what came of it.
    pub text: String,
    /// What that may mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
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

/// `GET /v1/info`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Info {
    /// Of the program.
    pub version: String,
    /// Of the daemon; a rootless one's user and mount namespace are found by it.
    pub pid: i32,
    /// Without root.
    pub rootless: bool,
    /// `io_uring` or `epoll`.
    pub io: String,
    /// Port kind chosen by default, and why.
    pub kind: EndpointKind,
    /// Why.
    pub kind_reason: String,
    /// Where pins and logs are.
    pub run_dir: String,
    /// Where the state file is.
    #[serde(default)]
    pub state_dir: String,
    /// The socket that answers.
    #[serde(default)]
    pub socket: String,
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

/// `GET /v1/stats`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stats {
    /// Networks.
    pub bridges: usize,
    /// Ports.
    pub ports: usize,
    /// Stations known.
    pub fdb_entries: usize,
    /// Frames in.
    pub rx_frames: u64,
    /// Frames out.
    pub tx_frames: u64,
    /// Drops by reason.
    pub drops: BTreeMap<String, u64>,
    /// Buffers in use: small, large.
    pub buffers: [usize; 2],
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
