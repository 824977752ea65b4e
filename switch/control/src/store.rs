//! What nodes share: keys and values in one order, taken by compare and swap, hung on leases, and watched.
//!
//! The contract is etcd's (v3), narrowed to what a cluster of ours needs, so that a simulated world can keep it too.
//! Everything is ordered by one *revision*, which grows with each change. A call either gives the store's answer or
//! says that the store is [`StoreError::Away`]: then nothing is known about whether it was carried out.

mod config;
pub mod memory;

use std::{collections::BTreeSet, time::Duration};

use thiserror::Error;

pub use config::{Member, StoreConfig, StoreOptions, StoreUrl};

/// A lease: what hangs on it goes when its owner has not renewed it for its time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// A key and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A path, as `docker/network/v1.0/network/ID`.
    pub key: String,
    /// Bytes; JSON of ours.
    pub value: Vec<u8>,
    /// Of the change that made it what it is.
    pub revision: u64,
    /// What it hangs on; nothing if it stays until somebody deletes it.
    pub lease: Option<LeaseId>,
}

/// What must hold for a transaction to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// No such key.
    Absent(String),
    /// There is such a key.
    Present(String),
    /// The key was last changed by this revision.
    Unchanged(String, u64),
}

impl Compare {
    /// Whose state is compared.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::Present(key) | Self::Unchanged(key, _) => key,
        }
    }
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put {
        /// Which.
        key: String,
        /// To what.
        value: Vec<u8>,
        /// Hung on what.
        lease: Option<LeaseId>,
    },
    /// Removes a key, if it is there.
    Delete {
        /// Which.
        key: String,
    },
}

impl Change {
    /// What is changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// All of its changes under one revision, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// All must hold.
    pub when: Vec<Compare>,
    /// What is done then, in order; each key at most once.
    pub then: Vec<Change>,
}

impl Transaction {
    /// Most compares, and most changes, of one transaction (etcd: `--max-txn-ops`).
    pub const MOST: usize = 128;
    /// Most bytes of its keys and values together: less than etcd's `--max-request-bytes` of 1.5 MiB, which counts more.
    pub const LARGEST: usize = 1 << 20;

    /// Whether every store would take it.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if there is too much of it, a key is empty, or a key is changed twice.
    pub fn check(&self) -> Result<(), StoreError> {
        let mut changed = BTreeSet::new();
        let bytes = |change: &Change| change.key().len() + if let Change::Put { value, .. } = change { value.len() } else { 0 };
        let size = self.when.iter().map(|compare| compare.key().len()).sum::<usize>() + self.then.iter().map(bytes).sum::<usize>();
        let why = if self.when.len() > Self::MOST || self.then.len() > Self::MOST {
            format!("a transaction of {} compares and {} changes, at most {} of each", self.when.len(), self.then.len(), Self::MOST)
        } else if size > Self::LARGEST {
            format!("a transaction of {size} bytes, at most {}", Self::LARGEST)
        } else if self.when.iter().map(Compare::key).chain(self.then.iter().map(Change::key)).any(str::is_empty) {
            "a transaction on an empty key".into()
        } else if let Some(twice) = self.then.iter().map(Change::key).find(|key| !changed.insert(*key)) {
            format!("a transaction that changes {twice:?} twice")
        } else {
            return Ok(());
        };
        Err(StoreError::Refused(why))
    }
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Carried out, as this revision (the store's last, if nothing had to be changed).
    Done(u64),
    /// Something did not hold: what was at the compared keys then, in their order (absent ones left out).
    Refused(Vec<Entry>),
}

/// Everything under a prefix at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Of the store when it was read. Watch from the next one.
    pub revision: u64,
    /// Sorted by key.
    pub entries: Vec<Entry>,
}

/// What a watch tells, in order of revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A key was set.
    Put(Entry),
    /// A key was removed, or its lease ended.
    Deleted {
        /// Which.
        key: String,
        /// By which change.
        revision: u64,
    },
    /// What was watched for is no longer kept (compaction, a restored store): read everything again, then watch again.
    Lost,
    /// The store cannot be reached. Told once; [`Seen::Back`] or [`Seen::Lost`] follows.
    Away(String),
    /// It can again, and nothing was missed.
    Back,
}

impl Seen {
    /// The key it is about, if it is about one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Put(entry) => Some(&entry.key),
            Self::Deleted { key, .. } => Some(key),
            Self::Lost | Self::Away(_) | Self::Back => None,
        }
    }
}

/// Why a store did not answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// Nobody answered, in time or at all. What was asked may have been carried out.
    #[error("the store cannot be reached: {0}")]
    Away(String),
    /// It answered, and refuses: wrong user, a certificate, too large, no space.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// The lease has ended: everything that hung on it is gone.
    #[error("the lease has ended")]
    LeaseEnded,
}

/// See the module.
pub trait Store {
    /// Everything under `prefix`.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn range(&mut self, prefix: &str) -> Result<Snapshot, StoreError>;

    /// All or nothing.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::LeaseEnded`] if a change names a lease that is not there.
    fn transact(&mut self, transaction: &Transaction) -> Result<Outcome, StoreError>;

    /// A new lease with this time to live, in whole seconds, rounded up; at least the store's own shortest (etcd: 2 s).
    ///
    /// # Errors
    /// See [`StoreError`].
    fn grant(&mut self, time_to_live: Duration) -> Result<LeaseId, StoreError>;

    /// Renews a lease: another full time to live from now.
    ///
    /// # Errors
    /// [`StoreError::LeaseEnded`] if it is gone.
    fn keep_alive(&mut self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends a lease, and everything that hangs on it.
    ///
    /// # Errors
    /// See [`StoreError`]. A lease that is gone is no error.
    fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError>;

    /// From now on [`Store::poll`] tells what happens to keys under `prefix` in revisions after `revision`. One watch a store:
    /// another call replaces it, and what it had seen. After [`Seen::Lost`] there is none. Never waits: that the store cannot
    /// be reached is told by [`Seen::Away`].
    ///
    /// # Errors
    /// See [`StoreError`].
    fn watch(&mut self, prefix: &str, revision: u64) -> Result<(), StoreError>;

    /// What was seen since the last call, in order; empty if nothing. Never waits.
    fn poll(&mut self) -> Vec<Seen>;
}
