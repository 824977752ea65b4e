//! A container's life: its definition goes into a sandbox at start, and the sandbox comes down again
//! when the process ends, leaving the definition and what became of it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use netns_setup::process::{self, Bind, CommandSpec};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::json;
use tokio::task;
use weft_control::{Container, NetnsTarget, Phase, Process, Sandbox, container::LOG_BOUND, volume};

use super::{
    containers::find,
    networks::{at_start, find as find_network},
    stream::Console,
    system::no_such_image,
    types::{Failure, Result, bad, broken, conflict, forbidden},
};
use crate::{
    control::runtime::{Inner, Runtime},
    output_log::now_ns,
};

/// As a shell has it.
const NOT_FOUND: i32 = 127;
const CANNOT_EXECUTE: i32 = 126;
/// Of a process that ended while no daemon was there to be told.
pub(crate) const UNKNOWN: i32 = 255;

/// Of a process that SIGKILL ended.
pub(crate) const KILLED: i32 = 128 + Signal::SIGKILL as i32;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether a start changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    Now,
    Before,
}

impl Runtime {
    pub(super) fn start_container(&self, reference: &str) -> Result<Started> {
        let mut inner = self.lock();
        let sandbox = find(&inner, reference)?.clone();
        if !sandbox.is_at_rest() {
            return Ok(Started::Before);
        }
        let result = inner.start_container(&sandbox, 0);
        match result {
            Ok(process) => {
                drop(inner);
                self.watch_process(sandbox.id, process);
                Ok(Started::Now)
            }
            Err(failure) => {
                if sandbox.auto_remove {
                    drop(inner.remove_sandbox(&sandbox.id, true));
                }
                Err(failure)
            }
        }
    }

    /// Starts a container that has ended again, and again, while its policy wants that.
    pub(crate) async fn start_again(self, id: String) {
        loop {
            let (runtime, asked) = (self.clone(), id.clone());
            let delay = task::spawn_blocking(move || runtime.lock().model.sandboxes.get(&asked).and_then(|sandbox| sandbox.container.clone()).filter(Container::wants_restart));
            let Ok(Some(container)) = delay.await else { return };
            tokio::time::sleep(container.restart_delay()).await;
            let (runtime, asked) = (self.clone(), id.clone());
            let started = task::spawn_blocking(move || {
                let mut inner = runtime.lock();
                // It may have been started, stopped or removed meanwhile.
                let sandbox = inner.model.sandboxes.get(&asked).filter(|sandbox| sandbox.container.as_ref().is_some_and(Container::wants_restart)).cloned()?;
                let restarts = container.restarts.saturating_add(1);
                let started = inner.start_container(&sandbox, restarts);
                if started.is_err() {
                    inner.change_container(&asked, |container| container.restarts = restarts);
                }
                drop(inner);
                Some(started.map(|process| runtime.watch_process(asked, process)))
            });
            match started.await {
                Ok(Some(Err(failure))) => tracing::warn!(container = id, error = failure.1, "cannot start it again"),
                _ => return,
            }
        }
    }

    /// After a restart of the daemon: containers that ended meanwhile and are to run.
    pub(crate) fn start_what_should_run(&self) {
        let wanted: Vec<_> = self.lock().model.sandboxes.values().filter(|sandbox| sandbox.container.as_ref().is_some_and(Container::wants_restart)).map(|sandbox| sandbox.id.clone()).collect();
        for id in wanted {
            task::spawn(self.clone().start_again(id));
        }
    }

    /// The process of a sandbox has ended and been waited for: what it left behind ends too, and of a
    /// container the last of its output is read.
    pub(crate) async fn wind_up(&self, id: &str, process: Process) {
        let (runtime, id) = (self.clone(), id.to_owned());
        let kill_rest = move || {
            let space = runtime.lock().spaces.remove(&process.pid);
            if let Some(space) = space {
                space.kill();
            }
            let inner = runtime.lock();
            let is_it = inner.model.sandboxes.get(&id).is_some_and(|sandbox| sandbox.container.is_some() && sandbox.process == Some(process));
            if !is_it {
                return None;
            }
            let console = inner.console(&id);
            drop(inner);
            for pid in runtime.execs.sessions(&id).into_iter().flat_map(process::of_session) {
                signal::kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
            Some(console)
        };
        if let Ok(Some(console)) = task::spawn_blocking(kill_rest).await {
            console.drain().await;
        }
    }
}

impl Inner {
    pub(crate) fn console(&self, id: &str) -> Arc<Console> {
        self.consoles.of(id, &self.dirs.output_of(id))
    }

