//! The native API: HTTP/1.1 and JSON on a unix socket. See docs/api.md.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use dataplane::{CaptureConfig, CaptureScope};
use packet::BadFilter;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task};
use weft_control::{Code, ControlError, Result, api};

use super::{
    connections, engine,
    listen::Callers,
    runtime::{Inner, Runtime, target_name, unavailable},
};

/// Largest body taken, bytes: far above any real request.
const MAX_BODY: usize = 1 << 20;

pub(crate) async fn serve(callers: Callers, runtime: Runtime) {
    let engine = engine::routes(runtime.clone());
    let app = Router::new()
        .route("/v1/info", get(info))
        .route("/v1/networks", get(networks).post(create_network))
        .route("/v1/networks/{network}", get(network).patch(patch_network).delete(remove_network))
        .route("/v1/networks/{network}/leases", get(leases))
        .route("/v1/networks/{network}/connect", post(connect))
        .route("/v1/networks/{network}/disconnect", post(disconnect))
        .route("/v1/config", post(configure))
        .route("/v1/sandboxes", get(sandboxes).post(create_sandbox))
        .route("/v1/sandboxes/{sandbox}", get(sandbox).delete(remove_sandbox))
        .route("/v1/sandboxes/{sandbox}/process", post(process_started))
        .route("/v1/attach", post(attach))
        .route("/v1/detach", post(detach))
        .route("/v1/ports", get(ports))
        .route("/v1/ports/{port}", patch(patch_port))
        .route("/v1/sandboxes/{reference}/publish", post(add_publish).delete(remove_publish))
        .route("/v1/publishes", get(publishes))
        .route("/v1/vips", get(vips))
        .route("/v1/flows", get(flows))
        .route("/v1/nat", get(nat_rules))
        .route("/v1/trace", post(trace))
        .route("/v1/routes", get(routes).post(add_route).delete(remove_route))
        .route("/v1/networks/prune", post(prune_networks))
        .route("/v1/ports/{port}/move", post(move_port))
        .route("/v1/networks/{network}/peers", post(add_peer).delete(remove_peer))
        .route("/v1/networks/{network}/stations", post(add_station).delete(remove_station))
        .route("/v1/networks/{network}/keys", post(rekey))
        .route("/v1/overlays", get(overlays))
        .route("/v1/fdb", get(fdb).post(add_fdb).delete(remove_fdb))
        .route("/v1/netns", get(namespaces).post(add_namespace))
        .route("/v1/netns/{name}", axum::routing::delete(remove_namespace))
        .route("/v1/bridges", get(bridges))
        .route("/v1/stats", get(stats))
        .route("/v1/nodes", get(nodes))
        .route("/v1/cluster/checks", get(cluster_checks))
        .route("/v1/events", get(events))
        .route("/v1/capture", get(capture))
        .fallback(move |request| engine::serve(engine.clone(), request))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .with_state(runtime);
    connections::serve(callers, app).await;
}

struct Failure(ControlError);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.code {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Exists | Code::Conflict | Code::InUse => StatusCode::CONFLICT,
            Code::Invalid | Code::CommandNotFound | Code::CannotExecute => StatusCode::BAD_REQUEST,
            Code::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
            Code::Unavailable => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.0)).into_response()
    }
}

type Answer<T> = std::result::Result<Json<T>, Failure>;
type Body1<T> = std::result::Result<Json<T>, JsonRejection>;

