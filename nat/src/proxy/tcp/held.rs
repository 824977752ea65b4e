//! What a sandbox sent ahead of a hole, until the hole is filled.
//!
//! A flow has this only while there is something to hold: segments in order never come here.

use super::segment::{before, option};

/// Bytes ahead that a flow may have held, and all flows together.
const MOST_AHEAD: u32 = 1 << 20;
const MOST_OF_ALL: usize = 32 << 20;
/// Chunks of a flow: holes, and no more.
const MOST_CHUNKS: usize = 256;
/// What a chunk costs beside its bytes, about.
const OVERHEAD: usize = 64;
/// Blocks in an acknowledgement, with 40 bytes for options (RFC 2018 3).
const BLOCKS: usize = 4;
/// Option bytes of an acknowledgement at most: two to align, two of the option, the blocks.
pub(crate) const MOST_OPTIONS: usize = 4 + BLOCKS * 8;

/// Bytes held by all flows, and what was refused.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Budget {
    pub(crate) held: usize,
    pub(crate) refused: u64,
}

#[derive(Debug)]
struct Chunk {
    start: u32,
    bytes: Vec<u8>,
}

impl Chunk {
    fn end(&self) -> u32 {
        self.start.wrapping_add(u32::try_from(self.bytes.len()).unwrap_or(0))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// In order, none overlaps; those that touch are one block.
    chunks: Vec<Chunk>,
    /// Where segments that came latest begin, the latest first (RFC 2018 4).
    latest: [Option<u32>; BLOCKS],
    /// Number of the sandbox's FIN, once it came.
    fin: Option<u32>,
    cost: usize,
}

impl Held {
    /// Takes what came from `seq` on, where `next` is expected; false when some of it had no room.
    pub(crate) fn insert(&mut self, next: u32, seq: u32, mut bytes: &[u8], budget: &mut Budget) -> bool {
        let mut from = seq;
        let mut is_kept = true;
        while !bytes.is_empty() {
            // The first that ends behind: what lies in front of it is new, what it covers is not.
            let at = self.chunks.partition_point(|chunk| !before(from, chunk.end()));
            let (fresh, skip) = match self.chunks.get(at) {
                Some(chunk) if !before(from, chunk.start) => (0, chunk.end().wrapping_sub(from) as usize),
                Some(chunk) => (bytes.len().min(chunk.start.wrapping_sub(from) as usize), 0),
                None => (bytes.len(), 0),
            };
            if fresh > 0 {
                is_kept &= self.put(at, next, from, &bytes[..fresh], budget);
            }
            let step = (fresh + skip).min(bytes.len());
            bytes = &bytes[step..];
            from = from.wrapping_add(u32::try_from(step).unwrap_or(0));
        }
        self.note(seq);
        is_kept
    }

    /// Bytes that no chunk covers, in front of chunk `at`.
    fn put(&mut self, at: usize, next: u32, from: u32, bytes: &[u8], budget: &mut Budget) -> bool {
        let ahead = from.wrapping_sub(next) as usize + bytes.len();
        let extends = at > 0 && self.chunks[at - 1].end() == from;
        let cost = bytes.len() + if extends { 0 } else { OVERHEAD };
        if ahead > MOST_AHEAD as usize || budget.held + cost > MOST_OF_ALL || (!extends && self.chunks.len() >= MOST_CHUNKS) {
            budget.refused += 1;
            return false;
        }
        budget.held += cost;
        self.cost += cost;
        if extends {
            self.chunks[at - 1].bytes.extend_from_slice(bytes);
        } else {
            self.chunks.insert(at, Chunk { start: from, bytes: bytes.to_vec() });
        }
        true
    }

    /// The sandbox ends its stream at `number`; the first word counts.
    pub(crate) fn end_at(&mut self, number: u32) {
        self.fin.get_or_insert(number);
    }

    /// Whether the stream ends at `next`.
    pub(crate) fn ends_at(&self, next: u32) -> bool {
        self.fin == Some(next)
    }

