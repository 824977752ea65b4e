//! Who lives here: the stations that control attached to a network on this node. Behind a tunnel is another node, which
//! may be wrong or taken over: nobody there speaks for a station that lives here, nor for the gateway, which every node has.
//! A station that moves to another node leaves its port here first, and is nobody's then.

use std::net::{IpAddr, Ipv6Addr};

use packet::{Mac, Ndp, Parsed};

use crate::{bridge::Bridge, port::Identity};

/// What a frame from another node claims to be, and only this node may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It bears the gateway's address.
    Gateway,
    /// It bears the address of a station that lives here.
    Station,
    /// ARP or neighbour discovery that speaks for an IP address of either.
    Neighbour,
}

/// Sorted; an address is there as often as it was assigned.
#[derive(Debug, Default)]
pub(crate) struct Residents {
    macs: Vec<u64>,
    ips: Vec<IpAddr>,
}

impl Residents {
    pub(crate) fn add(&mut self, identity: &Identity) {
        identity.mac.iter().for_each(|mac| insert(&mut self.macs, mac.get().as_u64()));
        identity.ips.iter().for_each(|ip| insert(&mut self.ips, *ip));
    }

    pub(crate) fn remove(&mut self, identity: &Identity) {
        identity.mac.iter().for_each(|mac| remove(&mut self.macs, &mac.get().as_u64()));
        identity.ips.iter().for_each(|ip| remove(&mut self.ips, ip));
    }

    fn has_mac(&self, mac: Mac) -> bool {
        self.macs.binary_search(&mac.as_u64()).is_ok()
    }

    fn has_ip(&self, ip: IpAddr) -> bool {
        let is_own_link_local = |ip| matches!(ip, IpAddr::V6(ip) if mac_in(ip).is_some_and(|mac| self.has_mac(mac)));
        self.ips.binary_search(&ip).is_ok() || is_own_link_local(ip)
    }
}

fn insert<T: Ord>(list: &mut Vec<T>, item: T) {
    list.insert(list.partition_point(|held| *held < item), item);
}

fn remove<T: Ord>(list: &mut Vec<T>, item: &T) {
    if let Ok(place) = list.binary_search(item) {
        list.remove(place);
    }
}

/// The MAC in a link-local address that was made of one (RFC 4291 appendix A).
fn mac_in(ip: Ipv6Addr) -> Option<Mac> {
    match ip.octets() {
        [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a, b, c, 0xff, 0xfe, d, e, f] => Some(Mac([a ^ 2, b, c, d, e, f])),
        _ => None,
    }
}

impl Bridge {
    /// What a frame from another node claims. Probes (from 0.0.0.0 or `::`) claim nothing: they ask, and are answered.
    pub(crate) fn claim_of(&self, parsed: &Parsed, bytes: &[u8]) -> Option<Claim> {
        let source = parsed.ethernet.source;
        if self.config.gateway.as_ref().is_some_and(|gateway| gateway.mac.get() == source) {
            return Some(Claim::Gateway);
        }
        if self.residents.has_mac(source) {
            return Some(Claim::Station);
        }
        let speaks_for = |ip: IpAddr| self.residents.has_ip(ip) || self.config.gateway.as_ref().is_some_and(|gateway| gateway.owns(ip));
        if let Some(arp) = parsed.arp(bytes) {
            return speaks_for(arp.get_sender_proto_addr().into()).then_some(Claim::Neighbour);
        }
        let target = match parsed.ndp(bytes)? {
            Ndp::NeighborAdvertisement(target) => Some(IpAddr::V6(target)),
            _ => None,
        };
        let source = parsed.ip.map(|ip| ip.source);
        source.into_iter().chain(target).any(speaks_for).then_some(Claim::Neighbour)
    }
}

#[cfg(test)]
mod tests {
    use packet::{Instant, Keyed, NetworkId, UnicastMac, checksum};

    use super::*;
    use crate::{command::BridgeConfig, gateway::GatewayConfig};

    const GATEWAY: [u8; 6] = [2, 0x42, 10, 0, 0, 1];
    const HOME: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const AWAY: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn identity() -> Identity {
        Identity { mac: UnicastMac::new(Mac(HOME)), ips: vec![[10, 0, 0, 2].into(), "fd00::2".parse().unwrap()] }
    }

