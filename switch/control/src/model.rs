//! Networks, sandboxes and their endpoints: the desired state, which is data.
//!
//! Each change validates everything first and either happens whole or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use imbl::{OrdMap, OrdSet};
use ipnetwork::IpNetwork;
use packet::{Mac, UnicastMac, VlanId};
use serde::{Deserialize, Serialize};

use crate::{
    publish::{self, Protocol, Published},
    container::{Container, Phase},
    defaults::Defaults,
    driver,
    api::{EndpointCreate, NetworkCreate, SandboxCreate},
    error::{Code, ControlError, Result},
    index::Index,
    cluster::{Elsewhere, RemoteEndpoint, WAY_OUT},
    ipam,
    lan::{self, Lan},
    names::{Link, NameOptions, options::check_host},
    overlay::Overlay,
};

/// Smallest MTU: RFC 791's 68 bytes.
const MTU_MIN: u32 = 68;
/// Largest MTU: what a TAP takes (65535 less an Ethernet header).
const MTU_MAX: u32 = 65_521;
const MTU_DEFAULT: u32 = 1500;
const AGEING_DEFAULT_S: u32 = 300;

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

/// Whose network namespace a sandbox is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetnsTarget {
    /// A new one, ours.
    #[default]
    New,
    /// The host's.
    Host,
    /// By `ip netns` name.
    Name(String),
    /// Of a process.
    Pid(i32),
    /// By path.
    Path(String),
    /// No namespace: a device of the host joins.
    Device(String),
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
    #[serde(default = "yes")]
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
    #[serde(default = "yes")]
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
    fn host_addresses(&self) -> &[IpAddr] {
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

/// A process of a sandbox; pid and start time name one process while the machine is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Clock ticks since boot.
    pub start: u64,
}

/// A sandbox: a network namespace, ours or another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// 64 hex digits.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// Whose namespace.
    pub netns: NetnsTarget,
    /// Device and inode of the namespace, once known: a name or pid may come to mean another.
    pub identity: Option<(u64, u64)>,
    /// What it was asked to run.
    pub command: Vec<String>,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
    /// Host name inside.
    pub hostname: Option<String>,
    /// Remove when the process ends.
    pub auto_remove: bool,
    /// Its process, while it runs.
    pub process: Option<Process>,
    /// Its networks.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports.
    #[serde(default)]
    pub publishes: Vec<Published>,
    /// What it was told about names.
    #[serde(default)]
    pub names: NameOptions,
    /// Nanoseconds since 1970.
    #[serde(default)]
    pub created_ns: u64,
    /// What it is in Docker's way, if it was made so; then it stays when its process ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

impl Sandbox {
    /// Whether the namespace is ours to make and remove.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.netns == NetnsTarget::New
    }

    /// What its process writes is kept: weft started that.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        self.container.is_some() || !self.command.is_empty()
    }

    /// Its name was chosen; others are called after what they are on this machine.
    #[must_use]
    pub fn has_name(&self) -> bool {
        matches!(self.netns, NetnsTarget::New | NetnsTarget::Name(_))
    }

    /// Defined, but without a process, and so without namespace, endpoints and ports.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.container.as_ref().is_some_and(|container| container.phase != Phase::Running)
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
    #[serde(default = "yes")]
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

fn yes() -> bool {
    true
}

impl Endpoint {
    /// Name of the switch's end of a veth pair: 15 characters from the id.
    #[must_use]
    pub fn peer_name(&self) -> String {
        format!("wv{}", &self.id[..13])
    }
}

/// A configuration that networks are made from (`docker network create --config-only`); nobody can join it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigNetwork {
    /// 64 hex digits.
    pub id: String,
    /// Nanoseconds since 1970.
    pub created_ns: u64,
    /// What networks take over.
    pub request: NetworkCreate,
}

/// Everything that is wanted. A copy shares all that did not change since: copying one to try a change on
/// costs the same however much there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// By id.
    pub networks: OrdMap<String, Network>,
    /// By id.
    pub sandboxes: OrdMap<String, Sandbox>,
    /// Pairs of networks, by id, that reach each other through the router; the smaller id first.
    #[serde(default)]
    pub routes: OrdSet<(String, String)>,
    /// What the daemon was told beside.
    #[serde(skip)]
    pub defaults: Defaults,
    /// Configurations of networks, by id.
    #[serde(default, skip_serializing_if = "OrdMap::is_empty")]
    pub configs: OrdMap<String, ConfigNetwork>,
    #[serde(skip)]
    pub(crate) index: Index,
    /// What other nodes of the cluster have.
    #[serde(default)]
    pub elsewhere: Elsewhere,
}

