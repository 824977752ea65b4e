//! One broadcast domain: learns, decides. Deciding changes nothing outside learning.

use packet::{Instant, Keyed, NetworkId, PortId, ethertype};

use crate::{
    command::{BridgeConfig, L2Mode},
    drop::DropReason,
    fdb::{self, Fdb, Learned, PortSlot},
    gateway::{Face, Services},
    header::Header,
    hint::unlikely,
    residents::Residents,
};

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarding {
    Unicast(PortSlot),
    Flood,
    Drop(DropReason),
}

#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) id: NetworkId,
    pub(crate) config: BridgeConfig,
    /// The gateway's address as in [`Header`]; [`NO_GATEWAY`] without one.
    gateway: u64,
    /// Its IPv4 addresses, if it has any.
    face: Option<Face>,
    pub(crate) services: Services,
    /// In the order they came.
    pub(crate) ports: Vec<PortId>,
    pub(crate) fdb: Fdb,
    pub(crate) full_reported: Option<Instant>,
    pub(crate) residents: Residents,
}

const NO_GATEWAY: u64 = u64::MAX;

fn gateway_bits(config: &BridgeConfig) -> u64 {
    config.gateway.as_ref().map_or(NO_GATEWAY, |gateway| gateway.mac.get().as_u64())
}

impl Bridge {
    pub(crate) fn new(id: NetworkId, config: BridgeConfig, secret: Keyed, now: Instant) -> Self {
        let fdb = Fdb::new(config.fdb_capacity, config.ageing, secret);
        let gateway = gateway_bits(&config);
        let face = config.gateway.as_ref().and_then(Face::new);
        let mut services = Services::default();
        services.configure(config.gateway.as_ref(), now);
        Self { id, config, gateway, face, services, ports: Vec::new(), fdb, full_reported: None, residents: Residents::default() }
    }

    /// Changes all but the FDB's capacity.
    pub(crate) fn configure(&mut self, config: BridgeConfig, now: Instant) {
        self.gateway = gateway_bits(&config);
        self.face = config.gateway.as_ref().and_then(Face::new);
        if config.gateway != self.config.gateway {
            self.services.configure(config.gateway.as_ref(), now);
        }
        self.config = BridgeConfig { fdb_capacity: self.config.fdb_capacity, ..config };
    }

    /// Whether a frame may be for the gateway; cheap, and true of few others.
    #[inline]
    pub(crate) fn may_be_for_gateway(&self, header: Header) -> bool {
        header.destination == self.gateway || (header.is_to_group() && self.gateway != NO_GATEWAY && self.listens_to_groups(header.ethertype))
    }

    #[inline]
    pub(crate) fn is_to_gateway(&self, header: Header) -> bool {
        header.destination == self.gateway
    }

    /// The common case of [`GatewayConfig::hear`] at once: a packet to the gateway that is for the outside.
    #[inline]
    pub(crate) fn is_plainly_outside(&self, header: Header, bytes: &[u8]) -> bool {
        self.is_to_gateway(header) && self.services.balancer.is_none() && self.face.as_ref().is_some_and(|face| face.is_plainly_outside(bytes))
    }

    #[inline]
    fn listens_to_groups(&self, ethertype: u16) -> bool {
        matches!(ethertype, ethertype::ARP | ethertype::IPV6) || (ethertype == ethertype::IPV4 && self.services.dhcp.is_some())
    }

    /// Notes where the source lives.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "on every frame's way; counted")]
    pub(crate) fn learn(&mut self, vlan: u16, header: Header, port: PortSlot, now: Instant) -> Learned {
        if unlikely(self.config.l2 == L2Mode::Hub) {
            return Learned::Known;
        }
        self.fdb.learn(fdb::key(vlan, header.source), port, now)
    }

    /// Where a frame from `ingress` goes.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "on every frame's way; counted")]
    pub(crate) fn decide(&self, vlan: u16, header: Header, ingress: PortSlot, now: Instant) -> Forwarding {
        if unlikely(header.is_to_group()) {
            let stays = header.is_to_reserved_group() && self.config.l2 == L2Mode::Bridge;
            return if stays { Forwarding::Drop(DropReason::ReservedGroup) } else { Forwarding::Flood };
        }
        if unlikely(self.config.l2 == L2Mode::Hub) {
            return Forwarding::Flood;
        }
        match self.fdb.lookup(fdb::key(vlan, header.destination), now) {
            Some(port) if unlikely(port == ingress) => Forwarding::Drop(DropReason::SamePort),
            Some(port) => Forwarding::Unicast(port),
            None => Forwarding::Flood,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [L2Mode; 3] = [L2Mode::Bridge, L2Mode::Transparent, L2Mode::Hub];

    fn bridge(l2: L2Mode) -> Bridge {
        Bridge::new(NetworkId::new(0, 0), BridgeConfig { l2, ..BridgeConfig::new("net") }, Keyed::new([1, 3]), Instant::ZERO)
    }

    fn header(destination: u64, source: u64) -> Header {
        Header { destination, source, ethertype: 0x88b5 }
    }

    #[test]
    fn only_a_bridge_keeps_the_reserved_group_to_itself() {
        let lldp = header(0x0180_c200_000e, 2);
        let decide = |l2, header| bridge(l2).decide(0, header, 1, Instant::ZERO);
        assert_eq!(ALL.map(|l2| decide(l2, lldp)), [Forwarding::Drop(DropReason::ReservedGroup), Forwarding::Flood, Forwarding::Flood]);
        assert_eq!(decide(L2Mode::Bridge, header(0x0180_c200_0010, 2)), Forwarding::Flood);
    }

    #[test]
    fn only_a_hub_does_not_learn() {
        for l2 in ALL {
            let mut bridge = bridge(l2);
            bridge.learn(0, header(4, 2), 7, Instant::ZERO);
            let known = if l2 == L2Mode::Hub { Forwarding::Flood } else { Forwarding::Unicast(7) };
            assert_eq!(bridge.decide(0, header(2, 4), 1, Instant::ZERO), known, "{l2:?}");
            assert_eq!(bridge.decide(0, header(0xffff_ffff_ffff, 4), 1, Instant::ZERO), Forwarding::Flood);
            assert_eq!(bridge.decide(9, header(2, 4), 1, Instant::ZERO), Forwarding::Flood, "another VLAN");
            let back = if l2 == L2Mode::Hub { Forwarding::Flood } else { Forwarding::Drop(DropReason::SamePort) };
            assert_eq!(bridge.decide(0, header(2, 4), 7, Instant::ZERO), back);
        }
    }
}
