//! Worlds in virtual time: switches, hosts with a TCP/IP stack that is not ours (smoltcp), and wires
//! with impairments. One seed gives one run, to the byte. [`cluster`] has nodes that share networks.

mod check;
pub mod cluster;
mod host;
mod link;
mod queue;
mod random;
mod world;

pub use host::{Host, Transfer};
pub use link::LinkConfig;
pub use random::Random;
pub use world::{HostId, SwitchId, World};
