//! Names for sandboxes: a resolver for each view of the networks, and the files in each /etc.
//!
//! A view is what a sandbox may know: its networks, and whom to ask about the rest. Most sandboxes of a
//! network share one; who is in several networks, or was given servers of its own, has another. The
//! uplink leads a question to the gateway's port 53 to the resolver of the asker's view, which listens
//! on the host's loopback. Everything here runs on the control thread, but for answers to who asks too much
//! (`spare`): switching does not notice.

mod files;
mod server;
mod spare;
mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
};

use imbl::ordmap::DiffItem;
use nat::proxy::Resolvers;
use packet::NetworkId;
use tokio::runtime::Handle;
use weft_control::{
    Code, ControlError, Endpoint, Model, Network, Result, Sandbox,
    names::{AddHost, Files, HostAddress, Surroundings},
};

use self::{server::Server, spare::Spare, upstream::Upstream};
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
    spare: Spare,
    upstream: Arc<Upstream>,
    servers: BTreeMap<View, Server>,
    /// What the data plane was told.
    told: BTreeMap<NetworkId, Resolvers>,
    /// What was written, by sandbox id.
    written: BTreeMap<String, Files>,
    /// What is served, which the servers read.
    model: Arc<RwLock<Model>>,
    /// Sandboxes whose files have the host's address, by id.
    asking_for_host: BTreeSet<String>,
    /// What the host lent to the files.
    host: Surroundings,
    /// What failed, to be tried again.
    again: Touched,
}

/// Ids of what changed.
#[derive(Default)]
struct Touched {
    /// Networks that are others now, or have or had a sandbox that is another now.
    networks: BTreeSet<String>,
    /// Sandboxes that are others now, or are in a network that is.
    sandboxes: BTreeSet<String>,
}

/// Who asks in a network.
struct Askers<'a> {
    common: View,
    /// Those that know something else.
    own: Vec<(View, &'a Endpoint)>,
    is_empty: bool,
}

impl Names {
    /// Must be called from the control thread's runtime. `dns` is asked where a network names nobody.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn new(dns: &[IpAddr]) -> io::Result<Self> {
        Ok(Self {
            handle: Handle::current(),
            spare: Spare::start()?,
            upstream: Arc::new(Upstream::new(dns)),
            servers: BTreeMap::new(),
            told: BTreeMap::new(),
            written: BTreeMap::new(),
            model: Arc::default(),
            asking_for_host: BTreeSet::new(),
            host: Surroundings::default(),
            again: Touched::default(),
        })
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

    /// The model to serve from now on; gives what has changed since the one before.
    fn take_up(&mut self, model: &Model) -> Touched {
        let before = std::mem::replace(&mut *self.model.write().unwrap_or_else(PoisonError::into_inner), model.clone());
        let mut touched = std::mem::take(&mut self.again);
        for item in before.sandboxes.diff(&model.sandboxes) {
            let both = match item {
                DiffItem::Add(_, one) | DiffItem::Remove(_, one) => [Some(one), None],
                DiffItem::Update { old: (_, old), new: (_, new) } => [Some(old), Some(new)],
            };
            for sandbox in both.into_iter().flatten() {
                // The last of the two is what it is now.
                let asks = model.sandboxes.contains_key(&sandbox.id) && asks_for_host(&sandbox.names.add_host);
                if asks { self.asking_for_host.insert(sandbox.id.clone()) } else { self.asking_for_host.remove(&sandbox.id) };
                touched.sandboxes.insert(sandbox.id.clone());
                touched.networks.extend(sandbox.endpoints.iter().map(|endpoint| endpoint.network.clone()));
            }
        }
        for item in before.networks.diff(&model.networks) {
            match item {
                DiffItem::Add(id, _) | DiffItem::Remove(id, _) => drop(touched.networks.insert(id.clone())),
                DiffItem::Update { old: (_, old), new: (id, new) } if without_cursors(old) != without_cursors(new) => {
                    touched.networks.insert(id.clone());
                    touched.sandboxes.extend(model.members(id).map(|(sandbox, _)| sandbox.id.clone()));
                }
                DiffItem::Update { .. } => {}
            }
        }
        for item in before.elsewhere.endpoints.diff(&model.elsewhere.endpoints) {
            let both = match item {
                DiffItem::Add(_, one) | DiffItem::Remove(_, one) => [Some(one), None],
                DiffItem::Update { old: (_, old), new: (_, new) } => [Some(old), Some(new)],
            };
            touched.networks.extend(both.into_iter().flatten().map(|endpoint| endpoint.network.clone()));
        }
        touched
    }

