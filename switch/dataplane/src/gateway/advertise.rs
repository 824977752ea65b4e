//! Router advertisements (RFC 4861 6.2): on a timer, and to those who solicit them.
//!
//! A solicitation with a source is answered to it alone; one from nobody is answered to all, but to all
//! no more than once in three seconds. What is held back then, the timer sends.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv6Network};
use packet::{Checksum, Duration, Frame, Instant, Mac, Parsed, Pool, UnicastMac, checksum::{self, protocol}};

use super::answer;
use crate::drop::DropReason;

/// What a network's gateway advertises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertiseConfig {
    /// Whether it leads outside: else nobody takes it as a default router.
    pub is_router: bool,
    /// Largest packet of the network, bytes.
    pub mtu: u32,
}

/// Time between advertisements that nobody asked for, and between the first ones (RFC 4861 6.2.1,
/// `MaxRtrAdvInterval` and section 10, `MAX_INITIAL_RTR_ADVERT_INTERVAL`).
const INTERVAL: Duration = Duration::from_secs(200);
const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
const INITIAL_COUNT: u32 = 3;
/// `MIN_DELAY_BETWEEN_RAS`.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(3);
/// Seconds that a default router, and its name server, are good for.
const LIFETIME: u16 = 1800;
/// Seconds that a prefix is good for and preferred (RFC 4861 6.2.1: 30 days, 7 days).
const VALID: u32 = 2_592_000;
const PREFERRED: u32 = 604_800;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
/// Least MTU of IPv6 (RFC 8200 5): a smaller one is not advertised.
const LEAST_MTU: u32 = 1280;

#[derive(Debug)]
pub(crate) struct Advertiser {
    config: AdvertiseConfig,
    mac: UnicastMac,
    prefixes: Vec<Ipv6Network>,
    /// When the next one to all is due.
    next: Instant,
    sent: u32,
    last: Option<Instant>,
}

impl Advertiser {
    pub(super) fn new(config: AdvertiseConfig, mac: UnicastMac, addresses: &[IpNetwork], now: Instant) -> Self {
        let prefixes = addresses.iter().filter_map(|address| match address {
            IpNetwork::V6(v6) => Some(*v6),
            IpNetwork::V4(_) => None,
        });
        Self { config, mac, prefixes: prefixes.collect(), next: now, sent: 0, last: None }
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// The advertisement to all that is due, if one is and a buffer for it.
    pub(crate) fn handle_timeout(&mut self, now: Instant, pool: &Pool) -> Option<Frame> {
        if now < self.next {
            return None;
        }
        self.tell_all(now, pool).ok()
    }

    /// Hears a router solicitation; an answer, unless it must wait.
    pub(super) fn solicited(&mut self, parsed: &Parsed, frame: &Frame, now: Instant, pool: &Pool) -> Result<Option<Frame>, DropReason> {
        let bytes = frame.bytes();
        let source = is_valid(parsed, bytes).filter(|_| frame.offload.checksum != Checksum::Complete || checksum::verify(bytes)).ok_or(DropReason::GatewayMalformed)?;
        if !source.is_unspecified() {
            let mut station = [0; 6];
            station.copy_from_slice(&bytes[6..12]);
            return self.advertisement(Mac(station), source, pool).map(Some);
        }
        match self.last.map(|last| last + SHORTEST_INTERVAL).filter(|free| *free > now) {
            Some(free) => {
                self.next = self.next.min(free);
                Ok(None)
            }
            None => self.tell_all(now, pool).map(Some),
        }
    }

    fn tell_all(&mut self, now: Instant, pool: &Pool) -> Result<Frame, DropReason> {
        self.sent = self.sent.saturating_add(1);
        self.last = Some(now);
        self.next = now + if self.sent < INITIAL_COUNT { INITIAL_INTERVAL } else { INTERVAL };
        self.advertisement(ALL_NODES_MAC, ALL_NODES, pool)
    }

    fn advertisement(&self, to_mac: Mac, to: Ipv6Addr, pool: &Pool) -> Result<Frame, DropReason> {
        let lifetime = if self.config.is_router { LIFETIME } else { 0 };
        // Type, code, checksum, hop limit, flags, router lifetime, reachable time, retransmission timer.
        let mut message = vec![134, 0, 0, 0, answer::HOPS, 0];
        message.extend(lifetime.to_be_bytes());
        message.extend([0; 8]);
        // Source link-layer address.
        message.extend([1, 1]);
        message.extend(self.mac.get().0);
        if self.config.mtu >= LEAST_MTU {
            message.extend([5, 1, 0, 0]);
            message.extend(self.config.mtu.to_be_bytes());
        }
        for prefix in &self.prefixes {
            // On-link; autonomous when an interface identifier of 64 bits fits (RFC 4862 5.5.3 d).
            let flags = if prefix.prefix() == 64 { 0xc0 } else { 0x80 };
            message.extend([3, 4, prefix.prefix(), flags]);
            message.extend([VALID, PREFERRED, 0].map(u32::to_be_bytes).as_flattened());
            message.extend(prefix.network().octets());
        }
        if let Some(own) = self.prefixes.first() {
            // Recursive name server (RFC 8106 5.1).
            message.extend([25, 3, 0, 0]);
            message.extend(u32::from(LIFETIME).to_be_bytes());
            message.extend(own.ip().octets());
        }
        let from = answer::link_local(self.mac);
        answer::packet(pool, (to_mac, self.mac.get()), from.into(), to.into(), 255, protocol::ICMPV6, &message)
    }
}

/// RFC 4861 6.1.1 but for the checksum; the source.
fn is_valid(parsed: &Parsed, bytes: &[u8]) -> Option<Ipv6Addr> {
    let ip = parsed.ip?;
    let IpAddr::V6(source) = ip.source else { return None };
    let message = bytes.get(ip.l4_offset..ip.end()).filter(|message| message.len() >= 8)?;
    let mut options = &message[8..];
    while !options.is_empty() {
        let &[kind, length, ..] = options else { return None };
        let is_from_nobody_with_address = kind == 1 && source.is_unspecified();
        if length == 0 || is_from_nobody_with_address {
            return None;
        }
        options = options.get(usize::from(length) * 8..)?;
    }
    let is_fine = answer::hops(&ip, bytes) == 255 && message[1] == 0 && !source.is_multicast();
    is_fine.then_some(source)
}

#[cfg(test)]
mod tests {
    use packet::PoolConfig;
    use proptest::prelude::*;

