//! The outer source port, which tells the underlay one inner flow from another (RFC 7348 section 5: "a hash of fields
//! from the inner packet", in the dynamic range 49152-65535).

use std::net::IpAddr;

use packet::{ETHERNET_LEN, FiveTuple, Keyed, Parsed};

use crate::ecn;

/// Flows share so many lanes, each of which the shell keeps in order on the way out.
pub const LANES: u16 = 16;
/// The lane of an outer source port.
pub(crate) const fn lane(source_port: u16) -> usize {
    (source_port % LANES) as usize
}

const FIRST_PORT: u16 = 49152;
/// 2^14 ports: the highest bits of the hash.
const PORT_SHIFT: u32 = 64 - 14;

/// What the outer headers of a plain frame say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    /// As [`source_port`].
    pub(crate) source_port: u16,
    /// As [`ecn::of`](crate::ecn::of).
    pub(crate) ecn: u8,
}

/// Most frames are plain: untagged IPv4 without options, whole, TCP or UDP. They need not be parsed.
#[inline]
pub(crate) fn plain(bytes: &[u8], key: Keyed) -> Option<Plain> {
    let header = bytes.first_chunk::<38>()?;
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let is_fragment = u16::from_be_bytes([header[20], header[21]]) & 0x3fff != 0;
    let is_plain = header[12..15] == [8, 0, 0x45] && !is_fragment && matches!(header[23], 6 | 17) && length >= 24 && ETHERNET_LEN + length <= bytes.len();
    if !is_plain {
        return None;
    }
    let (addresses, ports) = (u64::from_be_bytes(*header[26..34].first_chunk()?), u32::from_be_bytes(*header.last_chunk()?));
    Some(Plain { source_port: port_of(v4_hash(key, addresses, header[23], ports)), ecn: header[15] & ecn::CE })
}

/// Addresses and ports: source, then destination.
#[inline]
fn v4_hash(key: Keyed, addresses: u64, protocol: u8, ports: u32) -> u64 {
    key.words([addresses, u64::from(protocol) << 32 | u64::from(ports)])
}

#[inline]
const fn port_of(hash: u64) -> u16 {
    FIRST_PORT + (hash >> PORT_SHIFT) as u16
}

/// The outer source port of the frame in `bytes` that `parsed` describes: by five-tuple for TCP and UDP, else by MAC addresses
/// and EtherType. A fragment goes by the latter too, so that the parts of a packet, of which one shows its ports, stay together.
pub(crate) fn source_port(parsed: &Parsed, bytes: &[u8], key: Keyed) -> u16 {
    let tuple = FiveTuple::of(parsed, bytes).filter(|_| parsed.ip.is_some_and(|ip| !ip.is_fragment()));
    let hash = match tuple {
        Some(tuple) => {
            let ports = u32::from(tuple.source_port) << 16 | u32::from(tuple.destination_port);
            match (tuple.source, tuple.destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    v4_hash(key, u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits()), tuple.protocol, ports)
                }
                (source, destination) => {
                    let ([a, b], [c, d]) = (halves(source), halves(destination));
                    key.words([a, b, c, d, u64::from(tuple.protocol) << 32 | u64::from(ports)])
                }
            }
        }
        None => {
            let ethernet = &parsed.ethernet;
            key.words([ethernet.source.as_u64(), ethernet.destination.as_u64(), u64::from(parsed.ethertype)])
        }
    };
    port_of(hash)
}

#[expect(clippy::cast_possible_truncation, reason = "split in two halves")]
fn halves(address: IpAddr) -> [u64; 2] {
    let wide = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    [wide as u64, (wide >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::vtep::samples;

    fn port(bytes: &[u8]) -> u16 {
        source_port(&Parsed::new(bytes).unwrap(), bytes, Keyed::new([3, 4]))
    }

    proptest! {
        /// Whatever is plain is labelled as if it had been parsed; a whole datagram is plain.
        #[test]
        fn plain_frames_are_labelled_alike(ports: [u16; 2], size in 0..30_usize, flips in proptest::collection::vec((12..40_usize, any::<u8>()), 0..3)) {
            let mut bytes = samples::udp4(ports[0], ports[1], &vec![1; size]);
            let key = Keyed::new([3, 4]);
            prop_assert!(plain(&bytes, key).is_some());
            flips.into_iter().for_each(|(at, flip)| bytes[at] ^= flip);
            if let Some(plain) = plain(&bytes, key) {
                let parsed = Parsed::new(&bytes).unwrap();
                prop_assert_eq!((plain.source_port, plain.ecn), (source_port(&parsed, &bytes, key), ecn::of(&parsed, &bytes)));
            }
        }
    }

    #[test]
    fn a_flow_keeps_its_port_whatever_it_carries() {
        assert_eq!(port(&samples::udp4(1000, 53, &[1, 2, 3])), port(&samples::udp4(1000, 53, &[9; 700])));
    }

    #[test]
    fn flows_spread_over_the_dynamic_range() {
        let ports: BTreeSet<u16> = (0..4000).map(|from| port(&samples::udp4(from, 53, &[]))).collect();
        assert!(ports.iter().all(|port| *port >= FIRST_PORT));
        // 4000 balls in 16384 bins meet about 440 times.
        assert!(ports.len() > 3400, "{}", ports.len());
        assert!(*ports.first().unwrap() < 49300 && *ports.last().unwrap() > 65400);
    }

    #[test]
    fn every_part_of_the_tuple_counts() {
        // Addresses, ports; not the hop limit.
        for (bytes, places) in [(samples::udp4(1, 2, &[]), [26, 30, 34, 36, 22]), (samples::udp6(1, 2, &[]), [22, 53, 54, 56, 21])] {
            for (part, place) in places.into_iter().enumerate() {
                let mut other = bytes.clone();
                other[place] ^= 1;
                assert_eq!(port(&other) == port(&bytes), part == 4, "byte {place}");
            }
        }
    }

    #[test]
    fn directions_differ() {
        let distinct = (0..100).filter(|from| port(&samples::udp4(*from, 5000, &[])) != port(&samples::udp4(5000, *from, &[]))).count();
        assert!(distinct > 95);
    }

    #[test]
    fn fragments_of_a_packet_stay_together() {
        let mut first = samples::udp4(1000, 53, &[0; 64]);
        first[20] |= 0x20;
        let mut second = samples::udp4(0x0101, 0x0202, &[0; 64]);
        second[21] = 9;
        assert_eq!(port(&first), port(&second));
    }

    #[test]
    fn others_go_by_their_mac_addresses() {
        let arp = samples::arp_request([10, 0, 0, 1], [10, 0, 0, 2]);
        let mut other = arp.clone();
        other[11] ^= 1;
        assert_ne!(port(&arp), port(&other));
    }
}
