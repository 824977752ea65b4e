//! The endpoint: its VNIs, what control sets in them, views, and ageing. Traffic is in `encap` and `decap`.

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, SocketAddr},
};

use packet::{Coalescer, Duration, Frame, HashKey, Instant, Joins, Keyed, Pool, UnicastMac, Vni};

use crate::{
    PORT,
    counters::Counters,
    crypt::{Crypt, CryptView, Keys},
    decap::{Uncovered, WINDOW_FRAMES},
    drop::{DropReason, Drops},
    mtu,
    neighbours::Neighbour,
    network::{Network, VniConfig},
    peers::{canonical, is_host},
    refused::Refused,
    remotes::{Outcome, RemoteKind, RemoteView},
};

/// Pause between two rounds of the sweep that clears dead entries away; look-ups do not wait for it.
const SWEEP_PAUSE: Duration = Duration::from_secs(10);

/// What all VNIs of an endpoint share.
#[derive(Clone, Copy, Debug)]
pub struct VtepConfig {
    /// UDP port at which learned remotes are reached, and that the shell binds.
    pub port: u16,
    /// VNIs at most.
    pub vnis_most: usize,
    /// About so many entries each VNI learns.
    pub learned_most: usize,
    /// What [`Vtep::decap_many`] joins: what the ports of the network can take.
    pub joins: Joins,
}

impl Default for VtepConfig {
    fn default() -> Self {
        Self { port: PORT, vnis_most: 4096, learned_most: 8192, joins: Joins::ALL }
    }
}

/// A VXLAN tunnel endpoint.
#[derive(Debug)]
pub struct Vtep {
    pub(crate) config: VtepConfig,
    pub(crate) pool: Pool,
    pub(crate) key: Keyed,
    pub(crate) networks: BTreeMap<Vni, Network>,
    pub(crate) coalescer: Coalescer,
    /// There may be learned entries, so that the sweep has to run.
    pub(crate) may_age: bool,
    /// Of the buffer in hand; kept so that receiving allocates nothing.
    pub(crate) uncovered: Vec<Uncovered>,
    drops: Drops,
    sweep: Sweep,
}

/// Where the sweep is.
#[derive(Debug, Default)]
struct Sweep {
    next: Instant,
    vni: Option<Vni>,
    bucket: usize,
    /// Something was left alive in this round.
    alive: bool,
}

impl Vtep {
    /// An endpoint without VNIs. `seed` keys its hashes, and should be secret.
    #[must_use]
    pub fn new(config: VtepConfig, pool: Pool, seed: HashKey) -> Self {
        Self {
            config,
            pool,
            key: Keyed::new(seed),
            networks: BTreeMap::new(),
            coalescer: Coalescer::new(config.joins, WINDOW_FRAMES),
            may_age: false,
            uncovered: Vec::new(),
            drops: Drops::default(),
            sweep: Sweep::default(),
        }
    }

    /// Serves a VNI.
    ///
    /// # Errors
    /// `VniExists`, `BadMtu`, `Full`.
    pub fn add_vni(&mut self, vni: Vni, config: VniConfig) -> Result<(), Refused> {
        let full = self.networks.len() >= self.config.vnis_most;
        match self.networks.entry(vni) {
            Entry::Occupied(_) => Err(Refused::VniExists),
            Entry::Vacant(_) if full => Err(Refused::Full),
            Entry::Vacant(free) => {
                free.insert(Network::new(config, self.config.learned_most, self.key)?);
                Ok(())
            }
        }
    }

    /// Serves a VNI no longer, and forgets all about it. False when it did not.
    pub fn remove_vni(&mut self, vni: Vni) -> bool {
        self.networks.remove(&vni).is_some()
    }

    /// Changes the rules of a VNI; its tables stay.
    ///
    /// # Errors
    /// `UnknownVni`, `BadMtu`.
    pub fn set_vni(&mut self, vni: Vni, config: VniConfig) -> Result<(), Refused> {
        self.network_mut(vni)?.configure(config)
    }

    /// Gives an encrypted VNI its keys; those before are forgotten, and so are their sessions.
    ///
    /// # Errors
    /// `UnknownVni`, `BadKeys`; those before stay.
    pub fn set_keys(&mut self, vni: Vni, keys: &Keys) -> Result<(), Refused> {
        let network = self.network_mut(vni)?;
        keys.check()?;
        network.crypt = Crypt::new(vni, keys, network.crypt.take());
        Ok(())
    }

    /// How a VNI encrypts; `None` when it does not.
    #[must_use]
    pub fn crypt(&self, vni: Vni) -> Option<CryptView> {
        let network = self.networks.get(&vni).filter(|network| network.config.encrypted)?;
        Some(network.crypt.as_ref().map(Crypt::view).unwrap_or_default())
    }

    /// Adds a remote VTEP that floods go to and that may speak when the VNI is strict; or a multicast group that floods go to.
    ///
    /// # Errors
    /// `UnknownVni`, `BadAddress`, `Full`.
    pub fn add_peer(&mut self, vni: Vni, peer: SocketAddr) -> Result<(), Refused> {
        self.network_mut(vni)?.peers.add(peer)
    }

    /// Removes a peer and what was learned behind it. False when it was none.
    pub fn remove_peer(&mut self, vni: Vni, peer: SocketAddr) -> bool {
        let Ok(network) = self.network_mut(vni) else { return false };
        network.remotes.flush_behind(canonical(peer));
        network.peers.remove(peer)
    }

