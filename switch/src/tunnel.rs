//! The way to other nodes inside the loop. A tunnel is a port of the switch without a device: what the switch sends
//! there is wrapped and sent over the host's UDP sockets, and what they bring comes in by that port.
//!
//! The first tunnel at a UDP port opens an endpoint there, the last one closes it.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use dataplane::{Command, DropReason, Outbox, PortChange, Switch};
use mio::{Interest, Registry, Token, event::Event, unix::SourceFd};
use packet::{Duration, Frame, HashKey, Instant, Pool, PortId, UnicastMac, Vni};
use socket2::Socket;
use vxlan::{Counters, Datagram, Drops, Outer, Refused, RemoteKind, RemoteView, VniConfig, Vtep, VtepConfig, inner_mtu};

use crate::{
    io::underlay::{self, Senders, V4, V6},
    sys::datagram::Receiver,
};

/// Tokens from here on are sockets of endpoints; those of the uplink end far below.
const FIRST: usize = 1 << 41;
/// A path that was found smaller is tried anew after this time (RFC 1191 section 6.3).
const RETRY: Duration = Duration::from_secs(600);

/// A tunnel as control wants it.
#[derive(Clone, Debug)]
pub(crate) struct TunnelConfig {
    pub(crate) vni: Vni,
    pub(crate) rules: VniConfig,
    /// UDP port of the endpoint.
    pub(crate) udp_port: u16,
    /// Hops of outer packets; the system's default when missing.
    pub(crate) ttl: Option<u8>,
    /// A group to join and to flood to.
    pub(crate) group: Option<IpAddr>,
    /// Other nodes; addresses of this one are left out.
    pub(crate) peers: Vec<SocketAddr>,
    /// Stations behind them that somebody told us of.
    pub(crate) stations: Vec<(UnicastMac, SocketAddr)>,
    /// The network's gateway, which every node has.
    pub(crate) gateway: Option<UnicastMac>,
}

/// What control asks of tunnels.
#[derive(Debug)]
pub(crate) enum TunnelCommand {
    /// Flood to another node too, and hear it.
    AddPeer(PortId, SocketAddr),
    RemovePeer(PortId, SocketAddr),
    /// A station is behind that node.
    AddStation(PortId, UnicastMac, SocketAddr),
    RemoveStation(PortId, UnicastMac),
    Show,
}

/// What they answer.
#[derive(Debug)]
pub(crate) enum TunnelReply {
    Done(Result<(), TunnelError>),
    State(TunnelState),
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    #[error("no such tunnel")]
    NoTunnel,
    #[error("no such station")]
    NoStation,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("UDP port {0}: {1}")]
    Socket(u16, io::Error),
    #[error("cannot join {0}: {1}")]
    Group(IpAddr, io::Error),
}

/// All tunnels as they are.
#[derive(Debug)]
pub(crate) struct TunnelState {
    pub(crate) tunnels: Vec<TunnelView>,
    /// Drops of each endpoint: those of its tunnels, and those that belong to none.
    pub(crate) drops: Vec<Drops>,
}

/// A tunnel as it is.
#[derive(Debug)]
pub(crate) struct TunnelView {
    pub(crate) port: PortId,
    pub(crate) udp_port: u16,
    /// What it takes now: less than configured where a path is smaller.
    pub(crate) mtu: u16,
    pub(crate) counters: Counters,
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) remotes: Vec<RemoteView>,
}

/// A path turned out to carry less, or may carry more again: the tunnel takes so much now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MtuChange {
    pub(crate) port: PortId,
    pub(crate) mtu: u16,
}

/// An endpoint: a UDP port with the VNIs behind it.
#[derive(Debug)]
struct Endpoint {
    udp_port: u16,
    vtep: Vtep,
    sockets: [Option<Socket>; 2],
    /// Whether they may have something to read.
    ready: [bool; 2],
    tunnels: BTreeMap<Vni, Tunnel>,
}

