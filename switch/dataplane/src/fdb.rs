//! The forwarding database: (VLAN, MAC) -> port.
//!
//! What makes it more than a map:
//! 1. Keys are chosen by attackers, so the hash is keyed with a secret.
//! 2. It is bounded. When full, a port that holds its share gives up one of its own entries, so that
//!    a MAC flood evicts the flooder and nobody else.
//! 3. Idle entries are dead at once at the ageing time; a sweep in short steps clears them away.
//! 4. It starts small and doubles, so that thousands of idle networks cost little.
//! 5. Static entries neither age nor move.
//! 6. Entries are 16 bytes, aligned: a look-up touches one line of cache, and an address costs at
//!    most 43 bytes (just after doubling).
//!
//! Open addressing with linear probing and backward-shift deletion; at most 3/4 full. Ports are
//! their slots: a port's entries are flushed with it, so no entry outlives its port.

mod holders;
#[cfg(test)]
mod tests;

use packet::{Duration, Instant, Keyed};

use crate::hint::unlikely;
use crate::limits::{FDB_EVICT_WINDOW, FDB_FIRST_SLOTS, FDB_SWEEP_SLOTS, FDB_SWEEPS};
use holders::Holders;

/// Slot of a port in the switch's table.
pub(crate) type PortSlot = u32;

const EMPTY: u64 = u64::MAX;
/// Marks the port of a static entry.
const STATIC: u32 = 1 << 31;
/// A tick of an entry's clock is 2^20 ns, about a millisecond: the clock wraps after 52 days.
const TICK_SHIFT: u32 = 20;
/// 13 days, well below the wrap; IEEE 802.1Q table 8-6 allows 10^6 s.
const LONGEST_AGEING_TICKS: u32 = 1 << 30;
/// About a second: the time of a burst may be a little older than that of a command before it.
const BACKWARD_TICKS: u32 = 1 << 10;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// VLAN (0: none) << 48 | MAC; [`EMPTY`] when free.
    key: u64,
    /// Port slot, with [`STATIC`].
    port: u32,
    /// When last seen as a source, in ticks.
    seen: u32,
}

impl Entry {
    const FREE: Self = Self { key: EMPTY, port: 0, seen: 0 };

    #[inline]
    const fn is_static(&self) -> bool {
        self.port & STATIC != 0
    }

    /// Ticks since last seen and [`BACKWARD_TICKS`].
    #[inline]
    const fn idle(&self, tick: u32) -> u32 {
        tick.wrapping_sub(self.seen).wrapping_add(BACKWARD_TICKS)
    }
}

/// What learning an address did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// It was known behind this port.
    Known,
    /// It is new.
    New,
    /// It was behind that port before.
    Moved(PortSlot),
    /// It is new, and another made room for it.
    Evicted,
    /// The table is full.
    Full,
}

/// An entry as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) key: u64,
    pub(crate) port: PortSlot,
    /// `None` for static entries.
    pub(crate) idle: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Fdb {
    slots: Box<[Entry]>,
    secret: Keyed,
    /// With [`BACKWARD_TICKS`].
    ageing_ticks: u32,
    used: usize,
    statics: usize,
    capacity: usize,
    /// Learned entries by port.
    holders: Holders,
    evict_cursor: usize,
    sweep_cursor: usize,
    next_sweep: Instant,
}

/// The key of a station in a VLAN.
#[inline]
pub(crate) fn key(vlan: u16, mac: u64) -> u64 {
    u64::from(vlan) << 48 | mac
}

