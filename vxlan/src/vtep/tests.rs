use packet::{Checksum, Gso, Mac, Offload, PacketMut, Parsed, PoolConfig, checksum, header_len, segment};
use proptest::prelude::*;

use super::{
    samples::{HERE, THERE, arp_request, super_frame, udp4, udp6},
    *,
};
use crate::{DATAGRAM_MOST, Datagram, Outer, SEGMENTS_MOST, ecn, header::HEADER_LEN, inner_mtu};

const NOW: Instant = Instant::from_nanos(1_000_000_000_000);
/// Where datagrams are sent to.
const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn pool() -> Pool {
    Pool::new(PoolConfig { small: 4096, large: 128 })
}

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn station(mac: [u8; 6]) -> UnicastMac {
    UnicastMac::new(Mac(mac)).unwrap()
}

fn from(text: &str) -> Outer {
    Outer { from: at(text), to: HOME, ecn: ecn::NOT_ECT }
}

fn nobody(_: Vni, _: &Parsed, _: &[u8]) -> Result<(), DropReason> {
    Ok(())
}

/// An endpoint that serves VNI 42, with one peer.
fn vtep(pool: &Pool) -> Vtep {
    with(pool, VniConfig::default())
}

fn with(pool: &Pool, config: VniConfig) -> Vtep {
    let mut vtep = Vtep::new(VtepConfig::default(), pool.clone(), [1, 2]);
    vtep.add_vni(vni(42), config).unwrap();
    vtep.add_peer(vni(42), at("192.0.2.2:4789")).unwrap();
    vtep
}

fn encap(vtep: &mut Vtep, frame: Frame) -> Result<Vec<Datagram>, DropReason> {
    let mut out = Vec::new();
    let answer = vtep.encap(vni(42), frame, NOW, &mut out)?;
    assert!(answer.is_none());
    Ok(out)
}

fn refusal(vtep: &mut Vtep, frame: Frame) -> DropReason {
    let reason = encap(vtep, frame).unwrap_err();
    assert_eq!(vtep.counters(vni(42)).unwrap().drops.get(reason), vtep.drops().get(reason));
    reason
}

fn packed(number: u32, inner: &[u8]) -> Vec<u8> {
    [&crate::header::emit(vni(number))[..], inner].concat()
}

fn decap(vtep: &mut Vtep, pool: &Pool, source: &str, bytes: &[u8]) -> Result<(Vni, Vec<u8>), DropReason> {
    let mut frame = pool.copy_of(bytes).unwrap();
    // What the device said of the outer packet does not hold for the inner one.
    frame.offload.checksum = Checksum::Partial { start: 34, offset: 6 };
    vtep.decap(from(source), frame, nobody, NOW).map(|(vni, frame)| {
        assert_eq!(frame.offload, Offload::NONE);
        (vni, frame.bytes().to_vec())
    })
}

/// Each datagram of a send, as UDP_SEGMENT would put it on the wire.
fn on_wire(datagram: &Datagram) -> Vec<Vec<u8>> {
    let bytes = datagram.frame.bytes();
    bytes.chunks(datagram.segment.map_or(bytes.len(), usize::from)).map(<[u8]>::to_vec).collect()
}

/// What cutting the frame oneself would give.
fn cut(frame: &Frame, pool: &Pool) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    segment(frame, pool, |frame| out.push(frame.bytes().to_vec())).unwrap();
    out
}

#[test]
fn a_frame_becomes_header_and_frame_in_place() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    let bytes = udp4(1000, 53, &[1, 2, 3]);
    let out = encap(&mut vtep, pool.copy_of(&bytes).unwrap()).unwrap();
    let [datagram] = &out[..] else { panic!("one datagram") };
    assert_eq!(datagram.frame.bytes(), packed(42, &bytes));
    assert_eq!((datagram.to, datagram.segment, datagram.ecn), (at("192.0.2.2:4789"), None, 0));
    assert!(datagram.source_port >= 49152);
    assert_eq!(pool.stats().small_used, 1, "no copy");
    let counters = vtep.counters(vni(42)).unwrap();
    assert_eq!((counters.frames_out, counters.bytes_out, counters.flooded), (1, bytes.len() as u64, 1));
    drop(out);
    assert_eq!(pool.stats().small_used, 0);
}

