//! The only words shared with control.

use std::fmt;

use packet::{CaptureId, Duration, Filter, Instant, Mac, NetworkId, PortId, UnicastMac, VlanId};

use crate::{
    gateway::{GatewayConfig, LeaseView, Reservation, VipConfig},
    drop::{DropCounters, DropReason},
    port::{Capabilities, Guard, PortConfig, PortCounters, StormLimit, VlanMode},
};

/// How a network forwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum L2Mode {
    /// 802.1D: learns, ages, does not forward the reserved group 01-80-C2-00-00-0X.
    #[default]
    Bridge,
    /// Learns, but passes every EtherType, tag and reserved group byte-identical, and sends nothing of its own.
    Transparent,
    /// Repeats every frame to every other port; learns nothing.
    Hub,
}

/// A broadcast domain as control wants it.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// Label for views and captures.
    pub name: String,
    /// How it forwards.
    pub l2: L2Mode,
    /// Idle time after which a learned address is forgotten (default 300 s, IEEE 802.1Q 8.8.3).
    pub ageing: Duration,
    /// Addresses the FDB holds at most.
    pub fdb_capacity: usize,
    /// Its L3 face, if it has one. Serves ports that look at no VLAN tags.
    pub gateway: Option<GatewayConfig>,
}

impl BridgeConfig {
    /// A bridge with default limits.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), l2: L2Mode::Bridge, ageing: Duration::from_secs(300), fdb_capacity: 16_384, gateway: None }
    }
}

/// A change to one port.
#[derive(Clone, Debug)]
pub enum PortChange {
    /// Forwarding or not. Going down flushes the port's learned addresses.
    Up(bool),
    /// Largest packet it takes.
    Mtu(u32),
    /// Source guard.
    Guard(Option<Guard>),
    /// Isolation.
    Isolated(bool),
    /// Split-horizon group.
    Horizon(Option<u32>),
    /// VLAN membership.
    Vlan(VlanMode),
    /// Storm control.
    Storm(Option<StormLimit>),
    /// Learning.
    Learning(bool),
    /// Offloads of the device behind it (after a re-attach).
    Capabilities(Capabilities),
    /// Label.
    Name(String),
}

/// What a capture sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureScope {
    /// Every port.
    All,
    /// The ports of one network.
    Network(NetworkId),
    /// One port.
    Port(PortId),
}

/// A capture to start.
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    /// What it sees.
    pub scope: CaptureScope,
    /// Super-frames whole, with checksums as they are; otherwise as the wire would carry them
    /// (cut and finished, which [`CaptureRecord`](crate::CaptureRecord)s then are).
    pub whole: bool,
    /// Only frames that match; a super-frame is looked at before it is cut.
    pub filter: Option<Filter>,
}

/// What control asks of the data plane.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make a bridge; answers [`Reply::Network`].
    AddBridge(BridgeConfig),
    /// Remove a bridge that has no ports.
    RemoveBridge(NetworkId),
    /// Change mode, ageing or label of a bridge (capacity stays).
    SetBridge(NetworkId, BridgeConfig),
    /// Make a port; answers [`Reply::Port`].
    AddPort(PortConfig),
    /// Remove a port and the addresses learned on it.
    RemovePort(PortId),
    /// Change a port.
    SetPort(PortId, PortChange),
    /// Add or replace a static address.
    AddFdb {
        /// Where.
        network: NetworkId,
        /// The station.
        mac: UnicastMac,
        /// Its VLAN, on VLAN-aware ports.
        vlan: Option<VlanId>,
        /// The port it is behind.
        port: PortId,
    },
    /// Say for a station that it is behind this port, to all others, as it would itself (gratuitous ARP, unsolicited
    /// neighbour advertisement).
    Announce {
        /// Behind which it is: of a device, or a tunnel.
        port: PortId,
        /// The station.
        mac: UnicastMac,
        /// Its address.
        ip: std::net::IpAddr,
    },
    /// Remove an address, learned or static.
    RemoveFdb {
        /// Where.
        network: NetworkId,
        /// The station.
        mac: UnicastMac,
        /// Its VLAN.
        vlan: Option<VlanId>,
    },
    /// Forget learned addresses of a network, or of one port.
    FlushFdb {
        /// Where.
        network: NetworkId,
        /// Only those behind this port.
        port: Option<PortId>,
    },
    /// The address that DHCP gives a station; without effect on a network without DHCP.
    SetReservation {
        /// Where.
        network: NetworkId,
        /// The station.
        mac: UnicastMac,
        /// What it gets.
        reservation: Reservation,
    },
    /// The station is like any other again.
    RemoveReservation {
        /// Where.
        network: NetworkId,
        /// The station.
        mac: UnicastMac,
    },
    /// The virtual addresses of a network with a gateway, all of them; connections to endpoints that are
    /// gone end.
    SetVips(NetworkId, Vec<VipConfig>),
    /// Answers [`Reply::Vips`].
    ShowVips(NetworkId),
    /// Start copying frames; answers [`Reply::Capture`].
    StartCapture(CaptureConfig),
    /// Stop copying frames.
    StopCapture(CaptureId),
    /// Answers [`Reply::Bridges`].
    ShowBridges,
    /// Ports of a network or of all; answers [`Reply::Ports`].
    ShowPorts(Option<NetworkId>),
    /// Answers [`Reply::Fdb`], sorted by address.
    ShowFdb(NetworkId),
    /// Answers [`Reply::Leases`]: none where the gateway is no DHCP server.
    ShowLeases(NetworkId),
    /// Answers [`Reply::Stats`].
    ShowStats,
}

