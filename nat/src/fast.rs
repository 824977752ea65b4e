//! Packets of connections that are there, without the long way round.
//!
//! Most packets are plain: IPv4 without options or tags, whole, TCP that neither opens nor closes, or UDP,
//! of a connection that is there. For these all that translation does is known beforehand: two
//! fields to write, and what that adds to the checksums (RFC 1624), kept with the connection. Whatever is
//! not plain is left to [`translate`](crate::translate), which decides alike.

use std::net::IpAddr;

use packet::{Checksum, Frame, Instant, NetworkId, checksum::fold, checksum::protocol};

use crate::{
    Nat,
    conntrack::Connection,
    tcp_state::{FIN, RST, SYN},
    tuple::{Direction, End, Table, hash_v4, realm},
};

/// Ethernet and IPv4 headers, and two ports: the same place in each plain packet.
const IP: usize = 14;
const L4: usize = IP + 20;
/// Bytes that each plain packet has: to the end of UDP's header.
const PLAIN: usize = L4 + 8;

/// What a plain packet says, in the order of its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plain {
    /// Source, then destination.
    addresses: u64,
    ports: u32,
    protocol: u8,
}

/// What is to be done to the plain packets of one direction of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    at: u32,
    serial: u32,
    direction: Direction,
    /// The network it goes into; none is outside.
    pub to: Option<NetworkId>,
    /// Where it goes to once it is rewritten.
    pub destination: u32,
    address: [u8; 4],
    port: [u8; 2],
    /// What that adds to the sum of addresses; with ports; with one hop less, which takes 0x0100 off the word it is in.
    address_delta: u16,
    both_delta: u32,
    header_delta: u32,
}

impl Plain {
    /// `None` unless it is plain.
    #[inline]
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<PLAIN>()?;
        let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let length = usize::from(half(IP + 2));
        // EtherType, version and header length; service class.
        let kind = u32::from_be_bytes([header[12], header[13], header[IP], header[IP + 1]]);
        if kind & 0xffff_ff00 != 0x0800_4500 || half(IP + 6) & 0x3fff != 0 || IP + length > bytes.len() || header[IP + 8] <= 1 {
            return None;
        }
        let protocol = header[IP + 9];
        let is_plain = match protocol {
            protocol::TCP => bytes.get(L4 + 13).is_some_and(|flags| flags & (SYN | FIN | RST) == 0) && length >= 40,
            // A length of zero is a super-frame's.
            protocol::UDP => length >= 28 && matches!(usize::from(half(L4 + 4)), claimed if claimed == 0 || (claimed >= 8 && claimed <= length - 20)),
            _ => false,
        };
        if !is_plain {
            return None;
        }
        let (addresses, ports) = (*header[IP + 12..L4].first_chunk()?, *header[L4..L4 + 4].first_chunk()?);
        Some(Self { addresses: u64::from_ne_bytes(addresses), ports: u32::from_ne_bytes(ports), protocol })
    }

    /// All of it in one word, not always told apart.
    #[inline]
    #[must_use]
    pub const fn mixed(&self) -> u64 {
        self.addresses ^ (self.ports as u64) << 16
    }

    /// Source and destination.
    fn ends(&self) -> ((u32, u16), (u32, u16)) {
        let ([a, b, c, d, e, f, g, h], [i, j, k, l]) = (self.addresses.to_ne_bytes(), self.ports.to_ne_bytes());
        let end = |address, port| (u32::from_be_bytes(address), u16::from_be_bytes(port));
        (end([a, b, c, d], [i, j]), end([e, f, g, h], [k, l]))
    }
}

fn is(end: End, v4: (u32, u16)) -> bool {
    end.port == v4.1 && matches!(end.ip, IpAddr::V4(ip) if u32::from(ip) == v4.0)
}

fn v4_of(end: End) -> Option<u32> {
    if let IpAddr::V4(ip) = end.ip { Some(ip.into()) } else { None }
}

