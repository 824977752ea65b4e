//! The secrets of encrypted networks: what the store has of them, and how they change without a lost frame.
//!
//! A network has one record: the epochs that are accepted, one or two, and which of them is sent with. It changes by stages,
//! each a compare and swap of the one before by whoever is first:
//!
//! ```text
//! settled {1} sends 1  ->  offered {1, 2} sends 1  ->  taken {1, 2} sends 2  ->  settled {2} sends 2
//!              `rekey`, or the period          a lease later            a lease later
//! ```
//!
//! A node changes `offered` and `taken` no earlier than a lease after it heard of them. Who lives has heard of them by then (who
//! did not lost its lease, and so its endpoints): all accept an epoch before anybody sends with it, and nobody sends with one
//! that somebody does not accept any more. The stage is the store's, so a node that starts again goes on where the others are.

use std::{collections::BTreeMap, time::Duration};

use packet::Instant;
use serde::{Deserialize, Serialize};
use vxlan::crypt::{EPOCHS_MOST, Secret};

use super::{Replica, record::RecordError};
use crate::overlay::{parse_secret, show_secret};

/// Pause between the nodes' tries to do the same, by rank: one is enough.
const TURN: Duration = Duration::from_secs(1);

/// The epochs of a network's secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epochs {
    /// Those that are accepted, the older one first.
    pub accepted: Vec<(u32, Secret)>,
    /// The one of them to send with.
    pub current: u32,
}

/// As the store has them.
#[derive(Serialize, Deserialize)]
pub(super) struct SecretsRecord {
    epochs: Vec<EpochRecord>,
    current: u32,
}

#[derive(Serialize, Deserialize)]
struct EpochRecord {
    epoch: u32,
    /// 64 hexadecimal digits.
    key: String,
}

impl Epochs {
    /// The first one.
    pub(super) fn first(secret: Secret) -> Self {
        Self { accepted: vec![(1, secret)], current: 1 }
    }

    /// No change is under way.
    pub(super) fn is_settled(&self) -> bool {
        self.accepted.len() < EPOCHS_MOST
    }

    /// The next stage; from a settled one with a `fresh` secret.
    pub(super) fn next(&self, fresh: Secret) -> Self {
        let mut next = self.clone();
        let newest = self.accepted.last().map_or(0, |(epoch, _)| *epoch);
        if self.is_settled() {
            next.accepted.push((self.current.wrapping_add(1), fresh));
        } else if self.current == newest {
            next.accepted.retain(|(epoch, _)| *epoch == newest);
        } else {
            next.current = newest;
        }
        next
    }

    pub(super) fn record(&self) -> SecretsRecord {
        let epochs = self.accepted.iter().map(|(epoch, secret)| EpochRecord { epoch: *epoch, key: show_secret(secret) }).collect();
        SecretsRecord { epochs, current: self.current }
    }
}

impl TryFrom<SecretsRecord> for Epochs {
    type Error = RecordError;

    /// The reason never has anything of a key.
    fn try_from(record: SecretsRecord) -> Result<Self, RecordError> {
        let damaged = |what: String| RecordError::Damaged(what);
        let read = |entry: &EpochRecord| Ok((entry.epoch, parse_secret(&entry.key).map_err(|what| damaged(format!("the key of epoch {} {what}", entry.epoch)))?));
        let accepted = record.epochs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let is_twice = accepted.len() == 2 && accepted[0].0 == accepted[1].0;
        match accepted.len() {
            1..=EPOCHS_MOST if is_twice => Err(damaged(format!("epoch {} is there twice", record.current))),
            1..=EPOCHS_MOST if accepted.iter().any(|(epoch, _)| *epoch == record.current) => Ok(Self { accepted, current: record.current }),
            1..=EPOCHS_MOST => Err(damaged(format!("epoch {} has no key", record.current))),
            many => Err(damaged(format!("it has {many} epochs, want 1 to {EPOCHS_MOST}"))),
        }
    }
}

/// When this node changes what secrets: at which revision of its record it saw each network, and since when.
#[derive(Debug, Default)]
pub struct Rotation {
    seen: BTreeMap<String, (u64, Instant)>,
}

impl Rotation {
    /// Networks, by id, whose secrets `me` takes to the next stage now. What is missing is made anew; what cannot be read is
    /// left to whoever runs the cluster.
    pub fn due(&mut self, replica: &Replica, me: &str, lease: Duration, now: Instant) -> Vec<String> {
        let rank = u32::try_from(replica.nodes().filter(|node| node.name.as_str() < me).count()).unwrap_or(u32::MAX);
        let mut seen = BTreeMap::new();
        let mut due = Vec::new();
        for (network, period) in replica.encrypted() {
            let revision = replica.secrets_revision(network).unwrap_or(0);
            let since = self.seen.get(network).filter(|seen| seen.0 == revision).map_or(now, |seen| seen.1);
            seen.insert(network.to_owned(), (revision, since));
            let pause = match replica.epochs(network) {
                Ok(epochs) if epochs.is_settled() => period,
                Ok(_) => Some(lease),
                Err(_) => (revision == 0).then_some(lease),
            };
            if pause.is_some_and(|pause| now.since(since) >= pause + TURN.saturating_mul(rank)) {
                due.push(network.to_owned());
            }
        }
        self.seen = seen;
        due
    }
}
