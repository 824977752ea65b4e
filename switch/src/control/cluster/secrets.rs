//! The secrets of encrypted shared networks: from the store into tunnels, and their change.

use std::{collections::BTreeMap, time::Instant};

use packet::PortId;
use serde_json::json;
use vxlan::crypt::{Keys, Secret};
use weft_control::{
    Network, Result,
    cluster::{Epochs, Rotation, SecretsError},
};

use super::super::runtime::{Inner, random, unavailable};
use crate::tunnel::TunnelCommand;

/// What this node did with them.
#[derive(Debug)]
pub(super) struct Secrets {
    rotation: Rotation,
    started: Instant,
    /// What tunnels have, by network.
    installed: BTreeMap<String, (PortId, Epochs)>,
    /// Problems that were told of, by network.
    told: BTreeMap<String, String>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { rotation: Rotation::default(), started: Instant::now(), installed: BTreeMap::new(), told: BTreeMap::new() }
    }
}

impl Secrets {
    fn now(&self) -> packet::Instant {
        packet::Instant::ZERO + self.started.elapsed()
    }
}

/// A new one.
pub(super) fn fresh() -> Result<Secret> {
    Ok(Secret(random()?))
}

/// It is the cluster that has its keys.
fn is_shared(network: &Network) -> bool {
    network.is_global() && network.overlay.as_ref().is_some_and(|overlay| overlay.encrypted)
}

impl Inner {
    /// Makes all tunnels encrypt with what the store says.
    pub(super) fn install_all_secrets(&mut self) {
        let shared: Vec<Network> = self.model.networks.values().filter(|network| is_shared(network)).cloned().collect();
        shared.iter().for_each(|network| self.install_secrets(network));
        if let Some(cluster) = &mut self.cluster {
            cluster.secrets.installed.retain(|id, _| shared.iter().any(|network| network.id == *id));
            cluster.secrets.told.retain(|id, _| shared.iter().any(|network| network.id == *id));
        }
    }

    /// The same for one network, if it is such a one. Without a usable record it keeps what it has; a tunnel that has nothing carries nothing.
    pub(in crate::control) fn install_secrets(&mut self, network: &Network) {
        let Some((cluster, port)) = self.cluster.as_mut().zip(self.tunnels.get(&network.id).copied()).filter(|_| is_shared(network)) else { return };
        let installed = cluster.secrets.installed.get(&network.id);
        let result = match cluster.replica.epochs(&network.id) {
            Ok(epochs) if installed.is_some_and(|installed| installed.0 == port && installed.1 == *epochs) => Ok(None),
            Ok(epochs) => Ok(Some(epochs.clone())),
            Err(error) => Err(why(&error, cluster.away.as_deref())),
        };
        match result.and_then(|epochs| epochs.map(|epochs| self.encrypt_with(network, port, epochs)).transpose().map_err(|error| error.to_string())) {
            Ok(_) => {
                self.cluster.iter_mut().for_each(|cluster| drop(cluster.secrets.told.remove(&network.id)));
            }
            Err(why) => self.tell_problem(network, why),
        }
    }

    fn encrypt_with(&mut self, network: &Network, port: PortId, epochs: Epochs) -> Result<()> {
        let accepted: Vec<u32> = epochs.accepted.iter().map(|(epoch, _)| *epoch).collect();
        // A session of its own each time, so that no nonce is used twice.
        let keys = Keys { epochs: epochs.accepted.clone(), current: epochs.current, session: u64::from_ne_bytes(random()?) };
        self.carry_out(TunnelCommand::SetKeys(port, keys))?;
        tracing::info!(network = network.name, epoch = epochs.current, "encrypts; accepts {accepted:?}");
        self.event("overlay rekey", json!({ "network": network.name, "epoch": epochs.current, "accepted": accepted }));
        self.cluster.iter_mut().for_each(|cluster| drop(cluster.secrets.installed.insert(network.id.clone(), (port, epochs.clone()))));
        Ok(())
    }

    fn tell_problem(&mut self, network: &Network, why: String) {
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.secrets.told.get(&network.id) == Some(&why) {
            return;
        }
        let keeps = if cluster.secrets.installed.contains_key(&network.id) { "goes on with the keys it has" } else { "carries nothing" };
        tracing::error!(network = network.name, "an encrypted network {keeps}: {why}");
        self.event("overlay keys", json!({ "network": network.name, "problem": why }));
        self.cluster.iter_mut().for_each(|cluster| drop(cluster.secrets.told.insert(network.id.clone(), why.clone())));
    }

    /// Why a shared encrypted network has not the keys that it should have.
    pub(in crate::control) fn secrets_problem(&self, network: &Network) -> Option<String> {
        if !is_shared(network) {
            return None;
        }
        let Some(cluster) = &self.cluster else { return Some("this daemon is in no cluster, which has the keys".into()) };
        let error = cluster.replica.epochs(&network.id).err()?;
        Some(why(&error, cluster.away.as_deref()))
    }

    /// Takes secrets to their next stage where it is time.
    pub(super) fn rotate_secrets(&mut self) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.away.is_none()) else { return };
        let now = cluster.secrets.now();
        for id in cluster.secrets.rotation.due(&cluster.replica, &cluster.config.node, cluster.config.lease, now) {
            let Ok(fresh) = fresh() else { return };
            match self.share(|member, store, replica| member.advance_secrets(store, replica, &id, fresh)) {
                Some(Ok(true)) => {
                    if let Some(network) = self.model.networks.get(&id).cloned() {
                        self.install_secrets(&network);
                    }
                }
                Some(Err(error)) => tracing::warn!(%error, "the keys of a network are changed later"),
                _ => {}
            }
        }
    }

    /// Begins to change the secrets of a shared network on all nodes.
    pub(in crate::control) fn rekey_shared(&mut self, network: &Network) -> Result<()> {
        let fresh = fresh()?;
        self.share(|member, store, replica| member.rekey(store, replica, network, fresh)).ok_or_else(|| unavailable("this daemon is in no cluster, which has the keys"))??;
        self.install_secrets(network);
        Ok(())
    }
}

fn why(error: &SecretsError, away: Option<&str>) -> String {
    match (error, away) {
        (SecretsError::Missing(_), Some(away)) => format!("the cluster's store, which has the keys, cannot be used: {away}"),
        _ => error.to_string(),
    }
}
