//! Where a flow of a sandbox goes: outside, to a resolver, or nowhere.

use std::net::{SocketAddr, SocketAddrV6};

use super::{DNS, Key, Proxy, Transport};

/// Why a flow goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NoNetwork,
    Closed,
    Internal,
    Martian,
}

impl Proxy {
    /// Questions to the gateway leave for nowhere.
    pub(super) fn count_opened(&mut self, key: &Key, peer: SocketAddr) {
        if peer != key.outside {
            return;
        }
        *self.opened.entry((key.network, key.inside.is_ipv4())).or_default() += 1;
    }

    /// Where a flow to `outside` really goes; `None` when nowhere.
    pub(super) fn route(&mut self, key: &Key, transport: Transport) -> Option<SocketAddr> {
        match self.decide(key, transport) {
            Ok(outside) => Some(outside),
            Err(refusal) => {
                match refusal {
                    Refusal::Internal => self.stats.internal += 1,
                    Refusal::Martian => self.stats.martian += 1,
                    Refusal::NoNetwork | Refusal::Closed => {}
                }
                None
            }
        }
    }

    pub(super) fn decide(&self, key: &Key, transport: Transport) -> Result<SocketAddr, Refusal> {
        let network = self.networks.get(&key.network).ok_or(Refusal::NoNetwork)?;
        let to_gateway = network.gateways.iter().any(|gateway| gateway.ip() == key.outside.ip());
        if to_gateway {
            // Names are asked for at the gateway, whose own ports are closed otherwise.
            let resolver = network.resolvers.of(key.inside.ip()).filter(|_| key.outside.port() == DNS && transport != Transport::Echo).ok_or(Refusal::Closed)?;
            return Ok(match resolver {
                // A datagram socket is of its inside's family: an IPv6 one reaches IPv4 by mapped addresses.
                SocketAddr::V4(v4) if transport == Transport::Udp && key.inside.is_ipv6() => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
                resolver => resolver,
            });
        }
        if !network.masquerade {
            return Err(Refusal::Internal);
        }
        // Networks are apart: none is another's outside.
        if packet::is_martian(key.outside.ip()) || self.networks.values().any(|network| network.is_inside(key.outside.ip())) {
            return Err(Refusal::Martian);
        }
        Ok(key.outside)
    }
}
