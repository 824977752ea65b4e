//! Connections as they come and go, and the clock.

use std::{collections::VecDeque, net::IpAddr};

use packet::{Duration, Frame, Instant, NetworkId, checksum::protocol};

use super::{Nat, Unwanted};
use crate::{
    NatDrop,
    conntrack::{Connection, sent_to},
    fast::deltas,
    lifetime::UNSOLICITED_SYN,
    rule::ForwardId,
    tcp_state::TcpState,
    tuple::{Direction, End},
    watch::FlowEvent,
};

/// How often a part of the table is swept.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// SYNs from outside that wait at most.
const MOST_UNSOLICITED: usize = 256;

/// A SYN from outside that nobody asked for.
#[derive(Debug)]
pub(super) struct Unsolicited {
    deadline: Instant,
    external: End,
    outside: End,
    quote: Vec<u8>,
}

pub(super) type UnsolicitedQueue = VecDeque<Unsolicited>;

impl Nat {
    /// The connection that was found, if it lives; one that expired ends.
    #[inline]
    pub(super) fn alive(&mut self, found: Option<u32>, now: Instant) -> Option<u32> {
        let at = found?;
        if self.conntrack.get(at).is_some_and(|connection| connection.expires > now) {
            return Some(at);
        }
        self.end(at, now);
        None
    }

    pub(super) fn let_go(&mut self, mapping: Option<u32>) {
        if let Some(mapping) = mapping {
            self.mappings.release(mapping, None, None);
        }
    }

    pub(super) fn make_room(&mut self, network: NetworkId, inside: IpAddr, now: Instant) -> Result<(), NatDrop> {
        // Nobody has more than half of the table: beyond that he takes from himself.
        let least = if self.counts.get(&(network, inside)).is_some_and(|count| *count as usize >= self.config.most / 2) {
            let own = |connection: &Connection| connection.network == network && connection.inside.ip == inside;
            Some(self.conntrack.least_established(now, own).ok_or(NatDrop::Quota)?)
        } else if self.conntrack.has_room() {
            None
        } else {
            Some(self.conntrack.least_established(now, |_| true).ok_or(NatDrop::Full)?)
        };
        if let Some(least) = least {
            self.end(least, now);
        }
        Ok(())
    }

    pub(super) fn insert(&mut self, network: NetworkId, protocol: u8, (inside, outside, external): (End, End, End), (mapping, forward): (Option<u32>, Option<ForwardId>), opened: Direction, now: Instant) -> u32 {
        *self.counts.entry((network, inside.ip)).or_default() += 1;
        self.next_sweep = self.next_sweep.or(Some(now + SWEEP_INTERVAL));
        let (address_delta, port_delta) = deltas(inside, external);
        let connection = Connection {
            hairpin: self.translated_to.contains(&outside.ip),
            address_delta,
            port_delta,
            network,
            serial: 0,
            protocol,
            inside,
            outside,
            external,
            mapping,
            forward,
            balanced: None,
            opened,
            sent: false,
            answered: false,
            tcp: TcpState::default(),
            expires: now,
            packets: [0; 2],
            bytes: [0; 2],
        };
        self.watch.tell(|| event_of(&connection, true));
        if forward.is_none() {
            self.traffic.began(&connection);
        }
        self.conntrack.insert(connection)
    }

    /// RFC 5382 REQ-4: the sender of a SYN that nobody asked for hears of it after six seconds, unless
    /// inside opens that connection by then.
    pub(super) fn note_unsolicited(&mut self, frame: &Frame, now: Instant) {
        let Some(parsed) = packet::Parsed::new(frame.bytes()) else { return };
        let (Some(ip), Some((from, to))) = (parsed.ip, parsed.l4_ports(frame.bytes())) else { return };
        if ip.protocol != protocol::TCP || self.unsolicited.len() >= MOST_UNSOLICITED {
            return;
        }
        let quote = frame.bytes()[ip.offset..ip.end().min(ip.l4_offset + 8)].to_vec();
        let (external, outside) = (End::new(ip.destination, to), End::new(ip.source, from));
        self.unsolicited.push_back(Unsolicited { deadline: now + UNSOLICITED_SYN, external, outside, quote });
    }

    pub(super) fn end_where(&mut self, ends: impl Fn(&Connection) -> bool) {
        for at in self.conntrack.select(ends) {
            self.end(at, Instant::ZERO);
        }
    }

    pub(super) fn end(&mut self, at: u32, now: Instant) {
        let Some(connection) = self.conntrack.remove(at) else { return };
        self.watch.tell(|| event_of(&connection, false));
        let host = (connection.network, connection.inside.ip);
        if let Some(count) = self.counts.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&host);
            }
        }
        match connection.forward {
            Some(forward) => self.forwards.count(forward, 0, connection.packets.iter().sum(), connection.bytes.iter().sum()),
            None => self.traffic.add(&connection),
        }
        if let Some(mapping) = connection.mapping {
            let rest = self.inside(connection.network).map_or(Duration::ZERO, |inside| inside.behaviour.hold_down);
            self.mappings.release(mapping, sent_to(&connection), (!rest.is_zero()).then(|| now + rest));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let unsolicited = self.unsolicited.front().map(|syn| syn.deadline);
        [self.next_sweep, self.fragments.poll_timeout(self.config.lifetimes.fragment), unsolicited].into_iter().flatten().min()
    }

    /// Deadlines up to `now` are due. SYNs that nobody wanted are given to `unwanted`.
    pub fn handle_timeout(&mut self, now: Instant, mut unwanted: impl FnMut(Unwanted)) {
        let orphans = self.fragments.expire(now, self.config.lifetimes.fragment);
        self.drops.count_many(NatDrop::FragmentOrphan, orphans as u64);
        while self.unsolicited.front().is_some_and(|syn| syn.deadline <= now) {
            if let Some(syn) = self.unsolicited.pop_front()
                && self.conntrack.by_outside(protocol::TCP, syn.external, syn.outside).is_none()
            {
                unwanted(Unwanted { quote: syn.quote });
            }
        }
        if self.next_sweep.is_some_and(|at| at <= now) {
            let mut gone = std::mem::take(&mut self.gone);
            self.conntrack.commit();
            self.conntrack.sweep(now, &mut gone);
            for at in gone.drain(..) {
                self.end(at, now);
            }
            self.gone = gone;
            self.next_sweep = (self.conntrack.len() > 0).then(|| now + SWEEP_INTERVAL);
        }
    }
}

fn event_of(connection: &Connection, began: bool) -> FlowEvent {
    let Connection { network, protocol, inside, outside, external, .. } = *connection;
    FlowEvent { began, network, protocol, inside, outside, external: Some(external) }
}
