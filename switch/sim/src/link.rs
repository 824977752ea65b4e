//! A wire between two ports.

use packet::{Duration, Instant};

use crate::random::Random;

/// What a wire does to frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkConfig {
    /// Time on the way.
    pub delay: Duration,
    /// Further time, evenly between zero and this; frames may overtake one another.
    pub jitter: Duration,
    /// Frames lost, per million.
    pub loss_ppm: u32,
    /// Frames that arrive twice, per million.
    pub duplicate_ppm: u32,
    /// Bits a second; zero means unlimited.
    pub bits_per_second: u64,
}

/// One direction of a wire.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    config: LinkConfig,
    free_at: Instant,
}

impl Wire {
    pub(crate) fn new(config: LinkConfig) -> Self {
        Self { config, free_at: Instant::ZERO }
    }

    /// When copies of a frame of `length` bytes sent at `now` arrive: none, one or two times.
    pub(crate) fn arrivals(&mut self, length: usize, now: Instant, random: &mut Random) -> [Option<Instant>; 2] {
        let config = self.config;
        if random.happens(config.loss_ppm) {
            return [None, None];
        }
        let start = self.free_at.max(now);
        let time = (length as u64 * 8).saturating_mul(1_000_000_000).checked_div(config.bits_per_second).unwrap_or(0);
        self.free_at = start + Duration::from_nanos(time);
        let mut arrival = || {
            let jitter = u64::try_from(config.jitter.as_nanos()).unwrap_or(0);
            let extra = if jitter == 0 { 0 } else { random.below(jitter) };
            Some(self.free_at + config.delay + Duration::from_nanos(extra))
        };
        let first = arrival();
        let second = if config.duplicate_ppm > 0 { arrival() } else { None };
        let twice = config.duplicate_ppm > 0 && random.happens(config.duplicate_ppm);
        [first, second.filter(|_| twice)]
    }
}
