//! Gateways and published ports: listeners are bound here, all or none, and handed to the uplink.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use dataplane::{AdvertiseConfig, DhcpConfig, GatewayConfig, GatewayRole, MESH};
use nat::{
    Forward, ForwardId, Inside, Prefixes, Translation,
    proxy::{self, SocketId, Transport},
};
use packet::{Mac, NetworkId, UnicastMac};
use serde_json::json;
use socket2::{Domain, Protocol as IpProtocol, Socket, Type};
use weft_control::{
    Code, ControlError, Endpoint, L2, Network, Protocol, Published, Result, Sandbox,
    api::{FlowInfo, PublishInfo, RoutePair, protocol_name},
    publish::{self, PublishRequest},
};

use super::{
    cluster::{TRIES, busy},
    runtime::{Inner, unavailable},
};
use crate::uplink::{UplinkCommand, UplinkReply, UplinkState};

/// A published port and what carries it.
pub(super) struct Live {
    published: Published,
    ways: Vec<Way>,
}

/// What carries a published port, for one family.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A socket of the host.
    Listener(SocketId),
    /// DNAT on the packet uplink.
    Forward(ForwardId),
}

/// Ports that may be published before somebody should know: half of those above 1023.
const MANY_PUBLISHED: usize = 32_256;
/// Listen queue, as nginx and Go have it or more.
const BACKLOG: i32 = 1024;

/// What weft answers as on a network: its gateway, or, where that is the LAN's, a station that is asked for names.
pub(super) fn gateway_of(network: &Network) -> Option<GatewayConfig> {
    if network.l2 != L2::Bridge || network.pools.is_empty() {
        return None;
    }
    if network.lan.is_some() {
        let addresses: Vec<_> = network.resolvers().into_iter().map(ipnetwork::IpNetwork::from).collect();
        return Some(GatewayConfig { role: GatewayRole::Resolver, ..GatewayConfig::new(mac_of(network, &addresses)?, addresses) });
    }
    // The one that sandboxes are sent to goes first.
    let own = network.own_addresses.iter().filter_map(|own| network.pools.iter().find(|pool| pool.subnet.contains(*own)).map(|pool| (*own, pool)));
    let addresses = network.pools.iter().map(|pool| (pool.gateway, pool)).chain(own);
    let addresses: Vec<_> = addresses.filter_map(|(address, pool)| ipnetwork::IpNetwork::new(address, pool.subnet.prefix()).ok()).collect();
    Some(GatewayConfig { dhcp: dhcp_of(network), advertise: advertise_of(network), ..GatewayConfig::new(mac_of(network, &addresses)?, addresses) })
}

/// As Docker makes addresses, from the IPv4 address; else from the id.
fn mac_of(network: &Network, addresses: &[ipnetwork::IpNetwork]) -> Option<UnicastMac> {
    Some(UnicastMac::numbered(match addresses.iter().map(ipnetwork::IpNetwork::ip).find(IpAddr::is_ipv4) {
        Some(IpAddr::V4(v4)) => v4.octets(),
        // All nodes of an overlay have the same one.
        _ if network.overlay.is_some() => network.overlay.as_ref()?.vni.to_be_bytes(),
        _ => u32::from_str_radix(network.id.get(..8)?, 16).ok()?.to_be_bytes(),
    }))
}

/// How long an address is lent.
const LEASE: Duration = Duration::from_secs(3600);

fn dhcp_of(network: &Network) -> Option<DhcpConfig> {
    let v4 = |ip: &IpAddr| if let IpAddr::V4(v4) = ip { Some(*v4) } else { None };
    let (first, last) = network.dhcp_hosts()?;
    Some(DhcpConfig {
        range: (v4(&first)?, v4(&last)?),
        excluded: network.aux_addresses.values().chain(&network.own_addresses).filter_map(v4).collect(),
        lease: LEASE,
        is_router: !network.internal,
        mtu: u16::try_from(network.mtu).unwrap_or(u16::MAX),
    })
}

fn advertise_of(network: &Network) -> Option<AdvertiseConfig> {
    network.ra.then_some(AdvertiseConfig { is_router: !network.internal, mtu: network.mtu })
}

