//! Consecutive frames of one five-tuple into a super-frame: the reverse of [`segment`](crate::segment).
//!
//! Cutting a joined frame gives back the frames that went in, byte for byte (those with a partial
//! checksum: finished). The rules follow from that and from two more: a wrong checksum must not be
//! lost, so each is looked at before it is replaced; and a frame extends only the latest one of its
//! own five-tuple, so that no flow is reordered.
//!
//! Not joined, though the kernel's GRO would: frames with extension headers, and those with a
//! constant IPv4 id, since cutting counts it up.

use std::collections::VecDeque;

use crate::{
    checksum::{self, fold, protocol, pseudo_header, sum},
    five_tuple::FiveTuple,
    frame::Frame,
    offload::{Checksum, Gso, Offload},
    parsed::Parsed,
    pool::Pool,
    segment::{TCP_CHECKSUM, TCP_FIN, TCP_HEADER, TCP_PSH, UDP_CHECKSUM, UDP_HEADER},
};

/// What the port that the frames go to can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joins {
    /// TCP over IPv4.
    pub tcp4: bool,
    /// TCP over IPv6.
    pub tcp6: bool,
    /// UDP over either.
    pub udp: bool,
}

impl Joins {
    /// Everything.
    pub const ALL: Self = Self { tcp4: true, tcp6: true, udp: true };
}

/// Frames of a burst on their way to one port, in order.
#[derive(Debug)]
pub struct Coalescer {
    joins: Joins,
    items: VecDeque<Item>,
    capacity: usize,
    /// So many at the front are not extended any more.
    sealed: usize,
}

#[derive(Debug)]
struct Item {
    frame: Frame,
    tuple: Option<FiveTuple>,
    train: Option<Train>,
}

/// Frames joined so far. The headers in the buffer are those of the first.
#[derive(Clone, Copy, Debug)]
struct Train {
    shape: Shape,
    /// Payload bytes of each frame but the last.
    size: usize,
    count: u16,
    /// The first frame's checksums were looked at.
    checked: bool,
    closed: bool,
}

/// Where the parts of a frame are that could be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    l3: usize,
    l4: usize,
    payload: usize,
    protocol: u8,
    ipv6: bool,
}

/// Longest IP packet, bytes.
const IP_LONGEST: usize = 65535;
/// As many datagrams as the kernel puts into one (UDP_MAX_SEGMENTS).
const UDP_COUNT: u16 = 64;
const TCP_ACK: u8 = 0x10;
const TCP_ECE: u8 = 0x40;

impl Coalescer {
    /// Holds at most `capacity_frames`, joined or not.
    #[must_use]
    pub fn new(joins: Joins, capacity_frames: usize) -> Self {
        Self { joins, items: VecDeque::with_capacity(capacity_frames), capacity: capacity_frames, sealed: 0 }
    }

    /// Takes the next frame; gives the oldest when that makes one too many.
    pub fn push(&mut self, frame: Frame, pool: &Pool) -> Option<Frame> {
        let parsed = Parsed::new(frame.bytes());
        let tuple = parsed.and_then(|parsed| FiveTuple::of(&parsed, frame.bytes()));
        let train = parsed.and_then(|parsed| Train::begin(&frame, &parsed, self.joins));
        if let (Some(tuple), Some(train)) = (tuple, train)
            && let Some(latest) = self.items.iter_mut().skip(self.sealed).rev().find(|item| item.tuple == Some(tuple))
            && latest.extend(&frame, train, pool)
        {
            return None;
        }
        self.items.push_back(Item { frame, tuple, train });
        if tuple.is_none() {
            // A fragment of a flow, for one, shows no ports, and must not be overtaken.
            self.sealed = self.items.len();
        }
        if self.items.len() <= self.capacity {
            return None;
        }
        self.sealed = self.sealed.saturating_sub(1);
        self.items.pop_front().map(Item::finish)
    }

    /// Gives all that is held to `sink`, in order.
    pub fn drain(&mut self, sink: impl FnMut(Frame)) {
        self.sealed = 0;
        self.items.drain(..).map(Item::finish).for_each(sink);
    }
}

