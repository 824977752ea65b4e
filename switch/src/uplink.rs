//! The way out inside the loop: the router, which takes what packets may take, and the proxy with its host
//! sockets for the rest; and frames between them and the switch.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use dataplane::{Link, MESH, Mesh, MeshConfig, MeshStats, Outbox, PacketUplink, Routed, Router, RouterStats, Switch};
use mio::{Registry, event::Event};
use nat::{
    ConnectionView, FlowEvent, Forward, ForwardError, ForwardId, ForwardView, Inside, NatConfig, NatDrops, TrafficView,
    proxy::{FlowView, Network, Output, Proxy, ProxyStats, Publish, PublishView, Ready, Resolvers, SocketId, Target, Transport},
};
use packet::{Frame, Instant, NetworkId, Pool, PortId};

use crate::io::sockets::{FIRST, HostSockets};

/// What control asks of the uplink.
#[derive(Debug)]
pub(crate) enum UplinkCommand {
    /// Packets leave by this.
    SetPacketUplink(PacketUplink),
    /// Serve a network, or serve it differently; how its packets are translated, if they may be.
    SetNetwork(NetworkId, Network, Option<Inside>),
    /// Have a network's questions for names answered.
    SetResolvers(NetworkId, Resolvers),
    /// Let two networks reach each other, or not.
    SetRoute(NetworkId, NetworkId, bool),
    /// The virtual addresses of a network.
    SetVips(NetworkId, Vec<IpAddr>),
    /// Forward a port of the packet uplink.
    AddForward(Forward),
    /// Stop.
    RemoveForward(ForwardId),
    /// End all flows of a network.
    RemoveNetwork(NetworkId),
    /// End all flows of an address.
    RemoveInside(NetworkId, IpAddr),
    /// What an address takes, bytes, where that is less than its network does.
    SetInsideMtu(NetworkId, IpAddr, Option<u16>),
    /// Forward what comes in on a socket that listens or is bound.
    Publish(Publish, OwnedFd),
    /// Forward it to these from now on.
    Retarget(SocketId, Vec<Target>),
    /// Stop.
    Unpublish(SocketId),
    /// The routing mesh; its part of the proxy, where there is a mesh.
    SetMesh(Option<(MeshConfig, Network)>),
    /// Tell of flows as they come and go, or no longer.
    WatchFlows(bool),
    /// Flows, published ports, counters.
    Show,
}

/// What it answers.
#[derive(Debug)]
pub(crate) enum UplinkReply {
    Done,
    Listener(io::Result<SocketId>),
    Forward(Result<ForwardId, ForwardError>),
    State(Box<UplinkState>),
}

/// What there is to see of the uplinks.
#[derive(Debug)]
pub(crate) struct UplinkState {
    pub(crate) flows: Vec<FlowView>,
    pub(crate) publishes: Vec<PublishView>,
    pub(crate) stats: ProxyStats,
    pub(crate) connections: Vec<ConnectionView>,
    pub(crate) forwards: Vec<ForwardView>,
    /// What networks did by translation.
    pub(crate) traffic: Vec<TrafficView>,
    /// Flows that networks opened by host sockets, by family (true is IPv4).
    pub(crate) opened: BTreeMap<(NetworkId, bool), u64>,
    pub(crate) router: RouterStats,
    pub(crate) mesh: MeshStats,
    pub(crate) translation: NatDrops,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Uplink {
    router: Router,
    mesh: Mesh,
    proxy: Proxy,
    sockets: HostSockets,
    ready: Vec<(SocketId, Ready)>,
    output: Output,
    /// Frames of the mesh port.
    meshed: Vec<(PortId, Frame)>,
    /// Some flow had more to send than its turn allowed, or a frame came since.
    more: bool,
}

impl Uplink {
    pub(crate) fn new(pool: Pool, registry: Registry, nat: NatConfig) -> Self {
        let router = Router::new(pool.clone(), nat);
        Self {
            router,
            mesh: Mesh::default(),
            proxy: Proxy::new(pool),
            sockets: HostSockets::new(registry),
            ready: Vec::new(),
            output: Vec::new(),
            meshed: Vec::new(),
            more: false,
        }
    }

