//! The user-mode uplink inside the loop: the proxy, its sockets, and frames between them and the switch.

use std::{io, net::IpAddr, os::fd::OwnedFd};

use dataplane::{Outbox, Switch};
use mio::{Registry, event::Event};
use nat::proxy::{FlowView, Network, Output, Proxy, ProxyStats, Publish, PublishView, Ready, SocketId, Transport};
use packet::{Frame, Instant, NetworkId, Pool};

use crate::io::sockets::{FIRST, HostSockets};

/// What control asks of the uplink.
#[derive(Debug)]
pub(crate) enum UplinkCommand {
    /// Serve a network, or serve it differently.
    SetNetwork(NetworkId, Network),
    /// End all flows of a network.
    RemoveNetwork(NetworkId),
    /// End all flows of an address.
    RemoveInside(NetworkId, IpAddr),
    /// Forward what comes in on a socket that listens or is bound.
    Publish(Publish, OwnedFd),
    /// Stop.
    Unpublish(SocketId),
    /// Flows, published ports, counters.
    Show,
}

/// What it answers.
#[derive(Debug)]
pub(crate) enum UplinkReply {
    Done,
    Listener(io::Result<SocketId>),
    State { flows: Vec<FlowView>, publishes: Vec<PublishView>, stats: ProxyStats },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Uplink {
    proxy: Proxy,
    sockets: HostSockets,
    ready: Vec<(SocketId, Ready)>,
    output: Output,
    /// Some flow had more to send than its turn allowed.
    more: bool,
}

impl Uplink {
    pub(crate) fn new(pool: Pool, registry: Registry) -> Self {
        Self { proxy: Proxy::new(pool), sockets: HostSockets::new(registry), ready: Vec::new(), output: Vec::new(), more: false }
    }

    /// Whether epoll has anything to say to it.
    pub(crate) fn is_idle(&self) -> bool {
        self.sockets.is_empty()
    }

    pub(crate) fn has_work(&self) -> bool {
        self.more || !self.ready.is_empty()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.proxy.poll_timeout()
    }

    /// Notes an event of epoll; false when it is not about a socket of ours.
    pub(crate) fn note(&mut self, event: &Event) -> bool {
        let Some(number) = event.token().0.checked_sub(FIRST).and_then(|number| u32::try_from(number).ok()) else { return false };
        let ready = Ready { read: event.is_readable() || event.is_read_closed(), write: event.is_writable(), error: event.is_error() };
        self.ready.push((SocketId(number), ready));
        true
    }

    /// A frame that a gateway took for the outside.
    pub(crate) fn take(&mut self, network: NetworkId, frame: &Frame, now: Instant) {
        self.proxy.frame(network, frame, now, &mut self.sockets, &mut self.output);
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
        self.more = self.proxy.flush(now, &mut self.sockets, &mut self.output);
        for (network, frame) in self.output.drain(..) {
            switch.inject(network, frame, now, outbox);
        }
    }

    pub(crate) fn apply(&mut self, command: UplinkCommand) -> UplinkReply {
        match command {
            UplinkCommand::SetNetwork(id, network) => self.proxy.set_network(id, network),
            UplinkCommand::RemoveNetwork(id) => self.proxy.remove_network(id, &mut self.sockets),
            UplinkCommand::RemoveInside(network, ip) => self.proxy.remove_inside(network, ip, &mut self.sockets),
            UplinkCommand::Publish(publish, fd) => {
                let added = self.sockets.add_listener(fd, publish.transport == Transport::Tcp);
                if let Ok(listener) = added {
                    self.proxy.publish(listener, publish);
                }
                return UplinkReply::Listener(added);
            }
            UplinkCommand::Unpublish(listener) => self.proxy.unpublish(listener, &mut self.sockets),
            UplinkCommand::Show => {
                return UplinkReply::State { flows: self.proxy.flows(), publishes: self.proxy.publishes(), stats: self.proxy.stats };
            }
        }
        UplinkReply::Done
    }
}