impl Train {
    /// A train of one; `None` when the frame may neither begin nor extend one.
    fn begin(frame: &Frame, parsed: &Parsed, joins: Joins) -> Option<Self> {
        let bytes = frame.bytes();
        let ip = parsed.ip?;
        let ipv6 = ip.source.is_ipv6();
        let wanted = match ip.protocol {
            protocol::TCP => if ipv6 { joins.tcp6 } else { joins.tcp4 },
            protocol::UDP => joins.udp,
            _ => false,
        };
        let plain = ip.l4_offset - ip.offset == if ipv6 { 40 } else { 20 } && !ip.is_fragment() && ip.end() == frame.len();
        if !wanted || !plain || frame.offload.gso != Gso::None {
            return None;
        }
        let l4 = &bytes[ip.l4_offset..];
        let (header, closed) = if ip.protocol == protocol::TCP {
            let flags = *l4.get(13)?;
            if flags & !(TCP_ACK | TCP_PSH | TCP_FIN | TCP_ECE) != 0 {
                return None;
            }
            (usize::from(l4[12] >> 4) * 4, flags & (TCP_PSH | TCP_FIN) != 0)
        } else {
            let length = l4.get(4..6)?;
            if usize::from(u16::from_be_bytes([length[0], length[1]])) != l4.len() {
                return None;
            }
            (UDP_HEADER, false)
        };
        if header < if ip.protocol == protocol::TCP { TCP_HEADER } else { UDP_HEADER } || header >= l4.len() {
            return None;
        }
        let shape = Shape { l3: ip.offset, l4: ip.l4_offset, payload: ip.l4_offset + header, protocol: ip.protocol, ipv6 };
        Some(Self { shape, size: l4.len() - header, count: 1, checked: false, closed })
    }
}

impl Item {
    /// Appends the payload of `next`, a train of one. False (and no change) when they do not belong
    /// together or there is no buffer.
    fn extend(&mut self, next: &Frame, next_train: Train, pool: &Pool) -> bool {
        let Some(train) = &mut self.train else { return false };
        let shape = train.shape;
        let joined_len = self.frame.len() + next_train.size;
        let fits = !train.closed
            && shape == next_train.shape
            && next_train.size <= train.size
            && joined_len - shape.l3 <= IP_LONGEST
            && (shape.protocol == protocol::TCP || train.count < UDP_COUNT)
            && shape.continues(self.frame.bytes(), next.bytes(), train.count);
        if !fits || !(train.checked || shape.checksums_are_right(&self.frame)) {
            return false;
        }
        train.checked = true;
        if !shape.checksums_are_right(next) || !make_room(&mut self.frame, joined_len, pool) {
            return false;
        }
        let at = self.frame.len();
        self.frame.set_len(joined_len);
        let bytes = self.frame.bytes_mut();
        bytes[at..].copy_from_slice(&next.bytes()[shape.payload..]);
        if shape.protocol == protocol::TCP {
            bytes[shape.l4 + 13] |= next.bytes()[shape.l4 + 13];
        }
        train.count += 1;
        train.closed = next_train.closed || next_train.size < train.size;
        true
    }

    /// The frame; when joined, with headers and metadata of a super-frame.
    fn finish(self) -> Frame {
        let Self { mut frame, train, .. } = self;
        if let Some(Train { shape, size, count: 2.., .. }) = train {
            shape.finish(&mut frame, size);
        }
        frame
    }
}

impl Shape {
    /// Where the L4 checksum is, from the L4 header.
    fn checksum_offset(self) -> usize {
        if self.protocol == protocol::TCP { TCP_CHECKSUM } else { UDP_CHECKSUM }
    }

