//! Carries changes of the model out.
//!
//! Each change goes: copy the model, change the copy, do it (undoing what was done if a step
//! fails), save, and only then make the copy the model. A request that fails leaves nothing.

use std::{
    collections::BTreeMap,
    io::Read,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dataplane::{BridgeConfig, Command, L2Mode, Reply, VipConfig};
use netns_setup::{
    NamespaceDir, Netns, Space,
    process::{self, CommandSpec},
};
use packet::{NetworkId, PortId};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use weft_control::{
    Code, ConfigNetwork, Container, ControlError, Defaults, EndpointKind, L2, Model, NetnsTarget, Network, Process, Result, Sandbox,
    api::{EndpointCreate, NetworkCreate, SandboxCreate},
    container::LOG_BOUND,
    port_name,
    uplink::UplinkSpec,
};

use super::{
    cluster::Cluster,
    engine::{Consoles, Execs, History, UNKNOWN},
    lan::Parents,
    mesh::LiveMesh,
    names::Names,
    publishing::{Live, gateway_of},
    store::Store,
    uplink::LiveUplink,
};
use crate::{dataloop::DataPlane, dirs::Dirs, output_log::now_ns, uplink::UplinkCommand};

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
            parents: Parents::new(),
            vxlan_port,
            switch_side: None,
            uplink: None,
            flow_watchers: 0,
            cluster: None,
            live: BTreeMap::new(),
            balanced: BTreeMap::new(),
            mesh: LiveMesh::default(),
            resolving: Names::new(dns),
            events: events.clone(),
            consoles: Consoles::default(),
            spaces: BTreeMap::new(),
        };
        let this = Self { inner: Arc::new(Mutex::new(inner)), events, watch, execs: Arc::default(), history: Arc::default() };
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
        drop(self.events.send(event));
    }

    // ---- networks ----

    pub(crate) fn create_network(&mut self, request: &NetworkCreate) -> Result<Network> {
        let (model, network) = self.claim_network(request)?;
        let made = self.add_bridge(&network).and_then(|bridge| self.open_wires(&network, bridge)).and_then(|()| self.commit(model));
        if let Err(error) = made {
            self.drop_bridge(&network.id);
            drop(self.release_network(&network));
            return Err(error);
        }
        self.event("network create", json!({ "network": network.name, "id": network.id }));
        Ok(network)
    }

    /// The network that `create_network` would make.
    pub(crate) fn plan_network(&self, request: &NetworkCreate) -> Result<Network> {
        let mut model = self.model.clone();
        let id = model.make_network(&self.scoped(request)?, new_id()?)?;
        model.network(&id).cloned()
    }

    /// The sandbox that `create_sandbox` would make.
    pub(crate) fn plan_sandbox(&self, request: &SandboxCreate) -> Result<Sandbox> {
        let mut model = self.model.clone();
        let id = model.create_sandbox(request, new_id()?)?;
        if request.netns != NetnsTarget::New {
            self.open_target(&request.netns)?;
        }
        for endpoint in &request.endpoints {
            model.create_endpoint(&id, endpoint, new_id()?, self.default_kind)?;
        }
        model.sandbox(&id).cloned()
    }

    /// The sandbox as `attach` would leave it.
    pub(crate) fn plan_attach(&self, target: NetnsTarget, endpoint: EndpointCreate) -> Result<Sandbox> {
        let name = target_name(&target);
        match self.model.sandbox(&name).map(|sandbox| sandbox.id.clone()) {
            Ok(id) => {
                let mut model = self.model.clone();
                model.create_endpoint(&id, &endpoint, new_id()?, self.default_kind)?;
                model.sandbox(&id).cloned()
            }
            Err(_) => self.plan_sandbox(&attached(target, endpoint)),
        }
    }

    /// Removes the networks that nobody is in and that are `wanted`, but for the default one: all or none; gives
    /// their names.
    pub(crate) fn prune_networks(&mut self, wanted: impl Fn(&Network) -> bool) -> Result<Vec<String>> {
        let used = self.model.networks_in_use();
        let unused = |network: &&Network| network.name != "bridge" && !used.contains(network.id.as_str()) && wanted(network);
        let gone: Vec<Network> = self.model.networks.values().filter(unused).cloned().collect();
        let mut model = self.model.clone();
        for network in &gone {
            model.remove_network(&network.id)?;
            self.release_network(network)?;
        }
        self.commit(model)?;
        for network in &gone {
            self.network_gone(network);
        }
        Ok(gone.into_iter().map(|network| network.name).collect())
    }

    /// What a network was, in the data plane.
    fn network_gone(&mut self, network: &Network) {
        self.drop_bridge(&network.id);
        self.event("network destroy", json!({ "network": network.name, "id": network.id }));
    }

    pub(crate) fn add_bridge(&mut self, network: &Network) -> Result<NetworkId> {
        match self.dataplane.apply(Command::AddBridge(bridge_config(network))).map_err(unavailable)? {
            Reply::Network(bridge) => {
                self.bridges.insert(network.id.clone(), bridge);
                self.serve_network(network, bridge)?;
                Ok(bridge)
            }
            other => Err(unavailable(format!("unexpected answer {other:?}"))),
        }
    }

    /// What leads from a network's bridge elsewhere: to other nodes, or to a LAN.
    pub(super) fn open_wires(&mut self, network: &Network, bridge: NetworkId) -> Result<()> {
        self.open_tunnel(network, bridge)?;
        self.open_parent(network, bridge)
    }

    pub(super) fn drop_bridge(&mut self, id: &str) {
        self.close_tunnel(id);
        self.close_parent(id);
        if let Some(bridge) = self.bridges.remove(id) {
            self.resolving.forget(bridge);
            self.balanced.remove(&bridge);
            self.forget_mesh_port(bridge);
            drop(self.dataplane.uplink(UplinkCommand::RemoveNetwork(bridge)));
            drop(self.dataplane.apply(Command::RemoveBridge(bridge)));
        }
    }

    pub(crate) fn remove_network(&mut self, reference: &str) -> Result<Network> {
        let mut model = self.model.clone();
        let network = model.remove_network(reference)?;
        self.release_network(&network)?;
        self.commit(model)?;
        self.network_gone(&network);
        Ok(network)
    }

    /// Removes a configuration of networks; nothing if a network, or nobody, is called so.
    pub(crate) fn remove_config(&mut self, reference: &str) -> Result<Option<ConfigNetwork>> {
        if self.model.network(reference).is_ok() || self.model.config(reference).is_none() {
            return Ok(None);
        }
        let mut model = self.model.clone();
        let config = model.remove_config(reference)?;
        self.commit(model)?;
        Ok(Some(config))
    }

    // ---- sandboxes ----

    fn create_sandbox(&mut self, request: &SandboxCreate) -> Result<Sandbox> {
        let mut model = self.model.clone();
        let id = model.create_sandbox(request, new_id()?)?;
        Self::check_names(model.sandbox(&id)?)?;
        if let Some(sandbox) = model.sandboxes.get_mut(&id) {
            sandbox.created_ns = now_ns();
        }
        self.bring_up(model, &id, &request.endpoints, &request.publish)?;
        let sandbox = self.model.sandbox(&id)?.clone();
        self.event("sandbox create", json!({ "sandbox": sandbox.name, "id": sandbox.id }));
        Ok(sandbox)
    }

    /// Gives a sandbox of `model` its namespace, endpoints and published ports, and makes `model` the truth.
    pub(crate) fn bring_up(&mut self, mut model: Model, id: &str, endpoints: &[EndpointCreate], publish: &[String]) -> Result<()> {
        let target = model.sandbox(id)?.netns.clone();
        let netns = if target == NetnsTarget::New {
            Some(Netns::create_pinned(self.dirs.pins().join(id)).map_err(unavailable)?)
        } else {
            self.open_target(&target)?
        };
        if let Some(sandbox) = model.sandboxes.get_mut(id) {
            sandbox.identity = netns.as_ref().and_then(|netns| netns.identity().ok());
        }
        let mut made = Vec::new();
        let result = endpoints
            .iter()
            .try_for_each(|endpoint| self.add_endpoint(&mut model, id, endpoint, netns.as_ref()).map(|endpoint| made.push(endpoint)))
            .and_then(|()| self.add_way_out(&mut model, id, netns.as_ref()))
            .and_then(|way_out| {
                made.extend(way_out);
                let published = self.publish_all(&model.sandbox(id)?.clone(), publish)?;
                if let Some(sandbox) = model.sandboxes.get_mut(id) {
                    sandbox.publishes = published;
                }
                self.commit(model.clone())
            });
        if let Err(error) = result {
            self.unpublish_all(id);
            for endpoint in made.iter().rev() {
                self.close_endpoint(model.sandboxes.get(id), endpoint, netns.as_ref());
            }
            self.unpin(id);
            self.resolving.remove_files(&self.dirs, id);
            return Err(error);
        }
        Ok(())
    }

    fn start_command(&mut self, id: &str) -> Result<(Sandbox, Process)> {
        let sandbox = self.model.sandbox(id)?.clone();
        let netns = self.open_sandbox(&sandbox)?.ok_or_else(|| unavailable("a device has no namespace to run a command in"))?;
        let streams = self.console(&sandbox.id).open(false, false, LOG_BOUND).map_err(unavailable)?;
        let spec = CommandSpec {
            command: sandbox.command.clone(),
            environment: sandbox.env.clone().into_iter().collect(),
            hostname: sandbox.hostname.clone(),
            detached: true,
            etc: Some(self.dirs.etc_of(&sandbox.id)).filter(|_| sandbox.is_ours()),
            ..CommandSpec::default()
        };
        let mut child = process::spawn_with(&netns, &spec, streams).map_err(unavailable)?;
        let pid = i32::try_from(child.id()).map_err(unavailable)?;
        let noted = self.note_process(id, pid);
        if noted.is_err() {
            drop(child.kill());
            drop(child.wait());
        }
        noted
    }

    pub(crate) fn note_process(&mut self, reference: &str, pid: i32) -> Result<(Sandbox, Process)> {
        let id = self.model.sandbox(reference)?.id.clone();
        let start = process::start_time(pid).ok_or_else(|| ControlError::new(Code::NotFound, pid.to_string(), format!("no process {pid}")))?;
        let process = Process { pid, start };
        self.spaces.insert(pid, Space::of(pid));
        let mut model = self.model.clone();
        if let Some(sandbox) = model.sandboxes.get_mut(&id) {
            sandbox.process = Some(process);
        }
        self.commit(model)?;
        let sandbox = self.model.sandbox(&id)?.clone();
        self.event("sandbox start", json!({ "sandbox": sandbox.name, "id": sandbox.id, "pid": pid }));
        Ok((sandbox, process))
    }

    /// A sandbox's process ended with `code`, if that is known: the sandbox ends with it, but a container stays.
    pub(crate) fn process_ended(&mut self, id: &str, process: Process, code: Option<i32>) {
        let Some(sandbox) = self.model.sandboxes.get(id).filter(|sandbox| sandbox.process == Some(process)) else { return };
        if sandbox.container.is_some() {
            self.container_ended(id, code.unwrap_or(UNKNOWN));
            return;
        }
        self.event("sandbox die", json!({ "sandbox": sandbox.name, "id": sandbox.id }));
        if let Err(error) = self.remove_sandbox(id, true) {
            tracing::warn!(sandbox = id, %error, "cannot remove a sandbox whose process ended");
        }
    }

    /// Takes down what a container has while it runs; `note` what became of it.
    pub(crate) fn lay_to_rest(&mut self, id: &str, note: impl FnOnce(&mut Container)) {
        let Some(sandbox) = self.model.sandboxes.get(id).cloned() else { return };
        let netns = self.open_sandbox(&sandbox).ok().flatten();
        self.unpublish_all(id);
        self.end_flows(&sandbox);
        let mut model = self.model.clone();
        if let Some(stored) = model.sandboxes.get_mut(id) {
            *stored = Sandbox { process: None, endpoints: Vec::new(), publishes: Vec::new(), netns: NetnsTarget::New, identity: None, ..stored.clone() };
            stored.container.as_mut().map(note);
        }
        model.prune_vips();
        // It has ended whether or not that can be saved; after a restart it is seen again.
        if let Err(error) = self.store.save(&model) {
            tracing::error!(%error, "cannot save the state");
        }
        model.refresh();
        self.model = model;
        self.serve_vips();
        self.serve_mesh();
        self.serve_names();
        for endpoint in &sandbox.endpoints {
            self.close_endpoint(Some(&sandbox), endpoint, netns.as_ref());
        }
        self.unpin(id);
    }

    /// Gives a sandbox, and so its ports, another name.
    pub(crate) fn rename_sandbox(&mut self, id: &str, name: &str) -> Result<()> {
        let mut model = self.model.clone();
        model.rename_sandbox(id, name)?;
        self.claim_name(&model, id)?;
        self.commit(model)?;
        let sandbox = self.model.sandbox(id)?.clone();
        self.rename_ports(&sandbox);
        self.event("sandbox rename", json!({ "sandbox": sandbox.name, "id": sandbox.id }));
        Ok(())
    }

    pub(crate) fn remove_sandbox(&mut self, reference: &str, force: bool) -> Result<Sandbox> {
        let sandbox = self.model.sandbox(reference)?.clone();
        let running = sandbox.process.filter(|process| process::start_time(process.pid) == Some(process.start));
        if let Some(process) = running {
            if !force {
                return Err(ControlError::new(Code::Conflict, &sandbox.name, format!("sandbox {} is running (process {})", sandbox.name, process.pid))
                    .hint("stop it, or use `weft rm -f`"));
            }
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid), nix::sys::signal::Signal::SIGKILL).ok();
        }
        // Its flows end first: they may hold the descriptors that saving needs.
        self.unpublish_all(&sandbox.id);
        self.end_flows(&sandbox);
        let mut model = self.model.clone();
        model.sandboxes.remove(&sandbox.id);
        self.commit(model)?;
        let netns = self.open_sandbox(&sandbox).ok().flatten();
        for endpoint in &sandbox.endpoints {
            self.close_endpoint(Some(&sandbox), endpoint, netns.as_ref());
        }
        self.unpin(&sandbox.id);
        self.resolving.remove_files(&self.dirs, &sandbox.id);
        // Also of one that nobody has asked for since the daemon started.
        drop(self.console(&sandbox.id));
        self.consoles.remove(&sandbox.id);
        self.event("sandbox destroy", json!({ "sandbox": sandbox.name, "id": sandbox.id }));
        Ok(sandbox)
    }

    pub(crate) fn unpin(&self, id: &str) {
        let pin = self.dirs.pins().join(id);
        if pin.exists() {
            drop(Netns::unpin(&pin).inspect_err(|error| tracing::warn!(%error, "a namespace stays pinned")));
        }
    }

    // ---- membership ----

    pub(crate) fn connect(&mut self, sandbox: &str, request: &EndpointCreate) -> Result<Sandbox> {
        let sandbox = self.model.sandbox(sandbox)?.clone();
        if sandbox.is_at_rest() {
            return Err(ControlError::new(Code::Conflict, &sandbox.name, format!("container {} does not run", sandbox.name)).hint("start it, or connect it with `docker network connect`"));
        }
        let netns = self.open_sandbox(&sandbox)?;
        let mut model = self.model.clone();
        let endpoint = self.add_endpoint(&mut model, &sandbox.id, request, netns.as_ref())?;
        let mut made = vec![endpoint.clone()];
        let done = self.add_way_out(&mut model, &sandbox.id, netns.as_ref()).and_then(|way_out| {
            made.extend(way_out);
            let after = model.sandbox(&sandbox.id)?.clone();
            self.commit(model).inspect_err(|_| self.reroute(&after, netns.as_ref()))
        });
        if let Err(error) = done {
            made.iter().for_each(|endpoint| self.close_endpoint(Some(&sandbox), endpoint, netns.as_ref()));
            return Err(error);
        }
        self.follow_endpoints(&sandbox);
        self.event("network connect", json!({ "network": self.network_name_of(&endpoint.network), "id": endpoint.network, "sandbox": sandbox.name, "sandbox_id": sandbox.id, "port": port_name(&sandbox, &endpoint) }));
        Ok(self.model.sandbox(&sandbox.id)?.clone())
    }

    /// Takes an endpoint away; a sandbox that was only attached goes with its last endpoint.
    pub(crate) fn disconnect(&mut self, sandbox: &str, network: &str) -> Result<Sandbox> {
        let network_id = self.model.network(network)?.id.clone();
        let sandbox = self.model.sandbox(sandbox)?.clone();
        let Some(endpoint) = sandbox.endpoints.iter().find(|endpoint| endpoint.network == network_id).cloned() else {
            return Err(ControlError::new(Code::NotFound, &sandbox.name, format!("{} is not connected to network {network}", sandbox.name)));
        };
        let mut model = self.model.clone();
        model.remove_endpoint(&sandbox.id, &endpoint.id);
        let way_out = model.remove_idle_way_out(&sandbox.id);
        if !sandbox.is_ours() && sandbox.endpoints.len() == 1 {
            model.sandboxes.remove(&sandbox.id);
        }
        self.commit(model)?;
        let netns = self.open_sandbox(&sandbox).ok().flatten();
        for endpoint in way_out.iter().chain([&endpoint]) {
            self.close_endpoint(Some(&sandbox), endpoint, netns.as_ref());
        }
        self.reroute(&sandbox, netns.as_ref());
        self.follow_endpoints(&sandbox);
        self.event("network disconnect", json!({ "network": self.network_name_of(&network_id), "id": network_id, "sandbox": sandbox.name, "sandbox_id": sandbox.id, "port": port_name(&sandbox, &endpoint) }));
        Ok(sandbox)
    }

    fn network_name_of(&self, id: &str) -> String {
        self.model.networks.get(id).map_or_else(String::new, |network| network.name.clone())
    }

    /// A namespace or device that is not ours joins a network; it becomes a sandbox of its own kind.
    pub(crate) fn attach(&mut self, target: NetnsTarget, endpoint: EndpointCreate) -> Result<Sandbox> {
        let target = match target {
            // A sandbox of ours by name is that sandbox.
            NetnsTarget::Name(name) if self.model.sandbox(&name).is_ok() => return self.connect(&name, &endpoint),
            other => other,
        };
        if target == NetnsTarget::Device("lo".into()) {
            return Err(ControlError::new(Code::Invalid, "lo", "lo is no device to attach: nothing but the host itself is behind it").hint("use --host-port to put the host on the network"));
        }
        let name = target_name(&target);
        if self.model.sandboxes.values().any(|sandbox| sandbox.name == name) {
            return self.connect(&name, &endpoint);
        }
        self.create_sandbox(&attached(target, endpoint))
    }
}

