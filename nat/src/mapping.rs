//! Mappings: which external end stands for which inside end (RFC 4787 section 4).
//!
//! A mapping is kept by the connections that use it, and goes with the last of them. Its key depends on
//! the network's behaviour: the inside end alone, or with the outside address, or with the outside end.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use packet::{Instant, Keyed, NetworkId, checksum::protocol};

use crate::{
    NatDrop,
    behaviour::{Behaviour, Dependence},
    index::Index,
    port_alloc::{Dice, Wish, choose},
    tuple::{End, Table, hash, realm},
};

/// Ports at rest at most.
const MOST_RESTING: usize = 65_536;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    pub(crate) network: NetworkId,
    pub(crate) protocol: u8,
    pub(crate) inside: End,
    /// The part of the outside end that the mapping is for.
    outside: End,
    pub(crate) external: End,
    users: u32,
}

/// An address outside that a mapping sent to.
#[derive(Clone, Copy, Debug)]
struct Contact {
    mapping: u32,
    ip: IpAddr,
    users: u32,
}

#[derive(Debug)]
pub(crate) struct Mappings {
    key: Keyed,
    index: Index,
    mappings: Slab<Mapping>,
    contacts: Slab<Contact>,
    most: usize,
    per_host: HashMap<(NetworkId, IpAddr), u32, Keyed>,
    /// External ports that nobody may have before the time.
    resting: HashMap<(u8, End), Instant, Keyed>,
    rested: VecDeque<(Instant, u8, End)>,
}

impl Mappings {
    pub(crate) fn new(key: Keyed, most: usize) -> Self {
        Self {
            key,
            index: Index::new(most * 3),
            mappings: Slab::default(),
            contacts: Slab::default(),
            most,
            per_host: HashMap::with_hasher(key),
            resting: HashMap::with_hasher(key),
            rested: VecDeque::new(),
        }
    }

    pub(crate) fn get(&self, at: u32) -> Option<&Mapping> {
        self.mappings.get(at)
    }

    pub(crate) fn len(&self) -> usize {
        self.mappings.len
    }

    fn hash_inside(&self, network: NetworkId, protocol: u8, inside: End, outside: End) -> u64 {
        hash(self.key, Table::Mapping, realm(network), protocol, inside, outside)
    }

    fn hash_external(&self, protocol: u8, external: End) -> u64 {
        hash(self.key, Table::External, 0, protocol, external, external)
    }

    /// The mapping that an external end belongs to.
    pub(crate) fn by_external(&self, protocol: u8, external: End) -> Option<u32> {
        let is_it = |at| self.mappings.get(at).is_some_and(|mapping| mapping.protocol == protocol && mapping.external == external);
        self.index.find(self.hash_external(protocol, external), is_it)
    }

    /// The mapping of an inside end towards an outside one, if there is one.
    pub(crate) fn find(&self, network: NetworkId, number: u8, inside: End, outside: End, behaviour: &Behaviour) -> Option<u32> {
        let outside = part(outside, behaviour.mapping);
        let is_it = |at| {
            let mapping = self.mappings.get(at);
            mapping.is_some_and(|mapping| mapping.network == network && mapping.protocol == number && mapping.inside == inside && mapping.outside == outside)
        };
        self.index.find(self.hash_inside(network, number, inside, outside), is_it)
    }

    /// Makes a mapping to an external end of `address` for which `is_reserved` does not hold.
    #[expect(clippy::too_many_arguments, reason = "a key and its circumstances")]
    pub(crate) fn make(
        &mut self,
        network: NetworkId,
        number: u8,
        inside: End,
        outside: End,
        address: IpAddr,
        behaviour: &Behaviour,
        dice: &mut Dice,
        now: Instant,
        is_reserved: impl Fn(End) -> bool,
    ) -> Result<u32, NatDrop> {
        if self.mappings.len >= self.most {
            return Err(NatDrop::Full);
        }
        if self.per_host.get(&(network, inside.ip)).is_some_and(|count| *count >= behaviour.ports_per_host) {
            return Err(NatDrop::Quota);
        }
        self.wake_rested(now);
        let wish = Wish {
            port: inside.port,
            preserve: behaviour.port_preservation,
            // RTP's pairs are a matter of UDP.
            parity: behaviour.parity && number == protocol::UDP,
            is_identifier: !matches!(number, protocol::TCP | protocol::UDP),
        };
        let is_free = |port| {
            let end = End::new(address, port);
            self.by_external(number, end).is_none() && !self.resting.contains_key(&(number, end)) && !is_reserved(end)
        };
        let port = choose(wish, dice, is_free).ok_or(NatDrop::PortsExhausted)?;
        let mapping = Mapping { network, protocol: number, inside, outside: part(outside, behaviour.mapping), external: End::new(address, port), users: 0 };
        let at = self.mappings.insert(mapping);
        self.index.insert(self.hash_inside(network, number, inside, mapping.outside), at);
        self.index.insert(self.hash_external(number, mapping.external), at);
        *self.per_host.entry((network, inside.ip)).or_default() += 1;
        Ok(at)
    }

