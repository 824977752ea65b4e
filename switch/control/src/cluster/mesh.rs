//! Whose the ports of the routing mesh are: a claim in the store for each, which a service has as long as anybody serves it.

use std::collections::BTreeSet;

use super::{
    Member, Replica,
    member::{ClusterError, as_seen},
    record::{self, EndpointRecord, MeshRecord, VipRecord},
};
use crate::{
    mesh::MeshPort,
    store::{Change, Compare, Store, Transaction},
};

/// Ports that one transaction takes: with the rest of an endpoint less than [`Transaction::MOST`].
const AT_ONCE: usize = 64;

/// What an endpoint is to have of the mesh.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Can be taken, if nobody comes first.
    pub(super) free: Vec<MeshPort>,
    /// Other services have them.
    pub(super) taken: BTreeSet<MeshPort>,
}

impl Member {
    fn mesh_key(&self, port: &MeshRecord) -> String {
        self.keys.mesh_port(&port.network, &port.claim)
    }

    /// Claims in a network that goes.
    pub(super) fn mesh_keys<'a>(&'a self, replica: &'a Replica, network: &'a str) -> impl Iterator<Item = String> + 'a {
        replica.mesh_ports().filter(move |port| port.network == network).map(|port| self.mesh_key(port))
    }

    /// What of its ports `record` does not have yet.
    pub(super) fn mesh_claims(&self, replica: &Replica, record: &EndpointRecord) -> Claims {
        let mut claims = Claims::default();
        let old = replica.endpoint(&record.network, &record.id);
        for port in &record.mesh {
            let own = claim_of(record, port);
            let key = self.mesh_key(&own);
            let is_served = |has: &MeshRecord| replica.endpoints().any(|other| other.id != record.id && other.serves(has));
            match replica.mesh_port(&key) {
                Some(has) if *has == own && old.is_some_and(|old| old.serves(&own)) => {}
                Some(has) if *has == own || !is_served(has) => claims.free.push(port.clone()),
                None if replica.revision(&key).is_none() => claims.free.push(port.clone()),
                // What cannot be read is somebody's.
                _ => _ = claims.taken.insert(port.clone()),
            }
        }
        claims
    }

    /// Notes an endpoint with `ports` of its own, of which it takes some at a time; what is there before it has all is true too.
    pub(super) fn put_meshed(&self, store: &mut dyn Store, replica: &mut Replica, record: &EndpointRecord, mut ports: Vec<MeshPort>, mut with: Transaction, mut vips: &[VipRecord]) -> Result<bool, ClusterError> {
        loop {
            let later = ports.split_off(ports.len().min(AT_ONCE));
            for port in &ports {
                let own = claim_of(record, port);
                let key = self.mesh_key(&own);
                with.when.push(as_seen(replica, key.clone()));
                with.then.push(Change::Put { key, value: record::encode(own), lease: None });
            }
            let mesh = record.mesh.iter().filter(|port| !later.contains(port)).cloned().collect();
            if !self.put_endpoint(store, replica, &record.with_mesh(mesh), with, vips)? {
                return Ok(false);
            }
            if later.is_empty() {
                return Ok(true);
            }
            (ports, vips) = (later, &[]);
            with = Transaction { when: vec![Compare::Present(self.keys.endpoint(&record.network, &record.id))], then: Vec::new() };
        }
    }

    /// Gives back what belongs to services that nobody serves any more, on any node; true when there was any.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn prune(&self, store: &mut dyn Store, replica: &mut Replica) -> Result<bool, ClusterError> {
        Ok(self.prune_vips(store, replica)? | self.prune_mesh(store, replica)?)
    }

    fn prune_mesh(&self, store: &mut dyn Store, replica: &mut Replica) -> Result<bool, ClusterError> {
        let is_idle = |port: &&MeshRecord| !replica.endpoints().any(|endpoint| endpoint.serves(port));
        let idle: Vec<_> = replica.mesh_ports().filter(is_idle).map(|port| self.mesh_key(port)).collect();
        let mut pruned = false;
        for key in idle {
            // Who joined in the meantime has written it again.
            let transaction = Transaction { when: vec![as_seen(replica, key.clone())], then: vec![Change::Delete { key }] };
            pruned |= self.transact(store, replica, transaction)?;
        }
        Ok(pruned)
    }
}

fn claim_of(record: &EndpointRecord, port: &MeshPort) -> MeshRecord {
    MeshRecord { network: record.network.clone(), claim: port.claim() }
}