#[derive(Debug)]
struct Tunnel {
    port: PortId,
    ttl: Option<u8>,
    group: Option<IpAddr>,
    gateway: Option<UnicastMac>,
    mtu_wanted: u16,
    mtu: u16,
    /// When a smaller MTU is to be forgotten.
    retry: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tunnels {
    pool: Pool,
    registry: Registry,
    seed: HashKey,
    /// By token; a place is used again.
    endpoints: Vec<Option<Endpoint>>,
    /// Endpoint and VNI by slot of the port.
    by_slot: Vec<Option<(PortId, usize, Vni)>>,
    senders: Senders,
    receiver: Receiver,
    /// Frames on their way into the switch.
    inward: Vec<(PortId, Frame)>,
    datagrams: Vec<Datagram>,
    opened: Vec<(Vni, Frame)>,
    losses: Vec<underlay::Loss>,
    /// When the first of the smaller MTUs is to be forgotten.
    next_retry: Option<Instant>,
    /// What control has not been told of yet.
    pub(crate) changes: Vec<MtuChange>,
}

impl Tunnels {
    pub(crate) fn new(pool: Pool, registry: Registry, seed: u64) -> Self {
        Self {
            pool,
            registry,
            // Two words of one secret, told apart by the golden ratio.
            seed: [seed, seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15],
            endpoints: Vec::new(),
            by_slot: Vec::new(),
            senders: Senders::default(),
            receiver: Receiver::new(),
            inward: Vec::new(),
            datagrams: Vec::new(),
            opened: Vec::new(),
            losses: Vec::new(),
            next_retry: None,
            changes: Vec::new(),
        }
    }

    /// Whether epoll has anything to say to them.
    pub(crate) fn is_idle(&self) -> bool {
        self.endpoints.iter().all(Option::is_none)
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.inward.is_empty() || self.endpoints.iter().flatten().any(|endpoint| endpoint.ready != [false; 2])
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.endpoints.iter().flatten().filter_map(|endpoint| endpoint.vtep.poll_timeout()).chain(self.next_retry).min()
    }

    /// Notes an event of epoll; false when it is not about a socket of ours.
    pub(crate) fn note(&mut self, event: &Event) -> bool {
        let Some(number) = event.token().0.checked_sub(FIRST) else { return false };
        let Some(place) = self.endpoints.get_mut(number / 2) else { return false };
        if let Some(endpoint) = place {
            endpoint.ready[number % 2] = true;
        }
        true
    }

    // ---- frames ----

    /// A frame that the switch sends to a port without a device. False when that is no tunnel.
    pub(crate) fn take(&mut self, port: PortId, frame: Frame, now: Instant) -> bool {
        let Some((endpoint, vni)) = self.find(port) else { return false };
        let Some(Some(endpoint)) = self.endpoints.get_mut(endpoint) else { return false };
        let ttl = endpoint.tunnels.get(&vni).and_then(|tunnel| tunnel.ttl);
        // What is dropped was counted.
        if let Ok(Some(answer)) = endpoint.vtep.encap(vni, frame, now, &mut self.datagrams) {
            self.inward.push((port, answer));
        }
        for datagram in self.datagrams.drain(..) {
            self.losses.extend(self.senders.push(port, datagram, ttl).err());
        }
        true
    }

    /// Sends what was taken. What is lost is counted under its port; a port learns that its path is smaller.
    pub(crate) fn flush(&mut self, switch: &mut Switch, outbox: &mut Outbox, now: Instant) {
        let losses = &mut self.losses;
        self.senders.flush(|loss| losses.push(loss));
        if losses.is_empty() {
            return;
        }
        for loss in std::mem::take(&mut self.losses) {
            switch.egress_error(loss.port, loss.reason, loss.count);
            if loss.reason == DropReason::UnderlayMtu {
                self.shrink(loss.port, loss.to, switch, outbox, now);
            }
        }
    }

