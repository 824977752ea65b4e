//! Connections, each found by what inside sees of it and by what outside sees.
//!
//! A connection is made by the first packet that a rule lets pass, and is provisional until that packet
//! was taken: [`Conntrack::undo`] forgets it again. It lives as long as its lifetime after the last packet
//! that refreshed it: any from inside but an ICMP error or a reset (RFC 7857 section 6), and those from
//! outside once inside has sent something (so nobody outside keeps a mapping alive alone; RFC 4787 REQ-6).
//!
//! In a full table the least established of a few that the hand of a clock comes by gives way: unanswered,
//! then closing, then idle datagrams; never an established TCP connection. Else the new one is refused.

use std::net::IpAddr;

use packet::{Instant, Keyed, NetworkId, checksum::protocol};

use crate::{
    index::Index,
    lifetime::Lifetimes,
    mapping::Slab,
    rule::ForwardId,
    tcp_state::{RST, TcpState},
    tuple::{Direction, End, Table, hash, realm},
};

/// Connections looked at when one must give way.
const SAMPLE: u32 = 64;
/// Slots swept in one go.
const SWEEP: u32 = 16_384;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) network: NetworkId,
    /// Tells it from others that had its slot (till 2^32 more were made).
    pub(crate) serial: u32,
    pub(crate) protocol: u8,
    pub(crate) inside: End,
    pub(crate) outside: End,
    pub(crate) external: End,
    pub(crate) mapping: Option<u32>,
    pub(crate) forward: Option<ForwardId>,
    /// It goes to a virtual address: how many endpoints would not have it.
    pub(crate) balanced: Option<u8>,
    /// Which side opened it.
    pub(crate) opened: Direction,
    /// Inside has sent.
    pub(crate) sent: bool,
    /// Outside has sent.
    pub(crate) answered: bool,
    pub(crate) tcp: TcpState,
    pub(crate) expires: Instant,
    /// It goes to an external address, and so back in.
    pub(crate) hairpin: bool,
    /// What rewriting outwards adds to the sum of addresses, and of ports (RFC 1624).
    pub(crate) address_delta: u16,
    pub(crate) port_delta: u16,
    pub(crate) packets: [u64; 2],
    pub(crate) bytes: [u64; 2],
}

impl Connection {
    /// A packet of it passes.
    #[inline]
    pub(crate) fn packet(&mut self, direction: Direction, flags: u8, bytes: usize, now: Instant, lifetimes: &Lifetimes) {
        self.packets[direction as usize] += 1;
        self.bytes[direction as usize] += bytes as u64;
        match direction {
            Direction::Out => self.sent = true,
            Direction::In => self.answered = true,
        }
        let is_tcp = self.protocol == protocol::TCP;
        if is_tcp {
            self.tcp.segment(direction, flags);
        }
        let is_reset = is_tcp && flags & RST != 0;
        let until = now + lifetimes.of(self.protocol, self.tcp);
        if is_reset {
            self.expires = self.expires.min(until);
        } else if self.sent || self.packets[Direction::In as usize] == 1 {
            self.expires = until;
        }
    }

