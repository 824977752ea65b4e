//! Which external port an inside port gets.

use packet::{HashKey, keyed_hash};

/// Ports tried before a range counts as exhausted: with half of it taken, all being taken by chance has
/// odds of 2^-128.
const TRIES: u32 = 128;

/// Numbers that outsiders cannot guess, the same for one seed.
#[derive(Debug)]
pub(crate) struct Dice {
    key: HashKey,
    thrown: u64,
}

impl Dice {
    pub(crate) fn new(key: HashKey) -> Self {
        Self { key, thrown: 0 }
    }

    pub(crate) fn throw(&mut self) -> u64 {
        self.thrown += 1;
        keyed_hash(self.key, &[self.thrown])
    }
}

/// What is wanted of an external port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// The inside port.
    pub(crate) port: u16,
    /// Try that one first.
    pub(crate) preserve: bool,
    /// Keep it even or odd.
    pub(crate) parity: bool,
    /// Echo identifiers have no privileged range.
    pub(crate) is_identifier: bool,
}

/// A port that `is_free`, of the range of the wished one (RFC 4787 REQ-3: below 1024 stays below).
pub(crate) fn choose(wish: Wish, dice: &mut Dice, mut is_free: impl FnMut(u16) -> bool) -> Option<u16> {
    if wish.preserve && is_free(wish.port) {
        return Some(wish.port);
    }
    let (first, last) = match wish.port {
        _ if wish.is_identifier => (0, u16::MAX),
        0..=1023 => (512, 1023),
        1024..=u16::MAX => (1024, u16::MAX),
    };
    let span = u64::from(last - first) + 1;
    for _ in 0..TRIES {
        let mut port = first + u16::try_from(dice.throw() % span).ok()?;
        if wish.parity {
            port = port & !1 | wish.port & 1;
        }
        if is_free(port) {
            return Some(port);
        }
    }
    // Nearly full: one after the other.
    let start = dice.throw() % span;
    let all = (0..span).filter_map(|step| u16::try_from((start + step) % span).ok()).map(|step| first + step);
    all.filter(|port| !wish.parity || port & 1 == wish.port & 1).find(|&port| is_free(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish = Wish { port: 5001, preserve: true, parity: true, is_identifier: false };

    #[test]
    fn keeps_range_and_parity() {
        let mut dice = Dice::new([1, 2]);
        assert_eq!(choose(WISH, &mut dice, |_| true), Some(5001));
        for _ in 0..1000 {
            let port = choose(WISH, &mut dice, |port| port != 5001).unwrap();
            assert!(port >= 1024 && port % 2 == 1 && port != 5001);
            let low = choose(Wish { port: 500, preserve: false, ..WISH }, &mut dice, |_| true).unwrap();
            assert!((512..1024).contains(&low) && low.is_multiple_of(2));
        }
    }

    #[test]
    fn finds_the_last_free_one_and_says_when_there_is_none() {
        let mut dice = Dice::new([1, 2]);
        assert_eq!(choose(WISH, &mut dice, |port| port == 40_001), Some(40_001));
        assert_eq!(choose(WISH, &mut dice, |port| port == 40_000), None);
        assert_eq!(choose(WISH, &mut dice, |_| false), None);
    }

    #[test]
    fn one_seed_one_choice() {
        let draw = |key| (0..8).map(|_| 0).scan(Dice::new(key), |dice, _| choose(Wish { preserve: false, ..WISH }, dice, |_| true)).collect::<Vec<_>>();
        assert_eq!(draw([1, 2]), draw([1, 2]));
        assert_ne!(draw([1, 2]), draw([1, 3]));
    }
}