    /// Whether epoll has anything to say to it.
    pub(crate) fn is_idle(&self) -> bool {
        self.sockets.is_empty()
    }

    pub(crate) fn has_work(&self) -> bool {
        self.more || !self.ready.is_empty() || !self.output.is_empty() || !self.meshed.is_empty()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.router.poll_timeout(), self.proxy.poll_timeout(), self.mesh.poll_timeout()].into_iter().flatten().min()
    }

    /// Notes an event of epoll; false when it is not about a socket of ours.
    pub(crate) fn note(&mut self, event: &Event) -> bool {
        let Some(number) = event.token().0.checked_sub(FIRST).and_then(|number| u32::try_from(number).ok()) else { return false };
        let ready = Ready { read: event.is_readable() || event.is_read_closed(), write: event.is_writable(), error: event.is_error() };
        self.ready.push((SocketId(number), ready));
        true
    }

    /// A frame that a gateway took for the outside.
    pub(crate) fn take(&mut self, network: NetworkId, frame: Frame, now: Instant) {
        let frame = if self.mesh.is_network(network) {
            let routed = self.mesh.back(frame, now);
            let Some(frame) = self.routed(routed, now) else { return };
            frame
        } else {
            frame
        };
        if let Some(frame) = self.router.take(network, frame, now, &mut self.output) {
            self.give_proxy(network, &frame, now);
        }
    }

    /// What the proxy owes for it, it does in a turn: there is to be one, even when nothing else happens.
    fn give_proxy(&mut self, network: NetworkId, frame: &Frame, now: Instant) {
        self.proxy.frame(network, frame, now, &mut self.sockets, &mut self.output);
        self.more = true;
    }

    /// A frame that the switch sends to a port without a device; gives it back unless that is the mesh port.
    pub(crate) fn take_meshed(&mut self, port: PortId, frame: Frame, now: Instant) -> Option<Frame> {
        if !self.mesh.is_port(port) {
            return Some(frame);
        }
        let routed = self.mesh.arrive(frame, now);
        self.routed(routed, now)
    }

    /// Gives back what is not of the mesh.
    fn routed(&mut self, routed: Routed, now: Instant) -> Option<Frame> {
        match routed {
            Routed::NotMine(frame) => return Some(frame),
            Routed::Gateway(network, frame) => self.output.push((network, frame)),
            Routed::Port(port, frame) => self.meshed.push((port, frame)),
            Routed::Proxy(frame) => self.give_proxy(MESH, &frame, now),
            Routed::Gone => {}
        }
        None
    }

    /// The end of a turn: what epoll and the clock had to say, what flows owe; frames go into their
    /// networks.
    pub(crate) fn turn(&mut self, switch: &mut Switch, outbox: &mut Outbox, now: Instant) {
        let mut ready = std::mem::take(&mut self.ready);
        for (socket, what) in ready.drain(..) {
            self.proxy.ready(socket, what, now, &mut self.sockets, &mut self.output);
        }
        self.ready = ready;
        if self.proxy.poll_timeout().is_some_and(|at| at <= now) {
            self.proxy.handle_timeout(now, &mut self.sockets, &mut self.output);
        }
        if self.router.poll_timeout().is_some_and(|at| at <= now) {
            self.router.handle_timeout(now, &mut self.output);
        }
        self.mesh.handle_timeout(now);
        self.more = self.proxy.flush(now, &mut self.sockets, &mut self.output);
        for (network, frame) in self.output.drain(..) {
            let routed = if network == MESH { self.mesh.send(frame, now) } else { Routed::Gateway(network, frame) };
            match routed {
                Routed::Gateway(network, frame) => switch.inject(network, frame, now, outbox),
                Routed::Port(port, frame) => switch.ingress(port, frame, now, outbox),
                _ => {}
            }
        }
        for (port, frame) in self.meshed.drain(..) {
            switch.ingress(port, frame, now, outbox);
        }
    }

