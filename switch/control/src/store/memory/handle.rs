//! A node's access to the store, over its link.

use std::time::Duration;

use super::{Link, MemoryStore, state::State};
use crate::store::{LeaseId, Outcome, Seen, Snapshot, Store, StoreError, Transaction};

/// See [`MemoryStore::handle`].
#[derive(Debug)]
pub struct MemoryHandle {
    store: MemoryStore,
    number: usize,
}

impl MemoryHandle {
    pub(super) const fn new(store: MemoryStore, number: usize) -> Self {
        Self { store, number }
    }

    /// Which client of its store this is, counted from 0.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.number
    }

    fn call<T>(&self, body: impl FnOnce(&mut State) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = self.store.state();
        match state.link(self.number) {
            Link::Whole => body(&mut state),
            Link::Cut => Err(StoreError::Away("the link is cut".into())),
            Link::Deaf => {
                drop(body(&mut state));
                Err(StoreError::Away("no answer".into()))
            }
        }
    }
}

impl Store for MemoryHandle {
    fn range(&mut self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.call(|state| Ok(state.range(prefix)))
    }

    fn transact(&mut self, transaction: &Transaction) -> Result<Outcome, StoreError> {
        self.call(|state| state.transact(transaction))
    }

    fn grant(&mut self, time_to_live: Duration) -> Result<LeaseId, StoreError> {
        self.call(|state| Ok(state.grant(time_to_live)))
    }

    fn keep_alive(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        self.call(|state| state.keep_alive(lease))
    }

    fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        self.call(|state| {
            state.revoke(lease);
            Ok(())
        })
    }

    fn watch(&mut self, prefix: &str, revision: u64) -> Result<(), StoreError> {
        self.store.state().watch(self.number, prefix, revision);
        Ok(())
    }

    fn poll(&mut self) -> Vec<Seen> {
        self.store.state().poll(self.number)
    }
}
