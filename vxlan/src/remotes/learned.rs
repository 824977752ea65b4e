//! Learned entries: buckets of eight by a keyed hash.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use packet::{Duration, Instant, Keyed};

const WAYS: usize = 8;
const FIRST_BUCKETS: usize = 4;
/// Buckets swept in one step.
const SWEEP_BUCKETS: usize = 128;
const FREE: u64 = u64::MAX;
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// What learning an address did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was known to be there.
    Known,
    /// It is new.
    New,
    /// It was elsewhere before.
    Moved,
    /// It is new, and another made room for it.
    Evicted,
}

/// Keys apart from the rest: a look-up that finds nothing touches one line of cache.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    keys: [u64; WAYS],
    seats: [Seat; WAYS],
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    to: SocketAddr,
    seen: Instant,
}

impl Bucket {
    const EMPTY: Self = Self { keys: [FREE; WAYS], seats: [Seat { to: NOWHERE, seen: Instant::ZERO }; WAYS] };

    fn way_of(&self, key: u64) -> Option<usize> {
        self.keys.iter().position(|held| *held == key)
    }

    /// The seat to give up for one of `newcomer`: the idlest of those of the remote that would hold most.
    fn victim(&self, newcomer: SocketAddr) -> usize {
        let held_by = |to| self.seats.iter().filter(|seat| seat.to == to).count() + usize::from(to == newcomer);
        let worth = |way: &usize| (held_by(self.seats[*way].to), std::cmp::Reverse(self.seats[*way].seen));
        (0..WAYS).max_by_key(worth).unwrap_or(0)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Learned {
    /// None at first, then a power of two.
    buckets: Vec<Bucket>,
    buckets_most: usize,
    key: Keyed,
    used: usize,
}

impl Learned {
    /// Seats for twice `capacity`, so that few of so many meet a full bucket.
    pub(super) fn new(capacity: usize, key: Keyed) -> Self {
        let buckets_most = (capacity.saturating_mul(2) / WAYS).clamp(1, 1 << 20).next_power_of_two();
        Self { buckets: Vec::new(), buckets_most, key, used: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.used
    }

    #[inline]
    pub(super) fn lookup(&self, key: u64, ageing: Duration, now: Instant) -> Option<SocketAddr> {
        let bucket = self.buckets.get(self.home(key))?;
        let seat = bucket.seats[bucket.way_of(key)?];
        (now.since(seat.seen) <= ageing).then_some(seat.to)
    }

    #[inline]
    pub(super) fn learn(&mut self, key: u64, to: SocketAddr, ageing: Duration, now: Instant) -> Outcome {
        let home = self.home(key);
        if let Some(bucket) = self.buckets.get_mut(home)
            && let Some(way) = bucket.way_of(key)
        {
            let old = std::mem::replace(&mut bucket.seats[way], Seat { to, seen: now });
            return match (old.to == to, now.since(old.seen) <= ageing) {
                (true, true) => Outcome::Known,
                (false, true) => Outcome::Moved,
                (_, false) => Outcome::New,
            };
        }
        self.insert(key, Seat { to, seen: now }, ageing)
    }

    pub(super) fn remove(&mut self, key: u64) -> bool {
        let home = self.home(key);
        let Some(bucket) = self.buckets.get_mut(home) else { return false };
        let Some(way) = bucket.way_of(key) else { return false };
        bucket.keys[way] = FREE;
        self.used -= 1;
        true
    }

    pub(super) fn clear(&mut self) {
        self.retain(|_, _| false);
    }

    /// Keeps the entries for which `keep(remote, seen)` holds.
    pub(super) fn retain(&mut self, keep: impl Fn(SocketAddr, Instant) -> bool) {
        self.used -= retain(&mut self.buckets, keep);
    }

    pub(super) fn sweep(&mut self, cursor: usize, ageing: Duration, now: Instant) -> Option<usize> {
        let end = (cursor + SWEEP_BUCKETS).min(self.buckets.len());
        let step = self.buckets.get_mut(cursor..end)?;
        self.used -= retain(step, |_, seen| now.since(seen) <= ageing);
        (end < self.buckets.len()).then_some(end)
    }

    /// Key, remote and when last seen, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, SocketAddr, Instant)> + '_ {
        let entries = self.buckets.iter().flat_map(|bucket| bucket.keys.iter().zip(&bucket.seats));
        entries.filter(|(key, _)| **key != FREE).map(|(key, seat)| (*key, seat.to, seat.seen))
    }

    /// Takes a free seat, a dead one's, one of a larger table, or that of a live victim, in this order.
    fn insert(&mut self, key: u64, seat: Seat, ageing: Duration) -> Outcome {
        loop {
            let home = self.home(key);
            let may_grow = self.buckets.len() < self.buckets_most;
            if let Some(bucket) = self.buckets.get_mut(home) {
                let dead = |bucket: &Bucket| bucket.seats.iter().position(|held| seat.seen.since(held.seen) > ageing);
                let (way, outcome) = match (bucket.way_of(FREE), dead(bucket)) {
                    (Some(way), _) => {
                        self.used += 1;
                        (way, Outcome::New)
                    }
                    (None, Some(way)) => (way, Outcome::New),
                    (None, None) => (bucket.victim(seat.to), Outcome::Evicted),
                };
                if outcome == Outcome::New || !may_grow {
                    bucket.keys[way] = key;
                    bucket.seats[way] = seat;
                    return outcome;
                }
            }
            self.grow();
        }
    }

    /// Twice the buckets: one more bit of the hash tells the halves of each apart, so that none overflows.
    fn grow(&mut self) {
        let count = (self.buckets.len() * 2).max(FIRST_BUCKETS.min(self.buckets_most));
        let old = std::mem::replace(&mut self.buckets, vec![Bucket::EMPTY; count]);
        for (key, seat) in old.iter().flat_map(|bucket| bucket.keys.iter().zip(&bucket.seats)).filter(|(key, _)| **key != FREE) {
            let home = self.home(*key);
            let bucket = &mut self.buckets[home];
            if let Some(way) = bucket.way_of(FREE) {
                bucket.keys[way] = *key;
                bucket.seats[way] = *seat;
            }
        }
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked below the table's length")]
    fn home(&self, key: u64) -> usize {
        self.key.words([key]) as usize & self.buckets.len().wrapping_sub(1)
    }
}

/// Frees the seats for which `keep` does not hold; how many.
fn retain(buckets: &mut [Bucket], keep: impl Fn(SocketAddr, Instant) -> bool) -> usize {
    let mut freed = 0;
    for bucket in buckets {
        for (key, seat) in bucket.keys.iter_mut().zip(&bucket.seats) {
            if *key != FREE && !keep(seat.to, seat.seen) {
                *key = FREE;
                freed += 1;
            }
        }
    }
    freed
}
