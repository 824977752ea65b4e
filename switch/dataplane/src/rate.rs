//! Token buckets: what a port may cause to be flooded (storm control), and how many ICMP errors are told (RFC 1812
//! section 4.3.2.8, RFC 4443 section 2.4 f).

use packet::Instant;

/// Tokens are kept as nanoseconds of credit: one costs its share of a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    cost_ns: u64,
    full_ns: u64,
    credit_ns: u64,
    filled_at: Instant,
}

impl Bucket {
    /// A full one: `burst` tokens at once, `per_second` in the long run.
    pub(crate) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let cost_ns = 1_000_000_000 / u64::from(per_second.max(1));
        let full_ns = cost_ns * u64::from(burst.max(1));
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

/// A hundred ICMP errors at once, and a hundred a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorLimit(Bucket);

impl Default for ErrorLimit {
    fn default() -> Self {
        Self(Bucket::new(100, 100, Instant::ZERO))
    }
}

impl ErrorLimit {
    /// Whether another may be told; it counts as told.
    pub(crate) fn may_tell(&mut self, now: Instant) -> bool {
        self.0.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::new(1000, 5, Instant::ZERO);
        assert_eq!((0..10).filter(|_| bucket.take(Instant::ZERO)).count(), 5);
        let passed = (1..=1_000_000_u64).filter(|us| bucket.take(Instant::from_nanos(us * 1000))).count();
        assert!((999..=1000).contains(&passed), "{passed}");
    }
}
