//! This node's part in the routing mesh: a station in the ingress network, and a listener for each port of the mesh, which
//! leads to replicas on all nodes. It follows the model; what fails is told once, and tried again with the next change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
};

use dataplane::{Capabilities, Command, Identity, MESH, MeshConfig, Place, PortConfig, Reply};
use nat::proxy::{self, SocketId, Target, Transport};
use packet::{Mac, NetworkId, PortId, UnicastMac};
use serde_json::json;
use weft_control::{
    MeshPort, MeshReplica, MeshService, Network, Protocol, Result,
    api::{Check, PublishInfo},
    publish::PublishRequest,
};

use super::{
    publishing::{bind, gateway_of},
    runtime::{Inner, unavailable},
};
use crate::uplink::{UplinkCommand, UplinkReply, UplinkState};

/// What of the mesh this node has.
#[derive(Debug, Default)]
pub(super) struct LiveMesh {
    /// The station's port, and the bridge that it is in.
    port: Option<(NetworkId, PortId)>,
    told: Option<MeshConfig>,
    listeners: BTreeMap<(Protocol, u16), Listener>,
    /// Ports that another program has here, with what binding them said.
    pub(super) refused: BTreeMap<(Protocol, u16), String>,
    /// Sandboxes here that came late for their port, with the service that has it.
    late: BTreeMap<(String, MeshPort), String>,
}

/// A port of the mesh that this node answers.
#[derive(Debug)]
struct Listener {
    service: String,
    /// A socket for each family, with where it leads.
    ways: Vec<(SocketAddr, SocketId, Vec<Target>)>,
}

fn station(mac: &str) -> Option<UnicastMac> {
    mac.parse::<Mac>().ok().and_then(UnicastMac::new)
}

impl Inner {
    /// Makes this node's part match the model.
    pub(super) fn serve_mesh(&mut self) {
        if let Err(error) = self.try_serve_mesh() {
            tracing::error!(%error, "this node has no part in the routing mesh");
        }
    }

    fn try_serve_mesh(&mut self) -> Result<()> {
        let services = self.model.mesh_services();
        let config = self.mesh_config(&services)?;
        if config != self.mesh.told {
            let mesh = config.clone().zip(self.model.mesh_network()).map(|(config, network)| {
                let served = proxy::Network {
                    gateway_mac: config.station.get(),
                    gateways: gateway_of(network).map(|gateway| gateway.addresses).unwrap_or_default(),
                    mtu: u16::try_from(network.mtu).unwrap_or(u16::MAX),
                    resolvers: proxy::Resolvers::default(),
                    masquerade: false,
                    stand_in: self.own_node().map(|node| node.ip).into_iter().collect(),
                };
                (config, served)
            });
            self.dataplane.uplink(UplinkCommand::SetMesh(mesh)).map_err(unavailable)?;
            if let (None, Some(_), Some(not_at)) = (&self.mesh.told, &config, self.not_meshed()) {
                tracing::warn!("{not_at}");
            }
            self.mesh.told = config;
        }
        self.tell_latecomers(self.model.mesh_latecomers(&services));
        let mut services = if self.mesh.told.is_some() { services } else { BTreeMap::new() };
        services.retain(|_, service| !service.replicas.is_empty());
        self.close_idle_listeners(&services)?;
        self.mesh.refused.retain(|port, _| services.contains_key(port));
        for (port, service) in &services {
            self.serve_port(*port, service)?;
        }
        Ok(())
    }

    /// While this node could not be heard another service took the port: the sandboxes run on, and should not do so in silence.
    /// When that service ends, the port is asked for again.
    fn tell_latecomers(&mut self, late: BTreeMap<(String, MeshPort), String>) {
        for ((sandbox, port), other) in late.iter().filter(|(key, _)| !self.mesh.late.contains_key(*key)) {
            tracing::warn!(sandbox, port = port.port, protocol = %port.protocol, "service {other} came to this port of the mesh first: it does not lead to this sandbox");
            self.event("mesh refused", json!({ "sandbox": sandbox, "service": port.service, "port": port.port, "protocol": port.protocol, "why": format!("service {other} has it") }));
        }
        if self.mesh.late.keys().any(|key| !late.contains_key(key)) {
            self.compare_again();
        }
        self.mesh.late = late;
    }

    /// Listens where another program did before.
    pub(super) fn retry_mesh(&mut self) {
        if !self.mesh.refused.is_empty() {
            self.serve_mesh();
        }
    }

    /// Where a client may look for ports of the mesh in vain: listeners are sockets of the host, which has not the packet uplink's addresses.
    fn not_meshed(&self) -> Option<String> {
        let uplink = self.uplink.as_ref()?;
        let own: Vec<_> = uplink.link.addresses.iter().map(|own| own.ip().to_string()).collect();
        Some(format!("ports of the routing mesh are answered at the addresses of the host, not at {} of {}", own.join(" and "), uplink.port_name()))
    }

