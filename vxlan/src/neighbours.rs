//! ARP and neighbour discovery suppression (RFC 9161): what control knows is answered here and not flooded.
//!
//! Answered: ARP requests and ARP probes, neighbour solicitations, when sent to a group address. Not answered: gratuitous
//! ARP, what the owner itself asks, and what is sent to one station, since that asks whether it is still there (section 3.2
//! c). Nor duplicate address detection from `::`, though the RFC would: its answer goes to all nodes, and must come from the
//! owner. All these travel on.

mod answer;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use packet::{Checksum, Frame, Mac, Ndp, Parsed, Pool, UnicastMac, checksum, ethertype};

use crate::{drop::DropReason, refused::Refused};

/// Neighbours of one VNI at most.
pub(crate) const NEIGHBOURS_MOST: usize = 65_536;

/// ARP over Ethernet for IPv4 (RFC 826), a request: hardware and protocol types, lengths, operation.
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
/// Neighbour discovery packets were not forwarded by a router (RFC 4861 section 7.1.1).
const ND_HOPS: u8 = 255;

/// Who has an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The station.
    pub mac: UnicastMac,
    /// It routes: the R flag of neighbour advertisements.
    pub router: bool,
}

/// What control told of one VNI.
#[derive(Debug, Default)]
pub(crate) struct Neighbours(BTreeMap<IpAddr, Neighbour>);

impl Neighbours {
    pub(crate) fn set(&mut self, ip: IpAddr, neighbour: Neighbour) -> Result<(), Refused> {
        if !crate::peers::is_host(ip) {
            return Err(Refused::BadAddress);
        }
        if self.0.len() >= NEIGHBOURS_MOST && !self.0.contains_key(&ip) {
            return Err(Refused::Full);
        }
        self.0.insert(ip, neighbour);
        Ok(())
    }

    /// False when there was none.
    pub(crate) fn remove(&mut self, ip: IpAddr) -> bool {
        self.0.remove(&ip).is_some()
    }

    /// All, by address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, Neighbour)> + '_ {
        self.0.iter().map(|(ip, neighbour)| (*ip, *neighbour))
    }

    /// The answer to `frame`, if it asks for what is known here.
    ///
    /// # Errors
    /// `no_buffer`.
    pub(crate) fn answer(&self, parsed: &Parsed, frame: &Frame, pool: &Pool) -> Result<Option<Frame>, DropReason> {
        if self.0.is_empty() || parsed.tags > 0 || !parsed.ethernet.destination.is_group() {
            return Ok(None);
        }
        match parsed.ethertype {
            ethertype::ARP => self.answer_arp(parsed.ethernet.source, frame.bytes(), pool),
            ethertype::IPV6 => self.answer_nd(parsed, frame, pool),
            _ => Ok(None),
        }
    }

    fn answer_arp(&self, asker: Mac, bytes: &[u8], pool: &Pool) -> Result<Option<Frame>, DropReason> {
        let Some(request) = ArpRequest::of(bytes) else { return Ok(None) };
        let gratuitous = request.sender_ip == request.target_ip;
        match self.known(request.target_ip.into(), asker) {
            Some(owner) if !gratuitous && owner.mac.get() != request.sender => answer::arp(&request, asker, owner.mac, pool).map(Some),
            _ => Ok(None),
        }
    }

    fn answer_nd(&self, parsed: &Parsed, frame: &Frame, pool: &Pool) -> Result<Option<Frame>, DropReason> {
        let Some((asker_ip, target)) = solicitation(parsed, frame) else { return Ok(None) };
        let asker = parsed.ethernet.source;
        match self.known(target.into(), asker) {
            Some(owner) => answer::advertisement((asker, asker_ip), owner, target, pool).map(Some),
            None => Ok(None),
        }
    }

    /// The owner of `ip` unless that is who asks.
    fn known(&self, ip: IpAddr, asker: Mac) -> Option<Neighbour> {
        self.0.get(&ip).copied().filter(|owner| owner.mac.get() != asker)
    }
}

/// The fields of an ARP request.
#[derive(Clone, Copy, Debug)]
struct ArpRequest {
    sender: Mac,
    sender_ip: Ipv4Addr,
    target_ip: Ipv4Addr,
}

impl ArpRequest {
    fn of(bytes: &[u8]) -> Option<Self> {
        let arp = bytes.get(packet::ETHERNET_LEN..)?.first_chunk::<28>()?;
        let ip = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
        let sender = Mac::destination_of(&arp[8..])?;
        (arp[..8] == ARP_REQUEST).then_some(Self { sender, sender_ip: ip(14), target_ip: ip(24) })
    }
}

/// Asker and target of a sound neighbour solicitation that is not duplicate address detection.
fn solicitation(parsed: &Parsed, frame: &Frame) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let bytes = frame.bytes();
    let Some(Ndp::NeighborSolicitation(target)) = parsed.ndp(bytes) else { return None };
    let ip = parsed.ip?;
    let IpAddr::V6(asker) = ip.source else { return None };
    let sound = bytes[ip.offset + 7] == ND_HOPS && bytes[ip.l4_offset + 1] == 0;
    let intact = frame.offload.checksum != Checksum::Complete || checksum::verify(bytes);
    (sound && intact && !asker.is_unspecified() && !asker.is_multicast()).then_some((asker, target))
}

#[cfg(test)]
mod tests;
