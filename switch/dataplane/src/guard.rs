//! Source guard: a port speaks only for the addresses its endpoint was given (cf. RFC 7039 SAVI, and
//! RFC 7113 RA guard). Address probes pass: an ARP sender of 0.0.0.0 (RFC 5227), the unspecified
//! IPv6 source of duplicate address detection (RFC 4862), a DHCP client without an address.
//!
//! Plain packets from an assigned address are let through at a glance; all others are parsed and
//! judged in full. The glance lets nothing through that the judgement would not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::{ETHERNET_LEN, IpView, Mac, Parsed, checksum::protocol, ethertype};

use crate::{drop::DropReason, header::Header, port::Guard};

const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// A [`Guard`] made ready: addresses as integers.
#[derive(Debug)]
pub(crate) struct Checks {
    macs: Vec<u64>,
    v4: Vec<u32>,
    v6: Vec<u128>,
    any_ip: bool,
    no_router: bool,
}

impl Checks {
    pub(crate) fn new(guard: &Guard) -> Self {
        let mut checks = Self {
            macs: guard.macs.iter().map(|mac| mac.get().as_u64()).collect(),
            v4: Vec::new(),
            v6: Vec::new(),
            any_ip: guard.ips.is_empty(),
            no_router: guard.no_router,
        };
        for ip in &guard.ips {
            match ip {
                IpAddr::V4(ip) => checks.v4.push(ip.to_bits()),
                IpAddr::V6(ip) => checks.v6.push(ip.to_bits()),
            }
        }
        checks
    }

    /// Whether the port may send this frame.
    ///
    /// # Errors
    /// The reason to drop it.
    #[inline]
    pub(crate) fn check(&self, header: Header, bytes: &[u8]) -> Result<(), DropReason> {
        if !self.allows_mac(header.source) {
            return Err(DropReason::GuardMac);
        }
        if self.is_plainly_allowed(header.ethertype, bytes) { Ok(()) } else { self.judge(bytes) }
    }

    /// IPv4 without options, or IPv6 with TCP or UDP right behind the header, from an assigned
    /// address, and not between ports of DHCP.
    #[inline]
    fn is_plainly_allowed(&self, ethertype: u16, bytes: &[u8]) -> bool {
        match ethertype {
            ethertype::IPV4 => {
                let Some(ip) = bytes.get(ETHERNET_LEN..).and_then(|ip| ip.first_chunk::<24>()) else { return false };
                let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
                let is_sound = ip[0] == 0x45 && length >= 24 && length <= bytes.len() - ETHERNET_LEN;
                let source = u32::from_be_bytes([ip[12], ip[13], ip[14], ip[15]]);
                is_sound && self.v4.contains(&source) && (ip[9] != protocol::UDP || !is_dhcp([ip[20], ip[21], ip[22], ip[23]]))
            }
            ethertype::IPV6 => {
                let Some(ip) = bytes.get(ETHERNET_LEN..).and_then(|ip| ip.first_chunk::<44>()) else { return false };
                let length = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
                let is_sound = ip[0] >> 4 == 6 && length >= 44 && length <= bytes.len() - ETHERNET_LEN;
                let source = ip[8..24].first_chunk().map_or(0, |octets| u128::from_be_bytes(*octets));
                let is_plain = ip[6] == protocol::TCP || (ip[6] == protocol::UDP && !is_dhcp([ip[40], ip[41], ip[42], ip[43]]));
                is_sound && is_plain && self.v6.contains(&source)
            }
            _ => false,
        }
    }

    #[inline(never)]
    fn judge(&self, bytes: &[u8]) -> Result<(), DropReason> {
        if self.any_ip && !self.no_router {
            return Ok(());
        }
        let Some(parsed) = Parsed::new(bytes) else { return Err(DropReason::VlanMalformed) };
        match parsed.ethertype {
            ethertype::ARP => self.judge_arp(&parsed, bytes),
            ethertype::IPV4 | ethertype::IPV6 => self.judge_ip(&parsed, bytes),
            _ => Ok(()),
        }
    }

    fn judge_arp(&self, parsed: &Parsed, bytes: &[u8]) -> Result<(), DropReason> {
        let Some(arp) = parsed.arp(bytes) else { return Err(DropReason::GuardIp) };
        let sender = arp.get_sender_hw_addr();
        let sender = Mac([sender.0, sender.1, sender.2, sender.3, sender.4, sender.5]);
        if !self.allows_mac(sender.as_u64()) {
            return Err(DropReason::GuardMac);
        }
        let address = arp.get_sender_proto_addr();
        if address == Ipv4Addr::UNSPECIFIED || self.allows(IpAddr::V4(address)) { Ok(()) } else { Err(DropReason::GuardIp) }
    }