/// The data plane's form of a network.
pub(super) fn bridge_config(network: &Network) -> BridgeConfig {
    BridgeConfig {
        l2: match network.l2 {
            L2::Bridge => L2Mode::Bridge,
            L2::Transparent => L2Mode::Transparent,
            L2::Hub => L2Mode::Hub,
        },
        ageing: Duration::from_secs(u64::from(network.ageing_s)),
        gateway: gateway_of(network),
        ..BridgeConfig::new(&network.name)
    }
}

/// A sandbox that is not ours, to be made for its first endpoint.
fn attached(target: NetnsTarget, endpoint: EndpointCreate) -> SandboxCreate {
    SandboxCreate {
        name: Some(target_name(&target)),
        netns: target,
        endpoints: vec![endpoint],
        ..SandboxCreate::default()
    }
}

/// How a sandbox that is not ours is called.
pub(crate) fn target_name(target: &NetnsTarget) -> String {
    match target {
        NetnsTarget::New => "new".into(),
        NetnsTarget::Host => "host".into(),
        NetnsTarget::Name(name) => name.clone(),
        NetnsTarget::Pid(pid) => format!("pid{pid}"),
        NetnsTarget::Path(path) => match path.strip_prefix("/run/netns/") {
            Some(name) if !name.contains('/') => name.into(),
            _ => path.clone(),
        },
        NetnsTarget::Device(device) => format!("dev-{device}"),
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