    /// Whether cutting the train that begins with the headers of `train` would make the headers of
    /// `next` for its segment number `count`.
    fn continues(self, train: &[u8], next: &[u8], count: u16) -> bool {
        let same = |from: usize, to: usize| train[from..to] == next[from..to];
        let word = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let Self { l3, l4, payload, .. } = self;
        let ip = if self.ipv6 {
            same(l3, l3 + 4) && same(l3 + 6, l4)
        } else {
            same(l3, l3 + 2) && same(l3 + 6, l3 + 10) && same(l3 + 12, l4) && word(next, l3 + 4) == word(train, l3 + 4).wrapping_add(count)
        };
        let l4 = if self.protocol == protocol::TCP {
            let sequence = |bytes: &[u8]| u32::from(word(bytes, l4 + 4)) << 16 | u32::from(word(bytes, l4 + 6));
            let passed = u32::try_from(train.len() - payload).unwrap_or(u32::MAX);
            let flags = |bytes: &[u8]| bytes[l4 + 13] & !(TCP_PSH | TCP_FIN);
            sequence(next) == sequence(train).wrapping_add(passed)
                && same(l4, l4 + 4)
                && same(l4 + 8, l4 + 13)
                && flags(train) == flags(next)
                && same(l4 + 14, l4 + 16)
                && same(l4 + 18, payload)
        } else {
            same(l4, l4 + 4)
        };
        same(0, l3) && ip && l4
    }

    /// Whether the checksums are those that cutting would write. Of the two zeros of one's
    /// complement it writes only one.
    fn checksums_are_right(self, frame: &Frame) -> bool {
        let bytes = frame.bytes();
        let field = self.l4 + self.checksum_offset();
        let value = u16::from_be_bytes([bytes[field], bytes[field + 1]]);
        let l4 = match frame.offload.checksum {
            Checksum::Complete => value != if self.protocol == protocol::TCP { 0xffff } else { 0 },
            Checksum::Partial { start, offset } => {
                let pseudo = pseudo_header(&bytes[self.l3..], self.protocol, bytes.len() - self.l4);
                usize::from(start) == self.l4 && usize::from(start) + usize::from(offset) == field && pseudo.map(fold) == Some(value)
            }
        };
        let ip = self.ipv6 || bytes[self.l3 + 10..self.l3 + 12] != [0xff, 0xff] && fold(sum(&bytes[self.l3..self.l4])) == 0xffff;
        l4 && ip && (frame.offload.checksum != Checksum::Complete || checksum::verify(bytes))
    }

    /// Headers and metadata of the joined frame.
    #[expect(clippy::cast_possible_truncation, reason = "joined frames are within the longest IP packet")]
    fn finish(self, frame: &mut Frame, size: usize) {
        let size = size as u16;
        frame.offload = Offload {
            checksum: Checksum::Partial { start: self.l4 as u16, offset: self.checksum_offset() as u16 },
            gso: match (self.protocol, self.ipv6) {
                (protocol::TCP, false) => Gso::Tcp4 { size, ecn: false },
                (protocol::TCP, true) => Gso::Tcp6 { size, ecn: false },
                _ => Gso::Udp { size },
            },
        };
        let bytes = frame.bytes_mut();
        let l4_len = bytes.len() - self.l4;
        let (ip, l4) = bytes[self.l3..].split_at_mut(self.l4 - self.l3);
        if self.ipv6 {
            ip[4..6].copy_from_slice(&(l4_len as u16).to_be_bytes());
        } else {
            let length = (ip.len() + l4_len) as u16;
            ip[2..4].copy_from_slice(&length.to_be_bytes());
            ip[10..12].fill(0);
            let value = !fold(sum(ip));
            ip[10..12].copy_from_slice(&value.to_be_bytes());
        }
        if self.protocol == protocol::UDP {
            l4[4..6].copy_from_slice(&(l4_len as u16).to_be_bytes());
        }
        let pseudo = pseudo_header(ip, self.protocol, l4_len).map_or(0, fold);
        let field = self.checksum_offset();
        l4[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    }
}

/// Sees to it that `frame` is ours alone and can grow to `length` bytes, by moving it if need be.
fn make_room(frame: &mut Frame, length: usize, pool: &Pool) -> bool {
    if frame.is_unique() && frame.capacity() >= length {
        return true;
    }
    let Some(mut larger) = pool.take_for(length) else { return false };
    larger.set_len(frame.len());
    larger.bytes_mut().copy_from_slice(frame.bytes());
    larger.offload = frame.offload;
    *frame = larger;
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{PoolConfig, segment, testing::Sample};

    fn pool() -> Pool {
        Pool::new(PoolConfig { small: 4096, large: 256 })
    }

    fn coalesce(frames: impl IntoIterator<Item = Frame>, pool: &Pool) -> Vec<Frame> {
        let mut coalescer = Coalescer::new(Joins::ALL, 64);
        let mut out: Vec<Frame> = frames.into_iter().filter_map(|frame| coalescer.push(frame, pool)).collect();
        coalescer.drain(|frame| out.push(frame));
        out
    }

    /// The bytes as the wire would carry them.
    fn on_wire(frames: Vec<Frame>, pool: &Pool) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for mut frame in frames {
            if frame.offload.gso == Gso::None {
                checksum::complete(&mut frame);
                out.push(frame.bytes().to_vec());
            } else {
                segment(&frame, pool, |segment| out.push(segment.bytes().to_vec())).unwrap();
            }
        }
        out
    }

