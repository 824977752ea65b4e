//! Which flow wants to hear from the clock, and when.

use std::collections::BTreeSet;

use packet::Instant;

/// Deadlines are rounded up to this, nanoseconds: flows that differ by less are woken together.
const TICK: u64 = 1_000_000;

/// See the module. A flow is looked at no later than its deadline; it may be looked at earlier, since deadlines that
/// are put off are not noted.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeSet<(Instant, usize)>,
}

impl Timers {
    /// Has flow `at` looked at by `deadline`; `noted` is when it is looked at anyway.
    pub(crate) fn note(&mut self, at: usize, noted: &mut Option<Instant>, deadline: Instant) {
        if noted.is_some_and(|noted| noted <= deadline) {
            return;
        }
        self.forget(at, noted);
        let when = Instant::from_nanos(deadline.as_nanos().saturating_add(TICK - 1) / TICK * TICK);
        self.queue.insert((when, at));
        *noted = Some(when);
    }

    /// Flow `at` is gone.
    pub(crate) fn forget(&mut self, at: usize, noted: &mut Option<Instant>) {
        if let Some(when) = noted.take() {
            self.queue.remove(&(when, at));
        }
    }

    /// When the next is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(when, _)| *when)
    }

    /// Takes those that are due at `now`; the caller notes them anew.
    pub(crate) fn take_due(&mut self, now: Instant, due: &mut Vec<usize>) {
        while let Some((_, at)) = self.queue.first().copied().filter(|(when, _)| *when <= now) {
            self.queue.pop_first();
            due.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_word_counts() {
        let (mut timers, mut due) = (Timers::default(), Vec::new());
        let at = |millis: u64| Instant::from_nanos(millis * TICK);
        let (mut one, mut other) = (None, None);
        timers.note(1, &mut one, at(50));
        timers.note(2, &mut other, at(40));
        timers.note(1, &mut one, at(90));
        assert_eq!(timers.next(), Some(at(40)));
        timers.note(1, &mut one, Instant::from_nanos(29 * TICK + 1));
        assert_eq!(timers.next(), Some(at(30)), "rounded up");
        timers.take_due(at(35), &mut due);
        assert_eq!(due, [1]);
        timers.forget(2, &mut other);
        assert_eq!((timers.next(), other), (None, None));
    }
}