    fn judge_ip(&self, parsed: &Parsed, bytes: &[u8]) -> Result<(), DropReason> {
        // A header that does not hold its own lengths cannot be judged.
        let Some(ip) = parsed.ip else { return Err(DropReason::GuardIp) };
        let ports = parsed.l4_ports(bytes);
        let udp = if ip.protocol == protocol::UDP { ports } else { None };
        if self.no_router && (hides_its_kind(&ip, ports) || matches!(udp, Some((67 | 547, _) | (_, 68 | 546)))) {
            return Err(DropReason::GuardRole);
        }
        let is_dhcp_client = matches!(udp, Some((68, 67)));
        let is_allowed = match ip.source {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => is_dhcp_client || self.any_ip,
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
            IpAddr::V6(source) if source.is_unicast_link_local() => true,
            source => self.allows(source),
        };
        if !is_allowed {
            return Err(DropReason::GuardIp);
        }
        let is_icmpv6 = ip.source.is_ipv6() && ip.protocol == protocol::ICMPV6 && ip.fragment_offset == 0;
        if is_icmpv6 { self.judge_icmpv6(&bytes[ip.l4_offset..ip.end()]) } else { Ok(()) }
    }

    fn judge_icmpv6(&self, message: &[u8]) -> Result<(), DropReason> {
        match message.first() {
            Some(&(ROUTER_ADVERTISEMENT | REDIRECT)) if self.no_router => Err(DropReason::GuardRole),
            Some(&NEIGHBOR_ADVERTISEMENT) => {
                // RFC 4861 section 4.4: the target address is at 8.
                let target = message.get(8..24).and_then(|target| target.first_chunk::<16>());
                let Some(target) = target.map(|octets| Ipv6Addr::from(*octets)) else { return Err(DropReason::GuardIp) };
                let is_allowed = target.is_unicast_link_local() || self.allows(IpAddr::V6(target));
                if is_allowed { Ok(()) } else { Err(DropReason::GuardIp) }
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn allows_mac(&self, mac: u64) -> bool {
        self.macs.is_empty() || self.macs.contains(&mac)
    }

    fn allows(&self, address: IpAddr) -> bool {
        let is_assigned = match address {
            IpAddr::V4(address) => self.v4.contains(&address.to_bits()),
            IpAddr::V6(address) => self.v6.contains(&address.to_bits()),
        };
        self.any_ip || is_assigned
    }
}

/// Source or destination port (four bytes) of DHCP, either version, either side.
#[inline]
const fn is_dhcp(ports: [u8; 4]) -> bool {
    let source = u16::from_be_bytes([ports[0], ports[1]]);
    let destination = u16::from_be_bytes([ports[2], ports[3]]);
    matches!(source, 67 | 68 | 546 | 547) || matches!(destination, 67 | 68 | 546 | 547)
}

/// RFC 7113 section 2: what a packet is must show in its first fragment, or else a router
/// advertisement or a DHCP reply hides behind extension headers, or in the second fragment.
fn hides_its_kind(ip: &IpView, ports: Option<(u16, u16)>) -> bool {
    // Hop-by-hop, routing, fragment, destination options: headers that were not followed to the end.
    let is_cut_short = match ip.protocol {
        0 | 43 | 44 | 60 => ip.source.is_ipv6(),
        protocol::ICMPV6 => ip.source.is_ipv6() && ip.l4_len() == 0,
        protocol::UDP => ports.is_none(),
        _ => false,
    };
    ip.fragment_offset == 0 && is_cut_short
}

#[cfg(test)]
mod tests {
    use packet::UnicastMac;
    use proptest::prelude::*;

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
        Checks::new(&guard()).check(Header::new(bytes).unwrap(), bytes)
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
            ("own address to a DHCP server", udp4([10, 0, 0, 1], (68, 67)), Ok(())),
            ("DHCP server", udp4([10, 0, 0, 1], (67, 68)), Err(DropReason::GuardRole)),
            ("DHCP server from another port", udp4([10, 0, 0, 1], (4000, 68)), Err(DropReason::GuardRole)),
            ("IPv4 cut short", frame(ME, 0x0800, &[0x45, 0, 0, 28]), Err(DropReason::GuardIp)),
            ("router advertisement", icmp6("fe80::1", ROUTER_ADVERTISEMENT, "::"), Err(DropReason::GuardRole)),
            ("own NA", icmp6("fd00::1", NEIGHBOR_ADVERTISEMENT, "fd00::1"), Ok(())),
            ("NA for another", icmp6("fe80::1", NEIGHBOR_ADVERTISEMENT, "fd00::2"), Err(DropReason::GuardIp)),
            ("DAD", icmp6("::", 135, "fd00::2"), Ok(())),
            ("NS from another", icmp6("fd00::2", 135, "fd00::9"), Err(DropReason::GuardIp)),
            ("NA cut short", icmp6("fd00::1", NEIGHBOR_ADVERTISEMENT, "fd00::1")[..14 + 40 + 20].to_vec(), Err(DropReason::GuardIp)),
            ("redirect", icmp6("fe80::1", REDIRECT, "fd00::1"), Err(DropReason::GuardRole)),
            ("router solicitation", icmp6("::", 133, "::"), Ok(())),
            ("another's IPv6", icmp6("fd00::2", 128, "::"), Err(DropReason::GuardIp)),
        ] {
            assert_eq!(check(&bytes), verdict, "{what}");
        }
    }

    #[test]
    fn an_empty_guard_lets_all_through_and_lists_stand_alone() {
        let check = |guard: &Guard, bytes: &[u8]| Checks::new(guard).check(Header::new(bytes).unwrap(), bytes);
        let spoofed = udp4([9, 9, 9, 9], (67, 68));
        assert_eq!(check(&Guard::default(), &spoofed), Ok(()));
        let role = Guard { no_router: true, ..Guard::default() };
        assert_eq!(check(&role, &spoofed), Err(DropReason::GuardRole));
        assert_eq!(check(&role, &udp4([9, 9, 9, 9], (1, 2))), Ok(()));
        let address = Guard { ips: guard().ips, ..Guard::default() };
        assert_eq!(check(&address, &spoofed), Err(DropReason::GuardIp));
        assert_eq!(check(&address, &udp4([10, 0, 0, 1], (67, 68))), Ok(()));
    }

    /// The tricks of RFC 7113 section 2.
    #[test]
    fn a_router_advertisement_does_not_hide() {
        let advertisement = icmp6("fe80::1", ROUTER_ADVERTISEMENT, "::");
        let behind = |extensions: &[u8], next: u8, cut: usize| {
            let mut bytes = advertisement.clone();
            bytes[20] = next;
            bytes.splice(54..54, extensions.iter().copied());
            bytes.truncate(bytes.len() - cut);
            let length = u16::try_from(bytes.len() - 54).unwrap();
            bytes[18..20].copy_from_slice(&length.to_be_bytes());
            check(&bytes)
        };
        let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(behind(&options(58), 60, 0), Err(DropReason::GuardRole), "destination options");
        assert_eq!(behind(&[58, 0, 0, 1, 0, 0, 0, 1], 44, 0), Err(DropReason::GuardRole), "first fragment");
        assert_eq!(behind(&[58, 0, 0, 1, 0, 0, 0, 1], 44, 32), Err(DropReason::GuardRole), "first fragment without it");
        let cut = [&[60, 0, 0, 1, 0, 0, 0, 1][..], &[58, 5, 1, 4, 0, 0, 0, 0]].concat();
        assert_eq!(behind(&cut, 44, 32), Err(DropReason::GuardRole), "options that go on in the second fragment");
        let many = [options(60); 40].concat();
        assert_eq!(behind(&[&many[..], &options(58)].concat(), 60, 0), Err(DropReason::GuardRole), "more headers than we follow");
    }

    #[test]
    fn tags_do_not_hide_a_source() {
        for tags in [&[0x81, 0, 0, 5][..], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]] {
            let mut bytes = arp(ME, [10, 0, 0, 2]);
            bytes.splice(12..12, tags.iter().copied());
            assert_eq!(check(&bytes), Err(DropReason::GuardIp));
        }
    }

