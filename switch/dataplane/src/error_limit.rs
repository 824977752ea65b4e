//! ICMP errors at a limited rate (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).

use packet::{Duration, Instant};

/// Errors told at most, a second.
const A_SECOND: u64 = 100;

/// Counts errors told in the second that began then.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ErrorLimit {
    began: Instant,
    told: u64,
}

impl ErrorLimit {
    /// Whether another may be told; it counts as told.
    pub(crate) fn may_tell(&mut self, now: Instant) -> bool {
        if now.since(self.began) >= Duration::from_secs(1) {
            *self = Self { began: now, told: 0 };
        }
        self.told += 1;
        self.told <= A_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_a_second_and_a_hundred_the_next() {
        let mut limit = ErrorLimit::default();
        let told = |limit: &mut ErrorLimit, millis: u64| (0..1000).filter(|_| limit.may_tell(Instant::from_nanos(millis * 1_000_000))).count();
        assert_eq!((told(&mut limit, 10), told(&mut limit, 900), told(&mut limit, 1020)), (100, 0, 100));
    }
}
