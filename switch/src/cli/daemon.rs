//! `weft daemon`.

use std::path::Path;

use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};
use weft_control::{Code, ControlError, config::DaemonFile, names::NameOptions, uplink::UplinkSpec};

use super::{
    End, Place,
    args::{DaemonArguments, Io},
    invalid, unavailable,
};
use crate::control::{Daemon, DaemonConfig, rootless};

pub(super) fn run(arguments: &DaemonArguments, place: &Place) -> End {
    let file = arguments.config.as_deref().map(read).transpose()?.unwrap_or_default();
    start_logging(arguments.log.as_deref().or(file.daemon.log.as_deref()))?;
    let io = match (arguments.io, &file.daemon.io) {
        (Some(io), _) => io,
        (None, Some(word)) => Io::from_str(word, true).map_err(|_| invalid(word, format!("[daemon] io = {word:?}: there are auto, uring and epoll")))?,
        (None, None) => Io::default(),
    };
    let rootless = prepare(place, arguments.rootless || file.daemon.rootless).map_err(unavailable)?;
    let uplink = arguments.uplink.as_deref().or(file.daemon.uplink.as_deref()).map_or(Ok(UplinkSpec::Sockets), str::parse)?;
    let dns = if arguments.dns.is_empty() { file.daemon.dns.clone() } else { arguments.dns.clone() };
    NameOptions { dns: dns.clone(), ..NameOptions::default() }.check()?;
    let vxlan_port = arguments.vxlan_port.or(file.daemon.vxlan_port).unwrap_or(vxlan::PORT);
    if vxlan_port == 0 {
        return Err(invalid("0", "vxlan-port 0: nodes could not find each other"));
    }
    let config = DaemonConfig { dirs: place.dirs.clone(), io: io.into(), rootless, uplink, vxlan_port, lifetimes: lifetimes(&file)?, dns, bridge_names: file.daemon.bridge_names };
    block_on(async {
        let daemon = Daemon::start(config).await.map_err(unavailable)?;
        let made = file.networks.iter().try_for_each(|network| match daemon.runtime.lock().create_network(network) {
            Err(error) if error.code == Code::Exists => Ok(()),
            other => other.map(drop),
        });
        if let Err(error) = made {
            daemon.stop(false);
            return Err(error);
        }
        tracing::info!(socket = %place.dirs.socket().display(), rootless, "ready");
        until_told_to_stop().await.map_err(unavailable)?;
        daemon.stop(false);
        Ok(0)
    })
}

/// What `[nat]` says, or the RFCs.
fn lifetimes(file: &DaemonFile) -> Result<nat::Lifetimes, ControlError> {
    let (said, usual) = (file.nat, nat::Lifetimes::default());
    let choose = |said: Option<u64>, usual| said.map_or(usual, std::time::Duration::from_secs);
    let lifetimes = nat::Lifetimes {
        udp: choose(said.udp_s, usual.udp),
        tcp_established: choose(said.tcp_established_s, usual.tcp_established),
        tcp_transitory: choose(said.tcp_transitory_s, usual.tcp_transitory),
        icmp: choose(said.icmp_s, usual.icmp),
        other: choose(said.other_s, usual.other),
        ..usual
    };
    match lifetimes.below_minimum() {
        Some((name, least)) => Err(invalid(name, format!("[nat] {}-s: the RFCs demand at least {} seconds", name.replace('_', "-"), least.as_secs()))),
        None => Ok(lifetimes),
    }
}

fn read(path: &Path) -> Result<DaemonFile, ControlError> {
    let text = std::fs::read_to_string(path).map_err(|error| unavailable(format!("cannot read {}: {error}", path.display())))?;
    DaemonFile::parse(&text).map_err(|error| invalid(&path.to_string_lossy(), format!("{}: {error}", path.display())))
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

/// `filter` as tracing has it; errors of the filter are the user's to see.
pub(crate) fn start_logging(filter: Option<&str>) -> Result<(), ControlError> {
    let filter = filter.unwrap_or("info");
    let parsed = tracing_subscriber::EnvFilter::builder().parse(filter).map_err(|error| invalid(filter, format!("--log {filter}: {error}")).hint("want error, warn, info, debug, trace, or info,weft=debug"))?;
    drop(tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_target(false).try_init());
    Ok(())
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