impl Model {
    /// The network of that name, id or unique id prefix.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn network(&self, reference: &str) -> Result<&Network> {
        let found = resolve(reference, &self.networks, |name| self.networks.values().find(|network| network.name == name));
        found.map_err(|several| missing("network", reference, several, "`weft network ls` lists them"))
    }

    /// The sandbox of that name, id or unique id prefix.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn sandbox(&self, reference: &str) -> Result<&Sandbox> {
        let found = resolve(reference, &self.sandboxes, |name| self.index.named(&self.sandboxes, name));
        found.map_err(|several| missing("sandbox", reference, several, "`weft ps` lists them"))
    }

    /// The endpoint whose port has that name (`SANDBOX:IFNAME`), with its sandbox.
    ///
    /// # Errors
    /// When there is none, or it is a network's own.
    pub fn port(&self, name: &str) -> Result<(&Sandbox, &Endpoint)> {
        let all = self.sandboxes.values().flat_map(|sandbox| sandbox.endpoints.iter().map(move |endpoint| (sandbox, endpoint)));
        let mut found = all.filter(|(sandbox, endpoint)| port_name(sandbox, endpoint) == name || (endpoint.id.starts_with(name) && name.len() >= 6));
        found.next().ok_or_else(|| self.own_port(name).unwrap_or_else(|| missing("port", name, false, "`weft port ls` lists them")))
    }

    /// Makes a network; gives its id.
    ///
    /// # Errors
    /// When the name is taken or a value makes no sense.
    pub fn create_network(&mut self, request: &NetworkCreate, id: String) -> Result<String> {
        self.make_network(&self.complete(request)?, id)
    }

    /// The same of a request that was made complete.
    ///
    /// # Errors
    /// When the name is taken or a value makes no sense.
    pub fn make_network(&mut self, request: &NetworkCreate, id: String) -> Result<String> {
        self.check_network_name(&request.name)?;
        let driver = request.driver.as_deref().unwrap_or("bridge");
        driver::check_name(driver)?;
        NameOptions { dns: request.dns.clone(), ..NameOptions::default() }.check()?;
        self.check_dns(&request.dns)?;
        let overlay = self.overlay_of(request)?;
        let lan = self.lan_of(request)?;
        let mtu = check_mtu(request.mtu.or_else(|| overlay.as_ref().map(Overlay::mtu)).unwrap_or(MTU_DEFAULT))?;
        if let Some(most) = overlay.as_ref().map(|overlay| vxlan::mtu_most(overlay.encrypted)).filter(|most| mtu > u32::from(*most)) {
            return Err(invalid(mtu.to_string(), format!("MTU {mtu} is more than a datagram between nodes holds ({most})")));
        }
        // Each node chooses for itself, and all must choose the same.
        let shared = overlay.as_ref().map(|overlay| format!("{:010x}", overlay.vni));
        let pools = self.pools_of(request, shared.as_deref().unwrap_or(&id))?;
        let dhcp_range = dhcp_range(request, &pools)?;
        if request.ra && (request.l2 != L2::Bridge || pools.iter().all(|pool| pool.subnet.is_ipv4())) {
            return Err(invalid(&request.name, "router advertisements want a bridge network with an IPv6 subnet").hint("add --ipv6"));
        }
        for (label, address) in &request.aux_addresses {
            if !pools.iter().any(|pool| ipam::is_usable(pool.subnet, *address)) {
                return Err(invalid(label, format!("auxiliary address {label}={address} is not in the network's subnet")));
            }
        }
        if let Some(ip) = request.own_addresses.iter().find(|ip| !pools.iter().any(|pool| ipam::is_usable(pool.subnet, **ip))) {
            return Err(invalid(ip.to_string(), format!("the gateway's further address {ip} is not in the network's subnet")));
        }
        if let Some(ip) = request.nat_source.iter().find(|ip| ip.is_multicast() || ip.is_loopback() || ip.is_unspecified() || pools.iter().any(|pool| pool.subnet.contains(**ip))) {
            return Err(invalid(ip.to_string(), format!("--nat-source {ip}: no address outside")));
        }
        if let Some(prefix) = request.nat_prefix {
            let ip = prefix.network();
            if ip.is_multicast() || ip.is_unicast_link_local() || ip.is_loopback() || ip.is_unspecified() {
                return Err(invalid(prefix.to_string(), format!("--nat-prefix {prefix}: no router forwards to such addresses")));
            }
            if let Some(other) = self.networks.values().find(|other| other.nat_prefix.is_some_and(|taken| taken.contains(ip) || prefix.contains(taken.network()))) {
                return Err(ControlError::new(Code::Conflict, prefix.to_string(), format!("--nat-prefix {prefix} overlaps with that of network {}", other.name)));
            }
        }
        if let Some(prefix) = request.nat_prefix
            && !pools.iter().any(|pool| pool.subnet.is_ipv6() && pool.subnet.prefix() == prefix.prefix() && prefix.prefix() <= 64)
        {
            return Err(invalid(prefix.to_string(), format!("--nat-prefix {prefix}: the network needs an IPv6 subnet of the same length, at most /64")));
        }
        if let Some(ifname) = &request.ifname_prefix {
            check_ifname(&format!("{ifname}0"))?;
        }
        let network = Network {
            id: id.clone(),
            name: request.name.clone(),
            driver: driver.into(),
            l2: request.l2,
            mtu,
            internal: request.internal || lan.as_ref().is_some_and(|lan| lan.parent.is_none()),
            ageing_s: request.ageing_s.unwrap_or(AGEING_DEFAULT_S),
            pools,
            aux_addresses: request.aux_addresses.clone(),
            own_addresses: request.own_addresses.clone(),
            vips: BTreeMap::new(),
            labels: request.labels.clone(),
            masquerade: request.masquerade.unwrap_or(lan.is_none()),
            nat: request.nat,
            nat_source: request.nat_source.clone(),
            nat_prefix: request.nat_prefix,
            host_binding: request.host_binding,
            ifname_prefix: request.ifname_prefix.clone(),
            isolated_default: request.isolated_default,
            storm: request.storm,
            dhcp_range,
            ra: request.ra,
            names: request.names.unwrap_or(true),
            dns: request.dns.clone(),
            overlay,
            lan,
            options: request.options.clone(),
            attachable: request.attachable,
            ingress: self.check_ingress(request)?,
            config_from: request.config_from.clone(),
            created_ns: 0,
        };
        self.networks.insert(id.clone(), network);
        Ok(id)
    }

    fn pools_of(&self, request: &NetworkCreate, id: &str) -> Result<Vec<Pool>> {
        let mut subnets = request.subnets.clone();
        if request.no_ipam {
            let said = [("subnet", !subnets.is_empty()), ("gateway", !request.gateways.is_empty()), ("ip-range", request.ip_range.is_some()), ("aux-address", !request.aux_addresses.is_empty())];
            return match said.iter().find(|(_, said)| *said) {
                Some((what, _)) => Err(invalid(&request.name, format!("a network without IPAM has no {what}: leave one of the two out"))),
                None => Ok(Vec::new()),
            };
        }
        if subnets.is_empty() {
            let free = |pool: &IpNetwork| self.overlapping(*pool).is_none();
            let free = if request.global == Some(true) { ipam::global_pools().find(free) } else { self.defaults.subnets(true).find(free) };
            subnets.push(free.ok_or_else(|| ControlError::new(Code::Exhausted, &request.name, "all predefined address pools have been fully subnetted").hint("give --subnet"))?);
        }
        if request.ipv6 && subnets.iter().all(IpNetwork::is_ipv4) {
            let free = self.defaults.subnets(false).find(|pool| self.overlapping(*pool).is_none());
            subnets.push(free.unwrap_or_else(|| ipam::unique_local(id)));
        }
        if subnets.len() > 2 || (subnets.len() == 2 && subnets[0].is_ipv4() == subnets[1].is_ipv4()) {
            return Err(invalid(&request.name, "at most one IPv4 and one IPv6 subnet per network"));
        }
        for gateway in &request.gateways {
            if !subnets.iter().any(|subnet| ipam::is_usable(*subnet, *gateway)) {
                return Err(invalid(gateway.to_string(), format!("gateway {gateway} is not a host address in the subnet {}", join(&subnets)))
                    .hint("choose one inside, or leave --gateway out"));
            }
        }
        let mut pools = Vec::new();
        for subnet in subnets {
            if subnet.ip() != subnet.network() {
                return Err(invalid(subnet.to_string(), format!("{subnet} has host bits set")).hint(format!("did you mean {}/{}?", subnet.network(), subnet.prefix())));
            }
            if subnet.ip().is_loopback() || subnet.ip().is_multicast() || subnet.ip().is_unspecified() {
                return Err(invalid(subnet.to_string(), format!("{subnet}: no host can have such an address")).hint("want a private one, e.g. 10.9.0.0/24"));
            }
            if let Some(other) = self.overlapping(subnet) {
                return Err(ControlError::new(Code::Conflict, subnet.to_string(), format!("subnet {subnet} overlaps with network {other}"))
                    .hint("choose another --subnet, or remove that network"));
            }
            let range = match request.ip_range {
                Some(range) if range.is_ipv4() == subnet.is_ipv4() => {
                    if !(subnet.contains(range.network()) && subnet.contains(range.broadcast())) {
                        return Err(invalid(range.to_string(), format!("--ip-range {range} is not inside the subnet {subnet}")));
                    }
                    range
                }
                _ => subnet,
            };
            let given = request.gateways.iter().find(|gateway| gateway.is_ipv4() == subnet.is_ipv4());
            let gateway = given.copied().unwrap_or_else(|| ipam::first_usable(subnet));
            pools.push(Pool { subnet, gateway, range, cursor: None });
        }
        Ok(pools)
    }

    fn overlapping(&self, subnet: IpNetwork) -> Option<&str> {
        let taken = |network: &&Network| network.pools.iter().any(|pool| ipam::overlap(pool.subnet, subnet));
        self.networks.values().find(taken).map(|network| network.name.as_str())
    }

    /// Removes a network that nobody is in; gives it back.
    ///
    /// # Errors
    /// When there is none, or it is in use.
    pub fn remove_network(&mut self, reference: &str) -> Result<Network> {
        if matches!(reference, "bridge" | "host" | "none") {
            return Err(ControlError::new(Code::Conflict, reference, format!("{reference} is a pre-defined network and cannot be removed")));
        }
        let network = self.network(reference)?;
        let members: Vec<_> = self.members(&network.id).map(|(sandbox, _)| sandbox.name.clone()).chain(self.remote_members(&network.id).map(|(_, endpoint)| endpoint.described())).collect();
        if !members.is_empty() {
            return Err(ControlError::new(Code::Conflict, &network.name, format!("network {} has active endpoints: {}", network.name, members.join(", ")))
                .hint("remove or disconnect them first"));
        }
        let id = network.id.clone();
        self.drop_routes(&id);
        self.networks.remove(&id).ok_or_else(|| missing("network", reference, false, ""))
    }

    /// Takes a network's ways to others away.
    pub fn drop_routes(&mut self, id: &str) {
        self.routes = self.routes.iter().filter(|(one, other)| one != id && other != id).cloned().collect();
    }

    /// Lets two networks reach each other, or no longer; gives their ids, the smaller first.
    ///
    /// # Errors
    /// When there is no such network, it has no way out, or nothing changes.
    pub fn set_route(&mut self, networks: &[String; 2], open: bool) -> Result<(String, String)> {
        let mut ids = Vec::new();
        for name in networks {
            let network = self.network(name)?;
            if open && !network.has_router() {
                return Err(invalid(name, format!("network {name} has no router of weft's: it is internal, not a bridge, a LAN's, or without addresses")));
            }
            ids.push(network.id.clone());
        }
        ids.sort();
        let [Some(one), Some(other)] = [ids.first().cloned(), ids.get(1).cloned()] else { return Err(invalid("", "two networks are needed")) };
        if one == other {
            return Err(invalid(&networks[0], "a network reaches itself"));
        }
        let pair = (one, other);
        match open {
            true if self.routes.insert(pair.clone()).is_some() => Err(ControlError::new(Code::Exists, &networks[0], format!("{} and {} reach each other already", networks[0], networks[1]))),
            false if self.routes.remove(&pair).is_none() => Err(ControlError::new(Code::NotFound, &networks[0], format!("there is no route between {} and {}", networks[0], networks[1]))),
            _ => Ok(pair),
        }
    }

    /// Endpoints of a network, with their sandboxes.
    pub fn members<'a>(&'a self, network: &'a str) -> impl Iterator<Item = (&'a Sandbox, &'a Endpoint)> {
        self.index.around(&self.sandboxes, network).flat_map(move |sandbox| sandbox.endpoints.iter().filter(move |endpoint| endpoint.network == network).map(move |endpoint| (sandbox, endpoint)))
    }

    /// Ids of the networks that have endpoints, on this node or another.
    #[must_use]
    pub fn networks_in_use(&self) -> BTreeSet<&str> {
        let here = self.sandboxes.values().flat_map(|sandbox| &sandbox.endpoints).map(|endpoint| endpoint.network.as_str());
        here.chain(self.elsewhere.endpoints.values().map(|endpoint| endpoint.network.as_str())).collect()
    }

    /// Brings the index of sandboxes up to date, for those that only read.
    pub fn refresh(&mut self) {
        self.index.refresh(&self.sandboxes);
    }

    /// Endpoints of a network on other nodes, by id.
    pub fn remote_members<'a>(&'a self, network: &'a str) -> impl Iterator<Item = (&'a String, &'a RemoteEndpoint)> {
        self.elsewhere.endpoints.iter().filter(move |(_, endpoint)| endpoint.network == network)
    }

    /// Somebody is in a network, on this node or another.
    #[must_use]
    pub fn is_used(&self, network: &str) -> bool {
        self.members(network).next().is_some() || self.remote_members(network).next().is_some()
    }

    /// Whether the network is the cluster's.
    #[must_use]
    pub fn is_global(&self, network: &str) -> bool {
        self.networks.get(network).is_some_and(Network::is_global)
    }

    /// Makes a sandbox without endpoints; gives its id.
    ///
    /// # Errors
    /// When the name is taken or a value makes no sense.
    pub fn create_sandbox(&mut self, request: &SandboxCreate, id: String) -> Result<String> {
        let name = request.name.clone().unwrap_or_else(|| id[..12].to_owned());
        // Devices and foreign namespaces are named after what they are.
        if request.netns == NetnsTarget::New {
            check_object_name("sandbox", &name)?;
        }
        self.refresh();
        if self.index.named(&self.sandboxes, &name).is_some() {
            return Err(ControlError::new(Code::Exists, &name, format!("the name {name:?} is already in use by another sandbox")).hint("remove it (`weft rm`), or choose another name"));
        }
        if let Some(hostname) = &request.hostname {
            check_host("--hostname", hostname)?;
            if hostname.len() > 64 {
                return Err(invalid(hostname, "a host name has 1 to 64 bytes"));
            }
        }
        let names = self.name_options(request)?;
        // A namespace of ours has a host name of its own; a longer name than the kernel takes is not it.
        let own = || if name.len() <= 64 { name.clone() } else { id[..12].to_owned() };
        let hostname = request.hostname.clone().or_else(|| (request.netns == NetnsTarget::New).then(own));
        self.sandboxes.insert(
            id.clone(),
            Sandbox {
                id: id.clone(),
                name,
                netns: request.netns.clone(),
                identity: None,
                command: request.command.clone(),
                env: request.env.clone(),
                hostname,
                auto_remove: request.auto_remove,
                process: None,
                endpoints: Vec::new(),
                publishes: Vec::new(),
                names,
                created_ns: 0,
                container: None,
            },
        );
        Ok(id)
    }

    /// Servers are asked by the host, which is in none of our networks, but may be on a LAN.
    fn check_dns(&self, servers: &[IpAddr]) -> Result<()> {
        for network in self.networks.values().filter(|network| network.lan.is_none()) {
            if let Some(server) = servers.iter().find(|server| network.pools.iter().any(|pool| pool.subnet.contains(**server))) {
                return Err(invalid(server.to_string(), format!("--dns {server}: the host asks it, and does not reach network {}, where it is", network.name)).hint("publish its port 53 on an address of the host, and give that"));
            }
        }
        Ok(())
    }

    /// Gives a sandbox another name.
    ///
    /// # Errors
    /// When it is taken or makes no sense.
    pub fn rename_sandbox(&mut self, reference: &str, name: &str) -> Result<()> {
        check_object_name("sandbox", name)?;
        if self.sandboxes.values().any(|sandbox| sandbox.name == name) {
            return Err(ControlError::new(Code::Exists, name, format!("the name {name:?} is already in use by another sandbox")));
        }
        let sandbox = self.sandbox(reference)?;
        self.check_not_a_vip(sandbox, name)?;
        let id = sandbox.id.clone();
        for network in sandbox.endpoints.iter().filter_map(|endpoint| self.networks.get(&endpoint.network)) {
            self.check_endpoint_name(network, name)?;
        }
        if let Some(sandbox) = self.sandboxes.get_mut(&id) {
            name.clone_into(&mut sandbox.name);
        }
        Ok(())
    }

    fn name_options(&self, request: &SandboxCreate) -> Result<NameOptions> {
        let options = NameOptions::of(request)?;
        self.check_dns(&options.dns)?;
        if request.netns != NetnsTarget::New && options != NameOptions::default() {
            return Err(invalid(request.name.as_deref().unwrap_or_default(), "--dns, --add-host and --link are for sandboxes with a namespace of their own: this one has the /etc of another"));
        }
        for link in &options.link {
            let other = self.sandbox(&link.sandbox)?;
            let shares = |endpoint: &EndpointCreate| self.network(&endpoint.network).is_ok_and(|network| other.endpoints.iter().any(|own| own.network == network.id));
            if !request.endpoints.iter().any(shares) {
                return Err(invalid(&link.sandbox, format!("--link {}: it is in no network of this sandbox", link.sandbox)).hint("put both into one network with --net"));
            }
        }
        Ok(options)
    }

    /// Puts a sandbox into a network: checks what was asked and chooses the rest.
    ///
    /// # Errors
    /// When an address is taken, a pool is full or a value makes no sense.
    pub fn create_endpoint(&mut self, sandbox_id: &str, request: &EndpointCreate, id: String, default_kind: EndpointKind) -> Result<Endpoint> {
        self.refresh();
        let network = self.network(&request.network)?.clone();
        let sandbox = self.sandboxes.get(sandbox_id).ok_or_else(|| missing("sandbox", sandbox_id, false, ""))?;
        if sandbox.endpoints.iter().any(|endpoint| endpoint.network == network.id) {
            return Err(ControlError::new(Code::Exists, &sandbox.name, format!("endpoint {} already exists in network {}", sandbox.name, network.name)));
        }
        if sandbox.has_name() {
            self.check_endpoint_name(&network, &sandbox.name)?;
        }
        let device = match &sandbox.netns {
            NetnsTarget::Device(name) => Some(name.clone()),
            _ => None,
        };
        let (kind, ours) = (request.kind.unwrap_or(default_kind), sandbox.is_ours());
        let ifname = device.clone().or_else(|| request.ifname.clone()).unwrap_or_else(|| free_ifname(sandbox, network.ifname_prefix.as_deref().unwrap_or("eth")));
        check_ifname(&ifname)?;
        if sandbox.endpoints.iter().any(|endpoint| endpoint.ifname == ifname) {
            return Err(ControlError::new(Code::Exists, &ifname, format!("{} already has an interface {ifname}", sandbox.name)));
        }
        for alias in &request.aliases {
            check_host("--alias", alias)?;
        }
        let vips = self.check_vips(&network, sandbox, request)?;
        if let (Some(name), Some(device)) = (vips.first(), &device) {
            return Err(invalid(name, format!("--vip {name}: weft does not know the address of what is behind device {device}")));
        }
        let mtu = check_mtu(request.mtu.unwrap_or(network.mtu))?;
        if let Some(vlan) = &request.vlan {
            vlan.check()?;
        }
        let asked = [request.ip.map(IpAddr::V4), request.ip6.map(IpAddr::V6)];
        let addresses = if device.is_some() { Vec::new() } else { self.choose_addresses(&network, asked)? };
        let mut used = self.used_addresses(&network);
        used.extend(addresses.iter().map(IpNetwork::ip));
        let new_vips = Self::choose_vips(&network, &vips, used)?;
        let mac = match &request.mac {
            Some(text) => self.check_mac(text, &network)?,
            None => mac_for(&addresses, &id).get(),
        };
        self.check_link_local(&request.link_local, &network)?;
        let endpoint = Endpoint {
            id,
            network: network.id.clone(),
            ifname,
            kind: if device.is_some() { EndpointKind::Device } else { kind },
            mac: mac.to_string(),
            addresses,
            gateways: Vec::new(),
            mtu,
            vlan: request.vlan.clone(),
            isolated: request.isolated || network.isolated_default,
            horizon: request.horizon,
            guard: request.guard.unwrap_or(ours),
            aliases: request.aliases.clone(),
            vips,
            storm: network.storm,
            up: true,
            link: request.link.clone(),
            link_local: request.link_local.clone(),
            gw_priority: request.gw_priority,
            sysctls: request.sysctls.clone(),
        };
        if let Some(network) = self.networks.get_mut(&network.id) {
            network.vips.extend(new_vips);
            // Of a shared network all nodes hand out the lowest that is free: what each handed out last would tell nothing.
            let is_global = network.is_global();
            for pool in network.pools.iter_mut().filter(|_| !is_global) {
                let given = endpoint.addresses.iter().find(|address| address.is_ipv4() == pool.subnet.is_ipv4());
                pool.cursor = given.map(IpNetwork::ip).or(pool.cursor);
            }
        }
        if let Some(sandbox) = self.sandboxes.get_mut(sandbox_id) {
            sandbox.endpoints.push(endpoint.clone());
        }
        self.settle_gateways(sandbox_id);
        let settled = self.sandboxes.get(sandbox_id).and_then(|sandbox| sandbox.endpoints.last());
        Ok(settled.cloned().unwrap_or(endpoint))
    }

    /// A name is of one endpoint, whichever node has it.
    pub(crate) fn check_endpoint_name(&self, network: &Network, name: &str) -> Result<()> {
        match self.remote_members(&network.id).find(|(_, endpoint)| endpoint.named && endpoint.name == name) {
            Some((_, endpoint)) => Err(ControlError::new(Code::Exists, name, format!("endpoint with name {name} already exists in network {}", network.name)).hint(format!("it is on node {}", endpoint.node))),
            None => Ok(()),
        }
    }

    /// What nobody else may have.
    fn used_addresses(&self, network: &Network) -> BTreeSet<IpAddr> {
        let members = self.members(&network.id).flat_map(|(_, endpoint)| endpoint.addresses.iter().map(IpNetwork::ip));
        let own = network.pools.iter().map(|pool| pool.gateway).chain(network.aux_addresses.values().chain(&network.own_addresses).copied());
        let others = self.remote_members(&network.id).flat_map(|(_, endpoint)| endpoint.addresses.iter().map(IpNetwork::ip));
        members.chain(others).chain(own).chain(network.host_addresses().iter().copied()).chain(network.vips.values().flatten().copied()).collect()
    }

    fn choose_addresses(&self, network: &Network, asked: [Option<IpAddr>; 2]) -> Result<Vec<IpNetwork>> {
        let used = self.used_addresses(network);
        for address in asked.into_iter().flatten() {
            if let Some((_, endpoint)) = self.remote_members(&network.id).find(|(_, endpoint)| endpoint.addresses.iter().any(|taken| taken.ip() == address)) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is already in use by {}", endpoint.described())));
            }
            if let Some((sandbox, _)) = self.members(&network.id).find(|(_, endpoint)| endpoint.addresses.iter().any(|taken| taken.ip() == address)) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is already in use by {}", sandbox.name)));
            }
            if let Some((label, _)) = network.aux_addresses.iter().find(|(_, aux)| **aux == address) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is kept for {label} (--aux-address) in network {}", network.name)));
            }
            if network.host_addresses().contains(&address) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is the host's own on the device of network {}", network.name)));
            }
            if let Some(name) = network.vip_at(address) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is the virtual address of service {name} in network {}", network.name)));
            }
            if !network.pools.iter().any(|pool| ipam::is_usable(pool.subnet, address)) {
                return Err(invalid(address.to_string(), format!("address {address} is not a host address in network {} ({})", network.name, join_pools(network))));
            }
            if let Some(range) = network.dhcp_range.filter(|range| range.contains(address)) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is in the range {range} that DHCP hands out in network {}", network.name))
                    .hint("choose one outside, or another --dhcp-range"));
            }
        }
        let mut chosen = Vec::new();
        for pool in &network.pools {
            let wanted = asked.into_iter().flatten().find(|address| address.is_ipv4() == pool.subnet.is_ipv4());
            if let Some(address) = wanted.filter(|address| *address == pool.gateway || network.own_addresses.contains(address)) {
                return Err(ControlError::new(Code::Conflict, address.to_string(), format!("address {address} is the gateway of network {}", network.name)));
            }
            let address = wanted.or_else(|| ipam::next_free(pool.range, network.dhcp_range, pool.cursor, &used)).ok_or_else(|| {
                ControlError::new(Code::Exhausted, &network.name, format!("no free address in network {} ({})", network.name, pool.range)).hint("remove endpoints, or make a larger network")
            })?;
            chosen.extend(IpNetwork::new(address, pool.subnet.prefix()));
        }
        Ok(chosen)
    }

    fn check_mac(&self, text: &str, network: &Network) -> Result<Mac> {
        let mac: Mac = text.parse().map_err(|error| invalid(text, format!("{text}: {error}")))?;
        if UnicastMac::new(mac).is_none() {
            return Err(invalid(text, format!("{mac} is a multicast address (or zero): no station may have it")).hint("the second hex digit of a station's address is even"));
        }
        if let Some((sandbox, _)) = self.members(&network.id).find(|(_, endpoint)| endpoint.mac == mac.to_string()) {
            return Err(ControlError::new(Code::Conflict, text, format!("MAC address {mac} is already in use by {}", sandbox.name)));
        }
        if let Some((_, endpoint)) = self.remote_members(&network.id).find(|(_, endpoint)| endpoint.mac == mac.to_string()) {
            return Err(ControlError::new(Code::Conflict, text, format!("MAC address {mac} is already in use by {}", endpoint.described())));
        }
        Ok(mac)
    }

    /// The endpoint that a sandbox's published ports lead to: its first with an address on a network with a way out.
    #[must_use]
    pub fn publishing_endpoint<'a>(&self, sandbox: &'a Sandbox) -> Option<&'a Endpoint> {
        let able = |endpoint: &&Endpoint| !endpoint.addresses.is_empty() && self.networks.get(&endpoint.network).is_some_and(Network::has_router);
        // Where answers leave by, if that can be.
        let mut by_default = sandbox.endpoints.iter().filter(|endpoint| !endpoint.gateways.is_empty());
        by_default.find(able).or_else(|| sandbox.endpoints.iter().find(able))
    }

    /// Whether another sandbox has that port of the host, even if it is in no network at present that leads there.
    #[must_use]
    pub fn is_published(&self, sandbox_id: &str, host_ip: Option<IpAddr>, host_port: u16, protocol: Protocol) -> bool {
        let is_same = |other: &Published| other.host_port == host_port && other.protocol == protocol && (host_ip.is_none() || other.host_ip.is_none() || host_ip == other.host_ip);
        self.sandboxes.values().any(|other| other.id != sandbox_id && other.publishes.iter().any(is_same))
    }

    /// Takes published ports away: what each of `specs` says, or what leads to that port; gives them back.
    ///
    /// # Errors
    /// When a word makes no sense, or the sandbox has no such port.
    pub fn unpublish(&mut self, reference: &str, specs: &[String]) -> Result<Vec<Published>> {
        let sandbox = self.sandbox(reference)?;
        let (id, mut gone) = (sandbox.id.clone(), Vec::new());
        for spec in specs {
            for request in publish::parse(spec)? {
                let before = gone.len();
                gone.extend(sandbox.publishes.iter().filter(|published| request.is_met_by(published)).cloned());
                if gone.len() == before {
                    return Err(ControlError::new(Code::NotFound, spec, format!("{} does not publish {spec}", sandbox.name)).hint("`weft publish ls` lists what is published"));
                }
            }
        }
        if let Some(sandbox) = self.sandboxes.get_mut(&id) {
            sandbox.publishes.retain(|published| !gone.contains(published));
        }
        Ok(gone)
    }

    /// Only shared networks without a way out of their own, and one of them is to have one.
    #[must_use]
    pub fn lacks_way_out(&self, sandbox: &str) -> bool {
        self.sandboxes.get(sandbox).is_some_and(|sandbox| sandbox.is_ours() && self.wants_way_out(sandbox) && sandbox.endpoints.iter().all(|endpoint| endpoint.gateways.is_empty()))
    }

    fn wants_way_out(&self, sandbox: &Sandbox) -> bool {
        let networks = sandbox.endpoints.iter().filter_map(|endpoint| self.networks.get(&endpoint.network));
        networks.filter(|network| network.is_global()).any(|network| !network.internal)
    }

    /// Takes away the endpoint of a sandbox that was only its way out of shared networks, when it is in none any more.
    pub fn remove_idle_way_out(&mut self, sandbox: &str) -> Option<Endpoint> {
        let sandbox = self.sandboxes.get(sandbox).filter(|sandbox| !self.wants_way_out(sandbox))?;
        let asked = |name: &str| sandbox.container.as_ref().is_some_and(|container| container.networks.iter().any(|wanted| wanted.network == name));
        let is_it = |endpoint: &&Endpoint| self.networks.get(&endpoint.network).is_some_and(|network| network.name == WAY_OUT);
        let endpoint = sandbox.endpoints.iter().find(is_it).filter(|_| !asked(WAY_OUT))?.id.clone();
        let id = sandbox.id.clone();
        self.remove_endpoint(&id, &endpoint)
    }

    /// Takes an endpoint away; gives it back.
    pub fn remove_endpoint(&mut self, sandbox_id: &str, endpoint_id: &str) -> Option<Endpoint> {
        let endpoints = &mut self.sandboxes.get_mut(sandbox_id)?.endpoints;
        let at = endpoints.iter().position(|endpoint| endpoint.id == endpoint_id)?;
        let removed = endpoints.remove(at);
        self.settle_gateways(sandbox_id);
        Some(removed)
    }
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

