//! ICMP errors belong to the flow of the packet that they quote, and are translated with it: the addresses
//! outside and the quoted ones (RFC 5508 section 4, RFC 5382 REQ-9, RFC 4787 REQ-12).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::{Frame, IpView, Parsed, checksum, checksum::protocol};

use crate::{
    NatDrop,
    tuple::{End, Tuple},
};

/// Bytes of an ICMP error before the quoted packet.
const HEADER: usize = 8;
/// Extension headers of a quoted packet followed at most.
const EXTENSIONS: usize = 4;

/// A quoted packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted {
    pub(crate) tuple: Tuple,
    /// From the start of the frame.
    ip: usize,
    l4: usize,
    end: usize,
}

/// Which end of the quoted packet to rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Source,
    Destination,
}

impl Quoted {
    /// Reads what an ICMP error quotes.
    ///
    /// # Errors
    /// When a checksum of it is wrong (RFC 5508 REQ-3), or it shows no flow.
    pub(crate) fn of(frame: &Frame) -> Result<Self, NatDrop> {
        let bytes = frame.bytes();
        let ip = Parsed::new(bytes).and_then(|parsed| parsed.ip).ok_or(NatDrop::Malformed)?;
        if !checksum::verify(bytes) {
            return Err(NatDrop::Malformed);
        }
        let start = ip.l4_offset + HEADER;
        let quoted = bytes.get(start..ip.end()).ok_or(NatDrop::IcmpQuote)?;
        let parts = match quoted.first().map(|byte| byte >> 4) {
            Some(4) if ip.source.is_ipv4() => ipv4(quoted),
            Some(6) if ip.source.is_ipv6() => ipv6(quoted),
            _ => None,
        };
        let (source, destination, number, l4) = parts.ok_or(NatDrop::IcmpQuote)?;
        let ports = quoted.get(l4..).and_then(|l4| ports(number, l4)).ok_or(NatDrop::IcmpQuote)?;
        let tuple = Tuple { protocol: number, source: End::new(source, ports.0), destination: End::new(destination, ports.1), flags: 0 };
        Ok(Self { tuple, ip: start, l4: start + l4, end: ip.end() })
    }

    /// Writes an end of the quoted packet; the checksums within it follow where they are there.
    pub(crate) fn rewrite(&self, bytes: &mut [u8], which: Which, end: End) {
        let old = if which == Which::Source { self.tuple.source } else { self.tuple.destination };
        let is_source = which == Which::Source;
        let mut changed = Changes::default();
        match (old.ip, end.ip) {
            (IpAddr::V4(old), IpAddr::V4(new)) => {
                let at = self.ip + if is_source { 12 } else { 16 };
                bytes[at..at + 4].copy_from_slice(&new.octets());
                update(bytes, self.ip + 10, &old.octets(), &new.octets());
                if self.tuple.protocol != protocol::ICMP {
                    changed.add(&old.octets(), &new.octets());
                }
            }
            (IpAddr::V6(old), IpAddr::V6(new)) => {
                let at = self.ip + if is_source { 8 } else { 24 };
                bytes[at..at + 16].copy_from_slice(&new.octets());
                changed.add(&old.octets(), &new.octets());
            }
            _ => return,
        }
        let at = match self.tuple.protocol {
            protocol::TCP | protocol::UDP => Some(if is_source { 0 } else { 2 }),
            // The end that asked is the one with the identifier.
            protocol::ICMP | protocol::ICMPV6 if old.port != 0 || end.port != 0 => Some(4),
            _ => None,
        };
        if let Some(field) = at.map(|at| self.l4 + at).filter(|at| at + 2 <= self.end) {
            changed.add(&[bytes[field], bytes[field + 1]], &end.port.to_be_bytes());
            bytes[field..field + 2].copy_from_slice(&end.port.to_be_bytes());
        }
        let sum = match self.tuple.protocol {
            protocol::TCP => 16,
            protocol::UDP => 6,
            protocol::ICMP | protocol::ICMPV6 => 2,
            _ => return,
        };
        let sum = self.l4 + sum;
        let absent = self.tuple.protocol == protocol::UDP && bytes.get(sum..sum + 2) == Some(&[0, 0]);
        if sum + 2 <= self.end && !absent {
            changed.iter().for_each(|(old, new)| update(bytes, sum, old, new));
        }
    }
}

