//! Neighbours met lately, by the destination that led to them: a few, found at once.
//!
//! Only a memory of what [`neighbours`](super::neighbours) said, and never for long: that one hears of use
//! often enough to ask again in time.

use packet::{Duration, Instant, Mac, NetworkId};

const SLOTS: usize = 256;
const LIFETIME: Duration = Duration::from_secs(5);

/// How a frame gets to a destination.
#[derive(Clone, Copy, Debug)]
pub(super) struct Met {
    /// The next hop.
    pub(super) mac: Mac,
    /// The router on that link.
    pub(super) own: Mac,
    /// Of that link, bytes.
    pub(super) mtu: u16,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    network: NetworkId,
    destination: u32,
    until: Instant,
    met: Met,
}

#[derive(Debug)]
pub(super) struct MetLately {
    slots: Box<[Option<Entry>; SLOTS]>,
}

impl Default for MetLately {
    fn default() -> Self {
        Self { slots: Box::new([None; SLOTS]) }
    }
}

fn slot(destination: u32) -> usize {
    // Addresses of one subnet differ at their end.
    (destination ^ destination >> 8) as usize % SLOTS
}

impl MetLately {
    #[inline]
    pub(super) fn get(&self, network: NetworkId, destination: u32, now: Instant) -> Option<Met> {
        let entry = self.slots[slot(destination)].as_ref()?;
        (entry.network == network && entry.destination == destination && entry.until > now).then_some(entry.met)
    }

    pub(super) fn put(&mut self, network: NetworkId, destination: u32, met: Met, now: Instant) {
        self.slots[slot(destination)] = Some(Entry { network, destination, until: now + LIFETIME, met });
    }

    pub(super) fn forget(&mut self) {
        self.slots.fill(None);
    }
}