/// The address that a station makes itself of an advertised prefix and its MAC (RFC 4862 section 5.5.3).
pub(super) fn autoconfigured(network: &Network, mac: UnicastMac) -> Option<Ipv6Addr> {
    let prefix = network.pools.iter().find(|pool| network.ra && pool.subnet.is_ipv6() && pool.subnet.prefix() == 64)?;
    let IpAddr::V6(prefix) = prefix.subnet.network() else { return None };
    Some(Ipv6Addr::from_bits(prefix.to_bits() | u128::from(mac.interface_identifier())))
}

impl Inner {
    /// Tells the uplink of a network whose bridge was made.
    pub(super) fn serve_network(&self, network: &Network, bridge: NetworkId) -> Result<()> {
        let Some(gateway) = gateway_of(network) else { return Ok(()) };
        let served = proxy::Network {
            gateway_mac: gateway.mac.get(),
            gateways: gateway.addresses,
            mtu: u16::try_from(network.mtu).unwrap_or(u16::MAX),
            resolvers: proxy::Resolvers::default(),
            masquerade: !network.internal && network.masquerade,
            stand_in: Vec::new(),
        };
        self.own_on_uplink(network)?;
        let inside = (self.uplink.is_some() && network.has_router()).then(|| translation_of(network));
        self.dataplane.uplink(UplinkCommand::SetNetwork(bridge, served, inside)).map_err(unavailable)?;
        for (one, other) in self.model.routes.iter().filter(|(one, other)| [one, other].contains(&&network.id)) {
            if let (Some(&one), Some(&other)) = (self.bridges.get(one), self.bridges.get(other)) {
                self.dataplane.uplink(UplinkCommand::SetRoute(one, other, true)).map_err(unavailable)?;
            }
        }
        Ok(())
    }

    /// Networks that reach each other, by name.
    pub(crate) fn route_pairs(&self) -> Vec<RoutePair> {
        let name = |id: &String| self.model.networks.get(id).map_or_else(|| id.clone(), |network| network.name.clone());
        self.model.routes.iter().map(|(one, other)| RoutePair { networks: [name(one), name(other)] }).collect()
    }

    /// `weft network route`: lets two networks reach each other, or no longer.
    pub(crate) fn set_route(&mut self, networks: &[String; 2], open: bool) -> Result<()> {
        let mut model = self.model.clone();
        let (one, other) = model.set_route(networks, open)?;
        self.commit(model)?;
        if let (Some(&one), Some(&other)) = (self.bridges.get(&one), self.bridges.get(&other)) {
            self.dataplane.uplink(UplinkCommand::SetRoute(one, other, open)).map_err(unavailable)?;
        }
        self.event(if open { "network route" } else { "network unroute" }, json!({ "networks": networks }));
        Ok(())
    }

    /// Publishes what a sandbox is to have; all or none.
    pub(super) fn publish_all(&mut self, sandbox: &Sandbox, specs: &[String]) -> Result<Vec<Published>> {
        let mut requests = Vec::new();
        for spec in specs {
            requests.extend(publish::parse(spec)?);
        }
        for _ in 0..TRIES {
            let Some(made) = self.try_publish(sandbox, &requests)? else { continue };
            self.warn_if_crowded(&made);
            let published = made.iter().map(|live| live.published.clone()).collect();
            self.live.entry(sandbox.id.clone()).or_default().extend(made);
            return Ok(published);
        }
        Err(busy(&sandbox.name))
    }

    /// Nothing when another node was quicker with a port of the mesh: another one is to be chosen, or it is refused by name.
    fn try_publish(&mut self, sandbox: &Sandbox, requests: &[PublishRequest]) -> Result<Option<Vec<Live>>> {
        let mut made: Vec<Live> = Vec::new();
        let mut publishing = sandbox.clone();
        let all = requests.iter().try_for_each(|request| {
            let live = self.publish_one(&publishing, request)?;
            publishing.publishes.push(live.published.clone());
            made.push(live);
            Ok(())
        });
        let claimed = all.and_then(|()| self.claim_mesh(&publishing));
        if let Ok(true) = claimed {
            return Ok(Some(made));
        }
        self.close_ways(made);
        claimed.map(|_| None)
    }