    fn start_container(&mut self, sandbox: &Sandbox, restarts: u32) -> Result<Process> {
        let id = &sandbox.id;
        let Some(container) = sandbox.container.clone() else { return Err(broken("not a container")) };
        let publish = container.publish()?;
        self.check_links(sandbox, &container)?;
        if let Some(wanted) = container.networks.iter().find(|wanted| self.model.network(&wanted.network).is_err() && self.model.config(&wanted.network).is_some()) {
            return Err(forbidden(format!("cannot create endpoint on configuration-only network {}", wanted.network)));
        }
        let (netns, hostname) = self.netns_of(&container, sandbox)?;
        let mut model = self.model.clone();
        if let Some(stored) = model.sandboxes.get_mut(id) {
            stored.netns = netns;
            if let Some(container) = &mut stored.container {
                *container = Container { phase: Phase::Running, started_ns: now_ns(), exit_code: 0, error: String::new(), restarts, stopped: false, ..container.clone() };
            }
        }
        self.bring_up(model, id, &container.networks, &publish).map_err(at_start)?;
        let started = self.spawn_container(id, &container, hostname);
        if let Err((failure, code)) = started {
            // It never ran: it is what it was before, and says why.
            self.lay_to_rest(id, |stored| *stored = Container { exit_code: code, error: failure.1.clone(), ..container });
            return Err(failure);
        }
        self.tell_networks(id, "network connect");
        started.map_err(|(failure, _)| failure)
    }

    /// Docker's: whom it is linked to runs already.
    fn check_links(&self, sandbox: &Sandbox, container: &Container) -> Result<()> {
        for (network, link) in container.networks.iter().flat_map(|network| network.link.iter().map(move |link| (&network.network, link))) {
            let other = find(self, &link.sandbox)?;
            if other.is_at_rest() {
                return Err(conflict(format!("Cannot link to a non running container: /{} AS /{}/{}", other.name, sandbox.name, link.alias)));
            }
            let id = &find_network(self, network)?.id;
            if !other.endpoints.iter().any(|endpoint| endpoint.network == *id) {
                return Err(conflict(format!("Cannot link to /{}, as it does not belong to the network {network}", other.name)));
            }
        }
        Ok(())
    }

    /// The namespace that its mode means, and the host name in it.
    fn netns_of(&self, container: &Container, sandbox: &Sandbox) -> Result<(NetnsTarget, Option<String>)> {
        let own = sandbox.hostname.clone();
        match container.host.network_mode.as_str() {
            "host" => Ok((NetnsTarget::Host, own)),
            mode => match mode.strip_prefix("container:") {
                None => Ok((NetnsTarget::New, own.or_else(|| sandbox.id.get(..12).map(str::to_owned)))),
                Some(other) => {
                    let other = find(self, other)?;
                    if other.is_at_rest() || other.id == sandbox.id {
                        return Err(conflict(format!("cannot join network namespace of a non running container: {}", other.name)));
                    }
                    let netns = if other.is_ours() { NetnsTarget::Path(self.dirs.pins().join(&other.id).to_string_lossy().into_owned()) } else { other.netns.clone() };
                    Ok((netns, other.hostname.clone().or_else(|| other.is_ours().then(|| other.id[..12].to_owned()))))
                }
            },
        }
    }

