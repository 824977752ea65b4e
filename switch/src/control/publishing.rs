//! Gateways and published ports: listeners are bound here, all or none, and handed to the uplink.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use dataplane::GatewayConfig;
use nat::proxy::{self, SocketId, Transport};
use packet::{Mac, NetworkId, UnicastMac};
use serde_json::json;
use socket2::{Domain, Protocol as IpProtocol, Socket, Type};
use weft_control::{
    Code, ControlError, Endpoint, L2, Network, Protocol, Published, Result, Sandbox,
    api::{FlowInfo, PublishInfo},
    publish::{self, PublishRequest},
};

use super::runtime::{Inner, unavailable};
use crate::uplink::{UplinkCommand, UplinkReply};

/// A published port and its listeners.
pub(super) struct Live {
    published: Published,
    listeners: Vec<SocketId>,
}

/// Listen queue, as nginx and Go have it or more.
const BACKLOG: i32 = 1024;

/// The gateway's address on the link: as Docker makes addresses, from the IPv4 address; else from the id.
pub(super) fn gateway_of(network: &Network) -> Option<GatewayConfig> {
    if network.l2 != L2::Bridge || network.pools.is_empty() {
        return None;
    }
    let addresses: Vec<_> = network.pools.iter().filter_map(|pool| ipnetwork::IpNetwork::new(pool.gateway, pool.subnet.prefix()).ok()).collect();
    let tail = match addresses.iter().map(ipnetwork::IpNetwork::ip).find(IpAddr::is_ipv4) {
        Some(IpAddr::V4(v4)) => v4.octets(),
        _ => u32::from_str_radix(network.id.get(..8)?, 16).ok()?.to_be_bytes(),
    };
    let mac = UnicastMac::new(Mac([2, 0x42, tail[0], tail[1], tail[2], tail[3]]))?;
    Some(GatewayConfig { mac, addresses })
}

/// Where the host asks for names (resolv.conf(5)).
fn resolver() -> Option<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver"));
    let first = servers.filter_map(|rest| rest.trim().parse::<IpAddr>().ok()).next()?;
    Some(SocketAddr::new(first, 53))
}

impl Inner {
    /// Tells the uplink of a network whose bridge was made.
    pub(super) fn serve_network(&self, network: &Network, bridge: NetworkId) -> Result<()> {
        let Some(gateway) = gateway_of(network) else { return Ok(()) };
        let served = proxy::Network {
            gateway_mac: gateway.mac.get(),
            gateways: gateway.addresses,
            mtu: u16::try_from(network.mtu).unwrap_or(u16::MAX),
            resolver: resolver().filter(|_| !network.internal),
            masquerade: !network.internal && network.masquerade,
        };
        self.dataplane.uplink(UplinkCommand::SetNetwork(bridge, served)).map(drop).map_err(unavailable)
    }

    /// Publishes what a sandbox is to have; all or none.
    pub(super) fn publish_all(&mut self, sandbox: &Sandbox, specs: &[String]) -> Result<Vec<Published>> {
        let mut requests = Vec::new();
        for spec in specs {
            requests.extend(publish::parse(spec)?);
        }
        let mut made = Vec::new();
        for request in &requests {
            match self.publish_one(sandbox, request) {
                Ok(live) => made.push(live),
                Err(error) => {
                    self.close_listeners(made);
                    return Err(error);
                }
            }
        }
        let published = made.iter().map(|live| live.published.clone()).collect();
        self.live.entry(sandbox.id.clone()).or_default().extend(made);
        Ok(published)
    }

    /// Publishes again what the model says: after a restart, or for a new address.
    pub(super) fn republish(&mut self, sandbox: &Sandbox) {
        for published in &sandbox.publishes {
            let request = PublishRequest { host_ip: published.host_ip, host_ports: Some((published.host_port, published.host_port)), port: published.port, protocol: published.protocol };
            match self.publish_one(sandbox, &request) {
                Ok(live) => self.live.entry(sandbox.id.clone()).or_default().push(live),
                Err(error) => tracing::warn!(sandbox = sandbox.name, %error, "a published port is not back"),
            }
        }
    }

    fn publish_one(&mut self, sandbox: &Sandbox, request: &PublishRequest) -> Result<Live> {
        let (bridge, endpoint) = self.published_endpoint(sandbox)?;
        let mac: Mac = endpoint.mac.parse().map_err(|_| unavailable("the endpoint has no MAC address"))?;
        let (host_port, bound) = bind(request)?;
        let published = Published { host_ip: request.host_ip, host_port, port: request.port, protocol: request.protocol };
        let mut live = Live { published, listeners: Vec::new() };
        for (host, fd) in bound {
            let same_family = endpoint.addresses.iter().map(ipnetwork::IpNetwork::ip).find(|ip| ip.is_ipv4() == host.is_ipv4());
            let Some(ip) = same_family.or_else(|| endpoint.addresses.first().map(ipnetwork::IpNetwork::ip)) else { continue };
            let transport = if request.protocol == Protocol::Tcp { Transport::Tcp } else { Transport::Udp };
            let publish = proxy::Publish { network: bridge, transport, host, inside: SocketAddr::new(ip, request.port), mac };
            let error = match self.dataplane.uplink(UplinkCommand::Publish(publish, fd)) {
                Ok(UplinkReply::Listener(Ok(listener))) => {
                    live.listeners.push(listener);
                    continue;
                }
                Ok(UplinkReply::Listener(Err(error))) => unavailable(error),
                _ => unavailable("the data plane has stopped"),
            };
            // One family alone is half a port.
            self.close_listeners(vec![live]);
            return Err(error);
        }
        Ok(live)
    }

