//! The peers of one VNI: where flooded frames go (head-end replication), and who may speak when it is strict.

use std::net::{IpAddr, SocketAddr};

use crate::refused::Refused;

/// Peers of one VNI at most: each flooded frame becomes so many datagrams.
pub(crate) const PEERS_MOST: usize = 1024;

/// Remote VTEPs, sorted. A multicast group may be among them, but is nobody who speaks.
#[derive(Debug, Default)]
pub(crate) struct Peers(Vec<SocketAddr>);

impl Peers {
    /// Adds a peer; one that is there already stays.
    pub(crate) fn add(&mut self, peer: SocketAddr) -> Result<(), Refused> {
        let peer = canonical(peer);
        if peer.ip().is_unspecified() || peer.port() == 0 {
            return Err(Refused::BadAddress);
        }
        match self.0.binary_search(&peer) {
            Ok(_) => Ok(()),
            Err(_) if self.0.len() >= PEERS_MOST => Err(Refused::Full),
            Err(place) => {
                self.0.insert(place, peer);
                Ok(())
            }
        }
    }

    /// False when it was none.
    pub(crate) fn remove(&mut self, peer: SocketAddr) -> bool {
        let found = self.0.binary_search(&canonical(peer));
        found.is_ok_and(|place| {
            self.0.remove(place);
            true
        })
    }

    /// All, sorted.
    pub(crate) fn as_slice(&self) -> &[SocketAddr] {
        &self.0
    }

    /// The peer that sent from `from`. Source ports carry entropy, so only several peers at one address are told apart by them.
    #[inline]
    pub(crate) fn sender(&self, from: SocketAddr) -> Option<SocketAddr> {
        if let Ok(place) = self.0.binary_search(&from) {
            return Some(self.0[place]);
        }
        let first = self.0.partition_point(|peer| peer.ip() < from.ip());
        self.0.get(first).copied().filter(|peer| peer.ip() == from.ip())
    }
}

/// An IPv4 address in its own form, as a socket for both families does not give it, and no flow label.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match (address, address.ip().to_canonical()) {
        (SocketAddr::V6(mut address), IpAddr::V6(_)) => {
            address.set_flowinfo(0);
            address.into()
        }
        (_, ip) => SocketAddr::new(ip, address.port()),
    }
}

/// An address that one host can send from.
pub(crate) fn is_host(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn peers_are_a_sorted_set() {
        let mut peers = Peers::default();
        for text in ["10.0.0.9:4789", "10.0.0.1:4789", "[fd00::1]:4789", "10.0.0.9:4789", "[::ffff:10.0.0.1]:4789"] {
            assert_eq!(peers.add(at(text)), Ok(()));
        }
        assert_eq!(peers.as_slice(), [at("10.0.0.1:4789"), at("10.0.0.9:4789"), at("[fd00::1]:4789")]);
        assert!(peers.remove(at("10.0.0.9:4789")) && !peers.remove(at("10.0.0.9:4789")));
        assert_eq!(peers.add(at("0.0.0.0:4789")), Err(Refused::BadAddress));
        assert_eq!(peers.add(at("10.0.0.3:0")), Err(Refused::BadAddress));
    }

    #[test]
    fn a_sender_is_known_by_its_address_and_if_need_be_its_port() {
        let mut peers = Peers::default();
        for text in ["10.0.0.1:8472", "10.0.0.2:1000", "10.0.0.2:2000", "239.1.1.1:4789"] {
            peers.add(at(text)).unwrap();
        }
        assert_eq!(peers.sender(at("10.0.0.1:50000")), Some(at("10.0.0.1:8472")));
        assert_eq!(peers.sender(at("10.0.0.2:2000")), Some(at("10.0.0.2:2000")));
        assert_eq!(peers.sender(at("10.0.0.2:50000")), Some(at("10.0.0.2:1000")));
        assert_eq!(peers.sender(at("10.0.0.3:4789")), None);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut peers = Peers::default();
        for port in 0..u16::try_from(PEERS_MOST).unwrap() {
            peers.add(SocketAddr::new([10, 0, 0, 1].into(), 1 + port)).unwrap();
        }
        assert_eq!(peers.add(at("10.0.0.2:1")), Err(Refused::Full));
        assert_eq!(peers.add(at("10.0.0.1:1")), Ok(()));
    }
}
