//! Carries changes of the model out.
//!
//! Each change goes: copy the model, change the copy, do it (undoing what was done if a step
//! fails), save, and only then make the copy the model. A request that fails leaves nothing.

mod membership;
mod networks;
mod sandboxes;

use std::{
    collections::BTreeMap,
    io::Read,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dataplane::VipConfig;
use netns_setup::{NamespaceDir, Netns, Space};
use packet::{NetworkId, PortId};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use weft_control::{Code, ControlError, Defaults, EndpointKind, Model, Process, Result, Sandbox, api::SandboxCreate, uplink::UplinkSpec};

pub(crate) use self::{membership::target_name, networks::bridge_config};
use super::{
    cluster::Cluster,
    engine::{Consoles, Execs, History},
    lan::Parents,
    mesh::LiveMesh,
    names::Names,
    publishing::Live,
    store::Store,
    uplink::LiveUplink,
};
use crate::{dataloop::DataPlane, dirs::Dirs, uplink::UplinkCommand};

/// The owner of the model; cheap to clone.
#[derive(Clone)]
pub(crate) struct Runtime {
    inner: Arc<Mutex<Inner>>,
    pub(crate) events: broadcast::Sender<Value>,
    /// Processes to watch: sandbox id and process.
    watch: mpsc::UnboundedSender<(String, Process)>,
    pub(super) execs: Arc<Execs>,
    pub(super) history: Arc<History>,
}

pub(crate) struct Inner {
    pub(crate) model: Model,
    pub(crate) dirs: Dirs,
    pub(crate) names: NamespaceDir,
    pub(crate) dataplane: DataPlane,
    pub(crate) default_kind: EndpointKind,
    pub(crate) kind_reason: String,
    /// Of the daemon, KEY=VALUE.
    pub(crate) labels: Vec<String>,
    pub(crate) rootless: bool,
    store: Store,
    /// Bridges of the data plane, by network id.
    pub(crate) bridges: BTreeMap<String, NetworkId>,
    /// Ports of the data plane, by endpoint id.
    pub(crate) ports: BTreeMap<String, PortId>,
    /// Ports of tunnels, by network id.
    pub(super) tunnels: BTreeMap<String, PortId>,
    /// Overlays that have no way to other nodes, by id, with the reason.
    pub(super) shut: BTreeMap<String, ControlError>,
    /// Ports of lan networks on devices of the host.
    pub(super) parents: Parents,
    /// UDP port of tunnels whose network has none of its own.
    pub(super) vxlan_port: u16,
    /// Where the switch's ends of veth pairs live; made when first needed.
    pub(crate) switch_side: Option<Netns>,
    /// The uplink of packets, if packets have one.
    pub(super) uplink: Option<LiveUplink>,
    flow_watchers: usize,
    /// This node's part in a cluster, if it is in one.
    pub(super) cluster: Option<Cluster>,
    /// Published ports with their listeners, by sandbox id.
    pub(super) live: BTreeMap<String, Vec<Live>>,
    /// Virtual addresses that the data plane was told.
    pub(super) balanced: BTreeMap<NetworkId, Vec<VipConfig>>,
    /// This node's part in the routing mesh.
    pub(super) mesh: LiveMesh,
    /// Name servers, and the files of sandboxes.
    pub(super) resolving: Names,
    pub(crate) events: broadcast::Sender<Value>,
    /// The same in Docker's words.
    history: Arc<History>,
    /// Streams of containers.
    pub(crate) consoles: Consoles,
    /// What runs in sandboxes, by their first process; taken while that runs, as nothing tells afterwards.
    pub(super) spaces: BTreeMap<i32, Space>,
}

pub(crate) fn unavailable(error: impl std::fmt::Display) -> ControlError {
    ControlError::new(Code::Unavailable, "", error.to_string())
}

impl Runtime {
    /// Takes over what a daemon before us left, if it did.
    pub(crate) fn start(dirs: Dirs, dataplane: DataPlane, rootless: bool, wires: (&UplinkSpec, u16), dns: &[IpAddr], defaults: Defaults, watch: mpsc::UnboundedSender<(String, Process)>) -> std::result::Result<Self, String> {
        let (uplink, vxlan_port) = wires;
        let store = Store::new(dirs.state_file());
        let mut model = store.load().map_err(|error| error.to_string())?;
        model.defaults = defaults;
        let (kind, kind_reason) = netns_setup::detect::choose_kind();
        let default_kind = match kind {
            netns_setup::attach::Kind::Tap => EndpointKind::Tap,
            netns_setup::attach::Kind::Veth => EndpointKind::Veth,
        };
        let names = if rootless { NamespaceDir::new(dirs.run.join("named")) } else { NamespaceDir::default() };
        let (events, _) = broadcast::channel(1024);
        let history = Arc::<History>::default();
        let inner = Inner {
            model,
            names,
            dataplane,
            default_kind,
            kind_reason,
            labels: Vec::new(),
            rootless,
            store,
            dirs,
            bridges: BTreeMap::new(),
            ports: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            shut: BTreeMap::new(),
            parents: Parents::new(),
            vxlan_port,
            switch_side: None,
            uplink: None,
            flow_watchers: 0,
            cluster: None,
            live: BTreeMap::new(),
            balanced: BTreeMap::new(),
            mesh: LiveMesh::default(),
            resolving: Names::new(dns).map_err(|error| format!("no thread for names: {error}"))?,
            events: events.clone(),
            history: history.clone(),
            consoles: Consoles::default(),
            spaces: BTreeMap::new(),
        };
        let this = Self { inner: Arc::new(Mutex::new(inner)), events, watch, execs: Arc::default(), history };
        this.lock().start_uplink(uplink).map_err(|error| error.to_string())?;
        let processes = this.lock().recover().map_err(|error| error.to_string())?;
        for process in processes {
            drop(this.watch.send(process));
        }
        Ok(this)
    }

    /// The state, for one request. A request that panicked left the model as it was before it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a sandbox and starts its command, if it has one.
    pub(crate) fn create_sandbox(&self, request: &SandboxCreate) -> Result<Sandbox> {
        let sandbox = self.lock().create_sandbox(request)?;
        if sandbox.command.is_empty() {
            return Ok(sandbox);
        }
        // Not in the match: the lock would be held in its arms, which take it.
        let started = self.lock().start_command(&sandbox.id);
        match started {
            Ok((sandbox, process)) => {
                drop(self.watch.send((sandbox.id.clone(), process)));
                Ok(sandbox)
            }
            Err(error) => {
                drop(self.lock().remove_sandbox(&sandbox.id, true));
                Err(error)
            }
        }
    }

    /// Events of flows come for as long as somebody holds one of these.
    pub(crate) fn watch_flows(&self) -> FlowWatch {
        let mut inner = self.lock();
        inner.flow_watchers += 1;
        drop(inner.dataplane.uplink(UplinkCommand::WatchFlows(true)));
        drop(inner);
        FlowWatch(self.clone())
    }

    /// Has a process watched to its end.
    pub(crate) fn watch_process(&self, sandbox: String, process: Process) {
        drop(self.watch.send((sandbox, process)));
    }

    /// The caller started a process in a sandbox.
    pub(crate) fn process_started(&self, reference: &str, pid: i32) -> Result<Sandbox> {
        let (sandbox, process) = self.lock().note_process(reference, pid)?;
        drop(self.watch.send((sandbox.id.clone(), process)));
        Ok(sandbox)
    }
}

/// See [`Runtime::watch_flows`].
pub(crate) struct FlowWatch(Runtime);

impl Drop for FlowWatch {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.flow_watchers -= 1;
        if inner.flow_watchers == 0 {
            drop(inner.dataplane.uplink(UplinkCommand::WatchFlows(false)));
        }
    }
}

impl Inner {
    /// Saves `model` and makes it the truth.
    pub(crate) fn commit(&mut self, mut model: Model) -> Result<()> {
        model.prune_vips();
        model.refresh();
        self.store.save(&model).map_err(|error| unavailable(format!("cannot save the state: {error}")))?;
        self.model = model;
        self.serve_vips();
        self.serve_mesh();
        self.serve_names();
        self.announce();
        Ok(())
    }

    pub(crate) fn event(&self, kind: &str, details: Value) {
        let mut event = json!({ "type": kind });
        if let (Value::Object(event), Value::Object(details)) = (&mut event, details) {
            event.extend(details);
        }
        self.history.add(&event);
        drop(self.events.send(event));
    }
}

/// 64 hex digits from the kernel's random source.
pub(crate) fn new_id() -> Result<String> {
    Ok(random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Bytes that nobody can guess.
pub(crate) fn random<const BYTES: usize>() -> Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(unavailable)?;
    Ok(bytes)
}