    fn spawn_container(&mut self, id: &str, container: &Container, hostname: Option<String>) -> std::result::Result<Process, (Failure, i32)> {
        let other = |error: &dyn std::fmt::Display| (broken(error), CANNOT_EXECUTE);
        let sandbox = self.model.sandbox(id).map_err(|error| other(&error))?.clone();
        let netns = self.open_sandbox(&sandbox).map_err(|error| other(&error))?.ok_or_else(|| other(&"no namespace to run in"))?;
        let root = root_of(&container.config.image).map_err(|failure| (failure, CANNOT_EXECUTE))?;
        let console = self.console(id);
        let streams = console.open(container.config.tty, container.config.open_stdin, log_bound(container)).map_err(|error| other(&error))?;
        let spec = CommandSpec {
            command: container.command(),
            environment: environment(container.config.tty, hostname.as_deref(), &container.config.env),
            clear_environment: true,
            hostname: hostname.filter(|_| container.host.network_mode != "host" || sandbox.hostname.is_some()),
            detached: true,
            stays: sandbox.netns == NetnsTarget::Host,
            terminal: container.config.tty,
            etc: self.etc_of(&sandbox),
            directory: Some(directory(&container.config.working_dir)),
            binds: binds_of(container, root.as_deref()).map_err(|failure| (failure, CANNOT_EXECUTE))?,
            root,
            ..CommandSpec::default()
        };
        if let [height, width] = container.host.console_size[..] {
            console.resize(height, width).ok();
        }
        let mut child = process::spawn_with(&netns, &spec, streams).map_err(|error| cannot_start("create", &spec, spec.root.as_deref().unwrap_or(Path::new("/")), &error))?;
        let pid = i32::try_from(child.id()).map_err(|error| other(&error))?;
        self.note_process(id, pid).map(|(_, process)| process).map_err(|error| {
            drop(child.kill());
            drop(child.wait());
            other(&error)
        })
    }

    /// The files that it finds in /etc: one that joins another finds that one's.
    fn etc_of(&self, sandbox: &Sandbox) -> Option<PathBuf> {
        match (&sandbox.netns, sandbox.container.as_ref().map(|container| container.host.network_mode.strip_prefix("container:"))) {
            (NetnsTarget::New, _) => Some(self.dirs.etc_of(&sandbox.id)),
            (NetnsTarget::Path(_), Some(Some(other))) => self.model.sandbox(other).ok().map(|other| self.dirs.etc_of(&other.id)),
            _ => None,
        }
    }

    /// The process of a container has ended with this.
    pub(crate) fn container_ended(&mut self, id: &str, code: i32) {
        self.tell_networks(id, "network disconnect");
        self.lay_to_rest(id, |container| *container = Container { phase: Phase::Exited, exit_code: code, finished_ns: now_ns(), ..container.clone() });
        self.console(id).ended(code);
        let Ok(sandbox) = self.model.sandbox(id).cloned() else { return };
        self.event("sandbox die", json!({ "sandbox": sandbox.name, "id": sandbox.id, "exitCode": code.to_string() }));
        if sandbox.auto_remove
            && let Err(error) = self.remove_sandbox(id, true)
        {
            tracing::warn!(container = sandbox.name, %error, "cannot remove a container that ended");
        }
    }

    /// Somebody wants it to end, or not to start again.
    pub(super) fn note_stop(&mut self, id: &str) {
        let has_policy = |container: &Container| !matches!(container.host.restart_policy.name.as_str(), "" | "no");
        if self.model.sandboxes.get(id).and_then(|sandbox| sandbox.container.as_ref()).is_some_and(has_policy) {
            self.change_container(id, |container| container.stopped = true);
        }
    }

    /// Whether it is to be removed when it ends.
    pub(super) fn set_auto_remove(&mut self, id: &str, auto_remove: bool) -> Result<()> {
        let mut model = self.model.clone();
        if let Some(sandbox) = model.sandboxes.get_mut(id) {
            sandbox.auto_remove = auto_remove;
        }
        Ok(self.commit(model)?)
    }

    fn change_container(&mut self, id: &str, change: impl FnOnce(&mut Container)) {
        let mut model = self.model.clone();
        model.sandboxes.get_mut(id).and_then(|sandbox| sandbox.container.as_mut()).map(change);
        if let Err(error) = self.commit(model) {
            tracing::warn!(%error, "what was said of a container is not kept");
        }
    }

    /// Docker has an event for each network that a container joins or leaves by starting or ending.
    fn tell_networks(&self, id: &str, what: &str) {
        let Ok(sandbox) = self.model.sandbox(id) else { return };
        for endpoint in &sandbox.endpoints {
            let network = self.model.networks.get(&endpoint.network).map_or("", |network| network.name.as_str());
            self.event(what, json!({ "network": network, "id": endpoint.network, "sandbox": sandbox.name, "sandbox_id": id }));
        }
    }