    fn bridge() -> Bridge {
        let addresses = vec!["10.0.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()];
        let gateway = GatewayConfig::new(UnicastMac::new(Mac(GATEWAY)).unwrap(), addresses);
        Bridge::new(NetworkId::new(0, 0), BridgeConfig { gateway: Some(gateway), ..BridgeConfig::new("net") }, Keyed::new([1, 3]), Instant::ZERO)
    }

    fn claim(bridge: &Bridge, bytes: &[u8]) -> Option<Claim> {
        bridge.claim_of(&Parsed::new(bytes).unwrap(), bytes)
    }

    fn arp(from: [u8; 6], operation: u8, sender: [u8; 4]) -> Vec<u8> {
        [&[0xff; 6][..], &from, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation], &from, &sender, &[0; 6], &[10, 0, 0, 9]].concat()
    }

    /// Neighbour discovery of a kind, with a target.
    fn ndp(from: [u8; 6], kind: u8, source: &str, target: &str) -> Vec<u8> {
        let octets = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &octets(target)].concat();
        let mut ip = [&[0x60, 0, 0, 0, 0, 24, 58, 255][..], &octets(source), &octets("ff02::1"), &message].concat();
        let sum = !checksum::fold(checksum::sum(&message) + checksum::pseudo_header(&ip, 58, 24).unwrap());
        ip[42..44].copy_from_slice(&sum.to_be_bytes());
        [&[0x33, 0x33, 0, 0, 0, 1][..], &from, &[0x86, 0xdd], &ip].concat()
    }

    #[test]
    fn nobody_speaks_for_who_lives_here() {
        let mut bridge = bridge();
        bridge.residents.add(&identity());
        for (what, bytes, wanted) in [
            ("the gateway's MAC", arp(GATEWAY, 1, [10, 0, 0, 77]), Some(Claim::Gateway)),
            ("a resident's MAC", arp(HOME, 1, [10, 0, 0, 77]), Some(Claim::Station)),
            ("a stranger of its own address", arp(AWAY, 1, [10, 0, 0, 77]), None),
            ("a probe", arp(AWAY, 1, [0, 0, 0, 0]), None),
            ("an answer for the gateway", arp(AWAY, 2, [10, 0, 0, 1]), Some(Claim::Neighbour)),
            ("a question that tells of the gateway", arp(AWAY, 1, [10, 0, 0, 1]), Some(Claim::Neighbour)),
            ("an answer for a resident", arp(AWAY, 2, [10, 0, 0, 2]), Some(Claim::Neighbour)),
            ("duplicate address detection", ndp(AWAY, 135, "::", "fd00::2"), None),
            ("a question about a resident", ndp(AWAY, 135, "fd00::77", "fd00::2"), None),
            ("an advertisement of its own", ndp(AWAY, 136, "fd00::77", "fd00::77"), None),
            ("an advertisement for a resident", ndp(AWAY, 136, "fd00::77", "fd00::2"), Some(Claim::Neighbour)),
            ("an advertisement for the gateway", ndp(AWAY, 136, "fd00::77", "fd00::1"), Some(Claim::Neighbour)),
            ("a question from the gateway's address", ndp(AWAY, 135, "fd00::1", "fd00::77"), Some(Claim::Neighbour)),
            ("for the gateway's link-local address", ndp(AWAY, 136, "fe80::9", "fe80::42:aff:fe00:1"), Some(Claim::Neighbour)),
            ("for a resident's link-local address", ndp(AWAY, 136, "fe80::9", "fe80::ff:fe00:1"), Some(Claim::Neighbour)),
            ("a router that says it is the gateway", ndp(AWAY, 134, "fe80::42:aff:fe00:1", "::"), Some(Claim::Neighbour)),
        ] {
            assert_eq!(claim(&bridge, &bytes), wanted, "{what}");
            let tagged = [&bytes[..12], &[0x81, 0, 0, 5], &bytes[12..]].concat();
            assert_eq!(claim(&bridge, &tagged), wanted, "{what}, behind a tag");
        }
    }

    #[test]
    fn who_left_may_speak_from_elsewhere() {
        let mut bridge = bridge();
        bridge.residents.add(&identity());
        bridge.residents.add(&identity());
        bridge.residents.remove(&identity());
        assert_eq!(claim(&bridge, &arp(HOME, 1, [10, 0, 0, 2])), Some(Claim::Station), "a second port has it too");
        bridge.residents.remove(&identity());
        bridge.residents.remove(&identity());
        assert_eq!(claim(&bridge, &arp(HOME, 1, [10, 0, 0, 2])), None);
        assert_eq!(claim(&bridge, &ndp(AWAY, 136, "fe80::9", "fe80::ff:fe00:1")), None);
    }
}
