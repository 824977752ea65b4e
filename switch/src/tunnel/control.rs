//! What control asks of tunnels, and how they are opened and closed.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use mio::{Interest, Token, unix::SourceFd};
use packet::{Instant, PortId, UnicastMac, Vni};
use vxlan::{
    Counters, Drops, Neighbour, Refused, RemoteKind, RemoteView, VniConfig, Vtep, VtepConfig,
    crypt::{CryptView, Keys},
};

use super::{Endpoint, FIRST, Tunnel, Tunnels};
use crate::io::underlay::{self, V4, V6};

/// A tunnel as control wants it.
#[derive(Clone, Debug)]
pub(crate) struct TunnelConfig {
    pub(crate) vni: Vni,
    pub(crate) rules: VniConfig,
    /// Of an encrypted one, if there are any yet.
    pub(crate) keys: Option<Keys>,
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
    /// Who has which address behind them: answered for here.
    pub(crate) neighbours: Vec<(IpAddr, UnicastMac)>,
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
    /// Encrypt with these from now on.
    SetKeys(PortId, Keys),
    /// A station behind a node has that address.
    AddNeighbour(PortId, IpAddr, UnicastMac),
    RemoveNeighbour(PortId, IpAddr),
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
    /// How it encrypts, if it does.
    pub(crate) crypt: Option<CryptView>,
}

impl Tunnels {
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
        let &TunnelConfig { vni, rules, udp_port, ttl, group, .. } = config;
        let endpoint = self.endpoints[index].as_mut().ok_or(TunnelError::NoTunnel)?;
        endpoint.vtep.add_vni(vni, rules)?;
        if let Some(keys) = &config.keys {
            endpoint.vtep.set_keys(vni, keys)?;
        }
        for &peer in config.peers.iter().filter(|peer| peer.port() != udp_port || !underlay::is_own(peer.ip())) {
            endpoint.vtep.add_peer(vni, peer)?;
        }
        for &(mac, to) in &config.stations {
            endpoint.vtep.set_remote(vni, mac, to, RemoteKind::Static, now)?;
        }
        for &(ip, mac) in &config.neighbours {
            endpoint.vtep.set_neighbour(vni, ip, Neighbour { mac, router: false })?;
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
        endpoint.tunnels.insert(vni, Tunnel { port, ttl, group, mtu_wanted: rules.mtu, mtu: rules.mtu, retry: None });
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
            TunnelCommand::AddPeer(port, _)
            | TunnelCommand::RemovePeer(port, _)
            | TunnelCommand::AddStation(port, _, _)
            | TunnelCommand::RemoveStation(port, _)
            | TunnelCommand::AddNeighbour(port, _, _)
            | TunnelCommand::RemoveNeighbour(port, _)
            | TunnelCommand::SetKeys(port, _) => port,
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
            TunnelCommand::AddNeighbour(_, ip, mac) => vtep.set_neighbour(vni, ip, Neighbour { mac, router: false }).map_err(Into::into),
            TunnelCommand::RemoveNeighbour(_, ip) => {
                vtep.remove_neighbour(vni, ip);
                Ok(())
            }
            TunnelCommand::RemoveStation(..) => Err(TunnelError::NoStation),
            TunnelCommand::SetKeys(_, keys) => vtep.set_keys(vni, &keys).map_err(Into::into),
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
            crypt: endpoint.vtep.crypt(vni),
        };
        TunnelState {
            tunnels: endpoints().flat_map(|endpoint| endpoint.tunnels.iter().map(move |(vni, tunnel)| view(endpoint, *vni, tunnel))).collect(),
            drops: endpoints().map(|endpoint| *endpoint.vtep.drops()).collect(),
        }
    }
}