    /// What is published is no external port for flows from inside, and they need many.
    fn warn_if_crowded(&self, made: &[Live]) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let new = made.iter().filter(|live| live.published.protocol == protocol).count();
            let count = new + self.live.values().flatten().filter(|live| live.published.protocol == protocol).count();
            if self.uplink.is_some() && new > 0 && count > MANY_PUBLISHED {
                tracing::warn!(%protocol, published = count, left = usize::from(u16::MAX) - count, "published ports take most of those that NAT has for flows from inside; publish fewer, or give networks a --nat-source");
            }
        }
    }

    /// Publishes again what the model says: after a restart, or for a new address.
    pub(super) fn republish(&mut self, sandbox: &Sandbox) {
        let mut lost: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
        let bare = Sandbox { publishes: Vec::new(), ..sandbox.clone() };
        for published in &sandbox.publishes {
            let request = PublishRequest { host_ip: published.host_ip, host_ports: Some((published.host_port, published.host_port)), port: published.port, protocol: published.protocol };
            match self.publish_one(&bare, &request) {
                Ok(live) => self.live.entry(sandbox.id.clone()).or_default().push(Live { published: published.clone(), ..live }),
                Err(error) => lost.entry(error.to_string()).or_default().push(format!("{}/{}", published.host_port, published.protocol)),
            }
        }
        for (error, ports) in lost {
            let shown: Vec<_> = ports.iter().take(8).cloned().collect();
            tracing::warn!(sandbox = sandbox.name, %error, count = ports.len(), ports = shown.join(" "), "published ports are not back");
        }
    }

    /// Published ports lead to the sandbox's first endpoint that can have them, whichever that is now.
    pub(super) fn follow_endpoints(&mut self, before: &Sandbox) {
        let now = self.model.sandboxes.get(&before.id).cloned();
        let end = |sandbox: &Sandbox| self.model.publishing_endpoint(sandbox).map(|endpoint| endpoint.id.clone());
        let to = now.as_ref().and_then(end);
        if before.publishes.is_empty() || (now.is_some() && end(before) == to) {
            return;
        }
        self.unpublish_all(&before.id);
        if let (Some(now), Some(_)) = (now, to) {
            self.republish(&now);
        }
    }

    fn publish_one(&mut self, sandbox: &Sandbox, request: &PublishRequest) -> Result<Live> {
        let (bridge, endpoint, binding) = self.published_endpoint(sandbox)?;
        let request = &PublishRequest { host_ip: request.host_ip.or(binding), ..request.clone() };
        if request.host_ip.is_none() && self.model.is_meshed(endpoint) {
            // Each node listens once the model says so.
            let host_port = self.model.choose_mesh_port(sandbox, endpoint, request)?;
            return Ok(Live { published: Published { host_ip: None, host_port, port: request.port, protocol: request.protocol }, ways: Vec::new() });
        }
        let is_taken = |port| self.model.is_published(&sandbox.id, request.host_ip, port, request.protocol);
        if self.uplink.is_some() {
            return self.forward_one(bridge, endpoint, request, is_taken);
        }
        let mac: Mac = endpoint.mac.parse().map_err(|_| unavailable("the endpoint has no MAC address"))?;
        let (host_port, bound) = bind(request, is_taken)?;
        let published = Published { host_ip: request.host_ip, host_port, port: request.port, protocol: request.protocol };
        let mut live = Live { published, ways: Vec::new() };
        for (host, fd) in bound {
            let same_family = endpoint.addresses.iter().map(ipnetwork::IpNetwork::ip).find(|ip| ip.is_ipv4() == host.is_ipv4());
            let Some(ip) = same_family.or_else(|| endpoint.addresses.first().map(ipnetwork::IpNetwork::ip)) else { continue };
            let transport = if request.protocol == Protocol::Tcp { Transport::Tcp } else { Transport::Udp };
            let publish = proxy::Publish { network: bridge, transport, host, targets: vec![proxy::Target { inside: SocketAddr::new(ip, request.port), mac }] };
            let error = match self.dataplane.uplink(UplinkCommand::Publish(publish, fd)) {
                Ok(UplinkReply::Listener(Ok(listener))) => {
                    live.ways.push(Way::Listener(listener));
                    continue;
                }
                Ok(UplinkReply::Listener(Err(error))) => unavailable(error),
                _ => unavailable("the data plane has stopped"),
            };
            // One family alone is half a port.
            self.close_ways(vec![live]);
            return Err(error);
        }
        Ok(live)
    }

    /// The same on an uplink of packets: DNAT, for each family that the endpoint and the uplink have.
    fn forward_one(&self, network: NetworkId, endpoint: &Endpoint, request: &PublishRequest, is_taken: impl Fn(u16) -> bool) -> Result<Live> {
        let Some(uplink) = self.uplink.as_ref().map(|uplink| &uplink.link) else { return Err(unavailable("there is no uplink of packets")) };
        if let Some(ip) = request.host_ip.filter(|ip| !uplink.addresses.iter().any(|own| own.ip() == *ip)) {
            let own: Vec<_> = uplink.addresses.iter().map(|own| own.ip().to_string()).collect();
            return Err(ControlError::new(Code::Invalid, ip.to_string(), format!("cannot publish on {ip}: the uplink has {}", own.join(" and ")))
                .hint("name one of these, or leave the address out"));
        }
        let (first, last) = request.host_ports.unwrap_or(EPHEMERAL);
        for port in first..=last {
            if is_taken(port) {
                continue;
            }
            let mut ways = Vec::new();
            let mut taken = false;
            for address in endpoint.addresses.iter().map(ipnetwork::IpNetwork::ip) {
                let fits = uplink.addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4()) && request.host_ip.is_none_or(|ip| ip.is_ipv4() == address.is_ipv4());
                if !fits {
                    continue;
                }
                let protocol = if request.protocol == Protocol::Tcp { 6 } else { 17 };
                let forward = Forward { protocol, address: request.host_ip, ports: (port, port), network, to: nat::End::new(address, request.port) };
                match self.dataplane.uplink(UplinkCommand::AddForward(forward)).map_err(unavailable)? {
                    UplinkReply::Forward(Ok(id)) => ways.push(Way::Forward(id)),
                    _ => taken = true,
                }
            }
            let live = Live { published: Published { host_ip: request.host_ip, host_port: port, port: request.port, protocol: request.protocol }, ways };
            if !taken && !live.ways.is_empty() {
                return Ok(live);
            }
            let reached = live.ways.is_empty() && !taken;
            self.close_ways(vec![live]);
            if reached {
                return Err(ControlError::new(Code::Invalid, &endpoint.ifname, "cannot publish: the uplink and the endpoint have no address family in common"));
            }
        }
        let at = SocketAddr::new(request.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), first);
        Err(ControlError::new(Code::Conflict, at.to_string(), format!("Bind for {at} failed: port is already allocated")).hint("choose another host port, or `weft publish rm` what has it"))
    }

    /// The first endpoint that has an address on a network with a way out, and where that publishes.
    fn published_endpoint<'a>(&self, sandbox: &'a Sandbox) -> Result<(NetworkId, &'a Endpoint, Option<IpAddr>)> {
        let found = self.model.publishing_endpoint(sandbox).and_then(|endpoint| {
            let network = self.model.networks.get(&endpoint.network)?;
            Some((*self.bridges.get(&network.id)?, endpoint, network.host_binding))
        });
        found.ok_or_else(|| {
            ControlError::new(Code::Invalid, &sandbox.name, format!("cannot publish ports of {}: it has no address on a network with a gateway", sandbox.name))
                .hint("networks that are internal, transparent or without IPAM have none, and a lan network has the LAN's own: there each is reached at its own address")
        })
    }

    fn close_ways(&self, live: Vec<Live>) {
        for way in live.into_iter().flat_map(|live| live.ways) {
            drop(self.dataplane.uplink(match way {
                Way::Listener(listener) => UplinkCommand::Unpublish(listener),
                Way::Forward(id) => UplinkCommand::RemoveForward(id),
            }));
        }
    }

    /// Closes all listeners of a sandbox.
    pub(super) fn unpublish_all(&mut self, sandbox: &str) {
        if let Some(live) = self.live.remove(sandbox) {
            self.close_ways(live);
        }
    }

    /// `weft publish add`.
    pub(crate) fn add_publish(&mut self, reference: &str, specs: &[String]) -> Result<Vec<Published>> {
        let sandbox = self.model.sandbox(reference)?.clone();
        let published = match self.publish_all(&sandbox, specs) {
            Ok(published) => published,
            Err(error) => {
                // Of many ports of the mesh some may be in the store.
                self.announce();
                return Err(error);
            }
        };
        let mut model = self.model.clone();
        if let Some(stored) = model.sandboxes.get_mut(&sandbox.id) {
            stored.publishes.extend(published.iter().cloned());
        }
        self.reconcile(&mut model);
        if let Err(error) = self.commit(model) {
            self.forget(&sandbox.id, &published);
            self.announce();
            return Err(error);
        }
        self.event("port publish", json!({ "sandbox": sandbox.name, "ports": published }));
        Ok(published)
    }

    /// `weft publish rm`: what the words say, or what leads to that port.
    pub(crate) fn remove_publish(&mut self, reference: &str, specs: &[String]) -> Result<Vec<Published>> {
        let sandbox = self.model.sandbox(reference)?.clone();
        let mut model = self.model.clone();
        let gone = model.unpublish(&sandbox.id, specs)?;
        self.commit(model)?;
        self.forget(&sandbox.id, &gone);
        self.event("port unpublish", json!({ "sandbox": sandbox.name, "ports": gone }));
        Ok(gone)
    }

    fn forget(&mut self, sandbox: &str, published: &[Published]) {
        let Some(live) = self.live.remove(sandbox) else { return };
        let (gone, stay): (Vec<_>, Vec<_>) = live.into_iter().partition(|live| published.contains(&live.published));
        self.live.insert(sandbox.into(), stay);
        self.close_ways(gone);
    }

    // ---- views ----

    pub(super) fn uplink_state(&self) -> Result<Box<UplinkState>> {
        match self.dataplane.uplink(UplinkCommand::Show).map_err(unavailable)? {
            UplinkReply::State(state) => Ok(state),
            other => Err(unavailable(format!("unexpected answer {other:?}"))),
        }
    }

    pub(crate) fn publish_infos(&self) -> Result<Vec<PublishInfo>> {
        let state = self.uplink_state()?;
        let publishes: HashMap<_, _> = state.publishes.iter().map(|view| (view.listener, view)).collect();
        let forwards: HashMap<_, _> = state.forwards.iter().map(|view| (view.id, view)).collect();
        let mut infos = Vec::new();
        for (id, live) in &self.live {
            let Some(sandbox) = self.model.sandboxes.get(id) else { continue };
            for (published, way) in live.iter().flat_map(|live| live.ways.iter().map(move |way| (&live.published, way))) {
                let seen = match way {
                    Way::Listener(listener) => {
                        let view = publishes.get(listener);
                        view.and_then(|view| Some((view.publish.host, view.publish.targets.first()?.inside, view.hits, None)))
                    }
                    Way::Forward(id) => forwards.get(id).map(|view| {
                        let (forward, inside) = (view.forward, view.forward.to);
                        let any = if inside.ip.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
                        let host = SocketAddr::new(forward.address.unwrap_or(any), forward.ports.0);
                        (host, SocketAddr::new(inside.ip, inside.port), view.connections, Some((view.packets, view.bytes)))
                    }),
                };
                let Some((host, inside, hits, traffic)) = seen else { continue };
                infos.push(PublishInfo {
                    sandbox: sandbox.name.clone(),
                    service: None,
                    host: host.to_string(),
                    refused: None,
                    inside: inside.to_string(),
                    protocol: published.protocol,
                    hits,
                    packets: traffic.map(|(packets, _)| packets),
                    bytes: traffic.map(|(_, bytes)| bytes),
                });
            }
        }
        infos.extend(self.mesh_infos(&state));
        infos.sort_by(|one, other| (&one.sandbox, &one.inside, &one.host).cmp(&(&other.sandbox, &other.inside, &other.host)));
        Ok(infos)
    }

    pub(crate) fn network_name(&self, id: NetworkId) -> String {
        let network = self.bridges.iter().find(|(_, bridge)| **bridge == id).and_then(|(network, _)| self.model.networks.get(network));
        network.map_or_else(String::new, |network| network.name.clone())
    }

    pub(crate) fn flow_infos(&self) -> Result<Vec<FlowInfo>> {
        let state = self.uplink_state()?;
        let names: HashMap<NetworkId, &str> = self.bridges.iter().filter_map(|(id, bridge)| Some((*bridge, self.model.networks.get(id)?.name.as_str()))).collect();
        let mesh = self.model.mesh_network().map_or("", |network| network.name.as_str());
        let name_of = |network: NetworkId| Some(mesh).filter(|_| network == MESH).or_else(|| names.get(&network).copied()).unwrap_or_default().to_owned();
        let carried = state.flows.into_iter().map(|flow| FlowInfo {
            network: name_of(flow.network),
            protocol: protocol_name(flow.transport.number(flow.inside.is_ipv4())),
            inside: flow.inside.to_string(),
            outside: flow.outside.to_string(),
            external: None,
            state: flow.state.into(),
            direction: direction(flow.is_inbound),
            expires_s: None,
            packets: None,
            tx_bytes: flow.tx_bytes,
            rx_bytes: flow.rx_bytes,
        });
        let translated = state.connections.into_iter().map(|connection| FlowInfo {
            network: name_of(connection.network),
            protocol: protocol_name(connection.protocol),
            inside: connection.inside.to_string(),
            outside: connection.outside.to_string(),
            external: Some(connection.external.to_string()),
            state: connection.state.into(),
            direction: direction(connection.is_inbound),
            expires_s: Some(connection.expires_s),
            packets: Some(connection.packets),
            tx_bytes: connection.bytes[0],
            rx_bytes: connection.bytes[1],
        });
        Ok(carried.chain(translated).collect())
    }

    pub(crate) fn uplink_drops(&self) -> Result<std::collections::BTreeMap<String, u64>> {
        let UplinkState { stats, router, mesh, translation, .. } = *self.uplink_state()?;
        let named = [
            ("uplink_martian", stats.martian),
            ("uplink_broken", stats.broken),
            ("uplink_unsupported", stats.unsupported),
            ("uplink_fragment", stats.fragment),
            ("uplink_full", stats.full),
            ("uplink_filtered", stats.filtered),
            ("uplink_internal", stats.internal),
            ("uplink_ahead", stats.ahead),
            ("router_no_route", router.no_route),
            ("router_no_neighbour", router.no_neighbour),
            ("router_too_big", router.too_big),
            ("router_ttl_expired", router.ttl_expired),
            ("router_no_buffer", router.no_buffer),
            ("router_unasked", router.unasked),
            ("mesh_stray", mesh.stray),
            ("mesh_no_buffer", mesh.no_buffer),
        ];
        let mut drops: std::collections::BTreeMap<_, _> = named.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect();
        drops.extend(translation.iter().map(|(reason, count)| (format!("nat_{}", reason.name()), count)));
        Ok(drops)
    }
}

