//! The Internet checksum: sum, update (RFC 1624), pseudo-headers, completion of a partial one.

use crate::{frame::Frame, offload::Checksum};

/// IP protocol numbers (IANA).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

/// Uncomplemented one's-complement sum of `bytes`, to be folded. Parts may be added if all but the
/// last have an even length.
///
/// Summed in the machine's own byte order, since the sum of swapped words is the swapped sum (RFC
/// 1071 section 2): the loop is then plain 32-bit loads into 64-bit lanes, which the compiler vectorises.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let last = match *rest {
        [] => [0; 4],
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c, ..] => [a, b, c, 0],
    };
    // A carry out of 64 bits would need 2^32 words.
    let total: u64 = words.iter().chain([&last]).map(|&word| u64::from(u32::from_ne_bytes(word))).sum();
    u64::from(u16::from_be(fold(total)))
}

/// Folds an unfolded sum to sixteen bits.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "folded to sixteen bits")]
pub fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// RFC 1624 equation 3: the checksum after a field changed from `old` to `new` (even lengths).
#[must_use]
pub fn update(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let old_folded = fold(sum(old));
    !fold(u64::from(!checksum) + u64::from(!old_folded) + sum(new))
}

/// Unfolded sum of the pseudo-header (RFC 9293 3.1, RFC 8200 8.1) of the IP packet whose header is
/// `ip`, for `length` bytes of `protocol`. `None` when it is neither IPv4 nor IPv6 or cut short.
#[must_use]
pub fn pseudo_header(ip: &[u8], protocol: u8, length: usize) -> Option<u64> {
    let addresses = match ip.first()? >> 4 {
        4 => ip.get(12..20)?,
        6 => ip.get(8..40)?,
        _ => return None,
    };
    Some(sum(addresses) + u64::from(protocol) + length as u64)
}

/// Finishes a partial checksum in place; UDP's zero becomes 0xffff (RFC 768). A frame whose field
/// lies outside is left as it is: [`Offload::from_virtio`](crate::Offload::from_virtio) let none in.
///
/// # Panics
/// When the frame is shared.
#[inline]
pub fn complete(frame: &mut Frame) {
    if let Checksum::Partial { start, offset } = frame.offload.checksum {
        complete_from(frame, start, offset);
    }
}

fn complete_from(frame: &mut Frame, start: u16, offset: u16) {
    let start = usize::from(start);
    let field = start + usize::from(offset);
    frame.offload.checksum = Checksum::Complete;
    let bytes = frame.bytes_mut();
    let Some(covered) = bytes.get(start..) else { return };
    let value = match !fold(sum(covered)) {
        // Offset 6 is UDP's field; TCP's zero stays zero.
        0 if offset == 6 => 0xffff,
        value => value,
    };
    if let Some(field) = bytes.get_mut(field..field + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// True when the IPv4 header checksum and the TCP, UDP or ICMP checksum of an untagged or tagged
/// frame are right, or the frame carries none that can be checked (fragments, other protocols).
#[must_use]
pub fn verify(bytes: &[u8]) -> bool {
    verify_parsed(bytes).unwrap_or(true)
}

fn verify_parsed(bytes: &[u8]) -> Option<bool> {
    let parsed = crate::parsed::Parsed::new(bytes)?;
    let ip = parsed.ip?;
    let packet = bytes.get(ip.offset..ip.offset + ip.length)?;
    if packet[0] >> 4 == 4 && fold(sum(packet.get(..ip.l4_offset - ip.offset)?)) != 0xffff {
        return Some(false);
    }
    if ip.fragment_offset != 0 || ip.more_fragments || ip.routed {
        return None;
    }
    let l4 = packet.get(ip.l4_offset - ip.offset..)?;
    let pseudo = match ip.protocol {
        // A header cut short holds no checksum.
        protocol::TCP if l4.len() < 20 => return None,
        // None at all (RFC 768), which IPv6 does not allow (RFC 8200 section 8.1).
        protocol::UDP if l4.len() < 8 || l4[6..8] == [0, 0] && packet[0] >> 4 == 4 => return None,
        protocol::ICMP | protocol::ICMPV6 if l4.len() < 4 => return None,
        protocol::TCP | protocol::UDP | protocol::ICMPV6 => pseudo_header(packet, ip.protocol, l4.len())?,
        protocol::ICMP => 0,
        _ => return None,
    };
    Some(fold(sum(l4) + pseudo) == 0xffff)
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "enums of other crates")]
mod tests {
    use proptest::prelude::*;
    use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Address, TcpPacket, UdpPacket};

    use super::*;
    use crate::{Gso, Offload, Pool, PoolConfig};

    proptest! {
        #[test]
        fn sum_agrees_with_a_naive_one(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let naive = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum::<u64>();
            prop_assert_eq!(fold(sum(&bytes)), fold(naive));
        }

        #[test]
        fn update_agrees_with_recomputing(mut bytes in proptest::collection::vec(any::<u8>(), 40), new in any::<[u8; 4]>()) {
            // A sum of zero cannot occur over a real header, and the two zeros are one value.
            bytes[39] |= 1;
            let before = !fold(sum(&bytes));
            let old = [bytes[12], bytes[13], bytes[14], bytes[15]];
            bytes[12..16].copy_from_slice(&new);
            prop_assert_eq!(update(before, &old, &new), !fold(sum(&bytes)));
        }

        #[test]
        fn completion_satisfies_smoltcp(payload in proptest::collection::vec(any::<u8>(), 0..200), udp: bool) {
            let pool = Pool::new(PoolConfig::default());
            let (protocol, header, offset) = if udp { (protocol::UDP, 8, 6) } else { (protocol::TCP, 20, 16) };
            let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            let total = u16::try_from(20 + header + payload.len()).unwrap();
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            let mut l4 = vec![0; header];
            if udp { l4[4..6].copy_from_slice(&(total - 20).to_be_bytes()); } else { l4[12] = 0x50; }
            l4.extend_from_slice(&payload);
            let pseudo = fold(pseudo_header(&ip, protocol, l4.len()).unwrap());
            l4[offset..offset + 2].copy_from_slice(&pseudo.to_be_bytes());
            let bytes = [vec![0; 12], vec![8, 0], ip, l4].concat();
            let mut frame = pool.copy_of(&bytes).unwrap();
            frame.offload = Offload { checksum: Checksum::Partial { start: 34, offset: u16::try_from(offset).unwrap() }, gso: Gso::None };
            complete(&mut frame);
            let (source, destination) = (IpAddress::Ipv4(Ipv4Address::new(10, 0, 0, 1)), IpAddress::Ipv4(Ipv4Address::new(10, 0, 0, 2)));
            let l4 = &frame.bytes()[34..];
            let good = match IpProtocol::from(protocol) {
                IpProtocol::Udp => UdpPacket::new_checked(l4).unwrap().verify_checksum(&source, &destination),
                _ => TcpPacket::new_checked(l4).unwrap().verify_checksum(&source, &destination),
            };
            prop_assert!(good);
        }
    }
}
