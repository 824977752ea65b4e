//! A super-frame into frames of wire size, as the kernel's software GSO would: equal payloads,
//! rising IPv4 ids and TCP sequence numbers, FIN and PSH on the last, CWR on the first (RFC 3168
//! section 6.1.2), every checksum complete.

use crate::{
    checksum::{fold, protocol, sum},
    frame::Frame,
    offload::{Checksum, Gso, Offload},
    parsed::Parsed,
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

pub(crate) const TCP_HEADER: usize = 20;
pub(crate) const TCP_CHECKSUM: usize = 16;
pub(crate) const UDP_HEADER: usize = 8;
pub(crate) const UDP_CHECKSUM: usize = 6;
pub(crate) const TCP_FIN: u8 = 0x01;
pub(crate) const TCP_PSH: u8 = 0x08;
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

/// A frame of wire size that is still part of a super-frame.
#[derive(Debug)]
pub struct Segment<'a> {
    layout: Layout,
    headers: &'a [u8],
    payload: &'a [u8],
    index: usize,
    part: &'a [u8],
}

impl Segment<'_> {
    /// Bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it has headers")]
    pub const fn len(&self) -> usize {
        self.headers.len() + self.part.len()
    }

    /// Writes it, with all its checksums.
    ///
    /// # Panics
    /// When `out` is not [`len`](Self::len) bytes long.
    pub fn write(&self, out: &mut [u8]) {
        let (headers, part) = out.split_at_mut(self.headers.len());
        headers.copy_from_slice(self.headers);
        part.copy_from_slice(self.part);
        let start = self.index * self.layout.size;
        let whole_l4_len = self.headers.len() + self.payload.len() - self.layout.l4;
        self.layout.finish(out, whole_l4_len, self.index, start, start + self.part.len() == self.payload.len());
    }
}

/// What `frame` is to be cut into, in order; `None` when its headers do not allow it.
#[must_use]
pub fn segments(frame: &Frame) -> Option<impl Iterator<Item = Segment<'_>>> {
    let layout = Layout::of(frame)?;
    let (headers, payload) = frame.bytes().split_at(layout.payload);
    let count = payload.len().div_ceil(layout.size).max(1);
    Some((0..count).map(move |index| {
        let start = index * layout.size;
        let part = &payload[start..payload.len().min(start + layout.size)];
        Segment { layout, headers, payload, index, part }
    }))
}

/// Cuts `frame` and gives each segment to `sink` in order, in a buffer of its own.
///
/// # Errors
/// When the headers do not allow it, before anything was given; or when the pool is empty.
pub fn segment(frame: &Frame, pool: &Pool, mut sink: impl FnMut(Frame)) -> Result<(), SegmentError> {
    for segment in segments(frame).ok_or(SegmentError::Malformed)? {
        let mut out = pool.take_for(segment.len()).ok_or(SegmentError::NoBuffer)?;
        out.set_len(segment.len());
        segment.write(out.bytes_mut());
        out.offload = Offload::NONE;
        sink(out);
    }
    Ok(())
}

impl Layout {
    /// `None` when the headers do not say what the offload metadata says: a super-frame that lies
    /// would be cut into garbage.
    fn of(frame: &Frame) -> Option<Self> {
        let (size, ecn, tcp) = match frame.offload.gso {
            Gso::None => return None,
            Gso::Tcp4 { size, ecn } | Gso::Tcp6 { size, ecn } => (usize::from(size), ecn, true),
            Gso::Udp { size } => (usize::from(size), false, false),
        };
        let Checksum::Partial { start, offset } = frame.offload.checksum else { return None };
        let bytes = frame.bytes();
        let ip = Parsed::new(bytes)?.ip?;
        let ipv6 = ip.source.is_ipv6();
        let family_fits = match frame.offload.gso {
            Gso::Tcp4 { .. } => !ipv6,
            Gso::Tcp6 { .. } => ipv6,
            Gso::Udp { .. } | Gso::None => true,
        };
        let (protocol, field) = if tcp { (protocol::TCP, TCP_CHECKSUM) } else { (protocol::UDP, UDP_CHECKSUM) };
        let headers_fit = ip.protocol == protocol && !ip.is_fragment() && ip.end() == bytes.len();
        let checksum_fits = usize::from(start) == ip.l4_offset && usize::from(offset) == field;
        let l4_header = if tcp { usize::from(*bytes.get(ip.l4_offset + 12)? >> 4) * 4 } else { UDP_HEADER };
        let payload = ip.l4_offset + l4_header;
        let lengths_fit = l4_header >= if tcp { TCP_HEADER } else { UDP_HEADER } && payload <= bytes.len() && size > 0;
        (family_fits && headers_fit && checksum_fits && lengths_fit)
            .then_some(Self { l3: ip.offset, ipv6, l4: ip.l4_offset, tcp, payload, size, ecn })
    }