    fn flow(bytes: &[u8]) -> Option<FiveTuple> {
        FiveTuple::of(&Parsed::new(bytes)?, bytes)
    }

    fn sample() -> Sample {
        Sample { flags: TCP_ACK | TCP_PSH, payload: (0..=255).cycle().take(5000).collect(), ..Sample::tcp4() }
    }

    fn cut(sample: &Sample, size: u16, pool: &Pool) -> Vec<Frame> {
        let mut frames = Vec::new();
        segment(&sample.super_frame(pool, size), pool, |frame| frames.push(frame)).unwrap();
        frames
    }

    proptest! {
        /// Several flows, interleaved; some frames lost, spoilt or with their checksum to be finished.
        #[test]
        fn cutting_what_was_joined_gives_it_back(
            samples in proptest::collection::vec((any::<Sample>(), 1_usize..6000, 40_u16..1500, any::<bool>()), 1..4),
            order in proptest::collection::vec((0_usize..4, 0_u8..40, any::<u16>()), 0..400),
        ) {
            let pool = pool();
            let mut flows: Vec<_> = samples.into_iter().map(|(sample, length, size, push)| {
                let sample = Sample {
                    protocol: if sample.protocol == protocol::ICMPV6 { protocol::UDP } else { sample.protocol },
                    flags: if push { TCP_ACK | TCP_PSH } else { TCP_ACK },
                    payload: sample.payload.iter().copied().cycle().take(length).collect(),
                    ..sample
                };
                cut(&sample, size, &pool).into_iter()
            }).collect();
            let mut frames = Vec::new();
            for (which, fate, place) in order {
                let count = flows.len();
                let Some(mut frame) = flows[which % count].next() else { continue };
                match fate {
                    0 => continue,
                    1 => { let at = usize::from(place) % frame.len(); frame.bytes_mut()[at] ^= 1; }
                    2 => frames.push(frame.duplicate().unwrap()),
                    3 => frames.push(pool.copy_of(&[0; 60]).unwrap()),
                    _ => {}
                }
                frames.push(frame);
            }
            let mut before: Vec<Vec<u8>> = frames.iter().map(|frame| frame.bytes().to_vec()).collect();
            let mut after = on_wire(coalesce(frames, &pool), &pool);
            // Order holds within each flow, and around frames of no flow.
            before.sort_by_key(|bytes| flow(bytes));
            after.sort_by_key(|bytes| flow(bytes));
            prop_assert_eq!(before, after);
        }

        #[test]
        fn an_unbroken_run_becomes_one(sample: Sample, size in 100_u16..1400, tcp: bool) {
            let pool = pool();
            let sample = Sample {
                protocol: if tcp { protocol::TCP } else { protocol::UDP },
                ip_extra: false,
                payload: sample.payload.iter().copied().cycle().take(6000).collect(),
                flags: TCP_ACK | TCP_PSH | TCP_FIN,
                ..sample
            };
            let joined = coalesce(cut(&sample, size, &pool), &pool);
            prop_assert_eq!(joined.len(), 1);
            let whole = sample.super_frame(&pool, size);
            prop_assert_eq!(joined[0].bytes(), whole.bytes());
            prop_assert_eq!(joined[0].offload.checksum, whole.offload.checksum);
        }
    }

