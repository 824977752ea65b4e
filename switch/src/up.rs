//! `weft up FILE`: a switch in the foreground, with networks and sandboxes from a file, or services from a compose file.

mod own;

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use weft_control::{
    ControlError, L2, Network, Protocol,
    compose::{Project, Surroundings},
    config::{DEFAULT_NETWORK, UpFile},
    uplink::UplinkSpec,
};

use crate::{
    cli::{Place, daemon, invalid, print, unavailable},
    client::Client,
    control::{self, Daemon, DaemonConfig, Runtime},
    dirs::Dirs,
};

/// Exit code, or what failed.
type End = Result<u8, ControlError>;

/// What the file wants.
#[derive(Clone, Debug)]
enum Wanted {
    File(UpFile),
    Compose(Project),
}

impl Wanted {
    fn read(path: &Path) -> Result<Self, ControlError> {
        let text = std::fs::read_to_string(path).map_err(|error| unavailable(format!("cannot read {}: {error}", path.display())))?;
        let read = if is_compose(path) { compose(path, &text).map(Self::Compose) } else { UpFile::parse(&text).map(Self::File) };
        read.map_err(|error| invalid(&path.to_string_lossy(), format!("{}: {error}", path.display())))
    }

    fn networks(&self) -> Vec<&str> {
        match self {
            Self::File(file) => file.networks.iter().map(|network| network.name.as_str()).collect(),
            Self::Compose(project) => project.networks.iter().map(|network| network.name.as_str()).collect(),
        }
    }

    /// Names of sandboxes.
    fn names(&self) -> Vec<&str> {
        match self {
            Self::File(file) => file.sandboxes.iter().map(|sandbox| sandbox.name.as_str()).collect(),
            Self::Compose(project) => project.services.iter().map(|service| service.name.as_str()).collect(),
        }
    }

    fn make(&self, runtime: &Runtime) -> Result<(), ControlError> {
        let (Self::File(UpFile { networks, .. }) | Self::Compose(Project { networks, .. })) = self;
        for network in networks {
            runtime.lock().create_network(network)?;
        }
        match self {
            Self::File(file) => file.sandboxes.iter().try_for_each(|sandbox| runtime.create_sandbox(&sandbox.request()).map(drop)),
            Self::Compose(project) => project.services.iter().try_for_each(|service| runtime.start_service(service)),
        }
    }
}

/// As its name says.
pub(crate) fn is_compose(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml")
}

fn compose(path: &Path, text: &str) -> Result<Project, String> {
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    // As Compose has it: the directory's name, in the letters that a project's may have.
    let name: String = directory.file_name().unwrap_or_default().to_string_lossy().to_lowercase().chars().filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')).collect();
    let name = if name.is_empty() { "default".to_owned() } else { name };
    let project = Project::parse(text, &Surroundings { name: &name, directory: &directory.to_string_lossy(), variable: &|name| std::env::var(name).ok() })?;
    match project.external.iter().find(|name| *name != DEFAULT_NETWORK) {
        Some(external) => Err(format!("networks: {external:?} is external, but this switch is a new one, where there is only {DEFAULT_NETWORK:?}")),
        None => Ok(project),
    }
}

pub(crate) fn run(path: &Path, check: bool, limit: Duration) -> End {
    let file = Wanted::read(path)?;
    let (uplink, default_network) = match &file {
        Wanted::File(file) => (file.uplink.as_deref().map_or(Ok(UplinkSpec::Sockets), str::parse)?, file.default_network.clone()),
        Wanted::Compose(_) => (UplinkSpec::Sockets, None),
    };
    daemon::start_logging(std::env::var("WEFT_LOG").ok().as_deref())?;
    own::clear_dead();
    // A switch of its own, beside whatever daemon runs: its files go with it.
    let mut own = own::Own::make().map_err(unavailable)?;
    let place = place(&own.path);
    let rootless = daemon::prepare(&place, false).map_err(unavailable)?;
    own.lock().map_err(unavailable)?;
    let config = DaemonConfig { uplink, default_network, ..DaemonConfig::new(place.dirs.clone(), rootless) };
    daemon::block_on(async {
        let daemon = Daemon::start(config).await.map_err(unavailable)?;
        let runtime = daemon.runtime.clone();
        let made = file.make(&runtime);
        let end = match made {
            Ok(()) => show_or_check(&file, &runtime, &place, check.then_some(limit), rootless).await,
            Err(error) => Err(error),
        };
        daemon.stop(true);
        end
    })
}

fn place(directory: &Path) -> Place {
    Place { client: Client::new(directory.join("api.sock")), dirs: Dirs::new(Some(directory)) }
}

