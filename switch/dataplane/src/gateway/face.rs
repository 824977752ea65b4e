//! A gateway's IPv4 addresses made ready, for the common case: a packet that is for the outside.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{GatewayConfig, GatewayRole};

/// See the module.
#[derive(Debug)]
pub(crate) struct Face {
    is_uplink: bool,
    /// The first, and its subnet's mask.
    own: u32,
    mask: u32,
    others: Vec<u32>,
}

impl Face {
    /// `None` unless the gateway's first address is of IPv4, and it hands anything out.
    pub(crate) fn new(gateway: &GatewayConfig) -> Option<Self> {
        let Some(IpNetwork::V4(first)) = gateway.addresses.first().filter(|_| gateway.role != GatewayRole::Resolver) else { return None };
        let others = gateway.addresses[1..].iter().filter_map(|address| if let IpAddr::V4(ip) = address.ip() { Some(ip.into()) } else { None });
        Some(Self { is_uplink: gateway.role == GatewayRole::Uplink, own: first.ip().into(), mask: first.mask().into(), others: others.collect() })
    }

    /// Whether a frame to the gateway's MAC is an untagged IPv4 packet for which [`GatewayConfig::hear`]
    /// would find nothing but that it is for the outside. False leaves it to that.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "on every frame's way; counted")]
    pub(crate) fn is_plainly_outside(&self, bytes: &[u8]) -> bool {
        let Some(frame) = bytes.first_chunk::<34>() else { return false };
        let word = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let (source, destination) = (word(26), word(30));
        let is_outside = if self.is_uplink {
            destination == self.own && matches!(frame[23], 6 | 17)
        } else {
            (source ^ self.own) & self.mask == 0 && destination != self.own
        };
        let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        // EtherType, version and header length; service class.
        word(12) & 0xffff_ff00 == 0x0800_4500
            && length >= 20
            && 14 + length <= bytes.len()
            && frame[22] > 1
            && is_outside
            && source != self.own
            && (self.others.is_empty() || !self.others.iter().any(|other| [source, destination].contains(other)))
            && is_summed(frame)
    }
}

/// Whether the checksum of an IPv4 header without options is right: the sum of its words, in the machine's order,
/// is all ones, which is zero.
#[inline]
fn is_summed(frame: &[u8; 34]) -> bool {
    let word = |at: usize| u64::from(u32::from_ne_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]));
    let sum = word(14) + word(18) + word(22) + word(26) + word(30);
    // Its version makes it more than nothing.
    sum % 0xffff == 0
}

#[cfg(test)]
mod tests {
    use packet::{Instant, Mac, Pool, PoolConfig, UnicastMac};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        gateway::{Heard, Services},
        header::Header,
    };

    proptest! {
        /// The common case is one: the gateway itself would hand the frame out too, as it is.
        #[test]
        fn what_is_plainly_outside_is_outside(
            is_uplink: bool,
            second: bool,
            source in prop_oneof![4 => 1..5_u8, 1 => any::<u8>()],
            destination in prop_oneof![Just([10, 0, 0, 1]), Just([10, 0, 1, 1]), Just([192, 0, 2, 7])],
            protocol in prop_oneof![Just(1_u8), Just(6), Just(17), any::<u8>()],
            hops in prop_oneof![4 => Just(64_u8), 1 => 0..3_u8],
            size in 0..40_usize,
            flips in proptest::collection::vec((12..34_usize, any::<u8>()), 0..2),
            is_summed_anew: bool,
        ) {
            let mac = UnicastMac::new(Mac([2, 0, 0, 0, 0, 9])).unwrap();
            let mut addresses: Vec<IpNetwork> = vec!["10.0.0.1/24".parse().unwrap()];
            addresses.extend(second.then(|| "10.0.1.1/24".parse::<IpNetwork>().unwrap()));
            let role = if is_uplink { GatewayRole::Uplink } else { GatewayRole::Network };
            let gateway = GatewayConfig { role, ..GatewayConfig::new(mac, addresses) };
            let mut bytes = [&mac.get().0[..], &[2, 0, 0, 0, 0, source, 8, 0, 0x45, 0, 0, 20 + u8::try_from(size).unwrap(), 0, 0, 0, 0, hops, protocol, 0, 0, 10, 0, 0, source], &destination].concat();
            bytes.resize(34 + size, 8);
            let sum = |bytes: &mut [u8]| {
                bytes[24..26].fill(0);
                let sum = !packet::checksum::fold(packet::checksum::sum(&bytes[14..34]));
                bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            };
            sum(&mut bytes);
            for (at, flip) in flips {
                bytes[at] ^= flip;
            }
            if is_summed_anew {
                sum(&mut bytes);
            }
            if Face::new(&gateway).unwrap().is_plainly_outside(&bytes) {
                let pool = Pool::new(PoolConfig::default());
                let frame = pool.copy_of(&bytes).unwrap();
                let heard = gateway.hear(&mut Services::default(), Header::new(&bytes).unwrap(), frame, Instant::ZERO, &pool);
                prop_assert!(matches!(&heard, Ok(Heard::Outside(frame)) if frame.bytes() == bytes), "{:?}", heard);
            }
        }
    }

    #[test]
    fn a_plain_packet_is_seen_and_a_wrong_sum_is_not() {
        let gateway = GatewayConfig::new(UnicastMac::new(Mac([2, 0, 0, 0, 0, 9])).unwrap(), vec!["10.0.0.1/24".parse().unwrap()]);
        let face = Face::new(&gateway).unwrap();
        let mut bytes = [&[0; 12][..], &[8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 192, 0, 2, 7]].concat();
        let sum = !packet::checksum::fold(packet::checksum::sum(&bytes[14..34]));
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        assert!(face.is_plainly_outside(&bytes));
        bytes[25] ^= 1;
        assert!(!face.is_plainly_outside(&bytes));
    }
}
