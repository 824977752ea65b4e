//! Address translation, sans-IO, in two kinds.
//!
//! * [`Nat`] rewrites packets, as a router does: for an uplink that carries packets.
//! * [`proxy`] ends flows and starts them again on the host's sockets: for an uplink that needs no
//!   privilege. What the host does is behind [`proxy::Sockets`], which the daemon implements with real
//!   sockets and the tests with made-up ones.
//!
//! Both know networks, inside and outside ends, published ports; neither makes a system call.

mod behaviour;
mod conntrack;
mod drop;
mod fast;
mod fragment;
mod icmp;
mod index;
mod lifetime;
mod mapping;
mod npt;
mod port_alloc;
pub mod proxy;
mod rule;
mod tcp_state;
mod traffic;
mod translate;
mod tuple;
mod vip;
mod watch;

pub use behaviour::{Behaviour, Dependence, NoSuchPreset, PRESETS};
pub use conntrack::ConnectionView;
pub use drop::{NatDrop, NatDrops};
pub use fast::{Hit, Plain};
pub use lifetime::{Lifetimes, UNSOLICITED_SYN};
pub use npt::Prefixes;
pub use rule::{Forward, ForwardError, ForwardId, ForwardView, Inside, Translation};
pub use traffic::{Traffic, TrafficView};
pub use translate::{Nat, NatConfig, Refused, Rehearsed, Sent, Translated, Unwanted};
pub use tuple::{Direction, End};
pub use vip::{Vip, VipView};
pub use watch::FlowEvent;