    /// What became of flows since, while somebody watches.
    pub(crate) fn take_events(&mut self, mut each: impl FnMut(FlowEvent)) {
        self.router.take_events(&mut each);
        self.proxy.take_events(each);
    }

    /// What a frame in a capture has to do with translation.
    pub(crate) fn comment(&self, frame: &Frame, now: Instant) -> Option<String> {
        let (transport, source, destination) = ends_of(frame)?;
        if let Some(connection) = self.router.nat().connection_of(transport.number(source.is_ipv4()), source.into(), destination.into(), now) {
            return Some(format!("nat: {} is {} to {}", connection.inside, connection.external, connection.outside));
        }
        self.proxy.flow_of(transport, source, destination).map(|(inside, outside)| format!("nat: {inside} to {outside} by a socket of the host"))
    }

    pub(crate) fn apply(&mut self, command: UplinkCommand, now: Instant) -> UplinkReply {
        match command {
            UplinkCommand::SetPacketUplink(uplink) => self.router.set_uplink(uplink),
            UplinkCommand::SetNetwork(id, network, inside) => {
                if let Some(mac) = packet::UnicastMac::new(network.gateway_mac) {
                    self.router.set_network(id, Link { mac, addresses: network.gateways.clone(), mtu: network.mtu }, inside);
                }
                self.proxy.set_network(id, network);
            }
            UplinkCommand::SetResolvers(network, resolvers) => self.proxy.set_resolvers(network, resolvers, &mut self.sockets),
            UplinkCommand::SetRoute(one, other, open) => self.router.set_route(one, other, open),
            UplinkCommand::SetVips(network, vips) => self.router.set_vips(network, &vips),
            UplinkCommand::AddForward(forward) => return UplinkReply::Forward(self.router.add_forward(forward)),
            UplinkCommand::RemoveForward(id) => self.router.remove_forward(id),
            UplinkCommand::RemoveNetwork(id) => {
                self.router.remove_network(id);
                self.proxy.remove_network(id, &mut self.sockets);
            }
            UplinkCommand::RemoveInside(network, ip) => {
                self.router.remove_inside(network, ip);
                self.proxy.remove_inside(network, ip, &mut self.sockets);
            }
            UplinkCommand::SetInsideMtu(network, ip, mtu) => {
                self.router.set_inside_mtu(network, ip, mtu);
                self.proxy.set_inside_mtu(network, ip, mtu);
            }
            UplinkCommand::Publish(publish, fd) => {
                let added = self.sockets.add_listener(fd, publish.transport == Transport::Tcp);
                if let Ok(listener) = added {
                    self.proxy.publish(listener, publish);
                }
                return UplinkReply::Listener(added);
            }
            UplinkCommand::Retarget(listener, targets) => self.proxy.retarget(listener, targets, now, &mut self.sockets, &mut self.output),
            UplinkCommand::SetMesh(mesh) => {
                let (config, network) = mesh.unzip();
                self.mesh.configure(config);
                match network {
                    Some(network) => self.proxy.set_network(MESH, network),
                    None => self.proxy.remove_network(MESH, &mut self.sockets),
                }
            }
            UplinkCommand::Unpublish(listener) => self.proxy.unpublish(listener, &mut self.sockets),
            UplinkCommand::WatchFlows(on) => {
                self.router.watch(on);
                self.proxy.watch(on);
            }
            UplinkCommand::Show => {
                return UplinkReply::State(Box::new(UplinkState {
                    flows: self.proxy.flows(),
                    publishes: self.proxy.publishes(),
                    stats: self.proxy.stats(),
                    connections: self.router.nat().connections(now),
                    forwards: self.router.nat().forwards(),
                    traffic: self.router.nat().traffic(),
                    opened: self.proxy.opened().clone(),
                    router: self.router.stats(),
                    mesh: self.mesh.stats,
                    translation: *self.router.nat().drops(),
                }));
            }
        }
        UplinkReply::Done
    }