/// The name of an endpoint's port.
#[must_use]
pub fn port_name(sandbox: &Sandbox, endpoint: &Endpoint) -> String {
    format!("{}:{}", sandbox.name, endpoint.ifname)
}

/// The addresses that only DHCP hands out, if it is wanted.
fn dhcp_range(request: &NetworkCreate, pools: &[Pool]) -> Result<Option<IpNetwork>> {
    if !request.dhcp {
        return match request.dhcp_range {
            Some(range) => Err(invalid(range.to_string(), "--dhcp-range is for networks with --dhcp").hint("add --dhcp, or leave it out")),
            None => Ok(None),
        };
    }
    let pool = pools.iter().find(|pool| pool.subnet.is_ipv4()).filter(|_| request.l2 == L2::Bridge);
    let pool = pool.ok_or_else(|| invalid(&request.name, "DHCP wants a bridge network with an IPv4 subnet"))?;
    let range = request.dhcp_range.or_else(|| ipam::upper_quarter(pool.subnet));
    let range = range.ok_or_else(|| invalid(pool.subnet.to_string(), format!("{} is too small for DHCP", pool.subnet)))?;
    if range.ip() != range.network() {
        return Err(invalid(range.to_string(), format!("{range} has host bits set")).hint(format!("did you mean {}/{}?", range.network(), range.prefix())));
    }
    let is_inside = range.is_ipv4() && pool.subnet.contains(range.network()) && pool.subnet.contains(range.broadcast());
    if !is_inside || ipam::host_range(range, pool.subnet).is_none() {
        return Err(invalid(range.to_string(), format!("the DHCP range {range} has no host address in the subnet {}", pool.subnet)));
    }
    Ok(Some(range))
}

