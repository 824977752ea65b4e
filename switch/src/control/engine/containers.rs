//! What is done with containers.

use std::{str::FromStr, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, Query, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task};
use weft_control::{
    Code, Container, NetnsTarget, Sandbox,
    api::SandboxCreate,
    docker::{self, Filters},
};

use super::{
    inspect::shown,
    lifecycle::{Started, binds_of, root_of},
    locked,
    stream::{View, hijack},
    types::{Failure, Result, bad, broken, conflict, not_found, time_ns},
};
use crate::{
    control::{
        http::Stream,
        runtime::{Inner, Runtime, new_id},
    },
    output_log::now_ns,
};

/// How long `docker stop` waits unless told.
const GRACE: Duration = Duration::from_secs(10);
/// How long a killed process may take to go, with what is still to be read of its output.
const AFTER_KILL: Duration = Duration::from_secs(20);

/// A container by name, id or beginning of an id.
pub(super) fn find<'a>(inner: &'a Inner, reference: &str) -> Result<&'a Sandbox> {
    let reference = reference.strip_prefix('/').unwrap_or(reference);
    inner.model.sandbox(reference).map_err(|error| match error.code {
        Code::NotFound if error.message.contains("several") => bad(format!("multiple IDs found with provided prefix: {reference}")),
        _ => not_found(format!("No such container: {reference}")),
    })
}

#[derive(Deserialize)]
pub(super) struct Naming {
    #[serde(default)]
    name: String,
}

pub(super) async fn create(State(runtime): State<Runtime>, Query(Naming { name }): Query<Naming>, body: Bytes) -> Result<Response> {
    let body = docker::value(&body)?;
    // Before all else: clients go and pull an image that is not there.
    let root = body["Image"].as_str().map_or(Ok(None), root_of)?;
    let container = docker::definition(body)?;
    binds_of(&container, root.as_deref())?;
    let name = name.strip_prefix('/').unwrap_or(&name).to_owned();
    let id = locked(runtime, move |inner| create_container(inner, Some(name).filter(|name| !name.is_empty()), container)).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id, "Warnings": [] }))).into_response())
}

pub(super) fn create_container(inner: &mut Inner, name: Option<String>, container: Container) -> Result<String> {
    if let Some(other) = name.as_ref().and_then(|name| inner.model.sandboxes.values().find(|other| other.name == *name)) {
        return Err(conflict(format!(
            "Conflict. The container name \"/{}\" is already in use by container \"{}\". You have to remove (or rename) that container to be able to reuse that name.",
            other.name, other.id
        )));
    }
    for link in container.networks.iter().flat_map(|network| &network.link) {
        find(inner, &link.sandbox).map_err(|_| bad(format!("could not get container for {0}: No such container: {0}", link.sandbox)))?;
    }
    let (mut model, id) = (inner.model.clone(), new_id()?);
    // Docker's: the beginning of the id, unless it has the host name of another.
    let own = !(container.host.network_mode == "host" || container.host.network_mode.starts_with("container:"));
    let hostname = Some(container.config.hostname.clone()).filter(|name| !name.is_empty()).or_else(|| own.then(|| id[..12].to_owned()));
    let pairs = container.config.env.iter().filter_map(|word| word.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned()));
    let request = SandboxCreate {
        name,
        netns: NetnsTarget::New,
        endpoints: Vec::new(),
        command: container.command(),
        env: pairs.collect(),
        hostname: hostname.clone(),
        publish: Vec::new(),
        auto_remove: container.host.auto_remove,
        dns: container.host.dns.iter().map(|text| text.parse().map_err(|_| bad(format!("invalid DNS server {text:?}: want an address")))).collect::<Result<_>>()?,
        dns_search: container.host.dns_search.clone(),
        dns_option: container.host.dns_options.clone(),
        add_host: container.host.extra_hosts.clone(),
        link: Vec::new(),
    };
    let id = model.create_sandbox(&request, id)?;
    Inner::check_names(model.sandbox(&id)?)?;
    if let Some(sandbox) = model.sandboxes.get_mut(&id) {
        sandbox.container = Some(container);
        sandbox.hostname = hostname;
        sandbox.created_ns = now_ns();
    }
    inner.console(&id).make_log().map_err(broken)?;
    if let Err(error) = inner.commit(model) {
        inner.consoles.remove(&id);
        return Err(error.into());
    }
    let name = inner.model.sandbox(&id)?.name.clone();
    inner.event("sandbox create", json!({ "sandbox": name, "id": id }));
    Ok(id)
}

