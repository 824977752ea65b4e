//! What is still to be done to a frame: the virtio network header as typed metadata.
//!
//! Byte layout (virtio 1.2 section 5.1.6, legacy 10-byte form; fields little-endian on the hosts we
//! run on): flags u8, gso_type u8, hdr_len u16, gso_size u16, csum_start u16, csum_offset u16.

use std::fmt;

/// Length of the header that we ask TAP and AF_PACKET for, bytes.
pub const VIRTIO_NET_HDR_LEN: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Whether the L4 checksum in the frame is finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The bytes are as the wire would carry them.
    #[default]
    Complete,
    /// The field at `start + offset` holds the uncomplemented pseudo-header sum; whoever finishes
    /// it sums from `start` to the end. `start` counts from the Ethernet header.
    Partial {
        /// First byte to sum.
        start: u16,
        /// Where the field is, from `start`.
        offset: u16,
    },
}

/// How a super-frame is to be cut. Sizes are bytes of L4 payload per segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// Not a super-frame.
    #[default]
    None,
    /// TCP over IPv4.
    Tcp4 {
        /// Payload bytes per segment.
        size: u16,
        /// CWR is set on the first segment only (RFC 3168 section 6.1.2).
        ecn: bool,
    },
    /// TCP over IPv6.
    Tcp6 {
        /// Payload bytes per segment.
        size: u16,
        /// CWR is set on the first segment only.
        ecn: bool,
    },
    /// UDP datagrams of equal size (USO), over either family.
    Udp {
        /// Payload bytes per datagram.
        size: u16,
    },
}

/// Work left on a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Checksum to finish.
    pub checksum: Checksum,
    /// Segments to cut.
    pub gso: Gso,
}

/// A virtio header that cannot be true of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadVirtioHeader {
    /// Fewer bytes than a header has.
    Short,
    /// A gso_type that we never asked for.
    UnknownGso(u8),
    /// A super-frame without a segment size, or without a partial checksum.
    BadGso,
    /// The checksum field lies outside the frame.
    BadChecksum,
}

impl fmt::Display for BadVirtioHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("virtio header cut short"),
            Self::UnknownGso(kind) => write!(f, "virtio header with unknown gso type {kind}"),
            Self::BadGso => f.write_str("virtio header with an impossible segment size"),
            Self::BadChecksum => f.write_str("virtio header with a checksum field outside the frame"),
        }
    }
}

impl std::error::Error for BadVirtioHeader {}

impl Offload {
    /// Nothing left to do.
    pub const NONE: Self = Self { checksum: Checksum::Complete, gso: Gso::None };

    /// True when the bytes are as the wire would carry them.
    #[must_use]
    pub const fn is_none(self) -> bool {
        matches!(self, Self::NONE)
    }

    /// Reads the header that came before a frame of `frame_len` bytes. `hdr_len` is ignored: it is
    /// not trustworthy on forwarded frames.
    ///
    /// # Errors
    /// When the header contradicts itself or points outside the frame.
    pub fn from_virtio(header: &[u8], frame_len: usize) -> Result<Self, BadVirtioHeader> {
        let &[flags, gso_type, _, _, size_lo, size_hi, start_lo, start_hi, offset_lo, offset_hi, ..] = header else {
            return Err(BadVirtioHeader::Short);
        };
        let start = u16::from_le_bytes([start_lo, start_hi]);
        let offset = u16::from_le_bytes([offset_lo, offset_hi]);
        let size = u16::from_le_bytes([size_lo, size_hi]);
        let checksum = if flags & F_NEEDS_CSUM == 0 {
            Checksum::Complete
        } else if usize::from(start) + usize::from(offset) + 2 <= frame_len {
            Checksum::Partial { start, offset }
        } else {
            return Err(BadVirtioHeader::BadChecksum);
        };
        let ecn = gso_type & GSO_ECN != 0;
        let gso = match gso_type & !GSO_ECN {
            GSO_NONE => Gso::None,
            GSO_TCPV4 => Gso::Tcp4 { size, ecn },
            GSO_TCPV6 => Gso::Tcp6 { size, ecn },
            GSO_UDP_L4 => Gso::Udp { size },
            other => return Err(BadVirtioHeader::UnknownGso(other)),
        };
        if gso != Gso::None && (size == 0 || checksum == Checksum::Complete) {
            return Err(BadVirtioHeader::BadGso);
        }
        Ok(Self { checksum, gso })
    }

    /// Writes the header. `header_len` is the length of all headers of a super-frame (Ethernet to
    /// L4), which the kernel takes as a hint; 0 when unknown.
    #[must_use]
    pub fn to_virtio(self, header_len: u16) -> [u8; VIRTIO_NET_HDR_LEN] {
        let (flags, start, offset) = match self.checksum {
            Checksum::Complete => (0, 0, 0),
            Checksum::Partial { start, offset } => (F_NEEDS_CSUM, start, offset),
        };
        let ecn_bit = |ecn| if ecn { GSO_ECN } else { 0 };
        let (gso_type, size) = match self.gso {
            Gso::None => (GSO_NONE, 0),
            Gso::Tcp4 { size, ecn } => (GSO_TCPV4 | ecn_bit(ecn), size),
            Gso::Tcp6 { size, ecn } => (GSO_TCPV6 | ecn_bit(ecn), size),
            Gso::Udp { size } => (GSO_UDP_L4, size),
        };
        let [header_lo, header_hi] = header_len.to_le_bytes();
        let [size_lo, size_hi] = size.to_le_bytes();
        let [start_lo, start_hi] = start.to_le_bytes();
        let [offset_lo, offset_hi] = offset.to_le_bytes();
        [flags, gso_type, header_lo, header_hi, size_lo, size_hi, start_lo, start_hi, offset_lo, offset_hi]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips() {
        for offload in [
            Offload::NONE,
            Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Gso::None },
            Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Gso::Tcp4 { size: 1448, ecn: true } },
            Offload { checksum: Checksum::Partial { start: 54, offset: 16 }, gso: Gso::Tcp6 { size: 1428, ecn: false } },
            Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso: Gso::Udp { size: 1200 } },
        ] {
            assert_eq!(Offload::from_virtio(&offload.to_virtio(54), 9000), Ok(offload));
        }
    }

    #[test]
    fn lying_headers_are_refused() {
        let tcp = |size, flags| [flags, GSO_TCPV4, 0, 0, size, 0, 34, 0, 16, 0];
        assert_eq!(Offload::from_virtio(&[0; 9], 60), Err(BadVirtioHeader::Short));
        assert_eq!(Offload::from_virtio(&tcp(0, 1), 9000), Err(BadVirtioHeader::BadGso));
        assert_eq!(Offload::from_virtio(&tcp(9, 0), 9000), Err(BadVirtioHeader::BadGso));
        assert_eq!(Offload::from_virtio(&tcp(9, 1), 51), Err(BadVirtioHeader::BadChecksum));
        assert_eq!(Offload::from_virtio(&[1, 3, 0, 0, 9, 0, 34, 0, 16, 0], 60), Err(BadVirtioHeader::UnknownGso(3)));
    }
}