#[test]
fn a_frame_that_others_read_is_copied() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    let bytes = udp4(1000, 53, &[1, 2, 3]);
    let frame = pool.copy_of(&bytes).unwrap();
    let out = encap(&mut vtep, frame.share()).unwrap();
    assert_eq!(out[0].frame.bytes(), packed(42, &bytes));
    assert_eq!(frame.bytes(), bytes);
}

#[test]
fn a_partial_checksum_is_finished() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    for (ipv6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
        let frame = super_frame(&pool, ipv6, tcp, &[7; 33], 0);
        assert!(!checksum::verify(frame.bytes()));
        let out = encap(&mut vtep, frame).unwrap();
        assert!(checksum::verify(&out[0].frame.bytes()[HEADER_LEN..]));
        assert!(out[0].frame.offload.is_none());
    }
}

#[test]
fn floods_go_to_every_peer_and_known_stations_to_one() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    for peer in ["192.0.2.3:4789", "[2001:db8::1]:4789", "239.1.1.1:4789"] {
        vtep.add_peer(vni(42), at(peer)).unwrap();
    }
    let targets = |out: &[Datagram]| out.iter().map(|datagram| datagram.to.to_string()).collect::<Vec<_>>();
    let everybody = ["192.0.2.2:4789", "192.0.2.3:4789", "239.1.1.1:4789", "[2001:db8::1]:4789"];
    for bytes in [udp4(1, 2, &[]), arp_request([10, 0, 0, 1], [10, 0, 0, 2])] {
        let out = encap(&mut vtep, pool.copy_of(&bytes).unwrap()).unwrap();
        assert_eq!(targets(&out), everybody);
        assert!(out.iter().all(|datagram| datagram.frame.bytes() == packed(42, &bytes)));
        assert_eq!(pool.stats().small_used, 1, "one buffer, shared");
    }
    vtep.set_remote(vni(42), station(THERE), at("192.0.2.9:4789"), RemoteKind::Static, NOW).unwrap();
    let out = encap(&mut vtep, pool.copy_of(&udp4(1, 2, &[])).unwrap()).unwrap();
    assert_eq!(targets(&out), ["192.0.2.9:4789"]);
    assert_eq!(vtep.counters(vni(42)).unwrap().flooded, 2);
}

#[test]
fn without_anywhere_to_go_it_is_dropped_by_name() {
    let pool = pool();
    let mut vtep = with(&pool, VniConfig { flood_unknown: false, ..VniConfig::default() });
    assert_eq!(refusal(&mut vtep, pool.copy_of(&udp4(1, 2, &[])).unwrap()), DropReason::NoRemote);
    let arp = arp_request([10, 0, 0, 1], [10, 0, 0, 2]);
    assert!(encap(&mut vtep, pool.copy_of(&arp).unwrap()).is_ok());
    assert!(vtep.remove_peer(vni(42), at("192.0.2.2:4789")));
    assert_eq!(refusal(&mut vtep, pool.copy_of(&arp).unwrap()), DropReason::NoRemote);
    let frame = pool.copy_of(&arp).unwrap();
    assert_eq!(vtep.encap(vni(43), frame, NOW, &mut Vec::new()).unwrap_err(), DropReason::UnknownVni);
}

#[test]
fn unsound_frames_are_dropped_by_name() {
    let pool = pool();
    let mut vtep = with(&pool, VniConfig { inner_vlan: false, ..VniConfig::default() });
    assert_eq!(refusal(&mut vtep, pool.copy_of(&[2; 13]).unwrap()), DropReason::InnerRunt);
    let mut bytes = udp4(1, 2, &[]);
    bytes[6] |= 1;
    assert_eq!(refusal(&mut vtep, pool.copy_of(&bytes).unwrap()), DropReason::BadInnerSource);
    let mut tagged = udp4(1, 2, &[]);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    assert_eq!(refusal(&mut vtep, pool.copy_of(&tagged).unwrap()), DropReason::InnerVlan);
    let mut lying = super_frame(&pool, false, true, &[0; 3000], 1000);
    lying.offload.gso = Gso::Tcp6 { size: 1000, ecn: false };
    assert_eq!(refusal(&mut vtep, lying), DropReason::CannotSegment);
}

