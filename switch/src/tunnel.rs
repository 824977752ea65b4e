//! The way to other nodes inside the loop. A tunnel is a port of the switch without a device: what the switch sends
//! there is wrapped and sent over the host's UDP sockets, and what they bring comes in by that port.
//!
//! The first tunnel at a UDP port opens an endpoint there, the last one closes it.

mod control;
pub(crate) mod probe;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use dataplane::{Claim, Command, DropReason, Outbox, PortChange, Switch, clamp_mss};
use mio::{Registry, event::Event};
use packet::{Duration, Frame, HashKey, Instant, Parsed, Pool, PortId, Vni};
use socket2::Socket;
use vxlan::{Datagram, Outer, Vtep, inner_mtu};

pub(crate) use self::control::{TunnelCommand, TunnelConfig, TunnelError, TunnelReply, TunnelState, TunnelView};
use crate::{
    io::underlay::{self, Senders, V4, V6},
    sys::datagram::Receiver,
};

/// Tokens from here on are sockets of endpoints; those of the uplink end far below.
const FIRST: usize = 1 << 41;
/// A path that was found smaller is tried anew after this time (RFC 1191 section 6.3).
const RETRY: Duration = Duration::from_secs(600);

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

    /// A frame that the switch sends to a port without a device. False when that is no tunnel.
    pub(crate) fn take(&mut self, port: PortId, mut frame: Frame, now: Instant) -> bool {
        let Some((endpoint, vni)) = self.find(port) else { return false };
        let Some(Some(endpoint)) = self.endpoints.get_mut(endpoint) else { return false };
        let Some(tunnel) = endpoint.tunnels.get(&vni) else { return false };
        let ttl = tunnel.ttl;
        clamp(&mut frame, tunnel.mtu);
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
        let Some(Some(Endpoint { vtep, tunnels, .. })) = self.endpoints.get_mut(endpoint) else { return };
        let Some(mtu) = underlay::path_mtu(to).map(|mtu| inner_mtu(mtu, to.is_ipv6(), vtep.crypt(vni).is_some())) else { return };
        let tunnel = tunnels.get_mut(&vni);
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
                self.read(index, family, switch, now);
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
    fn read(&mut self, index: usize, family: usize, switch: &Switch, now: Instant) {
        let Some(Some(Endpoint { vtep, sockets, ready, tunnels, .. })) = self.endpoints.get_mut(index) else { return };
        let (Some(socket), true) = (&sockets[family], ready[family]) else { return };
        let judge = |vni: Vni, parsed: &Parsed, bytes: &[u8]| match tunnels.get(&vni).and_then(|tunnel| switch.claim_of(tunnel.port, parsed, bytes)) {
            None => Ok(()),
            Some(Claim::Gateway) => Err(vxlan::DropReason::Looped),
            Some(Claim::Station) => Err(vxlan::DropReason::LocalSource),
            Some(Claim::Neighbour) => Err(vxlan::DropReason::ForgedNeighbour),
        };
        let opened = &mut self.opened;
        let mut answers = Vec::new();
        let result = self.receiver.receive(socket, &self.pool, |received| {
            if let Some(answer) = probe::answer(received.frame.bytes()) {
                return answers.push((received.from, answer));
            }
            let outer = Outer { from: received.from, to: received.to, ecn: received.ecn };
            vtep.decap_many(outer, received.frame, received.segment, judge, now, opened);
        });
        for (to, answer) in answers {
            // Who hears nothing asks again.
            socket.send_to(&answer, &to.into()).ok();
        }
        ready[family] = match result {
            Ok(more) => more,
            // Buffers come back: what waits is read then.
            Err(error) => error.raw_os_error() == Some(libc::ENOBUFS),
        };
        for (vni, mut frame) in self.opened.drain(..) {
            if let Some(tunnel) = tunnels.get(&vni) {
                clamp(&mut frame, tunnel.mtu);
                self.inward.push((tunnel.port, frame));
            }
        }
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
}

/// Connections through a tunnel begin with segments that fit it, whatever the stations' links carry.
fn clamp(frame: &mut Frame, mtu: u16) {
    if frame.is_unique() {
        clamp_mss(frame, mtu);
    }
}

fn set_mtu(switch: &mut Switch, outbox: &mut Outbox, change: MtuChange, now: Instant) {
    drop(switch.apply(Command::SetPort(change.port, PortChange::Mtu(change.mtu.into())), now, outbox));
}