    /// Makes servers match the views that there are in `touched` networks.
    fn serve(&mut self, touched: &BTreeSet<String>, wanted: BTreeSet<View>) {
        self.servers.retain(|view, server| {
            let is_touched = !view.networks.is_disjoint(touched);
            if is_touched {
                server.set_stale();
            }
            !is_touched || wanted.contains(view)
        });
        for view in wanted {
            if self.servers.contains_key(&view) {
                continue;
            }
            match Server::start(&self.handle, &self.spare, &self.upstream, &view, &self.model) {
                Ok(server) => drop(self.servers.insert(view, server)),
                Err(error) => {
                    tracing::error!(networks = ?view.networks, %error, "no resolver: names are not answered there");
                    self.again.networks.extend(view.networks);
                }
            }
        }
    }

    fn address(&self, view: &View) -> Option<SocketAddr> {
        self.servers.get(view).map(|server| server.at)
    }
}

impl Inner {
    /// Makes resolvers and files match the model, where it has changed. What fails is logged and tried again
    /// with the next change: a network without names is still a network.
    pub(super) fn serve_names(&mut self) {
        let touched = self.resolving.take_up(&self.model);
        let model = &self.model;
        let served = |id: &String| model.networks.get(id).filter(|network| gateway_of(network).is_some());
        let nobody = |network: &Network| Askers { common: View::of(std::iter::once(network), &[]), own: Vec::new(), is_empty: true };
        let mut askers: BTreeMap<&str, Askers<'_>> = touched.networks.iter().filter_map(|id| Some((id.as_str(), nobody(served(id)?)))).collect();
        for (id, askers) in &mut askers {
            for (sandbox, endpoint) in model.members(id) {
                askers.is_empty = false;
                if sandbox.endpoints.len() > 1 || !sandbox.names.dns.is_empty() {
                    let own = View::of(sandbox.endpoints.iter().filter_map(|endpoint| served(&endpoint.network)), &sandbox.names.dns);
                    askers.own.extend((own != askers.common).then_some((own, endpoint)));
                }
            }
        }
        askers.retain(|_, askers| !askers.is_empty);
        let views = askers.values().flat_map(|askers| askers.own.iter().map(|(own, _)| own).chain([&askers.common]));
        self.resolving.serve(&touched.networks, views.cloned().collect());
        for id in &touched.networks {
            let Some(&bridge) = self.bridges.get(id) else { continue };
            let mut resolvers = Resolvers::default();
            if let Some(askers) = askers.get(id.as_str()) {
                resolvers.common = self.resolving.address(&askers.common);
                for (at, endpoint) in askers.own.iter().filter_map(|(own, endpoint)| Some((self.resolving.address(own)?, endpoint))) {
                    resolvers.own.extend(endpoint.addresses.iter().map(|address| (address.ip(), at)));
                }
            }
            if self.resolving.told.get(&bridge).unwrap_or(&Resolvers::default()) == &resolvers {
                continue;
            }
            match self.dataplane.uplink(UplinkCommand::SetResolvers(bridge, resolvers.clone())) {
                Ok(_) => drop(self.resolving.told.insert(bridge, resolvers)),
                Err(error) => {
                    tracing::error!(%error, "the data plane does not know its resolvers");
                    self.resolving.again.networks.insert(id.clone());
                }
            }
        }
        self.write_files(&touched);
    }

    fn write_files(&mut self, touched: &Touched) {
        let address = if self.resolving.asking_for_host.is_empty() { None } else { host_address() };
        let host = Surroundings { resolv_conf: self.resolving.upstream.host_file(), address };
        let is_other_host = self.resolving.host != host;
        // Who is linked to another has its address.
        let links = |sandbox: &&Sandbox| !sandbox.names.link.is_empty() || sandbox.endpoints.iter().any(|endpoint| !endpoint.link.is_empty());
        let linked = touched.networks.iter().flat_map(|id| self.model.members(id)).map(|(sandbox, _)| sandbox).filter(links);
        let changed = touched.sandboxes.iter().filter_map(|id| self.model.sandboxes.get(id));
        let all = is_other_host.then(|| self.model.sandboxes.values()).into_iter().flatten();
        let concerned: BTreeMap<_, _> = linked.chain(changed).chain(all).filter(|sandbox| sandbox.is_ours()).map(|sandbox| (&sandbox.id, sandbox)).collect();
        for sandbox in concerned.into_values() {
            let files = Files::of(&self.model, sandbox, &host);
            if self.resolving.written.get(&sandbox.id) == Some(&files) {
                continue;
            }
            match files::write(&self.dirs.etc_of(&sandbox.id), &files) {
                Ok(()) => drop(self.resolving.written.insert(sandbox.id.clone(), files)),
                Err(error) => {
                    tracing::error!(sandbox = sandbox.name, %error, "cannot write its /etc files");
                    self.resolving.again.sandboxes.insert(sandbox.id.clone());
                }
            }
        }
        self.resolving.host = host;
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

/// Handing out an address changes a pool, and nothing that names depend on.
fn without_cursors(network: &Network) -> Network {
    let mut network = network.clone();
    network.pools.iter_mut().for_each(|pool| pool.cursor = None);
    network
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
