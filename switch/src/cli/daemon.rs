//! `weft daemon`.

use tokio::signal::unix::{SignalKind, signal};

use super::{End, Place, args::DaemonArguments, unavailable};
use crate::control::{Daemon, DaemonConfig, rootless};

pub(super) fn run(arguments: &DaemonArguments, place: &Place) -> End {
    start_logging();
    let rootless = prepare(place, arguments.rootless).map_err(unavailable)?;
    let config = DaemonConfig { dirs: place.dirs.clone(), io: arguments.io.into(), rootless };
    block_on(async {
        let daemon = Daemon::start(config).await.map_err(unavailable)?;
        tracing::info!(socket = %place.dirs.socket().display(), rootless, "ready");
        until_told_to_stop().await.map_err(unavailable)?;
        daemon.stop(false);
        Ok(0)
    })
}

/// Enters the user namespace when there is no root. The process still has one thread.
pub(crate) fn prepare(place: &Place, wanted: bool) -> Result<bool, String> {
    let rootless = wanted || !nix::unistd::geteuid().is_root();
    if rootless {
        rootless::enter(&place.dirs)?;
    }
    raise_open_files();
    Ok(rootless)
}

/// Each port takes a descriptor. Where the limit cannot be raised we live with it.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    }
}

pub(crate) fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WEFT_LOG").unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).try_init());
}

pub(crate) fn block_on(work: impl Future<Output = End>) -> End {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unavailable)?;
    runtime.block_on(work)
}

pub(crate) async fn until_told_to_stop() -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
