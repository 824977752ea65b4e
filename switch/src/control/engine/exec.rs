//! `docker exec`: further processes in a container. Their streams are the client's connection, and
//! nothing of them is kept.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use netns_setup::process::{self, CommandSpec};
use serde::Deserialize;
use serde_json::{Value, json};
use weft_control::{
    NetnsTarget,
    docker::{read, refuse_others, value},
};
use tokio::{
    sync::{mpsc, watch},
    task,
};

use super::{
    containers::{Size, find},
    lifecycle::{cannot_start, directory, environment},
    locked,
    source::Source,
    stream::{feed, header, hijack},
    types::{Result, bad, broken, conflict, not_found},
};
use crate::control::{
    ending::end_of,
    runtime::{Inner, Runtime, new_id},
};

/// Largest body of a request that is not read by axum.
const MAX_BODY: usize = 1 << 20;
/// Finished ones are forgotten beyond this number.
const KEPT: usize = 1024;

/// All that is known of `exec`s, by id.
#[derive(Default)]
pub(crate) struct Execs(Mutex<HashMap<String, Exec>>);

struct Exec {
    container: String,
    config: ExecConfig,
    /// Somebody has started it.
    begun: bool,
    pid: Option<i32>,
    code: Option<i32>,
    terminal: Option<OwnedFd>,
    /// Which came first.
    number: usize,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ExecConfig {
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    tty: bool,
    cmd: Vec<String>,
    env: Vec<String>,
    working_dir: String,
    console_size: Vec<u16>,
}

const FIELDS: &[&str] = &["AttachStdin", "AttachStdout", "AttachStderr", "Tty", "Cmd", "Env", "WorkingDir", "ConsoleSize", "Privileged", "DetachKeys", "Detach", "Container"];

impl Execs {
    fn with<T>(&self, id: &str, work: impl FnOnce(&mut Exec) -> T) -> Result<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_mut(id).map(work).ok_or_else(|| not_found(format!("No such exec instance: {id}")))
    }

    fn add(&self, id: &str, container: String, config: ExecConfig) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = all.values().map(|exec| exec.number + 1).max().unwrap_or(0);
        if all.len() >= KEPT {
            let oldest = all.iter().filter(|(_, exec)| exec.code.is_some() || exec.pid.is_none()).min_by_key(|(_, exec)| exec.number).map(|(id, _)| id.clone());
            oldest.map(|id| all.remove(&id));
        }
        all.insert(id.to_owned(), Exec { container, config, begun: false, pid: None, code: None, terminal: None, number });
    }

    /// Sessions of those that run in a container.
    pub(crate) fn sessions(&self, container: &str) -> Vec<i32> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pids: Vec<i32> = all.values().filter(|exec| exec.container == container && exec.code.is_none()).filter_map(|exec| exec.pid).collect();
        pids.sort_unstable();
        pids
    }
}

pub(super) async fn create(State(runtime): State<Runtime>, Path(reference): Path<String>, body: Bytes) -> Result<Response> {
    let body = value(&body)?;
    refuse_others("", &body, FIELDS)?;
    let config: ExecConfig = read(body)?;
    if config.cmd.is_empty() {
        return Err(bad("No exec command specified"));
    }
    let execs = runtime.execs.clone();
    let id = locked(runtime, move |inner| {
        let sandbox = find(inner, &reference)?;
        if sandbox.is_at_rest() {
            return Err(conflict(format!("container {} is not running", sandbox.id)));
        }
        let id = new_id()?;
        execs.add(&id, sandbox.id.clone(), config);
        Ok(id)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id }))).into_response())
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Start {
    detach: bool,
    tty: bool,
    console_size: Vec<u16>,
}

/// The connection's streams, as far as they are wanted.
type Ends = (Option<mpsc::Sender<Bytes>>, mpsc::Receiver<Bytes>);