    /// Lowers a port's MTU to what the path to `to` carries: the sender of the next frame that does not fit is
    /// seen to by the switch (`too_big`).
    fn shrink(&mut self, port: PortId, to: SocketAddr, switch: &mut Switch, outbox: &mut Outbox, now: Instant) {
        if self.changes.iter().any(|change| change.port == port) {
            return;
        }
        let Some((endpoint, vni)) = self.find(port) else { return };
        let Some(mtu) = underlay::path_mtu(to).map(|mtu| inner_mtu(mtu, to.is_ipv6())) else { return };
        let tunnel = self.endpoints[endpoint].as_mut().and_then(|endpoint| endpoint.tunnels.get_mut(&vni));
        if let Some(tunnel) = tunnel.filter(|tunnel| mtu < tunnel.mtu) {
            tunnel.mtu = mtu;
            tunnel.retry = Some(now + RETRY);
            self.next_retry = self.next_retry.or(tunnel.retry);
            set_mtu(switch, outbox, MtuChange { port, mtu }, now);
            self.changes.push(MtuChange { port, mtu });
        }
    }

    /// The end of a turn: what came in, and the clock.
    pub(crate) fn turn(&mut self, switch: &mut Switch, outbox: &mut Outbox, now: Instant) {
        for index in 0..self.endpoints.len() {
            for family in [V4, V6] {
                self.read(index, family, now);
            }
        }
        for (port, frame) in self.inward.drain(..) {
            switch.ingress(port, frame, now, outbox);
        }
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.handle_timeout(switch, outbox, now);
        }
    }

    /// One batch, so that all have their turn.
    fn read(&mut self, index: usize, family: usize, now: Instant) {
        let Some(Some(Endpoint { vtep, sockets, ready, tunnels, .. })) = self.endpoints.get_mut(index) else { return };
        let (Some(socket), true) = (&sockets[family], ready[family]) else { return };
        // A frame of the gateway's comes from another node's gateway, and ours has that address here.
        let is_gateway = |vni: Vni, mac: UnicastMac| tunnels.get(&vni).is_some_and(|tunnel| tunnel.gateway == Some(mac));
        let opened = &mut self.opened;
        let result = self.receiver.receive(socket, &self.pool, |received| {
            let outer = Outer { from: received.from, ecn: received.ecn };
            vtep.decap_many(outer, received.frame, received.segment, is_gateway, now, opened);
        });
        ready[family] = match result {
            Ok(more) => more,
            // Buffers come back: what waits is read then.
            Err(error) => error.raw_os_error() == Some(libc::ENOBUFS),
        };
        let port_of = |vni: Vni| tunnels.get(&vni).map(|tunnel| tunnel.port);
        self.inward.extend(self.opened.drain(..).filter_map(|(vni, frame)| Some((port_of(vni)?, frame))));
    }

    fn handle_timeout(&mut self, switch: &mut Switch, outbox: &mut Outbox, now: Instant) {
        for endpoint in self.endpoints.iter_mut().flatten() {
            endpoint.vtep.handle_timeout(now);
            if self.next_retry.is_none_or(|at| at > now) {
                continue;
            }
            for tunnel in endpoint.tunnels.values_mut().filter(|tunnel| tunnel.retry.is_some_and(|at| at <= now)) {
                (tunnel.mtu, tunnel.retry) = (tunnel.mtu_wanted, None);
                let change = MtuChange { port: tunnel.port, mtu: tunnel.mtu };
                set_mtu(switch, outbox, change, now);
                self.changes.push(change);
            }
        }
        if self.next_retry.is_some_and(|at| at <= now) {
            let tunnels = self.endpoints.iter().flatten().flat_map(|endpoint| endpoint.tunnels.values());
            self.next_retry = tunnels.filter_map(|tunnel| tunnel.retry).min();
        }
    }

