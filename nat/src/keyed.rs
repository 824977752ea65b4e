//! A seeded hasher for the standard library's maps, off the fast path: the same in every run of one seed,
//! and not to be guessed without it.

use std::hash::{BuildHasher, DefaultHasher, Hasher as _};

use packet::HashKey;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed(pub(crate) HashKey);

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        self.0.iter().for_each(|&word| hasher.write_u64(word));
        hasher
    }
}
