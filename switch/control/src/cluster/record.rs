//! Values in the store: JSON with a version. Fields that are not known are left alone, so that nodes can be of
//! different versions; what a later version says must be understood to be kept is refused by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnetwork::IpNetwork;
use packet::{Mac, UnicastMac, Vni};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Epochs, Node, RemoteEndpoint, secrets::SecretsRecord};
use crate::{
    ipam,
    mesh::{MeshClaim, MeshPort},
    model::{Endpoint, L2, Model, NatPreset, Network, Pool, Sandbox},
    overlay::{DRIVER, Overlay},
    publish::Protocol,
};

/// Of records that any program understands.
const FIRST: u32 = 1;
/// Of networks that are encrypted: a program that does not know of that must not carry them.
const ENCRYPTED: u32 = 2;
/// The latest that is understood.
const VERSION: u32 = ENCRYPTED;

/// Why a value is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a later version of the program.
    #[error("has version {0}, and this program knows {VERSION}: use the newer program on this node too")]
    Newer(u32),
    /// Not what any version writes.
    #[error("cannot be read: {0}")]
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    record: T,
}

pub(super) fn encode<T: Serialize>(record: T) -> Vec<u8> {
    encode_as(FIRST, record)
}

fn encode_as<T: Serialize>(version: u32, record: T) -> Vec<u8> {
    // Our own types: keys are strings, and nothing in them can fail.
    serde_json::to_vec(&Versioned { version, record }).unwrap_or_default()
}

pub(super) fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, RecordError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let damaged = |error: serde_json::Error| RecordError::Damaged(error.to_string());
    match serde_json::from_slice::<Version>(value).map_err(damaged)?.version {
        FIRST..=VERSION => serde_json::from_slice::<Versioned<T>>(value).map(|versioned| versioned.record).map_err(damaged),
        version => Err(RecordError::Newer(version)),
    }
}

fn damaged(what: impl Into<String>) -> RecordError {
    RecordError::Damaged(what.into())
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Tells it from another of the same name; the same as long as its state directory.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// Where other nodes reach it.
    pub ip: IpAddr,
    /// Its API's port, if it advertises one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_port: Option<u16>,
    /// UDP port of its tunnels.
    pub vxlan_port: u16,
    /// When it joined, nanoseconds since 1970.
    pub since_ns: u64,
    /// The Ethernet address of its station in the routing mesh, if it takes part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub station: Option<String>,
}

impl NodeRecord {
    pub(super) fn node(&self) -> Result<Node, RecordError> {
        check_printable(&self.name)?;
        if self.ip.is_unspecified() || self.ip.is_multicast() || self.vxlan_port == 0 {
            return Err(damaged(format!("no node can be at {}", self.ip)));
        }
        let station = self.station.as_deref().map(check_station).transpose()?.map(|station| station.to_string());
        Ok(Node { name: self.name.clone(), ip: self.ip, api_port: self.api_port, vxlan_port: self.vxlan_port, since_ns: self.since_ns, station })
    }
}

/// What an encrypted network encrypts with. What is wrong with it never tells what it says.
pub(super) fn decode_secrets(value: &[u8]) -> Result<Epochs, RecordError> {
    decode::<SecretsRecord>(value).map_err(|error| match error {
        RecordError::Newer(_) => error,
        RecordError::Damaged(_) => damaged("it is no record of secrets"),
    })?.try_into()
}

/// A name, address or number that is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClaimRecord {
    /// Id of the network or endpoint that has it.
    pub(super) owner: String,
}

/// A pool of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PoolRecord {
    subnet: IpNetwork,
    gateway: IpAddr,
    range: IpNetwork,
}

/// How a network spans nodes, for readers of libnetwork's layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OverlayRecord {
    pub(super) vni: u32,
    pub(super) subnets: Vec<IpNetwork>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NetworkRecord {
    pub(super) id: String,
    pub(super) name: String,
    created_ns: u64,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    options: BTreeMap<String, String>,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    attachable: bool,
    #[serde(default)]
    pub(super) ingress: bool,
    pools: Vec<PoolRecord>,
    #[serde(default)]
    aux_addresses: BTreeMap<String, IpAddr>,
    mtu: u32,
    l2: L2,
    ageing_s: u32,
    masquerade: bool,
    #[serde(default)]
    nat: Option<NatPreset>,
    #[serde(default)]
    host_binding: Option<IpAddr>,
    #[serde(default)]
    ifname_prefix: Option<String>,
    #[serde(default)]
    isolated_default: bool,
    names: bool,
    #[serde(default)]
    dns: Vec<IpAddr>,
    vni: u32,
    #[serde(default)]
    port: Option<u16>,
    learning: bool,
    strict: bool,
    #[serde(default)]
    ttl: Option<u8>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    encrypted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rekey_s: Option<u32>,
}

