//! The thread that keeps this node in its cluster: renews its lease, hears what the others do, and joins again.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;

use weft_control::{
    cluster::ClusterError,
    store::{LeaseId, Seen, Store, StoreError},
};

use super::{
    super::runtime::Runtime,
    Cluster, ClusterConfig, Signals, identity,
};

/// Pause between two tries while the store is away.
const RETRY: Duration = Duration::from_millis(500);

/// Joins, and keeps this node in. A store that is away is no error: sharing begins when it comes.
pub(in crate::control) fn start(runtime: &Runtime, config: ClusterConfig) -> Result<(), String> {
    let id = identity(&runtime.lock().dirs).map_err(|error| error.to_string())?;
    let (wake, woken) = crossbeam_channel::bounded(1);
    let connect = |waker: etcd::Waker| etcd::Client::connect(&config.store, waker).map(Box::new).map_err(|error| error.to_string());
    // What is full will be looked at anyway.
    let waker = wake.clone();
    let (own, store) = (connect(Arc::new(|| {}))?, connect(Arc::new(move || _ = waker.try_send(())))?);
    let signals = Arc::new(Signals::new(wake));
    let mut inner = runtime.lock();
    let cluster = Cluster::new(config.clone(), own, (id, inner.vxlan_port), signals.clone());
    let (keys, renew) = (cluster.config.keys.all(), config.lease / 3);
    inner.cluster = Some(cluster);
    drop(inner);
    let mut keeper = Keeper { runtime: runtime.clone(), keys, renew, renew_at: Instant::now(), away: false, store, woken };
    let synced = match keeper.sync() {
        Err(error @ ClusterError::NameTaken(_)) => return Err(format!("{error}\n  hint: give this node another name with --node; a node that died is forgotten after its lease ({} s)", config.lease.as_secs())),
        other => keeper.note(other),
    };
    let work = move || {
        let mut synced = synced;
        while !signals.stop.load(Ordering::Relaxed) {
            let in_step = synced && !signals.again.swap(false, Ordering::Relaxed) && keeper.turn();
            // A store that says that something was missed answers: only one that does not is waited for.
            synced = in_step || {
                let result = keeper.sync();
                keeper.note(result)
            };
            keeper.wait(synced);
        }
    };
    thread::Builder::new().name("cluster".into()).spawn(work).map(drop).map_err(|error| error.to_string())
}

struct Keeper {
    runtime: Runtime,
    store: Box<dyn Store + Send>,
    /// What is watched.
    keys: String,
    renew: Duration,
    renew_at: Instant,
    /// The store does not answer.
    away: bool,
    woken: Receiver<()>,
}

impl Keeper {
    /// Until there is something to do.
    fn wait(&self, synced: bool) {
        let until_renewal = self.renew_at.saturating_duration_since(Instant::now());
        let pause = if synced && !self.away { until_renewal } else { RETRY };
        self.woken.recv_timeout(pause).ok();
    }

    /// Compares everything, and watches from there.
    fn sync(&mut self) -> Result<(), ClusterError> {
        // Whether it answers at all is found out without the lock.
        self.store.range(&format!("{}weft/node/", self.keys))?;
        let revision = self.runtime.lock().sync(&mut *self.store)?;
        self.renew_at = Instant::now() + self.renew;
        Ok(self.store.watch(&self.keys, revision)?)
    }

    /// False when it has to be done again.
    fn note(&mut self, result: Result<(), ClusterError>) -> bool {
        self.away = false;
        let Err(error) = result else { return true };
        let why = match error {
            ClusterError::Store(StoreError::Away(why)) => why,
            other => other.to_string(),
        };
        self.runtime.lock().is_gone(&why);
        false
    }

    /// False when everything has to be compared again.
    fn turn(&mut self) -> bool {
        let seen = self.store.poll();
        if !seen.is_empty() && !self.heard(seen) {
            return false;
        }
        if !self.away && Instant::now() < self.renew_at {
            return true;
        }
        let lease: Option<LeaseId> = self.runtime.lock().cluster.as_ref().and_then(|cluster| cluster.member.lease());
        let Some(lease) = lease else { return false };
        match self.store.keep_alive(lease) {
            Ok(()) => {
                self.renew_at = Instant::now() + self.renew;
                let mut inner = self.runtime.lock();
                inner.retry_mesh();
                if std::mem::take(&mut self.away) {
                    inner.is_back(false);
                    inner.adopt_replica();
                }
                inner.stop_sparing();
                inner.rotate_secrets();
                true
            }
            Err(StoreError::Away(why)) => {
                self.away = true;
                self.runtime.lock().is_gone(&why);
                true
            }
            Err(_) => {
                if let Some(cluster) = &mut self.runtime.lock().cluster {
                    cluster.member.ended();
                }
                false
            }
        }
    }

    /// False when something was missed.
    fn heard(&mut self, seen: Vec<Seen>) -> bool {
        let mut inner = self.runtime.lock();
        let mut news = false;
        for seen in seen {
            match seen {
                Seen::Lost => return false,
                Seen::Away(why) => {
                    self.away = true;
                    inner.is_gone(&why);
                }
                // The lease tells whether all is as it was.
                Seen::Back => self.away = true,
                change => news |= inner.cluster.as_mut().is_some_and(|cluster| cluster.replica.see(change)),
            }
        }
        if news {
            inner.adopt_replica();
        }
        true
    }
}