    /// How readily it gives way: lower is sooner; `None` is never.
    fn rank(&self) -> Option<u8> {
        match self.protocol {
            protocol::TCP if self.tcp.is_established() => None,
            protocol::TCP if self.tcp.is_closing() => Some(1),
            _ if !(self.sent && self.answered) => Some(0),
            _ => Some(2),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Conntrack {
    key: Keyed,
    index: Index,
    all: Slab<Connection>,
    most: usize,
    made: u32,
    /// Made by the packet in hand.
    provisional: Vec<u32>,
    hand: u32,
    swept: u32,
}

impl Conntrack {
    pub(crate) fn new(key: Keyed, most: usize) -> Self {
        Self { key, index: Index::new(most * 2), all: Slab::default(), most, made: 0, provisional: Vec::new(), hand: 0, swept: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.all.iter()
    }

    pub(crate) fn get(&self, at: u32) -> Option<&Connection> {
        self.all.get(at)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut Connection> {
        self.all.get_mut(at)
    }

    #[inline]
    fn hash_inside(&self, network: NetworkId, protocol: u8, inside: End, outside: End) -> u64 {
        hash(self.key, Table::Inside, realm(network), protocol, inside, outside)
    }

    #[inline]
    fn hash_outside(&self, protocol: u8, external: End, outside: End) -> u64 {
        hash(self.key, Table::Outside, 0, protocol, external, outside)
    }

    /// By what inside sees.
    #[inline]
    pub(crate) fn by_inside(&self, network: NetworkId, protocol: u8, inside: End, outside: End) -> Option<u32> {
        let hash = self.hash_inside(network, protocol, inside, outside);
        self.index.find(hash, |at| {
            let found = self.all.get(at);
            found.is_some_and(|found| found.inside == inside && found.outside == outside && found.protocol == protocol && found.network == network)
        })
    }

    /// By what outside sees.
    #[inline]
    pub(crate) fn by_outside(&self, protocol: u8, external: End, outside: End) -> Option<u32> {
        let hash = self.hash_outside(protocol, external, outside);
        self.index.find(hash, |at| {
            let found = self.all.get(at);
            found.is_some_and(|found| found.external == external && found.outside == outside && found.protocol == protocol)
        })
    }

    /// By a hash of either kind.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(&Connection) -> bool) -> Option<u32> {
        self.index.find(hash, |at| self.all.get(at).is_some_and(&is_it))
    }

    /// Whether another fits in.
    pub(crate) fn has_room(&self) -> bool {
        self.all.len < self.most
    }

    /// Who of those that `may` gives way for another.
    pub(crate) fn least_established(&mut self, now: Instant, may: impl Fn(&Connection) -> bool) -> Option<u32> {
        let mut least: Option<(u8, Instant, u32)> = None;
        for _ in 0..SAMPLE.min(self.all.slots()) {
            self.hand = (self.hand + 1) % self.all.slots();
            let Some(connection) = self.all.get(self.hand).filter(|connection| may(connection)) else { continue };
            let rank = if connection.expires <= now { Some(0) } else { connection.rank() };
            let Some(rank) = rank else { continue };
            let candidate = (rank, connection.expires, self.hand);
            least = Some(least.map_or(candidate, |least| least.min(candidate)));
        }
        least.map(|(_, _, at)| at)
    }

    /// Adds a connection whose two keys are free, provisionally.
    pub(crate) fn insert(&mut self, mut connection: Connection) -> u32 {
        self.made = self.made.wrapping_add(1);
        connection.serial = self.made;
        let inside = self.hash_inside(connection.network, connection.protocol, connection.inside, connection.outside);
        let outside = self.hash_outside(connection.protocol, connection.external, connection.outside);
        let at = self.all.insert(connection);
        self.index.insert(inside, at);
        self.index.insert(outside, at);
        self.provisional.push(at);
        at
    }

    pub(crate) fn remove(&mut self, at: u32) -> Option<Connection> {
        let connection = self.all.remove(at)?;
        self.index.remove(self.hash_inside(connection.network, connection.protocol, connection.inside, connection.outside), at);
        self.index.remove(self.hash_outside(connection.protocol, connection.external, connection.outside), at);
        Some(connection)
    }

    /// A new packet is in hand: what the last one made stays.
    #[inline]
    pub(crate) fn commit(&mut self) {
        self.provisional.clear();
    }

    pub(crate) fn has_provisional(&self) -> bool {
        !self.provisional.is_empty()
    }

    /// What the packet in hand made.
    pub(crate) fn undo(&mut self) -> Option<u32> {
        self.provisional.pop()
    }

    /// Slots of connections for which `ends` holds.
    pub(crate) fn select(&self, ends: impl Fn(&Connection) -> bool) -> Vec<u32> {
        (0..self.all.slots()).filter(|&at| self.all.get(at).is_some_and(&ends)).collect()
    }

    /// The next part of the table: those of it that have expired.
    pub(crate) fn sweep(&mut self, now: Instant, gone: &mut Vec<u32>) {
        for _ in 0..SWEEP.min(self.all.slots()) {
            self.swept = (self.swept + 1) % self.all.slots();
            if self.all.get(self.swept).is_some_and(|connection| connection.expires <= now) {
                gone.push(self.swept);
            }
        }
    }
}

/// A connection as it is, for views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionView {
    /// The sandbox's network.
    pub network: NetworkId,
    /// IP protocol number.
    pub protocol: u8,
    /// Whether outside opened it.
    pub is_inbound: bool,
    /// TCP's state, or whether it was answered.
    pub state: &'static str,
    /// The sandbox's end.
    pub inside: End,
    /// The other end.
    pub outside: End,
    /// What the sandbox's end is called outside.
    pub external: End,
    /// Time left, whole seconds.
    pub expires_s: u64,
    /// Packets out and in.
    pub packets: [u64; 2],
    /// Bytes out and in.
    pub bytes: [u64; 2],
}

impl ConnectionView {
    pub(crate) fn of(connection: &Connection, now: Instant) -> Self {
        let state = match (connection.protocol, connection.sent && connection.answered) {
            (protocol::TCP, _) => connection.tcp.name(),
            (_, true) => "ASSURED",
            (_, false) => "UNREPLIED",
        };
        Self {
            network: connection.network,
            protocol: connection.protocol,
            is_inbound: connection.opened == Direction::In,
            state,
            inside: connection.inside,
            outside: connection.outside,
            external: connection.external,
            expires_s: connection.expires.since(now).as_secs(),
            packets: connection.packets,
            bytes: connection.bytes,
        }
    }
}

/// Whom a connection's mapping counts as sent to on its behalf.
pub(crate) fn sent_to(connection: &Connection) -> Option<IpAddr> {
    (connection.mapping.is_some() && connection.sent).then_some(connection.outside.ip)
}