    /// Sends a signal to the main process; false when there is none.
    pub(super) fn signal(&self, sandbox: &Sandbox, signal: Signal) -> Result<bool> {
        let running = sandbox.process.filter(|process| process::start_time(process.pid) == Some(process.start));
        match running.map(|process| signal::kill(Pid::from_raw(process.pid), signal)) {
            None | Some(Err(nix::errno::Errno::ESRCH)) => Ok(false),
            Some(Ok(())) => Ok(true),
            Some(Err(error)) => Err(forbidden(format!("cannot signal container {}: {error}", sandbox.name))),
        }
    }
}

/// Bytes of its output that are kept.
pub(crate) fn log_bound(container: &Container) -> u64 {
    container.host.log_config.bound().unwrap_or(LOG_BOUND)
}

/// What it sees of the host in other places. Nothing is made for it, neither outside nor inside.
pub(super) fn binds_of(container: &Container, root: Option<&Path>) -> Result<Vec<Bind>> {
    let bind = |text: &String| {
        let volume::Bind { source, target, read_only } = text.parse()?;
        let from = Path::new(&source);
        let hidden = root.unwrap_or(Path::new("/")).join(target.trim_start_matches('/'));
        let is_directory = from.metadata().map_err(|_| bad(format!("invalid mount config for type \"bind\": bind source path does not exist: {source}")))?.is_dir();
        match hidden.metadata() {
            Ok(there) if there.is_dir() == is_directory => Ok(Bind { from: source.into(), to: target.into(), read_only }),
            Ok(_) => Err(bad(format!("cannot bind {source} to {target}: one is a directory and the other is not"))),
            Err(_) => Err(bad(format!("cannot bind {source} to {target}: {} does not exist, and weft makes nothing in an image: make it first", hidden.display()))),
        }
    };
    container.host.binds.iter().map(bind).collect()
}

/// The environment of a process in a container: nothing of the daemon's.
pub(super) fn environment(tty: bool, hostname: Option<&str>, given: &[String]) -> Vec<(String, String)> {
    let mut words = vec![PATH.to_owned(), "HOME=/root".to_owned()];
    words.extend(hostname.map(|name| format!("HOSTNAME={name}")));
    words.extend(tty.then(|| "TERM=xterm".to_owned()));
    words.extend(given.iter().cloned());
    // The last of a name is the one that counts.
    words.into_iter().filter_map(|word| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))).collect()
}

pub(super) fn directory(given: &str) -> PathBuf {
    if given.is_empty() { "/".into() } else { given.into() }
}

/// The root directory that an image means; none for the host's.
pub(super) fn root_of(image: &str) -> Result<Option<PathBuf>> {
    if matches!(image, "host" | "host:latest") || super::system::HOST_IMAGE_ID == image {
        return Ok(None);
    }
    // The docker command takes no image that begins with a slash.
    let path = image.strip_prefix("rootfs").filter(|rest| rest.starts_with('/')).unwrap_or(image);
    if !path.starts_with('/') {
        return Err(no_such_image(image));
    }
    if !Path::new(path).is_dir() {
        return Err(no_such_image(image));
    }
    if path == "/" { Ok(None) } else { Ok(Some(path.into())) }
}

/// Docker's words for a command that does not start, with `root` for its root directory: its client makes the exit code of them.
pub(super) fn cannot_start(what: &str, spec: &CommandSpec, root: &Path, error: &netns_setup::SetupError) -> (Failure, i32) {
    let program = spec.command.first().map_or("", String::as_str);
    let directory = spec.directory.as_deref().unwrap_or(Path::new("/"));
    let has_directory = root.join(directory.strip_prefix("/").unwrap_or(directory)).is_dir();
    let (why, code) = match error.cause.kind() {
        io::ErrorKind::NotFound if !has_directory => (format!("chdir to cwd ({directory:?}): no such file or directory"), NOT_FOUND),
        io::ErrorKind::NotFound if program.contains('/') => (format!("stat {program}: no such file or directory"), NOT_FOUND),
        io::ErrorKind::NotFound => ("executable file not found in $PATH".to_owned(), NOT_FOUND),
        io::ErrorKind::PermissionDenied => ("permission denied".to_owned(), CANNOT_EXECUTE),
        _ => (error.to_string(), CANNOT_EXECUTE),
    };
    (bad(format!("failed to {what} task for container: exec: {program:?}: {why}")), code)
}
