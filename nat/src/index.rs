//! From hashes to slots: open addressing of a fixed capacity, shared by all tables of translation.
//!
//! Linear probing with backward shift (Knuth 6.4 R), so that nothing is left behind by what goes. A cell
//! is 32 bits of hash, from which its home follows, and the slot plus one; keys live with what they name
//! and are compared by the caller.

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    cells: Vec<u64>,
    mask: usize,
}

const EMPTY: u64 = 0;

impl Index {
    /// For `most` entries, at half load or less.
    pub(crate) fn new(most: usize) -> Self {
        let cells = (most * 2).next_power_of_two();
        Self { cells: vec![EMPTY; cells], mask: cells - 1 }
    }

    fn home(&self, cell: u64) -> usize {
        (cell >> 32) as usize & self.mask
    }

    /// The slot of that hash for which `is_it` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            let cell = self.cells[at];
            if cell == EMPTY {
                return None;
            }
            let slot = slot_of(cell);
            if cell >> 32 == hash >> 32 && is_it(slot) {
                return Some(slot);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Adds a slot; the caller keeps to `most`.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        let mut at = self.home(hash);
        while self.cells[at] != EMPTY {
            at = (at + 1) & self.mask;
        }
        self.cells[at] = cell_of(hash, slot);
    }

    /// Removes a slot that was added under that hash.
    pub(crate) fn remove(&mut self, hash: u64, slot: u32) {
        let wanted = cell_of(hash, slot);
        let mut hole = self.home(hash);
        while self.cells[hole] != wanted {
            if self.cells[hole] == EMPTY {
                return;
            }
            hole = (hole + 1) & self.mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask;
            let cell = self.cells[at];
            if cell == EMPTY {
                break;
            }
            // It may move back unless its home lies behind the hole.
            let (from_home, from_hole) = (at.wrapping_sub(self.home(cell)) & self.mask, at.wrapping_sub(hole) & self.mask);
            if from_home >= from_hole {
                self.cells[hole] = cell;
                hole = at;
            }
        }
        self.cells[hole] = EMPTY;
    }
}

fn cell_of(hash: u64, slot: u32) -> u64 {
    (hash & !0xffff_ffff) | (u64::from(slot) + 1)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half")]
fn slot_of(cell: u64) -> u32 {
    cell as u32 - 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few distinct hashes, so that runs collide and wrap around.
        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec((0_u64..24, 0_u32..24, any::<bool>()), 0..400)) {
            let mut index = Index::new(32);
            let mut model: HashMap<u32, u64> = HashMap::new();
            for (spread, slot, add) in steps {
                let hash = (spread * 5 % 64) << 32 | 7;
                if add && !model.contains_key(&slot) {
                    index.insert(hash, slot);
                    model.insert(slot, hash);
                } else if let Some(hash) = model.remove(&slot) {
                    index.remove(hash, slot);
                }
                for slot in 0..24 {
                    let expected = model.get(&slot).map(|_| slot);
                    let hash = model.get(&slot).copied().unwrap_or(3 << 32);
                    prop_assert_eq!(index.find(hash, |found| found == slot), expected);
                }
            }
        }
    }
}
