//! Ports of the live world: how frames get from a descriptor into the switch and back.

mod capture;
mod port;
pub(crate) mod sockets;
pub(crate) mod underlay;

pub(crate) use capture::{CaptureBytes, CaptureWriter};
pub(crate) use port::{PortDevice, PortIo, ReadMode};
