//! One line about a frame for people: trace, capture on a terminal, comments. The slow path, so
//! pnet_packet's typed views read the headers.

use std::fmt::{self, Write as _};

use pnet_packet::{Packet as _, icmpv6::Icmpv6Packet, tcp::TcpPacket, udp::UdpPacket};

use crate::{
    checksum::protocol,
    parsed::{IpView, Ndp, Parsed},
};

/// One line about a frame, for people.
#[must_use]
pub fn describe(bytes: &[u8]) -> String {
    let mut line = String::new();
    write_line(&mut line, bytes).expect("a String takes all");
    line
}

fn write_line(line: &mut String, bytes: &[u8]) -> fmt::Result {
    let Some(parsed) = Parsed::new(bytes) else { return write!(line, "runt of {} bytes", bytes.len()) };
    write!(line, "{} > {}", parsed.ethernet.source, parsed.ethernet.destination)?;
    for (index, vlan) in parsed.vlans[..parsed.tags].iter().enumerate() {
        write!(line, "{}{}", if index == 0 { " vlan " } else { "." }, vlan.vid())?;
    }
    if let Some(arp) = parsed.arp(bytes) {
        let (sender, target) = (arp.get_sender_proto_addr(), arp.get_target_proto_addr());
        match arp.get_operation().0 {
            1 => write!(line, " ARP who-has {target} tell {sender}")?,
            2 => write!(line, " ARP {sender} is-at {}", arp.get_sender_hw_addr())?,
            other => write!(line, " ARP operation {other}")?,
        }
    } else if let Some(ip) = parsed.ip {
        describe_ip(line, bytes, &ip, parsed.ndp(bytes))?;
    } else {
        write!(line, " ethertype 0x{:04x}", parsed.ethertype)?;
    }
    write!(line, " ({} bytes)", bytes.len())
}

fn describe_ip(line: &mut String, bytes: &[u8], ip: &IpView, ndp: Option<Ndp>) -> fmt::Result {
    let (source, destination) = (ip.source, ip.destination);
    let l4 = bytes.get(ip.l4_offset..ip.offset + ip.length).unwrap_or_default();
    let first = ip.fragment_offset == 0;
    match ip.protocol {
        protocol::TCP if let Some(tcp) = TcpPacket::new(l4).filter(|_| first) => {
            let flags: String = "FSRPAUEC".chars().enumerate().filter(|(bit, _)| tcp.get_flags() >> bit & 1 != 0).map(|(_, c)| c).collect();
            write!(line, " TCP {source}:{} > {destination}:{} [{flags}] seq {}", tcp.get_source(), tcp.get_destination(), tcp.get_sequence())
        }
        protocol::UDP if let Some(udp) = UdpPacket::new(l4).filter(|_| first) => {
            write!(line, " UDP {source}:{} > {destination}:{} length {}", udp.get_source(), udp.get_destination(), udp.payload().len())
        }
        protocol::ICMP if first && l4.len() >= 2 => write!(line, " ICMP {source} > {destination} type {} code {}", l4[0], l4[1]),
        protocol::ICMPV6 if let Some(icmp) = Icmpv6Packet::new(l4).filter(|_| first) => match ndp {
            Some(Ndp::NeighborSolicitation(target)) => write!(line, " NDP who-has {target} tell {source}"),
            Some(Ndp::NeighborAdvertisement(target)) => write!(line, " NDP {target} is at {source}"),
            Some(Ndp::RouterSolicitation) => write!(line, " NDP {source} looks for routers"),
            Some(Ndp::RouterAdvertisement) => write!(line, " NDP {source} is a router"),
            Some(Ndp::Redirect(target)) => write!(line, " NDP {source} redirects to {target}"),
            None => write!(line, " ICMPv6 {source} > {destination} type {}", icmp.get_icmpv6_type().0),
        },
        other => write!(line, " IP {source} > {destination} protocol {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETHERNET: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

    fn udp_frame() -> Vec<u8> {
        let mut bytes = ETHERNET.to_vec();
        bytes.extend([8, 0, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend([0, 53, 0x30, 0x39, 0, 12, 0, 0, 1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn one_line_for_people() {
        let line = describe(&udp_frame());
        assert_eq!(line, "02:00:00:00:00:01 > 02:00:00:00:00:02 UDP 10.0.0.1:53 > 10.0.0.2:12345 length 4 (46 bytes)");
    }

    #[test]
    fn tags_and_neighbour_messages_are_named() {
        let mut bytes = [&ETHERNET[..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255]].concat();
        bytes.extend([0xfe; 32]);
        bytes.extend([135, 0, 0, 0, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
        assert!(describe(&bytes).contains("vlan 7.9 NDP who-has fd00::5 tell fefe:"), "{}", describe(&bytes));
    }

    #[test]
    fn every_cut_has_a_line() {
        let bytes = udp_frame();
        for length in 0..bytes.len() {
            assert!(!describe(&bytes[..length]).is_empty());
        }
    }
}
