//! One broadcast domain: admits, learns, decides. Deciding changes nothing outside learning.

use packet::{EthernetView, Instant, NetworkId, PortId, UnicastMac, VlanId};

use crate::{
    command::{BridgeConfig, Event, L2Mode},
    drop::DropReason,
    fdb::{Fdb, Learned},
    limits::EVENT_INTERVAL,
};

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarding {
    Unicast(PortId),
    Flood,
    Drop(DropReason),
}

#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) config: BridgeConfig,
    pub(crate) ports: Vec<PortId>,
    pub(crate) fdb: Fdb,
    full_reported: Option<Instant>,
}

impl Bridge {
    pub(crate) fn new(config: BridgeConfig, secret: [u64; 2]) -> Self {
        let fdb = Fdb::new(config.fdb_capacity, config.ageing, secret);
        Self { config, ports: Vec::new(), fdb, full_reported: None }
    }

    /// Whether a frame with this destination may be forwarded at all.
    #[inline]
    pub(crate) fn admit(&self, ethernet: &EthernetView) -> Result<(), DropReason> {
        if ethernet.destination.is_group() && ethernet.destination.is_reserved_group() && self.config.l2 == L2Mode::Bridge {
            return Err(DropReason::ReservedGroup);
        }
        Ok(())
    }

    /// Notes where the source lives.
    #[inline]
    pub(crate) fn learn(&mut self, id: NetworkId, vlan: u16, source: UnicastMac, port: PortId, now: Instant, events: &mut Vec<Event>) {
        if self.config.l2 == L2Mode::Hub {
            return;
        }
        let learned = self.fdb.learn(vlan, source, port, now);
        if learned != Learned::Known {
            self.report(id, vlan, source, port, now, learned, events);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the facts of one event")]
    fn report(&mut self, network: NetworkId, vlan: u16, mac: UnicastMac, port: PortId, now: Instant, learned: Learned, events: &mut Vec<Event>) {
        match learned {
            Learned::Known => {}
            Learned::New => events.push(Event::Learned { network, port, mac, vlan: VlanId::new(vlan) }),
            Learned::Moved(from) => events.push(Event::Moved { network, from, to: port, mac }),
            Learned::Evicted | Learned::Full => {
                if self.full_reported.is_none_or(|at| now.since(at) >= EVENT_INTERVAL) {
                    self.full_reported = Some(now);
                    events.push(Event::FdbFull { network, port });
                }
            }
        }
    }

    /// Where a frame from `ingress` goes.
    #[inline]
    pub(crate) fn decide(&self, vlan: u16, ethernet: &EthernetView, ingress: PortId, now: Instant) -> Forwarding {
        if ethernet.destination.is_group() || self.config.l2 == L2Mode::Hub {
            return Forwarding::Flood;
        }
        match self.fdb.lookup(vlan, ethernet.destination, now) {
            Some(port) if port == ingress => Forwarding::Drop(DropReason::SamePort),
            Some(port) => Forwarding::Unicast(port),
            None => Forwarding::Flood,
        }
    }
}
