//! Ways that packets of a connection took lately: what translation and neighbours said, found at once.
//!
//! Only a memory of that, and never for longer than neighbours may be remembered ([`met`](super::met)). Whether
//! the connection still lives is seen when a packet is rewritten.

use nat::{Hit, Plain};
use packet::{Instant, NetworkId};

use super::met::{Entry, Met};

/// A power of two.
const SLOTS: usize = 1024;

/// What is done to the plain packets of one direction of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// By which they are known.
    plain: Plain,
    from: NetworkId,
    until: Instant,
    round: u64,
    pub(super) hit: Hit,
    /// Into this network.
    pub(super) to: NetworkId,
    pub(super) met: Met,
}

impl Way {
    pub(super) fn new(from: NetworkId, plain: Plain, hit: Hit, entry: &Entry) -> Self {
        Self { plain, from, until: entry.until, round: 0, hit, to: entry.network, met: entry.met }
    }
}

/// See the module. What flows meet in one slot costs them the memory, no more, so that the hash needs no key.
#[derive(Debug)]
pub(super) struct Ways {
    slots: Box<[Option<Way>; SLOTS]>,
    /// Ways of rounds before are forgotten.
    round: u64,
}

impl Default for Ways {
    fn default() -> Self {
        Self { slots: Box::new([None; SLOTS]), round: 0 }
    }
}

/// Fibonacci hashing (Knuth 6.4): the upper bits of the product are even.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "shifted below the table's length")]
fn slot(plain: &Plain) -> usize {
    (plain.mixed().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SLOTS.ilog2())) as usize
}

impl Ways {
    #[inline]
    pub(super) fn get(&self, from: NetworkId, plain: &Plain, now: Instant) -> Option<&Way> {
        self.slots[slot(plain)].as_ref().filter(|way| way.plain == *plain && way.from == from && way.until > now && way.round == self.round)
    }

    pub(super) fn put(&mut self, way: Way) -> &Way {
        self.slots[slot(&way.plain)].insert(Way { round: self.round, ..way })
    }

    #[cold]
    pub(super) fn remove(&mut self, plain: &Plain) {
        self.slots[slot(plain)] = None;
    }

    pub(super) fn forget(&mut self) {
        self.round += 1;
    }
}
