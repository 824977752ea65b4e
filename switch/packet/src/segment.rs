//! A super-frame into frames of wire size, as the kernel's software GSO would: equal payloads,
//! rising IPv4 ids and TCP sequence numbers, FIN and PSH on the last, CWR on the first (RFC 3168
//! section 6.1.2), every checksum complete.

use crate::{
    checksum::{fold, protocol, pseudo_header, sum},
    frame::Frame,
    offload::{Checksum, Gso, Offload},
    parsed::{ETHERNET_LEN, TAG_LEN, ethertype},
    pool::Pool,
};

/// Why a super-frame was not cut (whole).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentError {
    /// Its headers do not match its offload metadata.
    Malformed,
    /// The pool ran out; segments given so far stand.
    NoBuffer,
}

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// Where the parts of a super-frame are.
#[derive(Clone, Copy, Debug)]
struct Layout {
    l3: usize,
    ipv6: bool,
    l4: usize,
    tcp: bool,
    payload: usize,
    size: usize,
    ecn: bool,
}

/// Length of all headers of a super-frame, Ethernet to L4, bytes; `None` when they make no sense.
#[must_use]
pub fn header_len(frame: &Frame) -> Option<usize> {
    Layout::of(frame).map(|layout| layout.payload)
}

/// Length of the longest segment that [`segment`] would make, bytes; `None` when it would refuse.
#[must_use]
pub fn longest_segment(frame: &Frame) -> Option<usize> {
    let layout = Layout::of(frame)?;
    Some(layout.payload + layout.size.min(frame.len() - layout.payload))
}

/// Cuts `frame` and gives each segment to `sink` in order.
///
/// # Errors
/// When the headers do not allow it, before anything was given; or when the pool is empty.
pub fn segment(frame: &Frame, pool: &Pool, mut sink: impl FnMut(Frame)) -> Result<(), SegmentError> {
    let layout = Layout::of(frame).ok_or(SegmentError::Malformed)?;
    let bytes = frame.bytes();
    let (headers, payload) = bytes.split_at(layout.payload);
    let count = payload.len().div_ceil(layout.size).max(1);
    for index in 0..count {
        let start = index * layout.size;
        let part = &payload[start..payload.len().min(start + layout.size)];
        let mut segment = pool.take_for(headers.len() + part.len()).ok_or(SegmentError::NoBuffer)?;
        segment.set_len(headers.len() + part.len());
        let out = segment.bytes_mut();
        out[..headers.len()].copy_from_slice(headers);
        out[headers.len()..].copy_from_slice(part);
        layout.finish(out, index, start, index + 1 == count);
        segment.offload = Offload::NONE;
        sink(segment);
    }
    Ok(())
}

impl Layout {
    fn of(frame: &Frame) -> Option<Self> {
        let (size, ecn, tcp, want_v6) = match frame.offload.gso {
            Gso::None => return None,
            Gso::Tcp4 { size, ecn } => (size, ecn, true, Some(false)),
            Gso::Tcp6 { size, ecn } => (size, ecn, true, Some(true)),
            Gso::Udp { size } => (size, false, false, None),
        };
        let Checksum::Partial { start, .. } = frame.offload.checksum else { return None };
        let bytes = frame.bytes();
        let mut l3 = ETHERNET_LEN;
        let mut kind = u16::from_be_bytes([*bytes.get(12)?, *bytes.get(13)?]);
        while matches!(kind, ethertype::CTAG | ethertype::STAG) && l3 < ETHERNET_LEN + 2 * TAG_LEN {
            kind = u16::from_be_bytes([*bytes.get(l3 + 2)?, *bytes.get(l3 + 3)?]);
            l3 += TAG_LEN;
        }
        let ipv6 = match kind {
            ethertype::IPV4 => false,
            ethertype::IPV6 => true,
            _ => return None,
        };
        let l4 = usize::from(start);
        let shortest = if ipv6 { 40 } else { 20 };
        if want_v6.is_some_and(|want| want != ipv6) || l4 < l3 + shortest || bytes.len() < l4 {
            return None;
        }
        if !ipv6 && usize::from(bytes[l3] & 0xf) * 4 != l4 - l3 {
            return None;
        }
        let l4_header = if tcp { usize::from(*bytes.get(l4 + 12)? >> 4) * 4 } else { 8 };
        let payload = l4 + l4_header;
        if l4_header < if tcp { 20 } else { 8 } || payload > bytes.len() || size == 0 {
            return None;
        }
        Some(Self { l3, ipv6, l4, tcp, payload, size: usize::from(size), ecn })
    }

