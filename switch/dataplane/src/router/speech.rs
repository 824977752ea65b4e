//! What a router reads of frames without parsing them whole, and what it says itself.

use std::net::{IpAddr, Ipv6Addr};

use packet::{ETHERNET_LEN, Frame, Mac, Ndp, Parsed, Pool, UnicastMac, ethertype, ip_destination, ip_source};

use crate::gateway::answer;

/// A problem with a packet: type and code by family, and the word behind the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(super) v4: (u8, u8),
    pub(super) v6: (u8, u8),
    pub(super) rest: u32,
}

impl Problem {
    /// Hops used up (RFC 792, RFC 4443 section 3.3).
    pub(super) const TTL_EXPIRED: Self = Self { v4: (11, 0), v6: (3, 0), rest: 0 };

    /// Destination unreachable, by IPv4's code: 0 no route, 1 host, 3 port, 13 prohibited (RFC 1812 section
    /// 5.2.7.1), which ICMPv6 numbers otherwise (RFC 4443 section 3.1).
    pub(crate) const fn unreachable(code: u8) -> Self {
        let v6 = match code {
            1 => 3,
            3 => 4,
            13 => 1,
            _ => 0,
        };
        Self { v4: (3, code), v6: (1, v6), rest: 0 }
    }
}

/// Whether a frame is a neighbour advertisement.
pub(super) fn is_neighbour_advertisement(bytes: &[u8]) -> bool {
    bytes.get(12..14) == Some(&[0x86, 0xdd]) && bytes.get(20) == Some(&58) && bytes.get(54) == Some(&136)
}

/// Who has which address, by an ARP reply or a neighbour advertisement with its hop limit untouched.
pub(super) fn neighbour(bytes: &[u8]) -> Option<(IpAddr, Mac)> {
    let parsed = Parsed::new(bytes)?;
    if let Some(arp) = parsed.arp(bytes) {
        let mac = arp.get_sender_hw_addr();
        let mac = Mac([mac.0, mac.1, mac.2, mac.3, mac.4, mac.5]);
        return (arp.get_operation().0 == 2 && !mac.is_group()).then(|| (arp.get_sender_proto_addr().into(), mac));
    }
    let Some(Ndp::NeighborAdvertisement(target)) = parsed.ndp(bytes) else { return None };
    let ip = parsed.ip?;
    // Target link-layer address option, or the sender's address without one (RFC 4861 section 4.4).
    let options = bytes.get(ip.l4_offset + 24..ip.end())?;
    let mac = match options {
        [2, 1, mac @ ..] => Mac(*mac.first_chunk::<6>()?),
        _ => parsed.ethernet.source,
    };
    (bytes[ip.offset + 7] == 255 && !mac.is_group()).then_some((target.into(), mac))
}

/// The question who has an address: an ARP request (RFC 826), or a solicitation (RFC 4861 section 4.3) to
/// its solicited-node group.
pub(super) fn ask_neighbour(pool: &Pool, mac: UnicastMac, own: IpAddr, target: IpAddr) -> Option<Frame> {
    let own_mac = mac.get();
    match (own, target) {
        (IpAddr::V4(own), IpAddr::V4(target)) => {
            let mut bytes = [&Mac::BROADCAST.0[..], &own_mac.0, &ethertype::ARP.to_be_bytes(), &[0, 1, 8, 0, 6, 4, 0, 1]].concat();
            bytes.extend(own_mac.0.into_iter().chain(own.octets()).chain([0; 6]).chain(target.octets()));
            pool.copy_of(&bytes)
        }
        (IpAddr::V6(_), IpAddr::V6(target)) => {
            let [.., a, b, c] = target.octets();
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[1, 1], &own_mac.0].concat();
            answer::icmp(pool, (Mac([0x33, 0x33, 0xff, a, b, c]), own_mac), own, group.into(), 255, &message).ok()
        }
        _ => None,
    }
}

/// The ICMP error that tells the sender of `about` of a problem; `None` where none may be sent (RFC 1122
/// section 3.2.2: about errors, groups, later fragments).
pub(crate) fn problem(about: &Frame, mac: Mac, own: IpAddr, problem: Problem, pool: &Pool) -> Option<Frame> {
    let bytes = about.bytes();
    let ip = Parsed::new(bytes)?.ip?;
    let (kind, code) = if own.is_ipv4() { problem.v4 } else { problem.v6 };
    answer::error(&ip, bytes, mac, own, (kind, code, problem.rest), pool).ok()
}

/// Port unreachable, from the address that was knocked at, about the IP packet that begins behind the
/// Ethernet header of `about`.
pub(super) fn unwanted(about: &[u8], mac: Mac, pool: &Pool) -> Option<Frame> {
    let (own, knocker) = (ip_destination(about)?, ip_source(about)?);
    let (kind, code) = if own.is_ipv4() { Problem::unreachable(3).v4 } else { Problem::unreachable(3).v6 };
    let message = [&[kind, code, 0, 0, 0, 0, 0, 0], &about[ETHERNET_LEN..]].concat();
    answer::icmp(pool, (Mac::ZERO, mac), own, knocker, answer::HOPS, &message).ok()
}