/// Runs a change off the reactor: it may make system calls that take a while.
async fn change<T: Send + 'static>(runtime: Runtime, work: impl FnOnce(&mut Inner) -> Result<T> + Send + 'static) -> Answer<T> {
    blocking(move || work(&mut runtime.lock())).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Answer<T> {
    task::spawn_blocking(work).await.map_err(unavailable).and_then(|result| result).map(Json).map_err(Failure)
}

fn body<T: DeserializeOwned>(body: Body1<T>) -> std::result::Result<T, Failure> {
    body.map(|Json(value)| value).map_err(|error| Failure(ControlError::new(Code::Invalid, "body", error.body_text())))
}

async fn info(State(runtime): State<Runtime>) -> Answer<api::Info> {
    change(runtime, |inner| {
        Ok(api::Info {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: i32::try_from(std::process::id()).map_err(unavailable)?,
            rootless: inner.rootless,
            io: inner.dataplane.backend().into(),
            kind: inner.default_kind,
            kind_reason: inner.kind_reason.clone(),
            run_dir: inner.dirs.run.to_string_lossy().into_owned(),
            state_dir: inner.dirs.state.to_string_lossy().into_owned(),
            socket: inner.dirs.socket().to_string_lossy().into_owned(),
        })
    })
    .await
}

async fn networks(State(runtime): State<Runtime>) -> Answer<Value> {
    change(runtime, |inner| {
        let mut problems = inner.parent_problems();
        let networks = inner.model.networks.values().map(|network| network_view(network, problems.remove(&network.id)));
        Ok(networks.chain(inner.model.configs.values().map(config_view)).collect())
    })
    .await
}

/// A network, with what is wrong with the device of a lan.
fn network_view(network: &weft_control::Network, problem: Option<ControlError>) -> Value {
    let mut view = json!(network);
    if let Some(problem) = problem {
        view["lan"]["problem"] = json!(problem);
    }
    view
}

/// A configuration of networks, among them: what they take over, with a driver of nothing, as Docker shows it.
fn config_view(config: &weft_control::ConfigNetwork) -> Value {
    let mut view = json!(config.request);
    for (key, value) in [("id", json!(config.id)), ("driver", json!("null")), ("config_only", json!(true)), ("created_ns", json!(config.created_ns))] {
        view[key] = value;
    }
    view
}

/// `?dry-run=true`: says what would be made, and makes nothing.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DryRun {
    #[serde(default)]
    dry_run: bool,
}

async fn create_network(State(runtime): State<Runtime>, Query(dry): Query<DryRun>, request: Body1<api::NetworkCreate>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| if dry.dry_run { inner.plan_network(&request) } else { inner.create_network(&request) }.map(|network| json!(network))).await
}

async fn prune_networks(State(runtime): State<Runtime>) -> Answer<Value> {
    change(runtime, |inner| inner.prune_networks(|_| true).map(|names| json!({ "NetworksDeleted": names }))).await
}

async fn network(State(runtime): State<Runtime>, Path(reference): Path<String>) -> Answer<Value> {
    change(runtime, move |inner| {
        let network = match (inner.model.network(&reference), inner.model.config(&reference)) {
            (Err(_), Some(config)) => return Ok(config_view(config)),
            (network, _) => network?,
        };
        let mut view = network_view(network, inner.parent_problems().remove(&network.id));
        if let Some(encryption) = inner.encryption(network)? {
            view["encryption"] = json!(encryption);
        }
        view["endpoints"] = inner
            .model
            .members(&network.id)
            .map(|(sandbox, endpoint)| json!({ "sandbox": sandbox.name, "sandbox_id": sandbox.id, "endpoint": endpoint }))
            .chain(inner.model.remote_members(&network.id).map(|(id, endpoint)| json!({ "sandbox": endpoint.name, "sandbox_id": endpoint.sandbox, "node": endpoint.node, "id": id, "endpoint": endpoint })))
            .collect();
        Ok(view)
    })
    .await
}

async fn patch_network(State(runtime): State<Runtime>, Path(reference): Path<String>, Query(dry): Query<DryRun>, request: Body1<Value>) -> Answer<Value> {
    let patch = body(request)?;
    change(runtime, move |inner| inner.patch_network(&reference, &patch, dry.dry_run)).await
}

async fn configure(State(runtime): State<Runtime>, Query(dry): Query<DryRun>, request: Body1<weft_control::desired::Desired>) -> Answer<Value> {
    let desired = body(request)?;
    blocking(move || runtime.configure(&desired, dry.dry_run).map(|changes| json!({ "changes": changes }))).await
}

