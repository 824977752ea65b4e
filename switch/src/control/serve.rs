//! The daemon: data plane, runtime, listener, watches, and their end.

use std::{net::IpAddr, thread::JoinHandle, time::Duration};

use serde_json::json;
use tokio::{sync::mpsc, task};
use weft_control::{Defaults, Process, config::DefaultNetwork, uplink::UplinkSpec};

use super::{
    cluster::{self, ClusterConfig},
    ending::end_of,
    http,
    listen::{Address, Doors, Files, TlsFiles},
    rootless,
    runtime::{Runtime, random},
};
use crate::{
    dataloop::{DataPlane, IoBackend, LoopConfig, LoopEvent},
    dirs::Dirs,
};

/// What the daemon needs to start.
#[derive(Clone, Debug)]
pub(crate) struct DaemonConfig {
    pub(crate) dirs: Dirs,
    pub(crate) io: IoBackend,
    pub(crate) rootless: bool,
    pub(crate) uplink: UplinkSpec,
    /// Servers for names that are not ours; the host's when empty.
    pub(crate) dns: Vec<IpAddr>,
    /// Whether sandboxes on the default network know each other by name; as it was when missing.
    pub(crate) bridge_names: Option<bool>,
    /// What it is to be; as it was when missing.
    pub(crate) default_network: Option<DefaultNetwork>,
    pub(crate) defaults: Defaults,
    pub(crate) vxlan_port: u16,
    pub(crate) lifetimes: nat::Lifetimes,
    /// The nodes that networks are shared with.
    pub(crate) cluster: Option<ClusterConfig>,
    /// Where the API listens.
    pub(crate) hosts: Vec<Address>,
    pub(crate) tls: Option<TlsFiles>,
    /// KEY=VALUE, shown.
    pub(crate) labels: Vec<String>,
}

impl DaemonConfig {
    /// As a daemon is that was told nothing.
    pub(crate) fn new(dirs: Dirs, rootless: bool) -> Self {
        Self {
            dirs,
            io: IoBackend::Auto,
            rootless,
            uplink: UplinkSpec::Sockets,
            dns: Vec::new(),
            bridge_names: None,
            default_network: None,
            defaults: Defaults::default(),
            vxlan_port: vxlan::PORT,
            lifetimes: nat::Lifetimes::default(),
            hosts: vec![Address::Unix(None)],
            tls: None,
            labels: Vec::new(),
            cluster: None,
        }
    }
}

/// A running daemon, driven by the current tokio runtime.
pub(crate) struct Daemon {
    pub(crate) runtime: Runtime,
    config: DaemonConfig,
    dataplane: DataPlane,
    thread: JoinHandle<()>,
    _sockets: Files,
}

/// How often namespaces of others are looked at, when there are any.
const SWEEP: Duration = Duration::from_millis(500);

/// The switch and what it is told, with what a daemon before it left.
struct Engine {
    runtime: Runtime,
    dataplane: DataPlane,
    thread: JoinHandle<()>,
    events: mpsc::Receiver<LoopEvent>,
    watched: mpsc::UnboundedReceiver<(String, Process)>,
}

impl Engine {
    fn start(config: &DaemonConfig) -> Result<Self, String> {
        let (loop_events, events) = mpsc::channel(4096);
        // Hashes, external ports and identifiers follow from it.
        let seed = random().map(u64::from_ne_bytes).map_err(|error| error.to_string())?;
        let loop_config = LoopConfig { io: config.io, seed, no_spin: false, lifetimes: config.lifetimes };
        let (dataplane, thread) = DataPlane::start(loop_config, loop_events).map_err(|error| format!("cannot start the data plane: {error}"))?;
        let (watch, watched) = mpsc::unbounded_channel();
        let runtime = Runtime::start(config.dirs.clone(), dataplane.clone(), config.rootless, (&config.uplink, config.vxlan_port), &config.dns, config.defaults.clone(), watch)?;
        Ok(Self { runtime, dataplane, thread, events, watched })
    }
}

/// Removes what a daemon that was killed has left; none is to run there. Nothing is answered and nothing started meanwhile.
pub(crate) fn clear(config: DaemonConfig) -> Result<(), String> {
    config.dirs.create().map_err(|error| format!("cannot create {}: {error}", config.dirs.run.display()))?;
    let Engine { runtime, dataplane, thread, .. } = Engine::start(&config)?;
    Daemon { runtime, config, dataplane, thread, _sockets: Files::default() }.stop(true);
    Ok(())
}