pub(super) async fn start(State(runtime): State<Runtime>, Path(id): Path<String>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_BODY).await.map_err(|error| bad(format!("invalid request: {error}")))?;
    let start: Start = read(value(&body)?)?;
    let (config, container, begun) = runtime.execs.with(&id, |exec| (exec.config.clone(), exec.container.clone(), std::mem::replace(&mut exec.begun, true)))?;
    if begun {
        return Err(conflict(format!("exec instance {id} has already been started")));
    }
    let tty = config.tty || start.tty;
    let config = ExecConfig { tty, console_size: if start.console_size.is_empty() { config.console_size } else { start.console_size }, ..config };
    let (sender, receiver) = mpsc::channel(8);
    let context = runtime.clone();
    let input = task::spawn_blocking(move || begin(&context, &id, &container, &config, sender)).await.map_err(broken)??;
    if start.detach {
        task::spawn(async move {
            let mut receiver = receiver;
            while receiver.recv().await.is_some() {}
        });
        return Ok(StatusCode::OK.into_response());
    }
    let (input, output): Ends = (input, receiver);
    Ok(hijack(Request::from_parts(parts, axum::body::Body::empty()), tty, input, output))
}

/// Starts the process and the copying of its streams. That it cannot be started is said in its output.
fn begin(runtime: &Runtime, id: &str, container: &str, config: &ExecConfig, output: mpsc::Sender<Bytes>) -> Result<Option<mpsc::Sender<Bytes>>> {
    let streams = Streams::open(config).map_err(broken)?;
    if let (Some(terminal), [height, width]) = (&streams.terminal, &config.console_size[..]) {
        process::resize(terminal, *height, *width).ok();
    }
    let child = spawn(&runtime.lock(), container, config, streams.theirs)?;
    let child = match child {
        Ok(child) => child,
        Err((failure, code)) => {
            let text = format!("OCI runtime exec failed: {}\r\n", failure.1);
            let framed = if config.tty { text.into_bytes() } else { [&header(2, text.len())[..], text.as_bytes()].concat() };
            output.try_send(framed.into()).ok();
            runtime.execs.with(id, |exec| exec.code = Some(code))?;
            return Ok(None);
        }
    };
    let pid = i32::try_from(child.id()).map_err(broken)?;
    runtime.execs.with(id, |exec| {
        exec.pid = Some(pid);
        exec.terminal = streams.terminal;
    })?;
    let input = streams.input.map(|input| feed(input, || {})).transpose().map_err(broken)?;
    let stop = watch::Sender::new(false);
    let outputs = streams.outputs.into_iter().map(|(stream, from)| Ok((stream, Source::new(from, &stop)?))).collect::<io::Result<Vec<_>>>().map_err(broken)?;
    let (execs, id, tty) = (runtime.execs.clone(), id.to_owned(), config.tty);
    task::spawn(async move {
        let copies: Vec<_> = outputs.into_iter().map(|(stream, from)| task::spawn(copy(stream, from, tty, output.clone()))).collect();
        let code = end_of(pid).await.unwrap_or(super::lifecycle::UNKNOWN);
        execs.with(&id, |exec| {
            exec.code = Some(code);
            exec.terminal = None;
        }).ok();
        stop.send_replace(true);
        for copy in copies {
            drop(copy.await);
        }
        drop(output);
    });
    Ok(input)
}

type Spawned = std::result::Result<std::process::Child, (super::types::Failure, i32)>;

fn spawn(inner: &Inner, container: &str, config: &ExecConfig, streams: [OwnedFd; 3]) -> Result<Spawned> {
    let sandbox = find(inner, container)?;
    if sandbox.is_at_rest() {
        return Err(conflict(format!("container {container} is not running")));
    }
    let netns = inner.open_sandbox(sandbox)?.ok_or_else(|| conflict(format!("{} has no namespace to run in", sandbox.name)))?;
    let mut env: Vec<String> = sandbox.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    env.extend(config.env.iter().cloned());
    let hostname = sandbox.hostname.clone().or_else(|| sandbox.is_ours().then(|| sandbox.id[..12].to_owned()));
    let given = if config.working_dir.is_empty() { sandbox.container.as_ref().map_or("", |container| &container.config.working_dir) } else { &config.working_dir };
    let spec = CommandSpec {
        command: config.cmd.clone(),
        environment: environment(config.tty, hostname.as_deref(), &env),
        clear_environment: true,
        detached: true,
        stays: sandbox.netns == NetnsTarget::Host,
        terminal: config.tty,
        directory: Some(directory(given)),
        beside: sandbox.process.map(|process| process.pid),
        ..CommandSpec::default()
    };
    let spawned = process::spawn_with(&netns, &spec, streams);
    if spawned.is_err() && spec.beside.is_some_and(process::is_ending) {
        return Err(conflict(format!("container {container} is not running")));
    }
    Ok(spawned.map_err(|error| {
        let root = spec.beside.map_or_else(|| "/".into(), |pid| format!("/proc/{pid}/root"));
        cannot_start("exec", &spec, root.as_ref(), &error)
    }))
}

