//! What is to happen, by time; at one time in the order in which it was put there.

use std::collections::BTreeMap;

use packet::Instant;

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    events: BTreeMap<(Instant, u64), T>,
    count: u64,
}

impl<T> Queue<T> {
    pub(crate) const fn new() -> Self {
        Self { events: BTreeMap::new(), count: 0 }
    }

    pub(crate) fn push(&mut self, at: Instant, event: T) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    /// When the next happens.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Instant, T)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }
}
