//! Bytes, ids and time: the vocabulary that every other crate speaks.
//!
//! Pure: opens nothing, reads no clock, starts no thread.

mod address;
pub mod checksum;
mod coalesce;
mod describe;
mod drop_reasons;
mod edit;
mod filter;
mod five_tuple;
mod frame;
mod hash;
mod id;
mod mac;
mod offload;
mod packet_mut;
mod parsed;
pub mod pcapng;
mod pool;
mod segment;
#[cfg(test)]
mod testing;
mod time;

pub use address::{address_words, ip_destination, ip_source, is_martian};
pub use coalesce::{Coalescer, Joins};
pub use describe::describe;
pub use filter::{BadFilter, Filter};
pub use five_tuple::{FiveTuple, HashKey, keyed_hash};
pub use frame::Frame;
pub use hash::{Keyed, KeyedHasher};
pub use id::{CaptureId, EndpointId, NetworkId, PortId, VlanId, Vni};
pub use mac::{BadMac, Mac, UnicastMac};
pub use offload::{BadVirtioHeader, Checksum, Gso, Offload, VIRTIO_NET_HDR_LEN};
pub use packet_mut::PacketMut;
pub use parsed::{ETHERNET_LEN, EthernetView, IpView, Ndp, Parsed, TAG_LEN, VlanTag, ethertype};
pub use pool::{BufferClass, HEADROOM, Pool, PoolConfig, PoolStats};
pub use segment::{Segment, SegmentError, header_len, longest_segment, segment, segments};
pub use time::{Duration, Instant};
