//! Header views. [`EthernetView`] is all that forwarding needs; [`Parsed`] goes down to L4.
//! Both exist only if the lengths were checked, so that their accessors cannot fail.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use pnet_packet::{Packet as _, arp::ArpPacket, icmpv6::Icmpv6Packet, tcp::TcpPacket, udp::UdpPacket};

use crate::{checksum::protocol, mac::Mac};

/// Length of an Ethernet header, bytes.
pub const ETHERNET_LEN: usize = 14;
/// Length of a VLAN tag, bytes.
pub const TAG_LEN: usize = 4;

/// EtherTypes (IANA).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// 802.1Q customer tag.
    pub const CTAG: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1ad service tag.
    pub const STAG: u16 = 0x88a8;
}

/// The first fourteen bytes of a frame.
#[derive(Clone, Copy, Debug)]
pub struct EthernetView {
    /// Destination address.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// EtherType, or the TPID of the outer tag.
    pub ethertype: u16,
}

impl EthernetView {
    /// `None` when the frame is shorter than a header.
    #[must_use]
    #[inline]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = bytes.first_chunk::<ETHERNET_LEN>()?;
        Some(Self {
            destination: Mac([d0, d1, d2, d3, d4, d5]),
            source: Mac([s0, s1, s2, s3, s4, s5]),
            ethertype: u16::from_be_bytes([t0, t1]),
        })
    }

    /// Tag control information of an 802.1Q tag right behind the addresses; `None` without one or
    /// when it is cut short.
    #[must_use]
    pub fn ctag(&self, bytes: &[u8]) -> Option<u16> {
        if self.ethertype != ethertype::CTAG || bytes.len() < ETHERNET_LEN + TAG_LEN {
            return None;
        }
        Some(u16::from_be_bytes([bytes[14], bytes[15]]))
    }
}

/// Where an IP packet lies in a frame and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpView {
    /// First byte of the IP header.
    pub offset: usize,
    /// Length by the IP header, bytes; within the frame.
    pub length: usize,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol behind the IP header and the IPv6 extension headers we know.
    pub protocol: u8,
    /// First byte behind them; within the packet.
    pub l4_offset: usize,
    /// Fragment offset, bytes.
    pub fragment_offset: u16,
    /// More fragments follow.
    pub more_fragments: bool,
}

/// One pass over a frame.
#[derive(Clone, Copy, Debug)]
pub struct Parsed {
    /// Addresses and first EtherType.
    pub ethernet: EthernetView,
    /// VLAN tags seen (at most two are skipped).
    pub tags: usize,
    /// EtherType behind the tags.
    pub ethertype: u16,
    /// First byte behind the tags.
    pub l3_offset: usize,
    /// The IP packet, when there is a sound one.
    pub ip: Option<IpView>,
}

impl Parsed {
    /// `None` when the Ethernet header or a tag is cut short.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let ethernet = EthernetView::new(bytes)?;
        let (mut tags, mut ethertype, mut l3_offset) = (0, ethernet.ethertype, ETHERNET_LEN);
        while tags < 2 && matches!(ethertype, ethertype::CTAG | ethertype::STAG) {
            let next = bytes.get(l3_offset + 2..l3_offset + 4)?;
            ethertype = u16::from_be_bytes([next[0], next[1]]);
            l3_offset += TAG_LEN;
            tags += 1;
        }
        let ip = match ethertype {
            ethertype::IPV4 => ipv4(bytes, l3_offset),
            ethertype::IPV6 => ipv6(bytes, l3_offset),
            _ => None,
        };
        Some(Self { ethernet, tags, ethertype, l3_offset, ip })
    }

    /// The ARP packet, if the frame carries a sound one for IPv4 over Ethernet.
    #[must_use]
    pub fn arp<'a>(&self, bytes: &'a [u8]) -> Option<ArpPacket<'a>> {
        if self.ethertype != ethertype::ARP {
            return None;
        }
        let packet = ArpPacket::new(bytes.get(self.l3_offset..)?)?;
        (packet.get_hw_addr_len() == 6 && packet.get_proto_addr_len() == 4).then_some(packet)
    }

    /// Source and destination ports of an unfragmented TCP or UDP packet.
    #[must_use]
    pub fn l4_ports(&self, bytes: &[u8]) -> Option<(u16, u16)> {
        let ip = self.ip?;
        if !matches!(ip.protocol, protocol::TCP | protocol::UDP) || ip.fragment_offset != 0 {
            return None;
        }
        let ports = bytes.get(ip.l4_offset..ip.l4_offset + 4)?;
        Some((u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]])))
    }
}

