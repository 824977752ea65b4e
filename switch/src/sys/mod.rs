//! System calls that no crate wraps: the only `unsafe` of the daemon.
#![allow(unsafe_code, reason = "system-call edge; every block says why it holds")]

mod batch;
pub(crate) mod datagram;
pub(crate) mod mmsg;
pub(crate) mod priority;
pub(crate) mod ring;
pub(crate) mod socket;