    use super::*;

    const GATEWAY: Mac = Mac([2, 0x42, 10, 9, 0, 1]);
    const HOST: &str = "fe80::5";

    fn pool() -> Pool {
        Pool::new(PoolConfig::default())
    }

    fn advertiser(is_router: bool, subnet: &str) -> Advertiser {
        let addresses = ["10.9.0.1/24", subnet].map(|address| address.parse().unwrap());
        Advertiser::new(AdvertiseConfig { is_router, mtu: 1400 }, UnicastMac::new(GATEWAY).unwrap(), &addresses, Instant::ZERO)
    }

    fn solicitation(source: &str, hops: u8, message: &[u8]) -> Vec<u8> {
        let pool = pool();
        let to: Ipv6Addr = "ff02::2".parse().unwrap();
        let source: Ipv6Addr = source.parse().unwrap();
        let frame = answer::packet(&pool, (Mac([0x33, 0x33, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 5])), source.into(), to.into(), hops, protocol::ICMPV6, message).unwrap();
        frame.bytes().to_vec()
    }

    fn plain(source: &str) -> Vec<u8> {
        solicitation(source, 255, &[133, 0, 0, 0, 0, 0, 0, 0])
    }

    fn solicit(advertiser: &mut Advertiser, bytes: &[u8], seconds: u64) -> Result<Option<Vec<u8>>, DropReason> {
        let pool = pool();
        let frame = pool.copy_of(bytes).unwrap();
        let answer = advertiser.solicited(&Parsed::new(bytes).unwrap(), &frame, at(seconds), &pool)?;
        Ok(answer.map(|answer| answer.bytes().to_vec()))
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn an_advertisement_to_the_byte() {
        let bytes = solicit(&mut advertiser(true, "fd00:1::1/64"), &plain(HOST), 0).unwrap().unwrap();
        assert!(checksum::verify(&bytes));
        let addresses = ["fe80::42:aff:fe09:1", HOST].map(|ip| ip.parse::<Ipv6Addr>().unwrap().octets());
        let ethernet = [&[2, 0, 0, 0, 0, 5][..], &GATEWAY.0, &[0x86, 0xdd]].concat();
        let ip = [&[0x60, 0, 0, 0, 0, 88, 58, 255][..], &addresses[0], &addresses[1]].concat();
        let prefix: Ipv6Addr = "fd00:1::".parse().unwrap();
        let server: Ipv6Addr = "fd00:1::1".parse().unwrap();
        let options = [
            &[1, 1, 2, 0x42, 10, 9, 0, 1][..],
            &[5, 1, 0, 0, 0, 0, 0x05, 0x78],
            &[3, 4, 64, 0xc0, 0, 0x27, 0x8d, 0, 0, 0x09, 0x3a, 0x80, 0, 0, 0, 0],
            &prefix.octets(),
            &[25, 3, 0, 0, 0, 0, 0x07, 0x08],
            &server.octets(),
        ];
        assert_eq!(bytes[..14], ethernet);
        assert_eq!(bytes[14..54], ip);
        assert_eq!((&bytes[54..56], &bytes[58..70]), (&[134, 0][..], &[64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0][..]));
        assert_eq!(bytes[70..], options.concat());
    }

    #[test]
    fn no_router_and_no_autonomous_prefix() {
        let bytes = solicit(&mut advertiser(false, "fd00:1::1/80"), &plain(HOST), 0).unwrap().unwrap();
        assert_eq!(bytes[60..62], [0, 0], "nobody's default router");
        assert_eq!(bytes[86..90], [3, 4, 80, 0x80], "on-link only");
        let mut small = advertiser(true, "fd00:1::1/64");
        small.config.mtu = 1000;
        let bytes = solicit(&mut small, &plain(HOST), 0).unwrap().unwrap();
        assert_eq!(bytes[78..80], [3, 4], "no MTU that IPv6 does not have");
    }

    #[test]
    fn three_soon_and_then_every_two_hundred_seconds() {
        let mut advertiser = advertiser(true, "fd00:1::1/64");
        let mut sent = Vec::new();
        while sent.len() < 6 {
            let due = advertiser.poll_timeout();
            assert!(due == at(0) || advertiser.handle_timeout(due - Duration::from_nanos(1), &pool()).is_none());
            let frame = advertiser.handle_timeout(due, &pool()).unwrap();
            assert_eq!(frame.bytes()[..6], ALL_NODES_MAC.0);
            sent.push(due.as_nanos() / 1_000_000_000);
        }
        assert_eq!(sent, [0, 16, 32, 232, 432, 632]);
        // After a long sleep, one and not many.
        assert!(advertiser.handle_timeout(at(100_000), &pool()).is_some());
        assert!(advertiser.handle_timeout(at(100_000), &pool()).is_none());
    }

    #[test]
    fn nobody_makes_us_shout() {
        let mut advertiser = advertiser(true, "fd00:1::1/64");
        let told: Vec<u64> = (1..10).filter(|second| solicit(&mut advertiser, &plain("::"), *second).unwrap().is_some()).collect();
        assert_eq!(told, [1, 4, 7]);
        // What was held back comes by the timer.
        assert_eq!(advertiser.poll_timeout(), at(10));
        assert!(solicit(&mut advertiser, &plain(HOST), 9).unwrap().is_some(), "one to itself is answered at once");
        assert!(advertiser.handle_timeout(at(10), &pool()).is_some());
        assert_eq!(advertiser.poll_timeout(), at(210));
    }

    #[test]
    fn solicitations_are_checked() {
        let rs = [133, 0, 0, 0, 0, 0, 0, 0];
        let with = |more: &[u8]| [&rs[..], more].concat();
        let mut broken = plain(HOST);
        broken[57] ^= 1;
        for (bytes, what) in [
            (solicitation(HOST, 254, &rs), "came over a router"),
            (solicitation(HOST, 255, &[133, 1, 0, 0, 0, 0, 0, 0]), "code"),
            (solicitation(HOST, 255, &rs[..7]), "cut short"),
            (solicitation(HOST, 255, &with(&[1, 0, 0, 0, 0, 0, 0, 0])), "an option of no length"),
            (solicitation(HOST, 255, &with(&[1, 2, 0, 0, 0, 0, 0, 0])), "an option that is cut short"),
            (solicitation(HOST, 255, &with(&[1])), "half an option"),
            (solicitation("::", 255, &with(&[1, 1, 2, 0, 0, 0, 0, 5])), "nobody with an address"),
            (solicitation("ff02::5", 255, &rs), "from a group"),
            (broken, "checksum"),
        ] {
            assert_eq!(solicit(&mut advertiser(true, "fd00:1::1/64"), &bytes, 0), Err(DropReason::GatewayMalformed), "{what}");
        }
        assert!(solicit(&mut advertiser(true, "fd00:1::1/64"), &solicitation(HOST, 255, &with(&[1, 1, 2, 0, 0, 0, 0, 5])), 0).is_ok());
    }

    proptest! {
        #[test]
        fn rubbish_is_survived(message in proptest::collection::vec(prop_oneof![any::<u8>(), 0..3_u8], 0..80)) {
            let bytes = solicitation(HOST, 255, &[&[133, 0, 0, 0][..], &message].concat());
            drop(solicit(&mut advertiser(true, "fd00:1::1/64"), &bytes, 0));
        }
    }
}
