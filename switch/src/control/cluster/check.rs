//! What answers, asked one by one: members of the store, and the tunnels of the other nodes.

use std::{
    io,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use weft_control::{Network, api::Check};

use super::super::runtime::Inner;
use crate::tunnel::probe;

const TIMEOUT: Duration = Duration::from_secs(2);

/// What is to be asked.
pub(crate) struct Checks {
    /// Whether the store as a whole can be used, and why not.
    store: (String, Option<String>),
    /// Its members.
    members: Vec<(String, u16)>,
    /// Other nodes: name, and where their tunnels end.
    nodes: Vec<(String, SocketAddr)>,
    /// Networks that encrypt, or cannot.
    encrypted: Vec<Check>,
    /// There is a shared network, and so a tunnel on each node.
    shares: bool,
    /// Of the routing mesh.
    mesh: Vec<Check>,
}

impl Inner {
    /// What [`Checks::run`] asks; nothing without a cluster.
    pub(crate) fn cluster_checks(&self) -> Option<Checks> {
        let cluster = self.cluster.as_ref()?;
        let others = self.model.elsewhere.nodes.values().filter(|node| node.name != cluster.config.node);
        Some(Checks {
            store: (cluster.config.store.url.to_string(), cluster.away.clone()),
            members: cluster.config.store.url.members.iter().map(|member| (member.host.clone(), member.port)).collect(),
            nodes: others.map(|node| (node.name.clone(), SocketAddr::new(node.ip, node.vxlan_port))).collect(),
            encrypted: self.model.networks.values().filter_map(|network| self.encryption_check(network)).collect(),
            mesh: self.mesh_checks(),
            shares: self.model.networks.values().any(weft_control::Network::is_global),
        })
    }
}

impl Inner {
    fn encryption_check(&self, network: &Network) -> Option<Check> {
        let info = self.encryption(network).ok().flatten()?;
        let name = &network.name;
        let text = match (info.epoch, &info.problem) {
            (Some(epoch), None) => format!("network {name} encrypts with epoch {epoch}"),
            (Some(epoch), Some(problem)) => format!("network {name} encrypts with epoch {epoch}, which may not be the others': {problem}"),
            (None, problem) => format!("network {name} is encrypted, has no keys, and carries nothing: {}", problem.as_deref().unwrap_or("they are not there yet")),
        };
        let ok = info.epoch.is_some() && info.problem.is_none();
        Some(Check { ok, text, hint: (!ok).then(|| format!("when the store answers, and the key is damaged: `weft vxlan rekey {name}` makes new ones")) })
    }
}

impl Checks {
    /// Asks all at once; takes as long as the slowest.
    pub(crate) fn run(self) -> Vec<Check> {
        let shares = self.shares;
        let members = self.members.into_iter().map(|(host, port)| thread::spawn(move || member(&host, port)));
        let nodes = self.nodes.into_iter().enumerate().map(|(number, (name, at))| thread::spawn(move || node(&name, at, number as u64 ^ 0x5745_4654, shares)));
        let asked: Vec<_> = members.chain(nodes).collect();
        let (url, away) = self.store;
        let store = Check { ok: away.is_none(), text: away.map_or_else(|| format!("store {url} is used"), |why| format!("store {url} cannot be used: {why}")), hint: None };
        std::iter::once(store).chain(self.encrypted).chain(asked.into_iter().filter_map(|thread| thread.join().ok())).chain(self.mesh).collect()
    }
}

fn member(host: &str, port: u16) -> Check {
    let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match reach(host, port) {
        Ok(()) => Check { ok: true, text: format!("KV {name} answers (tcp {port})"), hint: None },
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::TimedOut => Some("nothing came back: a firewall drops it, or the machine is away"),
                io::ErrorKind::ConnectionRefused => Some("the machine is there and refuses: etcd does not run, or does not listen on that address"),
                _ => None,
            };
            Check { ok: false, text: format!("KV {name} unreachable (tcp {port}): {}", said(&error)), hint: hint.map(Into::into) }
        }
    }
}

fn reach(host: &str, port: u16) -> io::Result<()> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for at in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&at, TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn node(name: &str, at: SocketAddr, number: u64, shares: bool) -> Check {
    let port = at.port();
    let (ok, text, hint) = match probe::ask(at, number) {
        Ok(()) => (true, format!("VTEP peer {name} {} answers (udp {port})", at.ip()), None),
        // Its machine says so itself: no firewall is in between.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && !shares => (true, format!("VTEP peer {name} {} listens when there is a shared network (udp {port})", at.ip()), None),
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::TimedOut => "nothing came back: a firewall there, here or between drops udp, or the machine is away; `weft doctor` there shows the other direction",
                io::ErrorKind::ConnectionRefused => "the machine is there and refuses: a firewall rejects it, or the daemon there has no tunnel open",
                _ => "is there a route to it?",
            };
            (false, format!("VTEP peer {name} {} unreachable (udp {port}): {}", at.ip(), said(&error)), Some(hint.to_owned()))
        }
    };
    Check { ok, text, hint }
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "timed out".into(),
        io::ErrorKind::ConnectionRefused => "refused".into(),
        _ => error.to_string(),
    }
}