    /// What `weft doctor` says of it.
    pub(super) fn mesh_checks(&self) -> Vec<Check> {
        let services = self.model.mesh_services();
        let named = |(protocol, port): &(Protocol, u16)| format!("port {port}/{protocol} of service {}", services.get(&(*protocol, *port)).map_or("", |service| &service.name));
        let served = self.mesh.listeners.keys().map(|port| Check { ok: true, text: format!("routing mesh: {} is answered here", named(port)), hint: None });
        let refused = self.mesh.refused.iter().map(|(port, why)| Check {
            ok: false,
            text: format!("routing mesh: {} is not answered here: {why}", named(port)),
            hint: Some("another program has it (`ss -ltnup` shows which), or a sandbox here on an address of its own (`weft publish ls`); the other nodes answer".into()),
        });
        let late = self.mesh.late.iter().map(|((sandbox, port), other)| Check {
            ok: false,
            text: format!("routing mesh: port {}/{} does not lead to {sandbox}: service {other} came first", port.port, port.protocol),
            hint: Some(format!("`weft publish rm {sandbox} {}:{}`, and add another port", port.port, port.target)),
        });
        let not_at = self.not_meshed().filter(|_| self.mesh.told.is_some()).map(|text| Check { ok: true, text, hint: None });
        served.chain(refused).chain(late).chain(not_at).collect()
    }

    /// What the data plane is to know; nothing where there is no mesh, or no way to the other nodes.
    fn mesh_config(&mut self, services: &BTreeMap<(Protocol, u16), MeshService>) -> Result<Option<MeshConfig>> {
        let nodes: BTreeMap<_, _> = self.model.elsewhere.nodes.values().filter_map(|node| Some((node.name.clone(), station(node.station.as_deref()?)?))).collect();
        let own = self.own_node().and_then(|node| station(node.station.as_deref()?));
        let Some((network, own)) = self.model.mesh_network().cloned().zip(own) else { return Ok(None) };
        let (Some(&bridge), Some(gateway), true) = (self.bridges.get(&network.id), gateway_of(&network), self.tunnels.contains_key(&network.id)) else { return Ok(None) };
        let port = self.mesh_port(&network, bridge, own)?;
        let place = |replica: &MeshReplica| match &replica.node {
            None => Some(Place::Here(station(&replica.mac)?)),
            Some(node) => nodes.get(node).copied().map(Place::There),
        };
        let replicas = services.values().flat_map(|service| &service.replicas).filter_map(|replica| Some((replica, place(replica)?)));
        Ok(Some(MeshConfig {
            network: bridge,
            port,
            station: own,
            gateway: gateway.mac,
            gateways: gateway.addresses,
            nodes: nodes.values().copied().filter(|node| *node != own).collect::<BTreeSet<_>>(),
            replicas: replicas.flat_map(|(replica, place)| replica.addresses.iter().map(move |ip| (*ip, place))).collect(),
        }))
    }

    /// The station's port, made when first needed.
    fn mesh_port(&mut self, network: &Network, bridge: NetworkId, own: UnicastMac) -> Result<PortId> {
        if let Some((_, port)) = self.mesh.port.filter(|(at, _)| *at == bridge) {
            return Ok(port);
        }
        let mut config = PortConfig::new(bridge, format!("mesh:{}", network.name));
        config.mtu = network.mtu;
        config.capabilities = Capabilities::FULL;
        config.learning = false;
        config.identity = Identity { mac: Some(own), ips: Vec::new() };
        let Reply::Port(port) = self.dataplane.apply(Command::AddPort(config)).map_err(unavailable)? else { return Err(unavailable("the data plane made no port")) };
        self.mesh.port = Some((bridge, port));
        self.dataplane.apply(Command::AddFdb { network: bridge, mac: own, vlan: None, port }).map_err(unavailable)?;
        Ok(port)
    }

    fn close_idle_listeners(&mut self, services: &BTreeMap<(Protocol, u16), MeshService>) -> Result<()> {
        let is_idle = |(port, listener): &(&(Protocol, u16), &Listener)| services.get(port).is_none_or(|service| service.name != listener.service);
        let idle: Vec<_> = self.mesh.listeners.iter().filter(is_idle).map(|(port, _)| *port).collect();
        for port in idle {
            for (_, socket, _) in self.mesh.listeners.remove(&port).into_iter().flat_map(|listener| listener.ways) {
                self.dataplane.uplink(UplinkCommand::Retarget(socket, Vec::new())).map_err(unavailable)?;
                self.dataplane.uplink(UplinkCommand::Unpublish(socket)).map_err(unavailable)?;
            }
        }
        Ok(())
    }