#[test]
fn tags_pass_unless_denied() {
    let pool = pool();
    let mut tagged = udp4(1, 2, &[]);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    let mut vtep = vtep(&pool);
    let out = encap(&mut vtep, pool.copy_of(&tagged).unwrap()).unwrap();
    assert_eq!(out[0].frame.bytes(), packed(42, &tagged));
    assert_eq!(decap(&mut vtep, &pool, "192.0.2.2:50000", &packed(42, &tagged)), Ok((vni(42), tagged.clone())));
    vtep.set_vni(vni(42), VniConfig { inner_vlan: false, ..VniConfig::default() }).unwrap();
    assert_eq!(decap(&mut vtep, &pool, "192.0.2.2:50000", &packed(42, &tagged)), Err(DropReason::InnerVlan));
}

#[test]
fn the_mtu_is_exact() {
    let pool = pool();
    let mut vtep = with(&pool, VniConfig { mtu: inner_mtu(1500, false, false), ..VniConfig::default() });
    // 20 of IP, 8 of UDP.
    let (most, above) = (udp4(1, 2, &[0; 1450 - 28]), udp4(1, 2, &[0; 1451 - 28]));
    let [most, above] = [most, above].map(|bytes| pool.copy_of(&bytes).unwrap());
    assert!(vtep.fits(vni(42), &most) && !vtep.fits(vni(42), &above) && !vtep.fits(vni(43), &most));
    let out = encap(&mut vtep, most).unwrap();
    // Outer UDP 8, IPv4 20.
    assert_eq!(out[0].frame.len() + 28, 1500);
    assert_eq!(refusal(&mut vtep, above), DropReason::TooBig);
    // 40 of IP and TCP.
    for (size, fits) in [(1410, true), (1411, false)] {
        let frame = super_frame(&pool, false, true, &[0; 9000], size);
        assert_eq!(vtep.fits(vni(42), &frame), fits);
        assert_eq!(encap(&mut vtep, frame).is_ok(), fits);
    }
    assert_eq!(vtep.set_vni(vni(42), VniConfig { mtu: 0, ..VniConfig::default() }), Err(Refused::BadMtu));
    assert_eq!(vtep.set_vni(vni(42), VniConfig { mtu: 65_486, ..VniConfig::default() }), Err(Refused::BadMtu));
}

#[test]
fn an_empty_pool_drops_whole_super_frames_and_leaks_nothing() {
    let small_pool = Pool::new(PoolConfig { small: 1, large: 2 });
    let mut vtep = vtep(&small_pool);
    // Needs two trains, and the second large buffer is the super-frame's own.
    let frame = super_frame(&small_pool, false, true, &vec![5; 60_000], 500);
    let mut out = Vec::new();
    assert_eq!(vtep.encap(vni(42), frame, NOW, &mut out).unwrap_err(), DropReason::NoBuffer);
    assert!(out.is_empty(), "no half of it is sent");
    let stats = small_pool.stats();
    assert_eq!((stats.small_used, stats.large_used), (0, 0));
}

#[test]
fn outer_ecn_is_copied_from_the_packet() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    for (bytes, mark) in [(udp4(1, 2, &[]), ecn::ECT_0), (udp6(1, 2, &[]), ecn::CE)] {
        let mut frame = pool.copy_of(&bytes).unwrap();
        PacketMut::new(&mut frame).unwrap().set_ecn(mark);
        assert_eq!(encap(&mut vtep, frame).unwrap()[0].ecn, mark);
    }
}

