use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use packet::{Frame, Instant, Parsed, Pool, PoolConfig, Vni, segment};

use super::*;
use crate::{Datagram, Outer, SEGMENTS_MOST, VniConfig, Vtep, VtepConfig, vtep::samples};

const NOW: Instant = Instant::from_nanos(1_000_000_000_000);
const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const TWO: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const THREE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));

fn pool() -> Pool {
    Pool::new(PoolConfig { small: 4096, large: 256 })
}

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn secret(byte: u8) -> Secret {
    Secret([byte; 32])
}

/// Epochs whose secret is made of their number; the first is sent with.
fn keys(epochs: &[u32], session: u64) -> Keys {
    let epochs: Vec<_> = epochs.iter().map(|epoch| (*epoch, secret(u8::try_from(*epoch).unwrap()))).collect();
    Keys { current: epochs[0].0, epochs, session }
}

fn at(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 4789)
}

/// An endpoint with the encrypted VNI 42 and these peers.
fn node(pool: &Pool, peers: &[IpAddr], keys: &Keys) -> Vtep {
    let mut vtep = Vtep::new(VtepConfig::default(), pool.clone(), [1, 2]);
    vtep.add_vni(vni(42), VniConfig { encrypted: true, mtu: 9000, ..VniConfig::default() }).unwrap();
    peers.iter().for_each(|peer| vtep.add_peer(vni(42), at(*peer)).unwrap());
    vtep.set_keys(vni(42), keys).unwrap();
    vtep
}

fn send(vtep: &mut Vtep, frame: Frame) -> Result<Vec<Datagram>, DropReason> {
    let mut out = Vec::new();
    vtep.encap(vni(42), frame, NOW, &mut out).map(|_| out)
}

fn frame(pool: &Pool, payload: &[u8]) -> Frame {
    pool.copy_of(&samples::udp4(1, 2, payload)).unwrap()
}

/// The bytes of one datagram with that payload.
fn sealed(vtep: &mut Vtep, pool: &Pool, payload: &[u8]) -> Vec<u8> {
    send(vtep, frame(pool, payload)).unwrap()[0].frame.bytes().to_vec()
}

fn nobody(_: Vni, _: &Parsed, _: &[u8]) -> Result<(), DropReason> {
    Ok(())
}

/// Takes a datagram that came from `from`, addressed to `to`.
fn receive(vtep: &mut Vtep, pool: &Pool, (from, to): (IpAddr, IpAddr), bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
    let outer = Outer { from: at(from), to, ecn: 0 };
    vtep.decap(outer, pool.copy_of(bytes).unwrap(), nobody, NOW).map(|(_, frame)| frame.bytes().to_vec())
}

/// Two nodes with the same keys, One at 192.0.2.1 and Two at 192.0.2.2.
fn pair(pool: &Pool) -> (Vtep, Vtep) {
    (node(pool, &[TWO], &keys(&[7], 11)), node(pool, &[ONE], &keys(&[7], 12)))
}

/// Made by another implementation (pyca/cryptography: HKDF, AESGCM), so that others can be made too.
#[test]
fn a_known_datagram() {
    let mut secret = [0; 32];
    secret.iter_mut().zip(0..).for_each(|(byte, number)| *byte = number);
    let keys = Keys { epochs: vec![(7, Secret(secret))], current: 7, session: 0x0102_0304_0506_0708 };
    let inner = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5][..], b"The quick brown fox jumps over the lazy dog..."].concat();
    let mut crypt = Crypt::new(vni(0x1234), &keys, None).unwrap();
    let mut datagram = vec![0; FRONT + inner.len() + BACK];
    for _ in 0..9 {
        datagram[FRONT..FRONT + inner.len()].copy_from_slice(&inner);
        crypt.sealing.seal(ONE, 0, &mut datagram).unwrap();
    }
    let text: String = datagram.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        text,
        "400000000012340000000007010203040506070800000000000000094647\
         c9e7afed8ca131cf7c27dea6eaa840c6a2f65554cec5f95152332e96af0c\
         08b076200e4e59ce3bcfc807e088a3dab4eedac5f20049f2707a13e345ec\
         7cb25ec9e96cdf795684648d3f14"
    );
    assert_eq!(crypt.opening.open(ONE, &mut datagram, NOW), Ok(FRONT..FRONT + inner.len()));
    assert_eq!(datagram[FRONT..FRONT + inner.len()], inner);
}