pub(super) async fn start(State(runtime): State<Runtime>, Path(reference): Path<String>) -> Result<StatusCode> {
    let started = task::spawn_blocking(move || runtime.start_container(&reference)).await.map_err(broken)??;
    Ok(if started == Started::Now { StatusCode::NO_CONTENT } else { StatusCode::NOT_MODIFIED })
}

#[derive(Deserialize)]
pub(super) struct Stopping {
    t: Option<i64>,
    signal: Option<String>,
}

pub(super) async fn stop(State(runtime): State<Runtime>, Path(reference): Path<String>, Query(query): Query<Stopping>) -> Result<StatusCode> {
    Ok(if bring_down(&runtime, &reference, &query).await? { StatusCode::NO_CONTENT } else { StatusCode::NOT_MODIFIED })
}

pub(super) async fn restart(State(runtime): State<Runtime>, Path(reference): Path<String>, Query(query): Query<Stopping>) -> Result<StatusCode> {
    let (id, auto_remove) = locked(runtime.clone(), move |inner| {
        let Sandbox { id, auto_remove, .. } = find(inner, &reference)?.clone();
        // Not this time.
        if auto_remove {
            inner.set_auto_remove(&id, false)?;
        }
        Ok((id, auto_remove))
    })
    .await?;
    let down = bring_down(&runtime, &id, &query).await;
    if auto_remove {
        let id = id.clone();
        locked(runtime.clone(), move |inner| inner.set_auto_remove(&id, true)).await?;
    }
    down?;
    task::spawn_blocking(move || runtime.start_container(&id)).await.map_err(broken)??;
    Ok(StatusCode::NO_CONTENT)
}

/// Asks the process to end, and makes it; false when there was none.
async fn bring_down(runtime: &Runtime, reference: &str, query: &Stopping) -> Result<bool> {
    let polite = query.signal.as_deref().map_or(Ok(Signal::SIGTERM), signal_of)?;
    // Negative: as long as it takes.
    let grace = match query.t {
        None => Some(GRACE),
        Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
    };
    let Some(mut ending) = Ending::begin(runtime, reference, polite).await? else { return Ok(false) };
    if !ending.wait(grace).await {
        Ending::begin(runtime, &ending.id, Signal::SIGKILL).await?;
        ending.killed().await?;
    }
    let id = ending.id;
    locked(runtime.clone(), move |inner| {
        if let Ok(sandbox) = inner.model.sandbox(&id) {
            inner.event("sandbox stop", json!({ "sandbox": sandbox.name, "id": id }));
        }
        Ok(true)
    })
    .await
}

/// A container that was sent a signal.
struct Ending {
    runtime: Runtime,
    id: String,
}

impl Ending {
    async fn begin(runtime: &Runtime, reference: &str, signal: Signal) -> Result<Option<Self>> {
        let reference = reference.to_owned();
        let sent = locked(runtime.clone(), move |inner| {
            let id = find(inner, &reference)?.id.clone();
            inner.note_stop(&id);
            let sandbox = inner.model.sandbox(&id)?;
            // Also one that has ended by itself, and is about to be laid to rest.
            let is_ending = inner.signal(sandbox, signal)? || !sandbox.is_at_rest() && sandbox.process.is_some();
            Ok(is_ending.then_some(id))
        })
        .await?;
        Ok(sent.map(|id| Self { runtime: runtime.clone(), id }))
    }

    /// Until it has been laid to rest; false when that takes longer than `limit`.
    async fn wait(&mut self, limit: Option<Duration>) -> bool {
        let gone = async {
            loop {
                let id = self.id.clone();
                let look = move |inner: &mut Inner| {
                    let running = inner.model.sandboxes.get(&id).filter(|sandbox| !sandbox.is_at_rest());
                    Ok(running.map(|sandbox| sandbox.container.is_some().then(|| inner.console(&id).watch())))
                };
                let Ok(Some(progress)) = locked(self.runtime.clone(), look).await else { return };
                // Sandboxes of `weft run` have no console: they are looked at again.
                let pause = tokio::time::sleep(Duration::from_millis(if progress.is_some() { 500 } else { 20 }));
                match progress {
                    Some(mut progress) => tokio::select! { _ = progress.changed() => {}, () = pause => {} },
                    None => pause.await,
                }
            }
        };
        match limit {
            Some(limit) => tokio::time::timeout(limit, gone).await.is_ok(),
            None => {
                gone.await;
                true
            }
        }
    }

    /// The same, once it was killed.
    async fn killed(&mut self) -> Result<()> {
        if self.wait(Some(AFTER_KILL)).await { Ok(()) } else { Err(broken(format!("container {} does not end, even when killed", self.id))) }
    }
}

#[derive(Deserialize)]
pub(super) struct Signalling {
    signal: Option<String>,
}