#[test]
fn decap_strips_checks_and_learns() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    let bytes = udp4(1, 2, &[9]);
    assert_eq!(decap(&mut vtep, &pool, "192.0.2.7:51234", &packed(42, &bytes)), Ok((vni(42), bytes.clone())));
    let view = vtep.remotes(vni(42), NOW);
    assert_eq!(view.len(), 1);
    assert_eq!((view[0].mac, view[0].to, view[0].kind), (station(HERE), at("192.0.2.7:4789"), RemoteKind::Learned));
    // From a socket for both families.
    assert!(decap(&mut vtep, &pool, "[::ffff:192.0.2.8]:51234", &packed(42, &bytes)).is_ok());
    assert_eq!(vtep.remotes(vni(42), NOW)[0].to, at("192.0.2.8:4789"));
    let counters = vtep.counters(vni(42)).unwrap();
    assert_eq!((counters.frames_in, counters.learned, counters.moved), (2, 1, 1));
    // What was learned is used.
    let mut back = bytes;
    back[..6].copy_from_slice(&HERE);
    back[6..12].copy_from_slice(&THERE);
    assert_eq!(encap(&mut vtep, pool.copy_of(&back).unwrap()).unwrap()[0].to, at("192.0.2.8:4789"));
    vtep.flush(vni(42), RemoteKind::Learned).unwrap();
    assert!(vtep.remotes(vni(42), NOW).is_empty());
}

#[test]
fn learning_can_be_off_and_does_not_move_what_was_set() {
    let pool = pool();
    let mut vtep = with(&pool, VniConfig { learning: false, ..VniConfig::default() });
    decap(&mut vtep, &pool, "192.0.2.7:4789", &packed(42, &udp4(1, 2, &[]))).unwrap();
    assert!(vtep.remotes(vni(42), NOW).is_empty());
    assert_eq!(vtep.poll_timeout(), None);
    vtep.set_vni(vni(42), VniConfig::default()).unwrap();
    vtep.set_remote(vni(42), station(HERE), at("192.0.2.5:4789"), RemoteKind::Pushed, NOW).unwrap();
    decap(&mut vtep, &pool, "192.0.2.7:4789", &packed(42, &udp4(1, 2, &[]))).unwrap();
    assert_eq!(vtep.remotes(vni(42), NOW)[0].to, at("192.0.2.5:4789"));
}

#[test]
fn learned_remotes_use_the_port_of_their_peer() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    vtep.add_peer(vni(42), at("192.0.2.3:8472")).unwrap();
    decap(&mut vtep, &pool, "192.0.2.3:50000", &packed(42, &udp4(1, 2, &[]))).unwrap();
    assert_eq!(vtep.remotes(vni(42), NOW)[0].to, at("192.0.2.3:8472"));
    vtep.remove_peer(vni(42), at("192.0.2.3:8472"));
    assert!(vtep.remotes(vni(42), NOW).is_empty(), "flushed with its peer");
}

#[test]
fn each_refusal_of_a_datagram_has_its_name() {
    let pool = pool();
    let mut vtep = with(&pool, VniConfig { strict: true, ..VniConfig::default() });
    let good = udp4(1, 2, &[]);
    let with_byte = |at: usize, value: u8| {
        let mut bytes = packed(42, &good);
        bytes[at] = value;
        bytes
    };
    let peer = "192.0.2.2:50000";
    let mut zero = packed(42, &good);
    zero[14..20].fill(0);
    for (source, bytes, wanted) in [
        (peer, vec![8, 0, 0, 0, 0, 0, 42], DropReason::Short),
        (peer, with_byte(0, 0), DropReason::BadFlags),
        (peer, with_byte(0, 0x88), DropReason::GroupPolicy),
        (peer, with_byte(0, 0x0c), DropReason::GenericProtocol),
        (peer, packed(43, &good), DropReason::UnknownVni),
        ("192.0.2.3:4789", packed(42, &good), DropReason::UnknownRemote),
        ("239.1.1.1:4789", packed(42, &good), DropReason::UnknownRemote),
        (peer, packed(42, &good[..13]), DropReason::InnerRunt),
        (peer, packed(42, &[&good[..12], &[0x81, 0]].concat()), DropReason::InnerRunt),
        (peer, with_byte(14, 3), DropReason::BadInnerSource),
        (peer, zero, DropReason::BadInnerSource),
    ] {
        let before = vtep.drops().get(wanted);
        assert_eq!(decap(&mut vtep, &pool, source, &bytes), Err(wanted));
        assert_eq!(vtep.drops().get(wanted), before + 1);
    }
    assert!(vtep.remotes(vni(42), NOW).is_empty(), "nothing was learned");
    assert!(decap(&mut vtep, &pool, peer, &packed(42, &good)).is_ok());
    // Reserved bits are ignored: all that are neither I, G nor P.
    let mut reserved = packed(42, &good);
    reserved[0] = 0x7b;
    reserved[1..4].fill(0xff);
    reserved[7] = 0xff;
    assert_eq!(decap(&mut vtep, &pool, peer, &reserved), Ok((vni(42), good)));
}

