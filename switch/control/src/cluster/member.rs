//! What this node writes, and when it may.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Keys, Replica,
    Epochs, SecretsError,
    record::{self, ClaimRecord, EndpointRecord, NetworkRecord, NodeRecord, OverlayRecord, RecordError, VipRecord},
};
use vxlan::crypt::Secret;

use crate::{
    error::{Code, ControlError},
    model::{Endpoint, Model, Network, Sandbox},
    store::{Change, Compare, LeaseId, Outcome, Store, StoreError, Transaction},
};

/// How often something is tried that others keep changing.
const TRIES: usize = 16;

/// This node, as a member of its cluster.
#[derive(Clone, Debug)]
pub struct Member {
    /// Where everything is.
    pub keys: Keys,
    /// What the others are told of it.
    pub node: NodeRecord,
    time_to_live: Duration,
    lease: Option<LeaseId>,
    /// Networks whose making got no answer: they are removed when the store is there again.
    doubtful: BTreeMap<String, Network>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// See there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another node that lives has this node's name.
    #[error("a node named {} is in the cluster already, at {}", .0.name, .0.ip)]
    NameTaken(Box<NodeRecord>),
    /// It contradicts what others have.
    #[error(transparent)]
    Refused(#[from] ControlError),
}

/// An endpoint that others had a better right to when this node came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Id of its sandbox.
    pub sandbox: String,
    /// Id of its network.
    pub network: String,
    /// What is another's now.
    pub why: String,
}

impl Member {
    /// Not joined yet. What belongs to it goes when it was not heard of for `time_to_live`.
    #[must_use]
    pub fn new(keys: Keys, node: NodeRecord, time_to_live: Duration) -> Self {
        Self { keys, node, time_to_live, lease: None, doubtful: BTreeMap::new() }
    }

