//! Ports, bridges and a frame's way through them. Sans-IO: frames, commands and the time go in;
//! frames, events and captures come out through the [`Outbox`].

mod command;
mod drop;
mod outbox;
mod port;
mod switch;

pub use command::{
    BridgeConfig, BridgeView, CaptureConfig, CaptureScope, Command, CommandError, Event, FdbKind, FdbView, L2Mode,
    PortChange, PortView, Reply, SwitchStats, TimeoutReason,
};
pub use drop::{DropCounters, DropReason};
pub use outbox::{CaptureRecord, Direction, Outbox, Sendable};
pub use port::{Capabilities, Guard, PortConfig, PortCounters, StormLimit, VlanMode};
pub use switch::{Switch, SwitchConfig};