#[test]
fn what_one_seals_the_other_opens_and_nobody_reads() {
    let pool = pool();
    let (mut one, mut two) = pair(&pool);
    let plain = samples::udp4(1, 2, b"the secret is out");
    for _ in 0..3 {
        let datagram = sealed(&mut one, &pool, b"the secret is out");
        assert_eq!(datagram.len(), 8 + plain.len() + OVERHEAD);
        assert!(!datagram.windows(6).any(|window| window == b"secret" || window == samples::HERE));
        assert_eq!(receive(&mut two, &pool, (ONE, TWO), &datagram).as_ref(), Ok(&plain));
    }
    assert_eq!(two.crypt(vni(42)), Some(CryptView { current: Some(7), epochs: vec![7], sessions: 1 }));
    assert_eq!(two.remotes(vni(42), NOW)[0].to, at(ONE));
    assert_ne!(sealed(&mut one, &pool, b"same"), sealed(&mut one, &pool, b"same"));
}

#[test]
fn each_datagram_opens_once_in_any_order() {
    let pool = pool();
    let (mut one, mut two) = pair(&pool);
    let mut datagrams: Vec<_> = (0..100).map(|_| sealed(&mut one, &pool, b"x")).collect();
    datagrams.reverse();
    datagrams.iter().for_each(|datagram| assert!(receive(&mut two, &pool, (ONE, TWO), datagram).is_ok()));
    datagrams.iter().for_each(|datagram| assert_eq!(receive(&mut two, &pool, (ONE, TWO), datagram), Err(DropReason::Replayed)));
    let late = sealed(&mut one, &pool, b"x");
    for _ in 0..window::WINDOW {
        let datagram = sealed(&mut one, &pool, b"x");
        assert!(receive(&mut two, &pool, (ONE, TWO), &datagram).is_ok());
    }
    assert_eq!(receive(&mut two, &pool, (ONE, TWO), &late), Err(DropReason::Replayed), "too old to tell");
    assert_eq!(two.counters(vni(42)).unwrap().drops.get(DropReason::Replayed), 101);
}

/// No byte can be changed, nor any cut off or added; and nothing is remembered of what does not open.
#[test]
fn every_byte_counts() {
    let pool = pool();
    let (mut one, mut two) = pair(&pool);
    let datagram = sealed(&mut one, &pool, b"to be kept");
    for at in 0..datagram.len() {
        for bit in [1, 0x80] {
            let mut changed = datagram.clone();
            changed[at] ^= bit;
            let reason = receive(&mut two, &pool, (ONE, TWO), &changed).unwrap_err();
            let wanted = match at {
                0 => &[DropReason::BadFlags, DropReason::GroupPolicy, DropReason::BadTag][..],
                4..=6 => &[DropReason::UnknownVni],
                8..12 => &[DropReason::NoKey],
                // It becomes 0.
                27 => &[DropReason::Replayed, DropReason::BadTag],
                _ => &[DropReason::BadTag],
            };
            assert!(wanted.contains(&reason), "byte {at}: {reason:?}");
        }
    }
    for length in 0..datagram.len() {
        let reason = receive(&mut two, &pool, (ONE, TWO), &datagram[..length]).unwrap_err();
        assert_eq!(reason, if length < FRONT + BACK { DropReason::Short } else { DropReason::BadTag }, "{length} bytes");
    }
    assert_eq!(receive(&mut two, &pool, (ONE, TWO), &[&datagram[..], &[0]].concat()), Err(DropReason::BadTag));
    assert_eq!(two.crypt(vni(42)).unwrap().sessions, 0);
    assert!(two.remotes(vni(42), NOW).is_empty(), "nor learned");
    assert!(receive(&mut two, &pool, (ONE, TWO), &datagram).is_ok(), "as it was");
}

