//! Source guard: a port speaks only for the addresses its endpoint was given (cf. RFC 7039 SAVI, and
//! RFC 6105 RA guard). Address probes pass: an ARP sender of 0.0.0.0 (RFC 5227), the unspecified
//! IPv6 source of duplicate address detection (RFC 4862), a DHCP client without an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::{Mac, Parsed, checksum::protocol, ethertype};

use crate::{drop::DropReason, port::Guard};

const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

impl Guard {
    /// Whether the port may send this frame.
    ///
    /// # Errors
    /// The reason to drop it.
    pub(crate) fn check(&self, source: Mac, bytes: &[u8]) -> Result<(), DropReason> {
        if !self.macs.is_empty() && !self.macs.iter().any(|mac| mac.get() == source) {
            return Err(DropReason::GuardMac);
        }
        if self.ips.is_empty() && !self.no_router {
            return Ok(());
        }
        let Some(parsed) = Parsed::new(bytes) else { return Err(DropReason::VlanMalformed) };
        match parsed.ethertype {
            ethertype::ARP => self.check_arp(&parsed, bytes),
            ethertype::IPV4 | ethertype::IPV6 => self.check_ip(&parsed, bytes),
            _ => Ok(()),
        }
    }

    fn check_arp(&self, parsed: &Parsed, bytes: &[u8]) -> Result<(), DropReason> {
        let Some(arp) = parsed.arp(bytes) else { return Err(DropReason::GuardIp) };
        let sender = arp.get_sender_hw_addr();
        let sender = Mac([sender.0, sender.1, sender.2, sender.3, sender.4, sender.5]);
        if !self.macs.is_empty() && !self.macs.iter().any(|mac| mac.get() == sender) {
            return Err(DropReason::GuardMac);
        }
        let address = arp.get_sender_proto_addr();
        if address == Ipv4Addr::UNSPECIFIED || self.allows(IpAddr::V4(address)) { Ok(()) } else { Err(DropReason::GuardIp) }
    }

    fn check_ip(&self, parsed: &Parsed, bytes: &[u8]) -> Result<(), DropReason> {
        // A header that does not hold its own lengths cannot be judged.
        let Some(ip) = parsed.ip else { return Err(DropReason::GuardIp) };
        let ports = parsed.l4_ports(bytes);
        let udp = if ip.protocol == protocol::UDP { ports } else { None };
        if self.no_router && matches!(udp, Some((67 | 547, _))) {
            return Err(DropReason::GuardRole);
        }
        let dhcp_client = matches!(udp, Some((68, 67)));
        let allowed = match ip.source {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => dhcp_client || self.ips.is_empty(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
            IpAddr::V6(source) if source.is_unicast_link_local() => true,
            source => self.allows(source),
        };
        if !allowed {
            return Err(DropReason::GuardIp);
        }
        if ip.protocol == protocol::ICMPV6 && ip.fragment_offset == 0 { self.check_icmpv6(bytes, ip.l4_offset) } else { Ok(()) }
    }

    fn check_icmpv6(&self, bytes: &[u8], at: usize) -> Result<(), DropReason> {
        match bytes.get(at) {
            Some(&(ROUTER_ADVERTISEMENT | REDIRECT)) if self.no_router => Err(DropReason::GuardRole),
            Some(&NEIGHBOR_ADVERTISEMENT) => {
                // RFC 4861 section 4.4: the target address is at 8.
                let target = bytes.get(at + 8..at + 24).and_then(|target| target.first_chunk::<16>());
                let Some(target) = target.map(|octets| Ipv6Addr::from(*octets)) else { return Err(DropReason::GuardIp) };
                let allowed = target.is_unicast_link_local() || self.allows(IpAddr::V6(target));
                if allowed { Ok(()) } else { Err(DropReason::GuardIp) }
            }
            _ => Ok(()),
        }
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.ips.is_empty() || self.ips.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use packet::UnicastMac;

    use super::*;

    const ME: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn guard() -> Guard {
        Guard {
            macs: vec![UnicastMac::new(ME).unwrap()],
            ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            no_router: true,
        }
    }

    fn check(bytes: &[u8]) -> Result<(), DropReason> {
        guard().check(Mac::source_of(bytes).unwrap(), bytes)
    }

    fn frame(source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [&[0xff; 6][..], &source.0, &ethertype.to_be_bytes(), payload].concat()
    }

    fn arp(sender_mac: Mac, sender: [u8; 4]) -> Vec<u8> {
        let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &sender_mac.0, &sender, &[0; 6], &[10, 0, 0, 9]].concat();
        frame(ME, 0x0806, &body)
    }

    fn udp4(source: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
        let mut ip = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
        ip.extend(source);
        ip.extend([255, 255, 255, 255]);
        ip.extend(ports.0.to_be_bytes());
        ip.extend(ports.1.to_be_bytes());
        ip.extend([0, 8, 0, 0]);
        frame(ME, 0x0800, &ip)
    }

    fn icmp6(source: &str, kind: u8, target: &str) -> Vec<u8> {
        let mut ip = vec![0x60, 0, 0, 0, 0, 24, 58, 255];
        ip.extend(source.parse::<Ipv6Addr>().unwrap().octets());
        ip.extend([0xff; 16]);
        ip.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        ip.extend(target.parse::<Ipv6Addr>().unwrap().octets());
        frame(ME, 0x86dd, &ip)
    }

    #[test]
    fn table() {
        let other = Mac([2, 0, 0, 0, 0, 9]);
        for (what, bytes, verdict) in [
            ("own ARP", arp(ME, [10, 0, 0, 1]), Ok(())),
            ("ARP probe", arp(ME, [0, 0, 0, 0]), Ok(())),
            ("ARP for another", arp(ME, [10, 0, 0, 2]), Err(DropReason::GuardIp)),
            ("ARP with another's MAC inside", arp(other, [10, 0, 0, 1]), Err(DropReason::GuardMac)),
            ("another's MAC", frame(other, 0x88b5, &[0; 46]), Err(DropReason::GuardMac)),
            ("own EtherType", frame(ME, 0x88b5, &[0; 46]), Ok(())),
            ("own IPv4", udp4([10, 0, 0, 1], (1, 2)), Ok(())),
            ("another's IPv4", udp4([10, 0, 0, 2], (1, 2)), Err(DropReason::GuardIp)),
            ("DHCP client", udp4([0, 0, 0, 0], (68, 67)), Ok(())),
            ("no source, not DHCP", udp4([0, 0, 0, 0], (5, 6)), Err(DropReason::GuardIp)),
            ("DHCP server", udp4([10, 0, 0, 1], (67, 68)), Err(DropReason::GuardRole)),
            ("IPv4 cut short", frame(ME, 0x0800, &[0x45, 0, 0, 28]), Err(DropReason::GuardIp)),
            ("router advertisement", icmp6("fe80::1", ROUTER_ADVERTISEMENT, "::"), Err(DropReason::GuardRole)),
            ("own NA", icmp6("fd00::1", NEIGHBOR_ADVERTISEMENT, "fd00::1"), Ok(())),
            ("NA for another", icmp6("fe80::1", NEIGHBOR_ADVERTISEMENT, "fd00::2"), Err(DropReason::GuardIp)),
            ("DAD", icmp6("::", 135, "fd00::2"), Ok(())),
            ("another's IPv6", icmp6("fd00::2", 128, "::"), Err(DropReason::GuardIp)),
        ] {
            assert_eq!(check(&bytes), verdict, "{what}");
        }
    }
}
