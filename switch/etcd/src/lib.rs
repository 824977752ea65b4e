//! The store of a cluster, live: etcd (3.4 or later) through its JSON gateway, HTTP/1.1.
//!
//! [`Client`] blocks its caller, never longer than the configured timeout. Behind it is one thread of its own with a
//! runtime: it carries the calls and follows the watch. What members say is bounded and never trusted to be well-formed.
//! A client certificate proves the host to etcd, not a user: its gateway takes users from passwords only.

mod call;
mod lines;
mod tls;
mod transport;
mod watch;
mod wire;

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use control::store::{LeaseId, Outcome, Seen, Snapshot, Store, StoreConfig, StoreError, Transaction};

use call::Repeat;
use transport::Transport;

/// Called from the client's thread when [`Store::poll`] has something.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// How many answers a watch may be ahead of who polls; then etcd waits.
const MOST_UNSEEN: usize = 256;
/// What the thread may be late with its own timeout.
const LATE: Duration = Duration::from_millis(200);

/// See the module.
pub struct Client {
    transport: Arc<Transport>,
    runtime: Handle,
    waker: Waker,
    watch: Option<Watch>,
    /// Ends the thread when it is dropped.
    _end: oneshot::Sender<()>,
}

struct Watch {
    seen: mpsc::Receiver<Vec<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("transport", &self.transport).finish_non_exhaustive()
    }
}

impl Client {
    /// Reads the files (blocking) that `config` names and starts the thread. Asks the store nothing: it may be away.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if a file cannot be read or used, or there can be no thread.
    pub fn connect(config: &StoreConfig, waker: Waker) -> Result<Self, StoreError> {
        let transport = Arc::new(Transport::new(config)?);
        let failed = |error: std::io::Error| StoreError::Refused(format!("no thread for the store: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let run = move || {
            drop(runtime.block_on(ended));
            // Not waiting for a name that is being looked up.
            runtime.shutdown_background();
        };
        thread::Builder::new().name("etcd".into()).spawn(run).map_err(failed)?;
        Ok(Self { transport, runtime: handle, waker, watch: None, _end: end })
    }

    fn call<T: Send + 'static>(&self, path: &'static str, body: Value, repeat: Repeat, read: fn(&[u8]) -> Option<T>) -> Result<T, StoreError> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let transport = self.transport.clone();
        let task = self.runtime.spawn(async move { drop(answer.send(transport.call(path, body, repeat, read).await)) });
        answered.recv_timeout(self.transport.timeout + LATE).unwrap_or_else(|_| {
            task.abort();
            Err(StoreError::Away("no answer in time".into()))
        })
    }
}

impl Store for Client {
    fn range(&mut self, prefix: &str) -> Result<Snapshot, StoreError> {
        let (snapshot, cluster) = self.call("/v3/kv/range", wire::range(prefix), Repeat::Freely, wire::read_range)?;
        self.transport.cluster.store(cluster, Ordering::Relaxed);
        Ok(snapshot)
    }

    fn transact(&mut self, transaction: &Transaction) -> Result<Outcome, StoreError> {
        transaction.check()?;
        self.call("/v3/kv/txn", wire::transaction(transaction), Repeat::Unsent, wire::read_transaction)
    }

    fn grant(&mut self, time_to_live: Duration) -> Result<LeaseId, StoreError> {
        // One granted twice ends by itself.
        self.call("/v3/lease/grant", wire::grant(time_to_live), Repeat::Freely, wire::read_grant)
    }

    fn keep_alive(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let lives = self.call("/v3/lease/keepalive", wire::lease(lease), Repeat::Freely, wire::read_keep_alive)?;
        if lives { Ok(()) } else { Err(StoreError::LeaseEnded) }
    }

    fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        match self.call("/v3/lease/revoke", wire::lease(lease), Repeat::Freely, wire::read_revoke) {
            Err(StoreError::LeaseEnded) => Ok(()),
            answer => answer,
        }
    }

    fn watch(&mut self, prefix: &str, revision: u64) -> Result<(), StoreError> {
        let (tell, seen) = mpsc::channel(MOST_UNSEEN);
        let cluster = self.transport.cluster.load(Ordering::Relaxed);
        let follower = watch::Follower::new(self.transport.clone(), prefix, revision, cluster, tell, self.waker.clone());
        self.watch = Some(Watch { seen, task: self.runtime.spawn(follower.run()) });
        Ok(())
    }

    fn poll(&mut self) -> Vec<Seen> {
        let Some(watch) = &mut self.watch else { return Vec::new() };
        std::iter::from_fn(|| watch.seen.try_recv().ok()).flatten().collect()
    }
}
