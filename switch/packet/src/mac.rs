//! Ethernet addresses.

use std::{fmt, str::FromStr};

/// A 48-bit Ethernet address in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// 00:00:00:00:00:00, not a legal source.
    pub const ZERO: Self = Self([0; 6]);

    /// The group bit: multicast or broadcast.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// 01-80-C2-00-00-00..0F, not forwarded by an 802.1Q bridge (IEEE 802.1Q table 8-1).
    #[must_use]
    pub const fn is_reserved_group(self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xc2, 0, 0, 0x00..=0x0f])
    }

    /// Destination address of the frame in `bytes`; `None` when shorter than six bytes.
    #[must_use]
    pub fn destination_of(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<6>().copied().map(Self)
    }

    /// Source address of the frame in `bytes`; `None` when shorter than twelve bytes.
    #[must_use]
    pub fn source_of(bytes: &[u8]) -> Option<Self> {
        bytes.get(6..12)?.first_chunk::<6>().copied().map(Self)
    }

    /// The address as the low 48 bits of an integer, first octet highest.
    #[must_use]
    #[inline]
    pub const fn as_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        // Two loads and swaps instead of six of each.
        (u32::from_be_bytes([a, b, c, d]) as u64) << 16 | u16::from_be_bytes([e, f]) as u64
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not an Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadMac;

impl fmt::Display for BadMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a MAC address: want six pairs of hex digits such as 02:42:ac:11:00:02")
    }
}

impl std::error::Error for BadMac {}

impl FromStr for Mac {
    type Err = BadMac;

    /// Accepts `aa:bb:cc:dd:ee:ff` and `aa-bb-cc-dd-ee-ff`.
    fn from_str(text: &str) -> Result<Self, BadMac> {
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or(BadMac)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(BadMac);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| BadMac)?;
        }
        if parts.next().is_some() { Err(BadMac) } else { Ok(Self(octets)) }
    }
}

/// An address that a station may own: not group, not zero. The only key the FDB learns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnicastMac(Mac);

impl UnicastMac {
    /// `None` for group addresses and for zero.
    #[must_use]
    pub fn new(mac: Mac) -> Option<Self> {
        if mac.is_group() || mac == Mac::ZERO { None } else { Some(Self(mac)) }
    }

    /// 02:42 and four octets: those of an IPv4 address, as Docker names the stations it makes.
    #[must_use]
    pub const fn numbered([a, b, c, d]: [u8; 4]) -> Self {
        Self(Mac([0x02, 0x42, a, b, c, d]))
    }

    /// The interface identifier that the address gives (modified EUI-64; RFC 4291 appendix A).
    #[must_use]
    pub const fn interface_identifier(self) -> u64 {
        let [a, b, c, d, e, f] = self.0.0;
        u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// The plain address.
    #[must_use]
    pub const fn get(self) -> Mac {
        self.0
    }
}

impl fmt::Display for UnicastMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for UnicastMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_rubbish_is_refused() {
        let mac: Mac = "02:42:ac:11:00:02".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        for bad in ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "+2:42:ac:11:00:02", "2:42:ac:11:00:02", "zz:42:ac:11:00:02"] {
            assert_eq!(bad.parse::<Mac>(), Err(BadMac), "{bad}");
        }
    }

    #[test]
    fn group_and_zero_are_no_station() {
        assert!(UnicastMac::new(Mac::BROADCAST).is_none());
        assert!(UnicastMac::new(Mac::ZERO).is_none());
        assert!(Mac([1, 0x80, 0xc2, 0, 0, 0x0e]).is_reserved_group());
        assert!(!Mac([1, 0x80, 0xc2, 0, 0, 0x10]).is_reserved_group());
    }
}