    /// What would become of a frame that a gateway took.
    pub(crate) fn explain(&mut self, switch: &Switch, network: NetworkId, frame: Frame, now: Instant, steps: &mut Vec<String>) {
        match self.router.explain(network, frame, now, steps) {
            Ok(frames) => frames.into_iter().for_each(|(to, frame)| switch.explain_injected(to, frame, now, steps)),
            Err(frame) => {
                let Some((transport, inside, outside)) = ends_of(&frame) else {
                    steps.push("refused: host sockets carry TCP, UDP and echo".into());
                    return;
                };
                steps.push(self.proxy.explain(network, transport, inside, outside));
            }
        }
    }

    /// What would become of a packet that reaches the host: it is for a published port, or for nobody.
    pub(crate) fn explain_arrival(&self, switch: &Switch, frame: &Frame, now: Instant, steps: &mut Vec<String>) {
        steps.push(format!("host: {}", packet::describe(frame.bytes())));
        let published = ends_of(frame).and_then(|(transport, _, host)| self.proxy.published_at(transport, host));
        let Some(publish) = published else {
            let elsewhere = if self.router.has_uplink() { "; packets come by the uplink: ask `weft trace uplink`" } else { "" };
            steps.push(format!("refused: no published port takes it{elsewhere}"));
            return;
        };
        let ends: Vec<_> = publish.targets.iter().map(|target| target.inside.to_string()).collect();
        steps.push(format!("publish {}: DNAT to {}; the client keeps its address", publish.host, ends.join(", or ")));
        let Some(target) = publish.targets.first().filter(|_| publish.network != MESH) else { return };
        let mut inside = frame.share();
        if !inside.make_unique() {
            return;
        }
        if let Some(mut packet) = packet::PacketMut::new(&mut inside)
            && packet.set_destination(target.inside.ip())
            && packet.set_destination_port(target.inside.port())
        {
            inside.bytes_mut()[..6].copy_from_slice(&target.mac.0);
            switch.explain_injected(publish.network, inside, now, steps);
        }
    }
}

/// Transport and ends of a packet, source first.
fn ends_of(frame: &Frame) -> Option<(Transport, SocketAddr, SocketAddr)> {
    let parsed = packet::Parsed::new(frame.bytes())?;
    let ip = parsed.ip?;
    let (transport, (from, to)) = match ip.protocol {
        6 => (Transport::Tcp, parsed.l4_ports(frame.bytes())?),
        17 => (Transport::Udp, parsed.l4_ports(frame.bytes())?),
        1 | 58 => (Transport::Echo, (0, 0)),
        _ => return None,
    };
    Some((transport, SocketAddr::new(ip.source, from), SocketAddr::new(ip.destination, to)))
}

#[cfg(test)]
mod tests {
    use packet::PoolConfig;

    use super::*;

    /// An answer over the mesh comes after the proxy's turn, and a datagram for a host socket waits for the next.
    #[test]
    fn what_the_proxy_is_given_has_a_turn_after_it() {
        let poll = mio::Poll::new().expect("epoll");
        let pool = Pool::new(PoolConfig::default());
        let mut uplink = Uplink::new(pool.clone(), poll.registry().try_clone().expect("a registry"), NatConfig::default());
        assert!(!uplink.has_work());
        let frame = pool.copy_of(&[2; 60]).expect("a frame");
        assert!(uplink.routed(Routed::Proxy(frame), Instant::ZERO).is_none());
        assert!(uplink.has_work());
        let (mut switch, mut outbox) = (Switch::new(dataplane::SwitchConfig::default(), pool), Outbox::new(8));
        uplink.turn(&mut switch, &mut outbox, Instant::ZERO);
        assert!(!uplink.has_work());
    }
}
