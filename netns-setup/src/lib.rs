//! Namespaces, TAP and veth devices, addresses and routes: done, and undone when a step fails.
//!
//! Knows nothing of the switch: what it hands over is a descriptor. Everything that must happen in
//! another namespace happens on a thread that enters it and is then thrown away.

pub mod attach;
pub mod detect;
mod device;
mod error;
pub mod link;
mod names;
mod netlink;
mod netns;
pub mod nsid;
pub mod process;
mod space;
mod sys;
mod undo;
pub mod user;

pub use device::{PacketFeatures, PortFd, TapFeatures, set_carrier, tap_name};
pub use error::{Result, SetupError};
pub use names::{NamespaceDir, check_ifname, check_name};
pub use netns::Netns;
pub use space::{Space, kill_left};