/// What the data plane answers.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "made once for each command")]
pub enum Reply {
    /// Done, nothing to tell.
    Done,
    /// The bridge was made.
    Network(NetworkId),
    /// The port was made.
    Port(PortId),
    /// The capture runs.
    Capture(CaptureId),
    /// Bridges.
    Bridges(Vec<BridgeView>),
    /// Ports.
    Ports(Vec<PortView>),
    /// FDB entries.
    Fdb(Vec<FdbView>),
    /// Virtual addresses with what they did.
    Vips(Vec<nat::VipView>),
    /// Addresses that DHCP lends or keeps.
    Leases(Vec<LeaseView>),
    /// Totals.
    Stats(SwitchStats),
}

/// A bridge as it is.
#[derive(Clone, Debug)]
pub struct BridgeView {
    /// Its id.
    pub id: NetworkId,
    /// Its configuration.
    pub config: BridgeConfig,
    /// Its ports.
    pub ports: Vec<PortId>,
    /// Addresses in the FDB.
    pub fdb_entries: usize,
}

/// A port as it is.
#[derive(Clone, Debug)]
pub struct PortView {
    /// Its id.
    pub id: PortId,
    /// Its configuration.
    pub config: PortConfig,
    /// What passed it.
    pub counters: PortCounters,
}

/// How an address came into the FDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdbKind {
    /// From a frame's source.
    Learned,
    /// By command; does not age and does not move.
    Static,
}

/// An FDB entry as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbView {
    /// The station.
    pub mac: UnicastMac,
    /// Its VLAN, when learned on a VLAN-aware port.
    pub vlan: Option<VlanId>,
    /// The port it is behind.
    pub port: PortId,
    /// Learned or static.
    pub kind: FdbKind,
    /// Time since last seen as a source.
    pub idle: Duration,
}

/// Totals of the switch.
#[derive(Clone, Debug)]
pub struct SwitchStats {
    /// Bridges.
    pub bridges: usize,
    /// Ports.
    pub ports: usize,
    /// FDB entries of all bridges.
    pub fdb_entries: usize,
    /// Frames in, of all ports that are and were.
    pub rx_frames: u64,
    /// Frames out, of all ports that are and were.
    pub tx_frames: u64,
    /// Drops, of all ports that are and were.
    pub drops: DropCounters,
    /// Buffers in use.
    pub pool: packet::PoolStats,
}

/// Why a command was refused. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The network id is stale or was never given out.
    NoSuchNetwork(NetworkId),
    /// The port id is stale or was never given out.
    NoSuchPort(PortId),
    /// The capture id is stale or was never given out.
    NoSuchCapture(CaptureId),
    /// No such address in the FDB.
    NoSuchAddress(UnicastMac),
    /// The bridge still has ports.
    NetworkInUse(NetworkId),
    /// The port is not in that network.
    PortElsewhere(PortId),
    /// The FDB holds as many static addresses as it may.
    FdbFull(NetworkId),
    /// A limit of the switch is reached (ports, bridges, captures).
    TooMany(&'static str),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchNetwork(id) => write!(f, "no network {id} in the data plane"),
            Self::NoSuchPort(id) => write!(f, "no port {id} in the data plane"),
            Self::NoSuchCapture(id) => write!(f, "no capture {id} in the data plane"),
            Self::NoSuchAddress(mac) => write!(f, "no FDB entry for {mac}"),
            Self::NetworkInUse(id) => write!(f, "network {id} still has ports"),
            Self::PortElsewhere(id) => write!(f, "port {id} is not in that network"),
            Self::FdbFull(id) => write!(f, "the FDB of network {id} is full of static entries"),
            Self::TooMany(what) => write!(f, "too many {what}"),
        }
    }
}

impl std::error::Error for CommandError {}

/// What control should know without asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A station appeared.
    Learned {
        /// Where.
        network: NetworkId,
        /// Behind which port.
        port: PortId,
        /// The station.
        mac: UnicastMac,
        /// Its VLAN.
        vlan: Option<VlanId>,
    },
    /// A station was seen behind another port.
    Moved {
        /// Where.
        network: NetworkId,
        /// Behind which port it was.
        from: PortId,
        /// Behind which port it is.
        to: PortId,
        /// The station.
        mac: UnicastMac,
    },
    /// A learned address was idle for the ageing time.
    Aged {
        /// Where.
        network: NetworkId,
        /// The station.
        mac: UnicastMac,
    },
    /// An address was not learned, or another made room for it: the FDB is full. At most once a
    /// second per network.
    FdbFull {
        /// Where.
        network: NetworkId,
        /// The port that wanted to learn.
        port: PortId,
    },
    /// Storm control began to drop. At most once a second per port.
    Storm {
        /// The port that floods.
        port: PortId,
    },
    /// The source guard dropped a frame. At most once a second per port.
    Guarded {
        /// The port it came in on.
        port: PortId,
        /// Which check failed.
        reason: DropReason,
        /// The source it claimed.
        source: Mac,
    },
}

/// Why the switch wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutReason {
    /// FDB entries may have aged out.
    FdbAgeing(NetworkId),
    /// A router advertisement is due.
    Advertise(NetworkId),
    /// Balanced connections may have expired.
    Balancer(NetworkId),
}

/// A deadline with its reason.
pub type Deadline = (Instant, TimeoutReason);