    /// Says behind which remote a station is. As `Learned`, the entry ages from `now` on; as `Pushed` it does not override a
    /// static one.
    ///
    /// # Errors
    /// `UnknownVni`, `BadAddress`, `Full`.
    pub fn set_remote(&mut self, vni: Vni, mac: UnicastMac, to: SocketAddr, kind: RemoteKind, now: Instant) -> Result<(), Refused> {
        let network = self.networks.get_mut(&vni).ok_or(Refused::UnknownVni)?;
        let to = canonical(to);
        if !is_host(to.ip()) || to.port() == 0 {
            return Err(Refused::BadAddress);
        }
        if kind != RemoteKind::Learned {
            return network.remotes.set(mac, to, kind);
        }
        let _: Outcome = network.remotes.learn(mac, to, network.config.ageing, now);
        self.may_age = true;
        Ok(())
    }

    /// Forgets a station, whoever told of it. False when it was not known.
    pub fn remove_remote(&mut self, vni: Vni, mac: UnicastMac) -> bool {
        self.network_mut(vni).is_ok_and(|network| network.remotes.remove(mac))
    }

    /// Forgets all stations of a kind.
    ///
    /// # Errors
    /// `UnknownVni`.
    pub fn flush(&mut self, vni: Vni, kind: RemoteKind) -> Result<(), Refused> {
        self.network_mut(vni)?.remotes.flush(kind);
        Ok(())
    }

    /// Says who has an IP address, so that questions for it are answered here.
    ///
    /// # Errors
    /// `UnknownVni`, `BadAddress`, `Full`.
    pub fn set_neighbour(&mut self, vni: Vni, ip: IpAddr, neighbour: Neighbour) -> Result<(), Refused> {
        self.network_mut(vni)?.neighbours.set(ip, neighbour)
    }

    /// False when there was none.
    pub fn remove_neighbour(&mut self, vni: Vni, ip: IpAddr) -> bool {
        self.network_mut(vni).is_ok_and(|network| network.neighbours.remove(ip))
    }

    /// Whether [`encap`](Self::encap) would take a frame of this length, or the segments of this super-frame. False when the VNI
    /// is not served.
    #[must_use]
    pub fn fits(&self, vni: Vni, frame: &Frame) -> bool {
        self.networks.get(&vni).is_some_and(|network| mtu::check(frame, network.config.mtu) != Err(DropReason::TooBig))
    }

    /// What all VNIs share.
    #[must_use]
    pub const fn config(&self) -> &VtepConfig {
        &self.config
    }

    /// The VNIs served, sorted, and their rules.
    pub fn vnis(&self) -> impl Iterator<Item = (Vni, &VniConfig)> + '_ {
        self.networks.iter().map(|(vni, network)| (*vni, &network.config))
    }

    /// The peers of a VNI, sorted; none when it is not served.
    #[must_use]
    pub fn peers(&self, vni: Vni) -> &[SocketAddr] {
        self.networks.get(&vni).map_or(&[], |network| network.peers.as_slice())
    }

    /// The remote FDB of a VNI, by address, with idle times.
    #[must_use]
    pub fn remotes(&self, vni: Vni, now: Instant) -> Vec<RemoteView> {
        self.networks.get(&vni).map_or_else(Vec::new, |network| network.remotes.view(network.config.ageing, now))
    }

    /// The neighbours that are answered for in a VNI, by address.
    pub fn neighbours(&self, vni: Vni) -> impl Iterator<Item = (IpAddr, Neighbour)> + '_ {
        self.networks.get(&vni).into_iter().flat_map(|network| network.neighbours.iter())
    }

    /// Counters of a VNI.
    #[must_use]
    pub fn counters(&self, vni: Vni) -> Option<&Counters> {
        self.networks.get(&vni).map(|network| &network.counters)
    }

    /// All drops of the endpoint: those of its VNIs, and those that belong to none.
    #[must_use]
    pub const fn drops(&self) -> &Drops {
        &self.drops
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called: ageing is the only reason. `None` when nothing can age.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.may_age.then_some(self.sweep.next)
    }

    /// Clears some dead entries away. A round goes through all VNIs in steps of bounded work, then pauses.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.may_age || now < self.sweep.next {
            return;
        }
        let sweep = &mut self.sweep;
        let next = match sweep.vni {
            Some(vni) => self.networks.range_mut(vni..).next(),
            None => self.networks.iter_mut().next(),
        };
        if let Some((vni, network)) = next {
            // The VNI it was in may be gone, and this the one after it.
            let bucket = if sweep.vni == Some(*vni) { sweep.bucket } else { 0 };
            let rest = network.remotes.sweep(bucket, network.config.ageing, now);
            sweep.alive |= network.remotes.learned_len() > 0;
            sweep.bucket = rest.unwrap_or(0);
            sweep.vni = match rest {
                Some(_) => Some(*vni),
                None => Vni::new(vni.get() + 1),
            };
            if sweep.vni.is_some_and(|vni| self.networks.range(vni..).next().is_some()) {
                return;
            }
        }
        self.may_age = sweep.alive;
        *sweep = Sweep { next: now + SWEEP_PAUSE, ..Sweep::default() };
    }

    /// Counts a drop, in its VNI too if that is known.
    pub(crate) fn count(&mut self, vni: Option<Vni>, reason: DropReason) {
        self.drops.count(reason);
        if let Some(network) = vni.and_then(|vni| self.networks.get_mut(&vni)) {
            network.counters.drops.count(reason);
        }
    }

    fn network_mut(&mut self, vni: Vni) -> Result<&mut Network, Refused> {
        self.networks.get_mut(&vni).ok_or(Refused::UnknownVni)
    }
}
