use packet::{PacketMut, PoolConfig};
use proptest::prelude::*;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, Ipv6Packet, NdiscNeighborFlags, NdiscRepr,
    },
};

use super::*;
use crate::vtep::samples::{HERE, THERE, arp_request, solicitation, udp4};

const ASKER: [u8; 4] = [10, 0, 0, 1];
const OWNER: [u8; 4] = [10, 0, 0, 2];
const ASKER6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const OWNER6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn known(mac: [u8; 6], router: bool) -> Neighbours {
    let mut neighbours = Neighbours::default();
    let neighbour = Neighbour { mac: UnicastMac::new(Mac(mac)).unwrap(), router };
    neighbours.set(OWNER.into(), neighbour).unwrap();
    neighbours.set(OWNER6.into(), neighbour).unwrap();
    neighbours
}

fn answer(neighbours: &Neighbours, bytes: &[u8]) -> Option<Vec<u8>> {
    let pool = Pool::new(PoolConfig::default());
    let frame = pool.copy_of(bytes).unwrap();
    let answer = neighbours.answer(&Parsed::new(bytes).unwrap(), &frame, &pool).unwrap();
    answer.map(|answer| answer.bytes().to_vec())
}

#[test]
fn smoltcp_reads_the_arp_reply() {
    let reply = answer(&known(THERE, false), &arp_request(ASKER, OWNER)).unwrap();
    let ethernet = EthernetFrame::new_checked(&reply[..]).unwrap();
    assert_eq!((ethernet.dst_addr().0, ethernet.src_addr().0, ethernet.ethertype()), (HERE, THERE, EthernetProtocol::Arp));
    let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, target_hardware_addr, target_protocol_addr } =
        ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).unwrap()).unwrap()
    else {
        panic!("ARP over Ethernet");
    };
    assert_eq!((operation, source_hardware_addr.0, source_protocol_addr), (ArpOperation::Reply, THERE, OWNER.into()));
    assert_eq!((target_hardware_addr.0, target_protocol_addr), (HERE, ASKER.into()));
}

#[test]
fn smoltcp_reads_the_advertisement() {
    for router in [false, true] {
        let reply = answer(&known(THERE, router), &solicitation(ASKER6, OWNER6)).unwrap();
        assert!(checksum::verify(&reply));
        let ethernet = EthernetFrame::new_checked(&reply[..]).unwrap();
        assert_eq!((ethernet.dst_addr().0, ethernet.src_addr().0), (HERE, THERE));
        let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
        assert_eq!((ip.src_addr(), ip.dst_addr(), ip.hop_limit()), (OWNER6.into(), ASKER6.into(), 255));
        let message = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) =
            Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &message, &ChecksumCapabilities::default()).unwrap()
        else {
            panic!("a neighbour advertisement");
        };
        let mut wanted = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
        wanted.set(NdiscNeighborFlags::ROUTER, router);
        assert_eq!((flags, target_addr), (wanted, OWNER6.into()));
        assert_eq!(lladdr.unwrap().as_bytes(), THERE);
    }
}

#[test]
fn an_arp_probe_is_answered_only_for_another_owner() {
    let probe = arp_request([0; 4], OWNER);
    assert!(answer(&known(THERE, false), &probe).is_some());
    assert!(answer(&known(HERE, false), &probe).is_none());
}

#[test]
fn what_is_not_for_us_to_answer_travels_on() {
    let neighbours = known(THERE, false);
    let silent = |bytes: &[u8]| assert_eq!(answer(&neighbours, bytes), None);
    silent(&arp_request(OWNER, OWNER));
    silent(&arp_request(ASKER, [10, 0, 0, 3]));
    silent(&solicitation([0; 16], OWNER6));
    silent(&solicitation(ASKER6, ASKER6));
    silent(&udp4(1, 2, &[]));
    let changed = |mut bytes: Vec<u8>, at: usize, value: u8| {
        bytes[at] = value;
        bytes
    };
    // A reply; another hardware; to one station; hop limit 254; code 1; checksum.
    silent(&changed(arp_request(ASKER, OWNER), 21, 2));
    silent(&changed(arp_request(ASKER, OWNER), 15, 6));
    silent(&changed(arp_request(ASKER, OWNER), 0, 2));
    silent(&changed(solicitation(ASKER6, OWNER6), 0, 2));
    silent(&changed(solicitation(ASKER6, OWNER6), 21, 254));
    silent(&changed(solicitation(ASKER6, OWNER6), 55, 1));
    silent(&changed(solicitation(ASKER6, OWNER6), 85, 9));
    let mut tagged = arp_request(ASKER, OWNER);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    silent(&tagged);
}

#[test]
fn the_owner_gets_no_answer_about_itself() {
    let neighbours = known(HERE, false);
    assert_eq!(answer(&neighbours, &arp_request(ASKER, OWNER)), None);
    assert_eq!(answer(&neighbours, &solicitation(ASKER6, OWNER6)), None);
}

#[test]
fn no_group_has_a_neighbour() {
    let mut neighbours = Neighbours::default();
    let neighbour = Neighbour { mac: UnicastMac::new(Mac(THERE)).unwrap(), router: false };
    for ip in ["224.0.0.1", "255.255.255.255", "0.0.0.0", "ff02::1", "::"] {
        assert_eq!(neighbours.set(ip.parse().unwrap(), neighbour), Err(Refused::BadAddress), "{ip}");
    }
    assert!(neighbours.set(OWNER.into(), neighbour).is_ok() && neighbours.remove(OWNER.into()) && !neighbours.remove(OWNER.into()));
}

#[test]
fn without_a_buffer_it_is_dropped_by_name() {
    let pool = Pool::new(PoolConfig { small: 1, large: 0 });
    let frame = pool.copy_of(&arp_request(ASKER, OWNER)).unwrap();
    let parsed = Parsed::new(frame.bytes()).unwrap();
    assert_eq!(known(THERE, false).answer(&parsed, &frame, &pool).unwrap_err(), DropReason::NoBuffer);
}

proptest! {
    /// Any byte of a question changed or cut off: no panic, and an answer, if any, is sound.
    #[test]
    fn spoilt_questions_do_no_harm(ipv6: bool, at in 0_usize..86, value: u8, length in 14_usize..90) {
        let mut bytes = if ipv6 { solicitation(ASKER6, OWNER6) } else { arp_request(ASKER, OWNER) };
        let place = at % bytes.len();
        bytes[place] = value;
        bytes.truncate(length);
        if Parsed::new(&bytes).is_some() && let Some(answer) = answer(&known(THERE, false), &bytes) {
            prop_assert!(checksum::verify(&answer));
        }
    }

    /// A hop limit changed on the way says that a router forwarded it.
    #[test]
    fn only_255_hops_count(hops: u8) {
        let pool = Pool::new(PoolConfig::default());
        let mut frame = pool.copy_of(&solicitation(ASKER6, OWNER6)).unwrap();
        PacketMut::new(&mut frame).unwrap().set_hop_limit(hops);
        prop_assert_eq!(answer(&known(THERE, false), frame.bytes()).is_some(), hops == 255);
    }
}