    /// The first endpoint that has an address on a network with a way out.
    fn published_endpoint<'a>(&self, sandbox: &'a Sandbox) -> Result<(NetworkId, &'a Endpoint)> {
        let found = sandbox.endpoints.iter().find_map(|endpoint| {
            let network = self.model.networks.get(&endpoint.network)?;
            let usable = !network.internal && gateway_of(network).is_some() && !endpoint.addresses.is_empty();
            usable.then(|| Some((*self.bridges.get(&network.id)?, endpoint))).flatten()
        });
        found.ok_or_else(|| {
            ControlError::new(Code::Invalid, &sandbox.name, format!("cannot publish ports of {}: it has no address on a network with a gateway", sandbox.name))
                .hint("networks that are internal, transparent or without IPAM have none")
        })
    }

    fn close_listeners(&self, live: Vec<Live>) {
        for listener in live.into_iter().flat_map(|live| live.listeners) {
            drop(self.dataplane.uplink(UplinkCommand::Unpublish(listener)));
        }
    }

    /// Closes all listeners of a sandbox.
    pub(super) fn unpublish_all(&mut self, sandbox: &str) {
        if let Some(live) = self.live.remove(sandbox) {
            self.close_listeners(live);
        }
    }

    /// `weft publish add`.
    pub(crate) fn add_publish(&mut self, reference: &str, specs: &[String]) -> Result<Vec<Published>> {
        let sandbox = self.model.sandbox(reference)?.clone();
        let published = self.publish_all(&sandbox, specs)?;
        let mut model = self.model.clone();
        if let Some(stored) = model.sandboxes.get_mut(&sandbox.id) {
            stored.publishes.extend(published.iter().cloned());
        }
        if let Err(error) = self.commit(model) {
            self.forget(&sandbox.id, &published);
            return Err(error);
        }
        self.event("port publish", json!({ "sandbox": sandbox.name, "ports": published }));
        Ok(published)
    }

    /// `weft publish rm`: what the words say, or what leads to that port.
    pub(crate) fn remove_publish(&mut self, reference: &str, specs: &[String]) -> Result<Vec<Published>> {
        let sandbox = self.model.sandbox(reference)?.clone();
        let mut gone = Vec::new();
        for spec in specs {
            for request in publish::parse(spec)? {
                let matches = |published: &&Published| {
                    published.port == request.port
                        && published.protocol == request.protocol
                        && request.host_ip.is_none_or(|ip| published.host_ip == Some(ip))
                        && request.host_ports.is_none_or(|(first, last)| (first..=last).contains(&published.host_port))
                };
                let found: Vec<_> = sandbox.publishes.iter().filter(matches).cloned().collect();
                if found.is_empty() {
                    return Err(ControlError::new(Code::NotFound, spec, format!("{} does not publish {spec}", sandbox.name)).hint("`weft publish ls` lists what is published"));
                }
                gone.extend(found);
            }
        }
        let mut model = self.model.clone();
        if let Some(stored) = model.sandboxes.get_mut(&sandbox.id) {
            stored.publishes.retain(|published| !gone.contains(published));
        }
        self.commit(model)?;
        self.forget(&sandbox.id, &gone);
        self.event("port unpublish", json!({ "sandbox": sandbox.name, "ports": gone }));
        Ok(gone)
    }

    fn forget(&mut self, sandbox: &str, published: &[Published]) {
        let Some(live) = self.live.remove(sandbox) else { return };
        let (gone, stay): (Vec<_>, Vec<_>) = live.into_iter().partition(|live| published.contains(&live.published));
        self.live.insert(sandbox.into(), stay);
        self.close_listeners(gone);
    }

    // ---- views ----

    pub(crate) fn publish_infos(&self) -> Result<Vec<PublishInfo>> {
        let UplinkReply::State { publishes, .. } = self.dataplane.uplink(UplinkCommand::Show).map_err(unavailable)? else { return Ok(Vec::new()) };
        let mut infos = Vec::new();
        for (id, live) in &self.live {
            let Ok(sandbox) = self.model.sandbox(id) else { continue };
            for (published, listener) in live.iter().flat_map(|live| live.listeners.iter().map(move |listener| (&live.published, listener))) {
                let Some(view) = publishes.iter().find(|view| view.listener == *listener) else { continue };
                infos.push(PublishInfo {
                    sandbox: sandbox.name.clone(),
                    host: view.publish.host.to_string(),
                    inside: view.publish.inside.to_string(),
                    protocol: published.protocol,
                    hits: view.hits,
                });
            }
        }
        infos.sort_by(|one, other| (&one.sandbox, &one.inside, &one.host).cmp(&(&other.sandbox, &other.inside, &other.host)));
        Ok(infos)
    }

    pub(crate) fn flow_infos(&self) -> Result<Vec<FlowInfo>> {
        let UplinkReply::State { flows, .. } = self.dataplane.uplink(UplinkCommand::Show).map_err(unavailable)? else { return Ok(Vec::new()) };
        let name = |id: NetworkId| {
            let network = self.bridges.iter().find(|(_, bridge)| **bridge == id).and_then(|(network, _)| self.model.networks.get(network));
            network.map_or_else(String::new, |network| network.name.clone())
        };
        let infos = flows.into_iter().map(|flow| FlowInfo {
            network: name(flow.network),
            protocol: match flow.transport {
                Transport::Tcp => "tcp",
                Transport::Udp => "udp",
                Transport::Echo => "icmp",
            }
            .into(),
            inside: flow.inside.to_string(),
            outside: flow.outside.to_string(),
            state: flow.state.into(),
            tx_bytes: flow.tx_bytes,
            rx_bytes: flow.rx_bytes,
        });
        Ok(infos.collect())
    }

    pub(crate) fn uplink_drops(&self) -> Result<std::collections::BTreeMap<String, u64>> {
        let UplinkReply::State { stats, .. } = self.dataplane.uplink(UplinkCommand::Show).map_err(unavailable)? else { return Ok(Default::default()) };
        let named = [
            ("uplink_martian", stats.martian),
            ("uplink_broken", stats.broken),
            ("uplink_unsupported", stats.unsupported),
            ("uplink_fragment", stats.fragment),
            ("uplink_full", stats.full),
            ("uplink_filtered", stats.filtered),
            ("uplink_internal", stats.internal),
        ];
        Ok(named.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect())
    }
}

