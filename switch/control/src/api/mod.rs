//! Bodies of the native HTTP+JSON API. Unknown fields are refused by name.

mod bridge;
mod cluster;
mod endpoint;
mod info;
mod nat;
mod network;
mod overlay;
mod port;
mod publish;
mod sandbox;

pub(crate) use self::endpoint::vips_of;
pub use self::{
    bridge::{BridgeInfo, FdbEdit, FdbEntry},
    cluster::{Check, NodeInfo},
    endpoint::{Attach, Detach, EndpointCreate, VIP_OPTION},
    info::{Info, Stats, TraceRequest},
    nat::{FlowInfo, NatRule, protocol_name},
    network::{LeaseInfo, NetworkCreate, RoutePair},
    overlay::{EncryptionInfo, OverlayInfo, Overlays, PeerEdit, RemoteStation, StationEdit},
    port::{PortInfo, PortMove, PortPatch},
    publish::{PublishEdit, PublishInfo, VipEndpoint, VipInfo},
    sandbox::{NetnsCreate, NetnsInfo, ProcessStarted, SandboxCreate},
};
