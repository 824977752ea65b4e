//! Flows as they come and go, for whoever watches; nothing is kept while nobody does.

use packet::NetworkId;

use crate::tuple::End;

/// Events between two looks at most; more are only counted.
const MOST: usize = 1024;

/// A flow began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// It began.
    pub began: bool,
    /// The sandbox's network.
    pub network: NetworkId,
    /// IP protocol number.
    pub protocol: u8,
    /// The sandbox's end.
    pub inside: End,
    /// The other end.
    pub outside: End,
    /// What the sandbox's end is called outside, where packets are translated.
    pub external: Option<End>,
}

/// Collects them.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    on: bool,
    events: Vec<FlowEvent>,
    missed: u64,
}

impl Watch {
    pub(crate) fn set(&mut self, on: bool) {
        self.on = on;
        self.events.clear();
        self.missed = 0;
    }

    #[inline]
    pub(crate) fn tell(&mut self, event: impl FnOnce() -> FlowEvent) {
        if !self.on {
            return;
        }
        if self.events.len() < MOST {
            self.events.push(event());
        } else {
            self.missed += 1;
        }
    }

    /// What came since, and how many were missed.
    pub(crate) fn take(&mut self, mut each: impl FnMut(FlowEvent)) -> u64 {
        self.events.drain(..).for_each(&mut each);
        std::mem::take(&mut self.missed)
    }
}
