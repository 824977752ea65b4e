//! Storm control: a token bucket on what a port may cause to be flooded.

use packet::Instant;

use crate::port::StormLimit;

/// Tokens are kept as nanoseconds of credit: one frame costs a frame's share of a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    cost_ns: u64,
    full_ns: u64,
    credit_ns: u64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(limit: StormLimit, now: Instant) -> Self {
        let cost_ns = 1_000_000_000 / u64::from(limit.frames_per_second.max(1));
        let full_ns = cost_ns * u64::from(limit.burst.max(1));
        Self { cost_ns, full_ns, credit_ns: full_ns, filled_at: now }
    }

    /// Takes one token; false when there is none.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let passed = now.as_nanos().saturating_sub(self.filled_at.as_nanos());
        self.credit_ns = self.credit_ns.saturating_add(passed).min(self.full_ns);
        self.filled_at = now;
        if self.credit_ns < self.cost_ns {
            return false;
        }
        self.credit_ns -= self.cost_ns;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::new(StormLimit { frames_per_second: 1000, burst: 5 }, Instant::ZERO);
        assert_eq!((0..10).filter(|_| bucket.take(Instant::ZERO)).count(), 5);
        let passed = (1..=1_000_000_u64).filter(|us| bucket.take(Instant::from_nanos(us * 1000))).count();
        assert!((999..=1000).contains(&passed), "{passed}");
    }
}