    fn serve_port(&mut self, port: (Protocol, u16), service: &MeshService) -> Result<()> {
        let Some(listener) = self.mesh.listeners.get_mut(&port) else { return self.listen_for(port, service) };
        for (host, socket, told) in &mut listener.ways {
            let targets = targets_of(service, host.is_ipv4());
            if *told != targets {
                self.dataplane.uplink(UplinkCommand::Retarget(*socket, targets.clone())).map_err(unavailable)?;
                *told = targets;
            }
        }
        Ok(())
    }

    fn listen_for(&mut self, (protocol, number): (Protocol, u16), service: &MeshService) -> Result<()> {
        let request = PublishRequest { host_ip: None, host_ports: Some((number, number)), port: number, protocol };
        let bound = match bind(&request, |_| false) {
            Ok((_, bound)) => bound,
            Err(error) => {
                if self.mesh.refused.insert((protocol, number), error.message.clone()).is_none() {
                    tracing::warn!(service = service.name, port = number, %protocol, "this node does not answer a port of the mesh: {}", error.message);
                    self.event("mesh refused", json!({ "service": service.name, "port": number, "protocol": protocol, "why": error.message }));
                }
                return Ok(());
            }
        };
        self.mesh.refused.remove(&(protocol, number));
        let transport = if protocol == Protocol::Tcp { Transport::Tcp } else { Transport::Udp };
        let mut ways = Vec::new();
        for (host, socket) in bound {
            let targets = targets_of(service, host.is_ipv4());
            let publish = proxy::Publish { network: MESH, transport, host, targets: targets.clone() };
            match self.dataplane.uplink(UplinkCommand::Publish(publish, socket)).map_err(unavailable)? {
                UplinkReply::Listener(Ok(socket)) => ways.push((host, socket, targets)),
                UplinkReply::Listener(Err(error)) => tracing::error!(%error, %host, "cannot listen for the mesh"),
                _ => {}
            }
        }
        self.mesh.listeners.insert((protocol, number), Listener { service: service.name.clone(), ways });
        Ok(())
    }

    /// The bridge of a network goes, and what is in it.
    pub(super) fn forget_mesh_port(&mut self, bridge: NetworkId) {
        if let Some((_, port)) = self.mesh.port.filter(|(at, _)| *at == bridge) {
            self.mesh.port = None;
            self.mesh.told = None;
            drop(self.dataplane.uplink(UplinkCommand::SetMesh(None)));
            self.dataplane.remove_port(port).ok();
        }
    }

    /// Ports of the mesh: those of replicas here under their names, others under that of their service.
    pub(super) fn mesh_infos(&self, state: &UplinkState) -> Vec<PublishInfo> {
        let services = self.model.mesh_services();
        let mut infos = Vec::new();
        for (port, service) in &services {
            let ways = self.mesh.listeners.get(port).map_or(&[][..], |listener| &listener.ways);
            let hits = |socket: SocketId| state.publishes.iter().find(|view| view.listener == socket).map_or(0, |view| view.hits);
            let here: Vec<_> = service.replicas.iter().filter(|replica| replica.node.is_none()).map(|replica| replica.sandbox.as_str()).collect();
            let info = |sandbox: &str, host: String, hits: u64, targets: &[Target]| PublishInfo {
                sandbox: sandbox.into(),
                service: Some(service.name.clone()),
                host,
                refused: None,
                inside: targets.iter().map(|target| target.inside.to_string()).collect::<Vec<_>>().join(","),
                protocol: port.0,
                hits,
                packets: None,
                bytes: None,
            };
            for (host, socket, targets) in ways {
                let names = if here.is_empty() { &[""][..] } else { &here };
                infos.extend(names.iter().map(|sandbox| info(sandbox, host.to_string(), hits(*socket), targets)));
            }
            let host = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.1)).to_string();
            infos.extend(self.mesh.refused.get(port).map(|why| PublishInfo { refused: Some(why.clone()), ..info("", host, 0, &targets_of(service, true)) }));
        }
        infos
    }
}

/// Where a socket of one family leads: to the address of that family, else to the other one.
fn targets_of(service: &MeshService, is_ipv4: bool) -> Vec<Target> {
    let end = |replica: &MeshReplica| {
        let ip = replica.addresses.iter().find(|ip| ip.is_ipv4() == is_ipv4).or(replica.addresses.first())?;
        Some(Target { inside: SocketAddr::new(*ip, replica.target), mac: station(&replica.mac)?.get() })
    };
    service.replicas.iter().filter_map(end).collect()
}
