//! What a station says itself when it has come, said for it: who is reached over another way now need not wait.

use std::net::{IpAddr, Ipv6Addr};

use packet::{Frame, Mac, Pool, UnicastMac, ethertype};

use crate::gateway::answer;

/// A gratuitous ARP request (RFC 5227 section 2.3), or an unsolicited neighbour advertisement that overrides (RFC 4861
/// section 7.2.6), from the station to all.
pub(super) fn frame(pool: &Pool, mac: UnicastMac, ip: IpAddr) -> Option<Frame> {
    const OVERRIDE: u8 = 0x20;
    let own = mac.get();
    match ip {
        IpAddr::V4(v4) => {
            let mut bytes = [&Mac::BROADCAST.0[..], &own.0, &ethertype::ARP.to_be_bytes(), &[0, 1, 8, 0, 6, 4, 0, 1]].concat();
            bytes.extend(own.0.into_iter().chain(v4.octets()).chain([0; 6]).chain(v4.octets()));
            pool.copy_of(&bytes)
        }
        IpAddr::V6(v6) => {
            const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            let message = [&[136, 0, 0, 0, OVERRIDE, 0, 0, 0][..], &v6.octets(), &[2, 1], &own.0].concat();
            answer::icmp(pool, (Mac([0x33, 0x33, 0, 0, 0, 1]), own), ip, ALL_NODES.into(), 255, &message).ok()
        }
    }
}
