//! The forwarding database: (VLAN, MAC) -> port.
//!
//! What makes it more than a map:
//! 1. Keys are chosen by attackers, so the hash is keyed with a secret.
//! 2. It is bounded. When full, a port that holds more than its share gives up one of its own
//!    entries, so that a MAC flood evicts the flooder and nobody else.
//! 3. Idle entries are dead at once at the ageing time; a sweep in short steps clears them away.
//! 4. It starts small and doubles, so that thousands of idle networks cost little.
//! 5. Static entries neither age nor move.
//!
//! Open addressing with linear probing and backward-shift deletion; at most 3/4 full.

use packet::{Duration, Instant, Mac, PortId, UnicastMac, VlanId};

use crate::{
    command::{FdbKind, FdbView},
    limits::{FDB_EVICT_WINDOW, FDB_FIRST_SLOTS, FDB_SWEEP_SLOTS, FDB_SWEEPS},
};

const EMPTY: u64 = u64::MAX;
const STATIC: u64 = u64::MAX;

/// 24 bytes, so that an address costs at most 48 at half load.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// VLAN (0: none) << 48 | MAC; [`EMPTY`] when free.
    key: u64,
    port: PortId,
    /// Nanoseconds; [`STATIC`] for static entries.
    seen: u64,
}

const FREE: Entry = Entry { key: EMPTY, port: PortId::new(0, 0), seen: 0 };

/// What learning an address did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// It was known behind this port.
    Known,
    /// It is new.
    New,
    /// It was behind that port before.
    Moved(PortId),
    /// It is new, and this one made room for it.
    Evicted,
    /// The table is full.
    Full,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Fdb {
    slots: Box<[Entry]>,
    used: usize,
    statics: usize,
    capacity: usize,
    secret: [u64; 2],
    /// Nanoseconds: compared for each frame.
    ageing_ns: u64,
    /// Learned entries by port slot.
    held: Vec<u32>,
    /// Ports that hold at least one learned entry.
    holders: usize,
    evict_cursor: usize,
    sweep_cursor: usize,
    next_sweep: Instant,
}

impl Fdb {
    pub(crate) fn new(capacity: usize, ageing: Duration, secret: [u64; 2]) -> Self {
        Self {
            slots: vec![FREE; FDB_FIRST_SLOTS].into_boxed_slice(),
            used: 0,
            statics: 0,
            capacity: capacity.max(1),
            secret,
            ageing_ns: nanos(ageing),
            held: Vec::new(),
            holders: 0,
            evict_cursor: 0,
            sweep_cursor: 0,
            next_sweep: Instant::ZERO,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }

    pub(crate) fn set_ageing(&mut self, ageing: Duration) {
        self.ageing_ns = nanos(ageing);
    }

    /// The port behind which `mac` lives, if that was heard of within the ageing time.
    #[inline]
    pub(crate) fn lookup(&self, vlan: u16, mac: Mac, now: Instant) -> Option<PortId> {
        let entry = &self.slots[self.find(key(vlan, mac)).ok()?];
        self.is_alive(entry, now).then_some(entry.port)
    }

    /// Notes that `mac` was seen as a source on `port`.
    #[inline]
    pub(crate) fn learn(&mut self, vlan: u16, mac: UnicastMac, port: PortId, now: Instant) -> Learned {
        let key = key(vlan, mac.get());
        match self.find(key) {
            Ok(slot) => {
                let entry = &mut self.slots[slot];
                if entry.port == port && entry.seen != STATIC {
                    entry.seen = now.as_nanos();
                    return Learned::Known;
                }
                self.relearn(slot, port, now)
            }
            Err(_) => self.learn_new(key, port, now),
        }
    }

    fn relearn(&mut self, slot: usize, port: PortId, now: Instant) -> Learned {
        let entry = self.slots[slot];
        if entry.seen == STATIC {
            return Learned::Known;
        }
        let alive = self.is_alive(&entry, now);
        self.release(entry.port);
        self.hold(port);
        self.slots[slot] = Entry { port, seen: now.as_nanos(), ..entry };
        if alive { Learned::Moved(entry.port) } else { Learned::New }
    }

    fn learn_new(&mut self, key: u64, port: PortId, now: Instant) -> Learned {
        let mut outcome = Learned::New;
        if self.used >= self.capacity {
            if !self.evict_for(port) {
                return Learned::Full;
            }
            outcome = Learned::Evicted;
        }
        self.schedule_first_sweep(now);
        self.hold(port);
        self.insert(Entry { key, port, seen: now.as_nanos() });
        outcome
    }

    /// Adds or replaces a static entry. False when the table is full of static entries.
    pub(crate) fn add_static(&mut self, vlan: u16, mac: UnicastMac, port: PortId) -> bool {
        let key = key(vlan, mac.get());
        self.remove_key(key);
        if self.used >= self.capacity && !self.evict_for(port) {
            return false;
        }
        self.statics += 1;
        self.insert(Entry { key, port, seen: STATIC });
        true
    }

    /// Removes an entry, learned or static; false when there is none.
    pub(crate) fn remove(&mut self, vlan: u16, mac: UnicastMac) -> bool {
        self.remove_key(key(vlan, mac.get()))
    }

    fn remove_key(&mut self, key: u64) -> bool {
        let Ok(slot) = self.find(key) else { return false };
        self.delete(slot);
        true
    }

    /// Forgets learned entries: all, or those of `port`; with `statics` also static ones.
    pub(crate) fn flush(&mut self, port: Option<PortId>, statics: bool) {
        let mut slot = 0;
        while slot < self.slots.len() {
            let entry = self.slots[slot];
            let matches = entry.key != EMPTY && port.is_none_or(|port| entry.port == port) && (statics || entry.seen != STATIC);
            // A deletion shifts a later entry into this slot, so it is looked at again.
            if matches { self.delete(slot) } else { slot += 1 }
        }
    }

    /// When the next sweep step is due; `None` when nothing can age.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (self.used > self.statics).then_some(self.next_sweep)
    }

