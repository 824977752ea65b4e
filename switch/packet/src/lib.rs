//! Bytes, ids and time: the vocabulary that every other crate speaks.
//!
//! Pure: opens nothing, reads no clock, starts no thread.

mod frame;
mod id;
mod mac;
mod offload;
mod pool;
mod time;

pub use frame::Frame;
pub use id::{CaptureId, EndpointId, NetworkId, PortId, VlanId, Vni};
pub use mac::{Mac, UnicastMac};
pub use offload::{BadVirtioHeader, Checksum, Gso, Offload, VIRTIO_NET_HDR_LEN};
pub use pool::{BufferClass, HEADROOM, Pool, PoolConfig, PoolStats};
pub use time::{Duration, Instant};
