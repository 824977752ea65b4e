//! What makes two packets one flow.

use std::net::IpAddr;

use crate::{address_words, parsed::Parsed};

/// Addresses, protocol and L4 ports of a TCP or UDP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FiveTuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source L4 port.
    pub source_port: u16,
    /// Destination L4 port.
    pub destination_port: u16,
}

/// The secret of a keyed hash, from a seeded source.
pub type HashKey = [u64; 2];

impl FiveTuple {
    /// Of the frame in `bytes` that `parsed` describes; `None` unless it is TCP or UDP and shows its
    /// ports (a later fragment does not).
    #[must_use]
    pub fn of(parsed: &Parsed, bytes: &[u8]) -> Option<Self> {
        let ip = parsed.ip?;
        let (source_port, destination_port) = parsed.l4_ports(bytes)?;
        Some(Self { source: ip.source, destination: ip.destination, protocol: ip.protocol, source_port, destination_port })
    }

    /// The same flow, seen from the other end.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }

    /// A hash that both directions share. Tuples are chosen by attackers, so it is SipHash-1-3
    /// under a secret key.
    #[must_use]
    pub fn symmetric_hash(&self, key: HashKey) -> u64 {
        let ends = [(self.source, self.source_port), (self.destination, self.destination_port)];
        let [low, high] = if ends[0] <= ends[1] { ends } else { [ends[1], ends[0]] };
        let mut words = [0; 5];
        [words[0], words[1]] = address_words(low.0);
        [words[2], words[3]] = address_words(high.0);
        // 4.2.4.2 and its IPv6 spelling are different flows, so the family goes in as well.
        words[4] = u64::from(low.1) << 48 | u64::from(high.1) << 32 | u64::from(low.0.is_ipv6()) << 8 | u64::from(self.protocol);
        keyed_hash(key, &words)
    }
}

/// SipHash-1-3 of `words` as little-endian bytes, for tables whose keys attackers choose.
#[must_use]
pub fn keyed_hash(key: HashKey, words: &[u64]) -> u64 {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let length = (words.len() as u64 * 8) << 56;
    for word in words.iter().chain([&length]) {
        state[3] ^= word;
        sip_round(&mut state);
        state[0] ^= word;
    }
    state[2] ^= 0xff;
    for _ in 0..3 {
        sip_round(&mut state);
    }
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn sip_round([v0, v1, v2, v3]: &mut [u64; 4]) {
    *v0 = v0.wrapping_add(*v1);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v3);
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.wrapping_add(*v3);
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.wrapping_add(*v1);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v2 = v2.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher as _};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The standard library's default hasher is SipHash-1-3 under the key (0, 0).
        #[test]
        fn hash_agrees_with_the_standard_library(words in proptest::collection::vec(any::<u64>(), 0..9)) {
            let mut oracle = DefaultHasher::new();
            oracle.write(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>());
            prop_assert_eq!(keyed_hash([0, 0], &words), oracle.finish());
        }

        #[test]
        fn both_directions_share_a_hash(source: [u8; 16], destination: [u8; 16], ports: [u16; 2], protocol: u8, key: [u64; 2]) {
            let tuple = FiveTuple {
                source: IpAddr::from(source),
                destination: IpAddr::from(destination),
                protocol,
                source_port: ports[0],
                destination_port: ports[1],
            };
            prop_assert_eq!(tuple.symmetric_hash(key), tuple.reversed().symmetric_hash(key));
            prop_assert_ne!(tuple.symmetric_hash(key), tuple.symmetric_hash([key[0] ^ 1, key[1]]));
            prop_assert_eq!(tuple.reversed().reversed(), tuple);
        }
    }

    #[test]
    fn families_hash_apart() {
        let tuple = |end: IpAddr| FiveTuple { source: end, destination: end, protocol: 6, source_port: 1, destination_port: 2 };
        let (short, long) = (tuple([0, 0, 0, 1].into()), tuple(std::net::Ipv6Addr::LOCALHOST.into()));
        assert_ne!(short.symmetric_hash([1, 2]), long.symmetric_hash([1, 2]));
    }

    #[test]
    fn swapped_ports_alone_are_another_flow() {
        let [a, b] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let tuple = FiveTuple { source: a, destination: b, protocol: 6, source_port: 1, destination_port: 2 };
        let crossed = FiveTuple { source_port: 2, destination_port: 1, ..tuple };
        assert_ne!(tuple.symmetric_hash([1, 2]), crossed.symmetric_hash([1, 2]));
    }
}
