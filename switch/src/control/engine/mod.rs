//! The part of Docker's Engine API that a network needs, for the stock `docker` command: networks, and
//! containers simple enough to try them. Served beside the native API; see docs/api.md.

mod containers;
mod events;
mod exec;
mod inspect;
mod lifecycle;
mod networks;
mod service;
mod source;
pub(crate) mod stream;
mod system;
mod types;

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{delete, get, head, post},
};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::task;
use types::{Failure, Result, bad, broken, not_found};

use super::runtime::{Inner, Runtime};
pub(crate) use {events::History, exec::Execs, lifecycle::{KILLED, UNKNOWN, log_bound}, stream::Consoles};

/// The version spoken, and the oldest that is understood.
const VERSION: u32 = 48;
const VERSION_MIN: u32 = 24;

type Engine = TowerToHyperService<Router>;

pub(super) fn routes(runtime: Runtime) -> Engine {
    let router = Router::new()
        .route("/_ping", get(system::ping))
        .route("/_ping", head(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(events::follow))
        .route("/images/json", get(system::images))
        .route("/images/{*rest}", get(system::image).post(system::no_images))
        .route("/images/create", post(system::no_images))
        .route("/build", post(system::no_images))
        .route("/networks", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune))
        .route("/networks/{reference}", get(networks::inspect).delete(networks::remove))
        .route("/networks/{reference}/connect", post(networks::connect))
        .route("/networks/{reference}/disconnect", post(networks::disconnect))
        .route("/containers/json", get(inspect::list))
        .route("/containers/create", post(containers::create))
        .route("/containers/prune", post(containers::prune))
        .route("/containers/{reference}", delete(containers::remove))
        .route("/containers/{reference}/json", get(inspect::inspect))
        .route("/containers/{reference}/start", post(containers::start))
        .route("/containers/{reference}/stop", post(containers::stop))
        .route("/containers/{reference}/restart", post(containers::restart))
        .route("/containers/{reference}/kill", post(containers::kill))
        .route("/containers/{reference}/wait", post(containers::wait))
        .route("/containers/{reference}/rename", post(containers::rename))
        .route("/containers/{reference}/resize", post(containers::resize))
        .route("/containers/{reference}/logs", get(containers::logs))
        .route("/containers/{reference}/attach", post(containers::attach))
        .route("/containers/{reference}/top", get(inspect::top))
        .route("/containers/{reference}/exec", post(exec::create))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/resize", post(exec::resize))
        .route("/exec/{id}/json", get(exec::inspect))
        .fallback(|request: Request| async move { absent(request.uri().path()) })
        .method_not_allowed_fallback(|request: Request| async move { Failure(StatusCode::METHOD_NOT_ALLOWED, format!("weft does not serve {} {}", request.method(), request.uri().path())) })
        .with_state(runtime);
    TowerToHyperService::new(router)
}

/// What the native API does not know; Docker's clients put their version before the path.
pub(super) async fn serve(engine: Engine, mut request: Request) -> Response {
    match unversioned(request.uri()) {
        Ok(Some(uri)) => *request.uri_mut() = uri,
        Ok(None) => {}
        Err(failure) => return failure.into_response(),
    }
    // What was asked is done, even if who asked goes away meanwhile: otherwise a restart might stop halfway.
    match task::spawn(engine.call(request)).await {
        Ok(Ok(response)) => response.map(Body::new),
        Ok(Err(never)) => match never {},
        Err(error) => broken(error).into_response(),
    }
}

/// The path without `/v1.NN`.
fn unversioned(uri: &Uri) -> Result<Option<Uri>> {
    let Some((minor, rest)) = uri.path().strip_prefix("/v1.").and_then(|rest| rest.split_once('/')) else { return Ok(None) };
    match minor.parse::<u32>() {
        Ok(minor) if minor < VERSION_MIN => Err(bad(format!("client version 1.{minor} is too old. Minimum supported API version is 1.{VERSION_MIN}, please upgrade your client to a newer version"))),
        Ok(minor) if minor > VERSION => Err(bad(format!("client version 1.{minor} is too new. Maximum supported API version is 1.{VERSION}"))),
        Ok(_) => {
            let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
            format!("/{rest}{query}").parse().map(Some).map_err(|_| bad("invalid path"))
        }
        Err(_) => Err(bad(format!("invalid API version 1.{minor}"))),
    }
}

/// Parts of Docker that weft has nothing of.
fn absent(path: &str) -> Failure {
    const WORDS: [(&str, &str); 9] = [
        ("volumes", "it has no volumes: bind a directory of the host with -v /HOST:/CONTAINER"),
        ("swarm", "it has no swarm"),
        ("services", "it has no swarm"),
        ("nodes", "it has no swarm"),
        ("tasks", "it has no swarm"),
        ("secrets", "it has no swarm"),
        ("configs", "it has no swarm"),
        ("plugins", "it has no plugins"),
        ("containers", "see docs/api.md for what it does with containers"),
    ];
    let first = path.split('/').nth(1).unwrap_or_default();
    match WORDS.iter().find(|(word, _)| *word == first) {
        Some((_, why)) if path.split('/').count() > 2 && first != "containers" => not_found(format!("weft does not serve {path}: {why}")),
        Some((_, why)) => Failure(StatusCode::NOT_IMPLEMENTED, format!("weft does not serve {path}: {why}")),
        None => not_found(format!("weft does not serve {path}: no such route; see docs/api.md")),
    }
}

/// Runs work on the state off the reactor: it may make system calls that take a while.
async fn locked<T: Send + 'static>(runtime: Runtime, work: impl FnOnce(&mut Inner) -> Result<T> + Send + 'static) -> Result<T> {
    task::spawn_blocking(move || work(&mut runtime.lock())).await.map_err(broken)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let path = |text: &str| unversioned(&text.parse().unwrap()).map(|uri| uri.map(|uri| uri.to_string())).map_err(|failure| failure.1);
        assert_eq!(path("/v1.41/networks?filters=x"), Ok(Some("/networks?filters=x".into())));
        assert_eq!(path("/networks"), Ok(None));
        assert!(path("/v1.99/networks").unwrap_err().contains("too new") && path("/v1.2/networks").unwrap_err().contains("too old") && path("/v1.x/networks").is_err());
    }
}