#[test]
fn a_key_is_for_one_secret_vni_and_destination() {
    let pool = pool();
    let (mut one, mut two) = pair(&pool);
    let datagram = sealed(&mut one, &pool, b"x");
    assert_eq!(receive(&mut two, &pool, (ONE, THREE), &datagram), Err(DropReason::BadTag), "for another node");
    assert_eq!(receive(&mut one, &pool, (TWO, ONE), &datagram), Err(DropReason::BadTag), "back to its sender");
    let other = Keys { epochs: vec![(7, secret(99))], current: 7, session: 5 };
    let mut three = node(&pool, &[ONE], &other);
    assert_eq!(receive(&mut three, &pool, (ONE, TWO), &datagram), Err(DropReason::BadTag), "another secret");
    two.add_vni(vni(43), VniConfig { encrypted: true, ..VniConfig::default() }).unwrap();
    two.set_keys(vni(43), &keys(&[7], 12)).unwrap();
    let mut elsewhere = datagram.clone();
    elsewhere[6] = 43;
    assert_eq!(receive(&mut two, &pool, (ONE, TWO), &elsewhere), Err(DropReason::BadTag), "another VNI");
    assert!(receive(&mut two, &pool, (ONE, "::ffff:192.0.2.2".parse().unwrap()), &datagram).is_ok(), "the same address");
}

/// CVE-2023-28840 and its kin: neither clear frames in an encrypted network, nor anything without keys.
#[test]
fn it_fails_closed() {
    let pool = pool();
    let (mut one, mut two) = pair(&pool);
    let clear = [&crate::header::emit(vni(42))[..], &samples::udp4(1, 2, b"clear")].concat();
    assert_eq!(receive(&mut two, &pool, (ONE, TWO), &clear), Err(DropReason::ClearText));
    assert_eq!(two.counters(vni(42)).unwrap().drops.get(DropReason::ClearText), 1);
    let mut keyless = Vtep::new(VtepConfig::default(), pool.clone(), [1, 2]);
    keyless.add_vni(vni(42), VniConfig { encrypted: true, ..VniConfig::default() }).unwrap();
    keyless.add_peer(vni(42), at(ONE)).unwrap();
    assert_eq!(keyless.crypt(vni(42)), Some(CryptView::default()));
    assert_eq!(send(&mut keyless, frame(&pool, b"x")).unwrap_err(), DropReason::NoKey);
    let datagram = sealed(&mut one, &pool, b"x");
    assert_eq!(receive(&mut keyless, &pool, (ONE, TWO), &datagram), Err(DropReason::NoKey));
    assert_eq!(receive(&mut keyless, &pool, (ONE, TWO), &clear), Err(DropReason::ClearText));
    let bad = |keys: Keys| {
        let mut vtep = node(&pool, &[ONE], &self::keys(&[7], 1));
        (vtep.set_keys(vni(42), &keys), vtep.crypt(vni(42)).unwrap().current)
    };
    let none = Keys { epochs: vec![], current: 7, session: 1 };
    for keys in [none, keys(&[1, 2, 3], 1), keys(&[7, 7], 1), Keys { current: 9, ..keys(&[7, 8], 1) }] {
        assert_eq!(bad(keys), (Err(Refused::BadKeys), Some(7)), "and those before stay");
    }
    one.set_vni(vni(42), VniConfig::default()).unwrap();
    assert_eq!(receive(&mut one, &pool, (TWO, ONE), &sealed(&mut two, &pool, b"x")), Err(DropReason::Sealed));
    assert_eq!(one.crypt(vni(42)), None);
}

/// A sender that starts again counts from 1 again, in another session.
#[test]
fn a_restart_repeats_no_nonce_and_loses_nothing() {
    let pool = pool();
    let (mut one, mut two) = pair(&pool);
    let before: Vec<_> = (0..5).map(|_| sealed(&mut one, &pool, b"x")).collect();
    before.iter().for_each(|datagram| assert!(receive(&mut two, &pool, (ONE, TWO), datagram).is_ok()));
    let mut again = node(&pool, &[TWO], &keys(&[7], 13));
    let after = sealed(&mut again, &pool, b"x");
    assert_eq!((&after[21..28], &before[0][21..28]), (&[0, 0, 0, 0, 0, 0, 1][..], &[0, 0, 0, 0, 0, 0, 1][..]));
    assert_ne!(after[12..20], before[0][12..20], "session");
    assert_ne!(after[28..], before[0][28..], "key");
    assert!(receive(&mut two, &pool, (ONE, TWO), &after).is_ok());
    assert_eq!(receive(&mut two, &pool, (ONE, TWO), &before[2]), Err(DropReason::Replayed), "the one before is not forgotten");
}

