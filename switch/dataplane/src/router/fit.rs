//! A packet made fit for its next link: one hop less, an MSS that fits, or in fragments.
//!
//! Frames here are untagged and hold a sound IP packet: their gateway checked.

use packet::{Checksum, ETHERNET_LEN, Frame, Gso, Offload, PacketMut, Parsed, Pool, checksum, longest_segment};

use super::speech::Problem;

const TCP: u8 = 6;
const SYN: u8 = 2;
/// Bytes of IPv4 and TCP headers without options, and of IPv6 and TCP (RFC 9293 section 3.7.1).
const HEADERS_V4: u16 = 40;
const HEADERS_V6: u16 = 60;
/// RFC 791's flag "do not fragment", in the high byte of the fragment field.
const DO_NOT_FRAGMENT: u8 = 0x40;

fn is_ipv4(bytes: &[u8]) -> bool {
    bytes.get(ETHERNET_LEN).is_some_and(|byte| byte >> 4 == 4)
}

/// Whether a packet, or each segment of a super-frame, is no longer than `mtu`.
pub(super) fn fits(frame: &Frame, mtu: u16) -> bool {
    let most = usize::from(mtu) + ETHERNET_LEN;
    frame.len() <= most || (frame.offload.gso != Gso::None && longest_segment(frame).is_some_and(|longest| longest <= most))
}

/// Takes a hop (RFC 1812 section 5.3.1); false when there is none left.
pub(super) fn use_hop(frame: &mut Frame) -> bool {
    let bytes = frame.bytes_mut();
    let v4 = is_ipv4(bytes);
    let at = ETHERNET_LEN + if v4 { 8 } else { 7 };
    let Some(hops) = bytes.get(at).copied().filter(|hops| *hops > 1) else { return false };
    bytes[at] = hops - 1;
    if v4 {
        // RFC 1141: the word changed by 0x0100.
        let sum = u16::from_be_bytes([bytes[24], bytes[25]]);
        let (sum, carry) = sum.overflowing_add(0x0100);
        bytes[24..26].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
    }
    true
}

/// Lowers the segment size that a SYN of an untagged, unshared frame offers to what `mtu` carries.
pub fn clamp_mss(frame: &mut Frame, mtu: u16) {
    let bytes = frame.bytes();
    let v4 = is_ipv4(bytes);
    let (protocol, l4) = if v4 { (23, ETHERNET_LEN + usize::from(bytes[ETHERNET_LEN] & 0xf) * 4) } else { (20, ETHERNET_LEN + 40) };
    // A later fragment's bytes may look like one: `PacketMut` looks closer.
    if bytes.get(protocol) != Some(&TCP) || bytes.get(l4 + 13).is_none_or(|flags| flags & SYN == 0) {
        return;
    }
    if let Some(mut packet) = PacketMut::new(frame) {
        let _ = packet.clamp_mss(mtu.saturating_sub(if v4 { HEADERS_V4 } else { HEADERS_V6 }));
    }
}

/// Whether a router may cut a packet (RFC 791; never IPv6, RFC 8200 section 5).
pub(super) fn may_be_fragmented(frame: &Frame) -> bool {
    let bytes = frame.bytes();
    frame.offload.gso == Gso::None && is_ipv4(bytes) && bytes.get(20).is_some_and(|flags| flags & DO_NOT_FRAGMENT == 0)
}

/// What the sender of a packet that is too long is told (RFC 1191 section 4, RFC 4443 section 3.2).
pub(super) fn too_big(mtu: u16) -> Problem {
    Problem { v4: (3, 4), v6: (2, 0), rest: mtu.into() }
}

/// Cuts an IPv4 packet into fragments (RFC 791 section 3.2). False when buffers ran out.
pub(super) fn fragment(frame: &Frame, mtu: u16, pool: &Pool, parts: &mut Vec<Frame>) -> bool {
    let Some(mut whole) = frame.duplicate() else { return false };
    if whole.offload.checksum != Checksum::Complete {
        checksum::complete(&mut whole);
    }
    let bytes = whole.bytes();
    let Some(ip) = Parsed::new(bytes).and_then(|parsed| parsed.ip) else { return true };
    let header = &bytes[..ip.l4_offset];
    let payload = &bytes[ip.l4_offset..ip.end()];
    let size = (usize::from(mtu) - (ip.l4_offset - ip.offset)) & !7;
    if size == 0 {
        return true;
    }
    for (number, part) in payload.chunks(size).enumerate() {
        let Some(mut piece) = pool.take_for(header.len() + part.len()) else { return false };
        piece.set_len(header.len() + part.len());
        piece.offload = Offload::NONE;
        let out = piece.bytes_mut();
        out[..header.len()].copy_from_slice(header);
        out[header.len()..].copy_from_slice(part);
        let more = ip.more_fragments || (number + 1) * size < payload.len();
        let field = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
        let offset = (ip.fragment_offset + field(number * size)) / 8;
        out[16..18].copy_from_slice(&field(header.len() - ETHERNET_LEN + part.len()).to_be_bytes());
        out[20..22].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
        out[24..26].fill(0);
        let sum = !checksum::fold(checksum::sum(&out[ETHERNET_LEN..header.len()]));
        out[24..26].copy_from_slice(&sum.to_be_bytes());
        parts.push(piece);
    }
    true
}

#[cfg(test)]
mod tests {
    use packet::PoolConfig;

    use super::*;

    /// A UDP packet of `length` payload bytes, IPv4, its checksums right.
    fn udp(pool: &Pool, length: usize) -> Frame {
        let total = u16::try_from(28 + length).unwrap();
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
        bytes.extend(total.to_be_bytes());
        bytes.extend([0, 9, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 7]);
        bytes.extend((total - 20).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend((0..length).map(|at| u8::try_from(at % 251).unwrap()));
        let sum = !checksum::fold(checksum::sum(&bytes[14..34]));
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        pool.copy_of(&bytes).unwrap()
    }

    #[test]
    fn a_hop_is_taken_and_the_checksum_follows() {
        let pool = Pool::new(PoolConfig::default());
        let mut frame = udp(&pool, 8);
        for left in (1..64).rev() {
            assert!(use_hop(&mut frame));
            assert_eq!(frame.bytes()[22], left);
            assert!(checksum::verify(frame.bytes()));
        }
        assert!(!use_hop(&mut frame));
    }

    #[test]
    fn fragments_cover_the_packet() {
        let pool = Pool::new(PoolConfig::default());
        let frame = udp(&pool, 3000);
        let mut parts = Vec::new();
        assert!(!fits(&frame, 1400) && may_be_fragmented(&frame) && fragment(&frame, 1400, &pool, &mut parts));
        let views: Vec<_> = parts.iter().map(|part| Parsed::new(part.bytes()).unwrap().ip.unwrap()).collect();
        assert_eq!(views.iter().map(|ip| (ip.fragment_offset, ip.more_fragments)).collect::<Vec<_>>(), [(0, true), (1376, true), (2752, false)]);
        assert!(parts.iter().all(|part| fits(part, 1400) && checksum::verify(part.bytes())));
        let whole: Vec<u8> = parts.iter().zip(&views).flat_map(|(part, ip)| part.bytes()[ip.l4_offset..ip.end()].to_vec()).collect();
        assert_eq!(whole, frame.bytes()[34..]);
    }
}
