//! The daemon itself, and images, of which there are none.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderName, StatusCode},
    response::IntoResponse,
};
use nix::sys::utsname::uname;
use serde_json::{Value, json};

use super::{
    VERSION, VERSION_MIN, locked,
    types::{Failure, Result, not_found, rfc3339},
};
use crate::control::runtime::Runtime;

/// What every answer about images says.
const NO_IMAGES: &str = "weft has no image store: use the image `host` (this host's files), or a directory with a root file system, \
                         by its path in the API and as rootfs/PATH/OF/IT with the docker command";

pub(super) async fn ping() -> impl IntoResponse {
    let headers = [("api-version", "1.48"), ("docker-experimental", "false"), ("ostype", "linux"), ("builder-version", "1"), ("swarm", "inactive"), ("cache-control", "no-cache, no-store, must-revalidate"), ("content-type", "text/plain; charset=utf-8")];
    (headers.map(|(name, value)| (HeaderName::from_static(name), value)), "OK")
}

pub(super) async fn version() -> Json<Value> {
    let (kernel, arch) = machine();
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({
        "Platform": { "Name": "weft" },
        "Components": [{ "Name": "weft", "Version": version, "Details": { "ApiVersion": format!("1.{VERSION}"), "MinAPIVersion": format!("1.{VERSION_MIN}"), "Os": "linux", "Arch": arch, "KernelVersion": kernel } }],
        "Version": version,
        "ApiVersion": format!("1.{VERSION}"),
        "MinAPIVersion": format!("1.{VERSION_MIN}"),
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": arch,
        "KernelVersion": kernel,
        "BuildTime": "",
    }))
}

pub(super) async fn info(State(runtime): State<Runtime>) -> Result<Json<Value>> {
    locked(runtime, |inner| {
        let (kernel, arch) = machine();
        let all: Vec<_> = inner.model.sandboxes.values().filter(|sandbox| sandbox.is_ours() || sandbox.container.is_some()).collect();
        let running = all.iter().filter(|sandbox| !sandbox.is_at_rest()).count();
        Ok(Json(json!({
            "ID": "weft",
            "Name": nix::unistd::gethostname().map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned()),
            "ServerVersion": env!("CARGO_PKG_VERSION"),
            "Containers": all.len(),
            "ContainersRunning": running,
            "ContainersPaused": 0,
            "ContainersStopped": all.len() - running,
            "Images": 1,
            "Driver": "host",
            "DriverStatus": [],
            "Plugins": { "Volume": [], "Network": ["bridge", "host", "null"], "Authorization": null, "Log": [] },
            "OperatingSystem": "weft, a userspace virtual switch",
            "OSType": "linux",
            "Architecture": arch,
            "KernelVersion": kernel,
            "DockerRootDir": inner.dirs.state.to_string_lossy(),
            "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            "MemTotal": 0,
            "CgroupDriver": "none",
            "Swarm": { "LocalNodeState": "inactive" },
            "Runtimes": {},
            "DefaultRuntime": "weft",
            "SecurityOptions": if inner.rootless { vec!["name=rootless"] } else { Vec::new() },
            "Labels": inner.labels,
            "Warnings": null,
        })))
    })
    .await
}

/// Kernel, and the machine in Go's words.
fn machine() -> (String, String) {
    let Ok(name) = uname() else { return Default::default() };
    let arch = match name.machine().to_string_lossy().as_ref() {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    (name.release().to_string_lossy().into_owned(), arch)
}

pub(super) const HOST_IMAGE_ID: &str = "sha256:686f7374686f7374686f7374686f7374686f7374686f7374686f7374686f7374";

pub(super) async fn images() -> Json<Value> {
    Json(json!([{
        "Id": HOST_IMAGE_ID, "ParentId": "", "RepoTags": ["host:latest"], "RepoDigests": [], "Created": 0, "Size": 0, "VirtualSize": 0, "SharedSize": -1, "Labels": null, "Containers": -1,
    }]))
}

pub(super) async fn image(Path(rest): Path<String>) -> Result<Json<Value>> {
    let Some(name) = rest.strip_suffix("/json") else { return Err(no_images().await) };
    if !(matches!(name, "host" | "host:latest") || HOST_IMAGE_ID.starts_with(name)) {
        return Err(no_such_image(name));
    }
    Ok(Json(json!({
        "Id": HOST_IMAGE_ID,
        "RepoTags": ["host:latest"],
        "RepoDigests": [],
        "Created": rfc3339(0),
        "Architecture": machine().1,
        "Os": "linux",
        "Size": 0,
        "Config": { "Env": [], "Cmd": null, "Entrypoint": null, "Labels": null },
        "RootFS": { "Type": "layers", "Layers": [] },
        "GraphDriver": { "Name": "host", "Data": null },
        "Comment": "the host's own files",
    })))
}

pub(super) fn no_such_image(name: &str) -> Failure {
    not_found(format!("No such image: {name}: {NO_IMAGES}"))
}

pub(super) async fn no_images() -> Failure {
    Failure(StatusCode::NOT_IMPLEMENTED, NO_IMAGES.into())
}