    /// Sets lengths, ids, sequence numbers, flags and checksums of segment `index`, whose payload
    /// began `start` bytes into the whole, whose L4 packet had `whole_l4_len` bytes.
    #[expect(clippy::cast_possible_truncation, reason = "frames are shorter than 2^16 bytes, and ids wrap")]
    fn finish(&self, out: &mut [u8], whole_l4_len: usize, index: usize, start: usize, last: bool) {
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
        let l4 = &mut out[self.l4..];
        let field = if self.tcp { TCP_CHECKSUM } else { UDP_CHECKSUM };
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
        // The field holds the pseudo-header sum of the whole, so it needs only the new length. A
        // wrong one stays wrong, and behind a routing header it knows the last address, as we do not.
        let pseudo = u64::from(!(whole_l4_len as u16)) + l4_len as u64;
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
    use crate::{
        Mac,
        parsed::Parsed,
        pool::PoolConfig,
        testing::{Sample, oracle_verifies},
    };

    /// TCP with all the flags that cutting treats, or UDP.
    fn super_sample() -> impl Strategy<Value = Sample> {
        (any::<Sample>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 1..20_000)).prop_map(|(sample, tcp, payload)| Sample {
            protocol: if tcp { protocol::TCP } else { protocol::UDP },
            flags: 0x10 | TCP_PSH | TCP_FIN | TCP_CWR,
            tcp_options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload,
            ..sample
        })
    }

