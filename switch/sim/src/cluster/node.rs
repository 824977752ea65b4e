//! A node's part in the cluster. It does what the daemon's does (`switch/src/control/cluster`), without thread and lock.

use std::{net::IpAddr, time::Duration};

use control::{
    EndpointKind, Model,
    api::{EndpointCreate, NetworkCreate, SandboxCreate},
    cluster::{ClusterError, Elsewhere, Keys, Lost, Member, NodeRecord, PREFIX, Replica, reconcile},
    overlay::{Overlay, TunnelChange, changes},
    store::{Seen, Store, StoreError, memory::MemoryHandle},
};
use packet::{Instant, Mac, Pool, UnicastMac};

use super::plane::DataPlane;

/// How often a change is tried that others keep coming before.
const TRIES: usize = 16;
/// Pause between two tries while the store is away.
const RETRY: Duration = Duration::from_millis(500);

/// What stays of a node when it ends: its state directory.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) number: usize,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) address: IpAddr,
}

/// See the module.
pub(super) struct Node {
    pub(super) identity: Identity,
    pub(super) store: MemoryHandle,
    member: Member,
    replica: Replica,
    pub(super) model: Model,
    pub(super) plane: DataPlane,
    /// Keeps up with the others; else it only writes.
    pub(super) follows: bool,
    /// Everything was compared, and is watched.
    synced: bool,
    /// The store does not answer.
    pub(super) away: bool,
    lease: Duration,
    renew_at: Instant,
    ids: u64,
    /// How often it came to another model by what others did.
    pub(super) adopted: u64,
    /// Changes to its tunnels since somebody looked.
    pub(super) changes: Vec<TunnelChange>,
    /// What others had a better right to.
    pub(super) lost: Vec<Lost>,
}

