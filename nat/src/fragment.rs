//! Fragments without ports follow the first one, which has them (RFC 4787 REQ-14).
//!
//! What was decided for a first fragment is remembered for a moment. Those that overtook it wait, bounded
//! in number and time. Nothing is put together: each fragment passes on its own.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use packet::{Duration, Frame, Instant, Keyed, NetworkId, PacketMut};

/// Datagrams remembered at most; the oldest gives way.
const MOST: usize = 4096;
/// Fragments that wait at most, of one sender, and of one datagram: nobody's flood takes all the room.
const MOST_WAITING: usize = 256;
const MOST_OF_SENDER: usize = 64;
const MOST_OF_ONE: usize = 64;

/// What names a fragmented datagram (RFC 791 section 3.2; RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Datagram {
    /// The network it came from; none is outside.
    network: Option<NetworkId>,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

/// What was done to a first fragment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewrite {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Into which network it went; none is outside.
    pub(crate) to: Option<NetworkId>,
}

#[derive(Debug, Default)]
struct Entry {
    began: Instant,
    rewrite: Option<Rewrite>,
    waiting: Vec<Frame>,
}

#[derive(Debug)]
pub(crate) struct Fragments {
    entries: HashMap<Datagram, Entry, Keyed>,
    order: VecDeque<(Instant, Datagram)>,
    waiting: usize,
    /// How many of these a sender has.
    waiting_of: HashMap<Sender, usize, Keyed>,
}

/// Where a fragment came from.
type Sender = (Option<NetworkId>, IpAddr);

/// What to do with a later fragment.
#[derive(Debug)]
pub(crate) enum Later {
    /// As was done to the first.
    Follow(Rewrite, Frame),
    /// It waits for the first.
    Waits,
    /// There is no room to wait.
    Full(Frame),
}

impl Datagram {
    pub(crate) fn of(network: Option<NetworkId>, packet: &PacketMut<'_>) -> Self {
        let ip = packet.ip();
        Self { network, source: ip.source, destination: ip.destination, protocol: ip.protocol, id: ip.identification(packet.bytes()) }
    }
}

impl Datagram {
    const fn sender(&self) -> Sender {
        (self.network, self.source)
    }
}

impl Fragments {
    pub(crate) fn new(key: Keyed) -> Self {
        Self { entries: HashMap::with_hasher(key), order: VecDeque::new(), waiting: 0, waiting_of: HashMap::with_hasher(key) }
    }

    /// A first fragment was rewritten: gives those that wait for it.
    pub(crate) fn first(&mut self, datagram: Datagram, rewrite: Rewrite, now: Instant) -> Vec<Frame> {
        let entry = self.entry(datagram, now);
        entry.rewrite = Some(rewrite);
        let waiting = std::mem::take(&mut entry.waiting);
        self.no_longer_wait(&datagram, waiting.len());
        waiting
    }

    fn no_longer_wait(&mut self, datagram: &Datagram, count: usize) {
        self.waiting -= count;
        if let Some(own) = self.waiting_of.get_mut(&datagram.sender()) {
            *own -= count;
            if *own == 0 {
                self.waiting_of.remove(&datagram.sender());
            }
        }
    }

    /// A fragment without ports.
    pub(crate) fn later(&mut self, datagram: Datagram, frame: Frame, now: Instant) -> Later {
        let own = self.waiting_of.get(&datagram.sender()).copied().unwrap_or(0);
        let has_room = self.waiting < MOST_WAITING && own < MOST_OF_SENDER;
        let entry = self.entry(datagram, now);
        match entry.rewrite {
            Some(rewrite) => Later::Follow(rewrite, frame),
            None if has_room && entry.waiting.len() < MOST_OF_ONE => {
                entry.waiting.push(frame);
                self.waiting += 1;
                *self.waiting_of.entry(datagram.sender()).or_default() += 1;
                Later::Waits
            }
            None => Later::Full(frame),
        }
    }

    /// Whether the first fragment was rewritten.
    pub(crate) fn knows(&self, datagram: &Datagram) -> bool {
        self.entries.get(datagram).is_some_and(|entry| entry.rewrite.is_some())
    }

    fn entry(&mut self, datagram: Datagram, now: Instant) -> &mut Entry {
        if !self.entries.contains_key(&datagram) {
            if self.entries.len() >= MOST
                && let Some((_, oldest)) = self.order.pop_front()
            {
                self.forget(&oldest);
            }
            self.order.push_back((now, datagram));
        }
        self.entries.entry(datagram).or_insert_with(|| Entry { began: now, ..Entry::default() })
    }

    fn forget(&mut self, datagram: &Datagram) -> usize {
        let lost = self.entries.remove(datagram).map_or(0, |entry| entry.waiting.len());
        self.no_longer_wait(datagram, lost);
        lost
    }

    /// When the oldest is to be forgotten.
    pub(crate) fn poll_timeout(&self, lifetime: Duration) -> Option<Instant> {
        self.order.front().map(|(began, _)| *began + lifetime)
    }

    /// Forgets the old; answers how many fragments waited in vain.
    pub(crate) fn expire(&mut self, now: Instant, lifetime: Duration) -> usize {
        let mut lost = 0;
        while self.order.front().is_some_and(|(began, _)| *began + lifetime <= now) {
            if let Some((began, datagram)) = self.order.pop_front()
                && self.entries.get(&datagram).is_some_and(|entry| entry.began == began)
            {
                lost += self.forget(&datagram);
            }
        }
        lost
    }
}
