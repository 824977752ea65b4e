//! IPv6 prefixes for prefixes, without state (RFC 6296): the address changes such that no checksum does.

use std::net::Ipv6Addr;

use ipnetwork::Ipv6Network;
use packet::checksum::{fold, sum};

/// An inside prefix and its external one, both of the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    inside: Ipv6Network,
    external: Ipv6Network,
    /// Added to the adjusted word on the way out (RFC 6296 section 3.1).
    adjustment: u16,
}

/// Words of an address.
type Words = [u16; 8];

impl Prefixes {
    /// `None` unless both are of one length, at most 64 (RFC 6296 section 3.2 to 3.5; a longer one leaves no
    /// word of the interface identifier whole).
    #[must_use]
    pub fn new(inside: Ipv6Network, external: Ipv6Network) -> Option<Self> {
        if inside.prefix() != external.prefix() || inside.prefix() > 64 || inside.prefix() == 0 {
            return None;
        }
        let sum_of = |network: Ipv6Network| fold(sum(&network.network().octets()));
        let adjustment = add(sum_of(inside), !sum_of(external));
        Some(Self { inside, external, adjustment })
    }

    /// The inside prefix.
    #[must_use]
    pub const fn inside(&self) -> Ipv6Network {
        self.inside
    }

    /// The external prefix.
    #[must_use]
    pub const fn external(&self) -> Ipv6Network {
        self.external
    }

    /// An inside address as outside sees it; `None` when it cannot be translated.
    #[must_use]
    pub fn outward(&self, ip: Ipv6Addr) -> Option<Ipv6Addr> {
        self.inside.contains(ip).then(|| translate(ip, self.external, self.adjustment)).flatten()
    }

    /// And back.
    #[must_use]
    pub fn inward(&self, ip: Ipv6Addr) -> Option<Ipv6Addr> {
        self.external.contains(ip).then(|| translate(ip, self.inside, !self.adjustment)).flatten()
    }
}

/// One's-complement addition.
fn add(a: u16, b: u16) -> u16 {
    fold(u64::from(a) + u64::from(b))
}

fn translate(ip: Ipv6Addr, to: Ipv6Network, adjustment: u16) -> Option<Ipv6Addr> {
    let host_bits = u128::MAX.checked_shr(to.prefix().into()).unwrap_or(0);
    let mut words: Words = Ipv6Addr::from(u128::from(to.network()) | u128::from(ip) & host_bits).segments();
    // Section 3.4: with /48 or shorter the subnet's word takes it; section 3.5: else the first of the
    // interface identifier that is not all ones, which stands for zero.
    let at = if to.prefix() <= 48 { 3 } else { (4..8).find(|&at| words[at] != 0xffff)? };
    if words[at] == 0xffff {
        return None;
    }
    words[at] = match add(words[at], adjustment) {
        0xffff => 0,
        word => word,
    };
    Some(words.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefixes(inside: &str, external: &str) -> Option<Prefixes> {
        Prefixes::new(inside.parse().unwrap(), external.parse().unwrap())
    }

    #[test]
    fn example_of_the_rfc() {
        // RFC 6296 section 3.1 to 3.4: FD01:203:405::/48 and 2001:DB8:1::/48.
        let prefixes = prefixes("fd01:203:405::/48", "2001:db8:1::/48").unwrap();
        let (inside, outside) = ("fd01:203:405:1::1234".parse().unwrap(), "2001:db8:1:d550::1234".parse().unwrap());
        assert_eq!(prefixes.outward(inside), Some(outside));
        assert_eq!(prefixes.inward(outside), Some(inside));
        assert_eq!(prefixes.outward("fd02::1".parse().unwrap()), None);
        assert_eq!(prefixes.outward("fd01:203:405:ffff::1".parse().unwrap()), None);
    }

    #[test]
    fn lengths_must_agree() {
        assert!(prefixes("fd00::/48", "2001:db8::/56").is_none() && prefixes("fd00::/96", "2001:db8::/96").is_none());
    }

    proptest! {
        #[test]
        fn neutral_and_back(bits: u128, inside: u128, external: u128, length in 1_u8..=64) {
            let cut = |bits: u128| Ipv6Network::new(Ipv6Addr::from(bits & !(u128::MAX >> length)), length).unwrap();
            let prefixes = Prefixes::new(cut(inside), cut(external)).unwrap();
            let ip = Ipv6Addr::from(u128::from(cut(inside).network()) | bits & u128::MAX >> length);
            if let Some(outside) = prefixes.outward(ip) {
                prop_assert!(prefixes.external().contains(outside));
                let (one, other) = (fold(sum(&ip.octets())), fold(sum(&outside.octets())));
                prop_assert!(one == other || one % 0xffff == other % 0xffff);
                prop_assert_eq!(prefixes.inward(outside), Some(ip));
            }
        }
    }
}