impl Node {
    pub(super) fn new(identity: Identity, store: MemoryHandle, (lease, follows): (Duration, bool), (pool, seed): (&Pool, u64), now: Instant) -> Self {
        let keys = match Keys::new(PREFIX) {
            Ok(keys) => keys,
            Err(error) => panic!("{error}"),
        };
        let record = NodeRecord {
            id: identity.id.clone(),
            name: identity.name.clone(),
            ip: identity.address,
            api_port: None,
            vxlan_port: vxlan::PORT,
            since_ns: now.as_nanos(),
            station: None,
        };
        Self {
            // Ids of two nodes, or of two lives of one, never meet.
            ids: seed >> 16 << 16,
            identity,
            store,
            member: Member::new(keys.clone(), record, lease),
            replica: Replica::new(keys),
            model: Model::default(),
            plane: DataPlane::new(pool, vxlan::PORT, seed),
            follows,
            synced: false,
            away: false,
            lease,
            renew_at: now,
            adopted: 0,
            changes: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// It has compared everything, and the store answered last time.
    pub(super) fn is_in_touch(&self) -> bool {
        self.synced && !self.away
    }

    /// One round of the keeper; gives the pause until the next, where `pause` is that between two looks at the watch.
    ///
    /// # Errors
    /// Another node has the name.
    pub(super) fn turn(&mut self, pause: Duration, now: Instant) -> Result<Duration, ClusterError> {
        let result = if self.synced { self.keep(now) } else { self.sync(now).map(|()| true) };
        self.synced = match result {
            Ok(synced) => synced,
            Err(ClusterError::Store(_)) => {
                self.away = true;
                false
            }
            Err(error) => return Err(error),
        };
        Ok(match (self.synced, self.follows) {
            (false, _) => RETRY,
            (true, true) => pause,
            (true, false) => self.lease / 3,
        })
    }

    /// False when everything has to be compared again.
    fn keep(&mut self, now: Instant) -> Result<bool, ClusterError> {
        let mut news = false;
        for seen in self.store.poll() {
            match seen {
                Seen::Lost => return Ok(false),
                // When it is back, the lease tells whether all is as it was.
                Seen::Away(_) | Seen::Back => self.away = true,
                change => news |= self.replica.see(change),
            }
        }
        if news {
            self.adopt_replica(now);
        }
        if !self.away && now < self.renew_at {
            return Ok(true);
        }
        let Some(lease) = self.member.lease() else { return Ok(false) };
        match self.store.keep_alive(lease) {
            Ok(()) => {
                self.away = false;
                self.renew_at = now + self.lease / 3;
                Ok(true)
            }
            Err(StoreError::Away(_)) => {
                self.away = true;
                Ok(true)
            }
            Err(_) => {
                self.member.ended();
                Ok(false)
            }
        }
    }

    /// Joins unless it is in, compares everything both ways, and watches from there.
    fn sync(&mut self, now: Instant) -> Result<(), ClusterError> {
        let all = self.member.keys.all();
        let old = self.member.join(&mut self.store)?;
        // Who only writes has to know nothing but the networks.
        let snapshot = self.store.range(&if self.follows { all.clone() } else { format!("{all}network/") })?;
        let revision = snapshot.revision;
        self.replica.reset(snapshot);
        let lost = self.member.register(&mut self.store, &mut self.replica, &self.model)?;
        if let Some(old) = old {
            self.store.revoke(old)?;
        }
        self.away = false;
        for lost in lost {
            self.lose(&lost, now);
            self.lost.push(lost);
        }
        self.adopt_replica(now);
        self.renew_at = now + self.lease / 3;
        if self.follows {
            self.store.watch(&all, revision)?;
        }
        Ok(())
    }

    fn lose(&mut self, lost: &Lost, now: Instant) {
        let Some(sandbox) = self.model.sandboxes.get(&lost.sandbox) else { return };
        let gone: Vec<_> = sandbox.endpoints.iter().filter(|endpoint| endpoint.network == lost.network).map(|endpoint| endpoint.id.clone()).collect();
        for endpoint in gone {
            self.plane.unplug(&endpoint, now);
            self.model.remove_endpoint(&lost.sandbox, &endpoint);
        }
    }

    /// Makes the model, and then the tunnels, match the replica.
    fn adopt_replica(&mut self, now: Instant) {
        let mut model = self.model.clone();
        reconcile(&mut model, &self.replica, &self.identity.name, vxlan::PORT, &Elsewhere::default());
        if model != self.model {
            self.adopted += 1;
            self.adopt(model, now);
        }
    }

    fn adopt(&mut self, model: Model, now: Instant) {
        let old = std::mem::replace(&mut self.model, model);
        if !self.follows {
            return;
        }
        for network in self.model.networks.values().filter(|network| network.is_global()) {
            let Some(overlay) = &network.overlay else { continue };
            let nobody;
            let before = match old.networks.get(&network.id).and_then(|old| old.overlay.as_ref()) {
                Some(before) if self.plane.is_open(&network.id) => before,
                _ => {
                    self.plane.open(network, overlay, now);
                    nobody = Overlay { peers: Vec::new(), stations: Default::default(), neighbours: Default::default(), ..overlay.clone() };
                    &nobody
                }
            };
            for change in changes(before, overlay, vxlan::PORT) {
                self.plane.change(&network.id, change, now);
                self.changes.push(change);
            }
        }
        for network in old.networks.keys().filter(|id| !self.model.networks.contains_key(*id)) {
            self.plane.close(network, now);
        }
    }

    /// The state of a node that ended: its networks and sandboxes are there again before the store is asked.
    pub(super) fn restore(&mut self, model: Model, now: Instant) {
        self.adopt(model, now);
        for endpoint in self.model.sandboxes.values().flat_map(|sandbox| &sandbox.endpoints) {
            self.plane.plug(&endpoint.id, &endpoint.network, station(&endpoint.mac), now);
        }
    }

    fn new_id(&mut self) -> String {
        self.ids += 1;
        format!("{:064x}", self.ids)
    }

    fn read_again(&mut self, now: Instant) -> Result<(), String> {
        let snapshot = self.store.range(&self.member.keys.all()).map_err(|error| error.to_string())?;
        self.replica.reset(snapshot);
        self.adopt_replica(now);
        Ok(())
    }

    /// What is known not to answer is not asked; what got no answer is compared when it is back.
    fn share<T>(&mut self, work: impl FnOnce(&mut Member, &mut MemoryHandle, &mut Replica) -> Result<T, ClusterError>) -> Result<T, String> {
        if self.away {
            return Err("the cluster's store cannot be used".into());
        }
        work(&mut self.member, &mut self.store, &mut self.replica).map_err(|error| {
            if let ClusterError::Store(_) = error {
                self.synced = false;
                self.away = true;
            }
            error.to_string()
        })
    }

    pub(super) fn create_network(&mut self, request: &NetworkCreate, now: Instant) -> Result<String, String> {
        let id = self.new_id();
        for _ in 0..TRIES {
            let mut model = self.model.clone();
            model.create_network(request, id.clone()).map_err(|error| error.message)?;
            let network = model.networks[&id].clone();
            if self.share(|member, store, replica| member.create_network(store, replica, &network, None))? {
                self.adopt(model, now);
                return Ok(id);
            }
            self.read_again(now)?;
        }
        Err("others were always quicker".into())
    }

    pub(super) fn remove_network(&mut self, name: &str, now: Instant) -> Result<(), String> {
        let mut model = self.model.clone();
        let network = model.network(name).map_err(|error| error.message)?.clone();
        model.remove_network(name).map_err(|error| error.message)?;
        self.share(|member, store, replica| member.remove_network(store, replica, &network))?;
        self.adopt(model, now);
        Ok(())
    }

    pub(super) fn start(&mut self, name: &str, request: &EndpointCreate, now: Instant) -> Result<IpAddr, String> {
        let sandbox = self.new_id();
        for _ in 0..TRIES {
            let mut model = self.model.clone();
            model.create_sandbox(&SandboxCreate { name: Some(name.into()), ..SandboxCreate::default() }, sandbox.clone()).map_err(|error| error.message)?;
            let id = self.new_id();
            let endpoint = model.create_endpoint(&sandbox, request, id, EndpointKind::Tap).map_err(|error| error.message)?;
            let owner = model.sandboxes[&sandbox].clone();
            let network = model.networks[&endpoint.network].clone();
            if self.share(|member, store, replica| member.create_endpoint(store, replica, &network, &owner, &endpoint))? {
                self.model = model;
                self.plane.plug(&endpoint.id, &endpoint.network, station(&endpoint.mac), now);
                return Ok(endpoint.addresses[0].ip());
            }
            self.read_again(now)?;
        }
        Err("others were always quicker".into())
    }

    /// The sandbox ends, whether or not the store can be told now.
    pub(super) fn stop(&mut self, name: &str, now: Instant) {
        let Ok(sandbox) = self.model.sandbox(name).cloned() else { panic!("{name} is on {}", self.identity.name) };
        self.model.sandboxes.remove(&sandbox.id);
        for endpoint in &sandbox.endpoints {
            self.plane.unplug(&endpoint.id, now);
            // What cannot be told now is told when the store is back: then everything is compared.
            let told = self.share(|member, store, replica| member.remove_endpoint(store, replica, &endpoint.network, &endpoint.id));
            self.synced &= told.is_ok();
        }
    }

    /// Says goodbye: what it had is free at once.
    pub(super) fn leave(&mut self) -> Result<(), String> {
        self.share(|member, store, _| member.leave(store))
    }
}

pub(super) fn station(mac: &str) -> UnicastMac {
    match mac.parse::<Mac>().ok().and_then(UnicastMac::new) {
        Some(mac) => mac,
        None => panic!("the model has no such address: {mac:?}"),
    }
}