/// By id, by name, by the beginning of an id, in this order.
fn resolve<'a, T>(reference: &str, all: &'a OrdMap<String, T>, named: impl Fn(&str) -> Option<&'a T>) -> std::result::Result<&'a T, bool> {
    if let Some(exact) = all.get(reference).or_else(|| named(reference)) {
        return Ok(exact);
    }
    let mut by_prefix = all.range(reference.to_owned()..).take_while(|(id, _)| reference.len() >= 3 && id.starts_with(reference));
    match (by_prefix.next(), by_prefix.next()) {
        (Some((_, only)), None) => Ok(only),
        (found, _) => Err(found.is_some()),
    }
}

fn missing(kind: &str, reference: &str, several: bool, hint: &str) -> ControlError {
    let message = if several { format!("{reference:?} is the beginning of several {kind} ids") } else { format!("no such {kind}: {reference}") };
    ControlError::new(Code::NotFound, reference, message).hint(hint)
}

fn invalid(subject: impl Into<String>, message: impl Into<String>) -> ControlError {
    ControlError::new(Code::Invalid, subject, message)
}

pub(crate) fn check_object_name(kind: &str, name: &str) -> Result<()> {
    let legal = name.len() <= 128
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if legal { Ok(()) } else { Err(invalid(name, format!("invalid {kind} name {name:?}: want [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most 128"))) }
}

