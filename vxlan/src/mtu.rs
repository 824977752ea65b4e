//! How much fits into a tunnel.

use packet::{ETHERNET_LEN, Frame, Gso, longest_segment};

use crate::{
    crypt,
    drop::DropReason,
    encap::{DATAGRAM_MOST, SEGMENTS_MOST},
    header::HEADER_LEN,
};

const UDP_HEADER: u16 = 8;
const IPV4_HEADER: u16 = 20;
const IPV6_HEADER: u16 = 40;
/// VXLAN header and inner Ethernet header.
#[expect(clippy::cast_possible_truncation, reason = "22")]
const INNER_HEADERS: u16 = (HEADER_LEN + ETHERNET_LEN) as u16;

/// IPv6 and TCP headers with timestamps: the most that a full segment spends on them.
const TCP_HEADERS: u16 = 40 + 20 + 12;
/// MAX_TCP_HEADER of Linux, which is never more.
const STACK_HEADERS: u32 = 320;
/// GSO_LEGACY_MAX_SIZE of Linux.
const GSO_MOST: u32 = 65_536;

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

/// Longest super-frame, bytes (`gso_max_size` of a sandbox's device), whose datagrams one send with UDP_SEGMENT takes:
/// one of 64 KiB would leave a few segments for a second send. The kernel keeps `STACK_HEADERS` of it, and fills the rest
/// with what segments carry beside their IP and TCP headers.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "a datagram is shorter than 2^16 bytes")]
pub const fn gso_most(mtu: u16, encrypted: bool) -> u32 {
    let fit = DATAGRAM_MOST / (mtu as usize + headers(encrypted) as usize);
    let segments = if fit < SEGMENTS_MOST { fit } else { SEGMENTS_MOST };
    let most = segments as u32 * mtu.saturating_sub(TCP_HEADERS) as u32 + STACK_HEADERS;
    if most < GSO_MOST { most } else { GSO_MOST }
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

    #[test]
    fn a_super_frame_is_one_send() {
        for (mtu, encrypted) in [(1450, false), (1430, false), (1414, true), (8950, false), (576, false), (mtu_most(false), false)] {
            let most = gso_most(mtu, encrypted);
            for kept in [128, STACK_HEADERS] {
                let segments = ((most - kept) / u32::from(mtu - TCP_HEADERS)) as usize;
                assert!(segments <= SEGMENTS_MOST && segments * usize::from(mtu + headers(encrypted)) <= DATAGRAM_MOST, "{mtu} {most} {segments}");
            }
        }
    }
}