    /// Sets lengths, ids, sequence numbers, flags and checksums of segment `index`, whose payload
    /// began `start` bytes into the whole.
    #[expect(clippy::cast_possible_truncation, reason = "frames are shorter than 2^16 bytes, and ids wrap")]
    fn finish(&self, out: &mut [u8], index: usize, start: usize, last: bool) {
        let l4_len = out.len() - self.l4;
        if self.ipv6 {
            let length = (out.len() - self.l3 - 40) as u16;
            out[self.l3 + 4..self.l3 + 6].copy_from_slice(&length.to_be_bytes());
        } else {
            let header = &mut out[self.l3..];
            let length = header.len() as u16;
            header[2..4].copy_from_slice(&length.to_be_bytes());
            let id = u16::from_be_bytes([header[4], header[5]]).wrapping_add(index as u16);
            header[4..6].copy_from_slice(&id.to_be_bytes());
            header[10..12].fill(0);
            let checksum = !fold(sum(&header[..self.l4 - self.l3]));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        let (ip, l4) = out[self.l3..].split_at_mut(self.l4 - self.l3);
        let (protocol, field) = if self.tcp { (protocol::TCP, 16) } else { (protocol::UDP, 6) };
        if self.tcp {
            let sequence = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]).wrapping_add(start as u32);
            l4[4..8].copy_from_slice(&sequence.to_be_bytes());
            if !last {
                l4[13] &= !(TCP_FIN | TCP_PSH);
            }
            if index > 0 && self.ecn {
                l4[13] &= !TCP_CWR;
            }
        } else {
            l4[4..6].copy_from_slice(&(l4_len as u16).to_be_bytes());
        }
        l4[field..field + 2].fill(0);
        let pseudo = pseudo_header(ip, protocol, l4_len).unwrap_or(0);
        let checksum = match !fold(sum(l4) + pseudo) {
            0 if !self.tcp => 0xffff,
            checksum => checksum,
        };
        l4[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{checksum::verify, parsed::Parsed, pool::PoolConfig};

    /// A super-frame with the partial checksum that a kernel would leave.
    pub(crate) fn super_frame(pool: &Pool, ipv6: bool, tcp: bool, tagged: bool, size: u16, payload: &[u8]) -> Frame {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if tagged {
            bytes.extend([0x81, 0, 0, 5]);
        }
        bytes.extend(if ipv6 { [0x86, 0xdd] } else { [8, 0] });
        let l4_header = if tcp { 32 } else { 8 };
        let l4_len = l4_header + payload.len();
        let protocol = if tcp { protocol::TCP } else { protocol::UDP };
        let ip = if ipv6 {
            let mut ip = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            ip[4..6].copy_from_slice(&u16::try_from(l4_len).unwrap().to_be_bytes());
            ip.extend([0xfd; 32]);
            ip
        } else {
            let mut ip = vec![0x45, 0, 0, 0, 0xff, 0xff, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            ip[2..4].copy_from_slice(&u16::try_from(20 + l4_len).unwrap().to_be_bytes());
            ip
        };
        let start = u16::try_from(bytes.len() + ip.len()).unwrap();
        let pseudo = fold(pseudo_header(&ip, protocol, l4_len).unwrap());
        bytes.extend(&ip);
        let mut l4 = vec![0; l4_header];
        let offset = if tcp {
            l4[4..8].copy_from_slice(&0xffff_fff0_u32.to_be_bytes());
            l4[12] = 0x80;
            l4[13] = 0x10 | TCP_PSH | TCP_FIN | TCP_CWR;
            16
        } else {
            6
        };
        l4[offset..offset + 2].copy_from_slice(&pseudo.to_be_bytes());
        bytes.extend(&l4);
        bytes.extend(payload);
        let mut frame = pool.copy_of(&bytes).unwrap();
        let gso = match (tcp, ipv6) {
            (true, false) => Gso::Tcp4 { size, ecn: true },
            (true, true) => Gso::Tcp6 { size, ecn: true },
            (false, _) => Gso::Udp { size },
        };
        frame.offload = Offload { checksum: Checksum::Partial { start, offset: u16::try_from(offset).unwrap() }, gso };
        frame
    }

    proptest! {
        #[test]
        fn segments_verify_and_join_to_the_whole(
            ipv6: bool, tcp: bool, tagged: bool, size in 1_u16..3000, payload in proptest::collection::vec(any::<u8>(), 1..20_000)
        ) {
            let pool = Pool::new(PoolConfig { small: 30_000, large: 4 });
            let frame = super_frame(&pool, ipv6, tcp, tagged, size, &payload);
            let header = header_len(&frame).unwrap();
            let mut joined = Vec::new();
            let mut flags = Vec::new();
            segment(&frame, &pool, |segment| {
                assert!(verify(segment.bytes()), "checksums of {segment:?}");
                assert!(segment.len() <= header + usize::from(size));
                let parsed = Parsed::new(segment.bytes()).unwrap();
                let ip = parsed.ip.expect("sound lengths");
                assert_eq!(ip.offset + ip.length, segment.len());
                if tcp {
                    let l4 = &segment.bytes()[ip.l4_offset..];
                    let sequence = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]);
                    assert_eq!(sequence, 0xffff_fff0_u32.wrapping_add(u32::try_from(joined.len()).unwrap()));
                    flags.push(l4[13]);
                }
                joined.extend_from_slice(&segment.bytes()[header..]);
            }).unwrap();
            prop_assert_eq!(joined, payload);
            for (index, flags) in flags.iter().enumerate().rev().skip(1) {
                prop_assert_eq!(flags & (TCP_FIN | TCP_PSH), 0);
                prop_assert_eq!(flags & TCP_CWR != 0, index == 0);
            }
        }

        #[test]
        fn rubbish_with_any_metadata_is_survived(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), header in any::<[u8; 10]>()
        ) {
            let pool = Pool::new(PoolConfig { small: 4096, large: 4 });
            let mut frame = pool.copy_of(&bytes).unwrap();
            if let Ok(offload) = Offload::from_virtio(&header, bytes.len()) {
                frame.offload = offload;
                segment(&frame, &pool, drop).ok();
                crate::checksum::complete(&mut frame);
            }
        }
    }

    #[test]
    fn an_empty_pool_is_an_error() {
        let pool = Pool::new(PoolConfig { small: 0, large: 2 });
        let frame = super_frame(&pool, false, true, false, 1000, &[1; 5000]);
        assert_eq!(segment(&frame, &pool, std::mem::forget), Err(SegmentError::NoBuffer));
    }
}