    /// What is held from `next` on.
    pub(crate) fn front(&self, next: u32) -> Option<&[u8]> {
        let first = self.chunks.first().filter(|first| !before(next, first.start))?;
        first.bytes.get(next.wrapping_sub(first.start) as usize..).filter(|bytes| !bytes.is_empty())
    }

    /// Whether all of `from..to` came before.
    pub(crate) fn covers(&self, from: u32, to: u32) -> bool {
        from != to && self.block_of(from).is_some_and(|(_, end)| !before(end, to))
    }

    /// Whether there is nothing left to wait for.
    pub(crate) const fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.fin.is_none()
    }

    /// Forgets what lies before `next`.
    pub(crate) fn release(&mut self, next: u32, budget: &mut Budget) {
        let whole = self.chunks.partition_point(|chunk| !before(next, chunk.end()));
        let mut freed: usize = self.chunks.drain(..whole).map(|chunk| chunk.bytes.len() + OVERHEAD).sum();
        if let Some(first) = self.chunks.first_mut().filter(|first| before(first.start, next)) {
            let gone = next.wrapping_sub(first.start) as usize;
            first.bytes.drain(..gone);
            first.start = next;
            freed += gone;
        }
        self.cost -= freed;
        budget.held -= freed;
        self.fin = self.fin.filter(|fin| !before(*fin, next));
    }

    /// Bytes of the budget that this has.
    pub(crate) const fn cost(&self) -> usize {
        self.cost
    }

    /// A segment that is held came; of those in the same block only this is remembered.
    fn note(&mut self, seq: u32) {
        let Some(block) = self.block_of(seq) else { return };
        let same = self.latest.iter().position(|known| known.is_some_and(|known| self.block_of(known) == Some(block)));
        self.latest[..=same.unwrap_or(BLOCKS - 1)].rotate_right(1);
        self.latest[0] = Some(seq);
    }

    /// First and behind the last byte of the block around `number`.
    fn block_of(&self, number: u32) -> Option<(u32, u32)> {
        let at = self.chunks.partition_point(|chunk| !before(number, chunk.end()));
        let chunk = self.chunks.get(at).filter(|chunk| !before(number, chunk.start))?;
        let (mut start, mut end) = (chunk.start, chunk.end());
        for chunk in self.chunks[..at].iter().rev() {
            if chunk.end() != start {
                break;
            }
            start = chunk.start;
        }
        for chunk in &self.chunks[at + 1..] {
            if chunk.start != end {
                break;
            }
            end = chunk.end();
        }
        Some((start, if self.fin == Some(end) { end.wrapping_add(1) } else { end }))
    }

    /// Blocks to report, the latest first.
    fn blocks(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.latest.iter().flatten().filter_map(|number| self.block_of(*number))
    }
}

