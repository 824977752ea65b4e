//! What control says about a port, and what is counted on it.

use std::net::IpAddr;

use packet::{NetworkId, UnicastMac, VlanId};

use crate::drop::DropCounters;

/// What the device behind a port can take without help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Takes frames whose checksum is partial.
    pub checksum: bool,
    /// Cuts TCP over IPv4.
    pub tso4: bool,
    /// Cuts TCP over IPv6.
    pub tso6: bool,
    /// Cuts UDP (USO).
    pub uso: bool,
}

impl Capabilities {
    /// A device with every offload.
    pub const FULL: Self = Self { checksum: true, tso4: true, tso6: true, uso: true };
    /// A plain wire.
    pub const NONE: Self = Self { checksum: false, tso4: false, tso6: false, uso: false };
}

/// Which addresses a port may use as source. Empty lists allow any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Allowed source MACs.
    pub macs: Vec<UnicastMac>,
    /// Allowed source IPs (also ARP sender and NDP target/source). IPv6 link-local addresses,
    /// the unspecified address (DAD, DHCP) and ARP probes are always allowed.
    pub ips: Vec<IpAddr>,
    /// Router advertisements, and DHCP server replies, are dropped.
    pub no_router: bool,
}

/// What control gave the station behind a port. Frames from other nodes that claim it are refused
/// ([`Switch::claim_of`](crate::Switch::claim_of)); a [`Guard`] keeps the station itself to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its address on the link.
    pub mac: Option<UnicastMac>,
    /// Its IP addresses.
    pub ips: Vec<IpAddr>,
}

/// 802.1Q membership of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VlanMode {
    /// Tags are not looked at: they pass as they are, and all frames are one broadcast domain, apart
    /// from the VLANs of access and trunk ports.
    #[default]
    PassThrough,
    /// Untagged frames belong to this VLAN; tagged ones are dropped; egress is untagged.
    Access(VlanId),
    /// Tagged frames of these VLANs (all when empty) pass; untagged ones belong to `native`, and are
    /// dropped without one. Egress is tagged, but for `native`.
    Trunk {
        /// Members; empty means all.
        allowed: Vec<VlanId>,
        /// VLAN of untagged frames.
        native: Option<VlanId>,
    },
    /// The link behind the port knows the pass-through domain as this VLAN: what comes with that tag loses it,
    /// anything else is dropped; egress is tagged.
    Tagged(VlanId),
}

/// Limit on what a port may cause to be flooded: a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StormLimit {
    /// Flooded frames (broadcast, multicast, unknown unicast) a second.
    pub frames_per_second: u32,
    /// Burst, in frames.
    pub burst: u32,
}

/// A port as control wants it.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// The network it joins.
    pub network: NetworkId,
    /// Unique label for views and captures, e.g. `web:eth0`.
    pub name: String,
    /// Largest packet (frame without Ethernet header and tags) it takes, bytes.
    pub mtu: u32,
    /// Offloads of the device behind it.
    pub capabilities: Capabilities,
    /// Source guard; `None` trusts the port.
    pub guard: Option<Guard>,
    /// Who is behind it.
    pub identity: Identity,
    /// Isolated ports talk only to ports that are not isolated.
    pub isolated: bool,
    /// Ports of one group never forward to one another (split horizon).
    pub horizon: Option<u32>,
    /// VLAN membership.
    pub vlan: VlanMode,
    /// Storm control; `None` means unlimited.
    pub storm: Option<StormLimit>,
    /// Whether addresses are learned from it.
    pub learning: bool,
    /// Leads to stations that have a gateway of their own, under the same addresses (another node's part of the network) or another
    /// (a LAN): ours neither hears this port nor speaks by it.
    pub foreign: bool,
    /// Whether it forwards.
    pub up: bool,
}

impl PortConfig {
    /// A trusted port with an MTU of 1500, full offloads and no limits.
    #[must_use]
    pub fn new(network: NetworkId, name: impl Into<String>) -> Self {
        Self {
            network,
            name: name.into(),
            mtu: 1500,
            capabilities: Capabilities::FULL,
            guard: None,
            identity: Identity::default(),
            isolated: false,
            horizon: None,
            vlan: VlanMode::PassThrough,
            storm: None,
            learning: true,
            foreign: false,
            up: true,
        }
    }
}

/// What passed a port. Frames are counted as the port sees them (a super-frame is one).
#[derive(Clone, Debug, Default)]
pub struct PortCounters {
    /// Frames that came in.
    pub rx_frames: u64,
    /// Frames queued to leave.
    pub tx_frames: u64,
    /// Bytes that came in.
    pub rx_bytes: u64,
    /// Bytes queued to leave.
    pub tx_bytes: u64,
    /// Frames dropped: on the way in under their ingress port, on the way out under their egress port.
    pub drops: DropCounters,
}

impl PortCounters {
    /// Adds another port's counters to these.
    pub fn add(&mut self, other: &Self) {
        self.rx_frames += other.rx_frames;
        self.rx_bytes += other.rx_bytes;
        self.tx_frames += other.tx_frames;
        self.tx_bytes += other.tx_bytes;
        self.drops.add(&other.drops);
    }
}