async fn remove_network(State(runtime): State<Runtime>, Path(reference): Path<String>) -> Answer<Value> {
    change(runtime, move |inner| match inner.remove_config(&reference)? {
        Some(config) => Ok(config_view(&config)),
        None => inner.remove_network(&reference).map(|network| json!(network)),
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connect {
    sandbox: String,
    #[serde(default)]
    endpoint: Option<Value>,
}

async fn connect(State(runtime): State<Runtime>, Path(network): Path<String>, request: Body1<Connect>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| {
        swapped(inner, &network, &request.sandbox)?;
        let mut endpoint = request.endpoint.unwrap_or_else(|| json!({}));
        endpoint["network"] = json!(network);
        let endpoint: api::EndpointCreate = serde_json::from_value(endpoint).map_err(|error| ControlError::new(Code::Invalid, "endpoint", error.to_string()))?;
        inner.connect(&request.sandbox, &endpoint).map(|sandbox| json!(sandbox))
    })
    .await
}

async fn disconnect(State(runtime): State<Runtime>, Path(network): Path<String>, request: Body1<Connect>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| {
        swapped(inner, &network, &request.sandbox)?;
        inner.disconnect(&request.sandbox, &network).map(|sandbox| json!(sandbox))
    })
    .await
}

/// The two arguments the wrong way round: say so.
fn swapped(inner: &Inner, network: &str, sandbox: &str) -> Result<()> {
    if inner.model.network(network).is_err() && inner.model.network(sandbox).is_ok() && inner.model.sandbox(network).is_ok() {
        return Err(ControlError::new(Code::Invalid, network, format!("{network} is a sandbox and {sandbox} is a network: the arguments are swapped"))
            .hint(format!("the order is NETWORK SANDBOX: `{sandbox} {network}`")));
    }
    Ok(())
}

async fn sandboxes(State(runtime): State<Runtime>) -> Answer<Value> {
    change(runtime, |inner| Ok(json!(inner.model.sandboxes.values().map(|sandbox| view(inner, sandbox)).collect::<Vec<_>>()))).await
}

async fn sandbox(State(runtime): State<Runtime>, Path(reference): Path<String>) -> Answer<Value> {
    change(runtime, move |inner| inner.model.sandbox(&reference).map(|sandbox| view(inner, sandbox))).await
}

fn view(inner: &Inner, sandbox: &weft_control::Sandbox) -> Value {
    let mut view = json!(sandbox);
    view["pid"] = json!(sandbox.process.map(|process| process.pid));
    if sandbox.is_ours() && !sandbox.is_at_rest() {
        view["netns_path"] = json!(inner.dirs.pins().join(&sandbox.id));
        view["etc_path"] = json!(inner.dirs.etc_of(&sandbox.id));
    }
    // A process that was started by another has streams of its own.
    if sandbox.is_logged() {
        view["log"] = json!(inner.dirs.output_of(&sandbox.id));
    }
    for endpoint in view["endpoints"].as_array_mut().into_iter().flatten() {
        let name = endpoint["network"].as_str().and_then(|id| inner.model.networks.get(id)).map(|network| network.name.clone());
        endpoint["network_name"] = json!(name);
    }
    view
}

async fn create_sandbox(State(runtime): State<Runtime>, Query(dry): Query<DryRun>, request: Body1<api::SandboxCreate>) -> Answer<Value> {
    let request = body(request)?;
    blocking(move || {
        if dry.dry_run {
            return runtime.lock().plan_sandbox(&request).map(|sandbox| json!(sandbox));
        }
        let sandbox = runtime.create_sandbox(&request)?;
        let inner = runtime.lock();
        Ok(view(&inner, &sandbox))
    })
    .await
}

#[derive(Deserialize)]
struct Force {
    #[serde(default)]
    force: bool,
}

async fn remove_sandbox(State(runtime): State<Runtime>, Path(reference): Path<String>, Query(query): Query<Force>) -> Answer<Value> {
    change(runtime, move |inner| inner.remove_sandbox(&reference, query.force).map(|sandbox| json!(sandbox))).await
}

async fn process_started(State(runtime): State<Runtime>, Path(reference): Path<String>, request: Body1<api::ProcessStarted>) -> Answer<Value> {
    let request = body(request)?;
    blocking(move || runtime.process_started(&reference, request.pid).map(|sandbox| json!(sandbox))).await
}

async fn attach(State(runtime): State<Runtime>, Query(dry): Query<DryRun>, request: Body1<api::Attach>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| {
        if dry.dry_run {
            return inner.plan_attach(request.target, request.endpoint).map(|sandbox| json!(sandbox));
        }
        inner.attach(request.target, request.endpoint).map(|sandbox| view(inner, &sandbox))
    })
    .await
}

