//! One VNI: its rules, its tables, its counters.

use std::{net::SocketAddr, slice};

use packet::{Duration, Instant, Keyed, Mac, UnicastMac};

use crate::{
    counters::Counters,
    crypt::Crypt,
    drop::DropReason,
    mtu::mtu_most,
    neighbours::Neighbours,
    peers::{Peers, canonical, is_host},
    refused::Refused,
    remotes::{Outcome, Remotes},
};

/// The rules of one VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VniConfig {
    /// Longest inner packet, bytes behind the inner Ethernet header; see [`inner_mtu`](crate::inner_mtu).
    pub mtu: u16,
    /// Learns stations from what remotes send.
    pub learning: bool,
    /// How long a learned entry lives without being heard of.
    pub ageing: Duration,
    /// Only peers may speak.
    pub strict: bool,
    /// Sends unicast frames for unknown stations to all peers. Without, they are dropped.
    pub flood_unknown: bool,
    /// Answers ARP and neighbour discovery for known neighbours.
    pub suppress: bool,
    /// Takes and sends nothing that is not encrypted, and nothing at all without keys ([`Vtep::set_keys`](crate::Vtep::set_keys)).
    pub encrypted: bool,
    /// Carries inner VLAN tags. RFC 7348 section 6.1 would have them dropped unless configured.
    pub inner_vlan: bool,
}

impl Default for VniConfig {
    /// As a Linux VXLAN device over Ethernet: 1450 bytes, 300 s.
    fn default() -> Self {
        Self {
            mtu: 1450,
            learning: true,
            ageing: Duration::from_secs(300),
            strict: false,
            flood_unknown: true,
            suppress: true,
            encrypted: false,
            inner_vlan: true,
        }
    }
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route {
    To(SocketAddr),
    Flood,
}

impl Route {
    /// Its remotes: never none.
    pub(crate) fn targets<'a>(&'a self, peers: &'a Peers) -> &'a [SocketAddr] {
        match self {
            Self::To(to) => slice::from_ref(to),
            Self::Flood => peers.as_slice(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) config: VniConfig,
    pub(crate) peers: Peers,
    pub(crate) remotes: Remotes,
    pub(crate) neighbours: Neighbours,
    /// Without it an encrypted network carries nothing.
    pub(crate) crypt: Option<Crypt>,
    pub(crate) counters: Counters,
}

impl Network {
    pub(crate) fn new(config: VniConfig, learned_most: usize, key: Keyed) -> Result<Self, Refused> {
        Ok(Self {
            config: checked(config)?,
            peers: Peers::default(),
            remotes: Remotes::new(learned_most, key),
            neighbours: Neighbours::default(),
            crypt: None,
            counters: Counters::default(),
        })
    }

    pub(crate) fn configure(&mut self, config: VniConfig) -> Result<(), Refused> {
        self.config = checked(config)?;
        Ok(())
    }

    /// What holds for inner frames of both directions. Gives the source.
    pub(crate) fn admit(&self, source: Mac, tags: usize) -> Result<UnicastMac, DropReason> {
        let source = UnicastMac::new(source).ok_or(DropReason::BadInnerSource)?;
        if tags > 0 && !self.config.inner_vlan { Err(DropReason::InnerVlan) } else { Ok(source) }
    }

    /// Where a frame for `destination` goes.
    pub(crate) fn route(&self, destination: Mac, now: Instant) -> Result<Route, DropReason> {
        let known = UnicastMac::new(destination).and_then(|mac| self.remotes.lookup(mac, self.config.ageing, now));
        match known {
            Some(to) => Ok(Route::To(to)),
            None if self.peers.as_slice().is_empty() => Err(DropReason::NoRemote),
            None if destination.is_group() || self.config.flood_unknown => Ok(Route::Flood),
            None => Err(DropReason::NoRemote),
        }
    }

    /// The remote that sent from `from`, reachable at `port` unless it is a peer with its own.
    pub(crate) fn sender(&self, from: SocketAddr, port: u16) -> Result<SocketAddr, DropReason> {
        let mut from = canonical(from);
        if !is_host(from.ip()) {
            return Err(DropReason::UnknownRemote);
        }
        match self.peers.sender(from) {
            Some(peer) => Ok(peer),
            None if self.config.strict => Err(DropReason::UnknownRemote),
            None => {
                from.set_port(port);
                Ok(from)
            }
        }
    }

    /// Notes that `station` is behind `remote`.
    pub(crate) fn learn(&mut self, station: UnicastMac, remote: SocketAddr, now: Instant) {
        if !self.config.learning {
            return;
        }
        let counters = &mut self.counters;
        match self.remotes.learn(station, remote, self.config.ageing, now) {
            Outcome::Known => {}
            Outcome::New => counters.learned += 1,
            Outcome::Moved => counters.moved += 1,
            Outcome::Evicted => {
                counters.learned += 1;
                counters.evicted += 1;
            }
        }
    }
}

fn checked(config: VniConfig) -> Result<VniConfig, Refused> {
    if (1..=mtu_most(config.encrypted)).contains(&config.mtu) { Ok(config) } else { Err(Refused::BadMtu) }
}
