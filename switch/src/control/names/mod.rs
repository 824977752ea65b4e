//! Names for sandboxes: a resolver for each view of the networks, and the files in each /etc.
//!
//! A view is what a sandbox may know: its networks, and whom to ask about the rest. Most sandboxes of a
//! network share one; who is in several networks, or was given servers of its own, has another. The
//! uplink leads a question to the gateway's port 53 to the resolver of the asker's view, which listens
//! on the host's loopback. Everything here runs on the control thread: switching does not notice.

mod files;
mod server;
mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, atomic::Ordering},
};

use nat::proxy::Resolvers;
use packet::NetworkId;
use tokio::runtime::Handle;
use weft_control::{
    Code, ControlError, Model, Network, Result, Sandbox,
    names::{AddHost, Files, HostAddress, Surroundings, Zone},
};

use self::{server::Server, upstream::Upstream};
use super::{
    publishing::gateway_of,
    runtime::{Inner, unavailable},
};
use crate::{dirs::Dirs, uplink::UplinkCommand};

/// What a resolver answers from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct View {
    /// Ids of networks.
    networks: BTreeSet<String>,
    /// Who is asked about other names; the host's servers when empty.
    dns: Vec<IpAddr>,
    /// Whether anybody is asked: never for who has no way out.
    forwards: bool,
}

impl View {
    fn of<'a>(networks: impl Iterator<Item = &'a Network> + Clone, own: &[IpAddr]) -> Self {
        let outside = networks.clone().filter(|network| !network.internal);
        let given = outside.clone().map(|network| &network.dns).find(|dns| !dns.is_empty()).cloned();
        Self {
            forwards: outside.count() > 0,
            networks: networks.map(|network| network.id.clone()).collect(),
            dns: if own.is_empty() { given.unwrap_or_default() } else { own.to_vec() },
        }
    }
}

/// Everything that runs for names.
pub(super) struct Names {
    handle: Handle,
    upstream: Arc<Upstream>,
    servers: BTreeMap<View, Server>,
    /// What the data plane was told.
    told: BTreeMap<NetworkId, Resolvers>,
    /// What was written, by sandbox id.
    written: BTreeMap<String, Files>,
}

impl Names {
    /// Must be called from the control thread's runtime. `dns` is asked where a network names nobody.
    pub(super) fn new(dns: &[IpAddr]) -> Self {
        Self { handle: Handle::current(), upstream: Arc::new(Upstream::new(dns)), servers: BTreeMap::new(), told: BTreeMap::new(), written: BTreeMap::new() }
    }

    /// Questions that were refused at a limit.
    pub(super) fn busy(&self) -> u64 {
        self.upstream.busy.load(Ordering::Relaxed)
    }

    /// The network is gone.
    pub(super) fn forget(&mut self, network: NetworkId) {
        self.told.remove(&network);
    }

    pub(super) fn remove_files(&mut self, dirs: &Dirs, sandbox: &str) {
        self.written.remove(sandbox);
        drop(std::fs::remove_dir_all(dirs.etc_of(sandbox)));
    }

    /// Makes servers match the views that there are.
    fn serve(&mut self, model: &Model, wanted: BTreeSet<View>) {
        self.servers.retain(|view, _| wanted.contains(view));
        let zones: BTreeMap<_, _> = Zone::all(model).into_iter().map(|(id, zone)| (id, Arc::new(zone))).collect();
        for view in wanted {
            let mut of_networks = view.networks.iter().filter_map(|id| zones.get(id.as_str()));
            let mut zone = of_networks.next().cloned().unwrap_or_default();
            of_networks.for_each(|other| Arc::make_mut(&mut zone).extend(other));
            if let Some(server) = self.servers.get(&view) {
                server.set_zone(zone);
                continue;
            }
            match Server::start(&self.handle, &self.upstream, &view, zone) {
                Ok(server) => drop(self.servers.insert(view, server)),
                Err(error) => tracing::error!(networks = ?view.networks, %error, "no resolver: names are not answered there"),
            }
        }
    }

    fn address(&self, view: &View) -> Option<SocketAddr> {
        self.servers.get(view).map(|server| server.at)
    }
}

