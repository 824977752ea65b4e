//! The first fourteen bytes of a frame as integers: what forwarding compares and hashes.

use packet::{Mac, UnicastMac};

/// Addresses in the low 48 bits, first octet highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) destination: u64,
    pub(crate) source: u64,
    /// EtherType, or the TPID of the outer tag.
    pub(crate) ethertype: u16,
}

const GROUP: u64 = 1 << 40;
const RESERVED_GROUP: u64 = 0x0180_c200_0000;

impl Header {
    /// `None` when the frame is shorter than a header.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<14>()?;
        // Two loads of eight bytes, each with two of the neighbour.
        let (destination, rest) = (u64::from_be_bytes(*header.first_chunk()?), u64::from_be_bytes(*header.last_chunk()?));
        Some(Self { destination: destination >> 16, source: rest >> 16, ethertype: rest as u16 })
    }

    /// Multicast or broadcast.
    #[inline]
    pub(crate) const fn is_to_group(self) -> bool {
        self.destination & GROUP != 0
    }

    /// 01-80-C2-00-00-00..0F, not forwarded by an 802.1Q bridge (IEEE 802.1Q table 8-1).
    #[inline]
    pub(crate) const fn is_to_reserved_group(self) -> bool {
        self.destination & !0xf == RESERVED_GROUP
    }

    /// No station has a group address or zero.
    #[inline]
    pub(crate) const fn is_from_station(self) -> bool {
        self.source & GROUP == 0 && self.source != 0
    }
}

/// The address in the low 48 bits.
pub(crate) fn mac_of(bits: u64) -> Mac {
    let [_, _, mac @ ..] = bits.to_be_bytes();
    Mac(mac)
}

/// The same, of a station.
pub(crate) fn station_of(bits: u64) -> Option<UnicastMac> {
    UnicastMac::new(mac_of(bits))
}

#[cfg(test)]
mod tests {
    use packet::EthernetView;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_the_view_of_bytes(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(1), Just(0x80), Just(0xc2)], 0..20)) {
            let (header, view) = (Header::new(&bytes), EthernetView::new(&bytes));
            prop_assert_eq!(header.is_some(), view.is_some());
            if let (Some(header), Some(view)) = (header, view) {
                prop_assert_eq!((mac_of(header.destination), mac_of(header.source), header.ethertype), (view.destination, view.source, view.ethertype));
                prop_assert_eq!(header.is_to_group(), view.destination.is_group());
                prop_assert_eq!(header.is_to_reserved_group(), view.destination.is_reserved_group());
                prop_assert_eq!(header.is_from_station(), UnicastMac::new(view.source).is_some());
            }
        }
    }

    #[test]
    fn the_reserved_group_has_sixteen_addresses() {
        let to = |last| Header { destination: RESERVED_GROUP | last, source: 0, ethertype: 0 };
        assert!((0..16).all(|last| to(last).is_to_reserved_group()));
        assert!(!to(16).is_to_reserved_group());
    }
}