impl Daemon {
    /// Starts everything; requests are answered as soon as the runtime is driven.
    pub(crate) async fn start(config: DaemonConfig) -> Result<Self, String> {
        config.dirs.create().map_err(|error| format!("cannot create {}: {error}", config.dirs.run.display()))?;
        let doors = Doors::open(&config.hosts, &config.dirs.socket(), config.tls.as_ref())?;
        let Engine { runtime, dataplane, thread, events, watched } = Engine::start(&config)?;
        runtime.lock().labels.clone_from(&config.labels);
        if let Some(wanted) = &config.default_network {
            runtime.lock().set_default_network(wanted).map_err(|error| error.to_string())?;
        }
        if let Some(on) = config.bridge_names {
            runtime.lock().set_bridge_names(on).map_err(|error| error.to_string())?;
        }
        if let Some(cluster) = config.cluster.clone() {
            // The store may take its time.
            let runtime = runtime.clone();
            task::spawn_blocking(move || cluster::start(&runtime, cluster)).await.map_err(|error| error.to_string())??;
        }
        runtime.start_what_should_run();
        let (callers, sockets) = doors.answer();
        task::spawn(http::serve(callers, runtime.clone()));
        task::spawn(follow_loop(events, runtime.clone()));
        task::spawn(follow_processes(watched, runtime.clone()));
        task::spawn(sweep(runtime.clone()));
        Ok(Self { runtime, config, dataplane, thread, _sockets: sockets })
    }

    /// Ends. Running sandboxes stay as they are for the next start, unless `remove_all`.
    pub(crate) fn stop(self, remove_all: bool) {
        let empty = {
            let mut inner = self.runtime.lock();
            if remove_all {
                inner.remove_all();
            }
            inner.leave_cluster();
            inner.model.sandboxes.is_empty()
        };
        self.dataplane.shutdown();
        drop(self.thread.join());
        if empty && self.config.rootless {
            drop(rootless::dismiss_keeper(&self.config.dirs));
        }
    }
}

async fn follow_loop(mut events: mpsc::Receiver<LoopEvent>, runtime: Runtime) {
    while let Some(event) = events.recv().await {
        match event {
            LoopEvent::Switch(event) => drop(runtime.events.send(json!({ "type": "switch", "event": format!("{event:?}") }))),
            LoopEvent::Flow(event) => drop(runtime.events.send(flow_event(&runtime, &event))),
            LoopEvent::TunnelMtu(change) => {
                let runtime = runtime.clone();
                drop(task::spawn_blocking(move || runtime.lock().tunnel_mtu(change)).await);
            }
            LoopEvent::DeviceGone(port) => {
                let runtime = runtime.clone();
                drop(task::spawn_blocking(move || runtime.lock().device_gone(port)).await);
            }
        }
    }
}

fn flow_event(runtime: &Runtime, event: &nat::FlowEvent) -> serde_json::Value {
    json!({
        "type": if event.began { "flow new" } else { "flow end" },
        "network": runtime.lock().network_name(event.network),
        "protocol": weft_control::api::protocol_name(event.protocol),
        "inside": event.inside.to_string(),
        "outside": event.outside.to_string(),
        "external": event.external.map(|end| end.to_string()),
    })
}

async fn follow_processes(mut watched: mpsc::UnboundedReceiver<(String, Process)>, runtime: Runtime) {
    while let Some((sandbox, process)) = watched.recv().await {
        let runtime = runtime.clone();
        task::spawn(async move {
            let code = end_of(process.pid).await;
            runtime.wind_up(&sandbox, process).await;
            let (inner, id) = (runtime.clone(), sandbox.clone());
            drop(task::spawn_blocking(move || inner.lock().process_ended(&id, process, code)).await);
            runtime.start_again(sandbox).await;
        });
    }
}

async fn sweep(runtime: Runtime) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let runtime = runtime.clone();
        let look = move || {
            let mut inner = runtime.lock();
            if inner.model.sandboxes.values().any(|sandbox| !sandbox.is_ours()) {
                inner.sweep_gone();
            }
            inner.reopen_uplink();
            inner.watch_parents();
            inner.reopen_tunnels();
        };
        drop(task::spawn_blocking(look).await);
    }
}
