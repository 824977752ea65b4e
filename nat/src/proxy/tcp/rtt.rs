//! How long answers of a sandbox take, and so how long they are waited for (RFC 6298).

use packet::{Duration, Instant};

use super::segment::before;

/// Least time before all that is unanswered is sent again, and the first guess: RFC 6298 says a second, for paths that
/// may take as long; this one ends on the same machine.
const TIMEOUT_LEAST: Duration = Duration::from_millis(200);
const TIMEOUT_MOST: Duration = Duration::from_secs(60);
/// Least time before a probe: the clock's steps, and no less than other stacks have.
const PROBE_LEAST: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rtt {
    smoothed: Duration,
    /// Zero before the first measurement.
    variation: Duration,
    /// Times the timeout was doubled.
    doubled: u8,
    /// The byte whose acknowledgement is timed, and since when.
    timed: Option<(u32, Instant)>,
}

impl Rtt {
    /// Bytes before `end` leave, for the first time.
    pub(crate) fn sent(&mut self, end: u32, now: Instant) {
        if self.timed.is_none() {
            self.timed = Some((end, now));
        }
    }

    /// Something was sent again: what is acknowledged next says nothing (Karn's algorithm, RFC 6298 3).
    pub(crate) const fn sent_again(&mut self) {
        self.timed = None;
    }

    /// Bytes before `ack` arrived.
    pub(crate) fn acknowledged(&mut self, ack: u32, now: Instant) {
        self.answered();
        let Some((_, at)) = self.timed.take_if(|(end, _)| !before(ack, *end)) else { return };
        let measured = now.since(at);
        if self.variation.is_zero() {
            (self.smoothed, self.variation) = (measured, (measured / 2).max(Duration::from_nanos(1)));
        } else {
            self.variation = ((self.variation * 3 + self.smoothed.abs_diff(measured)) / 4).max(Duration::from_nanos(1));
            self.smoothed = (self.smoothed * 7 + measured) / 8;
        }
    }

    /// The timer expired (RFC 6298 5.5).
    pub(crate) const fn back_off(&mut self) {
        self.doubled = self.doubled.saturating_add(1);
    }

    /// There is an answer: the timeout is as it was.
    pub(crate) const fn answered(&mut self) {
        self.doubled = 0;
    }

    /// Time until all is sent again.
    pub(crate) fn timeout(&self) -> Duration {
        let base = (self.smoothed + self.variation * 4).max(TIMEOUT_LEAST);
        base.saturating_mul(1 << self.doubled.min(16)).min(TIMEOUT_MOST)
    }

    /// Time until the end of a flight is tried again (RFC 8985 7.2).
    pub(crate) fn probe(&self) -> Duration {
        if self.variation.is_zero() { self.timeout() } else { (self.smoothed * 2).max(PROBE_LEAST) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn the_timeout_follows_the_path_and_doubles() {
        let mut rtt = Rtt::default();
        assert_eq!((rtt.timeout(), rtt.probe()), (TIMEOUT_LEAST, TIMEOUT_LEAST));
        rtt.sent(100, at(0));
        rtt.sent(200, at(50));
        rtt.acknowledged(50, at(60));
        rtt.acknowledged(150, at(100));
        // RFC 6298 2.2: R + 4 * R / 2.
        assert_eq!((rtt.timeout(), rtt.probe()), (Duration::from_millis(300), Duration::from_millis(200)));
        rtt.back_off();
        assert_eq!(rtt.timeout(), Duration::from_millis(600));
        rtt.sent(300, at(200));
        rtt.sent_again();
        rtt.acknowledged(300, at(1000));
        assert_eq!(rtt.timeout(), Duration::from_millis(300), "what was sent again measures nothing");
        for _ in 0..40 {
            rtt.back_off();
        }
        assert_eq!(rtt.timeout(), TIMEOUT_MOST);
    }
}