async fn detach(State(runtime): State<Runtime>, request: Body1<api::Detach>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| {
        let (sandbox, network) = match (&request.port, &request.network, &request.target) {
            (Some(port), _, _) => {
                let (sandbox, endpoint) = inner.model.port(port)?;
                (sandbox.name.clone(), endpoint.network.clone())
            }
            (None, Some(network), Some(target)) => (target_name(target), network.clone()),
            _ => return Err(ControlError::new(Code::Invalid, "detach", "want a port, or a network and a target")),
        };
        inner.disconnect(&sandbox, &network).map(|sandbox| json!(sandbox))
    })
    .await
}

async fn ports(State(runtime): State<Runtime>) -> Answer<Vec<api::PortInfo>> {
    change(runtime, |inner| inner.port_infos()).await
}

async fn patch_port(State(runtime): State<Runtime>, Path(port): Path<String>, request: Body1<api::PortPatch>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| inner.patch_port(&port, &request).map(|()| json!({}))).await
}

async fn move_port(State(runtime): State<Runtime>, Path(port): Path<String>, request: Body1<api::PortMove>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| inner.move_port(&port, &request).map(|sandbox| json!(sandbox))).await
}

#[derive(Deserialize)]
struct OfNetwork {
    network: Option<String>,
}

async fn fdb(State(runtime): State<Runtime>, Query(query): Query<OfNetwork>) -> Answer<Vec<api::FdbEntry>> {
    change(runtime, move |inner| inner.fdb(query.network.as_deref())).await
}

async fn add_fdb(State(runtime): State<Runtime>, request: Body1<api::FdbEdit>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| inner.edit_fdb(&request, true).map(|()| json!({}))).await
}

async fn remove_fdb(State(runtime): State<Runtime>, request: Body1<api::FdbEdit>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| inner.edit_fdb(&request, false).map(|()| json!({}))).await
}

async fn overlays(State(runtime): State<Runtime>, Query(query): Query<OfNetwork>) -> Answer<api::Overlays> {
    change(runtime, move |inner| inner.overlays(query.network.as_deref())).await
}

async fn rekey(State(runtime): State<Runtime>, Path(network): Path<String>) -> Answer<api::EncryptionInfo> {
    change(runtime, move |inner| inner.rekey(&network)).await
}

async fn add_peer(State(runtime): State<Runtime>, Path(network): Path<String>, request: Body1<api::PeerEdit>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| inner.set_peer(&network, request.peer, true).map(|()| json!({}))).await
}

async fn remove_peer(State(runtime): State<Runtime>, Path(network): Path<String>, request: Body1<api::PeerEdit>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| inner.set_peer(&network, request.peer, false).map(|()| json!({}))).await
}

async fn add_station(State(runtime): State<Runtime>, Path(network): Path<String>, request: Body1<api::StationEdit>) -> Answer<Value> {
    let request = body(request)?;
    let node = request.node.ok_or_else(|| Failure(ControlError::new(Code::Invalid, "node", "want the node that the station is behind")))?;
    change(runtime, move |inner| inner.set_station(&network, &request.mac, Some(node)).map(|()| json!({}))).await
}

async fn remove_station(State(runtime): State<Runtime>, Path(network): Path<String>, request: Body1<api::StationEdit>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| inner.set_station(&network, &request.mac, None).map(|()| json!({}))).await
}

async fn add_publish(State(runtime): State<Runtime>, Path(reference): Path<String>, request: Body1<api::PublishEdit>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| inner.add_publish(&reference, &request.publish).map(|published| json!(published))).await
}

async fn remove_publish(State(runtime): State<Runtime>, Path(reference): Path<String>, request: Body1<api::PublishEdit>) -> Answer<Value> {
    let request = body(request)?;
    change(runtime, move |inner| inner.remove_publish(&reference, &request.publish).map(|published| json!(published))).await
}

async fn publishes(State(runtime): State<Runtime>) -> Answer<Vec<api::PublishInfo>> {
    change(runtime, |inner| inner.publish_infos()).await
}

