//! Edits of an IP packet in place that keep its checksums in step (RFC 1624).
//!
//! Checksums are updated, never recomputed: a wrong one stays wrong, so that corruption stays
//! visible. A partial one (see [`Checksum::Partial`]) holds the uncomplemented sum of the
//! pseudo-header: addresses change it, what follows the pseudo-header is summed by whoever finishes it.

use std::net::IpAddr;

use crate::{
    checksum::{fold, protocol, sum, update},
    frame::Frame,
    offload::Checksum,
    parsed::{IpView, Parsed},
};

/// The one way to change an address or L4 port. Setters say whether they wrote.
#[derive(Debug)]
pub struct PacketMut<'a> {
    bytes: &'a mut [u8],
    ip: IpView,
    l4_checksum: Option<Field>,
}

/// An L4 checksum that the packet carries.
#[derive(Clone, Copy, Debug)]
struct Field {
    at: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Complete,
    Partial,
    /// UDP without one (RFC 768; RFC 6935 over IPv6).
    Absent,
}

/// The IPv4 header's own checksum, from its start.
const IPV4_CHECKSUM: usize = 10;
const TCP_SYN: u8 = 0x02;
const TCP_HEADER: usize = 20;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

impl<'a> PacketMut<'a> {
    /// `None` unless the frame carries a sound IP packet.
    ///
    /// # Panics
    /// When the frame is shared: call [`Frame::make_unique`] first.
    #[must_use]
    pub fn new(frame: &'a mut Frame) -> Option<Self> {
        let ip = Parsed::new(frame.bytes())?.ip?;
        let checksum = frame.offload.checksum;
        let bytes = frame.bytes_mut();
        let l4_checksum = Field::of(bytes, &ip, checksum);
        Some(Self { bytes, ip, l4_checksum })
    }

    /// Where the packet lies and what it carries, as the last edit left it.
    #[must_use]
    pub const fn ip(&self) -> &IpView {
        &self.ip
    }

    /// Writes the source address. False when it is of the other family.
    #[must_use]
    pub fn set_source(&mut self, address: IpAddr) -> bool {
        let written = self.set_address(self.ip.source, address, 12, 8, true);
        if written {
            self.ip.source = address;
        }
        written
    }

    /// Writes the destination address. False when it is of the other family.
    #[must_use]
    pub fn set_destination(&mut self, address: IpAddr) -> bool {
        // On its way to another hop of a routing header, L4 covers the last address instead.
        let written = self.set_address(self.ip.destination, address, 16, 24, !self.ip.routed);
        if written {
            self.ip.destination = address;
        }
        written
    }

    /// Writes the source L4 port. False unless it is TCP or UDP and not a later fragment.
    #[must_use]
    pub fn set_source_port(&mut self, port: u16) -> bool {
        self.set_port(0, port)
    }

    /// Writes the destination L4 port. False unless it is TCP or UDP and not a later fragment.
    #[must_use]
    pub fn set_destination_port(&mut self, port: u16) -> bool {
        self.set_port(2, port)
    }

    /// Writes the identifier of an ICMP or ICMPv6 echo request or reply. False when it is none.
    #[must_use]
    pub fn set_echo_id(&mut self, id: u16) -> bool {
        let echo = match (self.ip.protocol, self.l4().first()) {
            (protocol::ICMP, Some(0 | 8)) | (protocol::ICMPV6, Some(128 | 129)) => true,
            (_, _) => false,
        };
        let written = echo && self.ip.fragment_offset == 0 && self.l4().len() >= 8;
        if written {
            self.replace_l4(4, &id.to_be_bytes());
        }
        written
    }

    /// Writes the IPv4 time to live or the IPv6 hop limit.
    pub fn set_hop_limit(&mut self, hops: u8) {
        let at = self.ip.offset;
        if self.is_ipv4() {
            let protocol = self.bytes[at + 9];
            self.replace_ipv4(8, &[hops, protocol]);
        } else {
            self.bytes[at + 7] = hops;
        }
    }

    /// Writes the differentiated services code point (RFC 2474); only its low six bits count.
    pub fn set_dscp(&mut self, dscp: u8) {
        self.set_traffic_class(dscp << 2, 0xfc);
    }

    /// Writes the congestion notification field (RFC 3168); only its low two bits count.
    pub fn set_ecn(&mut self, ecn: u8) {
        self.set_traffic_class(ecn, 0x03);
    }

    /// Lowers the maximum segment size that a TCP SYN offers (RFC 9293 section 3.7.1) to at most
    /// `most`. True when it was higher.
    #[must_use]
    pub fn clamp_mss(&mut self, most: u16) -> bool {
        let Some((at, offered)) = self.mss() else { return false };
        if offered > most {
            self.replace_l4(at, &most.to_be_bytes());
        }
        offered > most
    }