    fn find(&self, port: PortId) -> Option<(usize, Vni)> {
        let &(owner, endpoint, vni) = self.by_slot.get(port.index())?.as_ref()?;
        (owner == port).then_some((endpoint, vni))
    }

    // ---- control ----

    /// Makes a port of the switch a tunnel; all or nothing.
    pub(crate) fn open(&mut self, port: PortId, config: &TunnelConfig, now: Instant) -> Result<(), TunnelError> {
        let index = self.endpoint_at(config.udp_port)?;
        let result = self.open_at(index, port, config, now);
        // A VNI that was there is another tunnel's.
        if matches!(&result, Err(error) if !matches!(error, TunnelError::Refused(Refused::VniExists))) {
            self.close_vni(index, config.vni);
        }
        result
    }

    fn open_at(&mut self, index: usize, port: PortId, config: &TunnelConfig, now: Instant) -> Result<(), TunnelError> {
        let &TunnelConfig { vni, rules, udp_port, ttl, group, gateway, .. } = config;
        let endpoint = self.endpoints[index].as_mut().ok_or(TunnelError::NoTunnel)?;
        endpoint.vtep.add_vni(vni, rules)?;
        for &peer in config.peers.iter().filter(|peer| peer.port() != udp_port || !underlay::is_own(peer.ip())) {
            endpoint.vtep.add_peer(vni, peer)?;
        }
        for &(mac, to) in &config.stations {
            endpoint.vtep.set_remote(vni, mac, to, RemoteKind::Static, now)?;
        }
        let is_joined = |group: IpAddr| endpoint.tunnels.values().any(|tunnel| tunnel.group == Some(group));
        if let Some(group) = group {
            endpoint.vtep.add_peer(vni, SocketAddr::new(group, udp_port))?;
            if let Some(socket) = &endpoint.sockets[underlay::family_of(group)]
                && !is_joined(group)
            {
                underlay::set_membership(socket, group, true).map_err(|error| TunnelError::Group(group, error))?;
            }
        }
        endpoint.tunnels.insert(vni, Tunnel { port, ttl, group, gateway, mtu_wanted: rules.mtu, mtu: rules.mtu, retry: None });
        if self.by_slot.len() <= port.index() {
            self.by_slot.resize(port.index() + 1, None);
        }
        self.by_slot[port.index()] = Some((port, index, vni));
        Ok(())
    }

    /// The endpoint at a UDP port, which is opened if it is not there.
    fn endpoint_at(&mut self, udp_port: u16) -> Result<usize, TunnelError> {
        if let Some(index) = self.endpoints.iter().position(|endpoint| endpoint.as_ref().is_some_and(|endpoint| endpoint.udp_port == udp_port)) {
            return Ok(index);
        }
        let failed = |error| TunnelError::Socket(udp_port, error);
        self.senders.open().map_err(failed)?;
        let index = self.endpoints.iter().position(Option::is_none).unwrap_or_else(|| {
            self.endpoints.push(None);
            self.endpoints.len() - 1
        });
        let sockets = match (underlay::receiver(V4, udp_port).map_err(failed)?, underlay::receiver(V6, udp_port)) {
            (_, Err(error)) if error.kind() == io::ErrorKind::AddrInUse => return Err(failed(error)),
            (v4, v6) => [Some(v4), v6.ok()],
        };
        for (family, socket) in sockets.iter().enumerate() {
            if let Some(socket) = socket {
                self.registry.register(&mut SourceFd(&socket.as_raw_fd()), Token(FIRST + 2 * index + family), Interest::READABLE).map_err(failed)?;
            }
        }
        let vtep = Vtep::new(VtepConfig { port: udp_port, ..VtepConfig::default() }, self.pool.clone(), self.seed);
        self.endpoints[index] = Some(Endpoint { udp_port, vtep, sockets, ready: [false; 2], tunnels: BTreeMap::new() });
        Ok(index)
    }