pub(crate) fn check_ifname(name: &str) -> Result<()> {
    let legal = (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if legal { Ok(()) } else { Err(invalid(name, format!("invalid interface name {name:?}: want 1 to 15 bytes without `/`, `:` or blanks"))) }
}

fn check_mtu(mtu: u32) -> Result<u32> {
    if (MTU_MIN..=MTU_MAX).contains(&mtu) { Ok(mtu) } else { Err(invalid(mtu.to_string(), format!("MTU {mtu} is outside {MTU_MIN} to {MTU_MAX}"))) }
}

fn free_ifname(sandbox: &Sandbox, prefix: &str) -> String {
    let names = (0..).map(|number| format!("{prefix}{number}"));
    names.into_iter().find(|name| sandbox.endpoints.iter().all(|endpoint| endpoint.ifname != *name)).unwrap_or_default()
}

/// 02:42 and the IPv4 address, as Docker does; without one, from the id.
fn mac_for(addresses: &[IpNetwork], id: &str) -> UnicastMac {
    let v4 = addresses.iter().find_map(|address| match address {
        IpNetwork::V4(v4) => Some(v4.ip().octets()),
        IpNetwork::V6(_) => None,
    });
    UnicastMac::numbered(v4.unwrap_or_else(|| u32::from_str_radix(&id[..8], 16).unwrap_or(0).to_be_bytes()))
}

fn join(subnets: &[IpNetwork]) -> String {
    subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn join_pools(network: &Network) -> String {
    if network.pools.is_empty() {
        return "which has no subnet".into();
    }
    join(&network.pools.iter().map(|pool| pool.subnet).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> String {
        format!("{number:064x}")
    }

    fn model_with(network: NetworkCreate) -> Model {
        let mut model = Model::default();
        model.create_network(&network, id(1)).unwrap();
        model.create_sandbox(&SandboxCreate { name: Some("a".into()), ..sandbox() }, id(2)).unwrap();
        model.create_sandbox(&SandboxCreate { name: Some("b".into()), ..sandbox() }, id(3)).unwrap();
        model
    }

    fn sandbox() -> SandboxCreate {
        SandboxCreate::default()
    }

    fn net(subnet: &str) -> NetworkCreate {
        NetworkCreate { name: "net".into(), subnets: vec![subnet.parse().unwrap()], ..NetworkCreate::default() }
    }

    fn join_request() -> EndpointCreate {
        EndpointCreate { network: "net".into(), ..EndpointCreate::default() }
    }

    #[test]
    fn first_addresses_are_docker_s() {
        let mut model = model_with(net("172.17.0.0/16"));
        let first = model.create_endpoint(&id(2), &join_request(), id(4), EndpointKind::Tap).unwrap();
        let second = model.create_endpoint(&id(3), &join_request(), id(5), EndpointKind::Tap).unwrap();
        assert_eq!(first.addresses[0].to_string(), "172.17.0.2/16");
        assert_eq!((second.addresses[0].to_string().as_str(), second.mac.as_str()), ("172.17.0.3/16", "02:42:ac:11:00:03"));
        assert_eq!(first.gateways, vec!["172.17.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!((first.ifname.as_str(), first.guard), ("eth0", true));
    }

    #[test]
    fn without_a_subnet_the_next_free_pool() {
        let mut model = model_with(net("172.17.0.0/16"));
        model.create_network(&NetworkCreate { name: "second".into(), ..NetworkCreate::default() }, id(9)).unwrap();
        assert_eq!(model.network("second").unwrap().pools[0].subnet.to_string(), "172.18.0.0/16");
    }

    #[test]
    fn refusals_name_the_culprit_and_change_nothing() {
        let mut model = model_with(net("10.0.0.0/29"));
        let before = serde_json::to_string(&model).unwrap();
        let gateway = NetworkCreate { name: "x".into(), subnets: vec!["10.1.0.0/24".parse().unwrap()], gateways: vec!["10.2.0.1".parse().unwrap()], ..NetworkCreate::default() };
        for (request, culprit) in [
            (NetworkCreate { name: "net".into(), ..NetworkCreate::default() }, "net"),
            (NetworkCreate { name: "a/b".into(), ..NetworkCreate::default() }, "a/b"),
            (NetworkCreate { name: "x".into(), subnets: vec!["10.0.0.0/8".parse().unwrap()], ..NetworkCreate::default() }, "10.0.0.0/8"),
            (NetworkCreate { name: "x".into(), subnets: vec!["10.1.0.7/24".parse().unwrap()], ..NetworkCreate::default() }, "10.1.0.7/24"),
            (NetworkCreate { name: "x".into(), mtu: Some(10), ..NetworkCreate::default() }, "MTU 10"),
            (NetworkCreate { name: "x".into(), driver: Some("foo".into()), ..NetworkCreate::default() }, "foo"),
            (NetworkCreate { no_ipam: true, subnets: Vec::new(), ..gateway.clone() }, "no gateway"),
            (NetworkCreate { no_ipam: true, gateways: Vec::new(), ..gateway.clone() }, "no subnet"),
            (NetworkCreate { name: "x".into(), no_ipam: true, ip_range: Some("10.1.0.0/25".parse().unwrap()), ..NetworkCreate::default() }, "no ip-range"),
            (gateway, "10.2.0.1"),
        ] {
            let error = model.create_network(&request, id(8)).unwrap_err();
            assert!(error.message.contains(culprit), "{error}");
        }
        for (request, culprit) in [
            (EndpointCreate { mac: Some("01:00:5e:00:00:01".into()), ..join_request() }, "multicast"),
            (EndpointCreate { mac: Some("02:00".into()), ..join_request() }, "02:00"),
            (EndpointCreate { ip: Some("10.0.1.2".parse().unwrap()), ..join_request() }, "10.0.1.2"),
            (EndpointCreate { ip: Some("10.0.0.1".parse().unwrap()), ..join_request() }, "gateway"),
            (EndpointCreate { ifname: Some("1234567890123456".into()), ..join_request() }, "1234567890123456"),
            (EndpointCreate { vlan: Some(Vlan::Access(4095)), ..join_request() }, "4095"),
            (EndpointCreate { network: "nope".into(), ..EndpointCreate::default() }, "nope"),
        ] {
            let error = model.create_endpoint(&id(2), &request, id(8), EndpointKind::Tap).unwrap_err();
            assert!(error.message.contains(culprit), "{error}");
        }
        assert_eq!(serde_json::to_string(&model).unwrap(), before);
    }

    #[test]
    fn dhcp_has_its_part_of_the_subnet_to_itself() {
        let mut model = model_with(NetworkCreate { dhcp: true, ..net("10.0.0.0/28") });
        let network = model.network("net").unwrap();
        assert_eq!(network.dhcp_range, Some("10.0.0.12/30".parse().unwrap()));
        assert_eq!(network.dhcp_hosts(), Some(("10.0.0.12".parse().unwrap(), "10.0.0.14".parse().unwrap())));
        let error = model.create_endpoint(&id(2), &EndpointCreate { ip: Some("10.0.0.13".parse().unwrap()), ..join_request() }, id(4), EndpointKind::Tap).unwrap_err();
        assert!(error.message.contains("10.0.0.12/30"), "{error}");
        let mut given = Vec::new();
        for number in 10..30 {
            let sandbox = model.create_sandbox(&SandboxCreate { name: Some(format!("s{number}")), ..sandbox() }, id(number)).unwrap();
            match model.create_endpoint(&sandbox, &join_request(), id(number + 100), EndpointKind::Tap) {
                Ok(endpoint) => given.push(endpoint.addresses[0].ip()),
                Err(error) => assert_eq!(error.code, Code::Exhausted),
            }
        }
        let expected: Vec<IpAddr> = (2..12).map(|last| std::net::Ipv4Addr::new(10, 0, 0, last).into()).collect();
        assert_eq!(given, expected);
    }

    proptest::proptest! {
        #[test]
        fn ipam_and_dhcp_share_no_address(prefix in 24..30_u8, dhcp in (0..64_u32, 0..7_u8), handed in (0..64_u32, 0..7_u8), gateway in 1..64_u32) {
            let subnet = ipnetwork::Ipv4Network::new([10, 0, 0, 0].into(), prefix).unwrap();
            let part = |(at, more): (u32, u8)| {
                let part = ipnetwork::Ipv4Network::new(subnet.nth(at % subnet.size()).unwrap(), (prefix + more).min(32)).unwrap();
                IpNetwork::new(part.network().into(), part.prefix()).unwrap()
            };
            let gateways = subnet.nth(gateway).map(IpAddr::V4).filter(|at| ipam::is_usable(IpNetwork::V4(subnet), *at));
            let request = NetworkCreate { dhcp: true, dhcp_range: Some(part(dhcp)), ip_range: Some(part(handed)), gateways: gateways.into_iter().collect(), ..net(&subnet.to_string()) };
            let mut model = Model::default();
            if model.create_network(&request, id(1)).is_err() {
                return Ok(());
            }
            let (first, last) = model.network("net").unwrap().dhcp_hosts().unwrap();
            for number in 10..300 {
                let sandbox = model.create_sandbox(&SandboxCreate { name: Some(format!("s{number}")), ..sandbox() }, id(number)).unwrap();
                let Ok(endpoint) = model.create_endpoint(&sandbox, &join_request(), id(number + 1000), EndpointKind::Tap) else { break };
                let given = endpoint.addresses[0].ip();
                proptest::prop_assert!(given < first || given > last, "{given} is in {first} to {last}");
            }
        }
    }

    #[test]
    fn dhcp_and_advertisements_want_something_to_give() {
        let mut model = Model::default();
        let range = |range: &str| NetworkCreate { dhcp: true, dhcp_range: Some(range.parse().unwrap()), ..net("10.0.0.0/24") };
        for (request, culprit) in [
            (NetworkCreate { dhcp: false, ..range("10.0.0.128/25") }, "--dhcp"),
            (range("10.0.1.0/25"), "10.0.1.0/25"),
            (range("10.0.0.1/25"), "host bits"),
            (range("10.0.0.255/32"), "no host"),
            (range("fd00::/64"), "fd00::/64"),
            (NetworkCreate { dhcp: true, ..net("10.0.0.0/30") }, "no host"),
            (NetworkCreate { dhcp: true, ..net("10.0.0.0/31") }, "too small"),
            (NetworkCreate { dhcp: true, ..net("fd00::/64") }, "IPv4"),
            (NetworkCreate { dhcp: true, l2: L2::Hub, ..net("10.0.0.0/24") }, "bridge network"),
            (NetworkCreate { ra: true, ..net("10.0.0.0/24") }, "IPv6"),
        ] {
            let error = model.create_network(&request, id(1)).unwrap_err();
            assert!(error.message.contains(culprit), "{error}");
        }
        model.create_network(&NetworkCreate { dhcp: true, ra: true, ipv6: true, ..net("10.0.0.0/24") }, id(1)).unwrap();
        // A state from before there was DHCP reads as one without it.
        let mut saved = serde_json::to_value(model.network("net").unwrap()).unwrap();
        for field in ["dhcp_range", "ra"] {
            assert!(saved.as_object_mut().unwrap().remove(field).is_some());
        }
        let network: Network = serde_json::from_value(saved).unwrap();
        assert_eq!((network.dhcp_range, network.ra), (None, false));
    }

    #[test]
    fn a_pool_fills_and_frees() {
        let mut model = model_with(net("10.0.0.0/30"));
        let endpoint = model.create_endpoint(&id(2), &join_request(), id(4), EndpointKind::Tap).unwrap();
        let error = model.create_endpoint(&id(3), &join_request(), id(5), EndpointKind::Tap).unwrap_err();
        assert_eq!(error.code, Code::Exhausted);
        assert_eq!(model.remove_network("net").unwrap_err().code, Code::Conflict);
        assert!(model.remove_endpoint(&id(2), &endpoint.id).is_some());
        assert!(model.create_endpoint(&id(3), &join_request(), id(5), EndpointKind::Tap).is_ok());
    }
}