#[test]
fn rotation_loses_nothing_and_ends_the_old_epoch() {
    let pool = pool();
    let (mut one, mut two) = pair(&pool);
    let old = sealed(&mut one, &pool, b"old");
    assert!(receive(&mut two, &pool, (ONE, TWO), &old).is_ok());
    let unseen = sealed(&mut one, &pool, b"on its way");
    // First both accept the new one, still sending with the old; windows go on.
    two.set_keys(vni(42), &keys(&[7, 8], 21)).unwrap();
    assert_eq!(receive(&mut two, &pool, (ONE, TWO), &old), Err(DropReason::Replayed));
    one.set_keys(vni(42), &keys(&[8, 7], 22)).unwrap();
    let new = sealed(&mut one, &pool, b"new");
    assert_eq!(new[8..12], [0, 0, 0, 8]);
    assert!(receive(&mut two, &pool, (ONE, TWO), &new).is_ok() && receive(&mut two, &pool, (ONE, TWO), &unseen).is_ok(), "both");
    assert!(receive(&mut one, &pool, (TWO, ONE), &sealed(&mut two, &pool, b"x")).is_ok(), "the other way still the old one");
    two.set_keys(vni(42), &keys(&[8], 23)).unwrap();
    assert_eq!(two.crypt(vni(42)), Some(CryptView { current: Some(8), epochs: vec![8], sessions: 1 }));
    assert_eq!(receive(&mut two, &pool, (ONE, TWO), &unseen), Err(DropReason::NoKey), "it is over");
    assert!(receive(&mut two, &pool, (ONE, TWO), &sealed(&mut one, &pool, b"x")).is_ok());
    // Another secret under the number of an old one is another epoch.
    two.set_keys(vni(42), &Keys { epochs: vec![(8, secret(99))], current: 8, session: 24 }).unwrap();
    assert_eq!(two.crypt(vni(42)).unwrap().sessions, 0);
}

#[test]
fn a_spent_session_is_silent() {
    let pool = pool();
    let (mut one, _) = pair(&pool);
    sealed(&mut one, &pool, b"x");
    one.networks.get_mut(&vni(42)).unwrap().crypt.as_mut().unwrap().sealing.spend();
    assert!(send(&mut one, frame(&pool, b"x")).is_ok());
    assert_eq!(send(&mut one, frame(&pool, b"x")).unwrap_err(), DropReason::KeySpent);
}

#[test]
fn floods_are_sealed_for_each_and_leave_no_buffer_behind() {
    let pool = pool();
    let mut one = node(&pool, &[TWO, THREE], &keys(&[7], 11));
    let mut nodes = [TWO, THREE].map(|ip| (ip, node(&pool, &[ONE], &keys(&[7], 12))));
    for super_frame in [false, true] {
        let frame = if super_frame { samples::super_frame(&pool, false, true, &[7; 5000], 1000) } else { frame(&pool, b"all") };
        let out = send(&mut one, frame).unwrap();
        assert_eq!(out.len(), 2);
        for ((ip, node), datagram) in nodes.iter_mut().zip(&out) {
            assert_eq!(datagram.to.ip(), *ip);
            let first = &datagram.frame.bytes()[..datagram.segment.map_or(datagram.frame.len(), usize::from)];
            assert!(receive(node, &pool, (ONE, *ip), first).is_ok());
        }
    }
    drop((one, nodes));
    assert_eq!((pool.stats().small_used, pool.stats().large_used), (0, 0));
}

/// Trains stay trains: what UDP_SEGMENT cuts is of one length, and what UDP_GRO joins is opened at once and becomes the
/// super-frame again.
#[test]
fn super_frames_cross_in_few_calls() {
    let pool = pool();
    let (mut one, mut two) = pair(&pool);
    for (ipv6, size, length) in [(false, 1374, 60_000), (true, 1354, 60_000), (false, 500, 500 * SEGMENTS_MOST + 1), (true, 8000, 20_001)] {
        let payload: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let whole = samples::super_frame(&pool, ipv6, true, &payload, size);
        let mut wanted = Vec::new();
        segment(&whole, &pool, |part| wanted.push(part.bytes().to_vec())).unwrap();
        let out = send(&mut one, whole).unwrap();
        let most = SEGMENTS_MOST.min(crate::DATAGRAM_MOST / (FRONT + wanted[0].len() + BACK));
        assert_eq!(out.len(), wanted.len().div_ceil(most), "{size} in {length}");
        let mut frames = Vec::new();
        for datagram in out {
            let step = datagram.segment.map_or(datagram.frame.len(), usize::from);
            assert!(datagram.segment.is_none_or(|segment| usize::from(segment) == FRONT + wanted[0].len() + BACK));
            let outer = Outer { from: at(ONE), to: TWO, ecn: 0 };
            two.decap_many(outer, datagram.frame, step, nobody, NOW, &mut frames);
        }
        assert!(frames.len() <= wanted.len().div_ceil(most) + 1, "{} frames", frames.len());
        let mut got = Vec::new();
        for (_, frame) in frames {
            segment(&frame, &pool, |part| got.push(part.bytes().to_vec())).unwrap_or_else(|_| got.push(frame.bytes().to_vec()));
        }
        assert_eq!(got.concat().len(), wanted.concat().len());
        assert!(got == wanted, "{size} in {length}");
    }
    drop((one, two));
    assert_eq!((pool.stats().small_used, pool.stats().large_used), (0, 0), "all buffers are home");
}

