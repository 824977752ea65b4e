//! IP addresses: of packets, as words, and those that no router passes on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn at(bytes: &[u8], at_v4: usize, at_v6: usize) -> Option<IpAddr> {
    match bytes.get(12..14)? {
        [8, 0] => bytes.get(at_v4..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into()),
        [0x86, 0xdd] => bytes.get(at_v6..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into()),
        _ => None,
    }
}

/// Source address of an untagged frame's IP packet, unchecked otherwise.
#[must_use]
#[inline]
pub fn ip_source(bytes: &[u8]) -> Option<IpAddr> {
    at(bytes, 26, 22)
}

/// Destination address of an untagged frame's IP packet, unchecked otherwise.
#[must_use]
#[inline]
pub fn ip_destination(bytes: &[u8]) -> Option<IpAddr> {
    at(bytes, 30, 38)
}

/// Addresses that no router passes on, from or to (RFC 1812 section 5.3.7, RFC 6890, RFC 4291 section 2.5).
#[must_use]
pub fn is_martian(ip: IpAddr) -> bool {
    match ip {
        // The first octet from 240 on: reserved, and broadcast.
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    }
}

/// An address as words to hash: an IPv4 address, and its spelling as the low bits of an IPv6 one, give the
/// same, so the family has to go in as well.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "split in two halves")]
pub fn address_words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [u64::from(u32::from(address)), 0],
        IpAddr::V6(address) => {
            let wide = u128::from(address);
            [wide as u64, (wide >> 64) as u64]
        }
    }
}