impl Inner {
    /// Makes resolvers and files match the model. What fails is logged and tried again with the next
    /// change: a network without names is still a network.
    pub(super) fn serve_names(&mut self) {
        let model = &self.model;
        let served = |id: &String| model.networks.get(id).filter(|network| gateway_of(network).is_some());
        let mut views = Vec::new();
        for sandbox in model.sandboxes.values() {
            let networks = sandbox.endpoints.iter().filter_map(|endpoint| served(&endpoint.network));
            let own = View::of(networks.clone(), &sandbox.names.dns);
            for (endpoint, network) in sandbox.endpoints.iter().filter_map(|endpoint| Some((endpoint, served(&endpoint.network)?))) {
                views.push((network, endpoint, View::of(std::iter::once(network), &[]), own.clone()));
            }
        }
        self.resolving.serve(model, views.iter().flat_map(|(_, _, common, own)| [common.clone(), own.clone()]).collect());
        let mut wanted: BTreeMap<NetworkId, Resolvers> = BTreeMap::new();
        for (network, endpoint, common, own) in &views {
            let Some(&bridge) = self.bridges.get(&network.id) else { continue };
            let resolvers = wanted.entry(bridge).or_default();
            resolvers.common = self.resolving.address(common);
            if let Some(at) = self.resolving.address(own).filter(|_| own != common) {
                resolvers.own.extend(endpoint.addresses.iter().map(|address| (address.ip(), at)));
            }
        }
        for &bridge in self.bridges.values() {
            let resolvers = wanted.remove(&bridge).unwrap_or_default();
            if self.resolving.told.get(&bridge).unwrap_or(&Resolvers::default()) == &resolvers {
                continue;
            }
            match self.dataplane.uplink(UplinkCommand::SetResolvers(bridge, resolvers.clone())) {
                Ok(_) => drop(self.resolving.told.insert(bridge, resolvers)),
                Err(error) => tracing::error!(%error, "the data plane does not know its resolvers"),
            }
        }
        self.write_files();
    }

    fn write_files(&mut self) {
        let wants_host = self.model.sandboxes.values().any(|sandbox| asks_for_host(&sandbox.names.add_host));
        let host = Surroundings { resolv_conf: self.resolving.upstream.host_file(), address: if wants_host { host_address() } else { None } };
        for sandbox in self.model.sandboxes.values().filter(|sandbox| sandbox.is_ours()) {
            let files = Files::of(&self.model, sandbox, &host);
            if self.resolving.written.get(&sandbox.id) == Some(&files) {
                continue;
            }
            match files::write(&self.dirs.etc_of(&sandbox.id), &files) {
                Ok(()) => drop(self.resolving.written.insert(sandbox.id.clone(), files)),
                Err(error) => tracing::error!(sandbox = sandbox.name, %error, "cannot write its /etc files"),
            }
        }
    }

    /// What only the running host can tell about the words of a request.
    pub(crate) fn check_names(sandbox: &Sandbox) -> Result<()> {
        if asks_for_host(&sandbox.names.add_host) && host_address().is_none() {
            return Err(ControlError::new(Code::Invalid, "host-gateway", "--add-host ...:host-gateway: the host has no address but loopback"));
        }
        Ok(())
    }

    /// Whether sandboxes on the default network know each other by name.
    pub(super) fn set_bridge_names(&mut self, on: bool) -> Result<()> {
        let mut model = self.model.clone();
        let id = model.network("bridge")?.id.clone();
        let network = model.networks.get_mut(&id).ok_or_else(|| unavailable("there is no default network"))?;
        if network.names != on {
            network.names = on;
            self.commit(model)?;
        }
        Ok(())
    }
}

fn asks_for_host(hosts: &[AddHost]) -> bool {
    hosts.iter().any(|host| host.address == HostAddress::Host)
}

/// The address that the host would use towards the outside, else its first: sandboxes reach both.
fn host_address() -> Option<IpAddr> {
    // Nothing is sent: connecting a datagram socket only chooses the route (to TEST-NET-1, RFC 5737).
    let routed = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()));
    let first = || {
        nix::ifaddrs::getifaddrs().ok()?.find_map(|entry| {
            let ip = entry.address?.as_sockaddr_in()?.ip();
            (!ip.is_loopback() && !ip.is_link_local()).then_some(IpAddr::V4(ip))
        })
    };
    routed.ok().map(|at| at.ip()).or_else(first)
}
