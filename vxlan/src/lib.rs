//! The VXLAN tunnel endpoint (sans-IO): RFC 7348, with ARP/ND suppression (RFC 9161) and ECN tunnelling (RFC 6040).
//!
//! ```text
//!   network --frame--> Vtep::encap --Datagram--> UDP socket      one sendmsg, UDP_SEGMENT for several
//!   network <--frame-- Vtep::decap <--datagram-- UDP socket      one recvmsg, UDP_GRO for several
//! ```
//!
//! Pure: opens nothing, reads no clock, draws no randomness of its own. Encryption is [`crypt`]. What it does not do: group policy
//! (VXLAN-GBP), other payloads than Ethernet (VXLAN-GPE), fragmentation, and multicast membership, which the shell joins.
//!
//! Split horizon is the caller's: a frame that came out of a tunnel is not put back into one.

mod counters;
pub mod crypt;
mod decap;
mod drop;
pub mod ecn;
mod encap;
mod flow;
pub mod header;
mod mtu;
mod neighbours;
mod network;
mod own;
mod peers;
mod refused;
mod remotes;
mod vtep;

pub use counters::Counters;
pub use decap::Outer;
pub use drop::{DropReason, Drops};
pub use flow::LANES;
pub use encap::{DATAGRAM_MOST, Datagram, SEGMENTS_MOST};
pub use mtu::{gso_most, inner_mtu, mtu_most};
pub use neighbours::Neighbour;
pub use network::VniConfig;
pub use refused::Refused;
pub use remotes::{RemoteKind, RemoteView};
pub use vtep::{Vtep, VtepConfig};

/// UDP port of VXLAN (IANA; RFC 7348 section 8).
pub const PORT: u16 = 4789;
