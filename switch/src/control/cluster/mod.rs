//! Networks that this node shares with the others of its cluster.
//!
//! What is asked of a shared network is checked on a copy of the model, written to the store, and only then done. Two
//! clients of the store: the runtime's, for changes, behind the lock and so bounded in time; and the keeper's
//! (`keeper.rs`), which watches and renews without the lock. When the store is away, shared networks cannot be changed,
//! at once and with the reason; everything else goes on, and what ended meanwhile is told when it is back.

mod check;
mod keeper;
mod program;
mod secrets;
mod way_out;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use serde_json::json;
use weft_control::{
    Code, ControlError, Endpoint, Model, Network, Result, Sandbox,
    api::{EndpointCreate, NetworkCreate, NodeInfo},
    cluster::{ClusterError, Elsewhere, Keys, Lost, Member, NodeRecord, Replica, missing, reconcile},
    overlay,
    store::{Store, StoreConfig, StoreError},
};

pub(super) use check::Checks;
pub(super) use keeper::start;

use self::secrets::Secrets;
use super::runtime::{Inner, new_id, unavailable};
use crate::{dirs::Dirs, output_log::now_ns};

/// Why nothing is shared before the first answer.
const NOT_ASKED: &str = "it was not asked yet";
/// How often a change is tried that others keep coming before.
pub(super) const TRIES: usize = 16;

/// How this node takes part.
#[derive(Clone, Debug)]
pub(crate) struct ClusterConfig {
    pub(crate) store: StoreConfig,
    /// Its name; unique.
    pub(crate) node: String,
    /// Where other nodes reach its tunnels.
    pub(crate) advertise: IpAddr,
    /// Its API's port, if that is reached from elsewhere.
    pub(crate) api_port: Option<u16>,
    /// How long what it has outlives it.
    pub(crate) lease: Duration,
    pub(crate) keys: Keys,
}

/// This node's part in a cluster.
pub(crate) struct Cluster {
    config: ClusterConfig,
    store: Box<dyn Store + Send>,
    member: Member,
    replica: Replica,
    /// Why nothing can be shared now.
    away: Option<String>,
    /// What was missing when the store came back, and how long it may stay so.
    spared: Option<(Elsewhere, Instant)>,
    keeper: Arc<Signals>,
    secrets: Secrets,
    /// Problems that were logged.
    told: BTreeSet<String>,
}

/// What the keeper is told.
#[derive(Debug)]
struct Signals {
    /// Something got no answer, or the lease is gone: compare everything.
    again: AtomicBool,
    stop: AtomicBool,
    wake: Sender<()>,
}

impl Signals {
    fn new(wake: Sender<()>) -> Self {
        Self { again: AtomicBool::new(false), stop: AtomicBool::new(false), wake }
    }

    fn compare_again(&self) {
        self.again.store(true, Ordering::Relaxed);
        self.wake.try_send(()).ok();
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake.try_send(()).ok();
    }
}

impl Cluster {
    fn new(config: ClusterConfig, store: Box<dyn Store + Send>, (id, vxlan_port): (String, u16), keeper: Arc<Signals>) -> Self {
        let station = station_of(&id);
        let node = NodeRecord { station, id, name: config.node.clone(), ip: config.advertise, api_port: config.api_port, vxlan_port, since_ns: now_ns() };
        Self {
            store,
            member: Member::new(config.keys.clone(), node, config.lease),
            replica: Replica::new(config.keys.clone()),
            away: Some(NOT_ASKED.into()),
            spared: None,
            keeper,
            secrets: Secrets::default(),
            told: BTreeSet::new(),
            config,
        }
    }

    /// Does something in the store, unless it is known not to answer.
    fn share<T>(&mut self, work: impl FnOnce(&mut Member, &mut dyn Store, &mut Replica) -> std::result::Result<T, ClusterError>) -> Result<T> {
        if let Some(why) = &self.away {
            return Err(self.is_away(why));
        }
        work(&mut self.member, &mut *self.store, &mut self.replica).map_err(|error| match error {
            ClusterError::Refused(error) => error,
            ClusterError::Store(StoreError::Away(why)) => {
                self.keeper.compare_again();
                let error = self.is_away(&why);
                self.away = Some(why);
                error
            }
            ClusterError::Store(StoreError::LeaseEnded) => {
                self.keeper.compare_again();
                ControlError::new(Code::Unavailable, &self.config.node, "this node was not heard of in time, and joins its cluster again").hint("try again in a moment")
            }
            other => unavailable(format!("the cluster's store {}: {other}", self.config.store.url)),
        })
    }

    fn is_away(&self, why: &str) -> ControlError {
        let store = &self.config.store.url;
        ControlError::new(Code::Unavailable, store.to_string(), format!("the cluster's store {store} cannot be used: {why}"))
            .hint("networks of this node alone work without it; `weft doctor` tells what answers")
    }
}

