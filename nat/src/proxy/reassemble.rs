//! Fragments of datagrams, put together: host sockets carry whole datagrams only.
//!
//! Bounded in number, size and time (RFC 791 3.2; RFC 8200 4.5: 60 s). Fragments that overlap are an
//! attack, and end the datagram (RFC 5722; RFC 1858 for IPv4).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use packet::{Duration, Instant, IpView, NetworkId};

/// Datagrams in the making at most; then the oldest of whoever has most gives way, so that a flood costs
/// nobody but its sender.
const MOST: usize = 256;
const MOST_BYTES: usize = 65_535;
const LIFETIME: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    network: NetworkId,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

#[derive(Debug)]
struct Datagram {
    began: Instant,
    parts: Vec<(usize, Vec<u8>)>,
    /// Known once the last fragment came.
    length: Option<usize>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reassembler {
    datagrams: HashMap<Key, Datagram>,
}

impl Reassembler {
    /// A fragment; the whole from its L4 header on, when this was the last that was missing. `None`
    /// while parts are missing, or when it cannot be.
    pub(super) fn add(&mut self, network: NetworkId, ip: &IpView, bytes: &[u8], now: Instant) -> Option<Vec<u8>> {
        let key = Key { network, source: ip.source, destination: ip.destination, protocol: ip.protocol, id: ip.identification(bytes) };
        let part = &bytes[ip.l4_offset..ip.end()];
        let (start, end) = (usize::from(ip.fragment_offset), usize::from(ip.fragment_offset) + part.len());
        let is_odd = ip.more_fragments && !part.len().is_multiple_of(8);
        if is_odd || end > MOST_BYTES || part.is_empty() {
            self.datagrams.remove(&key);
            return None;
        }
        self.make_room(now);
        let datagram = self.datagrams.entry(key).or_insert_with(|| Datagram { began: now, parts: Vec::new(), length: None });
        let overlaps = datagram.parts.iter().any(|(at, other)| start < at + other.len() && *at < end);
        let ends_twice = datagram.length.is_some_and(|length| end > length || !ip.more_fragments);
        if overlaps || ends_twice {
            self.datagrams.remove(&key);
            return None;
        }
        datagram.parts.push((start, part.to_vec()));
        if !ip.more_fragments {
            datagram.length = Some(end);
        }
        let have: usize = datagram.parts.iter().map(|(_, part)| part.len()).sum();
        if datagram.length != Some(have) {
            return None;
        }
        let mut parts = self.datagrams.remove(&key)?.parts;
        parts.sort_unstable_by_key(|(at, _)| *at);
        Some(parts.into_iter().flat_map(|(_, part)| part).collect())
    }

    fn make_room(&mut self, now: Instant) {
        if self.datagrams.len() < MOST {
            return;
        }
        self.datagrams.retain(|_, datagram| datagram.began + LIFETIME > now);
        if self.datagrams.len() >= MOST
            && let Some(oldest) = self.oldest_of_whoever_has_most()
        {
            self.datagrams.remove(&oldest);
        }
    }

    #[expect(clippy::iter_over_hash_type, reason = "the greatest and the least have no order")]
    fn oldest_of_whoever_has_most(&self) -> Option<Key> {
        let mut senders: BTreeMap<(NetworkId, IpAddr), (usize, Instant, Key)> = BTreeMap::new();
        for (key, datagram) in &self.datagrams {
            let sender = senders.entry((key.network, key.source)).or_insert((0, datagram.began, *key));
            sender.0 += 1;
            if datagram.began < sender.1 {
                (sender.1, sender.2) = (datagram.began, *key);
            }
        }
        senders.into_values().max_by_key(|(count, ..)| *count).map(|(_, _, oldest)| oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(offset: u16, more: bool, length: usize) -> (IpView, Vec<u8>) {
        let mut bytes = vec![0; 34];
        bytes.extend((0..length).map(|at| u8::try_from((usize::from(offset) + at) % 251).unwrap()));
        let ip = IpView {
            offset: 14,
            length: 20 + length,
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2".parse().unwrap(),
            protocol: 17,
            l4_offset: 34,
            fragment_offset: offset,
            more_fragments: more,
            routed: false,
        };
        (ip, bytes)
    }

    fn feed(reassembler: &mut Reassembler, parts: &[(u16, bool, usize)]) -> Option<Vec<u8>> {
        let mut whole = None;
        for &(offset, more, length) in parts {
            let (ip, bytes) = view(offset, more, length);
            whole = whole.or(reassembler.add(NetworkId::new(0, 0), &ip, &bytes, Instant::ZERO));
        }
        whole
    }

    #[test]
    fn in_any_order() {
        let expected: Vec<u8> = (0..3000).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let parts = [(0, true, 1480), (1480, true, 1480), (2960, false, 40)];
            let whole = feed(&mut Reassembler::default(), &order.map(|at| parts[at]));
            assert_eq!(whole.as_ref(), Some(&expected));
        }
    }

    #[test]
    fn overlaps_and_lies_end_it() {
        for parts in [
            &[(0, true, 1480), (1472, true, 16), (1480, false, 8)][..],
            &[(0, true, 1481), (1481, false, 8)],
            &[(65_528, false, 64), (0, true, 65_528)],
            &[(8, false, 8), (16, false, 8), (0, true, 8)],
            &[(8, false, 8)],
        ] {
            assert_eq!(feed(&mut Reassembler::default(), parts), None, "{parts:?}");
        }
    }

    #[test]
    fn a_flood_costs_nobody_else_his_datagram() {
        let mut reassembler = Reassembler::default();
        let network = NetworkId::new(0, 0);
        let (first, bytes) = view(0, true, 1480);
        let quiet = IpView { source: "10.0.0.9".parse().unwrap(), ..first };
        assert_eq!(reassembler.add(network, &quiet, &bytes, Instant::ZERO), None);
        for id in 1..2000_u16 {
            let (ip, mut bytes) = view(0, true, 8);
            bytes[18..20].copy_from_slice(&id.to_be_bytes());
            assert_eq!(reassembler.add(network, &ip, &bytes, Instant::from_nanos(u64::from(id))), None);
        }
        let (last, bytes) = view(1480, false, 20);
        let whole = reassembler.add(network, &IpView { source: quiet.source, ..last }, &bytes, Instant::from_nanos(9999));
        assert_eq!(whole.map(|whole| whole.len()), Some(1500));
    }

    #[test]
    fn a_flood_of_first_fragments_stays_bounded() {
        let mut reassembler = Reassembler::default();
        for id in 0..10_000_u16 {
            let (ip, mut bytes) = view(0, true, 8);
            bytes[18..20].copy_from_slice(&id.to_be_bytes());
            assert_eq!(reassembler.add(NetworkId::new(0, 0), &ip, &bytes, Instant::from_nanos(u64::from(id))), None);
        }
        assert!(reassembler.datagrams.len() <= MOST);
    }
}
