//! etcd's behaviour (v3.4) in memory and in virtual time, for worlds that are simulated.
//!
//! One [`MemoryStore`] is the cluster's; each node has a [`MemoryHandle`], whose link the world cuts and mends. Everything
//! happens in the order of the calls: the same calls give the same answers, leases and revisions.

mod handle;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use packet::Instant;

pub use handle::MemoryHandle;
use state::State;

/// What a node's link to the store does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Carries everything.
    #[default]
    Whole,
    /// Carries nothing: calls are not carried out, watches hear nothing.
    Cut,
    /// Carries questions and no answers: calls are carried out, and nobody is told.
    Deaf,
}

/// The store. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

/// What [`MemoryStore::backup`] kept.
#[derive(Clone, Debug)]
pub struct Backup(State);

impl MemoryStore {
    /// An empty store at revision 1, as etcd's.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client more, on a whole link.
    #[must_use]
    pub fn handle(&self) -> MemoryHandle {
        MemoryHandle::new(self.clone(), self.state().join())
    }

    /// What the link of the client with this [`MemoryHandle::number`] does from now on.
    pub fn set_link(&self, client: usize, link: Link) {
        self.state().set_link(client, link);
    }

    /// It is `now`: leases whose time is over end, in the order in which they do. Time never goes back.
    pub fn advance(&self, now: Instant) {
        self.state().advance(now);
    }

    /// When the next lease ends, unless it is renewed.
    #[must_use]
    pub fn next_end(&self) -> Option<Instant> {
        self.state().next_end()
    }

    /// The revision of the last change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.state().revision
    }

    /// Forgets what was before `revision`: who watches from before it has lost something.
    pub fn compact(&self, revision: u64) {
        self.state().compact(revision);
    }

    /// The store as it is, to be put back.
    #[must_use]
    pub fn backup(&self) -> Backup {
        Backup(self.state().clone())
    }

    /// Keys, leases and revision are those of `backup` again (leases with all their time): every watch has lost something.
    pub fn restore(&self, backup: &Backup) {
        self.state().restore(&backup.0);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