/// Tells this node from another of the same name, as long as its state directory stays.
fn identity(dirs: &Dirs) -> Result<String> {
    let path = dirs.state.join("node-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unavailable(format!("cannot read {}: {error}", path.display()))),
        // None yet, or made when the machine lost its power.
        _ => {
            let id = new_id()?;
            std::fs::write(&path, &id).map_err(|error| unavailable(format!("cannot write {}: {error}", path.display())))?;
            Ok(id)
        }
    }
}

impl Inner {
    /// Does something in the store; nothing without a cluster.
    fn share<T>(&mut self, work: impl FnOnce(&mut Member, &mut dyn Store, &mut Replica) -> std::result::Result<T, ClusterError>) -> Option<Result<T>> {
        self.cluster.as_mut().map(|cluster| cluster.share(work))
    }

    /// The request, complete, as this node takes it.
    pub(super) fn scoped(&self, request: &NetworkCreate) -> Result<NetworkCreate> {
        let cluster = self.cluster.as_ref().map(|Cluster { config, .. }| overlay::Membership { advertise: config.advertise, lease: config.lease });
        overlay::scoped(self.model.complete(request)?, cluster).map(|request| self.on_parent(request))
    }

    /// The model with a network more, which the cluster has then too if it is to.
    pub(super) fn claim_network(&mut self, request: &NetworkCreate) -> Result<(Model, Network)> {
        let request = self.scoped(request)?;
        let id = new_id()?;
        for _ in 0..TRIES {
            let mut model = self.model.clone();
            model.make_network(&request, id.clone())?;
            if let Some(network) = model.networks.get_mut(&id) {
                network.created_ns = now_ns();
            }
            let network = model.network(&id)?.clone();
            self.check_against_uplink(&network)?;
            self.check_mtu_of_parent(&network)?;
            let shared = network.overlay.as_ref().filter(|overlay| overlay.global && overlay.encrypted);
            let secret = shared.map(|_| secrets::fresh()).transpose()?;
            network.overlay.as_ref().map(super::overlay::keys_of).transpose()?;
            if !network.is_global() || self.share(|member, store, replica| member.create_network(store, replica, &network, secret)).transpose()? != Some(false) {
                // In a network of the routing mesh the other nodes are there already.
                self.reconcile(&mut model);
                let network = model.network(&id)?.clone();
                return Ok((model, network));
            }
            self.read_again()?;
        }
        Err(busy(&request.name))
    }

    /// The cluster has it no longer.
    pub(super) fn release_network(&mut self, network: &Network) -> Result<()> {
        if !network.is_global() {
            return Ok(());
        }
        self.share(|member, store, replica| member.remove_network(store, replica, network)).unwrap_or(Ok(()))
    }

    /// An endpoint of `model`, whose name and addresses are this node's in the cluster too.
    pub(super) fn claim_endpoint(&mut self, model: &mut Model, sandbox: &str, request: &EndpointCreate) -> Result<Endpoint> {
        let id = new_id()?;
        for _ in 0..TRIES {
            let mut attempt = model.clone();
            let endpoint = attempt.create_endpoint(sandbox, request, id.clone(), self.default_kind)?;
            let owner = attempt.sandbox(sandbox)?.clone();
            let network = attempt.network(&endpoint.network)?.clone();
            if !network.is_global() || self.share(|member, store, replica| member.create_endpoint(store, replica, &network, &owner, &endpoint)).transpose()? != Some(false) {
                *model = attempt;
                return Ok(endpoint);
            }
            self.read_again()?;
            self.reconcile(model);
        }
        Err(busy(sandbox))
    }

    /// The cluster has it no longer. What cannot be told now is told when the store is back.
    pub(super) fn release_endpoint(&mut self, endpoint: &Endpoint) {
        let released = self.share(|member, store, replica| {
            member.remove_endpoint(store, replica, &endpoint.network, &endpoint.id)?;
            member.prune(store, replica)
        });
        match released {
            None | Some(Ok(false)) => {}
            Some(Ok(true)) => self.adopt_replica(),
            Some(Err(error)) => {
                tracing::debug!(%error, "an endpoint is still in the store");
                self.compare_again();
            }
        }
    }

    /// What a sandbox is to publish by the routing mesh is its service's in the cluster too. False when another node was quicker:
    /// this one knows now what there is.
    pub(super) fn claim_mesh(&mut self, sandbox: &Sandbox) -> Result<bool> {
        let model = self.model.clone();
        let Some(endpoint) = model.publishing_endpoint(sandbox).filter(|endpoint| model.is_meshed(endpoint)) else { return Ok(true) };
        let done = self.share(|member, store, replica| member.update_endpoint(store, replica, &model, sandbox, endpoint)).transpose()? != Some(false);
        if !done {
            self.read_again()?;
        }
        Ok(done)
    }