    /// What to keep alive.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        self.lease
    }

    /// The lease has ended, and with it what this node had.
    pub fn ended(&mut self) {
        self.lease = None;
    }

    fn own_lease(&self) -> Result<LeaseId, ClusterError> {
        self.lease.ok_or(ClusterError::Store(StoreError::LeaseEnded))
    }

    /// Enters the cluster unless it is in it. A record that this node left behind is taken over, and the lease that it hung on is
    /// given back: to be revoked when what hangs on it was registered again.
    ///
    /// # Errors
    /// When another node has the name, or the store does not answer.
    pub fn join(&mut self, store: &mut dyn Store) -> Result<Option<LeaseId>, ClusterError> {
        if let Some(lease) = self.lease {
            match store.keep_alive(lease) {
                Ok(()) => return Ok(None),
                Err(StoreError::LeaseEnded) => self.lease = None,
                Err(error) => return Err(error.into()),
            }
        }
        let lease = store.grant(self.time_to_live)?;
        match self.take_name(store, lease) {
            Ok(old) => {
                self.lease = Some(lease);
                Ok(old)
            }
            Err(error) => {
                // Nothing hangs on it; it ends by itself.
                store.revoke(lease).ok();
                Err(error)
            }
        }
    }

    fn take_name(&self, store: &mut dyn Store, lease: LeaseId) -> Result<Option<LeaseId>, ClusterError> {
        let key = self.keys.node(&self.node.name);
        let (mut when, mut old) = (Compare::Absent(key.clone()), None);
        for _ in 0..TRIES {
            let put = Change::Put { key: key.clone(), value: record::encode(&self.node), lease: Some(lease) };
            let Outcome::Refused(there) = store.transact(&Transaction { when: vec![when], then: vec![put] })? else { return Ok(old) };
            let Some(entry) = there.into_iter().next() else {
                (when, old) = (Compare::Absent(key.clone()), None);
                continue;
            };
            match record::decode::<NodeRecord>(&entry.value) {
                Ok(other) if other.id == self.node.id => (when, old) = (Compare::Unchanged(key.clone(), entry.revision), entry.lease),
                Ok(other) => return Err(ClusterError::NameTaken(Box::new(other))),
                Err(error) => return Err(ControlError::new(Code::Conflict, &key, format!("{key} {error}")).into()),
            }
        }
        Err(busy(&key).into())
    }

    /// Leaves: everything of this node goes at once.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn leave(&mut self, store: &mut dyn Store) -> Result<(), ClusterError> {
        match self.lease.take() {
            Some(lease) => Ok(store.revoke(lease)?),
            None => Ok(()),
        }
    }

    /// Makes a network everybody's, with the first `secret` of an encrypted one. False when another node was quicker with any network: look again what there is.
    ///
    /// # Errors
    /// When the store does not answer: the network is removed once it does.
    pub fn create_network(&mut self, store: &mut dyn Store, replica: &mut Replica, network: &Network, secret: Option<Secret>) -> Result<bool, ClusterError> {
        let Some(record) = NetworkRecord::of(network) else { return Ok(true) };
        let keys = &self.keys;
        let claims = self.network_claims(&record);
        let changed = keys.networks_changed();
        let seen = as_seen(replica, changed.clone());
        let when = claims.iter().cloned().chain([keys.network(&record.id)]).map(Compare::Absent).chain([seen]).collect();
        let overlay = OverlayRecord { vni: record.vni(), subnets: record.subnets() };
        let mut then = vec![put(keys.network(&record.id), record.encode(), None), put(keys.overlay(&record.id), record::encode(overlay), None)];
        then.extend(secret.map(|secret| put(keys.secrets(&record.id), record::encode(Epochs::first(secret).record()), None)));
        then.extend(claims.into_iter().chain([changed]).map(|key| put(key, claim(&record.id), None)));
        let done = self.transact(store, replica, Transaction { when, then });
        if let Err(ClusterError::Store(StoreError::Away(_))) = done {
            self.doubtful.insert(network.id.clone(), network.clone());
        }
        done
    }

    fn network_claims(&self, record: &NetworkRecord) -> Vec<String> {
        let pools = record.subnets().into_iter().map(|subnet| self.keys.pool(subnet));
        let ingress = record.ingress.then(|| self.keys.ingress());
        pools.chain([self.keys.network_name(&record.name), self.keys.vni(record.vni())]).chain(ingress).collect()
    }

    /// Removes a network that nobody is in. It may be gone already.
    ///
    /// # Errors
    /// When somebody is in it, or the store does not answer.
    pub fn remove_network(&self, store: &mut dyn Store, replica: &mut Replica, network: &Network) -> Result<(), ClusterError> {
        let Some(record) = NetworkRecord::of(network) else { return Ok(()) };
        let (key, entered) = (self.keys.network(&record.id), self.keys.endpoints_changed(&record.id));
        for _ in 0..TRIES {
            // First when somebody came last, then who is there: whoever comes after that is noticed.
            let entry = store.range(&entered)?.entries.into_iter().next();
            let members = store.range(&self.keys.endpoints(&record.id))?.entries;
            if !members.is_empty() {
                let names: Vec<_> = members.iter().filter_map(|entry| record::decode::<EndpointRecord>(&entry.value).ok()).map(|member| format!("{} on {}", member.name, member.node)).collect();
                return Err(ControlError::new(Code::Conflict, &record.name, format!("network {} has active endpoints: {}", record.name, names.join(", "))).hint("remove or disconnect them first").into());
            }
            let seen = entry.map_or_else(|| Compare::Absent(entered.clone()), |entry| Compare::Unchanged(entered.clone(), entry.revision));
            let vips: Vec<_> = replica.vips().filter(|vip| vip.network == record.id).flat_map(|vip| self.vip_keys(vip)).collect();
            let ports: Vec<_> = self.mesh_keys(replica, &record.id).collect();
            let gone = self.network_claims(&record).into_iter().chain(vips).chain(ports).chain([key.clone(), self.keys.overlay(&record.id), self.keys.secrets(&record.id), entered.clone()]).map(|key| Change::Delete { key });
            let then = gone.chain([put(self.keys.networks_changed(), claim(&record.id), None)]).collect();
            if self.transact(store, replica, Transaction { when: vec![Compare::Present(key.clone()), seen], then })? || store.range(&key)?.entries.is_empty() {
                return Ok(());
            }
        }
        Err(busy(&record.name).into())
    }

    /// Takes an encrypted network's secrets to their next stage, or makes the first; see `secrets.rs`. Nothing when another node was
    /// quicker, or they cannot be read.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn advance_secrets(&self, store: &mut dyn Store, replica: &mut Replica, network: &str, fresh: Secret) -> Result<bool, ClusterError> {
        let next = match replica.epochs(network) {
            Ok(epochs) => epochs.next(fresh),
            Err(SecretsError::Missing(_)) => Epochs::first(fresh),
            Err(SecretsError::Unreadable(..)) => return Ok(false),
        };
        self.put_secrets(store, replica, network, &next)
    }

    /// Begins to change an encrypted network's secrets, or replaces damaged ones; gives what is in the store now.
    ///
    /// # Errors
    /// When a change is under way already, a later version wrote them, or the store does not answer.
    pub fn rekey(&self, store: &mut dyn Store, replica: &mut Replica, network: &Network, fresh: Secret) -> Result<Epochs, ClusterError> {
        let under_way = || ControlError::new(Code::Conflict, &network.name, format!("the keys of network {} are being changed", network.name));
        let next = match replica.epochs(&network.id) {
            Ok(epochs) if epochs.is_settled() => epochs.next(fresh),
            Ok(_) => return Err(under_way().hint(format!("wait until one epoch is accepted: two leases of {:?}", self.time_to_live)).into()),
            Err(SecretsError::Unreadable(key, error @ RecordError::Newer(_))) => return Err(ControlError::new(Code::Conflict, &key, format!("{key} {error}")).into()),
            Err(_) => Epochs::first(fresh),
        };
        if self.put_secrets(store, replica, &network.id, &next)? { Ok(next) } else { Err(under_way().hint("another node was quicker: try again").into()) }
    }

    fn put_secrets(&self, store: &mut dyn Store, replica: &mut Replica, network: &str, epochs: &Epochs) -> Result<bool, ClusterError> {
        let key = self.keys.secrets(network);
        let when = vec![as_seen(replica, key.clone()), Compare::Present(self.keys.network(network))];
        self.transact(store, replica, Transaction { when, then: vec![put(key, record::encode(epochs.record()), None)] })
    }

    /// Takes an endpoint's name and addresses, and virtual addresses of `network` that nobody had before. False when another
    /// node has one of them, or the network is gone: look again what there is.
    ///
    /// # Errors
    /// When the store does not answer: what it may have noted is removed once it does.
    pub fn create_endpoint(&self, store: &mut dyn Store, replica: &mut Replica, network: &Network, sandbox: &Sandbox, endpoint: &Endpoint) -> Result<bool, ClusterError> {
        let record = EndpointRecord::of(&self.node.name, sandbox, endpoint, BTreeSet::new());
        let free = self.endpoint_claims(&record).into_iter().chain([self.keys.endpoint(&record.network, &record.id)]).map(Compare::Absent);
        let vips = Self::new_vips(replica, network, &record);
        self.put_endpoint(store, replica, &record, Transaction { when: free.collect(), then: Vec::new() }, &vips)
    }

    /// Those of the endpoint's services that have no virtual address in the cluster yet, with the one they have in `network`.
    fn new_vips(replica: &Replica, network: &Network, record: &EndpointRecord) -> Vec<VipRecord> {
        let is_new = |name: &&String| !replica.vips().any(|vip| vip.network == record.network && vip.name == **name);
        let vip = |name: &String| Some(VipRecord { network: record.network.clone(), name: name.clone(), addresses: network.vips.get(name)?.clone() });
        record.vips.iter().filter(is_new).filter_map(vip).collect()
    }

    /// What a service has: its virtual address, and the name.
    fn vip_keys(&self, vip: &VipRecord) -> Vec<String> {
        let addresses = vip.addresses.iter().map(|address| self.keys.address(&vip.network, *address));
        addresses.chain([self.keys.endpoint_name(&vip.network, &vip.name), self.keys.vip(&vip.network, &vip.name)]).collect()
    }

    /// The virtual addresses, see [`Member::prune`].
    pub(super) fn prune_vips(&self, store: &mut dyn Store, replica: &mut Replica) -> Result<bool, ClusterError> {
        let is_served = |vip: &VipRecord| replica.endpoints().any(|endpoint| endpoint.network == vip.network && endpoint.vips.contains(&vip.name));
        let idle: Vec<_> = replica.vips().filter(|vip| !is_served(vip)).cloned().collect();
        let mut pruned = false;
        for vip in idle {
            // Who joined it in the meantime keeps it, and is told by the watch.
            let when = vec![as_seen(replica, self.keys.vip(&vip.network, &vip.name)), as_seen(replica, self.keys.endpoints_changed(&vip.network))];
            let then = self.vip_keys(&vip).into_iter().map(|key| Change::Delete { key }).collect();
            pruned |= self.transact(store, replica, Transaction { when, then })?;
        }
        Ok(pruned)
    }

    /// Tells of what became different: its name, whether it is up, what it publishes; of `model` the networks count. False when
    /// another node has the name or a port of the mesh, or the endpoint is not there: look again what there is.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn update_endpoint(&self, store: &mut dyn Store, replica: &mut Replica, model: &Model, sandbox: &Sandbox, endpoint: &Endpoint) -> Result<bool, ClusterError> {
        let record = EndpointRecord::of(&self.node.name, sandbox, endpoint, model.mesh_ports(sandbox, endpoint));
        let Some(old) = replica.endpoint(&record.network, &record.id) else { return Ok(record.mesh.is_empty()) };
        let (known, ports) = (old.mesh.clone(), self.mesh_claims(replica, &record));
        if *old == record && ports.free.is_empty() {
            return Ok(true);
        }
        // What was asked for while nobody could say so waits for its port; nobody waits who asks now.
        if !ports.taken.is_subset(&known) {
            return Ok(false);
        }
        let (before, after) = (self.endpoint_claims(old), self.endpoint_claims(&record));
        let key = self.keys.endpoint(&record.network, &record.id);
        let when = after.difference(&before).cloned().map(Compare::Absent).chain([Compare::Present(key)]).collect();
        let gone = before.difference(&after).map(|key| Change::Delete { key: key.clone() }).collect();
        self.put_meshed(store, replica, &record, ports.free, Transaction { when, then: gone }, &[])
    }

    /// Notes an endpoint, `with` what else is to hold and to be done.
    pub(super) fn put_endpoint(&self, store: &mut dyn Store, replica: &mut Replica, record: &EndpointRecord, with: Transaction, vips: &[VipRecord]) -> Result<bool, ClusterError> {
        let Transaction { mut when, mut then } = with;
        let lease = Some(self.own_lease()?);
        when.push(Compare::Present(self.keys.network(&record.network)));
        let old = replica.endpoint(&record.network, &record.id);
        for name in record.vips.iter().filter(|name| vips.iter().all(|vip| vip.name != **name)) {
            let key = self.keys.vip(&record.network, name);
            match replica.vips().find(|vip| vip.network == record.network && vip.name == *name) {
                // Who joins writes it again: who gives it back sees that somebody came.
                Some(vip) if old.is_none_or(|old| !old.vips.contains(name)) => {
                    when.push(as_seen(replica, key.clone()));
                    then.push(put(key, record::encode(vip), None));
                }
                _ => when.push(Compare::Present(key)),
            }
        }
        when.extend(vips.iter().flat_map(|vip| self.vip_keys(vip)).map(Compare::Absent));
        then.push(put(self.keys.endpoint(&record.network, &record.id), record::encode(record), lease));
        then.push(put(self.keys.endpoints_changed(&record.network), claim(&record.id), None));
        then.extend(self.endpoint_claims(record).into_iter().map(|key| put(key, claim(&record.id), lease)));
        for vip in vips {
            let key = self.keys.vip(&vip.network, &vip.name);
            then.extend(self.vip_keys(vip).into_iter().filter(|claimed| *claimed != key).map(|claimed| put(claimed, claim(&vip.name), None)));
            then.push(put(key, record::encode(vip), None));
        }
        self.transact(store, replica, Transaction { when, then })
    }

    fn endpoint_claims(&self, record: &EndpointRecord) -> BTreeSet<String> {
        let addresses = record.addresses.iter().map(|address| self.keys.address(&record.network, address.ip()));
        let name = record.named.then(|| self.keys.endpoint_name(&record.network, &record.name));
        addresses.chain([self.keys.mac(&record.network, &record.mac)]).chain(name).collect()
    }

    /// Gives an endpoint's name and addresses back. It may be gone already.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn remove_endpoint(&self, store: &mut dyn Store, replica: &mut Replica, network: &str, id: &str) -> Result<(), ClusterError> {
        let Some(record) = replica.endpoint(network, id).cloned() else { return Ok(()) };
        let key = self.keys.endpoint(network, id);
        let then = self.endpoint_claims(&record).into_iter().chain([key.clone()]).map(|key| Change::Delete { key }).collect();
        // As long as the endpoint is there, its claims are its own.
        self.transact(store, replica, Transaction { when: vec![Compare::Present(key)], then }).map(drop)
    }

    /// Makes the store have what this node has, and no more; `replica` was just read. Tells what others have now.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn register(&mut self, store: &mut dyn Store, replica: &mut Replica, model: &Model) -> Result<Vec<Lost>, ClusterError> {
        for (id, network) in self.doubtful.clone() {
            // Others may have begun to use it: then it stays.
            if replica.network(&id).is_some()
                && let Err(error @ ClusterError::Store(_)) = self.remove_network(store, replica, &network)
            {
                return Err(error);
            }
            self.doubtful.remove(&id);
        }
        let mut lost = Vec::new();
        let name = self.node.name.clone();
        let own: Vec<_> = EndpointRecord::all(model, &name).collect();
        for (sandbox, record) in &own {
            if let Some(why) = self.register_endpoint(store, replica, model, record)? {
                lost.push(Lost { sandbox: sandbox.id.clone(), network: record.network.clone(), why });
            }
        }
        let strays: Vec<_> = replica.endpoints().filter(|known| known.node == name && own.iter().all(|(_, record)| record.id != known.id)).map(|known| (known.network.clone(), known.id.clone())).collect();
        for (network, id) in strays {
            self.remove_endpoint(store, replica, &network, &id)?;
        }
        Ok(lost)
    }

    /// Gives what is another's now.
    fn register_endpoint(&mut self, store: &mut dyn Store, replica: &mut Replica, model: &Model, record: &EndpointRecord) -> Result<Option<String>, ClusterError> {
        let lease = self.own_lease()?;
        let key = self.keys.endpoint(&record.network, &record.id);
        for _ in 0..TRIES {
            if replica.network(&record.network).is_none() {
                // The store was put back to an earlier state, or somebody removed it by hand.
                let Some(network) = model.networks.get(&record.network) else { return Ok(Some("its network is gone".into())) };
                let taken = NetworkRecord::of(network).into_iter().flat_map(|network| self.network_claims(&network)).find(|key| replica.revision(key).is_some());
                if let Some(taken) = taken {
                    return Ok(Some(format!("network {} is gone, and {taken} is another's", network.name)));
                }
                // Its secrets are missing then, and soon made anew.
                if !self.create_network(store, replica, network, None)? {
                    replica.reset(store.range(&self.keys.all())?);
                }
                continue;
            }
            let claims = self.endpoint_claims(record);
            let vips = model.networks.get(&record.network).map_or_else(Vec::new, |network| Self::new_vips(replica, network, record));
            let vip_keys: Vec<_> = vips.iter().flat_map(|vip| self.vip_keys(vip)).collect();
            if let Some(taken) = claims.iter().find(|key| replica.owner(key).is_some_and(|owner| owner != record.id)).or_else(|| vip_keys.iter().find(|key| replica.owner(key).is_some())) {
                let holder = replica.owner(taken).and_then(|owner| replica.endpoint(&record.network, owner));
                let holder = holder.map_or_else(|| "another".into(), |other| format!("{} on {}", other.name, other.node));
                return Ok(Some(format!("{} was taken by {holder}", taken.rsplit('/').next().unwrap_or_default())));
            }
            let all: Vec<_> = claims.into_iter().chain([key.clone()]).collect();
            // Of its ports it has those that no other service has now; the others wait.
            let ports = self.mesh_claims(replica, record).free;
            if vips.is_empty() && ports.is_empty() && replica.endpoint(&record.network, &record.id) == Some(record) && all.iter().all(|key| replica.lease(key) == Some(lease)) {
                return Ok(None);
            }
            let when = all.into_iter().map(|key| as_seen(replica, key)).collect();
            if self.put_meshed(store, replica, record, ports, Transaction { when, then: Vec::new() }, &vips)? {
                return Ok(None);
            }
            replica.reset(store.range(&self.keys.all())?);
        }
        Err(busy(&record.name).into())
    }

    pub(super) fn transact(&self, store: &mut dyn Store, replica: &mut Replica, transaction: Transaction) -> Result<bool, ClusterError> {
        match store.transact(&transaction)? {
            Outcome::Done(revision) => {
                replica.applied(&transaction, revision);
                Ok(true)
            }
            Outcome::Refused(_) => Ok(false),
        }
    }
}

/// Nobody changed a key since it was last seen.
pub(super) fn as_seen(replica: &Replica, key: String) -> Compare {
    match replica.revision(&key) {
        Some(revision) => Compare::Unchanged(key, revision),
        None => Compare::Absent(key),
    }
}

fn put(key: String, value: Vec<u8>, lease: Option<LeaseId>) -> Change {
    Change::Put { key, value, lease }
}

fn claim(owner: &str) -> Vec<u8> {
    record::encode(ClaimRecord { owner: owner.into() })
}

fn busy(subject: &str) -> ControlError {
    ControlError::new(Code::Unavailable, subject, format!("{subject}: other nodes were quicker {TRIES} times")).hint("try again")
}