#[test]
fn what_the_judge_refuses_is_counted_and_not_learned() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    let frame = pool.copy_of(&packed(42, &udp4(1, 2, &[]))).unwrap();
    let bytes = udp4(1, 2, &[]);
    let judge = |in_vni: Vni, parsed: &Parsed, inner: &[u8]| {
        let is_ours = in_vni == vni(42) && parsed.ethernet.source == Mac(HERE) && inner == bytes;
        if is_ours { Err(DropReason::LocalSource) } else { Ok(()) }
    };
    assert_eq!(vtep.decap(from("192.0.2.2:4789"), frame, judge, NOW).unwrap_err(), DropReason::LocalSource);
    assert_eq!(vtep.counters(vni(42)).unwrap().drops.get(DropReason::LocalSource), 1);
    assert!(vtep.remotes(vni(42), NOW).is_empty());
}

#[test]
fn congestion_on_the_underlay_is_told_or_lost() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    for (inner, wanted) in [(ecn::ECT_0, Ok(ecn::CE)), (ecn::NOT_ECT, Err(DropReason::CongestionLost))] {
        let mut frame = pool.copy_of(&udp4(1, 2, &[])).unwrap();
        PacketMut::new(&mut frame).unwrap().set_ecn(inner);
        let datagram = pool.copy_of(&packed(42, frame.bytes())).unwrap();
        let out = vtep.decap(Outer { from: at("192.0.2.2:4789"), to: HOME, ecn: ecn::CE }, datagram, nobody, NOW);
        let mark = out.map(|(_, frame)| {
            assert!(checksum::verify(frame.bytes()));
            ecn::of(&Parsed::new(frame.bytes()).unwrap(), frame.bytes())
        });
        assert_eq!(mark, wanted);
    }
}

#[test]
fn vnis_are_worlds_apart() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    vtep.add_vni(vni(43), VniConfig::default()).unwrap();
    vtep.add_peer(vni(43), at("192.0.2.3:4789")).unwrap();
    decap(&mut vtep, &pool, "192.0.2.7:4789", &packed(43, &udp4(1, 2, &[]))).unwrap();
    assert!(vtep.remotes(vni(42), NOW).is_empty());
    let mut to_it = udp4(1, 2, &[]);
    to_it[..6].copy_from_slice(&HERE);
    to_it[6..12].copy_from_slice(&THERE);
    assert_eq!(encap(&mut vtep, pool.copy_of(&to_it).unwrap()).unwrap()[0].to, at("192.0.2.2:4789"), "flooded in 42, unknown there");
    let neighbour = Neighbour { mac: station(THERE), router: false };
    vtep.set_neighbour(vni(43), [10, 0, 0, 2].into(), neighbour).unwrap();
    let arp = arp_request([10, 0, 0, 1], [10, 0, 0, 2]);
    let out = encap(&mut vtep, pool.copy_of(&arp).unwrap()).unwrap();
    assert_eq!(out[0].frame.bytes(), packed(42, &arp), "not answered from 43's neighbours");
    assert!(vtep.remove_vni(vni(43)) && !vtep.remove_vni(vni(43)));
    assert_eq!(decap(&mut vtep, &pool, "192.0.2.7:4789", &packed(43, &to_it)), Err(DropReason::UnknownVni));
    assert_eq!(vtep.vnis().map(|(vni, _)| vni).collect::<Vec<_>>(), [vni(42)]);
}