impl NetworkRecord {
    /// What of `network` all nodes share; nothing if it does not span nodes.
    pub(super) fn of(network: &Network) -> Option<Self> {
        let overlay = network.overlay.as_ref()?;
        Some(Self {
            id: network.id.clone(),
            name: network.name.clone(),
            created_ns: network.created_ns,
            labels: network.labels.clone(),
            options: network.options.clone(),
            internal: network.internal,
            attachable: network.attachable,
            ingress: network.ingress,
            pools: network.pools.iter().map(|pool| PoolRecord { subnet: pool.subnet, gateway: pool.gateway, range: pool.range }).collect(),
            aux_addresses: network.aux_addresses.clone(),
            mtu: network.mtu,
            l2: network.l2,
            ageing_s: network.ageing_s,
            masquerade: network.masquerade,
            nat: network.nat,
            host_binding: network.host_binding,
            ifname_prefix: network.ifname_prefix.clone(),
            isolated_default: network.isolated_default,
            names: network.names,
            dns: network.dns.clone(),
            vni: overlay.vni,
            port: overlay.port,
            learning: overlay.learning,
            strict: overlay.strict,
            ttl: overlay.ttl,
            encrypted: overlay.encrypted,
            rekey_s: overlay.rekey_s,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        encode_as(if self.encrypted { ENCRYPTED } else { FIRST }, self)
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// How long its secrets are used; for ever when missing.
    pub(super) fn rekey(&self) -> Option<Duration> {
        self.rekey_s.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into()))
    }

    pub(super) fn vni(&self) -> u32 {
        self.vni
    }

    pub(super) fn subnets(&self) -> Vec<IpNetwork> {
        self.pools.iter().map(|pool| pool.subnet).collect()
    }

    /// The network as a node that knows nothing else of it has it.
    pub(super) fn network(&self) -> Result<Network, RecordError> {
        check_id(&self.id)?;
        crate::model::check_object_name("network", &self.name).map_err(|error| damaged(error.message))?;
        if self.vni == 0 || Vni::new(self.vni).is_none() {
            return Err(damaged(format!("VNI {} is outside 1 to 16777215", self.vni)));
        }
        if !(68..=u32::from(vxlan::mtu_most(self.encrypted))).contains(&self.mtu) || self.port == Some(0) || self.ttl == Some(0) {
            return Err(damaged("its MTU, port or ttl is out of range"));
        }
        if let Some(pool) = self.pools.iter().find(|pool| !ipam::is_usable(pool.subnet, pool.gateway) || !pool.subnet.contains(pool.range.network()) || !pool.subnet.contains(pool.range.broadcast())) {
            return Err(damaged(format!("gateway or range are outside the subnet {}", pool.subnet)));
        }
        Ok(Network {
            id: self.id.clone(),
            name: self.name.clone(),
            driver: DRIVER.into(),
            l2: self.l2,
            mtu: self.mtu,
            internal: self.internal,
            ageing_s: self.ageing_s,
            pools: self.pools.iter().map(|pool| Pool { subnet: pool.subnet, gateway: pool.gateway, range: pool.range, cursor: None }).collect(),
            aux_addresses: self.aux_addresses.clone(),
            own_addresses: Vec::new(),
            vips: BTreeMap::new(),
            labels: self.labels.clone(),
            masquerade: self.masquerade,
            nat: self.nat,
            nat_source: Vec::new(),
            nat_prefix: None,
            host_binding: self.host_binding,
            ifname_prefix: self.ifname_prefix.clone(),
            isolated_default: self.isolated_default,
            storm: None,
            dhcp_range: None,
            ra: false,
            names: self.names,
            dns: self.dns.clone(),
            overlay: Some(Overlay {
                vni: self.vni,
                port: self.port,
                peers: Vec::new(),
                stations: BTreeMap::new(),
                neighbours: BTreeMap::new(),
                learning: self.learning,
                strict: self.strict,
                ttl: self.ttl,
                group: None,
                encrypted: self.encrypted,
                key_file: None,
                rekey_s: self.rekey_s,
                global: true,
            }),
            lan: None,
            options: self.options.clone(),
            attachable: self.attachable,
            ingress: self.ingress,
            config_from: None,
            created_ns: self.created_ns,
        })
    }
}

/// The virtual address of a service: one on all nodes, for as long as anybody serves it. It hangs on no lease, so that it
/// stays when the node that first asked for it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VipRecord {
    pub(super) network: String,
    /// The service, in lower case.
    pub(super) name: String,
    /// At most one a family.
    pub(super) addresses: Vec<IpAddr>,
}

impl VipRecord {
    /// Checked for `network`, of which it must be.
    pub(super) fn checked(&self, network: &NetworkRecord) -> Result<(), RecordError> {
        crate::names::options::check_host("vip", &self.name).map_err(|error| damaged(error.message))?;
        let families = self.addresses.iter().map(IpAddr::is_ipv4).collect::<BTreeSet<_>>();
        let is_free = |ip: &IpAddr| network.pools.iter().any(|pool| pool.gateway != *ip && ipam::is_usable(pool.subnet, *ip));
        if families.len() != self.addresses.len() || !self.addresses.iter().all(is_free) {
            return Err(damaged(format!("the addresses of service {} are not of network {}", self.name, network.name)));
        }
        Ok(())
    }
}