/// Writes the option that tells of `duplicate`, a segment that came twice (RFC 2883), and of what is held; its length.
pub(crate) fn write_sack(held: Option<&Held>, duplicate: Option<(u32, u32)>, option: &mut [u8; MOST_OPTIONS]) -> usize {
    option[..3].copy_from_slice(&[option::NOP, option::NOP, option::SACK]);
    let mut blocks = [(0, 0); BLOCKS];
    let mut count = 0;
    if let Some(duplicate) = duplicate {
        blocks[0] = duplicate;
        count = 1;
    }
    let first = count;
    for block in held.into_iter().flat_map(Held::blocks) {
        if count < BLOCKS && !blocks[first..count].contains(&block) {
            blocks[count] = block;
            count += 1;
        }
    }
    if count == 0 {
        return 0;
    }
    for ((start, end), to) in blocks[..count].iter().zip(option[4..].chunks_exact_mut(8)) {
        to[..4].copy_from_slice(&start.to_be_bytes());
        to[4..].copy_from_slice(&end.to_be_bytes());
    }
    let length = 4 + count * 8;
    option[3] = u8::try_from(length - 2).unwrap_or(0);
    length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(held: &Held, duplicate: Option<(u32, u32)>) -> Vec<(u32, u32)> {
        let mut option = [0; MOST_OPTIONS];
        let length = write_sack(Some(held), duplicate, &mut option);
        assert!(length == 0 || usize::from(option[3]) + 2 == length);
        let word = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        option[4.min(length)..length].chunks_exact(8).map(|block| (word(block), word(&block[4..]))).collect()
    }

    #[test]
    fn blocks_tell_the_latest_first() {
        let (mut held, mut budget) = (Held::default(), Budget::default());
        for seq in [200, 400, 600, 800, 1000] {
            assert!(held.insert(100, seq, &[1; 100], &mut budget));
        }
        assert_eq!(told(&held, None), [(1000, 1100), (800, 900), (600, 700), (400, 500)]);
        assert!(held.insert(100, 300, &[1; 100], &mut budget));
        assert_eq!(told(&held, None), [(200, 500), (1000, 1100), (800, 900), (600, 700)]);
        // One that came twice is told before all others.
        assert!(held.insert(100, 820, &[1; 10], &mut budget));
        assert_eq!(told(&held, Some((820, 830))), [(820, 830), (800, 900), (200, 500), (1000, 1100)]);
        held.end_at(1100);
        held.end_at(1150);
        assert!(told(&held, None).contains(&(1000, 1101)));
        held.release(500, &mut budget);
        assert_eq!(told(&held, None).len(), 3);
        held.release(1100, &mut budget);
        assert!(!held.is_empty() && held.ends_at(1100));
        assert_eq!((held.cost(), budget.held), (0, 0));
    }

    #[test]
    fn floods_are_refused() {
        let mut budget = Budget::default();
        let mut all: Vec<Held> = (0..1000).map(|_| Held::default()).collect();
        let segment = [0; 1460];
        for held in &mut all {
            for number in 0..2000 {
                held.insert(0, 10 + number * 1461, &segment, &mut budget);
            }
            assert!(held.chunks.len() <= MOST_CHUNKS);
        }
        assert!(budget.held <= MOST_OF_ALL && budget.refused > 1_000_000, "{budget:?}");
        assert!(!all[999].insert(0, 10, &segment, &mut budget));
        all[0].release(400_000, &mut budget);
        assert!(all[999].insert(0, 10, &segment, &mut budget), "there is room again");
        let mut alone = Held::default();
        assert!(!alone.insert(0, MOST_AHEAD, &[1], &mut Budget::default()), "too far ahead");
    }

    proptest! {
        #[test]
        fn what_comes_in_any_order_is_whole(next in any::<u32>(), segments in prop::collection::vec((0u32..5000, 1usize..800), 1..100)) {
            let stream: Vec<u8> = (0..6000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let (mut held, mut budget) = (Held::default(), Budget::default());
            let mut known = vec![false; 6000];
            for (start, length) in segments {
                let range = start as usize..start as usize + length;
                prop_assert!(held.insert(next, next.wrapping_add(start), &stream[range.clone()], &mut budget));
                known[range].fill(true);
                prop_assert!(told(&held, None)[0].0.wrapping_sub(next) <= start);
            }
            prop_assert_eq!(budget.held, held.cost());
            prop_assert_eq!(held.chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>(), known.iter().filter(|known| **known).count());
            let mut at = 0;
            while at < 6000 {
                let here = next.wrapping_add(u32::try_from(at).unwrap());
                match held.front(here) {
                    Some(bytes) => {
                        prop_assert_eq!(bytes, &stream[at..at + bytes.len()]);
                        at += bytes.len().div_ceil(2);
                    }
                    None => {
                        prop_assert!(!known[at]);
                        at += 1;
                    }
                }
                held.release(next.wrapping_add(u32::try_from(at).unwrap()), &mut budget);
            }
            prop_assert_eq!((held.cost(), budget.held), (0, 0));
        }
    }
}