#[test]
fn known_neighbours_are_answered_here() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    vtep.set_neighbour(vni(42), [10, 0, 0, 2].into(), Neighbour { mac: station(THERE), router: false }).unwrap();
    let mut out = Vec::new();
    let ask = |vtep: &mut Vtep, out: &mut Vec<Datagram>| {
        let frame = pool.copy_of(&arp_request([10, 0, 0, 1], [10, 0, 0, 2])).unwrap();
        vtep.encap(vni(42), frame, NOW, out).unwrap()
    };
    let answer = ask(&mut vtep, &mut out).unwrap();
    assert_eq!((Mac::source_of(answer.bytes()), out.len()), (Some(Mac(THERE)), 0));
    assert_eq!(vtep.counters(vni(42)).unwrap().suppressed, 1);
    vtep.set_vni(vni(42), VniConfig { suppress: false, ..VniConfig::default() }).unwrap();
    assert!(ask(&mut vtep, &mut out).is_none());
    assert_eq!(out.len(), 1);
    assert!(vtep.remove_neighbour(vni(42), [10, 0, 0, 2].into()));
    assert_eq!(vtep.neighbours(vni(42)).count(), 0);
}

#[test]
fn requests_that_cannot_be_met_change_nothing() {
    let pool = pool();
    let mut vtep = Vtep::new(VtepConfig { vnis_most: 1, ..VtepConfig::default() }, pool, [0, 0]);
    assert_eq!(vtep.add_peer(vni(1), at("192.0.2.2:4789")), Err(Refused::UnknownVni));
    vtep.add_vni(vni(1), VniConfig::default()).unwrap();
    assert_eq!(vtep.add_vni(vni(1), VniConfig::default()), Err(Refused::VniExists));
    assert_eq!(vtep.add_vni(vni(2), VniConfig::default()), Err(Refused::Full));
    for bad in ["0.0.0.0:4789", "239.1.1.1:4789", "192.0.2.2:0", "255.255.255.255:4789"] {
        assert_eq!(vtep.set_remote(vni(1), station(HERE), at(bad), RemoteKind::Static, NOW), Err(Refused::BadAddress), "{bad}");
    }
    assert!(vtep.remotes(vni(1), NOW).is_empty() && !vtep.remove_remote(vni(1), station(HERE)));
}

