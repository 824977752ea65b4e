//! The store as it was last seen.

use std::{collections::BTreeMap, time::Duration};

use super::{
    keys::{Keys, Kind},
    Epochs,
    record::{self, ClaimRecord, EndpointRecord, MeshRecord, NetworkRecord, NodeRecord, RecordError, VipRecord},
};
use crate::store::{Change, Entry, LeaseId, Seen, Snapshot, Transaction};

/// A value, read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Record {
    Node(NodeRecord),
    Network(Box<NetworkRecord>),
    Endpoint(Box<EndpointRecord>),
    Secrets(Epochs),
    Vip(VipRecord),
    Mesh(MeshRecord),
    /// Who has what the key says; nobody in keys that only count.
    Claim(Option<String>),
    Unreadable(RecordError),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    revision: u64,
    lease: Option<LeaseId>,
    record: Record,
}

/// Why it is not known what a network encrypts with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// The store has none.
    #[error("{0} is not in the store")]
    Missing(String),
    /// It has something else.
    #[error("{0} {1}")]
    Unreadable(String, RecordError),
}

/// See the module. A watch may tell what a snapshot, or a transaction of our own, told already: the later revision of a key holds.
#[derive(Clone, Debug)]
pub struct Replica {
    keys: Keys,
    /// Of the last snapshot.
    floor: u64,
    known: BTreeMap<String, Known>,
    /// What we removed ourselves, until the watch has told so too.
    removed: BTreeMap<String, u64>,
}