/// In one buffer: what does not open is left out, the others go on.
#[test]
fn a_train_with_bad_ones() {
    let pool = pool();
    let (mut one, mut two) = pair(&pool);
    let mut parts: Vec<_> = (0..6).map(|_| sealed(&mut one, &pool, b"xxxx")).collect();
    parts[1][40] ^= 1;
    parts[3] = parts[2].clone();
    let clear = [&crate::header::emit(vni(42))[..], &vec![0; parts[0].len() - 8]].concat();
    parts[4] = clear;
    let mut frames = Vec::new();
    let outer = Outer { from: at(ONE), to: TWO, ecn: 0 };
    two.decap_many(outer, pool.copy_of(&parts.concat()).unwrap(), parts[0].len(), nobody, NOW, &mut frames);
    let drops = &two.counters(vni(42)).unwrap().drops;
    assert_eq!((drops.get(DropReason::BadTag), drops.get(DropReason::Replayed), drops.get(DropReason::ClearText), drops.total()), (1, 1, 1, 3));
    assert_eq!(two.counters(vni(42)).unwrap().frames_in, 3);
    // A clear one first, as from somebody who tries.
    let parts = [parts[4].clone(), sealed(&mut one, &pool, b"xxxx")].concat();
    two.decap_many(outer, pool.copy_of(&parts).unwrap(), parts.len() / 2, nobody, NOW, &mut frames);
    assert_eq!(two.counters(vni(42)).unwrap().frames_in, 4);
}

/// One flow's datagrams may be far behind another's, if each is in order.
#[test]
fn lanes_do_not_wait_for_each_other() {
    let mut opening = Opening::new(vni(1), &keys(&[7], 0), None);
    let mut sealing = Sealing::new(vni(1), &keys(&[7], 5)).unwrap();
    let mut datagram = |lane: usize| {
        let mut datagram = [0; FRONT + 20 + BACK];
        sealing.seal(ONE, lane, &mut datagram).map(|()| datagram)
    };
    let early: Vec<_> = (0..3).map(|_| datagram(0).unwrap()).collect();
    for _ in 0..window::WINDOW + 10 {
        assert!(opening.open(ONE, &mut datagram(15).unwrap(), NOW).is_ok());
    }
    early.iter().for_each(|datagram| assert!(opening.open(ONE, &mut datagram.clone(), NOW).is_ok()));
    early.iter().for_each(|datagram| assert_eq!(opening.open(ONE, &mut datagram.clone(), NOW), Err(DropReason::Replayed)));
    assert!(datagram(16).is_err());
    let mut no_lane = early[0];
    no_lane[20] = 16;
    assert_eq!(opening.open(ONE, &mut no_lane, NOW), Err(DropReason::BadTag));
}

#[test]
fn sessions_are_bounded() {
    let mut opening = Opening::new(vni(1), &keys(&[7], 0), None);
    for session in 0..SESSIONS_MOST as u64 + 10 {
        let mut sealing = Sealing::new(vni(1), &keys(&[7], session)).unwrap();
        let mut datagram = [0; FRONT + 20 + BACK];
        sealing.seal(ONE, 0, &mut datagram).unwrap();
        assert!(opening.open(ONE, &mut datagram, Instant::from_nanos(session)).is_ok());
    }
    assert_eq!(opening.sessions_len(), SESSIONS_MOST);
}
