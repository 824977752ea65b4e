//! Ports, bridges and a frame's way through them. Sans-IO: frames, commands and the time go in;
//! frames, events and captures come out through the [`Outbox`].

mod attachment;
mod bridge;
mod capture;
mod command;
mod drop;
mod egress;
mod fdb;
mod gateway;
mod guard;
mod header;
mod hint;
mod limits;
mod mesh;
mod outbox;
mod port;
mod rate;
mod residents;
mod router;
mod slots;
mod switch;
mod vlan;

pub use command::{
    BridgeConfig, BridgeView, CaptureConfig, CaptureScope, Command, CommandError, Event, FdbKind, FdbView, L2Mode,
    Deadline, PortChange, PortView, Reply, SwitchStats, TimeoutReason,
};
pub use drop::{DropCounters, DropReason};
pub use gateway::{AdvertiseConfig, DhcpConfig, GatewayConfig, GatewayRole, LeaseView, Reservation, VipConfig};
pub use mesh::{MESH, Mesh, MeshConfig, MeshStats, Place, Routed};
pub use outbox::{CaptureRecord, Direction, Outbox, Sendable};
pub use port::{Capabilities, Guard, Identity, PortConfig, PortCounters, StormLimit, VlanMode};
pub use residents::Claim;
pub use router::{Link, PacketUplink, Router, RouterOutput, RouterStats, clamp_mss};
pub use switch::{Switch, SwitchConfig, Told};
