//! What happened in one VNI.

use crate::drop::Drops;

/// Counters of one VNI, from its making on.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Frames encapsulated; a super-frame counts once.
    pub frames_out: u64,
    /// Their bytes, before encapsulation.
    pub bytes_out: u64,
    /// Those of them that went to all peers.
    pub flooded: u64,
    /// ARP requests and neighbour solicitations answered here.
    pub suppressed: u64,
    /// Frames decapsulated; each datagram counts.
    pub frames_in: u64,
    /// Their bytes, after decapsulation.
    pub bytes_in: u64,
    /// Addresses learned.
    pub learned: u64,
    /// Learned addresses that moved to another remote.
    pub moved: u64,
    /// Learned addresses that made room for others.
    pub evicted: u64,
    /// What was dropped in it.
    pub drops: Drops,
}
