//! `weft daemon`.

use std::{
    fmt::Debug,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use weft_control::{
    Code, ControlError, Defaults,
    config::{DaemonFile, DaemonSection},
    names::NameOptions,
    uplink::UplinkSpec,
};

use super::{
    End, Place,
    args::{DaemonArguments, Io},
    cluster,
    invalid, unavailable,
};
use crate::control::{
    Daemon, DaemonConfig,
    listen::{Address, TlsFiles},
    rootless,
};

/// Certificates for `tcp://`, in Docker's words.
#[derive(Debug, Args)]
pub(super) struct TlsArguments {
    /// Speak TLS on tcp://
    #[arg(long)]
    tls: bool,
    /// And only to clients whose certificate --tlscacert signed
    #[arg(long)]
    tlsverify: bool,
    /// Who signs clients' certificates, PEM
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<PathBuf>,
    /// The daemon's certificate, PEM
    #[arg(long, value_name = "FILE")]
    tlscert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE")]
    tlskey: Option<PathBuf>,
}

pub(super) fn run(arguments: &DaemonArguments, hosts: &[String], place: &Place) -> End {
    let mut file = arguments.config.as_deref().map(read).transpose()?.unwrap_or_default();
    start_logging(log_filter(arguments, &file)?.as_deref())?;
    for notice in &file.notices {
        tracing::warn!("{}: {notice}", arguments.config.as_deref().unwrap_or(Path::new("")).display());
    }
    merge(arguments, hosts, &mut file)?;
    let io = match &file.daemon.io {
        Some(word) => Io::from_str(word, true).map_err(|_| invalid(word, format!("[daemon] io = {word:?}: there are auto, uring and epoll")))?,
        None => Io::default(),
    };
    let uplink = file.daemon.uplink.as_deref().map_or(Ok(UplinkSpec::Sockets), str::parse)?;
    let vxlan_port = file.daemon.vxlan_port.unwrap_or(vxlan::PORT);
    if vxlan_port == 0 {
        return Err(invalid("0", "vxlan-port 0: nodes could not find each other"));
    }
    let DaemonSection { dns, dns_search, dns_opts, .. } = file.daemon.clone();
    NameOptions { dns: dns.clone(), dns_search: dns_search.clone(), dns_option: dns_opts.clone(), ..NameOptions::default() }.check()?;
    let defaults = Defaults { pools: file.daemon.default_address_pools.clone(), options: file.daemon.default_network_opts.clone(), dns_search, dns_option: dns_opts };
    defaults.check()?;
    if let Some(label) = file.daemon.labels.iter().find(|label| !label.contains('=')) {
        return Err(invalid(label, format!("labels: {label:?}: want KEY=VALUE")));
    }
    let cluster = cluster::config(&file.cluster)?;
    let hosts: Vec<Address> = file.daemon.hosts.iter().map(|host| host.parse()).collect::<Result<_, _>>()?;
    let mut dirs = place.dirs.clone();
    match hosts.iter().find_map(|host| if let Address::Unix(path) = host { Some(path) } else { None }) {
        Some(Some(path)) => dirs.set_socket(path.clone()),
        Some(None) => {}
        None if hosts.is_empty() => {}
        None => tracing::warn!("no unix socket: the weft command does not reach this daemon; add -H unix://"),
    }
    let tls = TlsFiles::of(&file.daemon)?;
    let lifetimes = lifetimes(&file)?;
    let rootless = prepare(place, file.daemon.rootless).map_err(unavailable)?;
    let config = DaemonConfig {
        io: io.into(),
        uplink,
        vxlan_port,
        lifetimes,
        dns,
        bridge_names: file.daemon.bridge_names,
        default_network: file.default_network.clone(),
        defaults,
        hosts: if hosts.is_empty() { vec![Address::Unix(None)] } else { hosts },
        tls,
        labels: file.daemon.labels.clone(),
        cluster,
        ..DaemonConfig::new(dirs.clone(), rootless)
    };
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
        tracing::info!(socket = %dirs.socket().display(), rootless, "ready");
        until_told_to_stop().await.map_err(unavailable)?;
        daemon.stop(false);
        Ok(0)
    })
}