/// A port of the routing mesh: of one service on all nodes, for as long as anybody serves it. It hangs on no lease, so that it
/// stays when the node that first asked for it ends. Whoever joins the service writes it again: who gives it back, or takes it
/// from a service that nobody serves, sees by its revision that somebody came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MeshRecord {
    pub(super) network: String,
    #[serde(flatten)]
    pub(super) claim: MeshClaim,
}

impl MeshRecord {
    pub(super) fn checked(&self) -> Result<&MeshClaim, RecordError> {
        check_printable(&self.claim.service).map(|()| &self.claim)
    }
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndpointRecord {
    pub(super) id: String,
    pub(super) network: String,
    /// Name of the node that has it.
    pub(super) node: String,
    /// Of its sandbox.
    pub(super) name: String,
    /// The name is the cluster's too: not of what is called after something of its own node (a device, a process).
    pub(super) named: bool,
    sandbox: String,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    aliases: Vec<String>,
    /// Services whose virtual addresses lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) vips: Vec<String>,
    pub(super) mac: String,
    pub(super) addresses: Vec<IpNetwork>,
    /// What it publishes.
    #[serde(default)]
    services: BTreeSet<(Protocol, u16)>,
    /// What it serves in the routing mesh.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) mesh: BTreeSet<MeshPort>,
    up: bool,
}

impl EndpointRecord {
    pub(super) fn of(node: &str, sandbox: &Sandbox, endpoint: &Endpoint, mesh: BTreeSet<MeshPort>) -> Self {
        Self {
            id: endpoint.id.clone(),
            network: endpoint.network.clone(),
            node: node.into(),
            name: sandbox.name.clone(),
            named: sandbox.has_name(),
            sandbox: sandbox.id.clone(),
            hostname: sandbox.hostname.clone(),
            aliases: endpoint.aliases.clone(),
            vips: endpoint.vips.clone(),
            mac: endpoint.mac.clone(),
            addresses: endpoint.addresses.clone(),
            services: sandbox.publishes.iter().map(|published| (published.protocol, published.port)).collect(),
            mesh,
            up: endpoint.up,
        }
    }

    pub(super) fn with_mesh(&self, mesh: BTreeSet<MeshPort>) -> Self {
        Self { mesh, ..self.clone() }
    }

    /// Whether it serves a port of the mesh for the service that has it.
    pub(super) fn serves(&self, port: &MeshRecord) -> bool {
        self.network == port.network && self.mesh.iter().any(|own| own.claim() == port.claim)
    }

    /// Those of this node that other nodes know, in a network that `model` shares.
    pub(super) fn all<'a>(model: &'a Model, node: &'a str) -> impl Iterator<Item = (&'a Sandbox, Self)> {
        let all = model.sandboxes.values().flat_map(|sandbox| sandbox.endpoints.iter().map(move |endpoint| (sandbox, endpoint)));
        all.filter(|(_, endpoint)| model.is_global(&endpoint.network)).map(move |(sandbox, endpoint)| (sandbox, Self::of(node, sandbox, endpoint, model.mesh_ports(sandbox, endpoint))))
    }

    pub(super) fn endpoint(&self) -> Result<RemoteEndpoint, RecordError> {
        check_id(&self.id)?;
        check_id(&self.sandbox)?;
        [&self.name, &self.node].into_iter().chain(&self.hostname).chain(&self.aliases).chain(&self.vips).chain(self.mesh.iter().map(|port| &port.service)).try_for_each(|name| check_printable(name))?;
        let mac = check_station(&self.mac)?;
        if self.addresses.len() > 2 {
            return Err(damaged("more than one address of a family"));
        }
        Ok(RemoteEndpoint {
            network: self.network.clone(),
            node: self.node.clone(),
            sandbox: self.sandbox.clone(),
            name: self.name.clone(),
            named: self.named,
            hostname: self.hostname.clone(),
            aliases: self.aliases.clone(),
            vips: self.vips.clone(),
            mac: mac.to_string(),
            addresses: self.addresses.clone(),
            services: self.services.clone(),
            mesh: self.mesh.iter().filter(|port| port.port > 0 && port.target > 0).cloned().collect(),
            up: self.up,
        })
    }
}

/// Names are shown to people.
fn check_printable(name: &str) -> Result<(), RecordError> {
    let legal = !name.is_empty() && name.len() <= 4096 && !name.chars().any(char::is_control);
    if legal { Ok(()) } else { Err(damaged(format!("{name:?} is no name"))) }
}

fn check_station(text: &str) -> Result<UnicastMac, RecordError> {
    text.parse::<Mac>().ok().and_then(UnicastMac::new).ok_or_else(|| damaged(format!("{text:?} is no station's address")))
}

fn check_id(id: &str) -> Result<(), RecordError> {
    let legal = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if legal { Ok(()) } else { Err(damaged(format!("{id:?} is no id"))) }
}
