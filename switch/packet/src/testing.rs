//! Frames for tests, and an independent judge of their checksums.

use proptest::prelude::*;
use smoltcp::wire::{
    EthernetFrame, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6ExtHeader, Ipv6Packet, TcpPacket, UdpPacket,
};

use crate::{
    checksum::{fold, protocol, pseudo_header, sum},
    offload::{Checksum, Gso, Offload},
    pool::Pool,
    Frame,
};

/// A sound frame, to be varied.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) tags: usize,
    pub(crate) ipv6: bool,
    /// IPv4 options or an IPv6 extension header.
    pub(crate) ip_extra: bool,
    pub(crate) protocol: u8,
    pub(crate) source_port: u16,
    pub(crate) id: u16,
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    pub(crate) tcp_options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Arbitrary for Sample {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    /// TCP SYNs with an MSS of 1460, UDP, ICMPv6.
    fn arbitrary_with((): ()) -> Self::Strategy {
        let kinds = prop_oneof![Just((false, 6)), Just((false, 17)), Just((true, 6)), Just((true, 17)), Just((true, 58))];
        (0_usize..3, kinds, any::<bool>(), any::<u16>(), any::<u16>(), proptest::collection::vec(any::<u8>(), 1..200))
            .prop_map(|(tags, (ipv6, protocol), ip_extra, source_port, id, payload)| Self {
                tags, ipv6, ip_extra, protocol, source_port, id, payload, ..Self::tcp4()
            })
            .boxed()
    }
}

impl Sample {
    pub(crate) fn tcp4() -> Self {
        Self {
            tags: 0,
            ipv6: false,
            ip_extra: false,
            protocol: protocol::TCP,
            source_port: 1234,
            id: 7,
            sequence: 0xffff_fff0,
            flags: 0x02,
            tcp_options: vec![2, 4, 5, 0xb4],
            payload: vec![1, 2, 3],
        }
    }

    /// The frame as the wire would carry it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (mut bytes, checksum) = self.partial();
        let Checksum::Partial { start, offset } = checksum else { panic!("a partial checksum") };
        let (start, field) = (usize::from(start), usize::from(start + offset));
        let value = match !fold(sum(&bytes[start..])) {
            0 if self.protocol == protocol::UDP => 0xffff,
            value => value,
        };
        bytes[field..field + 2].copy_from_slice(&value.to_be_bytes());
        bytes
    }

    /// The frame with its L4 checksum left to be finished.
    pub(crate) fn partial(&self) -> (Vec<u8>, Checksum) {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for tag in (0..self.tags).rev() {
            bytes.extend([[0x81, 0, 0, 5], [0x88, 0xa8, 0xa0, 6]][tag]);
        }
        bytes.extend(if self.ipv6 { [0x86, 0xdd] } else { [8, 0] });
        let (mut l4, offset) = self.l4();
        let ip = self.ip(l4.len());
        let pseudo = fold(pseudo_header(&ip, self.protocol, l4.len()).unwrap());
        l4[offset..offset + 2].copy_from_slice(&pseudo.to_be_bytes());
        bytes.extend(ip);
        let start = u16::try_from(bytes.len()).unwrap();
        bytes.extend(l4);
        (bytes, Checksum::Partial { start, offset: u16::try_from(offset).unwrap() })
    }

    /// The frame as a super-frame of segments with `size` bytes of payload.
    pub(crate) fn super_frame(&self, pool: &Pool, size: u16) -> Frame {
        let (bytes, checksum) = self.partial();
        let mut frame = pool.copy_of(&bytes).unwrap();
        let gso = match (self.protocol, self.ipv6) {
            (protocol::TCP, false) => Gso::Tcp4 { size, ecn: true },
            (protocol::TCP, true) => Gso::Tcp6 { size, ecn: true },
            _ => Gso::Udp { size },
        };
        frame.offload = Offload { checksum, gso };
        frame
    }

    fn ip(&self, l4_len: usize) -> Vec<u8> {
        let length = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
        if self.ipv6 {
            let mut ip = vec![0x60, 0, 0, 0, 0, 0, self.protocol, 64];
            ip.extend([0xfd; 16]);
            ip.extend([0xfc; 16]);
            if self.ip_extra {
                ip[6] = 60;
                ip.extend([self.protocol, 0, 1, 4, 0, 0, 0, 0]);
            }
            let payload = length(ip.len() - 40 + l4_len);
            ip[4..6].copy_from_slice(&payload);
            return ip;
        }
        let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, self.protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        ip[4..6].copy_from_slice(&self.id.to_be_bytes());
        if self.ip_extra {
            // Router alert (RFC 2113).
            ip.extend([148, 4, 0, 0]);
            ip[0] = 0x46;
        }
        let total = length(ip.len() + l4_len);
        ip[2..4].copy_from_slice(&total);
        let checksum = !fold(sum(&ip));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        ip
    }

    /// The L4 packet, and where its checksum is.
    fn l4(&self) -> (Vec<u8>, usize) {
        let [source, target] = [self.source_port.to_be_bytes(), [0, 80]];
        let ports = [source[0], source[1], target[0], target[1]];
        let (mut l4, offset) = match self.protocol {
            protocol::TCP => {
                let mut l4 = [&ports[..], &self.sequence.to_be_bytes(), &[0, 0, 0, 9]].concat();
                l4.extend([u8::try_from(5 + self.tcp_options.len() / 4).unwrap() << 4, self.flags, 1, 0, 0, 0, 0, 0]);
                l4.extend(&self.tcp_options);
                (l4, 16)
            }
            protocol::ICMPV6 => (vec![128, 0, 0, 0, 0, 1, 0, 1], 2),
            _ => {
                let length = u16::try_from(8 + self.payload.len()).unwrap().to_be_bytes();
                ([&ports[..], &length, &[0, 0]].concat(), 6)
            }
        };
        l4.extend(&self.payload);
        (l4, offset)
    }
}

/// Whether smoltcp finds every length and checksum right.
#[expect(clippy::wildcard_enum_match_arm, reason = "smoltcp's enum has a variant per protocol")]
pub(crate) fn oracle_verifies(bytes: &[u8]) -> bool {
    let mut bytes = bytes.to_vec();
    while matches!(bytes[12..14], [0x81, 0] | [0x88, 0xa8]) {
        bytes.drain(12..16);
    }
    let ethernet = EthernetFrame::new_checked(&bytes[..]).unwrap();
    if bytes[12] == 8 {
        let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
        return ip.verify_checksum()
            && match ip.next_header() {
                IpProtocol::Tcp => TcpPacket::new_checked(ip.payload()).unwrap().verify_checksum(&source, &destination),
                _ => UdpPacket::new_checked(ip.payload()).unwrap().verify_checksum(&source, &destination),
            };
    }
    let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    let (mut next, mut payload) = (ip.next_header(), ip.payload());
    if next == IpProtocol::Ipv6Opts {
        let extension = Ipv6ExtHeader::new_checked(payload).unwrap();
        next = extension.next_header();
        payload = &payload[usize::from(extension.header_len()) * 8 + 8..];
    }
    match next {
        IpProtocol::Tcp => TcpPacket::new_checked(payload).unwrap().verify_checksum(&source.into(), &destination.into()),
        IpProtocol::Udp => UdpPacket::new_checked(payload).unwrap().verify_checksum(&source.into(), &destination.into()),
        _ => Icmpv6Packet::new_checked(payload).unwrap().verify_checksum(&source, &destination),
    }
}