    proptest! {
        #[test]
        fn segments_verify_and_join_to_the_whole(sample in super_sample(), size in 1_u16..3000) {
            let pool = Pool::new(PoolConfig { small: 30_000, large: 64 });
            let frame = sample.super_frame(&pool, size);
            let header = header_len(&frame).unwrap();
            prop_assert_eq!(header, frame.len() - sample.payload.len());
            let mut joined = Vec::new();
            let mut flags = Vec::new();
            let mut index = 0_u16;
            segment(&frame, &pool, |segment| {
                assert!(oracle_verifies(segment.bytes()), "checksums of {segment:?}");
                assert!(segment.len() <= longest_segment(&frame).unwrap() && segment.len() <= header + usize::from(size));
                assert_eq!((segment.offload, segment.bytes()[..12] == frame.bytes()[..12]), (Offload::NONE, true));
                let ip = Parsed::new(segment.bytes()).unwrap().ip.expect("sound lengths");
                assert_eq!(ip.end(), segment.len());
                if ip.source.is_ipv4() {
                    let id = &segment.bytes()[ip.offset + 4..ip.offset + 6];
                    assert_eq!(id, sample.id.wrapping_add(index).to_be_bytes());
                }
                if sample.protocol == protocol::TCP {
                    let l4 = &segment.bytes()[ip.l4_offset..];
                    let sequence = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]);
                    assert_eq!(sequence, sample.sequence.wrapping_add(u32::try_from(joined.len()).unwrap()));
                    flags.push(l4[13]);
                }
                joined.extend_from_slice(&segment.bytes()[header..]);
                index += 1;
            }).unwrap();
            prop_assert_eq!(joined, sample.payload);
            prop_assert!(flags.last().is_none_or(|last| last & (TCP_FIN | TCP_PSH) == TCP_FIN | TCP_PSH));
            for (index, flags) in flags.iter().enumerate().rev().skip(1) {
                prop_assert_eq!(flags & (TCP_FIN | TCP_PSH), 0);
                prop_assert_eq!(flags & TCP_CWR != 0, index == 0);
            }
        }

        /// A wrong pseudo-header sum makes every segment wrong.
        #[test]
        fn a_wrong_partial_checksum_stays_wrong(sample in super_sample(), size in 100_u16..3000, error in 1_u8..=255) {
            let pool = Pool::new(PoolConfig { small: 300, large: 64 });
            let mut frame = sample.super_frame(&pool, size);
            let Checksum::Partial { start, offset } = frame.offload.checksum else { unreachable!() };
            frame.bytes_mut()[usize::from(start + offset)] ^= error;
            segment(&frame, &pool, |segment| assert!(!oracle_verifies(segment.bytes()))).unwrap();
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

    /// A super-frame of five segments.
    fn five(pool: &Pool) -> Frame {
        Sample { payload: vec![1; 5000], ..Sample::tcp4() }.super_frame(pool, 1000)
    }

    #[test]
    fn an_empty_pool_is_an_error() {
        let pool = Pool::new(PoolConfig { small: 0, large: 2 });
        assert_eq!(segment(&five(&pool), &pool, std::mem::forget), Err(SegmentError::NoBuffer));
    }

    #[test]
    fn headers_that_lie_are_refused_before_anything_is_given() {
        type Lie = fn(&mut Frame);
        let lies: [(&str, Lie); 9] = [
            ("no longer partial", |frame| frame.offload.checksum = Checksum::Complete),
            ("checksum elsewhere", |frame| frame.offload.checksum = Checksum::Partial { start: 30, offset: 16 }),
            ("another field", |frame| frame.offload.checksum = Checksum::Partial { start: 34, offset: 6 }),
            ("the other family", |frame| frame.offload.gso = Gso::Tcp6 { size: 1000, ecn: false }),
            ("another protocol", |frame| frame.offload.gso = Gso::Udp { size: 1000 }),
            ("a segment size of nothing", |frame| frame.offload.gso = Gso::Tcp4 { size: 0, ecn: false }),
            ("shorter than the IP length", |frame| frame.set_len(4000)),
            ("a TCP header too short", |frame| frame.bytes_mut()[46] = 0x40),
            ("a fragment", |frame| frame.bytes_mut()[20] |= 0x20),
        ];
        let pool = Pool::new(PoolConfig::default());
        assert_eq!(header_len(&five(&pool)), Some(58));
        for (name, lie) in lies {
            let mut frame = five(&pool);
            lie(&mut frame);
            let mut given = 0;
            assert_eq!(segment(&frame, &pool, |_| given += 1), Err(SegmentError::Malformed), "{name}");
            assert_eq!((given, header_len(&frame), longest_segment(&frame)), (0, None, None), "{name}");
        }
    }

    #[test]
    fn every_segment_keeps_cwr_without_ecn() {
        let pool = Pool::new(PoolConfig::default());
        let mut frame = Sample { flags: TCP_CWR, payload: vec![1; 5000], ..Sample::tcp4() }.super_frame(&pool, 1000);
        frame.offload.gso = Gso::Tcp4 { size: 1000, ecn: false };
        segment(&frame, &pool, |segment| assert_eq!(segment.bytes()[47], TCP_CWR)).unwrap();
    }

    #[test]
    fn a_datagram_whose_sum_is_zero_says_all_ones() {
        let pool = Pool::new(PoolConfig::default());
        // The second payload takes what the first left of its checksum.
        let sample = |payload| Sample { protocol: protocol::UDP, payload, ..Sample::tcp4() };
        let mut fields = Vec::new();
        let zero = |left: [u8; 2]| sample([vec![0; 2], left.to_vec()].concat()).super_frame(&pool, 2);
        segment(&zero([0, 0]), &pool, |segment| fields.push([segment.bytes()[40], segment.bytes()[41]])).unwrap();
        segment(&zero(fields[1]), &pool, |segment| fields.push([segment.bytes()[40], segment.bytes()[41]])).unwrap();
        assert_eq!(fields[3], [0xff, 0xff]);
    }

    #[test]
    fn segments_have_headroom_for_an_outer_header() {
        let pool = Pool::new(PoolConfig::default());
        segment(&five(&pool), &pool, |mut segment| {
            assert!(segment.headroom() >= 74 && segment.set_source_mac(Mac([2, 0, 0, 0, 0, 9])));
        })
        .unwrap();
    }
}