    /// Recomputes both checksums, over headers that may have changed.
    fn refit(bytes: &mut [u8], shape: Shape) {
        let end = bytes.len();
        let (ip, l4) = bytes[shape.l3..end].split_at_mut(shape.l4 - shape.l3);
        if !shape.ipv6 {
            ip[10..12].fill(0);
            let value = !fold(sum(ip));
            ip[10..12].copy_from_slice(&value.to_be_bytes());
        }
        let field = shape.checksum_offset();
        let pseudo = pseudo_header(ip, shape.protocol, l4.len()).unwrap_or(0);
        l4[field..field + 2].fill(0);
        let value = !fold(sum(l4) + pseudo);
        l4[field..field + 2].copy_from_slice(&value.to_be_bytes());
    }

    /// One header bit differs in the middle frame, and all checksums are right.
    #[test]
    fn no_header_bit_is_lost() {
        let pool = pool();
        for (ipv6, protocol) in [(false, 6), (false, 17), (true, 6), (true, 17)] {
            let sample = Sample { ipv6, protocol, tags: 1, tcp_options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], payload: (0..30).collect(), flags: TCP_ACK, ..sample() };
            let frames = cut(&sample, 10, &pool);
            let parsed = Parsed::new(frames[0].bytes()).unwrap();
            let shape = Train::begin(&frames[0], &parsed, Joins::ALL).unwrap().shape;
            for bit in 0..shape.payload * 8 {
                let mut frames = cut(&sample, 10, &pool);
                frames[1].bytes_mut()[bit / 8] ^= 1 << (bit % 8);
                refit(frames[1].bytes_mut(), shape);
                let before: Vec<Vec<u8>> = frames.iter().map(|frame| frame.bytes().to_vec()).collect();
                let mut after = on_wire(coalesce(frames, &pool), &pool);
                // A changed frame may have become one of another flow, which may be passed.
                after.sort_by_key(|bytes| before.iter().position(|frame| frame == bytes));
                assert_eq!(before, after, "bit {bit} of {sample:?}");
            }
        }
    }

    fn joined_lengths(frames: Vec<Frame>, pool: &Pool) -> Vec<usize> {
        coalesce(frames, pool).iter().map(|frame| frame.len() - 58).collect()
    }

    #[test]
    fn a_hole_a_push_or_a_wrong_checksum_ends_the_train() {
        let pool = pool();
        assert_eq!(joined_lengths(cut(&sample(), 1000, &pool), &pool), [5000]);
        let mut frames = cut(&sample(), 1000, &pool);
        frames.remove(2);
        assert_eq!(joined_lengths(frames, &pool), [2000, 2000]);
        let mut frames = cut(&sample(), 1000, &pool);
        frames[1].bytes_mut()[100] ^= 1;
        assert_eq!(joined_lengths(frames, &pool), [1000, 1000, 3000]);
        let frames = [cut(&sample(), 1000, &pool), cut(&Sample { sequence: sample().sequence.wrapping_add(5000), id: 12, ..sample() }, 1000, &pool)];
        assert_eq!(joined_lengths(frames.into_iter().flatten().collect(), &pool), [5000, 5000]);
    }

    #[test]
    fn larger_padded_or_fragmented_frames_stay_alone() {
        let pool = pool();
        let tcp = Sample { payload: vec![1; 4], flags: TCP_ACK, ..Sample::tcp4() };
        let larger = Sample { payload: vec![1; 5], id: tcp.id + 1, sequence: tcp.sequence + 4, ..tcp.clone() };
        let frames = [&tcp, &larger].map(|sample| pool.copy_of(&sample.bytes()).unwrap());
        assert_eq!(coalesce(frames, &pool).len(), 2);
        let shorter = Sample { payload: vec![1; 2], ..larger };
        let padded = [tcp.bytes(), [shorter.bytes(), vec![0]].concat()].map(|bytes| pool.copy_of(&bytes).unwrap());
        assert_eq!(coalesce(padded, &pool).len(), 2, "the padding is no payload");

        let udp = |edit: fn(&mut Vec<u8>)| {
            let frames = [7, 8].map(|id| {
                let mut bytes = Sample { protocol: protocol::UDP, id, payload: vec![1; 4], ..Sample::tcp4() }.bytes();
                edit(&mut bytes);
                pool.copy_of(&bytes).unwrap()
            });
            coalesce(frames, &pool).len()
        };
        assert_eq!(udp(|_| {}), 1);
        assert_eq!(udp(|bytes| bytes.resize(60, 0)), 2, "the padding would be lost");
        assert_eq!(udp(|bytes| bytes[40..42].fill(0)), 2, "they would gain a checksum");
        let first_fragment = |bytes: &mut Vec<u8>| {
            // From don't fragment to more fragments, and the header checksum in step.
            bytes[20] = 0x20;
            bytes[24] = bytes[24].checked_add(0x20).unwrap();
        };
        assert_eq!(udp(first_fragment), 2, "fragments");
    }

    /// Both zeros verify, but cutting writes only the usual one.
    #[test]
    fn an_unusual_zero_is_not_lost() {
        let pool = pool();
        let tcp = |index: u16| Sample { id: index, sequence: u32::from(index) * 2, flags: TCP_ACK, payload: vec![0, 0], ..Sample::tcp4() };
        let mut frames = [0, 1].map(|index| {
            let mut sample = tcp(index);
            let bytes = sample.bytes();
            sample.payload = bytes[50..52].to_vec();
            sample.bytes()
        });
        assert_eq!(frames.each_ref().map(|bytes| [bytes[50], bytes[51]]), [[0, 0]; 2]);
        let joined = |frames: &[Vec<u8>; 2]| coalesce(frames.each_ref().map(|bytes| pool.copy_of(bytes).unwrap()), &pool).len();
        assert_eq!(joined(&frames), 1);
        frames[1][50..52].fill(0xff);
        assert!(checksum::verify(&frames[1]));
        assert_eq!(joined(&frames), 2);
    }

    #[test]
    fn frames_of_no_flow_are_not_overtaken() {
        let pool = pool();
        let mut frames = cut(&sample(), 1000, &pool);
        let mut fragment = frames[0].duplicate().unwrap();
        fragment.bytes_mut()[21] = 1;
        frames.insert(2, fragment);
        assert_eq!(joined_lengths(frames, &pool), [2000, 1000, 3000]);
    }

    #[test]
    fn local_frames_with_partial_checksums_join_too() {
        let pool = pool();
        let frames = (0..3).map(|index: u16| {
            let sample = Sample {
                sequence: u32::from(index) * 3,
                id: index,
                flags: TCP_ACK,
                ..Sample::tcp4()
            };
            let (bytes, checksum) = sample.partial();
            let mut frame = pool.copy_of(&bytes).unwrap();
            frame.offload.checksum = checksum;
            frame
        });
        assert_eq!(joined_lengths(frames.collect(), &pool), [9]);
    }

    #[test]
    fn bounds_hold() {
        let pool = pool();
        let long = Sample { payload: vec![1; 65_000], flags: TCP_ACK, ..Sample::tcp4() };
        let more = Sample { sequence: long.sequence.wrapping_add(65_000), id: 72, ..long.clone() };
        let frames = [cut(&long, 1000, &pool), cut(&more, 1000, &pool)].into_iter().flatten().collect();
        assert_eq!(joined_lengths(frames, &pool), [65_000, 65_000], "no packet beyond 65535 bytes");
        let datagrams = Sample { protocol: protocol::UDP, payload: vec![1; 100 * 10], ..Sample::tcp4() };
        let joined = coalesce(cut(&datagrams, 10, &pool), &pool);
        assert_eq!(joined.iter().map(|frame| frame.len() - 42).collect::<Vec<_>>(), [640, 360]);
        let mut one = Coalescer::new(Joins { udp: false, ..Joins::ALL }, 1);
        let frames = cut(&datagrams, 500, &pool);
        assert_eq!(frames.into_iter().filter_map(|frame| one.push(frame, &pool)).count(), 1, "the oldest is pushed out");
        let empty = Pool::new(PoolConfig { small: 0, large: 0 });
        let frames = cut(&Sample { payload: vec![1; 4000], ..sample() }, 1000, &pool);
        let mut coalescer = Coalescer::new(Joins::ALL, 8);
        assert!(frames.into_iter().all(|frame| coalescer.push(frame, &empty).is_none()));
        let mut count = 0;
        coalescer.drain(|_| count += 1);
        assert!(count > 1, "without buffers frames stay single");
    }
}
