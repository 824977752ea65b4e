//! The addresses of a range and who has them.
//!
//! A lease that has ended is remembered until its address is needed: a client that comes back finds its
//! address again (RFC 2131 4.3.1). New clients get addresses that nobody had, then the one whose lease
//! ended first. Every step is bounded, and so is the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use packet::{Duration, Instant, UnicastMac};

use crate::limits::{DHCP_LEASES, DHCP_STEPS};

/// Who has a lease.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Client {
    /// By client identifier.
    Id(Vec<u8>),
    /// By hardware address.
    Station(UnicastMac),
    /// Nobody of ours: a client found the address in use.
    Stranger(Ipv4Addr),
}

impl Client {
    /// A MAC address where it is one (hardware type 1), else hexadecimal.
    pub(super) fn name(&self) -> Option<String> {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
        match self {
            Self::Id(id) => Some(hex(id.strip_prefix(&[1]).filter(|mac| mac.len() == 6).unwrap_or(id))),
            Self::Station(mac) => Some(mac.get().to_string()),
            Self::Stranger(_) => None,
        }
    }
}

#[derive(Debug)]
struct Lease {
    client: Client,
    end: Instant,
}

#[derive(Debug)]
pub(super) struct Leases {
    first: u32,
    last: u32,
    /// Of the range, but never handed out.
    excluded: BTreeSet<Ipv4Addr>,
    by_address: BTreeMap<Ipv4Addr, Lease>,
    by_client: BTreeMap<Client, Ipv4Addr>,
    by_end: BTreeSet<(Instant, Ipv4Addr)>,
    /// Where the search for an address that nobody had goes on.
    next: u32,
}

impl Leases {
    pub(super) fn new((first, last): (Ipv4Addr, Ipv4Addr), excluded: BTreeSet<Ipv4Addr>) -> Self {
        Self {
            first: first.to_bits(),
            last: last.to_bits(),
            excluded,
            by_address: BTreeMap::new(),
            by_client: BTreeMap::new(),
            by_end: BTreeSet::new(),
            next: first.to_bits(),
        }
    }

    /// Another range: leases outside it end.
    pub(super) fn configure(&mut self, (first, last): (Ipv4Addr, Ipv4Addr), excluded: BTreeSet<Ipv4Addr>) {
        (self.first, self.last, self.excluded) = (first.to_bits(), last.to_bits(), excluded);
        let outside: Vec<_> = self.by_address.keys().copied().filter(|ip| !self.is_ours(*ip)).collect();
        for ip in outside {
            self.forget(ip);
        }
    }

    /// An address goes to somebody by name, and to no other.
    pub(super) fn exclude(&mut self, ip: Ipv4Addr) {
        self.excluded.insert(ip);
        self.forget(ip);
    }

    pub(super) fn include(&mut self, ip: Ipv4Addr) {
        self.excluded.remove(&ip);
    }

    /// The address of a client and the end of its lease, which may have passed.
    pub(super) fn of(&self, client: &Client) -> Option<(Ipv4Addr, Instant)> {
        let ip = *self.by_client.get(client)?;
        Some((ip, self.by_address.get(&ip)?.end))
    }

    /// Addresses that are lent, with whom to and how long still.
    pub(super) fn running(&self, now: Instant) -> impl Iterator<Item = (Ipv4Addr, &Client, Duration)> {
        self.by_address.iter().filter(move |(_, lease)| lease.end > now).map(move |(ip, lease)| (*ip, &lease.client, lease.end.since(now)))
    }

    /// Whether a client may have an address: it is one of ours, and nobody else's.
    pub(super) fn may_have(&self, client: &Client, ip: Ipv4Addr, now: Instant) -> bool {
        let is_free = self.by_address.get(&ip).is_none_or(|lease| lease.client == *client || lease.end <= now);
        let has_another = self.of(client).is_some_and(|(own, end)| own != ip && end > now);
        self.is_ours(ip) && is_free && !has_another
    }

    /// An address for a client: what it has or had, what it asks for, what nobody had, what was free
    /// for longest.
    pub(super) fn choose(&mut self, client: &Client, requested: Option<Ipv4Addr>, now: Instant) -> Option<Ipv4Addr> {
        let had = self.of(client).map(|(ip, _)| ip);
        let known = had.into_iter().chain(requested).find(|ip| self.may_have(client, *ip, now));
        known.or_else(|| self.unused()).or_else(|| self.by_end.first().filter(|(end, _)| *end <= now).map(|(_, ip)| *ip))
    }

    fn unused(&mut self) -> Option<Ipv4Addr> {
        if self.first > self.last || self.by_address.len() >= DHCP_LEASES {
            return None;
        }
        for _ in 0..DHCP_STEPS.min(usize::try_from(self.last - self.first).unwrap_or(usize::MAX).saturating_add(1)) {
            let at = Ipv4Addr::from_bits(self.next.clamp(self.first, self.last));
            self.next = if at.to_bits() == self.last { self.first } else { at.to_bits() + 1 };
            if self.is_ours(at) && !self.by_address.contains_key(&at) {
                return Some(at);
            }
        }
        None
    }

    /// Gives a client an address until `end`; false when the table is full. What it had before, it has
    /// no longer.
    pub(super) fn hold(&mut self, client: Client, ip: Ipv4Addr, end: Instant, now: Instant) -> bool {
        self.forget(ip);
        if let Some(before) = self.by_client.get(&client).copied() {
            self.forget(before);
        }
        if self.by_address.len() >= DHCP_LEASES {
            match self.by_end.first().copied() {
                Some((end, oldest)) if end <= now => self.forget(oldest),
                _ => return false,
            }
        }
        self.by_client.insert(client.clone(), ip);
        self.by_end.insert((end, ip));
        self.by_address.insert(ip, Lease { client, end });
        true
    }

    /// The client gives its address back; it is remembered.
    pub(super) fn release(&mut self, client: &Client, ip: Ipv4Addr, now: Instant) {
        if self.of(client).is_some_and(|(own, end)| own == ip && end > now) {
            self.hold(client.clone(), ip, now, now);
        }
    }

    /// The client found its address in use: nobody gets it until `end`.
    pub(super) fn refuse(&mut self, client: &Client, ip: Ipv4Addr, end: Instant, now: Instant) {
        if self.of(client).is_some_and(|(own, _)| own == ip) {
            self.hold(Client::Stranger(ip), ip, end, now);
        }
    }

    fn forget(&mut self, ip: Ipv4Addr) {
        if let Some(lease) = self.by_address.remove(&ip) {
            self.by_end.remove(&(lease.end, ip));
            self.by_client.remove(&lease.client);
        }
    }

    fn is_ours(&self, ip: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&ip.to_bits()) && !self.excluded.contains(&ip)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!((self.by_address.len(), self.by_address.len()), (self.by_client.len(), self.by_end.len()));
        self.by_address.len()
    }
}