/// Removes what a `weft up` that was killed had in `directory`, but for the directory itself.
pub(crate) fn clear(directory: &Path) -> End {
    daemon::start_logging(std::env::var("WEFT_LOG").ok().as_deref())?;
    let place = place(directory);
    let rootless = daemon::prepare(&place, false).map_err(unavailable)?;
    daemon::block_on(async { control::clear(DaemonConfig::new(place.dirs.clone(), rootless)).map(|()| 0).map_err(unavailable) })
}

async fn show_or_check(file: &Wanted, runtime: &Runtime, place: &Place, check: Option<Duration>, rootless: bool) -> End {
    show(file, runtime, place, rootless);
    if let Some(limit) = check {
        let (file, runtime) = (file.clone(), runtime.clone());
        let proof = tokio::task::spawn_blocking(move || prove(&file, &runtime));
        return match tokio::time::timeout(limit, proof).await {
            Ok(proved) => proved.map_err(unavailable)?,
            Err(_) => Err(unavailable(format!("check failed: not done after {} s (--timeout)", limit.as_secs()))),
        };
    }
    print("\nCtrl-C ends it and removes everything.");
    daemon::until_told_to_stop().await.map_err(unavailable)?;
    print("\nremoving everything");
    Ok(0)
}

fn show(file: &Wanted, runtime: &Runtime, place: &Place, rootless: bool) {
    let inner = runtime.lock();
    let io = inner.dataplane.backend();
    print(&format!("weft is up: one process is the switch ({io}, {}, no kernel bridge)\n", if rootless { "rootless" } else { "root" }));
    for network in file.networks() {
        let Ok(network) = inner.model.network(network) else { continue };
        let pools: Vec<_> = network.pools.iter().map(|pool| pool.subnet.to_string()).collect();
        print(&format!("  network {} {} ({}, mtu {})", network.name, pools.join(" "), kind_of(network), network.mtu));
        for (sandbox, endpoint) in inner.model.members(&network.id) {
            let addresses: Vec<_> = endpoint.addresses.iter().map(ToString::to_string).collect();
            print(&format!("    +-- {} {} ({})  {}  {}", sandbox.name, endpoint.ifname, endpoint.kind, endpoint.mac, addresses.join(" ")));
        }
    }
    for sandbox in inner.model.sandboxes.values() {
        for published in &sandbox.publishes {
            print(&format!("    published: port {} of {} at http://127.0.0.1:{}/", published.port, sandbox.name, published.host_port));
        }
    }
    let socket = place.dirs.socket();
    if let [first, second, ..] = file.names().as_slice() {
        print("\ntry, in another terminal:");
        print(&format!("  export WEFT_HOST=unix://{}", socket.display()));
        print(&format!("  weft exec {first} ping -c 3 {}", called(&inner.model, second)));
        print("  weft fdb show");
        print("  weft nat show; weft nat flows");
        print(&format!("  weft capture {second} -c 10"));
        print("  weft stats");
    }
}

/// The driver, where it is not the usual one, and how frames are forwarded, where that is not the driver's usual way.
fn kind_of(network: &Network) -> String {
    let l2 = format!("{:?}", network.l2).to_lowercase();
    let mut words = Vec::new();
    if network.driver != "bridge" {
        words.push(network.driver.clone());
    }
    words.extend(network.parent().map(|parent| format!("on {parent}")));
    if words.is_empty() || network.l2 != L2::Bridge {
        words.push(l2);
    }
    words.join(" ")
}

/// A sandbox's name where that is answered, else its address.
fn called(model: &weft_control::Model, name: &str) -> String {
    let first = model.sandbox(name).ok().and_then(|sandbox| sandbox.endpoints.first());
    let is_answered = |network: &Network| network.names && network.l2 == L2::Bridge && !network.pools.is_empty();
    match first {
        Some(endpoint) if !model.networks.get(&endpoint.network).is_some_and(is_answered) => endpoint.addresses.first().map_or_else(String::new, |address| address.ip().to_string()),
        _ => name.to_owned(),
    }
}

