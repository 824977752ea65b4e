//! What the proxy carries, to be shown.

use std::{collections::BTreeMap, net::SocketAddr};

use packet::{NetworkId, checksum::protocol};

use super::{Key, Proxy, ProxyStats, Publish, SocketId, route::Refusal};

/// What a flow is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// A TCP connection.
    Tcp,
    /// UDP datagrams.
    Udp,
    /// ICMP or ICMPv6 echo.
    Echo,
}

impl Transport {
    /// The IP protocol number.
    #[must_use]
    pub const fn number(self, is_ipv4: bool) -> u8 {
        match (self, is_ipv4) {
            (Self::Tcp, _) => protocol::TCP,
            (Self::Udp, _) => protocol::UDP,
            (Self::Echo, true) => protocol::ICMP,
            (Self::Echo, false) => protocol::ICMPV6,
        }
    }
}

/// A flow as it is.
#[derive(Clone, Debug)]
pub struct FlowView {
    /// The sandbox's network.
    pub network: NetworkId,
    /// What it is made of.
    pub transport: Transport,
    /// The sandbox's end.
    pub inside: SocketAddr,
    /// The other end, as the sandbox sees it.
    pub outside: SocketAddr,
    /// Whether it came in by a published port.
    pub is_inbound: bool,
    /// TCP's state.
    pub state: &'static str,
    /// Payload from the sandbox, bytes.
    pub tx_bytes: u64,
    /// To the sandbox, bytes.
    pub rx_bytes: u64,
}

/// A published port with what came in by it.
#[derive(Clone, Debug)]
pub struct PublishView {
    /// Its listener.
    pub listener: SocketId,
    /// What is published.
    pub publish: Publish,
    /// Connections, or datagrams, that came in.
    pub hits: u64,
}

impl Proxy {
    /// All flows.
    #[must_use]
    pub fn flows(&self) -> Vec<FlowView> {
        let tcp = self.flows.iter().flatten().map(|flow| FlowView {
            network: flow.key.network,
            transport: Transport::Tcp,
            inside: flow.key.inside,
            outside: flow.key.outside,
            is_inbound: flow.via.is_some(),
            state: flow.tcp.name(),
            tx_bytes: flow.rx_bytes,
            rx_bytes: flow.tx_bytes,
        });
        let datagrams = self.datagrams.sessions.iter().map(|((key, transport), session)| {
            let is_inbound = self.publishes.contains_key(&session.socket);
            let answered = if is_inbound { session.rx_bytes } else { session.tx_bytes };
            FlowView {
                network: key.network,
                transport: *transport,
                inside: key.inside,
                outside: key.outside,
                is_inbound,
                state: if answered > 0 { "ASSURED" } else { "UNREPLIED" },
                tx_bytes: session.rx_bytes,
                rx_bytes: session.tx_bytes,
            }
        });
        let mut all: Vec<_> = tcp.chain(datagrams).collect();
        all.sort_by_key(|flow| (flow.transport, flow.inside, flow.outside));
        all
    }

    /// What was not carried.
    #[must_use]
    pub const fn stats(&self) -> ProxyStats {
        ProxyStats { ahead: self.budget.refused, ..self.stats }
    }

    /// Flows that networks opened towards the outside, by family (true is IPv4).
    #[must_use]
    pub const fn opened(&self) -> &BTreeMap<(NetworkId, bool), u64> {
        &self.opened
    }

    /// All published ports.
    #[must_use]
    pub fn publishes(&self) -> Vec<PublishView> {
        self.publishes.iter().map(|(&listener, published)| PublishView { listener, publish: published.publish.clone(), hits: published.hits }).collect()
    }

    /// What would become of a flow of a sandbox, for people.
    #[must_use]
    pub fn explain(&self, network: NetworkId, transport: Transport, inside: SocketAddr, outside: SocketAddr) -> String {
        match self.decide(&Key { network, inside, outside }, transport) {
            Ok(peer) if peer != outside => format!("uplink: a question for names; the host asks {peer}"),
            Ok(peer) if transport == Transport::Tcp => format!("uplink: the host connects to {peer} by a socket of its own (masquerade)"),
            Ok(peer) if transport == Transport::Udp => format!("uplink: the host sends to {peer} by a socket of its own (masquerade)"),
            Ok(peer) => format!("uplink: the host pings {}", peer.ip()),
            Err(Refusal::NoNetwork) => "refused: the network has no uplink".into(),
            Err(Refusal::Closed) => "refused: the gateway's own ports are closed, but for names (53)".into(),
            Err(Refusal::Internal) => "refused: the network is internal, or not masqueraded".into(),
            Err(Refusal::Martian) => "refused: no router forwards there, or it is another network's".into(),
        }
    }

    /// The published port that takes what comes to `host`.
    #[must_use]
    pub fn published_at(&self, transport: Transport, host: SocketAddr) -> Option<Publish> {
        let takes = |publish: &Publish| {
            publish.transport == transport && publish.host.port() == host.port() && publish.host.is_ipv4() == host.is_ipv4() && (publish.host.ip().is_unspecified() || publish.host.ip() == host.ip())
        };
        self.publishes.values().map(|published| &published.publish).find(|publish| takes(publish)).cloned()
    }

    /// Whether a packet, whichever way it goes, is of a flow: its inside and outside ends.
    #[must_use]
    pub fn flow_of(&self, transport: Transport, source: SocketAddr, destination: SocketAddr) -> Option<(SocketAddr, SocketAddr)> {
        let is_known = |key: &Key| if transport == Transport::Tcp { self.index.contains_key(key) } else { self.datagrams.sessions.contains_key(&(*key, transport)) };
        let ways = [(source, destination), (destination, source)];
        ways.into_iter().find(|&(inside, outside)| self.networks.keys().any(|&network| is_known(&Key { network, inside, outside })))
    }
}