#[test]
fn ageing_runs_in_virtual_time_and_rests_when_nothing_is_left() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    for number in 100..110 {
        vtep.add_vni(vni(number), VniConfig::default()).unwrap();
    }
    assert_eq!(vtep.poll_timeout(), None);
    for number in [42, 103, 109] {
        decap(&mut vtep, &pool, "192.0.2.7:4789", &packed(number, &udp4(1, 2, &[]))).unwrap();
    }
    let seconds = Duration::from_secs;
    let mut wakes = 0;
    let mut now = NOW;
    while let Some(due) = vtep.poll_timeout() {
        now = now.max(due);
        vtep.handle_timeout(now);
        wakes += 1;
        assert_eq!(vtep.remotes(vni(103), now).len(), usize::from(now.since(NOW) <= seconds(300)));
        assert!(wakes < 1000 && now.since(NOW) < seconds(320), "it goes to rest");
    }
    assert!(now.since(NOW) > seconds(300), "not before");
    assert!(vtep.networks.values().all(|network| network.remotes.learned_len() == 0));
    decap(&mut vtep, &pool, "192.0.2.7:4789", &packed(42, &udp4(1, 2, &[]))).unwrap();
    assert!(vtep.poll_timeout().is_some(), "it wakes again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Out through one endpoint, over a wire that splits, in through another that joins.
    #[test]
    fn super_frames_survive_the_tunnel(ipv6: bool, tcp: bool, length in 1_usize..60_000, size in 200_u16..=1390, seed: u8, peers in 1_u8..3) {
        let pool = pool();
        let (mut here, mut there) = (vtep(&pool), vtep(&pool));
        for peer in 1..peers {
            here.add_peer(vni(42), SocketAddr::from(([192, 0, 2, 100 + peer], 4789))).unwrap();
        }
        let payload: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap() ^ seed).collect();
        let frame = super_frame(&pool, ipv6, tcp, &payload, size);
        let wanted = cut(&frame, &pool);
        let out = encap(&mut here, frame).unwrap();
        prop_assert_eq!(out.len() % usize::from(peers), 0);
        let out = &out[..out.len() / usize::from(peers)];
        let mut wire = Vec::new();
        for (index, datagram) in out.iter().enumerate() {
            prop_assert!(datagram.frame.len() <= DATAGRAM_MOST);
            let datagrams = on_wire(datagram);
            prop_assert!(datagrams.len() <= SEGMENTS_MOST);
            prop_assert_eq!(datagram.segment.is_some(), datagrams.len() > 1);
            prop_assert!(index + 1 == out.len() || datagrams.iter().all(|one| one.len() == datagrams[0].len()));
            prop_assert!(index + 1 == out.len() || (datagrams.len() + 1) * datagrams[0].len() > DATAGRAM_MOST || datagrams.len() == SEGMENTS_MOST);
            wire.extend(datagrams);
        }
        let inner: Vec<Vec<u8>> = wire.iter().map(|datagram| datagram[HEADER_LEN..].to_vec()).collect();
        prop_assert!(inner.iter().all(|frame| checksum::verify(frame)));
        prop_assert_eq!(&inner, &wanted);

        let mut frames = Vec::new();
        for datagram in out {
            let received = pool.copy_of(datagram.frame.bytes()).unwrap();
            there.decap_many(from("192.0.2.1:50000"), received, datagram.segment.map_or(0, usize::from), nobody, NOW, &mut frames);
        }
        prop_assert!(frames.len() <= out.len() + 1, "joined: {} frames of {} segments", frames.len(), wanted.len());
        prop_assert!(frames.iter().all(|(vni, frame)| vni.get() == 42 && frame.is_unique()));
        let joined: Vec<u8> = frames.iter().flat_map(|(_, frame)| {
            let header = header_len(frame).unwrap_or(if ipv6 { 54 } else { 34 } + if tcp { 20 } else { 8 });
            frame.bytes()[header..].to_vec()
        }).collect();
        prop_assert_eq!(joined, payload);
        let back: Vec<Vec<u8>> = frames.iter().flat_map(|(_, frame)| match frame.offload.gso {
            Gso::None => vec![frame.bytes().to_vec()],
            Gso::Tcp4 { .. } | Gso::Tcp6 { .. } | Gso::Udp { .. } => cut(frame, &pool),
        }).collect();
        prop_assert_eq!(back, wanted);
        prop_assert_eq!(there.counters(vni(42)).unwrap().frames_in, inner.len() as u64);
        drop(frames);
    }

    /// Whatever comes from the underlay: no panic, and each datagram is a frame or a counted drop.
    #[test]
    fn random_datagrams_are_frames_or_counted(
        datagrams in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..120), 0_u8..4), 1..20),
        segment in 0_usize..80,
    ) {
        let pool = pool();
        let (mut vtep, mut frames, mut handed_in) = (vtep(&pool), 0, 0);
        for (sound_header, bytes, ecn) in datagrams {
            let bytes = if sound_header { packed(42, &bytes) } else { bytes };
            let outer = Outer { from: at("192.0.2.2:5"), to: HOME, ecn };
            let taken = vtep.decap(outer, pool.copy_of(&bytes).unwrap(), nobody, NOW);
            (frames, handed_in) = (frames + u64::from(taken.is_ok()), handed_in + 1);
            drop(taken);
            let mut out = Vec::new();
            vtep.decap_many(outer, pool.copy_of(&bytes).unwrap(), segment, nobody, NOW, &mut out);
            // Random bytes are no flow, so that nothing is joined.
            frames += out.len() as u64;
            handed_in += if segment == 0 || segment >= bytes.len() { 1 } else { bytes.len().div_ceil(segment) as u64 };
        }
        prop_assert_eq!(frames + vtep.drops().total(), handed_in);
        prop_assert_eq!(pool.stats().small_used + pool.stats().large_used, 0);
    }

    /// A sound datagram with some bytes spoilt.
    #[test]
    fn spoilt_datagrams_do_no_harm(ipv6: bool, spoilt in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6), length in 0_usize..90, ecn: u8) {
        let pool = pool();
        let mut vtep = vtep(&pool);
        let mut bytes = packed(42, &if ipv6 { udp6(1, 2, &[5; 9]) } else { udp4(1, 2, &[5; 9]) });
        for (place, value) in spoilt {
            let place = usize::from(place) % bytes.len();
            bytes[place] = value;
        }
        bytes.truncate(length);
        let taken = vtep.decap(Outer { from: at("192.0.2.2:5"), to: HOME, ecn }, pool.copy_of(&bytes).unwrap(), nobody, NOW).is_ok();
        prop_assert_eq!(u64::from(taken) + vtep.drops().total(), 1);
    }

    /// Nor does anything from the inside.
    #[test]
    fn random_frames_are_sent_or_counted(bytes in proptest::collection::vec(any::<u8>(), 0..200), start: u16, offset: u16, size: u16, kind in 0_u8..5) {
        let pool = pool();
        let mut vtep = vtep(&pool);
        let mut frame = pool.copy_of(&bytes).unwrap();
        frame.offload.gso = match kind {
            0 | 1 => Gso::None,
            2 => Gso::Tcp4 { size, ecn: true },
            3 => Gso::Tcp6 { size, ecn: false },
            _ => Gso::Udp { size },
        };
        if kind > 0 {
            frame.offload.checksum = Checksum::Partial { start: start % 256, offset: offset % 64 };
        }
        let sent = encap(&mut vtep, frame).is_ok();
        prop_assert_eq!(u64::from(sent) + vtep.drops().total(), 1);
    }
}