    /// One sweep step; tells `aged` what it removed.
    pub(crate) fn sweep(&mut self, now: Instant, mut aged: impl FnMut(UnicastMac)) {
        if now < self.next_sweep {
            return;
        }
        let end = (self.sweep_cursor + FDB_SWEEP_SLOTS).min(self.slots.len());
        let mut slot = self.sweep_cursor;
        while slot < end {
            let entry = self.slots[slot];
            if entry.key != EMPTY && !self.is_alive(&entry, now) {
                if let Some(mac) = mac_of(entry.key) {
                    aged(mac);
                }
                self.delete(slot);
            } else {
                slot += 1;
            }
        }
        if end == self.slots.len() {
            self.sweep_cursor = 0;
            self.next_sweep = now + (self.ageing() / FDB_SWEEPS).max(Duration::from_millis(1));
        } else {
            self.sweep_cursor = end;
        }
    }

    /// All live entries, sorted by VLAN and address.
    pub(crate) fn view(&self, now: Instant) -> Vec<FdbView> {
        let mut entries: Vec<_> = self.slots.iter().filter(|entry| entry.key != EMPTY && self.is_alive(entry, now)).collect();
        entries.sort_unstable_by_key(|entry| entry.key);
        entries.into_iter().filter_map(|entry| self.view_of(entry, now)).collect()
    }

    fn view_of(&self, entry: &Entry, now: Instant) -> Option<FdbView> {
        let is_static = entry.seen == STATIC;
        Some(FdbView {
            mac: mac_of(entry.key)?,
            vlan: VlanId::new(u16::try_from(entry.key >> 48).ok()?),
            port: entry.port,
            kind: if is_static { FdbKind::Static } else { FdbKind::Learned },
            idle: if is_static { Duration::ZERO } else { now.since(Instant::from_nanos(entry.seen)) },
        })
    }

    fn ageing(&self) -> Duration {
        Duration::from_nanos(self.ageing_ns)
    }

    #[inline]
    fn is_alive(&self, entry: &Entry, now: Instant) -> bool {
        // A static entry's time lies in the future, so it is never idle.
        now.as_nanos().saturating_sub(entry.seen) <= self.ageing_ns
    }

    /// First slot to look at: a keyed folded multiply.
    #[inline]
    fn home(&self, key: u64) -> usize {
        let wide = u128::from(key ^ self.secret[0]) * u128::from(self.secret[1]);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are wanted")]
        let folded = (wide as u64) ^ (wide >> 64) as u64;
        #[expect(clippy::cast_possible_truncation, reason = "masked below the table's length")]
        let home = folded as usize & (self.slots.len() - 1);
        home
    }