    /// Offset of the MSS in the L4 header of a SYN, and its value.
    fn mss(&self) -> Option<(usize, u16)> {
        if self.ip.protocol != protocol::TCP || self.ip.fragment_offset != 0 || self.l4().get(13)? & TCP_SYN == 0 {
            return None;
        }
        let header = self.l4().get(..usize::from(self.l4()[12] >> 4) * 4)?;
        let mut at = TCP_HEADER;
        loop {
            match (*header.get(at)?, header.get(at + 1)) {
                (OPTION_NOP, _) => at += 1,
                (OPTION_END, _) | (_, None | Some(0 | 1)) => return None,
                (OPTION_MSS, Some(4)) => {
                    let value = header.get(at + 2..at + 4)?;
                    return Some((at + 2, u16::from_be_bytes([value[0], value[1]])));
                }
                (_, Some(&length)) => at += usize::from(length),
            }
        }
    }

    fn is_ipv4(&self) -> bool {
        self.ip.source.is_ipv4()
    }

    /// The frame, to read.
    #[must_use]
    pub const fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// All behind the IP headers.
    #[must_use]
    pub fn l4(&self) -> &[u8] {
        &self.bytes[self.ip.l4_offset..self.ip.end()]
    }

    fn set_address(&mut self, old: IpAddr, new: IpAddr, at_v4: usize, at_v6: usize, in_pseudo_header: bool) -> bool {
        match (old, new) {
            (IpAddr::V4(old), IpAddr::V4(new)) => {
                self.replace_ipv4(at_v4, &new.octets());
                self.update_l4(&old.octets(), &new.octets(), true);
            }
            (IpAddr::V6(old), IpAddr::V6(new)) => {
                let at = self.ip.offset + at_v6;
                self.bytes[at..at + 16].copy_from_slice(&new.octets());
                if in_pseudo_header {
                    self.update_l4(&old.octets(), &new.octets(), true);
                }
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        }
        true
    }

    fn set_port(&mut self, at: usize, port: u16) -> bool {
        let written = matches!(self.ip.protocol, protocol::TCP | protocol::UDP)
            && self.ip.fragment_offset == 0
            && self.l4().len() >= 4;
        if written {
            self.replace_l4(at, &port.to_be_bytes());
        }
        written
    }

    fn set_traffic_class(&mut self, value: u8, mask: u8) {
        let at = self.ip.offset;
        if self.is_ipv4() {
            let [version, class] = [self.bytes[at], self.bytes[at + 1]];
            self.replace_ipv4(0, &[version, class & !mask | value & mask]);
        } else {
            // Four bits of the class lie in each of the first two bytes.
            let word = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
            let (value, mask) = (u16::from(value & mask) << 4, u16::from(mask) << 4);
            self.bytes[at..at + 2].copy_from_slice(&(word & !mask | value).to_be_bytes());
        }
    }

    /// Writes `new` at the even offset `at` of the IPv4 header.
    fn replace_ipv4(&mut self, at: usize, new: &[u8]) {
        let header = &mut self.bytes[self.ip.offset..];
        let field = &mut header[at..at + new.len()];
        let delta = delta(field, new);
        field.copy_from_slice(new);
        let checksum = u16::from_be_bytes([header[IPV4_CHECKSUM], header[IPV4_CHECKSUM + 1]]);
        header[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&(!fold(u64::from(!checksum) + delta)).to_be_bytes());
    }

    /// Writes two bytes at any offset `at` of the L4 packet. An odd offset straddles two words of
    /// the sum, so whole words are compared.
    fn replace_l4(&mut self, at: usize, new: &[u8; 2]) {
        let first = self.ip.l4_offset + (at & !1);
        let last = (first + 2 + (at & 1) * 2).min(self.ip.end());
        let mut old = [0; 4];
        let window = &mut self.bytes[first..last];
        let length = window.len();
        old[..length].copy_from_slice(window);
        window[at & 1..(at & 1) + 2].copy_from_slice(new);
        let mut changed = [0; 4];
        changed[..length].copy_from_slice(window);
        self.update_l4(&old, &changed, false);
    }

    /// Brings the L4 checksum in step with a change from `old` to `new`.
    fn update_l4(&mut self, old: &[u8], new: &[u8], in_pseudo_header: bool) {
        let Some(Field { at, state }) = self.l4_checksum else { return };
        // ICMP, unlike ICMPv6, has no pseudo-header.
        if in_pseudo_header && self.ip.protocol == protocol::ICMP {
            return;
        }
        let value = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        let value = match state {
            State::Absent => return,
            State::Partial if in_pseudo_header => fold(u64::from(value) + delta(old, new)),
            State::Partial => return,
            // A UDP sum of zero is sent as all ones.
            State::Complete => match update(value, old, new) {
                0 if self.ip.protocol == protocol::UDP => 0xffff,
                value => value,
            },
        };
        self.bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }
}

impl Field {
    /// The L4 checksum, if the frame holds it (a later fragment does not) and we know where it is.
    fn of(bytes: &[u8], ip: &IpView, checksum: Checksum) -> Option<Self> {
        let offset = match ip.protocol {
            protocol::TCP => 16,
            protocol::UDP | protocol::UDP_LITE | protocol::DCCP => 6,
            protocol::ICMP | protocol::ICMPV6 => 2,
            _ => return None,
        };
        let at = ip.l4_offset + offset;
        if ip.fragment_offset != 0 || at + 2 > ip.end() {
            return None;
        }
        let partial = matches!(checksum, Checksum::Partial { start, offset } if usize::from(start) + usize::from(offset) == at);
        let absent = ip.protocol == protocol::UDP && bytes[at..at + 2] == [0, 0];
        let state = match (partial, absent) {
            (true, _) => State::Partial,
            (false, true) => State::Absent,
            (false, false) => State::Complete,
        };
        Some(Self { at, state })
    }
}

/// What a change from `old` to `new` (even lengths) adds to a sum.
fn delta(old: &[u8], new: &[u8]) -> u64 {
    u64::from(!fold(sum(old))) + sum(new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Offload, Pool, PoolConfig, checksum, testing::{Sample, oracle_verifies}};

    fn edit_everything(frame: &mut Frame, seed: [u8; 16], ports: [u16; 2]) {
        let ipv4 = PacketMut::new(frame).unwrap().is_ipv4();
        let address = |seed: [u8; 16]| if ipv4 { IpAddr::from([seed[0], seed[1], seed[2], seed[3]]) } else { IpAddr::from(seed) };
        let mut packet = PacketMut::new(frame).unwrap();
        assert!(packet.set_source(address(seed)));
        assert!(packet.set_destination(address(seed.map(|byte| !byte))));
        assert_eq!(packet.set_source_port(ports[0]), packet.ip().protocol != protocol::ICMPV6);
        assert_eq!(packet.set_destination_port(ports[1]), packet.ip().protocol != protocol::ICMPV6);
        packet.set_hop_limit(seed[4]);
        packet.set_dscp(seed[5]);
        packet.set_ecn(seed[6]);
        assert!(packet.clamp_mss(536) || packet.ip().protocol != protocol::TCP);
        assert!(!packet.set_source(if ipv4 { IpAddr::from([0; 16]) } else { IpAddr::from([0; 4]) }));
    }

    proptest! {
        #[test]
        fn complete_checksums_stay_right(sample: Sample, seed: [u8; 16], ports: [u16; 2]) {
            let pool = Pool::new(PoolConfig::default());
            let mut frame = pool.copy_of(&sample.bytes()).unwrap();
            prop_assert!(oracle_verifies(frame.bytes()));
            edit_everything(&mut frame, seed, ports);
            prop_assert!(oracle_verifies(frame.bytes()));
            prop_assert!(checksum::verify(frame.bytes()));
        }

        #[test]
        fn a_wrong_checksum_stays_wrong(sample: Sample, seed: [u8; 16], ports: [u16; 2], error in 1_u8..=255) {
            let pool = Pool::new(PoolConfig::default());
            let mut frame = pool.copy_of(&sample.bytes()).unwrap();
            let end = frame.len() - 1;
            frame.bytes_mut()[end] ^= error;
            edit_everything(&mut frame, seed, ports);
            prop_assert!(!oracle_verifies(frame.bytes()));
        }

        /// Editing and then completing gives the same bytes as completing and then editing.
        #[test]
        fn partial_checksums_commute_with_completion(sample: Sample, seed: [u8; 16], ports: [u16; 2]) {
            let pool = Pool::new(PoolConfig::default());
            let (bytes, partial) = sample.partial();
            let mut before = pool.copy_of(&bytes).unwrap();
            before.offload = Offload { checksum: partial, ..Offload::NONE };
            let mut after = before.duplicate().unwrap();
            checksum::complete(&mut before);
            edit_everything(&mut before, seed, ports);
            edit_everything(&mut after, seed, ports);
            checksum::complete(&mut after);
            prop_assert_eq!(before.bytes(), after.bytes());
            prop_assert!(oracle_verifies(after.bytes()));
        }

        #[test]
        fn fields_read_back(sample: Sample, hops: u8, dscp in 0_u8..64, ecn in 0_u8..4) {
            let pool = Pool::new(PoolConfig::default());
            let mut frame = pool.copy_of(&sample.bytes()).unwrap();
            let mut packet = PacketMut::new(&mut frame).unwrap();
            packet.set_hop_limit(hops);
            packet.set_dscp(dscp);
            packet.set_ecn(ecn);
            let ip = *packet.ip();
            let header = &frame.bytes()[ip.offset..];
            let class = if ip.source.is_ipv4() { header[1] } else { header[0] << 4 | header[1] >> 4 };
            prop_assert_eq!(header[if ip.source.is_ipv4() { 8 } else { 7 }], hops);
            prop_assert_eq!(class, dscp << 2 | ecn);
            prop_assert_eq!(header[0] >> 4, if ip.source.is_ipv4() { 4 } else { 6 });
        }
    }

    fn udp() -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        bytes.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend([0, 53, 0x30, 0x39, 0, 12, 0, 0, 1, 2, 3, 4]);
        bytes
    }

