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
const PORTS: usize = L4 + 4;

/// What a plain packet says.
#[derive(Clone, Copy, Debug)]
struct Plain {
    protocol: u8,
    source: (u32, u16),
    destination: (u32, u16),
}

/// A plain packet's connection.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    at: u32,
    direction: Direction,
    /// The network it goes into; none is outside.
    pub to: Option<NetworkId>,
    /// Where it goes to once it is rewritten.
    pub destination: u32,
}

impl Plain {
    #[inline]
    fn of(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<{ PORTS + 4 }>()?;
        let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = usize::from(half(IP + 2));
        if half(12) != 0x0800 || header[IP] != 0x45 || half(IP + 6) & 0x3fff != 0 || IP + length > bytes.len() || header[IP + 8] <= 1 {
            return None;
        }
        let number = header[IP + 9];
        let is_plain = match number {
            protocol::TCP => bytes.get(L4 + 13).is_some_and(|flags| flags & (SYN | FIN | RST) == 0) && length >= 40,
            // A length of zero is a super-frame's.
            protocol::UDP => length >= 28 && matches!(usize::from(half(L4 + 4)), claimed if claimed == 0 || (claimed >= 8 && claimed <= length - 20)),
            _ => false,
        };
        is_plain.then(|| Self { protocol: number, source: (word(IP + 12), half(L4)), destination: (word(IP + 16), half(L4 + 2)) })
    }
}

fn is(end: End, v4: (u32, u16)) -> bool {
    end.port == v4.1 && matches!(end.ip, IpAddr::V4(ip) if u32::from(ip) == v4.0)
}

fn v4_of(end: End) -> Option<u32> {
    if let IpAddr::V4(ip) = end.ip { Some(ip.into()) } else { None }
}

impl Nat {
    /// The connection of a plain packet, if it has one; nothing changes.
    #[inline]
    #[must_use]
    pub fn find(&self, from: Option<NetworkId>, frame: &Frame, now: Instant) -> Option<Hit> {
        let plain = Plain::of(frame.bytes())?;
        let (key, all) = (self.key, &self.conntrack);
        let (at, direction) = match from {
            Some(network) => {
                let hash = hash_v4(key, Table::Inside, realm(network), plain.protocol, plain.source, plain.destination);
                let is_it = |found: &Connection| {
                    is(found.inside, plain.source) && is(found.outside, plain.destination) && found.protocol == plain.protocol && found.network == network
                };
                (all.find(hash, is_it)?, Direction::Out)
            }
            None => {
                let hash = hash_v4(key, Table::Outside, 0, plain.protocol, plain.destination, plain.source);
                let is_it = |found: &Connection| is(found.external, plain.destination) && is(found.outside, plain.source) && found.protocol == plain.protocol;
                (all.find(hash, is_it)?, Direction::In)
            }
        };
        let connection = all.get(at)?;
        // The first packet out is noted with the mapping, the long way.
        let is_usual = (connection.sent || direction == Direction::In) && connection.expires > now && !connection.hairpin;
        if !is_usual {
            return None;
        }
        Some(match direction {
            Direction::Out => Hit { at, direction, to: None, destination: plain.destination.0 },
            Direction::In => Hit { at, direction, to: Some(connection.network), destination: v4_of(connection.inside)? },
        })
    }

    /// Translates the packet that [`find`](Self::find) found the connection of, and takes a hop of it. False
    /// when there is no buffer to write in.
    #[inline]
    pub fn rewrite(&mut self, hit: Hit, frame: &mut Frame, now: Instant) -> bool {
        let length = frame.len();
        if !frame.make_unique() {
            return false;
        }
        let Some(connection) = self.conntrack.get_mut(hit.at) else { return false };
        // Flags that matter were none.
        connection.packet(hit.direction, 0, length, now, &self.config.lifetimes);
        let (end, address_at, port_at) = match hit.direction {
            Direction::Out => (connection.external, IP + 12, L4),
            Direction::In => (connection.inside, IP + 16, L4 + 2),
        };
        // The way back takes off what the way out adds.
        let turn = |delta: u16| if hit.direction == Direction::Out { delta } else { !delta };
        let (address, port, number) = (turn(connection.address_delta), turn(connection.port_delta), connection.protocol);
        let Some(ip) = v4_of(end) else { return false };
        let checksum = frame.offload.checksum;
        let Some(bytes) = frame.bytes_mut().first_chunk_mut::<{ PORTS + 4 }>() else { return false };
        bytes[address_at..address_at + 4].copy_from_slice(&ip.to_be_bytes());
        bytes[port_at..port_at + 2].copy_from_slice(&end.port.to_be_bytes());
        bytes[IP + 8] -= 1;
        // One hop less takes 0x0100 off the word it is in.
        let sum = added([bytes[IP + 10], bytes[IP + 11]], u32::from(address) + u32::from(!0x0100_u16));
        bytes[IP + 10..IP + 12].copy_from_slice(&sum);
        if number == protocol::UDP {
            let field = [bytes[L4 + 6], bytes[L4 + 7]];
            let sum = match checksum {
                Checksum::Partial { .. } => partial(field, address),
                Checksum::Complete if field == [0, 0] => field,
                // A UDP sum of zero is sent as all ones.
                Checksum::Complete => match added(field, u32::from(address) + u32::from(port)) {
                    [0, 0] => [0xff, 0xff],
                    sum => sum,
                },
            };
            bytes[L4 + 6..L4 + 8].copy_from_slice(&sum);
            return true;
        }
        // A TCP header's sum lies behind what a UDP packet must have.
        let Some(field) = frame.bytes_mut().get_mut(L4 + 16..L4 + 18).and_then(|field| field.first_chunk_mut::<2>()) else { return false };
        *field = match checksum {
            Checksum::Partial { .. } => partial(*field, address),
            Checksum::Complete => added(*field, u32::from(address) + u32::from(port)),
        };
        true
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