    /// The slot of `key`, or the free slot where it would go.
    #[inline]
    fn find(&self, key: u64) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = self.home(key);
        // Masked below the length, so that the check of the index costs nothing.
        let slots = &self.slots[..=mask];
        loop {
            let found = slots[slot & mask].key;
            if found == key {
                return Ok(slot);
            }
            if found == EMPTY {
                return Err(slot);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn insert(&mut self, entry: Entry) {
        let slot = self.find(entry.key).unwrap_or_else(|free| free);
        self.slots[slot] = entry;
        self.used += 1;
        if self.used * 4 > self.slots.len() * 3 {
            self.grow();
        }
    }

    fn grow(&mut self) {
        let larger = vec![FREE; self.slots.len() * 2].into_boxed_slice();
        let old = std::mem::replace(&mut self.slots, larger);
        for entry in old.iter().filter(|entry| entry.key != EMPTY) {
            if let Err(free) = self.find(entry.key) {
                self.slots[free] = *entry;
            }
        }
        self.sweep_cursor = 0;
        self.evict_cursor = 0;
    }

    /// Backward-shift deletion: closes the gap so that no probe sequence is cut.
    fn delete(&mut self, slot: usize) {
        let entry = self.slots[slot];
        if entry.seen == STATIC {
            self.statics -= 1;
        } else {
            self.release(entry.port);
        }
        self.used -= 1;
        let mask = self.slots.len() - 1;
        let mut gap = slot;
        let mut next = (slot + 1) & mask;
        while self.slots[next].key != EMPTY {
            let home = self.home(self.slots[next].key);
            // The entry may move into the gap unless its home lies between gap and itself.
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(gap) & mask) {
                self.slots[gap] = self.slots[next];
                gap = next;
            }
            next = (next + 1) & mask;
        }
        self.slots[gap] = FREE;
    }

    /// Makes room for an entry of `port`. A port at its fair share or above gives up one of its own
    /// entries; below it, the port that holds most does. False when none was found in the window.
    fn evict_for(&mut self, port: PortId) -> bool {
        let share = (self.capacity - self.statics.min(self.capacity)) / (self.holders + 1).max(1);
        let mine = self.held.get(port.index()).copied().unwrap_or(0) as usize;
        let victim = if mine > 0 && mine >= share { Some(port.index()) } else { self.heaviest() };
        let Some(victim) = victim else { return false };
        let mask = self.slots.len() - 1;
        let mut oldest: Option<(u64, usize)> = None;
        let mut looked = 0;
        // The window counts from the first match: where the victim holds most, one is near.
        for step in 0..self.slots.len().min(FDB_EVICT_WINDOW * 16) {
            let slot = (self.evict_cursor + step) & mask;
            let entry = &self.slots[slot];
            if entry.key != EMPTY && entry.seen != STATIC && entry.port.index() == victim && oldest.is_none_or(|(seen, _)| entry.seen < seen) {
                oldest = Some((entry.seen, slot));
            }
            looked += usize::from(oldest.is_some());
            if looked >= FDB_EVICT_WINDOW {
                break;
            }
        }
        self.evict_cursor = (self.evict_cursor + FDB_EVICT_WINDOW) & mask;
        let Some((_, slot)) = oldest else { return false };
        self.delete(slot);
        true
    }

    fn heaviest(&self) -> Option<usize> {
        self.held.iter().enumerate().max_by_key(|&(_, count)| count).filter(|&(_, &count)| count > 0).map(|(port, _)| port)
    }

    fn hold(&mut self, port: PortId) {
        if self.held.len() <= port.index() {
            self.held.resize(port.index() + 1, 0);
        }
        let count = &mut self.held[port.index()];
        self.holders += usize::from(*count == 0);
        *count += 1;
    }

    fn release(&mut self, port: PortId) {
        let count = &mut self.held[port.index()];
        *count -= 1;
        self.holders -= usize::from(*count == 0);
    }

    fn schedule_first_sweep(&mut self, now: Instant) {
        if self.used == self.statics {
            self.next_sweep = now + self.ageing() / FDB_SWEEPS;
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[inline]
fn key(vlan: u16, mac: Mac) -> u64 {
    u64::from(vlan) << 48 | mac.as_u64()
}

fn mac_of(key: u64) -> Option<UnicastMac> {
    let [_, _, mac @ ..] = key.to_be_bytes();
    UnicastMac::new(Mac(mac))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn mac(index: u32) -> UnicastMac {
        let [a, b, c, d] = index.to_be_bytes();
        UnicastMac::new(Mac([2, 0, a, b, c, d])).unwrap()
    }

    fn port(index: u32) -> PortId {
        PortId::new(index, 0)
    }

    fn fdb(capacity: usize) -> Fdb {
        Fdb::new(capacity, Duration::from_secs(300), [0x1234_5678_9abc_def0, 0x9e37_79b9_7f4a_7c15])
    }

    #[derive(Clone, Debug)]
    enum Op {
        Learn(u32, u32),
        AddStatic(u32, u32),
        Remove(u32),
        Flush(u32),
        Wait(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => (0..60_u32, 0..4_u32).prop_map(|(mac, port)| Op::Learn(mac, port)),
            1 => (0..60_u32, 0..4_u32).prop_map(|(mac, port)| Op::AddStatic(mac, port)),
            2 => (0..60_u32).prop_map(Op::Remove),
            1 => (0..4_u32).prop_map(Op::Flush),
            2 => (0..200_u64).prop_map(Op::Wait),
        ]
    }

    proptest! {
        /// Against a map that does the obvious thing.
        #[test]
        fn behaves_like_a_naive_model(ops in proptest::collection::vec(op(), 1..400)) {
            let mut fdb = fdb(1000);
            let mut model: BTreeMap<u32, (u32, Option<u64>)> = BTreeMap::new();
            let mut now = 0;
            for op in ops {
                match op {
                    Op::Learn(m, p) => {
                        fdb.learn(0, mac(m), port(p), Instant::from_nanos(now * 1_000_000_000));
                        if model.get(&m).is_none_or(|(_, seen)| seen.is_some()) { model.insert(m, (p, Some(now))); }
                    }
                    Op::AddStatic(m, p) => {
                        prop_assert!(fdb.add_static(0, mac(m), port(p)));
                        model.insert(m, (p, None));
                    }
                    Op::Remove(m) => {
                        // A dead entry may or may not have been swept.
                        let removed = fdb.remove(0, mac(m));
                        let known = model.remove(&m);
                        prop_assert!(!removed || known.is_some());
                    }
                    Op::Flush(p) => {
                        fdb.flush(Some(port(p)), false);
                        model.retain(|_, (at, seen)| *at != p || seen.is_none());
                    }
                    Op::Wait(seconds) => {
                        now += seconds;
                        if fdb.poll_timeout().is_some_and(|at| at.as_nanos() <= now * 1_000_000_000) {
                            fdb.sweep(Instant::from_nanos(now * 1_000_000_000), |_| {});
                        }
                    }
                }
                for m in 0..60 {
                    let expected = model.get(&m).filter(|(_, seen)| seen.is_none_or(|seen| now - seen <= 300)).map(|(p, _)| port(*p));
                    prop_assert_eq!(fdb.lookup(0, mac(m).get(), Instant::from_nanos(now * 1_000_000_000)), expected);
                }
            }
        }
    }

    #[test]
    fn a_mac_flood_evicts_the_flooder_only() {
        let mut fdb = fdb(1024);
        for station in 0..200 {
            fdb.learn(0, mac(station), port(station % 10), Instant::ZERO);
        }
        for random in 0..1_000_000 {
            fdb.learn(0, mac(1_000_000 + random), port(10), Instant::from_nanos(u64::from(random)));
        }
        assert_eq!(fdb.len(), 1024);
        for station in 0..200 {
            assert_eq!(fdb.lookup(0, mac(station).get(), Instant::ZERO), Some(port(station % 10)), "station {station}");
        }
        // And a newcomer on a quiet port still gets in, at the flooder's expense.
        assert_eq!(fdb.learn(0, mac(999), port(11), Instant::ZERO), Learned::Evicted);
        assert_eq!(fdb.lookup(0, mac(999).get(), Instant::ZERO), Some(port(11)));
    }

    #[test]
    fn vlans_are_apart_and_statics_stay() {
        let mut fdb = fdb(16);
        fdb.learn(1, mac(1), port(1), Instant::ZERO);
        fdb.learn(2, mac(1), port(2), Instant::ZERO);
        assert_eq!(fdb.lookup(1, mac(1).get(), Instant::ZERO), Some(port(1)));
        assert!(fdb.add_static(0, mac(7), port(3)));
        assert_eq!(fdb.learn(0, mac(7), port(4), Instant::ZERO), Learned::Known);
        let late = Instant::from_nanos(u64::MAX / 2);
        fdb.sweep(late, |_| {});
        assert_eq!(fdb.lookup(0, mac(7).get(), late), Some(port(3)));
        assert_eq!(fdb.len(), 1);
        assert_eq!(fdb.poll_timeout(), None);
    }

    #[test]
    fn an_entry_costs_at_most_48_bytes() {
        assert!(size_of::<Entry>() * 2 <= 48);
    }
}