    /// What the others are told of this node.
    pub(super) fn own_node(&self) -> Option<&NodeRecord> {
        self.cluster.as_ref().map(|cluster| &cluster.member.node)
    }

    /// A sandbox's new name is this node's in all shared networks; `model` has it already.
    pub(super) fn claim_name(&mut self, model: &Model, sandbox: &str) -> Result<()> {
        let sandbox = model.sandbox(sandbox)?.clone();
        for endpoint in sandbox.endpoints.iter().filter(|endpoint| model.is_global(&endpoint.network)) {
            if self.share(|member, store, replica| member.update_endpoint(store, replica, model, &sandbox, endpoint)).transpose()? == Some(false) {
                self.announce();
                self.read_again()?;
                let mut renamed = self.model.clone();
                renamed.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
                renamed.check_mesh(&sandbox, endpoint)?;
                let network = model.network(&endpoint.network)?;
                return Err(ControlError::new(Code::Exists, &sandbox.name, format!("endpoint with name {} already exists in network {}", sandbox.name, network.name)));
            }
        }
        Ok(())
    }

    /// Tells the cluster what became different in this node's endpoints: a name, a port that is published, one that is down.
    pub(super) fn announce(&mut self) {
        let model = &self.model;
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.away.is_some() {
            // What differs then is told.
            return cluster.keeper.again.store(true, Ordering::Relaxed);
        }
        for sandbox in model.sandboxes.values() {
            for endpoint in sandbox.endpoints.iter().filter(|endpoint| model.is_global(&endpoint.network)) {
                match cluster.share(|member, store, replica| member.update_endpoint(store, replica, model, sandbox, endpoint)) {
                    Ok(true) => {}
                    // Somebody was quicker: then all is compared.
                    Ok(false) => cluster.keeper.compare_again(),
                    Err(error) => return tracing::warn!(%error, "the other nodes are told later"),
                }
            }
        }
        match cluster.share(|member, store, replica| member.prune(store, replica)) {
            Ok(true) => self.adopt_replica(),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "what nobody serves is given back later"),
        }
    }

    /// All is compared again, soon.
    pub(super) fn compare_again(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.keeper.compare_again();
        }
    }

    pub(in crate::control) fn reconcile(&self, model: &mut Model) {
        // While the store is away, what was heard last may be nothing at all.
        if let Some(cluster) = self.cluster.as_ref().filter(|cluster| cluster.away.is_none()) {
            let nothing = Elsewhere::default();
            let spared = cluster.spared.as_ref().map_or(&nothing, |(spared, _)| spared);
            reconcile(model, &cluster.replica, &cluster.config.node, self.vxlan_port, spared);
        }
    }

    /// Others were quicker: takes over everything that there is.
    fn read_again(&mut self) -> Result<()> {
        let read = self.share(|member, store, replica| {
            replica.reset(store.range(&member.keys.all())?);
            Ok(())
        });
        read.transpose()?;
        self.adopt_replica();
        Ok(())
    }

    /// Makes this node match the replica.
    fn adopt_replica(&mut self) {
        if let Some(Cluster { spared: Some((spared, _)), replica, .. }) = &mut self.cluster {
            *spared = missing(spared, replica);
        }
        // What a node that died served alone is given back by one that lives.
        let is_first = |cluster: &&mut Cluster| cluster.away.is_none() && cluster.replica.nodes().map(|node| &node.name).min() == Some(&cluster.config.node);
        if let Some(Err(error)) = self.cluster.as_mut().filter(is_first).map(|cluster| cluster.share(|member, store, replica| member.prune(store, replica))) {
            tracing::debug!(%error, "what nobody serves is given back later");
        }
        let mut model = self.model.clone();
        self.reconcile(&mut model);
        if model != self.model {
            self.adopt(model);
        }
        self.install_all_secrets();
        let Some(cluster) = &mut self.cluster else { return };
        let problems: BTreeSet<_> = cluster.replica.problems().collect();
        for problem in problems.difference(&cluster.told) {
            tracing::error!("in the cluster's store, and not used: {problem}");
        }
        cluster.told = problems;
    }

    /// Joins unless this node is in, compares everything both ways, and gives the revision after which to watch. `store` is the keeper's.
    fn sync(&mut self, store: &mut dyn Store) -> std::result::Result<u64, ClusterError> {
        let Some(cluster) = &mut self.cluster else { return Ok(0) };
        let was_in = cluster.member.lease();
        let old = cluster.member.join(store)?;
        let snapshot = store.range(&cluster.config.keys.all())?;
        let revision = snapshot.revision;
        cluster.replica.reset(snapshot);
        let lost = cluster.member.register(store, &mut cluster.replica, &self.model)?;
        if let Some(old) = old {
            store.revoke(old)?;
        }
        let joined = was_in != cluster.member.lease();
        self.is_back(joined);
        for lost in lost {
            self.lose(&lost);
        }
        self.adopt_replica();
        // Also when nothing has changed since this daemon's last life.
        self.serve_mesh();
        Ok(revision)
    }

    /// The store answers.
    fn is_back(&mut self, joined: bool) {
        let Some(cluster) = &mut self.cluster else { return };
        let (was_away, node) = (cluster.away.take(), cluster.config.node.clone());
        if was_away.as_ref().is_some_and(|why| why != NOT_ASKED) {
            cluster.spared = Some((missing(&self.model.elsewhere, &cluster.replica), Instant::now() + cluster.config.lease));
        }
        if joined {
            tracing::info!(store = %cluster.config.store.url, "joined the cluster as {node}");
        } else if let Some(why) = was_away {
            tracing::info!("the cluster's store is back (it was away: {why})");
        } else {
            return;
        }
        self.event("cluster back", json!({ "node": node }));
    }

    /// Who is not back by now is gone.
    fn stop_sparing(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.spared.as_ref().is_some_and(|(_, until)| *until <= Instant::now()) {
            cluster.spared = None;
            self.adopt_replica();
        }
    }

    /// It does not.
    fn is_gone(&mut self, why: &str) {
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.away.replace(why.to_owned()).is_none_or(|before| before == NOT_ASKED) {
            let node = cluster.config.node.clone();
            tracing::warn!("the cluster's store cannot be used: {why}");
            self.event("cluster away", json!({ "node": node, "why": why }));
            self.install_all_secrets();
        }
    }

    /// While this node could not be heard, another took what an endpoint had.
    fn lose(&mut self, lost: &Lost) {
        let Some(sandbox) = self.model.sandboxes.get(&lost.sandbox).cloned() else { return };
        let Some(endpoint) = sandbox.endpoints.iter().find(|endpoint| endpoint.network == lost.network).cloned() else { return };
        let network = self.model.networks.get(&lost.network).map_or_else(|| lost.network.clone(), |network| network.name.clone());
        tracing::warn!(sandbox = sandbox.name, network, "disconnected: {}", lost.why);
        self.event("endpoint lost", json!({ "sandbox": sandbox.name, "sandbox_id": sandbox.id, "network": network, "id": lost.network, "why": lost.why }));
        let netns = self.open_sandbox(&sandbox).ok().flatten();
        self.drop_endpoint(&sandbox, &endpoint, netns.as_ref());
        let mut model = self.model.clone();
        if let Some(way_out) = model.remove_idle_way_out(&sandbox.id) {
            self.drop_endpoint(&sandbox, &way_out, netns.as_ref());
        }
    }

    /// Nodes of the cluster.
    pub(crate) fn nodes(&self) -> Result<Vec<NodeInfo>> {
        let Some(cluster) = &self.cluster else {
            return Err(ControlError::new(Code::NotFound, "cluster", "this node is in no cluster").hint("start the daemon with --cluster-store etcd://HOST:PORT"));
        };
        let nodes = self.model.elsewhere.nodes.values();
        Ok(nodes
            .map(|node| NodeInfo { name: node.name.clone(), ip: node.ip, api_port: node.api_port, vxlan_port: node.vxlan_port, since_ns: node.since_ns, own: node.name == cluster.config.node })
            .collect())
    }

    /// The daemon ends. Endpoints that stay for its next start keep what is theirs for as long as the lease lasts.
    pub(super) fn leave_cluster(&mut self) {
        let shares = self.model.sandboxes.values().flat_map(|sandbox| &sandbox.endpoints).any(|endpoint| self.model.is_global(&endpoint.network));
        let Some(cluster) = &mut self.cluster else { return };
        cluster.keeper.stop();
        if !shares && cluster.away.is_none() {
            drop(cluster.share(|member, store, _| member.leave(store)));
        }
    }
}

/// The address of this node's station in the routing mesh: locally administered (06), and of the node's id, forty bits.
fn station_of(id: &str) -> Option<String> {
    let digits: Vec<_> = (0..5).filter_map(|byte| id.get(2 * byte..2 * byte + 2)).collect();
    (digits.len() == 5 && id.bytes().all(|digit| digit.is_ascii_hexdigit())).then(|| format!("06:{}", digits.join(":")))
}

pub(super) fn busy(subject: &str) -> ControlError {
    ControlError::new(Code::Unavailable, subject, format!("{subject}: other nodes were quicker {TRIES} times")).hint("try again")
}