    fn edited(bytes: &[u8], edit: impl FnOnce(&mut PacketMut<'_>)) -> Vec<u8> {
        let pool = Pool::new(PoolConfig::default());
        let mut frame = pool.copy_of(bytes).unwrap();
        edit(&mut PacketMut::new(&mut frame).unwrap());
        frame.bytes().to_vec()
    }

    #[test]
    fn udp_without_a_checksum_stays_without() {
        let after = edited(&udp(), |packet| assert!(packet.set_source([1, 2, 3, 4].into()) && packet.set_source_port(9)));
        assert_eq!(after[34..42], [0, 9, 0x30, 0x39, 0, 12, 0, 0]);
    }

    #[test]
    fn a_udp_sum_that_becomes_zero_is_sent_as_all_ones() {
        let mut bytes = udp();
        bytes[40..42].copy_from_slice(&[0x00, 0x01]);
        let after = edited(&bytes, |packet| assert!(packet.set_source_port(54)));
        assert_eq!(after[40..42], [0xff, 0xff]);
    }

    #[test]
    fn behind_a_routing_header_the_destination_is_not_covered() {
        let sample = Sample { ipv6: true, ip_extra: true, ..Sample::tcp4() };
        let mut bytes = sample.bytes();
        // Routing header with one segment left, for the destination options.
        bytes[20] = 43;
        bytes[57] = 1;
        let moved = edited(&bytes, |packet| assert!(packet.set_destination([9; 16].into())));
        assert_eq!((&moved[38..54], &moved[54..]), (&[9; 16][..], &bytes[54..]));
        let moved = edited(&bytes, |packet| assert!(packet.set_source([9; 16].into())));
        assert_ne!(moved[54..], bytes[54..], "the source is");
    }

    #[test]
    fn a_later_fragment_has_no_ports_and_no_checksum_to_change() {
        let mut bytes = udp();
        bytes[21] = 1;
        let after = edited(&bytes, |packet| assert!(packet.set_source([1, 2, 3, 4].into()) && !packet.set_source_port(9)));
        assert_eq!(after[34..], bytes[34..]);
    }

    #[test]
    fn icmp_covers_no_addresses_but_its_id() {
        let mut bytes = udp();
        bytes[23] = protocol::ICMP;
        bytes[34..46].copy_from_slice(&[8, 0, 0xf7, 0xfd, 0, 1, 0, 1, 0, 0, 0, 0]);
        let moved = edited(&bytes, |packet| assert!(packet.set_source([1, 2, 3, 4].into()) && !packet.set_source_port(9)));
        assert_eq!(moved[34..], bytes[34..]);
        let renamed = edited(&bytes, |packet| assert!(packet.set_echo_id(0x0102)));
        assert_eq!(renamed[34..42], [8, 0, 0xf6, 0xfc, 1, 2, 0, 1]);
    }

    #[test]
    fn mss_behind_odd_padding_is_clamped_once() {
        let sample = Sample { tcp_options: vec![1, 2, 4, 5, 0xb4, 1, 1, 0], ..Sample::tcp4() };
        let pool = Pool::new(PoolConfig::default());
        let mut frame = pool.copy_of(&sample.bytes()).unwrap();
        let mut packet = PacketMut::new(&mut frame).unwrap();
        assert!(packet.clamp_mss(1400) && !packet.clamp_mss(1400) && !packet.clamp_mss(1500));
        assert_eq!(packet.mss().unwrap().1, 1400);
        assert!(oracle_verifies(frame.bytes()));
    }
}