/// Two flows and two VNIs in one received buffer: nothing is joined across.
#[test]
fn only_neighbours_of_one_flow_and_one_vni_are_joined() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    vtep.add_vni(vni(43), VniConfig::default()).unwrap();
    let segments = cut(&super_frame(&pool, false, true, &[6; 4000], 1000), &pool);
    let numbers = [42, 42, 43, 42];
    let bytes: Vec<u8> = numbers.iter().zip(&segments).flat_map(|(number, inner)| packed(*number, inner)).collect();
    let mut out = Vec::new();
    vtep.decap_many(from("192.0.2.2:5"), pool.copy_of(&bytes).unwrap(), HEADER_LEN + segments[0].len(), nobody, NOW, &mut out);
    let shape: Vec<_> = out.iter().map(|(vni, frame)| (vni.get(), frame.len())).collect();
    assert_eq!(shape, [(42, 2054), (43, 1054), (42, 1054)]);
    assert!(out.iter().all(|(_, frame)| frame.is_unique()));
    drop(out);
    assert_eq!(pool.stats().large_used + pool.stats().small_used, 0);
}

#[test]
fn a_bad_datagram_in_a_buffer_does_not_stop_the_others() {
    let pool = pool();
    let mut vtep = vtep(&pool);
    let one = packed(42, &udp4(1, 2, &[1; 20]));
    let mut bad = one.clone();
    bad[0] = 0;
    let mut out = Vec::new();
    let buffer = pool.copy_of(&[&one[..], &bad, &one, &one[..5]].concat()).unwrap();
    vtep.decap_many(from("192.0.2.2:5"), buffer, one.len(), nobody, NOW, &mut out);
    assert_eq!((out.len(), vtep.drops().get(DropReason::BadFlags), vtep.drops().get(DropReason::Short)), (2, 1, 1));
}

/// Each inner frame has to be written to, though all share one buffer: copies are of their own size.
#[test]
fn a_marked_buffer_needs_one_more_large_one() {
    let big = pool();
    let frame = super_frame(&big, false, true, &[6; 20_000], 1000);
    let bytes: Vec<u8> = cut(&frame, &big).iter().flat_map(|inner| {
        let mut frame = big.copy_of(inner).unwrap();
        PacketMut::new(&mut frame).unwrap().set_ecn(ecn::ECT_0);
        packed(42, frame.bytes())
    }).collect();
    let few = Pool::new(PoolConfig { small: 64, large: 2 });
    let mut vtep = vtep(&few);
    let mut out = Vec::new();
    let outer = Outer { from: at("192.0.2.2:5"), to: HOME, ecn: ecn::CE };
    vtep.decap_many(outer, few.copy_of(&bytes).unwrap(), HEADER_LEN + 54 + 1000, nobody, NOW, &mut out);
    assert_eq!((out.len(), out[0].1.len(), vtep.drops().total()), (1, 54 + 20_000, 0));
    assert_eq!(ecn::of(&Parsed::new(out[0].1.bytes()).unwrap(), out[0].1.bytes()), ecn::CE);
}