/// Every sandbox reaches every other one on its networks; the switch saw both.
fn prove(file: &Wanted, runtime: &Runtime) -> End {
    let mut failures = Vec::new();
    let mut pings = 0;
    let model = runtime.lock().model.clone();
    for network in file.networks() {
        let network = model.network(network)?;
        let members: Vec<_> = model.members(&network.id).collect();
        for (from, _) in &members {
            for (to, endpoint) in members.iter().filter(|(to, _)| to.id != from.id) {
                for address in &endpoint.addresses {
                    pings += 1;
                    if let Err(why) = ping(runtime, from, &address.ip().to_string()) {
                        failures.push(format!("{} does not reach {} ({}): {why}", from.name, to.name, address.ip()));
                    }
                }
            }
        }
    }
    let mut fetched = 0;
    for sandbox in model.sandboxes.values() {
        for published in sandbox.publishes.iter().filter(|published| published.protocol == Protocol::Tcp) {
            fetched += 1;
            let at = SocketAddr::new(published.host_ip.unwrap_or(Ipv4Addr::LOCALHOST.into()), published.host_port);
            if let Err(why) = eventually(|| fetch(at)) {
                failures.push(format!("{} does not answer at {at}, where its port {} is published: {why}", sandbox.name, published.port));
            }
        }
    }
    let outside = reach_outside(&model, runtime, &mut failures);
    for sandbox in model.sandboxes.values() {
        // A service may have done what it was for.
        let is_done = sandbox.is_at_rest() && sandbox.container.as_ref().is_some_and(|container| container.exit_code == 0);
        if !is_done && !runtime.lock().is_alive(sandbox) {
            failures.push(format!("the command of {} has ended", sandbox.name));
        }
    }
    let stats = runtime.lock().stats()?;
    if failures.is_empty() {
        print(&format!("\ncheck passed: {pings} pings between sandboxes, {fetched} published ports fetched, {outside}, {} frames through the switch, {} stations learned", stats.rx_frames, stats.fdb_entries));
        return Ok(0);
    }
    let report: Value = json!(stats);
    Err(unavailable(format!("check failed:\n  {}\n  counters: {report}", failures.join("\n  "))))
}

/// A few tries: a server that was just started may not listen yet.
fn eventually(mut work: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    const TRIES: u32 = 20;
    for _ in 1..TRIES {
        if work().is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    work()
}

/// Asks a web server for its page; any answer will do.
fn fetch(at: SocketAddr) -> Result<(), String> {
    let limit = Duration::from_secs(3);
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&at, limit).map_err(text)?;
    stream.set_read_timeout(Some(limit)).map_err(text)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(text)?;
    let mut answer = [0; 64];
    match stream.read(&mut answer).map_err(text)? {
        0 => Err("the connection ended without an answer".into()),
        _ => Ok(()),
    }
}

/// A sandbox fetches from a server on an address of the host: all the outside that every machine has.
fn reach_outside(model: &weft_control::Model, runtime: &Runtime, failures: &mut Vec<String>) -> String {
    let own = nix::ifaddrs::getifaddrs().ok().and_then(|mut all| {
        all.find_map(|entry| {
            let ip = entry.address?.as_sockaddr_in()?.ip();
            (!ip.is_loopback() && !ip.is_link_local()).then_some(ip)
        })
    });
    let is_inside = |ip: IpAddr| model.networks.values().flat_map(|network| &network.pools).any(|pool| pool.subnet.contains(ip));
    let Some(own) = own.map(IpAddr::from).filter(|ip| !is_inside(*ip)) else { return "the outside not tried (the host has no address but loopback)".into() };
    let Some(sandbox) = model.sandboxes.values().find(|sandbox| model.publishing_endpoint(sandbox).is_some()) else { return "nobody to go outside".into() };
    let result = TcpListener::bind((own, 0)).map_err(|error| error.to_string()).and_then(|listener| {
        let at = listener.local_addr().map_err(|error| error.to_string())?;
        let server = std::thread::spawn(move || {
            if let Ok((mut stream, _)) = listener.accept() {
                drop(stream.read(&mut [0; 64]));
                drop(stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello\n"));
            }
        });
        let netns = runtime.lock().open_sandbox(sandbox).map_err(|error| error.to_string())?.ok_or("no namespace")?;
        let result = netns.run(|| Ok(fetch(at))).map_err(|error| error.to_string())?;
        // The server waits for one connection: where none came, ours ends it.
        drop(TcpStream::connect_timeout(&at, Duration::from_secs(1)));
        drop(server.join());
        result
    });
    if let Err(why) = result {
        failures.push(format!("{} does not reach the outside ({own}): {why}", sandbox.name));
    }
    format!("the outside reached from {}", sandbox.name)
}

fn ping(runtime: &Runtime, from: &weft_control::Sandbox, to: &str) -> Result<(), String> {
    let netns = runtime.lock().open_sandbox(from).map_err(|error| error.to_string())?.ok_or("no namespace")?;
    let output = netns.run(|| Ok(Command::new("ping").args(["-c", "1", "-W", "2", to]).output())).map_err(|error| error.to_string())?;
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or("no answer").to_owned()),
        Err(error) => Err(format!("cannot run ping ({error}); install iputils-ping")),
    }
}
