//! A keyed hash of a few words. Addresses and flows are chosen by attackers, so that it is keyed with a secret.

use std::hash::{BuildHasher, Hasher};

use crate::HashKey;

/// The secret, spread over four words.
#[derive(Clone, Copy, Debug)]
pub struct Keyed([u64; 4]);

impl Keyed {
    /// From a seed handed down by the shell. Weak seeds (zeros, small numbers) still give odd, dense words.
    #[must_use]
    pub fn new(seed: HashKey) -> Self {
        let [one, other] = seed;
        Self([split_mix(one), split_mix(!one), split_mix(other), split_mix(!other)].map(|word| word | 1))
    }

    /// Of `words` in their order: folded multiplies, as in wyhash.
    #[must_use]
    #[inline]
    pub fn words<const N: usize>(self, words: [u64; N]) -> u64 {
        let [a, b, c, d] = self.0;
        fold(words.into_iter().fold(a, |state, word| fold(state ^ word, b)) ^ c, d)
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both halves are wanted")]
fn fold(one: u64, other: u64) -> u64 {
    let wide = u128::from(one) * u128::from(other);
    wide as u64 ^ (wide >> 64) as u64
}

/// The output function of SplitMix64.
fn split_mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// For the standard library's tables.
#[derive(Debug)]
pub struct KeyedHasher {
    key: Keyed,
    state: u64,
}

impl BuildHasher for Keyed {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { key: *self, state: 0 }
    }
}

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.state = self.key.words([self.state, word]);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_order_matter() {
        let key = Keyed::new([0, 0]);
        assert_ne!(key.words([1, 2]), key.words([2, 1]));
        assert_ne!(key.words([1, 2]), Keyed::new([0, 1]).words([1, 2]));
        assert_ne!(key.words([1]), key.words([1, 0]));
    }

    /// Low bits choose a bucket and high bits a source port: both must be even under neighbouring keys.
    #[test]
    fn neighbouring_words_spread() {
        for seed in [[0, 0], [1, 2], [u64::MAX, 5]] {
            let key = Keyed::new(seed);
            let (mut low, mut high) = ([0_u32; 64], [0_u32; 64]);
            for word in 0..64_000 {
                let hash = key.words([word]);
                low[usize::try_from(hash % 64).unwrap()] += 1;
                high[usize::try_from(hash >> 58).unwrap()] += 1;
            }
            // Mean 1000, deviation 32: five of them.
            assert!(low.iter().chain(&high).all(|count| count.abs_diff(1000) < 160), "{seed:?}");
        }
    }
}
