//! Who has which address on a link: ARP (RFC 826) and neighbour discovery (RFC 4861), asking side.
//!
//! An entry is believed for a while after it was confirmed, and asked for again while it is used (RFC 4861
//! section 7.3). Frames for an address that is being asked for wait, a few at a time; after three questions
//! without an answer they are given back.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use packet::{Duration, Frame, Instant, Mac, NetworkId};

/// Addresses known at most; a new one takes the place of the one that is due first.
const MOST: usize = 4096;
/// How long a confirmed address is used unasked.
const REACHABLE: Duration = Duration::from_secs(10);
/// How long it is used while it is asked for again.
const STALE: Duration = Duration::from_secs(40);
/// RFC 4861 section 10: between two questions, and how many.
const RETRANS: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;
/// Frames that wait for one address.
const WAITING: usize = 16;

/// An address on a link.
pub(super) type Key = (NetworkId, IpAddr);

#[derive(Debug)]
struct Entry {
    mac: Option<Mac>,
    confirmed: Instant,
    asked: Option<Instant>,
    tries: u32,
    waiting: VecDeque<Frame>,
}

/// What is known of an address.
#[derive(Debug)]
pub(super) enum Known {
    /// Its MAC; ask again when `stale`.
    Yes { mac: Mac, frame: Frame, stale: bool },
    /// The frame waits; ask when `ask`.
    NotYet { ask: bool },
}

#[derive(Debug, Default)]
pub(super) struct Neighbours {
    entries: BTreeMap<Key, Entry>,
    /// Entries with frames waiting.
    unanswered: usize,
    /// Frames that gave way to newer ones, or to other addresses.
    pub(super) crowded_out: u64,
}

impl Neighbours {
    /// The way to an address, for a frame that goes there.
    pub(super) fn resolve(&mut self, key: Key, frame: Frame, now: Instant) -> Known {
        if let Some(entry) = self.entries.get_mut(&key) {
            if let Some(mac) = entry.mac.filter(|_| now.since(entry.confirmed) < STALE) {
                let stale = now.since(entry.confirmed) >= REACHABLE && entry.asked.is_none_or(|at| now.since(at) >= RETRANS);
                if stale {
                    entry.asked = Some(now);
                }
                return Known::Yes { mac, frame, stale };
            }
            if entry.mac.take().is_some() {
                (entry.tries, entry.asked) = (0, None);
            }
            let ask = entry.asked.is_none();
            if ask {
                (entry.asked, entry.tries) = (Some(now), 1);
            }
            if entry.waiting.is_empty() {
                self.unanswered += 1;
            }
            // The newest are worth most (RFC 1122 section 2.3.2.2).
            if entry.waiting.len() >= WAITING {
                entry.waiting.pop_front();
                self.crowded_out += 1;
            }
            entry.waiting.push_back(frame);
            return Known::NotYet { ask };
        }
        self.make_room();
        self.unanswered += 1;
        self.entries.insert(key, Entry { mac: None, confirmed: now, asked: Some(now), tries: 1, waiting: VecDeque::from([frame]) });
        Known::NotYet { ask: true }
    }

    fn make_room(&mut self) {
        if self.entries.len() < MOST {
            return;
        }
        if let Some(oldest) = self.entries.iter().min_by_key(|(_, entry)| entry.confirmed).map(|(key, _)| *key) {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key)
            && !entry.waiting.is_empty()
        {
            self.unanswered -= 1;
            self.crowded_out += entry.waiting.len() as u64;
        }
    }

    /// Where an address is, as far as it is known.
    pub(super) fn known(&self, key: Key, now: Instant) -> Option<Mac> {
        self.entries.get(&key).filter(|entry| now.since(entry.confirmed) < STALE)?.mac
    }

