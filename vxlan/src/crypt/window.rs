//! Which counters were seen (RFC 6479): a ring of words, of which the oldest is cleared as the window moves on.

/// Counters below the highest that are told apart.
pub(super) const WINDOW: u64 = 2048;
const BITS: u64 = u64::BITS as u64;
/// One word more than the window, since it ends within a word.
const WORDS: usize = (WINDOW / BITS) as usize + 1;

/// See the module. Counter 0 is never new.
#[derive(Clone, Debug)]
pub(super) struct Window {
    highest: u64,
    seen: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self { highest: 0, seen: [0; WORDS] }
    }
}

impl Window {
    /// Not seen, and not too old to tell.
    #[inline]
    pub(super) fn is_new(&self, counter: u64) -> bool {
        let (word, bit) = place(counter);
        counter > self.highest || (counter > 0 && self.highest - counter < WINDOW && self.seen[word] & bit == 0)
    }

    /// Notes a counter that [`is_new`](Self::is_new).
    #[inline]
    pub(super) fn mark(&mut self, counter: u64) {
        if counter > self.highest {
            let (before, after) = (self.highest / BITS, counter / BITS);
            // Words that are entered anew; of a leap, all.
            for word in (before + 1..=after).rev().take(WORDS) {
                self.seen[place(word * BITS).0] = 0;
            }
            self.highest = counter;
        }
        let (word, bit) = place(counter);
        self.seen[word] |= bit;
    }
}

const fn place(counter: u64) -> (usize, u64) {
    ((counter / BITS % WORDS as u64) as usize, 1 << (counter % BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges() {
        let mut window = Window::default();
        assert!(!window.is_new(0));
        for counter in [1, 5000, 5000 - WINDOW + 1, 4999] {
            assert!(window.is_new(counter), "{counter}");
            window.mark(counter);
            assert!(!window.is_new(counter), "{counter}");
        }
        assert!(!window.is_new(5000 - WINDOW), "too old");
        window.mark(u64::MAX);
        assert!(!window.is_new(u64::MAX) && !window.is_new(5001) && window.is_new(u64::MAX - WINDOW + 1));
    }

    proptest! {
        /// As a set of all counters ever seen would have it.
        #[test]
        fn as_a_set(steps in proptest::collection::vec(prop_oneof![0..40_u64, Just(2047), Just(2048), Just(2049), 1000..9000_u64], 1..100), back in proptest::collection::vec(0..2200_u64, 100)) {
            let (mut window, mut seen, mut highest) = (Window::default(), BTreeSet::new(), 0_u64);
            for (step, back) in steps.into_iter().zip(back) {
                for counter in [highest + step, highest.saturating_sub(back)] {
                    let wanted = counter > 0 && !seen.contains(&counter) && counter + WINDOW > highest;
                    prop_assert_eq!(window.is_new(counter), wanted);
                    if wanted {
                        window.mark(counter);
                        seen.insert(counter);
                        highest = highest.max(counter);
                    }
                }
            }
        }
    }
}