impl Fdb {
    pub(crate) fn new(capacity: usize, ageing: Duration, secret: Keyed) -> Self {
        Self {
            slots: vec![Entry::FREE; FDB_FIRST_SLOTS].into_boxed_slice(),
            secret,
            ageing_ticks: ticks(ageing),
            used: 0,
            statics: 0,
            capacity: capacity.max(1),
            holders: Holders::default(),
            evict_cursor: 0,
            sweep_cursor: 0,
            next_sweep: Instant::ZERO,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }

    pub(crate) fn set_ageing(&mut self, ageing: Duration, now: Instant) {
        self.ageing_ticks = ticks(ageing);
        self.next_sweep = self.next_sweep.min(self.after_pause(now));
    }

    /// The port behind which a station lives, if that was heard of within the ageing time.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "on every frame's way; counted")]
    pub(crate) fn lookup(&self, key: u64, now: Instant) -> Option<PortSlot> {
        let (_, entry) = self.probe(key);
        if unlikely(entry.key != key) {
            return None;
        }
        if unlikely(!self.is_alive(&entry, tick(now))) { None } else { Some(entry.port & !STATIC) }
    }

    /// Notes that a station was seen as a source behind `port`.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "on every frame's way; counted")]
    pub(crate) fn learn(&mut self, key: u64, port: PortSlot, now: Instant) -> Learned {
        let ((slot, entry), tick) = (self.probe(key), tick(now));
        if unlikely(entry.key != key || entry.port != port || entry.idle(tick) > self.ageing_ticks) {
            return self.learn_change(key, port, now);
        }
        // Its line of cache stays clean while nothing changes.
        if entry.seen != tick {
            self.slots[slot].seen = tick;
        }
        Learned::Known
    }

    #[cold]
    fn learn_change(&mut self, key: u64, port: PortSlot, now: Instant) -> Learned {
        let Ok(slot) = self.find(key) else { return self.learn_new(key, port, now) };
        let entry = self.slots[slot];
        if entry.is_static() {
            return Learned::Known;
        }
        let alive = self.is_alive(&entry, tick(now));
        self.holders.release(entry.port);
        self.holders.hold(port);
        self.slots[slot] = Entry { key, port, seen: tick(now) };
        match alive {
            true if entry.port == port => Learned::Known,
            true => Learned::Moved(entry.port),
            false => Learned::New,
        }
    }

    fn learn_new(&mut self, key: u64, port: PortSlot, now: Instant) -> Learned {
        let mut outcome = Learned::New;
        if self.used >= self.capacity {
            if !self.evict_for(port, tick(now)) {
                return Learned::Full;
            }
            outcome = Learned::Evicted;
        }
        if self.used == self.statics {
            self.next_sweep = self.after_pause(now);
        }
        self.holders.hold(port);
        self.insert(Entry { key, port, seen: tick(now) });
        outcome
    }

    /// Adds or replaces a static entry. False, and nothing changed, when the table is full of static
    /// entries.
    pub(crate) fn add_static(&mut self, key: u64, port: PortSlot, now: Instant) -> bool {
        if let Ok(slot) = self.find(key) {
            self.delete(slot);
        } else if self.used >= self.capacity && !self.evict_any(tick(now)) {
            return false;
        }
        self.statics += 1;
        self.insert(Entry { key, port: port | STATIC, seen: 0 });
        true
    }

    /// Removes an entry, learned or static; false when there is none that is alive.
    pub(crate) fn remove(&mut self, key: u64, now: Instant) -> bool {
        let Ok(slot) = self.find(key) else { return false };
        let alive = self.is_alive(&self.slots[slot], tick(now));
        self.delete(slot);
        alive
    }

    /// Forgets what was learned about a station; what somebody said stays.
    pub(crate) fn unlearn(&mut self, key: u64) {
        if let Ok(slot) = self.find(key)
            && !self.slots[slot].is_static()
        {
            self.delete(slot);
        }
    }

    /// Forgets learned entries: all, or those of `port`; with `statics` also static ones.
    pub(crate) fn flush(&mut self, port: Option<PortSlot>, statics: bool) {
        let mut slot = 0;
        while slot < self.slots.len() {
            let entry = self.slots[slot];
            let matches = entry.key != EMPTY && port.is_none_or(|port| entry.port & !STATIC == port) && (statics || !entry.is_static());
            // A deletion shifts a later entry into this slot, so it is looked at again.
            if matches { self.delete(slot) } else { slot += 1 }
        }
    }

    /// When the next sweep step is due; `None` when nothing can age.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (self.used > self.statics).then_some(self.next_sweep)
    }

    /// One sweep step; tells `aged` the keys it removed.
    pub(crate) fn sweep(&mut self, now: Instant, mut aged: impl FnMut(u64)) {
        if now < self.next_sweep {
            return;
        }
        let end = (self.sweep_cursor + FDB_SWEEP_SLOTS).min(self.slots.len());
        let mut slot = self.sweep_cursor;
        while slot < end {
            let entry = self.slots[slot];
            if entry.key != EMPTY && !self.is_alive(&entry, tick(now)) {
                aged(entry.key);
                self.delete(slot);
            } else {
                slot += 1;
            }
        }
        if end == self.slots.len() {
            self.sweep_cursor = 0;
            self.next_sweep = self.after_pause(now);
        } else {
            self.sweep_cursor = end;
        }
    }

    fn after_pause(&self, now: Instant) -> Instant {
        let ageing = Duration::from_nanos(u64::from(self.ageing_ticks - BACKWARD_TICKS) << TICK_SHIFT);
        now + (ageing / FDB_SWEEPS).max(Duration::from_millis(1))
    }