/// A process's streams, and our ends of them.
struct Streams {
    theirs: [OwnedFd; 3],
    input: Option<OwnedFd>,
    outputs: Vec<(u8, OwnedFd)>,
    terminal: Option<OwnedFd>,
}

impl Streams {
    fn open(config: &ExecConfig) -> io::Result<Self> {
        let cloexec = nix::fcntl::OFlag::O_CLOEXEC;
        if config.tty {
            let pty = nix::pty::openpty(None, None)?;
            for end in [&pty.master, &pty.slave] {
                nix::fcntl::fcntl(end, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
            }
            return Ok(Self {
                theirs: [pty.slave.try_clone()?, pty.slave.try_clone()?, pty.slave],
                input: config.attach_stdin.then(|| pty.master.try_clone()).transpose()?,
                outputs: vec![(1, pty.master.try_clone()?)],
                terminal: Some(pty.master),
            });
        }
        let (out, err) = (nix::unistd::pipe2(cloexec)?, nix::unistd::pipe2(cloexec)?);
        let (stdin, input) = if config.attach_stdin {
            let (read, write) = nix::unistd::pipe2(cloexec)?;
            (read, Some(write))
        } else {
            (std::fs::File::open("/dev/null")?.into(), None)
        };
        Ok(Self { theirs: [stdin, out.1, err.1], input, outputs: vec![(1, out.0), (2, err.0)], terminal: None })
    }
}

async fn copy(stream: u8, mut from: Source, raw: bool, to: mpsc::Sender<Bytes>) {
    let mut buffer = vec![0; 32 * 1024];
    let mut is_heard = true;
    while let Some(length) = from.read(&mut buffer).await {
        let mut bytes = Vec::with_capacity(length + 8);
        if !raw {
            bytes.extend(header(stream, length));
        }
        bytes.extend(&buffer[..length]);
        // It goes on when its client is gone, as with Docker: a pipe that nobody reads would end it.
        is_heard = is_heard && to.send(bytes.into()).await.is_ok();
    }
}

pub(super) async fn resize(State(runtime): State<Runtime>, Path(id): Path<String>, Query(size): Query<Size>) -> Result<StatusCode> {
    runtime.execs.with(&id, |exec| exec.terminal.as_ref().map_or(Ok(()), |terminal| process::resize(terminal, size.h, size.w)))?.map_err(broken)?;
    Ok(StatusCode::OK)
}

pub(super) async fn inspect(State(runtime): State<Runtime>, Path(id): Path<String>) -> Result<Json<Value>> {
    runtime.execs.with(&id, |exec| {
        let (program, arguments) = exec.config.cmd.split_first().map_or(("", &[][..]), |(program, arguments)| (program.as_str(), arguments));
        Json(json!({
            "ID": id,
            "Running": exec.pid.is_some() && exec.code.is_none(),
            "ExitCode": exec.code,
            "Pid": exec.pid.unwrap_or(0),
            "ContainerID": exec.container,
            "OpenStdin": exec.config.attach_stdin,
            "OpenStdout": exec.config.attach_stdout,
            "OpenStderr": exec.config.attach_stderr,
            "CanRemove": false,
            "DetachKeys": "",
            "ProcessConfig": { "tty": exec.config.tty, "entrypoint": program, "arguments": arguments, "privileged": false },
        }))
    })
}