/// Binds a request's port: over both families unless it names an address; the first that is free of
/// several.
fn bind(request: &PublishRequest) -> Result<(u16, Vec<(SocketAddr, OwnedFd)>)> {
    const TRIES: u16 = 32;
    let candidates: Vec<u16> = match request.host_ports {
        Some((first, last)) => (first..=last).collect(),
        // Any: the kernel chooses for the first family, and the second may be taken there.
        None => vec![0; TRIES.into()],
    };
    let mut last = None;
    for port in candidates {
        match bind_port(request, port) {
            Ok(bound) => return Ok(bound),
            Err((at, error)) if error.kind() == io::ErrorKind::AddrInUse => {
                last = Some(ControlError::new(Code::Conflict, at.to_string(), format!("Bind for {at} failed: port is already allocated")).hint("choose another host port, or stop what listens there"));
            }
            Err((at, error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ControlError::new(Code::Invalid, at.to_string(), format!("Bind for {at} failed: {error}"))
                    .hint("ports below 1024 need privilege: choose a higher one, or lower the sysctl net.ipv4.ip_unprivileged_port_start"));
            }
            Err((at, error)) => return Err(ControlError::new(Code::Invalid, at.to_string(), format!("Bind for {at} failed: {error}"))),
        }
    }
    Err(last.unwrap_or_else(|| unavailable("no port to bind")))
}

type Bound = (u16, Vec<(SocketAddr, OwnedFd)>);

fn bind_port(request: &PublishRequest, mut port: u16) -> std::result::Result<Bound, (SocketAddr, io::Error)> {
    let both = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let addresses = request.host_ip.map_or_else(|| both.to_vec(), |ip| vec![ip]);
    let mut bound = Vec::new();
    for ip in addresses {
        let at = SocketAddr::new(ip, port);
        match listen(at, request.protocol) {
            Ok(socket) => {
                port = socket.local_addr().ok().and_then(|at| at.as_socket()).map_or(port, |at| at.port());
                bound.push((SocketAddr::new(ip, port), socket.into()));
            }
            // A host without IPv6 listens on IPv4 alone.
            Err(error) if request.host_ip.is_none() && ip.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse => {}
            Err(error) => return Err((at, error)),
        }
    }
    Ok((port, bound))
}

fn listen(at: SocketAddr, protocol: Protocol) -> io::Result<Socket> {
    let (kind, number) = if protocol == Protocol::Tcp { (Type::STREAM, IpProtocol::TCP) } else { (Type::DGRAM, IpProtocol::UDP) };
    let socket = Socket::new(Domain::for_address(at), kind.nonblocking().cloexec(), Some(number))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if protocol == Protocol::Tcp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into())?;
    if protocol == Protocol::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}