fn ipv4(bytes: &[u8], offset: usize) -> Option<IpView> {
    let header = bytes.get(offset..offset + 20)?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_len < 20 || length < header_len || offset + length > bytes.len() {
        return None;
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    Some(IpView {
        offset,
        length,
        source: Ipv4Addr::from(*header[12..16].first_chunk()?).into(),
        destination: Ipv4Addr::from(*header[16..20].first_chunk()?).into(),
        protocol: header[9],
        l4_offset: offset + header_len,
        fragment_offset: (fragment & 0x1fff) * 8,
        more_fragments: fragment & 0x2000 != 0,
    })
}

/// Extension headers followed at most: a bound on work, far above what is sent.
const EXTENSIONS: usize = 8;

fn ipv6(bytes: &[u8], offset: usize) -> Option<IpView> {
    let header = bytes.get(offset..offset + 40)?;
    let length = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || offset + length > bytes.len() {
        return None;
    }
    let mut view = IpView {
        offset,
        length,
        source: Ipv6Addr::from(*header[8..24].first_chunk::<16>()?).into(),
        destination: Ipv6Addr::from(*header[24..40].first_chunk::<16>()?).into(),
        protocol: header[6],
        l4_offset: offset + 40,
        fragment_offset: 0,
        more_fragments: false,
    };
    let packet = &bytes[..offset + length];
    for _ in 0..EXTENSIONS {
        // RFC 8200 section 4: hop-by-hop 0, routing 43, fragment 44, destination options 60.
        if !matches!(view.protocol, 0 | 43 | 44 | 60) || view.fragment_offset != 0 {
            break;
        }
        let Some(extension) = packet.get(view.l4_offset..view.l4_offset + 8) else { break };
        let size = if view.protocol == 44 {
            let fragment = u16::from_be_bytes([extension[2], extension[3]]);
            view.fragment_offset = fragment & 0xfff8;
            view.more_fragments = fragment & 1 != 0;
            8
        } else {
            (usize::from(extension[1]) + 1) * 8
        };
        if view.l4_offset + size > packet.len() {
            break;
        }
        view.protocol = extension[0];
        view.l4_offset += size;
    }
    Some(view)
}

/// One line about a frame, for people.
#[must_use]
pub fn describe(bytes: &[u8]) -> String {
    let Some(parsed) = Parsed::new(bytes) else { return format!("runt of {} bytes", bytes.len()) };
    let mut line = format!("{} > {}", parsed.ethernet.source, parsed.ethernet.destination);
    if parsed.tags > 0 {
        let vid = bytes.get(14..16).map_or(0, |tci| u16::from_be_bytes([tci[0], tci[1]]) & 0xfff);
        line.push_str(&format!(" vlan {vid}"));
    }
    if let Some(arp) = parsed.arp(bytes) {
        let (sender, target) = (arp.get_sender_proto_addr(), arp.get_target_proto_addr());
        match arp.get_operation().0 {
            1 => line.push_str(&format!(" ARP who-has {target} tell {sender}")),
            2 => line.push_str(&format!(" ARP {sender} is-at {}", arp.get_sender_hw_addr())),
            other => line.push_str(&format!(" ARP operation {other}")),
        }
    } else if let Some(ip) = parsed.ip {
        describe_ip(&mut line, bytes, &ip);
    } else {
        line.push_str(&format!(" ethertype 0x{:04x}", parsed.ethertype));
    }
    line.push_str(&format!(" ({} bytes)", bytes.len()));
    line
}

fn describe_ip(line: &mut String, bytes: &[u8], ip: &IpView) {
    let (source, destination) = (ip.source, ip.destination);
    let l4 = bytes.get(ip.l4_offset..ip.offset + ip.length).unwrap_or_default();
    let first = ip.fragment_offset == 0;
    match ip.protocol {
        protocol::TCP if let Some(tcp) = TcpPacket::new(l4).filter(|_| first) => {
            let flags: String = "FSRPAUEC".chars().enumerate().filter(|(bit, _)| tcp.get_flags() >> bit & 1 != 0).map(|(_, c)| c).collect();
            line.push_str(&format!(" TCP {source}:{} > {destination}:{} [{flags}] seq {}", tcp.get_source(), tcp.get_destination(), tcp.get_sequence()));
        }
        protocol::UDP if let Some(udp) = UdpPacket::new(l4).filter(|_| first) => {
            line.push_str(&format!(" UDP {source}:{} > {destination}:{} length {}", udp.get_source(), udp.get_destination(), udp.payload().len()));
        }
        protocol::ICMP if first && l4.len() >= 2 => line.push_str(&format!(" ICMP {source} > {destination} type {} code {}", l4[0], l4[1])),
        protocol::ICMPV6 if let Some(icmp) = Icmpv6Packet::new(l4).filter(|_| first) => {
            line.push_str(&format!(" ICMPv6 {source} > {destination} type {}", icmp.get_icmpv6_type().0));
        }
        other => line.push_str(&format!(" IP {source} > {destination} protocol {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_frame() -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        bytes.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend([0, 53, 0x30, 0x39, 0, 12, 0, 0, 1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn finds_ports_behind_tags() {
        let plain = udp_frame();
        let tagged = [&plain[..12], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9], &plain[12..]].concat();
        for (bytes, tags) in [(plain, 0), (tagged, 2)] {
            let parsed = Parsed::new(&bytes).unwrap();
            assert_eq!(parsed.tags, tags);
            assert_eq!(parsed.l4_ports(&bytes), Some((53, 12345)));
        }
    }

    #[test]
    fn every_cut_is_survived() {
        let bytes = udp_frame();
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            assert_eq!(Parsed::new(cut).is_some(), length >= 14);
            assert!(Parsed::new(cut).is_none_or(|parsed| parsed.ip.is_none()), "the IP length lies");
            assert!(!describe(cut).is_empty());
        }
    }

    #[test]
    fn one_line_for_people() {
        let line = describe(&udp_frame());
        assert_eq!(line, "02:00:00:00:00:01 > 02:00:00:00:00:02 UDP 10.0.0.1:53 > 10.0.0.2:12345 length 4 (46 bytes)");
    }
}
