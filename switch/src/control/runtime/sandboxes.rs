//! Sandboxes come up, run, rest and go.

use netns_setup::{
    Netns, SetupError, Space,
    process::{self, CommandSpec},
};
use serde_json::json;
use weft_control::{
    Code, Container, ControlError, Model, NetnsTarget, Process, Result, Sandbox,
    api::{EndpointCreate, SandboxCreate},
    container::LOG_BOUND,
};

use super::{Inner, new_id, unavailable};
use crate::{control::engine::{KILLED, UNKNOWN}, output_log::now_ns};

impl Inner {
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

    pub(super) fn create_sandbox(&mut self, request: &SandboxCreate) -> Result<Sandbox> {
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
                // Others may have been heard of meanwhile.
                self.reconcile(&mut model);
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

    pub(super) fn start_command(&mut self, id: &str) -> Result<(Sandbox, Process)> {
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
        let mut child = process::spawn_with(&netns, &spec, streams).map_err(|error| cannot_start(&sandbox.command, &error))?;
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
        let console = self.console(&sandbox.id);
        if running.is_some() {
            console.ended(KILLED);
        }
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
}

/// As a shell tells what is not there from what cannot be run.
fn cannot_start(command: &[String], error: &SetupError) -> ControlError {
    let code = if error.cause.kind() == std::io::ErrorKind::NotFound { Code::CommandNotFound } else { Code::CannotExecute };
    ControlError::new(code, command.first().map_or("", String::as_str), error.to_string())
}
