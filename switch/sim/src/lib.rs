//! Worlds in virtual time: switches, hosts with a TCP/IP stack that is not ours (smoltcp), and wires
//! with impairments. One seed gives one run, to the byte.

mod check;
mod host;
mod link;
mod random;
mod world;

pub use host::{Host, Transfer};
pub use link::LinkConfig;
pub use random::Random;
pub use world::{HostId, SwitchId, World};
