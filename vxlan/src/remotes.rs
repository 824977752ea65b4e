//! The remote FDB of one VNI: MAC -> remote VTEP.
//!
//! What makes it more than a map:
//! 1. What operators and control set neither ages nor moves, and is in a table of its own, which a MAC flood cannot touch.
//! 2. Learned entries are bounded. A full bucket gives up the idlest entry of the remote that holds most of it, so that a flood
//!    from one remote evicts mostly the flooder.
//! 3. Both hashes are keyed, since addresses are chosen by attackers.
//! 4. An entry is dead at once at the ageing time; a sweep in short steps clears it away.
//! 5. It starts with nothing and doubles, so that thousands of idle VNIs cost little.

mod learned;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::SocketAddr};

use packet::{Duration, Instant, Keyed, UnicastMac};

use crate::refused::Refused;
pub(crate) use learned::Outcome;
use learned::Learned;

/// Entries set by operators and control that one VNI can have.
pub(crate) const FIXED_MOST: usize = 65_536;

/// Who said where a station is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemoteKind {
    /// An operator: never ages, never moves.
    Static,
    /// The control plane: never ages, moves when that says so.
    Pushed,
    /// Traffic: ages and moves.
    Learned,
}

/// An entry as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteView {
    /// The station.
    pub mac: UnicastMac,
    /// The remote VTEP it is behind.
    pub to: SocketAddr,
    /// Who said so.
    pub kind: RemoteKind,
    /// Since when it was not heard of; `None` unless learned.
    pub idle: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Fixed {
    to: SocketAddr,
    kind: RemoteKind,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Remotes {
    fixed: HashMap<u64, Fixed, Keyed>,
    learned: Learned,
}

impl Remotes {
    /// Learns about `capacity` entries.
    pub(crate) fn new(capacity: usize, key: Keyed) -> Self {
        Self { fixed: HashMap::with_hasher(key), learned: Learned::new(capacity, key) }
    }

    /// The remote behind which a station is.
    #[inline]
    pub(crate) fn lookup(&self, mac: UnicastMac, ageing: Duration, now: Instant) -> Option<SocketAddr> {
        let key = mac.get().as_u64();
        match self.fixed(key) {
            Some(fixed) => Some(fixed.to),
            None => self.learned.lookup(key, ageing, now),
        }
    }

    /// Notes that a station was seen as a source behind `to`.
    #[inline]
    pub(crate) fn learn(&mut self, mac: UnicastMac, to: SocketAddr, ageing: Duration, now: Instant) -> Outcome {
        let key = mac.get().as_u64();
        if self.fixed(key).is_some() { Outcome::Known } else { self.learned.learn(key, to, ageing, now) }
    }

    /// Sets an entry of operator or control. What control pushes does not override an operator.
    pub(crate) fn set(&mut self, mac: UnicastMac, to: SocketAddr, kind: RemoteKind) -> Result<(), Refused> {
        let key = mac.get().as_u64();
        let full = self.fixed.len() >= FIXED_MOST;
        match self.fixed.get_mut(&key) {
            Some(fixed) if fixed.kind == RemoteKind::Static && kind == RemoteKind::Pushed => return Ok(()),
            Some(fixed) => *fixed = Fixed { to, kind },
            None if full => return Err(Refused::Full),
            None => {
                self.fixed.insert(key, Fixed { to, kind });
            }
        }
        self.learned.remove(key);
        Ok(())
    }

    /// Removes a station, whoever told of it. False when nobody did.
    pub(crate) fn remove(&mut self, mac: UnicastMac) -> bool {
        let key = mac.get().as_u64();
        self.fixed.remove(&key).is_some() | self.learned.remove(key)
    }

    /// Removes all entries of a kind.
    pub(crate) fn flush(&mut self, kind: RemoteKind) {
        match kind {
            RemoteKind::Learned => self.learned.clear(),
            RemoteKind::Static | RemoteKind::Pushed => self.fixed.retain(|_, fixed| fixed.kind != kind),
        }
    }

    /// Removes what was learned behind `to`.
    pub(crate) fn flush_behind(&mut self, to: SocketAddr) {
        self.learned.retain(|behind, _| behind != to);
    }

    /// Sweeps some buckets from bucket `cursor` on; gives the bucket to go on with, `None` at the end.
    pub(crate) fn sweep(&mut self, cursor: usize, ageing: Duration, now: Instant) -> Option<usize> {
        self.learned.sweep(cursor, ageing, now)
    }

    /// Learned entries, dead ones that were not swept among them.
    pub(crate) fn learned_len(&self) -> usize {
        self.learned.len()
    }

    /// All live entries, by address.
    pub(crate) fn view(&self, ageing: Duration, now: Instant) -> Vec<RemoteView> {
        let station = |key: u64| {
            let [_, _, mac @ ..] = key.to_be_bytes();
            UnicastMac::new(packet::Mac(mac))
        };
        let fixed = self.fixed.iter().filter_map(|(key, fixed)| {
            Some(RemoteView { mac: station(*key)?, to: fixed.to, kind: fixed.kind, idle: None })
        });
        let learned = self.learned.iter().filter(|(_, _, seen)| now.since(*seen) <= ageing).filter_map(|(key, to, seen)| {
            Some(RemoteView { mac: station(key)?, to, kind: RemoteKind::Learned, idle: Some(now.since(seen)) })
        });
        let mut entries: Vec<_> = fixed.chain(learned).collect();
        entries.sort_unstable_by_key(|entry| entry.mac);
        entries
    }

    #[inline]
    fn fixed(&self, key: u64) -> Option<&Fixed> {
        // Without control there are none, and nothing to hash.
        if self.fixed.is_empty() { None } else { self.fixed.get(&key) }
    }
}