    /// Whether an address was asked for and not answered yet: nothing else is believed.
    pub(super) fn wants(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.asked.is_some())
    }

    /// An address is at a MAC; gives the frames that waited for it.
    pub(super) fn learn(&mut self, key: Key, mac: Mac, now: Instant) -> VecDeque<Frame> {
        if !self.entries.contains_key(&key) {
            self.make_room();
        }
        let entry = self.entries.entry(key).or_insert_with(|| Entry { mac: None, confirmed: now, asked: None, tries: 0, waiting: VecDeque::new() });
        (entry.mac, entry.confirmed, entry.asked, entry.tries) = (Some(mac), now, None, 0);
        let waiting = std::mem::take(&mut entry.waiting);
        self.unanswered -= usize::from(!waiting.is_empty());
        waiting
    }

    /// Forgets a link.
    pub(super) fn remove_network(&mut self, network: NetworkId) {
        let of: Vec<Key> = self.entries.keys().filter(|(link, _)| *link == network).copied().collect();
        of.iter().for_each(|key| self.forget(key));
    }

    /// Forgets an address.
    pub(super) fn remove(&mut self, key: &Key) {
        self.forget(key);
    }

    /// When to look again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.unanswered == 0 {
            return None;
        }
        self.entries.values().filter(|entry| !entry.waiting.is_empty()).filter_map(|entry| entry.asked).min().map(|asked| asked + RETRANS)
    }

    /// Addresses to ask for again, and frames whose address does not answer.
    pub(super) fn handle_timeout(&mut self, now: Instant, mut ask: impl FnMut(Key), mut lost: impl FnMut(Key, Frame)) {
        if self.unanswered == 0 {
            return;
        }
        let mut given_up = Vec::new();
        for (key, entry) in self.entries.iter_mut().filter(|(_, entry)| !entry.waiting.is_empty()) {
            if entry.asked.is_some_and(|asked| now.since(asked) < RETRANS) {
                continue;
            }
            if entry.tries >= TRIES {
                given_up.push(*key);
                continue;
            }
            entry.tries += 1;
            entry.asked = Some(now);
            ask(*key);
        }
        for key in given_up {
            if let Some(entry) = self.entries.remove(&key) {
                self.unanswered -= 1;
                entry.waiting.into_iter().for_each(|frame| lost(key, frame));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use packet::{Pool, PoolConfig};

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn asks_waits_and_gives_up() {
        let pool = Pool::new(PoolConfig::default());
        let key = (NetworkId::new(0, 0), "10.0.0.1".parse().unwrap());
        let frame = || pool.copy_of(&[0; 60]).unwrap();
        let mut neighbours = Neighbours::default();
        assert!(matches!(neighbours.resolve(key, frame(), at(0)), Known::NotYet { ask: true }));
        assert!(matches!(neighbours.resolve(key, frame(), at(10)), Known::NotYet { ask: false }));
        let (mut asked, mut lost) = (0, 0);
        for second in 1..6 {
            neighbours.handle_timeout(at(second * 1000), |_| asked += 1, |_, _| lost += 1);
        }
        assert_eq!((asked, lost), (2, 2));
        assert_eq!(neighbours.poll_timeout(), None);
    }

    #[test]
    fn confirmed_is_used_then_asked_for_again() {
        let pool = Pool::new(PoolConfig::default());
        let key = (NetworkId::new(0, 0), "10.0.0.1".parse().unwrap());
        let frame = || pool.copy_of(&[0; 60]).unwrap();
        let mut neighbours = Neighbours::default();
        drop(neighbours.resolve(key, frame(), at(0)));
        assert_eq!(neighbours.learn(key, Mac([2, 0, 0, 0, 0, 1]), at(5)).len(), 1);
        assert!(matches!(neighbours.resolve(key, frame(), at(1000)), Known::Yes { stale: false, .. }));
        assert!(matches!(neighbours.resolve(key, frame(), at(11_000)), Known::Yes { stale: true, .. }));
        assert!(matches!(neighbours.resolve(key, frame(), at(11_010)), Known::Yes { stale: false, .. }));
        assert!(matches!(neighbours.resolve(key, frame(), at(60_000)), Known::NotYet { ask: true }));
    }

    #[test]
    fn a_scan_stays_bounded() {
        let pool = Pool::new(PoolConfig::default());
        let mut neighbours = Neighbours::default();
        for host in 0..10_000_u32 {
            let Some(frame) = pool.copy_of(&[0; 60]) else { break };
            drop(neighbours.resolve((NetworkId::new(0, 0), std::net::Ipv4Addr::from(host).into()), frame, at(u64::from(host))));
        }
        assert!(neighbours.entries.len() <= MOST && neighbours.unanswered == neighbours.entries.len());
    }
}