impl Nat {
    /// What is to be done to a plain packet, if it is of a connection; nothing changes.
    #[must_use]
    pub fn find(&self, from: Option<NetworkId>, plain: &Plain, now: Instant) -> Option<Hit> {
        let (key, all, number) = (self.key, &self.conntrack, plain.protocol);
        let (source, destination) = plain.ends();
        let (at, direction) = match from {
            Some(network) => {
                let hash = hash_v4(key, Table::Inside, realm(network), number, source, destination);
                let is_it = |found: &Connection| is(found.inside, source) && is(found.outside, destination) && found.protocol == number && found.network == network;
                (all.find(hash, is_it)?, Direction::Out)
            }
            None => {
                let hash = hash_v4(key, Table::Outside, 0, number, destination, source);
                let is_it = |found: &Connection| is(found.external, destination) && is(found.outside, source) && found.protocol == number;
                (all.find(hash, is_it)?, Direction::In)
            }
        };
        let connection = all.get(at)?;
        // The first packet out is noted with the mapping, the long way.
        let is_usual = (connection.sent || direction == Direction::In) && !connection.hairpin && connection.expires > now;
        let (end, to) = match direction {
            Direction::Out => (connection.external, None),
            Direction::In => (connection.inside, Some(connection.network)),
        };
        let ip = v4_of(end)?;
        // The way back takes off what the way out adds.
        let turn = |delta: u16| if direction == Direction::Out { delta } else { !delta };
        let (address_delta, port_delta) = (turn(connection.address_delta), turn(connection.port_delta));
        is_usual.then_some(Hit {
            at,
            serial: connection.serial,
            direction,
            to,
            destination: if direction == Direction::Out { destination.0 } else { ip },
            address: ip.to_be_bytes(),
            port: end.port.to_be_bytes(),
            address_delta,
            both_delta: u32::from(address_delta) + u32::from(port_delta),
            header_delta: u32::from(address_delta) + u32::from(!0x0100_u16),
        })
    }

    /// Translates a plain packet that `hit` was found for, and takes a hop of it. Gives its headers, up to UDP's;
    /// `None`, and the packet as it was, when the connection lives no longer or there is no buffer to write in.
    #[inline]
    #[must_use]
    pub fn rewrite<'a>(&mut self, hit: &Hit, frame: &'a mut Frame, now: Instant) -> Option<&'a mut [u8; PLAIN]> {
        if !frame.make_unique() {
            return None;
        }
        let (length, checksum) = (frame.len(), frame.offload.checksum);
        let connection = self.conntrack.get_mut(hit.at).filter(|connection| connection.serial == hit.serial && connection.expires > now)?;
        // Flags that matter were none.
        connection.packet(hit.direction, 0, length, now, &self.config.lifetimes);
        let (address_at, port_at) = match hit.direction {
            Direction::Out => (IP + 12, L4),
            Direction::In => (IP + 16, L4 + 2),
        };
        let (bytes, rest) = frame.bytes_mut().split_first_chunk_mut::<PLAIN>()?;
        bytes[address_at..address_at + 4].copy_from_slice(&hit.address);
        bytes[port_at..port_at + 2].copy_from_slice(&hit.port);
        bytes[IP + 8] -= 1;
        let sum = added([bytes[IP + 10], bytes[IP + 11]], hit.header_delta);
        bytes[IP + 10..IP + 12].copy_from_slice(&sum);
        if bytes[IP + 9] == protocol::UDP {
            let field = [bytes[L4 + 6], bytes[L4 + 7]];
            let sum = match checksum {
                Checksum::Partial { .. } => partial(field, hit.address_delta),
                Checksum::Complete if field == [0, 0] => field,
                // A UDP sum of zero is sent as all ones.
                Checksum::Complete => match added(field, hit.both_delta) {
                    [0, 0] => [0xff, 0xff],
                    sum => sum,
                },
            };
            bytes[L4 + 6..L4 + 8].copy_from_slice(&sum);
        } else {
            // A TCP header's sum lies behind what a UDP packet must have.
            let field = rest.get_mut(L4 + 16 - PLAIN..)?.first_chunk_mut::<2>()?;
            *field = match checksum {
                Checksum::Partial { .. } => partial(*field, hit.address_delta),
                Checksum::Complete => added(*field, hit.both_delta),
            };
        }
        Some(bytes)
    }
}

/// RFC 1624 equation 3.
#[inline]
fn added(field: [u8; 2], delta: u32) -> [u8; 2] {
    (!fold(u64::from(!u16::from_be_bytes(field)) + u64::from(delta))).to_be_bytes()
}

/// The field holds the sum of the pseudo-header, uncomplemented.
#[inline]
fn partial(field: [u8; 2], address: u16) -> [u8; 2] {
    fold(u64::from(u16::from_be_bytes(field)) + u64::from(address)).to_be_bytes()
}

/// What a rewrite of `old` to `new` adds to a sum of addresses, and of ports.
pub(crate) fn deltas(old: End, new: End) -> (u16, u16) {
    let delta = |old: &[u8], new: &[u8]| fold(u64::from(!fold(packet::checksum::sum(old))) + packet::checksum::sum(new));
    let address = match (old.ip, new.ip) {
        (IpAddr::V4(old), IpAddr::V4(new)) => delta(&old.octets(), &new.octets()),
        _ => 0,
    };
    (address, delta(&old.port.to_be_bytes(), &new.port.to_be_bytes()))
}
