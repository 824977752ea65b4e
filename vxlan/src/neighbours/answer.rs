//! The frames that answer for a neighbour, with its address as source (RFC 9161 section 3.2 a).

use std::net::Ipv6Addr;

use packet::{Frame, Mac, Pool, UnicastMac, checksum, ethertype};

use super::{ArpRequest, Neighbour};
use crate::drop::DropReason;

/// An ARP reply (RFC 826): Ethernet 14, ARP 28 bytes.
pub(super) fn arp(request: &ArpRequest, asker: Mac, owner: UnicastMac, pool: &Pool) -> Result<Frame, DropReason> {
    let mut bytes = [0; 42];
    ethernet(&mut bytes, asker, owner, ethertype::ARP);
    bytes[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
    bytes[22..28].copy_from_slice(&owner.get().0);
    bytes[28..32].copy_from_slice(&request.target_ip.octets());
    bytes[32..38].copy_from_slice(&request.sender.0);
    bytes[38..42].copy_from_slice(&request.sender_ip.octets());
    pool.copy_of(&bytes).ok_or(DropReason::NoBuffer)
}

/// A solicited neighbour advertisement (RFC 4861 section 4.4): Ethernet 14, IPv6 40, message 24, target address option 8 bytes.
pub(super) fn advertisement(asker: (Mac, Ipv6Addr), owner: Neighbour, target: Ipv6Addr, pool: &Pool) -> Result<Frame, DropReason> {
    const SOLICITED_OVERRIDE: u8 = 0x60;
    const ROUTER: u8 = 0x80;
    let mut bytes = [0; 86];
    ethernet(&mut bytes, asker.0, owner.mac, ethertype::IPV6);
    bytes[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, 32, checksum::protocol::ICMPV6, super::ND_HOPS]);
    bytes[22..38].copy_from_slice(&target.octets());
    bytes[38..54].copy_from_slice(&asker.1.octets());
    bytes[54] = 136;
    bytes[58] = SOLICITED_OVERRIDE | if owner.router { ROUTER } else { 0 };
    bytes[62..78].copy_from_slice(&target.octets());
    bytes[78..80].copy_from_slice(&[2, 1]);
    bytes[80..86].copy_from_slice(&owner.mac.get().0);
    let pseudo = checksum::pseudo_header(&bytes[14..54], checksum::protocol::ICMPV6, 32).unwrap_or_default();
    let sum = !checksum::fold(checksum::sum(&bytes[54..]) + pseudo);
    bytes[56..58].copy_from_slice(&sum.to_be_bytes());
    pool.copy_of(&bytes).ok_or(DropReason::NoBuffer)
}

fn ethernet(bytes: &mut [u8], to: Mac, from: UnicastMac, ethertype: u16) {
    bytes[..6].copy_from_slice(&to.0);
    bytes[6..12].copy_from_slice(&from.get().0);
    bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
}
