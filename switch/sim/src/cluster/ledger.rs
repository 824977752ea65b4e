//! Every test frame from its sender to whoever gets it, and what must hold on the way.
//!
//! A datagram is delivered as often as the underlay brings it: VXLAN numbers nothing, so it cannot tell a duplicate. What is
//! promised is that no duplicate is made by us: a frame leaves its node once for each other node, and only from there; and
//! what arrives once is given to each station once at most.

use std::{collections::BTreeMap, net::IpAddr};

use packet::{ETHERNET_LEN, Frame, Mac, Pool, PortId, Vni};

/// EtherType of test frames (IEEE 802 local experimental 1).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// Shortest frame without check sequence.
const SHORTEST: usize = 60;

/// A port of a node, by its number.
pub(super) type At = (usize, PortId);

/// A frame and its way.
#[derive(Debug)]
struct Sent {
    vni: Vni,
    from: At,
    to: Mac,
    /// Datagrams that left with it, by where to.
    left: BTreeMap<IpAddr, u32>,
    /// Datagrams that arrived with it.
    arrived: BTreeMap<usize, u32>,
    /// How often stations got it.
    delivered: BTreeMap<At, u32>,
    /// Stations it was meant for that got it.
    reached: u32,
}

/// What became of all frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames that stations sent.
    pub sent: u64,
    /// Datagrams between nodes.
    pub datagrams: u64,
    /// Datagrams that the underlay lost, or that a partition kept.
    pub lost: u64,
    /// Further copies that the underlay made.
    pub duplicated: u64,
    /// Frames given to stations, floods to others than the addressed among them.
    pub delivered: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sent: Vec<Sent>,
    pub(super) traffic: Traffic,
}

impl Ledger {
    /// A frame for the ledger; its number is in it.
    pub(super) fn frame(&mut self, (from, vni): (At, Vni), source: Mac, to: Mac, pool: &Pool) -> Option<(usize, Frame)> {
        let number = self.sent.len();
        let mut bytes = [&to.0[..], &source.0, &EXPERIMENTAL, &(number as u64).to_be_bytes()].concat();
        bytes.resize(SHORTEST, 0);
        let frame = pool.copy_of(&bytes)?;
        self.sent.push(Sent { vni, from, to, left: BTreeMap::new(), arrived: BTreeMap::new(), delivered: BTreeMap::new(), reached: 0 });
        self.traffic.sent += 1;
        Some((number, frame))
    }

    fn of(&mut self, inner: &[u8]) -> (usize, &mut Sent) {
        let number = inner.get(ETHERNET_LEN..).and_then(|rest| rest.first_chunk::<8>()).map(|bytes| u64::from_be_bytes(*bytes));
        let number = number.and_then(|number| usize::try_from(number).ok()).filter(|_| inner[12..ETHERNET_LEN] == EXPERIMENTAL);
        match number.and_then(|number| Some((number, self.sent.get_mut(number)?))) {
            Some(found) => found,
            None => panic!("a frame that nobody sent: {inner:02x?}"),
        }
    }

    /// `datagram` leaves `node` for another.
    ///
    /// # Panics
    /// When it was relayed, is another's or goes there a second time.
    pub(super) fn leaves(&mut self, context: &str, node: usize, to: IpAddr, datagram: &[u8]) {
        self.traffic.datagrams += 1;
        let vni = vxlan::header::parse(datagram);
        let (number, sent) = self.of(&datagram[vxlan::header::HEADER_LEN..]);
        assert_eq!(vni, Ok(sent.vni), "{context}: frame {number} leaves in another network");
        assert_eq!(node, sent.from.0, "{context}: frame {number} is relayed by node {node}");
        let times = sent.left.entry(to).or_default();
        *times += 1;
        assert_eq!(*times, 1, "{context}: frame {number} leaves for {to} again");
    }

    /// `datagram` arrives at `node`.
    pub(super) fn arrives(&mut self, node: usize, datagram: &[u8]) {
        *self.of(&datagram[vxlan::header::HEADER_LEN..]).1.arrived.entry(node).or_default() += 1;
    }