impl Replica {
    /// Of an empty store.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self { keys, floor: 0, known: BTreeMap::new(), removed: BTreeMap::new() }
    }

    /// Everything was read.
    pub fn reset(&mut self, snapshot: Snapshot) {
        self.floor = snapshot.revision;
        self.removed.clear();
        self.known.clear();
        snapshot.entries.into_iter().for_each(|entry| self.put(entry));
    }

    /// A watch told this. True when it was news.
    pub fn see(&mut self, seen: Seen) -> bool {
        match seen {
            Seen::Put(entry) => {
                let (key, revision) = (entry.key.clone(), entry.revision);
                if !self.is_news(&key, revision) {
                    return false;
                }
                self.put(entry);
                true
            }
            Seen::Deleted { key, revision } => self.is_news(&key, revision) && self.known.remove(&key).is_some(),
            Seen::Lost | Seen::Away(_) | Seen::Back => false,
        }
    }

    fn is_news(&mut self, key: &str, revision: u64) -> bool {
        // Events come in order: what was removed before this one is told.
        let is_stale = self.removed.get(key).is_some_and(|removed| revision <= *removed);
        self.removed.retain(|_, removed| *removed > revision);
        revision > self.floor && !is_stale && self.known.get(key).is_none_or(|known| revision > known.revision)
    }

    /// A transaction of ours was carried out.
    pub fn applied(&mut self, transaction: &Transaction, revision: u64) {
        for change in &transaction.then {
            match change {
                Change::Put { key, value, lease } => self.put(Entry { key: key.clone(), value: value.clone(), revision, lease: *lease }),
                Change::Delete { key } => {
                    self.known.remove(key);
                    self.removed.insert(key.clone(), revision);
                }
            }
        }
    }

    fn put(&mut self, entry: Entry) {
        fn read<T: serde::de::DeserializeOwned>(entry: &Entry, make: impl FnOnce(T) -> Record) -> Record {
            record::decode(&entry.value).map_or_else(Record::Unreadable, make)
        }
        let record = match self.keys.kind(&entry.key) {
            Kind::Node => read(&entry, Record::Node),
            Kind::Network => read(&entry, |network| Record::Network(Box::new(network))),
            Kind::Endpoint => read(&entry, |endpoint| Record::Endpoint(Box::new(endpoint))),
            Kind::Secrets => record::decode_secrets(&entry.value).map_or_else(Record::Unreadable, Record::Secrets),
            Kind::Vip => read(&entry, Record::Vip),
            Kind::MeshClaim => read(&entry, Record::Mesh),
            Kind::Claim => Record::Claim(record::decode::<ClaimRecord>(&entry.value).ok().map(|claim| claim.owner)),
        };
        self.known.insert(entry.key, Known { revision: entry.revision, lease: entry.lease, record });
    }

    /// When a key was last changed.
    pub(super) fn revision(&self, key: &str) -> Option<u64> {
        self.known.get(key).map(|known| known.revision)
    }

    /// What a key hangs on.
    pub(super) fn lease(&self, key: &str) -> Option<LeaseId> {
        self.known.get(key).and_then(|known| known.lease)
    }

    /// Who has what a key stands for.
    pub(super) fn owner(&self, key: &str) -> Option<&str> {
        match &self.known.get(key)?.record {
            Record::Claim(owner) => owner.as_deref(),
            _ => None,
        }
    }

    /// Nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.known.values().filter_map(|known| if let Record::Node(node) = &known.record { Some(node) } else { None })
    }

    /// Networks.
    pub(super) fn networks(&self) -> impl Iterator<Item = &NetworkRecord> {
        self.known.values().filter_map(|known| if let Record::Network(network) = &known.record { Some(&**network) } else { None })
    }

    /// A network, by id.
    pub(super) fn network(&self, id: &str) -> Option<&NetworkRecord> {
        match &self.known.get(&self.keys.network(id))?.record {
            Record::Network(network) => Some(network),
            _ => None,
        }
    }

    /// Endpoints of all nodes.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &EndpointRecord> {
        self.known.values().filter_map(|known| if let Record::Endpoint(endpoint) = &known.record { Some(&**endpoint) } else { None })
    }

    /// An endpoint, by ids.
    pub(super) fn endpoint(&self, network: &str, id: &str) -> Option<&EndpointRecord> {
        match &self.known.get(&self.keys.endpoint(network, id))?.record {
            Record::Endpoint(endpoint) => Some(endpoint),
            _ => None,
        }
    }

    /// Networks that are encrypted, by id, with how long their secrets are used.
    pub(super) fn encrypted(&self) -> impl Iterator<Item = (&str, Option<Duration>)> {
        self.networks().filter(|network| network.is_encrypted()).map(|network| (network.id.as_str(), network.rekey()))
    }

    /// When a network's secrets were last changed.
    pub(super) fn secrets_revision(&self, network: &str) -> Option<u64> {
        self.revision(&self.keys.secrets(network))
    }

    /// What a network encrypts with.
    ///
    /// # Errors
    /// Why that is not known, with the key's name.
    pub fn epochs(&self, network: &str) -> Result<&Epochs, SecretsError> {
        let key = self.keys.secrets(network);
        match self.known.get(&key).map(|known| &known.record) {
            Some(Record::Secrets(epochs)) => Ok(epochs),
            Some(Record::Unreadable(error)) => Err(SecretsError::Unreadable(key, error.clone())),
            _ => Err(SecretsError::Missing(key)),
        }
    }

    /// Virtual addresses of services.
    pub(super) fn vips(&self) -> impl Iterator<Item = &VipRecord> {
        self.known.values().filter_map(|known| if let Record::Vip(vip) = &known.record { Some(vip) } else { None })
    }

    /// Ports of the routing mesh that services have.
    pub(super) fn mesh_ports(&self) -> impl Iterator<Item = &MeshRecord> {
        self.known.values().filter_map(|known| if let Record::Mesh(port) = &known.record { Some(port) } else { None })
    }

    /// Whose the port of the mesh is that a key stands for.
    pub(super) fn mesh_port(&self, key: &str) -> Option<&MeshRecord> {
        match &self.known.get(key)?.record {
            Record::Mesh(port) => Some(port),
            _ => None,
        }
    }

    /// What there is and is not used, with the reason: `KEY has version 2, ...`.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.known.iter().filter_map(|(key, known)| {
            let error = match &known.record {
                Record::Unreadable(error) => error.clone(),
                Record::Node(node) => node.node().err()?,
                Record::Network(network) => network.network().err()?,
                Record::Endpoint(endpoint) => endpoint.endpoint().err()?,
                Record::Vip(vip) => vip.checked(self.network(&vip.network)?).err()?,
                Record::Mesh(port) => port.checked().err()?,
                Record::Claim(_) | Record::Secrets(_) => return None,
            };
            Some(format!("{key} {error}"))
        })
    }
}