    /// All live entries, sorted by VLAN and address.
    pub(crate) fn view(&self, now: Instant) -> Vec<Found> {
        let alive = self.slots.iter().filter(|entry| entry.key != EMPTY && self.is_alive(entry, tick(now)));
        let mut entries: Vec<_> = alive.map(|entry| found(entry, now)).collect();
        entries.sort_unstable_by_key(|entry| entry.key);
        entries
    }

    #[inline]
    fn is_alive(&self, entry: &Entry, tick: u32) -> bool {
        entry.idle(tick) <= self.ageing_ticks || entry.is_static()
    }

    /// First slot to look at.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked below the table's length")]
    fn home(&self, key: u64) -> usize {
        self.secret.words([key]) as usize & (self.slots.len() - 1)
    }

    /// The slot of `key`, or the free slot where it would go.
    fn find(&self, key: u64) -> Result<usize, usize> {
        let (slot, entry) = self.probe(key);
        if entry.key == key { Ok(slot) } else { Err(slot) }
    }

    /// The same, with what is there.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "on every frame's way; counted")]
    fn probe(&self, key: u64) -> (usize, Entry) {
        let mask = self.slots.len() - 1;
        // Masked below the length, so that the check of the index costs nothing.
        let slots = &self.slots[..=mask];
        let mut slot = self.home(key);
        loop {
            let entry = slots[slot & mask];
            if entry.key == key || unlikely(entry.key == EMPTY) {
                return (slot, entry);
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
        let larger = vec![Entry::FREE; self.slots.len() * 2].into_boxed_slice();
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
        if entry.is_static() {
            self.statics -= 1;
        } else {
            self.holders.release(entry.port);
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
        self.slots[gap] = Entry::FREE;
    }

    /// Makes room for an entry of `port`. A port at its fair share or above gives up one of its own
    /// entries; below it, the port that holds most does. The idlest of those in a bounded window
    /// goes. False when none was there; the next try looks further on.
    fn evict_for(&mut self, port: PortSlot, tick: u32) -> bool {
        let learnable = self.capacity.saturating_sub(self.statics);
        let share = learnable / (self.holders.len() + 1);
        let mine = self.holders.count(port);
        let victim = if mine > 0 && mine >= share { Some(port) } else { self.holders.heaviest() };
        victim.is_some_and(|victim| self.evict_from(victim, FDB_EVICT_WINDOW * 16, tick))
    }

    /// Makes room for a static entry, however long it takes to find one.
    fn evict_any(&mut self, tick: u32) -> bool {
        self.holders.heaviest().is_some_and(|victim| self.evict_from(victim, self.slots.len(), tick))
    }

    fn evict_from(&mut self, victim: PortSlot, most_slots: usize, tick: u32) -> bool {
        let (mask, start) = (self.slots.len() - 1, self.evict_cursor);
        let mut window = most_slots.min(self.slots.len());
        let mut idlest: Option<(u32, usize)> = None;
        let mut looked = 0;
        while looked < window {
            let slot = (start + looked) & mask;
            looked += 1;
            let entry = self.slots[slot];
            if entry.key == EMPTY || entry.port != victim {
                continue;
            }
            if idlest.is_none() {
                window = window.min(looked + FDB_EVICT_WINDOW);
            }
            let idle = entry.idle(tick);
            if idlest.is_none_or(|(most, _)| idle > most) {
                idlest = Some((idle, slot));
            }
        }
        self.evict_cursor = (start + looked) & mask;
        let Some((_, slot)) = idlest else { return false };
        self.delete(slot);
        true
    }
}

fn found(entry: &Entry, now: Instant) -> Found {
    let ticks = entry.idle(tick(now)).saturating_sub(BACKWARD_TICKS);
    let idle = Duration::from_nanos(u64::from(ticks) << TICK_SHIFT);
    Found { key: entry.key, port: entry.port & !STATIC, idle: (!entry.is_static()).then_some(idle) }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the clock of entries wraps")]
fn tick(now: Instant) -> u32 {
    (now.as_nanos() >> TICK_SHIFT) as u32
}

/// Rounded up: an entry may live a tick longer, never shorter.
fn ticks(time: Duration) -> u32 {
    let ticks = time.as_nanos().div_ceil(1 << TICK_SHIFT);
    u32::try_from(ticks).unwrap_or(u32::MAX).min(LONGEST_AGEING_TICKS) + BACKWARD_TICKS
}
