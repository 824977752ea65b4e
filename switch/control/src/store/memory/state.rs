//! Keys, leases, history, and who watches.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use packet::Instant;

use super::Link;
use crate::store::{Change, Compare, Entry, LeaseId, Outcome, Seen, Snapshot, StoreError, Transaction};

/// etcd's shortest lease: one and a half election timeouts of a second, in whole seconds.
const SHORTEST_LEASE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) revision: u64,
    /// The oldest revision of which everything is kept.
    kept_from: u64,
    now: Instant,
    keys: BTreeMap<String, Entry>,
    /// What happened since `kept_from`, by revision.
    history: VecDeque<(u64, Seen)>,
    leases: BTreeMap<LeaseId, Lease>,
    leases_granted: u64,
    clients: Vec<Client>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    time_to_live: Duration,
    ends: Instant,
}

#[derive(Clone, Debug, Default)]
struct Client {
    link: Link,
    watch: Option<Watch>,
    inbox: Vec<Seen>,
}

#[derive(Clone, Debug)]
struct Watch {
    prefix: String,
    /// Everything up to this revision was told.
    told: u64,
    /// [`Seen::Away`] was told.
    away: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            revision: 1,
            kept_from: 1,
            now: Instant::ZERO,
            keys: BTreeMap::new(),
            history: VecDeque::new(),
            leases: BTreeMap::new(),
            leases_granted: 0,
            clients: Vec::new(),
        }
    }
}

impl State {
    pub(super) fn join(&mut self) -> usize {
        self.clients.push(Client::default());
        self.clients.len() - 1
    }

    pub(super) fn link(&self, client: usize) -> Link {
        self.clients.get(client).map_or(Link::Cut, |client| client.link)
    }

    pub(super) fn set_link(&mut self, client: usize, link: Link) {
        if let Some(client) = self.clients.get_mut(client) {
            client.link = link;
        }
        self.tell();
    }

    pub(super) fn range(&self, prefix: &str) -> Snapshot {
        let entries = self.keys.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry.clone()).collect();
        Snapshot { revision: self.revision, entries }
    }

    pub(super) fn transact(&mut self, transaction: &Transaction) -> Result<Outcome, StoreError> {
        transaction.check()?;
        if !transaction.when.iter().all(|compare| self.holds(compare)) {
            return Ok(Outcome::Refused(transaction.when.iter().filter_map(|compare| self.keys.get(compare.key()).cloned()).collect()));
        }
        // Only the leases of a transaction that would be carried out matter.
        if transaction.then.iter().any(|change| matches!(change, Change::Put { lease: Some(lease), .. } if !self.leases.contains_key(lease))) {
            return Err(StoreError::LeaseEnded);
        }
        self.change(&transaction.then);
        Ok(Outcome::Done(self.revision))
    }

    fn holds(&self, compare: &Compare) -> bool {
        let entry = self.keys.get(compare.key());
        match compare {
            Compare::Absent(_) => entry.is_none(),
            Compare::Present(_) => entry.is_some(),
            Compare::Unchanged(_, revision) => entry.is_some_and(|entry| entry.revision == *revision),
        }
    }

    /// Does all of it under the next revision; a change that changes nothing takes none.
    fn change(&mut self, changes: &[Change]) {
        let revision = self.revision + 1;
        for change in changes {
            let seen = match change {
                Change::Put { key, value, lease } => {
                    let entry = Entry { key: key.clone(), value: value.clone(), revision, lease: *lease };
                    self.keys.insert(key.clone(), entry.clone());
                    Seen::Put(entry)
                }
                Change::Delete { key } if self.keys.remove(key).is_some() => Seen::Deleted { key: key.clone(), revision },
                Change::Delete { .. } => continue,
            };
            self.revision = revision;
            self.history.push_back((revision, seen));
        }
        self.tell();
    }

    pub(super) fn grant(&mut self, time_to_live: Duration) -> LeaseId {
        let seconds = time_to_live.as_secs() + u64::from(time_to_live.subsec_nanos() > 0);
        let time_to_live = Duration::from_secs(seconds).max(SHORTEST_LEASE);
        self.leases_granted += 1;
        let id = LeaseId(self.leases_granted);
        self.leases.insert(id, Lease { time_to_live, ends: self.now + time_to_live });
        id
    }

    pub(super) fn keep_alive(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let now = self.now;
        let lease = self.leases.get_mut(&lease).ok_or(StoreError::LeaseEnded)?;
        lease.ends = now + lease.time_to_live;
        Ok(())
    }

    pub(super) fn revoke(&mut self, lease: LeaseId) {
        if self.leases.remove(&lease).is_some() {
            let hung = self.keys.values().filter(|entry| entry.lease == Some(lease)).map(|entry| Change::Delete { key: entry.key.clone() });
            self.change(&hung.collect::<Vec<_>>());
        }
    }

    pub(super) fn next_end(&self) -> Option<Instant> {
        self.leases.values().map(|lease| lease.ends).min()
    }

    pub(super) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        while let Some((_, id)) = self.leases.iter().map(|(id, lease)| (lease.ends, *id)).min().filter(|(ends, _)| *ends <= self.now) {
            self.revoke(id);
        }
    }

    pub(super) fn compact(&mut self, revision: u64) {
        self.kept_from = self.kept_from.max(revision.min(self.revision));
        self.history.retain(|(revision, _)| *revision >= self.kept_from);
    }

    pub(super) fn restore(&mut self, from: &Self) {
        let clients = std::mem::take(&mut self.clients);
        let (now, leases_granted) = (self.now, self.leases_granted);
        *self = Self { clients, now, leases_granted, ..from.clone() };
        for lease in self.leases.values_mut() {
            lease.ends = now + lease.time_to_live;
        }
        for client in &mut self.clients {
            if let Some(watch) = &mut client.watch {
                // Never one of the restored store's.
                watch.told = u64::MAX;
            }
        }
        self.tell();
    }

    pub(super) fn watch(&mut self, client: usize, prefix: &str, revision: u64) {
        if let Some(client) = self.clients.get_mut(client) {
            client.inbox.clear();
            client.watch = Some(Watch { prefix: prefix.into(), told: revision, away: false });
        }
        self.tell();
    }

    pub(super) fn poll(&mut self, client: usize) -> Vec<Seen> {
        self.clients.get_mut(client).map(|client| std::mem::take(&mut client.inbox)).unwrap_or_default()
    }

    /// Brings every watch up to date, or finds that it cannot be.
    fn tell(&mut self) {
        for client in &mut self.clients {
            let Some(watch) = &mut client.watch else { continue };
            if client.link != Link::Whole {
                if !std::mem::replace(&mut watch.away, true) {
                    client.inbox.push(Seen::Away("the link is cut".into()));
                }
                continue;
            }
            // A revision that has never been is of another store.
            if watch.told > self.revision || watch.told + 1 < self.kept_from {
                client.inbox.push(Seen::Lost);
                client.watch = None;
                continue;
            }
            if std::mem::take(&mut watch.away) {
                client.inbox.push(Seen::Back);
            }
            let from = self.history.partition_point(|(revision, _)| *revision <= watch.told);
            client.inbox.extend(self.history.range(from..).filter(|(_, seen)| seen.key().is_some_and(|key| key.starts_with(&watch.prefix))).map(|(_, seen)| seen.clone()));
            watch.told = self.revision;
        }
    }
}