/// Fields that an L4 checksum covers, before and after.
#[derive(Default)]
struct Changes {
    fields: [([u8; 16], [u8; 16], usize); 2],
    count: usize,
}

impl Changes {
    fn add(&mut self, old: &[u8], new: &[u8]) {
        let field = &mut self.fields[self.count];
        field.0[..old.len()].copy_from_slice(old);
        field.1[..new.len()].copy_from_slice(new);
        field.2 = old.len();
        self.count += 1;
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields[..self.count].iter().map(|(old, new, length)| (&old[..*length], &new[..*length]))
    }
}

fn update(bytes: &mut [u8], at: usize, old: &[u8], new: &[u8]) {
    let value = checksum::update(u16::from_be_bytes([bytes[at], bytes[at + 1]]), old, new);
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Sums an ICMP message anew, after its quote was rewritten.
pub(crate) fn seal(bytes: &mut [u8], ip: &IpView) {
    let field = ip.l4_offset + 2;
    bytes[field..field + 2].fill(0);
    let message = &bytes[ip.l4_offset..ip.end()];
    let pseudo = if ip.protocol == protocol::ICMPV6 { checksum::pseudo_header(&bytes[ip.offset..], ip.protocol, message.len()).unwrap_or(0) } else { 0 };
    let value = !checksum::fold(checksum::sum(message) + pseudo);
    bytes[field..field + 2].copy_from_slice(&value.to_be_bytes());
}

type Parts = (IpAddr, IpAddr, u8, usize);

fn ipv4(quoted: &[u8]) -> Option<Parts> {
    let header = quoted.get(..20)?;
    let length = usize::from(header[0] & 0xf) * 4;
    let is_first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
    let is_right = checksum::fold(checksum::sum(quoted.get(..length)?)) == 0xffff;
    let address = |at: usize| quoted[at..].first_chunk::<4>().map(|octets| IpAddr::from(Ipv4Addr::from(*octets)));
    (length >= 20 && is_first && is_right).then_some((address(12)?, address(16)?, header[9], length))
}

fn ipv6(quoted: &[u8]) -> Option<Parts> {
    let header = quoted.get(..40)?;
    let address = |at: usize| header[at..].first_chunk::<16>().map(|octets| IpAddr::from(Ipv6Addr::from(*octets)));
    let (mut number, mut l4) = (header[6], 40);
    for _ in 0..EXTENSIONS {
        if !matches!(number, 0 | 44 | 60) {
            break;
        }
        let extension = quoted.get(l4..l4 + 8)?;
        if number == 44 && u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0 {
            return None;
        }
        l4 += if number == 44 { 8 } else { (usize::from(extension[1]) + 1) * 8 };
        number = extension[0];
    }
    Some((address(8)?, address(24)?, number, l4))
}

/// Ports of a quoted packet, or the identifier on the side that asked.
fn ports(number: u8, l4: &[u8]) -> Option<(u16, u16)> {
    let word = |at: usize| l4.get(at..at + 2).map(|word| u16::from_be_bytes([word[0], word[1]]));
    match (number, l4.first()) {
        (protocol::TCP | protocol::UDP, _) => Some((word(0)?, word(2)?)),
        (protocol::ICMP, Some(8)) | (protocol::ICMPV6, Some(128)) => Some((word(4)?, 0)),
        (protocol::ICMP, Some(0)) | (protocol::ICMPV6, Some(129)) => Some((0, word(4)?)),
        (protocol::ICMP | protocol::ICMPV6, _) => None,
        _ => Some((0, 0)),
    }
}