    /// A station of `vni` with the address `mac` gets a frame.
    ///
    /// # Panics
    /// When it is not of its network, its own, or comes more often than the underlay brought it.
    pub(super) fn delivered(&mut self, context: &str, at: At, (vni, mac): (Vni, Mac), frame: &[u8]) {
        self.traffic.delivered += 1;
        let (number, sent) = self.of(frame);
        assert_eq!(vni, sent.vni, "{context}: frame {number} is delivered in another network");
        assert_ne!(at, sent.from, "{context}: frame {number} comes back to its sender");
        let brought = if at.0 == sent.from.0 { 1 } else { sent.arrived.get(&at.0).copied().unwrap_or(0) };
        let times = sent.delivered.entry(at).or_default();
        *times += 1;
        assert!(*times <= brought, "{context}: frame {number} came {times} times to {at:?}, and the underlay brought it {brought} times");
        if *times == 1 && (sent.to.is_group() || sent.to == mac) {
            sent.reached += 1;
        }
    }

    /// Stations that a frame was for, and that got it.
    pub(super) fn reached(&self, number: usize) -> u32 {
        self.sent[number].reached
    }
}

#[cfg(test)]
mod tests {
    use packet::PoolConfig;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// Node 0's frame to all, as it left in its network's VNI, which is 7, and what is inside.
    fn flooded() -> (Ledger, At, Vec<u8>, Vec<u8>) {
        let mut ledger = Ledger::default();
        let port = PortId::new(1, 1);
        let vni = Vni::new(7).unwrap();
        let (_, frame) = ledger.frame(((0, port), vni), Mac([2, 0, 0, 0, 0, 1]), Mac::BROADCAST, &Pool::new(PoolConfig { small: 8, large: 1 })).unwrap();
        let inner = frame.bytes().to_vec();
        let datagram = [&vxlan::header::emit(vni)[..], &inner].concat();
        ledger.leaves("", 0, HERE, &datagram);
        (ledger, (1, port), datagram, inner)
    }

    fn station(vni: u32) -> (Vni, Mac) {
        (Vni::new(vni).unwrap(), Mac([2, 0, 0, 0, 0, 2]))
    }

    #[test]
    fn what_the_underlay_doubles_may_be_delivered_twice() {
        let (mut ledger, at, datagram, inner) = flooded();
        for _ in 0..2 {
            ledger.arrives(1, &datagram);
            ledger.delivered("", at, station(7), &inner);
        }
        assert_eq!((ledger.reached(0), ledger.traffic.delivered), (1, 2));
    }

    #[test]
    #[should_panic(expected = "came 2 times")]
    fn what_we_double_may_not() {
        let (mut ledger, at, datagram, inner) = flooded();
        ledger.arrives(1, &datagram);
        (0..2).for_each(|_| ledger.delivered("", at, station(7), &inner));
    }

    #[test]
    #[should_panic(expected = "is delivered in another network")]
    fn another_network_may_not_have_it() {
        let (mut ledger, at, datagram, inner) = flooded();
        ledger.arrives(1, &datagram);
        ledger.delivered("", at, station(8), &inner);
    }

    #[test]
    #[should_panic(expected = "comes back to its sender")]
    fn its_sender_may_not_have_it() {
        let (mut ledger, (_, port), _, inner) = flooded();
        ledger.delivered("", (0, port), station(7), &inner);
    }

    #[test]
    #[should_panic(expected = "is relayed by node 1")]
    fn another_node_may_not_send_it_on() {
        let (mut ledger, _, datagram, _) = flooded();
        ledger.leaves("", 1, HERE, &datagram);
    }

    #[test]
    #[should_panic(expected = "again")]
    fn it_may_not_leave_twice() {
        let (mut ledger, _, datagram, _) = flooded();
        ledger.leaves("", 0, HERE, &datagram);
    }
}