pub(super) async fn kill(State(runtime): State<Runtime>, Path(reference): Path<String>, Query(query): Query<Signalling>) -> Result<StatusCode> {
    let signal = query.signal.as_deref().map_or(Ok(Signal::SIGKILL), signal_of)?;
    let id = locked(runtime.clone(), move |inner| {
        let id = find(inner, &reference)?.id.clone();
        if matches!(signal, Signal::SIGKILL | Signal::SIGTERM) {
            inner.note_stop(&id);
        }
        let sandbox = inner.model.sandbox(&id)?;
        if !inner.signal(sandbox, signal)? {
            return Err(conflict(format!("cannot kill container: {reference}: container {} is not running", sandbox.id)));
        }
        inner.event("sandbox kill", json!({ "sandbox": sandbox.name, "id": sandbox.id, "signal": (signal as i32).to_string() }));
        Ok(id)
    })
    .await?;
    if signal == Signal::SIGKILL {
        Ending { runtime, id }.killed().await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `TERM`, `SIGTERM` or `15`.
fn signal_of(text: &str) -> Result<Signal> {
    let wrong = || bad(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).map_err(|_| wrong());
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    Signal::from_str(&name).map_err(|_| wrong())
}

#[derive(Deserialize)]
pub(super) struct Waiting {
    condition: Option<String>,
}

/// The head of the answer goes out at once: clients wait for it before they start the container.
pub(super) async fn wait(State(runtime): State<Runtime>, Path(reference): Path<String>, Query(query): Query<Waiting>) -> Result<Response> {
    let condition = query.condition.unwrap_or_default();
    if !matches!(condition.as_str(), "" | "not-running" | "next-exit" | "removed") {
        return Err(bad(format!("invalid condition: {condition:?}")));
    }
    let (at_rest, mut progress, ends, code) = locked(runtime, move |inner| {
        let sandbox = find(inner, &reference)?;
        let code = sandbox.container.as_ref().map_or(0, |container| container.exit_code);
        let progress = inner.console(&sandbox.id).watch();
        let ends = progress.borrow().ends;
        Ok((sandbox.is_at_rest(), progress, ends, code))
    })
    .await?;
    let (sender, receiver) = mpsc::channel(1);
    let end = async move {
        match condition.as_str() {
            "removed" => progress.wait_for(|progress| progress.removed).await.map_or(code, |progress| progress.code),
            "" | "not-running" if at_rest => code,
            _ => progress.wait_for(|progress| progress.ends > ends || progress.removed).await.map_or(code, |progress| progress.code),
        }
    };
    task::spawn(async move {
        tokio::select! {
            code = end => drop(sender.send(Bytes::from(format!("{}\n", json!({ "StatusCode": code })))).await),
            () = sender.closed() => {}
        }
    });
    Ok(([("content-type", "application/json")], Body::new(Stream(receiver))).into_response())
}

pub(super) async fn rename(State(runtime): State<Runtime>, Path(reference): Path<String>, Query(Naming { name }): Query<Naming>) -> Result<StatusCode> {
    let name = name.strip_prefix('/').unwrap_or(&name).to_owned();
    locked(runtime, move |inner| {
        let id = find(inner, &reference)?.id.clone();
        if let Some(other) = inner.model.sandboxes.values().find(|other| other.name == name) {
            return Err(conflict(format!("Conflict. The container name \"/{name}\" is already in use by container \"{}\". You have to remove (or rename) that container to be able to reuse that name.", other.id)));
        }
        inner.rename_sandbox(&id, &name)?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

#[derive(Deserialize)]
pub(super) struct Size {
    pub(super) h: u16,
    pub(super) w: u16,
}

pub(super) async fn resize(State(runtime): State<Runtime>, Path(reference): Path<String>, Query(Size { h, w }): Query<Size>) -> Result<StatusCode> {
    locked(runtime, move |inner| {
        let sandbox = find(inner, &reference)?;
        inner.console(&sandbox.id).resize(h, w).map_err(broken)?;
        Ok(StatusCode::OK)
    })
    .await
}

#[derive(Deserialize)]
pub(super) struct Removing {
    force: Option<String>,
}

/// Go's words for true.
pub(super) fn is_true(text: Option<&str>) -> bool {
    matches!(text, Some("1" | "t" | "T" | "true" | "True" | "TRUE"))
}

pub(super) async fn remove(State(runtime): State<Runtime>, Path(reference): Path<String>, Query(query): Query<Removing>) -> Result<StatusCode> {
    let force = is_true(query.force.as_deref());
    let asked = reference.clone();
    let id = locked(runtime.clone(), move |inner| {
        let sandbox = find(inner, &asked)?;
        if !force && !sandbox.is_at_rest() && sandbox.process.is_some() {
            return Err(conflict(format!("cannot remove container \"/{}\": container is running: stop the container before removing or force remove", sandbox.name)));
        }
        Ok(sandbox.id.clone())
    })
    .await?;
    // Killed first, so that those who wait for it get its code.
    if force && let Some(mut ending) = Ending::begin(&runtime, &id, Signal::SIGKILL).await? {
        ending.wait(Some(AFTER_KILL)).await;
    }
    locked(runtime, move |inner| match inner.remove_sandbox(&id, force) {
        // One that removes itself has done so.
        Err(error) if error.code == Code::NotFound && force => Ok(StatusCode::NO_CONTENT),
        Err(error) if error.code == Code::NotFound => Err(not_found(format!("No such container: {reference}"))),
        other => other.map(|_| StatusCode::NO_CONTENT).map_err(Failure::from),
    })
    .await
}

#[derive(Deserialize)]
pub(super) struct Pruning {
    filters: Option<String>,
}

pub(super) async fn prune(State(runtime): State<Runtime>, Query(query): Query<Pruning>) -> Result<Json<Value>> {
    let filters = Filters::parse(query.filters.as_deref(), &["label", "label!"])?;
    locked(runtime, move |inner| {
        let at_rest = |sandbox: &&Sandbox| sandbox.is_at_rest() && filters.labels(&shown(sandbox).config.labels);
        let ids: Vec<_> = inner.model.sandboxes.values().filter(at_rest).map(|sandbox| sandbox.id.clone()).collect();
        for id in &ids {
            inner.remove_sandbox(id, false)?;
        }
        Ok(Json(json!({ "ContainersDeleted": ids, "SpaceReclaimed": 0 })))
    })
    .await
}

#[derive(Deserialize)]
pub(super) struct Reading {
    follow: Option<String>,
    stdout: Option<String>,
    stderr: Option<String>,
    stdin: Option<String>,
    stream: Option<String>,
    logs: Option<String>,
    timestamps: Option<String>,
    tail: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

pub(super) async fn logs(State(runtime): State<Runtime>, Path(reference): Path<String>, Query(query): Query<Reading>) -> Result<Response> {
    let time = |text: &Option<String>| text.as_deref().filter(|text| !matches!(*text, "" | "0")).map(time_ns).transpose();
    let view = View {
        follow: is_true(query.follow.as_deref()),
        stdout: is_true(query.stdout.as_deref()),
        stderr: is_true(query.stderr.as_deref()),
        timestamps: is_true(query.timestamps.as_deref()),
        tail: query.tail.as_deref().and_then(|tail| tail.parse().ok()),
        since_ns: time(&query.since)?.unwrap_or(0),
        until_ns: time(&query.until)?,
        ..View::default()
    };
    if !view.stdout && !view.stderr {
        return Err(bad("Bad parameters: you must choose at least one stream"));
    }
    let reader = locked(runtime, move |inner| {
        let sandbox = find(inner, &reference)?;
        let view = View { raw: sandbox.container.as_ref().is_some_and(|container| container.config.tty), follow: view.follow && sandbox.process.is_some(), ..view };
        inner.console(&sandbox.id).reader(view).map_err(broken)
    })
    .await?;
    let (sender, receiver) = mpsc::channel(8);
    task::spawn(reader.copy(sender));
    Ok(([("content-type", "application/vnd.docker.multiplexed-stream")], Body::new(Stream(receiver))).into_response())
}

pub(super) async fn attach(State(runtime): State<Runtime>, Path(reference): Path<String>, Query(query): Query<Reading>, request: Request) -> Result<Response> {
    let (follow, past, stdin) = (is_true(query.stream.as_deref()), is_true(query.logs.as_deref()), is_true(query.stdin.as_deref()));
    let (stdout, stderr) = (is_true(query.stdout.as_deref()), is_true(query.stderr.as_deref()));
    let (reader, input, raw) = locked(runtime, move |inner| {
        let sandbox = find(inner, &reference)?;
        let container = sandbox.container.as_ref().ok_or_else(|| conflict(format!("{} was not made through this API: its streams are its own; see `docker logs`", sandbox.name)))?;
        let (console, config) = (inner.console(&sandbox.id), &container.config);
        let view = View { follow, stdout, stderr, raw: config.tty, from_end: !past, attached: true, ..View::default() };
        let input = (stdin && follow && config.open_stdin).then(|| console.feed(config.tty, config.stdin_once)).transpose().map_err(broken)?;
        Ok((console.reader(view).map_err(broken)?, input, config.tty))
    })
    .await?;
    let (sender, receiver) = mpsc::channel(8);
    task::spawn(reader.copy(sender));
    Ok(hijack(request, raw, input, receiver))
}
