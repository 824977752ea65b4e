//! Published ports: who comes in by them, and to whom of those that serve each connection goes.
//!
//! A client's connection to the host stands before anybody inside has heard of it. So one that a target refuses, or leaves
//! unanswered, is offered to the next, and the client does not notice.

use std::net::SocketAddr;

use packet::{Instant, NetworkId};

use super::{
    Flow, Key, MOST_FLOWS, Output, Owner, Proxy, Publish, Target, Transport, Verdict,
    sockets::{SocketId, Sockets},
    tcp::{State, Tcp},
};

/// A published port, with what came in by it.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) publish: Publish,
    pub(super) hits: u64,
    /// Whose turn it is.
    next: usize,
}

impl Proxy {
    /// Forwards what comes in on `listener`, a socket that listens already.
    pub fn publish(&mut self, listener: SocketId, publish: Publish) {
        self.owners.insert(listener, Owner::Publish);
        self.publishes.insert(listener, Published { publish, hits: 0, next: 0 });
    }

    /// Forwards to these from now on. What went to others ends; a connection that nobody has answered yet goes to one of these.
    pub fn retarget<S: Sockets>(&mut self, listener: SocketId, targets: Vec<Target>, now: Instant, sockets: &mut S, out: &mut Output) {
        let Some(published) = self.publishes.get_mut(&listener) else { return };
        published.publish.targets.clone_from(&targets);
        let is_kept = |key: &Key| targets.iter().any(|target| target.inside == key.inside);
        self.datagrams.forget_clients(listener, is_kept);
        for at in 0..self.flows.len() {
            let Some(flow) = self.flows[at].as_mut().filter(|flow| flow.via.is_some_and(|(via, _)| via == listener) && !is_kept(&flow.key)) else { continue };
            flow.via = Some((listener, 0));
            if flow.tcp.state != State::SynSent || !self.try_next(at, now, sockets, out) {
                self.remove(at, true, sockets);
            }
        }
    }

    /// Stops; flows that came in by it live on.
    pub fn unpublish<S: Sockets>(&mut self, listener: SocketId, sockets: &mut S) {
        self.owners.remove(&listener);
        self.publishes.remove(&listener);
        self.datagrams.forget_clients(listener, |_| false);
        sockets.close(listener, false);
    }

    pub(super) fn publish_ready<S: Sockets>(&mut self, listener: SocketId, now: Instant, sockets: &mut S, out: &mut Output) {
        let Some(published) = self.publishes.get(&listener) else { return };
        if published.publish.transport == Transport::Udp {
            self.published_datagrams(listener, now, sockets, out);
            return;
        }
        while let Some((socket, client)) = sockets.tcp_accept(listener) {
            let target = self.index.len().lt(&MOST_FLOWS).then(|| self.next_target(listener)).flatten();
            let Some((key, target)) = target.and_then(|(network, target)| Some((self.key_of(network, target.inside, client)?, target))) else {
                self.stats.full += 1;
                sockets.close(socket, true);
                continue;
            };
            if let Some(published) = self.publishes.get_mut(&listener) {
                published.hits += 1;
            }
            self.offer(key, target, (listener, 0), socket, now, sockets, out);
        }
    }

    /// Whose turn it is.
    pub(super) fn next_target(&mut self, listener: SocketId) -> Option<(NetworkId, Target)> {
        let published = self.publishes.get_mut(&listener)?;
        let at = published.next.checked_rem(published.publish.targets.len())?;
        published.next = at + 1;
        Some((published.publish.network, *published.publish.targets.get(at)?))
    }

    /// The client's own address and port, unless the sandbox could not answer to them: loopback, its own subnet and the
    /// other family are seen as the network's stand-in.
    pub(super) fn key_of(&self, network: NetworkId, inside: SocketAddr, client: SocketAddr) -> Option<Key> {
        let served = self.networks.get(&network)?;
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let keeps = client.is_ipv4() == inside.is_ipv4() && !packet::is_martian(client.ip()) && !served.is_inside(client.ip());
        let ip = if keeps { client.ip() } else { served.stand_in(inside.is_ipv4())? };
        // The port stays unless two clients would become one.
        let key = |port| Key { network, inside, outside: SocketAddr::new(ip, port) };
        let is_free = |key: &Key| !self.index.contains_key(key) && !self.datagrams.is_taken(key);
        std::iter::once(client.port()).chain(49_152..=65_535).map(key).find(is_free)
    }

    /// Asks a target for a connection that the host has accepted.
    #[expect(clippy::too_many_arguments, reason = "the facts of one connection")]
    fn offer<S: Sockets>(&mut self, key: Key, target: Target, via: (SocketId, usize), socket: SocketId, now: Instant, sockets: &mut S, out: &mut Output) {
        let tcp = Tcp::inbound(socket, self.isn(&key, now), now);
        let at = self.insert(Flow { key, mac: target.mac, via: Some(via), rx_bytes: 0, tx_bytes: 0, tcp, noted: None });
        self.owners.insert(socket, Owner::Flow(at));
        self.with_flow(at, now, sockets, out, |tcp, cx| {
            tcp.send_syn(cx);
            Verdict::Keep
        });
    }

    /// Offers a connection that nobody has answered to the next; false when all had their turn.
    pub(super) fn try_next<S: Sockets>(&mut self, at: usize, now: Instant, sockets: &mut S, out: &mut Output) -> bool {
        let Some(flow) = self.flows[at].as_ref() else { return false };
        let (key, Some((listener, tried))) = (flow.key, flow.via) else { return false };
        let Some(publish) = self.publishes.get(&listener).map(|published| &published.publish) else { return false };
        let place = publish.targets.iter().position(|target| target.inside == key.inside);
        // One that is no target any more has had no turn.
        let tried = tried + usize::from(place.is_some());
        if tried >= publish.targets.len() {
            return false;
        }
        let target = publish.targets[place.map_or(0, |place| place + 1) % publish.targets.len()];
        let Some(key) = self.key_of(key.network, target.inside, key.outside) else { return false };
        let Some(flow) = self.forget(at) else { return false };
        self.offer(key, target, (listener, tried), flow.tcp.socket, now, sockets, out);
        true
    }
}
