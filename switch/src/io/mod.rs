//! Ports of the live world: how frames get from a descriptor into the switch and back.

mod capture;
mod port;

pub(crate) use capture::{CaptureBytes, CaptureWriter};
pub use port::PortDevice;
pub(crate) use port::{Lost, PortIo, ReadMode, Refused};