/// Ports to choose from when the user names none (net.ipv4.ip_local_port_range's default).
const EPHEMERAL: (u16, u16) = (32_768, 60_999);

/// Who opened a flow, in a word.
fn direction(is_inbound: bool) -> String {
    if is_inbound { "in".into() } else { "out".into() }
}

/// How a network is translated on an uplink of packets.
fn translation_of(network: &Network) -> Inside {
    let v6 = network.pools.iter().find_map(|pool| if let ipnetwork::IpNetwork::V6(subnet) = pool.subnet { Some(subnet) } else { None });
    Inside {
        subnets: network.pools.iter().map(|pool| pool.subnet).collect(),
        translation: match (network.masquerade, &network.nat_source) {
            (false, _) => Translation::Routed,
            (true, pool) if pool.is_empty() => Translation::Masquerade,
            (true, pool) => Translation::Source(pool.clone()),
        },
        prefixes: network.nat_prefix.and_then(|external| Prefixes::new(v6?, external)),
        behaviour: network.nat.and_then(|preset| preset.name().parse().ok()).unwrap_or_default(),
    }
}

/// Binds a request's port: over both families unless it names an address; the first that is free of
/// several.
pub(super) fn bind(request: &PublishRequest, is_taken: impl Fn(u16) -> bool) -> Result<(u16, Vec<(SocketAddr, OwnedFd)>)> {
    const TRIES: u16 = 32;
    let candidates: Vec<u16> = match request.host_ports {
        Some((first, last)) => (first..=last).collect(),
        // Any: the kernel chooses for the first family, and the second may be taken there.
        None => vec![0; TRIES.into()],
    };
    let mut last = None;
    for port in candidates {
        let taken = |at: SocketAddr| Some(ControlError::new(Code::Conflict, at.to_string(), format!("Bind for {at} failed: port is already allocated")).hint("choose another host port, or stop what listens there"));
        match bind_port(request, port) {
            Ok((port, _)) if is_taken(port) => last = taken(SocketAddr::new(request.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port)),
            Ok(bound) => return Ok(bound),
            Err((at, error)) if error.kind() == io::ErrorKind::AddrInUse => last = taken(at),
            Err((at, error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ControlError::new(Code::Invalid, at.to_string(), format!("Bind for {at} failed: {error}"))
                    .hint("ports below 1024 need privilege: choose a higher one, or lower the sysctl net.ipv4.ip_unprivileged_port_start"));
            }
            Err((at, error)) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                return Err(ControlError::new(Code::Invalid, at.to_string(), format!("Bind for {at} failed: {} is no address of this host", at.ip()))
                    .hint("name one that it has (`ip -brief address`), or leave the address out to publish on all"));
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