    /// The port is going, and the endpoint with its last tunnel.
    pub(crate) fn close(&mut self, port: PortId) {
        if let Some((index, vni)) = self.find(port) {
            self.by_slot[port.index()] = None;
            self.inward.retain(|(other, _)| *other != port);
            self.changes.retain(|change| change.port != port);
            self.close_vni(index, vni);
        }
    }

    fn close_vni(&mut self, index: usize, vni: Vni) {
        let Some(Some(endpoint)) = self.endpoints.get_mut(index) else { return };
        endpoint.vtep.remove_vni(vni);
        let group = endpoint.tunnels.remove(&vni).and_then(|tunnel| tunnel.group);
        if let Some(group) = group.filter(|group| endpoint.tunnels.values().all(|tunnel| tunnel.group != Some(*group)))
            && let Some(socket) = &endpoint.sockets[underlay::family_of(group)]
        {
            underlay::set_membership(socket, group, false).ok();
        }
        if endpoint.tunnels.is_empty() {
            for socket in endpoint.sockets.iter().flatten() {
                self.registry.deregister(&mut SourceFd(&socket.as_raw_fd())).ok();
            }
            self.endpoints[index] = None;
        }
        if self.is_idle() {
            self.senders.close();
        }
    }

    pub(crate) fn apply(&mut self, command: TunnelCommand, now: Instant) -> TunnelReply {
        let port = match command {
            TunnelCommand::Show => return TunnelReply::State(self.state(now)),
            TunnelCommand::AddPeer(port, _) | TunnelCommand::RemovePeer(port, _) | TunnelCommand::AddStation(port, _, _) | TunnelCommand::RemoveStation(port, _) => port,
        };
        let found = self.find(port).and_then(|(index, vni)| Some((self.endpoints.get_mut(index)?.as_mut()?, vni)));
        let Some((endpoint, vni)) = found else { return TunnelReply::Done(Err(TunnelError::NoTunnel)) };
        let vtep = &mut endpoint.vtep;
        TunnelReply::Done(match command {
            TunnelCommand::AddPeer(_, peer) if peer.port() == endpoint.udp_port && underlay::is_own(peer.ip()) => Ok(()),
            TunnelCommand::AddPeer(_, peer) => vtep.add_peer(vni, peer).map_err(Into::into),
            TunnelCommand::RemovePeer(_, peer) => {
                vtep.remove_peer(vni, peer);
                Ok(())
            }
            TunnelCommand::AddStation(_, mac, to) => vtep.set_remote(vni, mac, to, RemoteKind::Static, now).map_err(Into::into),
            TunnelCommand::RemoveStation(_, mac) if vtep.remove_remote(vni, mac) => Ok(()),
            TunnelCommand::RemoveStation(..) => Err(TunnelError::NoStation),
            TunnelCommand::Show => Ok(()),
        })
    }

    fn state(&self, now: Instant) -> TunnelState {
        let endpoints = || self.endpoints.iter().flatten();
        let view = |endpoint: &Endpoint, vni: Vni, tunnel: &Tunnel| TunnelView {
            port: tunnel.port,
            udp_port: endpoint.udp_port,
            mtu: tunnel.mtu,
            counters: endpoint.vtep.counters(vni).cloned().unwrap_or_default(),
            peers: endpoint.vtep.peers(vni).to_vec(),
            remotes: endpoint.vtep.remotes(vni, now),
        };
        TunnelState {
            tunnels: endpoints().flat_map(|endpoint| endpoint.tunnels.iter().map(move |(vni, tunnel)| view(endpoint, *vni, tunnel))).collect(),
            drops: endpoints().map(|endpoint| endpoint.vtep.drops().clone()).collect(),
        }
    }
}

fn set_mtu(switch: &mut Switch, outbox: &mut Outbox, change: MtuChange, now: Instant) {
    drop(switch.apply(Command::SetPort(change.port, PortChange::Mtu(change.mtu.into())), now, outbox));
}
