//! After a restart: networks back, running sandboxes re-attached, everything else cleared away.

use netns_setup::{
    Netns, Space, kill_left,
    attach::{self, Kind},
    process,
};
use weft_control::{EndpointKind, Process, Result, Sandbox, api::NetworkCreate, container::LOG_BOUND};

use super::{
    engine::{UNKNOWN, log_bound},
    runtime::{Inner, new_id, unavailable},
};
use crate::output_log::now_ns;

impl Inner {
    /// Makes the system match the saved model; gives the processes to watch.
    pub(crate) fn recover(&mut self) -> Result<Vec<(String, Process)>> {
        let mut model = self.model.clone();
        if model.network("bridge").is_err() {
            let request = NetworkCreate { name: "bridge".into(), ..NetworkCreate::default() };
            let id = model.create_network(&request, new_id()?)?;
            if let Some(bridge) = model.networks.get_mut(&id) {
                bridge.created_ns = now_ns();
            }
            self.commit(model)?;
        }
        for network in self.model.networks.values().cloned().collect::<Vec<_>>() {
            let bridge = self.add_bridge(&network)?;
            // Its sandboxes still have one another; a tunnel (which says so itself) or a device is opened when it can be.
            drop(self.open_tunnel(&network, bridge));
            if let Err(error) = self.open_parent(&network, bridge) {
                tracing::error!(network = network.name, %error, "no way to the LAN");
            }
        }
        let mut processes = Vec::new();
        // Looked at before the first of them is taken down: others may have joined it.
        let up = self.model.sandboxes.values().filter(|sandbox| !sandbox.is_at_rest());
        let found: Vec<_> = up.map(|sandbox| (sandbox.clone(), self.is_alive(sandbox))).collect();
        for (sandbox, is_alive) in found {
            if sandbox.container.is_some() && !(sandbox.process.is_some() && is_alive) {
                tracing::info!(container = sandbox.name, "ended while we were away");
                self.end_left(&sandbox);
                self.container_ended(&sandbox.id, UNKNOWN);
                continue;
            }
            if is_alive {
                if sandbox.is_logged()
                    && let Err(error) = self.console(&sandbox.id).reopen(sandbox.container.as_ref().map_or(LOG_BOUND, log_bound))
                {
                    tracing::warn!(container = sandbox.name, %error, "its output is not logged");
                }
                self.reattach(&sandbox);
                self.republish(&sandbox);
                if let Some(process) = sandbox.process {
                    self.spaces.insert(process.pid, Space::of(process.pid));
                    processes.push((sandbox.id.clone(), process));
                }
            } else {
                tracing::info!(sandbox = sandbox.name, "gone while we were away");
                self.end_left(&sandbox);
                drop(self.remove_sandbox(&sandbox.id, true));
            }
        }
        self.remove_strays();
        self.serve_vips();
        self.serve_mesh();
        self.serve_names();
        Ok(processes)
    }

    /// What a sandbox of ours left behind ends as late as this.
    fn end_left(&self, sandbox: &Sandbox) {
        let netns = self.open_sandbox(sandbox).ok().flatten().filter(|netns| sandbox.is_ours() && netns.identity().ok() == sandbox.identity);
        if let Some(netns) = netns {
            let others: Vec<Space> = self.model.sandboxes.values().filter(|other| other.id != sandbox.id).filter_map(|other| other.process).map(|process| Space::of(process.pid)).collect();
            kill_left(&netns, &others);
        }
    }

    /// Its namespace is the one it was, and its process (if it had one) still runs.
    pub(crate) fn is_alive(&self, sandbox: &Sandbox) -> bool {
        if sandbox.process.is_some_and(|process| !process::is_running(process.pid, process.start)) {
            return false;
        }
        match self.open_sandbox(sandbox) {
            Ok(Some(netns)) => sandbox.identity.is_none() || netns.identity().ok() == sandbox.identity,
            Ok(None) => true,
            Err(_) => false,
        }
    }

    fn reattach(&mut self, sandbox: &Sandbox) {
        for endpoint in &sandbox.endpoints {
            let result = self.reopen(sandbox, endpoint).and_then(|device| self.plug(sandbox, endpoint, device));
            if let Err(error) = result {
                tracing::warn!(sandbox = sandbox.name, interface = endpoint.ifname, %error, "cannot re-attach; the endpoint is removed");
                let netns = self.open_sandbox(sandbox).ok().flatten();
                let mut model = self.model.clone();
                model.remove_endpoint(&sandbox.id, &endpoint.id);
                drop(self.commit(model));
                self.close_endpoint(Some(sandbox), endpoint, netns.as_ref());
            }
        }
    }

    fn reopen(&mut self, sandbox: &Sandbox, endpoint: &weft_control::Endpoint) -> Result<netns_setup::PortFd> {
        let Some(netns) = self.open_sandbox(sandbox)? else {
            let host = Netns::current().map_err(unavailable)?;
            return attach::open_device(&host, &endpoint.ifname).map_err(unavailable);
        };
        let kind = if endpoint.kind == EndpointKind::Veth { Kind::Veth } else { Kind::Tap };
        let side = self.switch_side()?;
        attach::reattach(&netns, &side, kind, &endpoint.ifname, &endpoint.peer_name()).map_err(unavailable)
    }

    /// Pins and files that no sandbox owns: of a daemon that died before it could save, or after it did.
    fn remove_strays(&mut self) {
        let Ok(entries) = std::fs::read_dir(self.dirs.pins()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !self.model.sandboxes.contains_key(name.to_string_lossy().as_ref()) {
                drop(Netns::unpin(entry.path()));
            }
        }
        for entry in std::fs::read_dir(self.dirs.etc()).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            if !self.model.sandboxes.contains_key(&id) {
                self.resolving.remove_files(&self.dirs, &id);
            }
        }
        // Logs are made before their owner is saved, and go after it.
        for entry in std::fs::read_dir(self.dirs.logs()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.split('.').next().is_some_and(|id| !self.model.sandboxes.contains_key(id)) {
                drop(std::fs::remove_file(entry.path()));
            }
        }
        let used = self.switch_side.is_some() || self.model.sandboxes.values().any(|sandbox| !sandbox.endpoints.is_empty());
        if !used && self.dirs.switch_pin().exists() {
            drop(Netns::unpin(self.dirs.switch_pin()));
        }
    }

    /// Sandboxes in namespaces of others that have gone without a sign: a TAP that was re-attached
    /// by opening it inside keeps its namespace from ending, so its name is what tells.
    pub(crate) fn sweep_gone(&mut self) {
        let gone: Vec<_> = self.model.sandboxes.values().filter(|sandbox| sandbox.container.is_none() && !sandbox.is_ours() && !self.is_alive(sandbox)).map(|sandbox| sandbox.id.clone()).collect();
        for id in gone {
            drop(self.remove_sandbox(&id, true));
        }
    }

    /// Removes everything: the end of `weft up`.
    pub(crate) fn remove_all(&mut self) {
        for id in self.model.sandboxes.keys().cloned().collect::<Vec<_>>() {
            if let Err(error) = self.remove_sandbox(&id, true) {
                tracing::warn!(%error, "cannot remove a sandbox");
            }
        }
        self.drop_switch_side_if_unused();
    }
}