/// Puts what the command line says to what the file says. As in Docker, nothing may be said twice.
fn merge(arguments: &DaemonArguments, hosts: &[String], file: &mut DaemonFile) -> Result<(), ControlError> {
    fn one<T: Clone + Debug>(twice: &mut Vec<String>, key: &str, flag: Option<&T>, kept: &mut Option<T>) {
        match (flag, kept.as_ref()) {
            (Some(flag), Some(kept)) => twice.push(format!("{key}: (from flag: {flag:?}, from file: {kept:?})")),
            (Some(flag), None) => *kept = Some(flag.clone()),
            (None, _) => {}
        }
    }
    fn many<T: Clone + Debug>(twice: &mut Vec<String>, key: &str, flags: &[T], kept: &mut Vec<T>) {
        if !flags.is_empty() && !kept.is_empty() {
            twice.push(format!("{key}: (from flag: {flags:?}, from file: {kept:?})"));
        }
        kept.extend_from_slice(flags);
    }
    let (daemon, tls, twice) = (&mut file.daemon, &arguments.tls, &mut Vec::new());
    let (given, cluster) = (&arguments.cluster, &mut file.cluster);
    one(twice, "cluster-store", given.cluster_store.as_ref(), &mut cluster.store);
    one(twice, "cluster-advertise", given.cluster_advertise.as_ref(), &mut cluster.advertise);
    one(twice, "cluster-lease", given.cluster_lease.as_ref(), &mut cluster.lease);
    one(twice, "cluster-prefix", given.cluster_prefix.as_ref(), &mut cluster.prefix);
    one(twice, "cluster-ca", given.cluster_ca.as_ref(), &mut cluster.ca);
    one(twice, "cluster-cert", given.cluster_cert.as_ref(), &mut cluster.cert);
    one(twice, "cluster-key", given.cluster_key.as_ref(), &mut cluster.key);
    one(twice, "cluster-user", given.cluster_user.as_ref(), &mut cluster.user);
    one(twice, "cluster-password-file", given.cluster_password_file.as_ref(), &mut cluster.password_file);
    one(twice, "node", given.node.as_ref(), &mut cluster.node);
    let io = arguments.io.and_then(|io| io.to_possible_value()).map(|value| value.get_name().to_owned());
    one(twice, "io", io.as_ref(), &mut daemon.io);
    one(twice, "uplink", arguments.uplink.as_ref(), &mut daemon.uplink);
    one(twice, "vxlan-port", arguments.vxlan_port.as_ref(), &mut daemon.vxlan_port);
    one(twice, "tlscacert", tls.tlscacert.as_ref(), &mut daemon.tlscacert);
    one(twice, "tlscert", tls.tlscert.as_ref(), &mut daemon.tlscert);
    one(twice, "tlskey", tls.tlskey.as_ref(), &mut daemon.tlskey);
    many(twice, "hosts", hosts, &mut daemon.hosts);
    many(twice, "dns", &arguments.dns, &mut daemon.dns);
    for (key, flag, kept) in [("rootless", arguments.rootless, &mut daemon.rootless), ("tls", tls.tls, &mut daemon.tls), ("tlsverify", tls.tlsverify, &mut daemon.tlsverify)] {
        if flag && *kept {
            twice.push(format!("{key}: (from flag: true, from file: true)"));
        }
        *kept |= flag;
    }
    if twice.is_empty() {
        return Ok(());
    }
    let path = arguments.config.as_deref().unwrap_or(Path::new("")).display();
    let message = format!("unable to configure the daemon with file {path}: the following directives are specified both as a flag and in the configuration file: {}", twice.join(", "));
    Err(invalid(&path.to_string(), message).hint("leave one of the two out"))
}

/// `--log` (or WEFT_LOG) wins: whoever wants to look closer should not have to change a file.
fn log_filter(arguments: &DaemonArguments, file: &DaemonFile) -> Result<Option<String>, ControlError> {
    let DaemonSection { log, log_level, debug, .. } = &file.daemon;
    let level = match log_level.as_deref() {
        Some("fatal" | "panic") => Some("error"),
        Some(level @ ("debug" | "info" | "warn" | "error" | "trace")) => Some(level),
        Some(other) => return Err(invalid(other, format!("log-level {other:?}: there are debug, info, warn, error and fatal"))),
        None => None,
    };
    let of_file = if *debug { Some("debug") } else { level };
    Ok(arguments.log.clone().or_else(|| log.clone()).or_else(|| of_file.map(str::to_owned)))
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
