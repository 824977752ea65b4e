//! What names a flow: two ends and a protocol.

use std::{fmt, net::IpAddr};

use packet::{Keyed, NetworkId, PacketMut, address_words, checksum::protocol};

use crate::{
    NatDrop,
    tcp_state::{ACK, RST, SYN},
};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From a network to the outside.
    Out = 0,
    /// From the outside into a network.
    In = 1,
}

/// An address with its L4 port; with the identifier of an echo query, on the side that asks; with 0 where
/// the protocol has neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End {
    /// The address.
    pub ip: IpAddr,
    /// The L4 port.
    pub port: u16,
}

impl End {
    /// An end.
    #[must_use]
    pub const fn new(ip: IpAddr, port: u16) -> Self {
        Self { ip, port }
    }
}

impl From<std::net::SocketAddr> for End {
    fn from(at: std::net::SocketAddr) -> Self {
        Self::new(at.ip(), at.port())
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// What a packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) protocol: u8,
    pub(crate) source: End,
    pub(crate) destination: End,
    /// TCP's flags; those of a SYN for an echo request.
    pub(crate) flags: u8,
}

impl Tuple {
    /// Whether a flow may begin with it.
    pub(crate) fn opens(&self) -> bool {
        match self.protocol {
            protocol::TCP | protocol::ICMP | protocol::ICMPV6 => self.flags & (SYN | ACK | RST) == SYN,
            _ => true,
        }
    }
}

/// What translation makes of a packet, by its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of a flow.
    Flow(Tuple),
    /// An ICMP error, which belongs to the flow of the packet that it quotes.
    Error,
    /// A fragment without ports.
    LaterFragment,
}

/// TCP's header without options, bytes.
const TCP_HEADER: usize = 20;

/// Reads a packet.
///
/// # Errors
/// When it is malformed, or of a kind that is never translated.
#[inline]
pub(crate) fn read(packet: &PacketMut<'_>) -> Result<Kind, NatDrop> {
    let (ip, l4) = (packet.ip(), packet.l4());
    if ip.fragment_offset != 0 {
        // RFC 1858 section 4: nothing of a TCP header may come later.
        return if ip.protocol == protocol::TCP && usize::from(ip.fragment_offset) < TCP_HEADER { Err(NatDrop::TinyFragment) } else { Ok(Kind::LaterFragment) };
    }
    if ip.routed {
        return Err(NatDrop::Malformed);
    }
    let ends = |source: u16, destination: u16, flags: u8| {
        Ok(Kind::Flow(Tuple { protocol: ip.protocol, source: End::new(ip.source, source), destination: End::new(ip.destination, destination), flags }))
    };
    let cut_short = if ip.is_fragment() { NatDrop::TinyFragment } else { NatDrop::Malformed };
    let word = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    match ip.protocol {
        protocol::TCP => {
            let header = l4.get(..TCP_HEADER).ok_or(cut_short)?;
            let length = usize::from(header[12] >> 4) * 4;
            if length < TCP_HEADER || length > l4.len() || word(0) == 0 || word(2) == 0 {
                return Err(NatDrop::Malformed);
            }
            ends(word(0), word(2), header[13])
        }
        protocol::UDP => {
            if l4.len() < 8 {
                return Err(cut_short);
            }
            // A length of zero is a super-frame's (RFC 2675 section 4); a fragment's counts the others too.
            let length = usize::from(word(4));
            if word(2) == 0 || length != 0 && (length < 8 || !ip.is_fragment() && length > l4.len()) {
                return Err(NatDrop::Malformed);
            }
            ends(word(0), word(2), 0)
        }
        protocol::ICMP | protocol::ICMPV6 => {
            if l4.len() < 8 {
                return Err(cut_short);
            }
            match (ip.protocol == protocol::ICMP && ip.source.is_ipv4(), l4[0]) {
                (true, 8) | (false, 128) => ends(word(4), 0, SYN),
                (true, 0) | (false, 129) => ends(0, word(4), 0),
                // Unreachable, time exceeded, parameter problem; IPv6 also packet too big (RFC 5508 section 4).
                (true, 3 | 11 | 12) | (false, 1..=4) if !ip.is_fragment() => Ok(Kind::Error),
                _ => Err(NatDrop::Unsupported),
            }
        }
        _ => ends(0, 0, 0),
    }
}

/// Tables that share one index.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(crate) enum Table {
    /// Connections as inside sees them.
    Inside = 1,
    /// Connections as outside sees them.
    Outside = 2,
    /// Mappings by inside end.
    Mapping = 3,
    /// Mappings by external end.
    External = 4,
    /// Addresses that a mapping sent to.
    Contact = 5,
}

/// Hash of a key of one of the tables; what it lacks in strength, probing runs of a half-empty table bound.
#[inline]
pub(crate) fn hash(key: Keyed, table: Table, realm: u64, protocol: u8, first: End, second: End) -> u64 {
    if let (IpAddr::V4(one), IpAddr::V4(other)) = (first.ip, second.ip) {
        return hash_v4(key, table, realm, protocol, (one.into(), first.port), (other.into(), second.port));
    }
    let ([a, b], [c, d]) = (address_words(first.ip), address_words(second.ip));
    let families = u64::from(first.ip.is_ipv6()) << 1 | u64::from(second.ip.is_ipv6());
    let ports = u64::from(first.port) << 48 | u64::from(second.port) << 32 | u64::from(protocol) << 16 | families << 8 | table as u64;
    key.words([a, b, c, d, ports, realm])
}

/// The same for two IPv4 ends, as plain words.
#[inline]
pub(crate) fn hash_v4(key: Keyed, table: Table, realm: u64, protocol: u8, first: (u32, u16), second: (u32, u16)) -> u64 {
    let addresses = u64::from(first.0) << 32 | u64::from(second.0);
    let ports = u64::from(first.1) << 48 | u64::from(second.1) << 32 | u64::from(protocol) << 16 | table as u64;
    key.words([addresses, ports, realm])
}

/// A network as a word of a key.
#[inline]
pub(crate) fn realm(network: NetworkId) -> u64 {
    u64::from(network.generation()) << 32 | network.index() as u64
}