    /// A connection uses a mapping.
    pub(crate) fn hold(&mut self, at: u32) {
        if let Some(mapping) = self.mappings.get_mut(at) {
            mapping.users += 1;
        }
    }

    /// A mapping was used to send to an address.
    pub(crate) fn meet(&mut self, at: u32, ip: IpAddr) {
        match self.contact(at, ip) {
            Some(contact) => {
                if let Some(contact) = self.contacts.get_mut(contact) {
                    contact.users += 1;
                }
            }
            None => {
                let contact = self.contacts.insert(Contact { mapping: at, ip, users: 1 });
                self.index.insert(self.hash_contact(at, ip), contact);
            }
        }
    }

    fn hash_contact(&self, mapping: u32, ip: IpAddr) -> u64 {
        hash(self.key, Table::Contact, mapping.into(), 0, End::new(ip, 0), End::new(ip, 0))
    }

    fn contact(&self, mapping: u32, ip: IpAddr) -> Option<u32> {
        let is_it = |at| self.contacts.get(at).is_some_and(|contact| contact.mapping == mapping && contact.ip == ip);
        self.index.find(self.hash_contact(mapping, ip), is_it)
    }

    /// Whether somebody outside who has no connection may send to a mapping.
    pub(crate) fn admits(&self, at: u32, from: End, filtering: Dependence) -> bool {
        match filtering {
            Dependence::EndpointIndependent => true,
            Dependence::Address => self.contact(at, from.ip).is_some(),
            Dependence::AddressAndPort => false,
        }
    }

    /// A connection no longer uses a mapping, which goes with its last.
    pub(crate) fn release(&mut self, at: u32, sent_to: Option<IpAddr>, rest_until: Option<Instant>) {
        if let Some(ip) = sent_to
            && let Some(contact) = self.contact(at, ip)
        {
            let users = self.contacts.get_mut(contact).map_or(0, |contact| {
                contact.users -= 1;
                contact.users
            });
            if users == 0 {
                self.index.remove(self.hash_contact(at, ip), contact);
                self.contacts.remove(contact);
            }
        }
        let Some(mapping) = self.mappings.get_mut(at) else { return };
        mapping.users = mapping.users.saturating_sub(1);
        if mapping.users > 0 {
            return;
        }
        let mapping = *mapping;
        self.index.remove(self.hash_inside(mapping.network, mapping.protocol, mapping.inside, mapping.outside), at);
        self.index.remove(self.hash_external(mapping.protocol, mapping.external), at);
        self.mappings.remove(at);
        let host = (mapping.network, mapping.inside.ip);
        if let Some(count) = self.per_host.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.per_host.remove(&host);
            }
        }
        if let Some(until) = rest_until
            && self.resting.len() < MOST_RESTING
        {
            self.resting.insert((mapping.protocol, mapping.external), until);
            self.rested.push_back((until, mapping.protocol, mapping.external));
        }
    }

    fn wake_rested(&mut self, now: Instant) {
        while self.rested.front().is_some_and(|(until, ..)| *until <= now) {
            if let Some((_, protocol, external)) = self.rested.pop_front() {
                self.resting.remove(&(protocol, external));
            }
        }
    }
}

/// The part of an outside end that a mapping depends on.
fn part(outside: End, dependence: Dependence) -> End {
    match dependence {
        Dependence::EndpointIndependent if outside.ip.is_ipv4() => End::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        Dependence::EndpointIndependent => End::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        Dependence::Address => End::new(outside.ip, 0),
        Dependence::AddressAndPort => outside,
    }
}

/// Things by slot; what goes leaves its slot to the next.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    pub(crate) len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Slab<T> {
    #[inline]
    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        self.slots.get(at as usize)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if let Some(at) = self.free.pop() {
            self.slots[at as usize] = Some(value);
            return at;
        }
        self.slots.push(Some(value));
        u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
    }

    pub(crate) fn remove(&mut self, at: u32) -> Option<T> {
        let value = self.slots.get_mut(at as usize)?.take()?;
        self.len -= 1;
        self.free.push(at);
        Some(value)
    }

    /// Slots that were ever used.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }
}
