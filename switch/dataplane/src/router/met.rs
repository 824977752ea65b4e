//! Neighbours met lately, as next hops: a few, found at once.
//!
//! Only a memory of what [`neighbours`](super::neighbours) said, and never for long: that one hears of use
//! often enough to ask again in time.

use std::net::IpAddr;

use packet::{Duration, Instant, Mac, NetworkId};

const SLOTS: usize = 256;
const LIFETIME: Duration = Duration::from_secs(5);

/// How a frame gets to a next hop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Met {
    /// Its address, and that of the router on that link: as a frame begins.
    pub(super) addresses: [u8; 12],
    /// Of that link, bytes.
    pub(super) mtu: u16,
}

impl Met {
    pub(super) fn new(mac: Mac, own: Mac, mtu: u16) -> Self {
        let mut addresses = [0; 12];
        addresses[..6].copy_from_slice(&mac.0);
        addresses[6..].copy_from_slice(&own.0);
        Self { addresses, mtu }
    }
}

/// What is remembered of a next hop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The network that it is in.
    pub(super) network: NetworkId,
    next_hop: u32,
    /// How long.
    pub(super) until: Instant,
    pub(super) met: Met,
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

fn slot(next_hop: u32) -> usize {
    // Addresses of one subnet differ at their end.
    (next_hop ^ next_hop >> 8) as usize % SLOTS
}

impl MetLately {
    pub(super) fn get(&self, network: NetworkId, next_hop: IpAddr, now: Instant) -> Option<&Entry> {
        let IpAddr::V4(next_hop) = next_hop else { return None };
        let next_hop = next_hop.into();
        self.slots[slot(next_hop)].as_ref().filter(|entry| entry.network == network && entry.next_hop == next_hop && entry.until > now)
    }

    pub(super) fn put(&mut self, network: NetworkId, next_hop: IpAddr, met: Met, now: Instant) {
        if let IpAddr::V4(next_hop) = next_hop {
            let next_hop = next_hop.into();
            self.slots[slot(next_hop)] = Some(Entry { network, next_hop, until: now + LIFETIME, met });
        }
    }

    pub(super) fn forget(&mut self) {
        self.slots.fill(None);
    }
}