async fn vips(State(runtime): State<Runtime>) -> Answer<Vec<api::VipInfo>> {
    change(runtime, |inner| inner.vip_infos()).await
}

async fn trace(State(runtime): State<Runtime>, request: Body1<api::TraceRequest>) -> Answer<Vec<String>> {
    let request = body(request)?;
    change(runtime, move |inner| inner.trace(&request)).await
}

async fn routes(State(runtime): State<Runtime>) -> Answer<Vec<api::RoutePair>> {
    change(runtime, |inner| Ok(inner.route_pairs())).await
}

async fn add_route(State(runtime): State<Runtime>, pair: Body1<api::RoutePair>) -> Answer<Value> {
    let pair = body(pair)?;
    change(runtime, move |inner| inner.set_route(&pair.networks, true).map(|()| json!(pair))).await
}

async fn remove_route(State(runtime): State<Runtime>, pair: Body1<api::RoutePair>) -> Answer<Value> {
    let pair = body(pair)?;
    change(runtime, move |inner| inner.set_route(&pair.networks, false).map(|()| json!(pair))).await
}

async fn leases(State(runtime): State<Runtime>, Path(network): Path<String>) -> Answer<Vec<api::LeaseInfo>> {
    change(runtime, move |inner| inner.leases(&network)).await
}

async fn nat_rules(State(runtime): State<Runtime>) -> Answer<Vec<api::NatRule>> {
    change(runtime, |inner| inner.nat_rules()).await
}

async fn flows(State(runtime): State<Runtime>) -> Answer<Vec<api::FlowInfo>> {
    change(runtime, |inner| inner.flow_infos()).await
}

async fn namespaces(State(runtime): State<Runtime>) -> Answer<Vec<api::NetnsInfo>> {
    change(runtime, |inner| {
        let names = inner.names.list().map_err(unavailable)?;
        let info = |name: String| {
            let path = inner.names.path_of(&name).ok()?;
            let pids = inner.names.open(&name).map(|netns| netns.pids()).unwrap_or_default();
            Some(api::NetnsInfo { path: path.to_string_lossy().into_owned(), name, pids })
        };
        Ok(names.into_iter().filter_map(info).collect())
    })
    .await
}

async fn add_namespace(State(runtime): State<Runtime>, request: Body1<api::NetnsCreate>) -> Answer<api::NetnsInfo> {
    let request = body(request)?;
    change(runtime, move |inner| {
        let path = inner.names.path_of(&request.name).map_err(|error| ControlError::new(Code::Invalid, &request.name, error.to_string()))?;
        if path.exists() {
            return Err(ControlError::new(Code::Exists, &request.name, format!("a namespace {} already exists", request.name)));
        }
        inner.names.add(&request.name).map_err(unavailable)?;
        inner.event("netns add", json!({ "netns": request.name }));
        Ok(api::NetnsInfo { name: request.name, path: path.to_string_lossy().into_owned(), pids: Vec::new() })
    })
    .await
}

async fn remove_namespace(State(runtime): State<Runtime>, Path(name): Path<String>) -> Answer<Value> {
    change(runtime, move |inner| {
        inner.names.open(&name).map_err(|error| ControlError::new(Code::NotFound, &name, error.to_string()).hint("`weft netns ls` lists them"))?;
        inner.names.delete(&name).map_err(unavailable)?;
        inner.event("netns delete", json!({ "netns": name }));
        Ok(json!({}))
    })
    .await
}

async fn nodes(State(runtime): State<Runtime>) -> Answer<Vec<api::NodeInfo>> {
    change(runtime, |inner| inner.nodes()).await
}

/// Without a cluster, only what is wrong with overlays of this node.
async fn cluster_checks(State(runtime): State<Runtime>) -> Answer<Vec<api::Check>> {
    blocking(move || {
        let (tunnels, cluster) = {
            let inner = runtime.lock();
            (inner.tunnel_checks(), inner.cluster_checks())
        };
        Ok(cluster.map(super::cluster::Checks::run).into_iter().flatten().chain(tunnels).collect())
    })
    .await
}

async fn bridges(State(runtime): State<Runtime>) -> Answer<Vec<api::BridgeInfo>> {
    change(runtime, |inner| inner.bridge_infos()).await
}