    /// Frames near those of the table.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let port = || prop_oneof![Just(67), Just(68), Just(546), Just(547), 1..100_u16];
        let base = prop_oneof![
            Just(arp(ME, [10, 0, 0, 1])),
            (port(), port()).prop_map(|ports| udp4([10, 0, 0, 1], ports)),
            (port(), port()).prop_map(|ports| {
                let mut bytes = icmp6("fd00::1", 0, "::");
                bytes[20] = protocol::UDP;
                bytes[54..56].copy_from_slice(&ports.0.to_be_bytes());
                bytes[56..58].copy_from_slice(&ports.1.to_be_bytes());
                bytes
            }),
            Just(icmp6("fd00::1", NEIGHBOR_ADVERTISEMENT, "fd00::1")),
        ];
        let edits = proptest::collection::vec((12..80_usize, prop_oneof![any::<u8>(), 0..70_u8]), 0..4);
        (base, edits, 14..120_usize).prop_map(|(mut bytes, edits, length)| {
            for (at, value) in edits {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(length);
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn the_glance_lets_nothing_through_that_judgement_would_not(bytes in frames()) {
            for guard in [guard(), Guard { no_router: false, ..guard() }, Guard { ips: vec![], ..guard() }] {
                let checks = Checks::new(&guard);
                let header = Header::new(&bytes).unwrap();
                if checks.allows_mac(header.source) {
                    prop_assert_eq!(checks.check(header, &bytes), checks.judge(&bytes));
                }
            }
        }
    }
}
