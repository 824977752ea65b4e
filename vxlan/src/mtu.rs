//! How much fits into a tunnel.

use packet::{ETHERNET_LEN, Frame, Gso, longest_segment};

use crate::{crypt, drop::DropReason, encap::DATAGRAM_MOST, header::HEADER_LEN};

const UDP_HEADER: u16 = 8;
const IPV4_HEADER: u16 = 20;
const IPV6_HEADER: u16 = 40;
/// VXLAN header and inner Ethernet header.
#[expect(clippy::cast_possible_truncation, reason = "22")]
const INNER_HEADERS: u16 = (HEADER_LEN + ETHERNET_LEN) as u16;

/// The largest MTU that a VNI can have, bytes: a UDP datagram holds no more.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "a datagram is shorter than 2^16 bytes")]
pub const fn mtu_most(encrypted: bool) -> u16 {
    DATAGRAM_MOST as u16 - headers(encrypted)
}

/// VXLAN and inner Ethernet header, and what encryption adds.
#[expect(clippy::cast_possible_truncation, reason = "58 at most")]
const fn headers(encrypted: bool) -> u16 {
    INNER_HEADERS + if encrypted { crypt::OVERHEAD as u16 } else { 0 }
}

/// Largest inner IP packet, bytes, whose datagram fits the underlay whole: 1450 of 1500, 1430 over IPv6; encrypted 1414 and 1394.
#[must_use]
pub const fn inner_mtu(underlay_mtu: u16, ipv6_underlay: bool, encrypted: bool) -> u16 {
    let ip_header = if ipv6_underlay { IPV6_HEADER } else { IPV4_HEADER };
    underlay_mtu.saturating_sub(ip_header + UDP_HEADER + headers(encrypted))
}

/// Whether `frame`, or each segment of a super-frame, is within `mtu`. VLAN tags count as part of the packet, since the
/// underlay has to carry them too.
///
/// # Errors
/// `too_big`, or `cannot_segment` for a super-frame that contradicts itself.
pub(crate) fn check(frame: &Frame, mtu: u16) -> Result<(), DropReason> {
    let length = match frame.offload.gso {
        Gso::None => frame.len(),
        Gso::Tcp4 { .. } | Gso::Tcp6 { .. } | Gso::Udp { .. } => longest_segment(frame).ok_or(DropReason::CannotSegment)?,
    };
    if length > ETHERNET_LEN + usize::from(mtu) { Err(DropReason::TooBig) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_overheads() {
        assert_eq!((inner_mtu(1500, false, false), inner_mtu(1500, true, false)), (1450, 1430));
        assert_eq!((inner_mtu(9000, false, false), inner_mtu(40, false, false)), (8950, 0));
        assert_eq!((inner_mtu(1500, false, true), inner_mtu(1500, true, true)), (1414, 1394));
        assert_eq!((usize::from(mtu_most(false)) + 22, usize::from(mtu_most(true)) + 58), (DATAGRAM_MOST, DATAGRAM_MOST));
    }
}
