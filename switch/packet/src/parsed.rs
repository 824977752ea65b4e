//! Header views. [`EthernetView`] is all that forwarding needs; [`Parsed`] goes down to L4.
//! Both exist only if the lengths were checked, so that their accessors cannot fail.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet_packet::arp::ArpPacket;

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
    /// An IPv6 routing header still leads elsewhere: the L4 checksum covers its last address, not
    /// `destination` (RFC 8200 section 8.1).
    pub routed: bool,
}

impl IpView {
    /// The packet is a fragment, first or later.
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.fragment_offset != 0 || self.more_fragments
    }

    /// What the fragments of one datagram share, with addresses and protocol (RFC 791 section 3.2; RFC 8200
    /// section 4.5); 0 where an IPv6 packet has no fragment header.
    #[must_use]
    pub fn identification(&self, bytes: &[u8]) -> u32 {
        match self.source {
            IpAddr::V4(_) => bytes.get(self.offset + 4..).and_then(|rest| rest.first_chunk()).map_or(0, |id| u16::from_be_bytes(*id).into()),
            // The fragment header is the last before the payload.
            IpAddr::V6(_) if self.is_fragment() => bytes.get(self.l4_offset - 4..).and_then(|rest| rest.first_chunk()).map_or(0, |id| u32::from_be_bytes(*id)),
            IpAddr::V6(_) => 0,
        }
    }

    /// First byte behind the packet; what follows in the frame is padding.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.offset + self.length
    }

    /// Length behind the IP headers, bytes.
    #[must_use]
    pub const fn l4_len(&self) -> usize {
        self.end() - self.l4_offset
    }
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VlanTag {
    /// 0x8100 or 0x88a8.
    pub tpid: u16,
    /// Priority, drop eligibility and VLAN id.
    pub tci: u16,
}

impl VlanTag {
    /// The VLAN id; 0 is a priority tag.
    #[must_use]
    pub const fn vid(self) -> u16 {
        self.tci & 0xfff
    }
}

/// A neighbour discovery message (RFC 4861 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ndp {
    /// Type 133.
    RouterSolicitation,
    /// Type 134.
    RouterAdvertisement,
    /// Type 135, who has this address.
    NeighborSolicitation(Ipv6Addr),
    /// Type 136, for this address.
    NeighborAdvertisement(Ipv6Addr),
    /// Type 137, for this target.
    Redirect(Ipv6Addr),
}

/// One pass over a frame.
#[derive(Clone, Copy, Debug)]
pub struct Parsed {
    /// Addresses and first EtherType.
    pub ethernet: EthernetView,
    /// VLAN tags seen (at most two are skipped).
    pub tags: usize,
    /// The first `tags` of these, outer first.
    pub vlans: [VlanTag; 2],
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
        let (mut tags, mut vlans) = (0, [VlanTag::default(); 2]);
        let (mut ethertype, mut l3_offset) = (ethernet.ethertype, ETHERNET_LEN);
        while tags < 2 && matches!(ethertype, ethertype::CTAG | ethertype::STAG) {
            let tag = bytes.get(l3_offset..l3_offset + TAG_LEN)?;
            vlans[tags] = VlanTag { tpid: ethertype, tci: u16::from_be_bytes([tag[0], tag[1]]) };
            ethertype = u16::from_be_bytes([tag[2], tag[3]]);
            l3_offset += TAG_LEN;
            tags += 1;
        }
        let ip = match ethertype {
            ethertype::IPV4 => ipv4(bytes, l3_offset),
            ethertype::IPV6 => ipv6(bytes, l3_offset),
            _ => None,
        };
        Some(Self { ethernet, tags, vlans, ethertype, l3_offset, ip })
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

    /// Source and destination ports of a TCP or UDP packet or of its first fragment.
    #[must_use]
    pub fn l4_ports(&self, bytes: &[u8]) -> Option<(u16, u16)> {
        let ip = self.ip?;
        if !matches!(ip.protocol, protocol::TCP | protocol::UDP) || ip.fragment_offset != 0 {
            return None;
        }
        let ports = bytes.get(ip.l4_offset..ip.end())?.first_chunk::<4>()?;
        Some((u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]])))
    }

    /// The neighbour discovery message in an unfragmented packet, whatever its hop limit.
    #[must_use]
    pub fn ndp(&self, bytes: &[u8]) -> Option<Ndp> {
        let ip = self.ip.filter(|ip| ip.protocol == protocol::ICMPV6 && !ip.is_fragment())?;
        let message = bytes.get(ip.l4_offset..ip.end())?;
        let target = || Some(Ipv6Addr::from(*message.get(8..24)?.first_chunk::<16>()?));
        match *message.first()? {
            133 => Some(Ndp::RouterSolicitation),
            134 => Some(Ndp::RouterAdvertisement),
            135 => Some(Ndp::NeighborSolicitation(target()?)),
            136 => Some(Ndp::NeighborAdvertisement(target()?)),
            137 => Some(Ndp::Redirect(target()?)),
            _ => None,
        }
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
        routed: false,
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
        routed: false,
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
        // RFC 8200 section 4.4: byte 3 of a routing header counts the segments left.
        view.routed |= view.protocol == 43 && extension[3] != 0;
        view.protocol = extension[0];
        view.l4_offset += size;
    }
    Some(view)
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
            if tags == 2 {
                assert_eq!(parsed.vlans, [VlanTag { tpid: 0x88a8, tci: 7 }, VlanTag { tpid: 0x8100, tci: 9 }]);
            }
        }
    }

    #[test]
    fn a_total_length_within_the_header_is_no_packet() {
        let mut bytes = udp_frame();
        bytes[17] = 19;
        assert_eq!(Parsed::new(&bytes).unwrap().ip, None);
        bytes[14] = 0x47;
        bytes[17] = 27;
        assert_eq!(Parsed::new(&bytes).unwrap().ip, None);
    }

    #[test]
    fn ports_outside_the_packet_are_not_ports() {
        let mut bytes = udp_frame();
        bytes[17] = 22;
        assert_eq!(Parsed::new(&bytes).unwrap().l4_ports(&bytes), None, "they are Ethernet padding");
    }

    /// Hop-by-hop, routing with one segment left, then a neighbour solicitation.
    #[test]
    fn extension_headers_are_followed() {
        let mut bytes = vec![0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
        bytes.extend([0x60, 0, 0, 0, 0, 48, 0, 255]);
        bytes.extend([0xfe; 32]);
        bytes.extend([43, 0, 1, 4, 0, 0, 0, 0]);
        bytes.extend([58, 0, 4, 1, 0, 0, 0, 0]);
        let icmp_at = bytes.len();
        bytes.extend([135, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([9; 16]);
        bytes.extend([1, 1, 2, 0, 0, 0, 0, 1]);
        let parsed = Parsed::new(&bytes).unwrap();
        let ip = parsed.ip.unwrap();
        assert_eq!((ip.l4_offset, ip.l4_len(), ip.protocol, ip.routed), (icmp_at, 32, 58, true));
        assert_eq!(parsed.ndp(&bytes), Some(Ndp::NeighborSolicitation([9; 16].into())));
        bytes[icmp_at] = 129;
        assert_eq!(parsed.ndp(&bytes), None);
    }

    #[test]
    fn every_cut_is_survived() {
        let bytes = udp_frame();
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            assert_eq!(Parsed::new(cut).is_some(), length >= 14);
            assert!(Parsed::new(cut).is_none_or(|parsed| parsed.ip.is_none()), "the IP length lies");
        }
    }
}