async fn stats(State(runtime): State<Runtime>) -> Answer<api::Stats> {
    change(runtime, |inner| inner.stats()).await
}

#[derive(Deserialize)]
struct EventsQuery {
    #[serde(default)]
    flows: bool,
}

async fn events(State(runtime): State<Runtime>, Query(query): Query<EventsQuery>) -> Response {
    let mut events = runtime.events.subscribe();
    let (sender, receiver) = mpsc::channel(64);
    let watching = query.flows.then(|| runtime.watch_flows());
    task::spawn(async move {
        let _watching = watching;
        loop {
            let line = match events.recv().await {
                Ok(event) if !query.flows && event["type"].as_str().is_some_and(|kind| kind.starts_with("flow ")) => continue,
                Ok(event) => format!("{event}\n"),
                Err(tokio::sync::broadcast::error::RecvError::Lagged(count)) => format!("{}\n", json!({ "type": "lost", "count": count })),
                Err(tokio::sync::broadcast::error::RecvError::Closed) => break,
            };
            if sender.send(Bytes::from(line)).await.is_err() {
                break;
            }
        }
    });
    Response::new(Body::new(Stream(receiver)))
}

#[derive(Deserialize, Serialize)]
struct CaptureQuery {
    #[serde(default)]
    target: Option<String>,
    #[serde(default)]
    whole: bool,
    #[serde(default)]
    filter: Option<String>,
}

async fn capture(State(runtime): State<Runtime>, Query(query): Query<CaptureQuery>) -> std::result::Result<Response, Failure> {
    let Json((_, blocks)) = change(runtime, move |inner| {
        let scope = match query.target.as_deref() {
            None | Some("all") => CaptureScope::All,
            Some(target) => inner.capture_scope(target)?,
        };
        let filter = query.filter.filter(|text| !text.trim().is_empty()).map(|text| text.parse().map_err(|error: BadFilter| ControlError::new(Code::Invalid, text, error.to_string()).hint("filters are a part of pcap-filter(7)")));
        inner.dataplane.start_capture(CaptureConfig { scope, whole: query.whole, filter: filter.transpose()? }).map_err(unavailable)
    })
    .await?;
    let (sender, receiver) = mpsc::channel(256);
    task::spawn_blocking(move || {
        // The capture ends when either side does.
        loop {
            let delivered = match blocks.recv_timeout(std::time::Duration::from_millis(200)) {
                Ok(block) => sender.blocking_send(Bytes::from(block)).is_ok(),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => !sender.is_closed(),
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => false,
            };
            if !delivered {
                break;
            }
        }
    });
    Ok(Response::new(Body::new(Stream(receiver))))
}

impl Inner {
    /// A network or port to capture on.
    fn capture_scope(&self, target: &str) -> Result<CaptureScope> {
        if let Ok(network) = self.model.network(target) {
            let bridge = self.bridges.get(&network.id).ok_or_else(|| unavailable("the network has no bridge"))?;
            return Ok(CaptureScope::Network(*bridge));
        }
        if let Some((port, _)) = self.tunnel_names().chain(self.parent_names()).find(|(_, name)| name == target) {
            return Ok(CaptureScope::Port(port));
        }
        if let Some(port) = self.uplink_port(target)? {
            return Ok(CaptureScope::Port(port));
        }
        // A sandbox with one port stands for it.
        let name = match self.model.sandbox(target) {
            Ok(sandbox) if sandbox.endpoints.len() == 1 => weft_control::port_name(sandbox, &sandbox.endpoints[0]),
            _ => target.to_owned(),
        };
        let (_, endpoint) = self.model.port(&name).map_err(|_| {
            ControlError::new(Code::NotFound, target, format!("no network or port {target}")).hint("`weft network ls` and `weft port ls` list them; `all` captures everything")
        })?;
        self.ports.get(&endpoint.id).copied().map(CaptureScope::Port).ok_or_else(|| unavailable("the port's device is gone"))
    }
}

/// A body that comes from a channel.
pub(super) struct Stream(pub(super) mpsc::Receiver<Bytes>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<std::result::Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(hyper::body::Frame::data(bytes))))
    }
}
