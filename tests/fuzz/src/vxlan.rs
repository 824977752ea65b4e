//! Two tunnel endpoints, and strangers on both sides of them: datagrams to one, frames from a network through both. VNI 42
//! is clear, 43 encrypted. Nothing panics, nothing enters the encrypted network that the other end did not seal, what one
//! end sends the other takes, and all buffers come home.

use std::net::{IpAddr, SocketAddr};

use packet::{Checksum, Duration, Frame, Instant, Mac, Offload, Parsed, Pool, PoolConfig, UnicastMac, VIRTIO_NET_HDR_LEN, Vni};
use vxlan::{
    Datagram, DropReason, Neighbour, Outer, Vtep, VtepConfig, VniConfig,
    crypt::{Keys, Secret},
};

const NEAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

fn vni(number: u32) -> Vni {
    Vni::new(number).expect("a VNI")
}

fn endpoint(pool: &Pool, peer: IpAddr, session: u64) -> Vtep {
    let mut vtep = Vtep::new(VtepConfig { learned_most: 16, ..VtepConfig::default() }, pool.clone(), [1, 2]);
    for (number, encrypted) in [(42, false), (43, true)] {
        let rules = VniConfig { encrypted, mtu: 9000, strict: true, ..VniConfig::default() };
        vtep.add_vni(vni(number), rules).expect("a new VNI");
        vtep.add_peer(vni(number), SocketAddr::new(peer, 4789)).expect("a peer");
        let mac = UnicastMac::new(Mac([2, 0, 0, 0, 0, 9])).expect("a station");
        for ip in ["10.0.0.2", "fc00::2"] {
            vtep.set_neighbour(vni(number), ip.parse().expect("an address"), Neighbour { mac, router: false }).expect("room");
        }
    }
    let keys = Keys { epochs: vec![(1, Secret([1; 32])), (2, Secret([2; 32]))], current: 2, session };
    vtep.set_keys(vni(43), &keys).expect("keys");
    vtep
}

fn anybody(_: Vni, _: &Parsed, _: &[u8]) -> Result<(), DropReason> {
    Ok(())
}

/// Records, each `kind, length (2 bytes), bytes`. Kind, modulo 6: 0 a datagram to the near end, 1 several in one buffer
/// (their length first), 2 and 3 a virtio header and a frame from the near network 42 or 43 to the far one, 4 the same as 3
/// with the first two bytes saying which bit is damaged on the way, 5 time passes.
pub fn vxlan(data: &[u8]) {
    let pool = Pool::new(PoolConfig { small: 600, large: 160 });
    let (mut near, mut far) = (endpoint(&pool, FAR, 1), endpoint(&pool, NEAR, 2));
    let (mut now, mut rest) = (Instant::from_nanos(1), data);
    while let Some((&[kind, high, low], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (bytes, next) = after.split_at(length);
        rest = next;
        let two = |bytes: &[u8]| bytes.split_first_chunk::<2>().map(|(first, _)| usize::from(u16::from_be_bytes(*first)));
        match (kind % 6, two(bytes)) {
            (0, _) => from_stranger(&mut near, &pool, bytes, 0, now),
            (1, Some(segment)) => from_stranger(&mut near, &pool, &bytes[2..], segment, now),
            (2, _) => across(&mut near, &mut far, &pool, vni(42), bytes, None, now),
            (3, _) => across(&mut near, &mut far, &pool, vni(43), bytes, None, now),
            (4, Some(bit)) => across(&mut near, &mut far, &pool, vni(43), &bytes[2..], Some(bit), now),
            (5, Some(seconds)) => {
                now = now + Duration::from_secs(seconds as u64);
                near.handle_timeout(now);
            }
            _ => {}
        }
    }
    drop((near, far));
    assert_eq!((pool.stats().small_used, pool.stats().large_used), (0, 0), "all buffers are home");
}

fn from_stranger(near: &mut Vtep, pool: &Pool, bytes: &[u8], segment: usize, now: Instant) {
    // The kernel joins at most so many.
    let segment = if segment == 0 { 0 } else { segment.max(bytes.len().div_ceil(64)) };
    let Some(buffer) = pool.copy_of(bytes) else { return };
    let (before, mut frames) = (near.drops().total() + taken(near), Vec::new());
    near.decap_many(Outer { from: SocketAddr::new(FAR, 50_000), to: NEAR, ecn: bytes.last().map_or(0, |byte| byte & 3) }, buffer, segment, anybody, now, &mut frames);
    assert!(frames.iter().all(|(number, _)| *number == vni(42)), "nobody else has the key");
    let datagrams = if segment == 0 || bytes.is_empty() { 1 } else { bytes.len().div_ceil(segment) };
    assert_eq!(near.drops().total() + taken(near), before + datagrams as u64, "each is taken or counted once");
}

/// Datagrams that became frames.
fn taken(vtep: &Vtep) -> u64 {
    [42, 43].iter().filter_map(|number| vtep.counters(vni(*number))).map(|counters| counters.frames_in).sum()
}

/// A frame from the near network to the far one, with a bit damaged in each datagram if so said.
fn across(near: &mut Vtep, far: &mut Vtep, pool: &Pool, number: Vni, bytes: &[u8], damage: Option<usize>, now: Instant) {
    let Some(frame) = frame(pool, bytes) else { return };
    let (mut sent, mut frames) = (Vec::new(), Vec::new());
    let length = frame.len();
    if near.encap(number, frame, now, &mut sent).is_err() {
        return assert!(sent.is_empty());
    }
    let (before, drops) = (taken(far), far.drops().total());
    let mut count = 0;
    for Datagram { frame, segment, ecn, source_port, .. } in sent {
        let step = segment.map_or(frame.len(), usize::from);
        count += frame.len().div_ceil(step) as u64;
        let mut datagrams = pool.copy_of(frame.bytes()).expect("a buffer");
        drop(frame);
        if let Some(bit) = damage {
            for datagram in datagrams.bytes_mut().chunks_mut(step) {
                let at = bit / 8 % datagram.len();
                datagram[at] ^= 1 << (bit % 8);
            }
        }
        far.decap_many(Outer { from: SocketAddr::new(NEAR, source_port), to: FAR, ecn }, datagrams, step, anybody, now, &mut frames);
    }
    let (arrived, lost) = (taken(far) - before, far.drops().total() - drops);
    // The only bits that mean nothing are reserved ones of the header, which the tag covers.
    let wanted = if damage.is_some() { (0, count) } else { (count, 0) };
    assert_eq!((arrived, lost), wanted, "of {count} datagrams of a frame of {length} bytes");
}

fn frame(pool: &Pool, bytes: &[u8]) -> Option<Frame> {
    let (header, bytes) = bytes.split_at_checked(VIRTIO_NET_HDR_LEN)?;
    let offload = Offload::from_virtio(header, bytes.len()).ok()?;
    let mut frame = pool.copy_of(bytes)?;
    frame.offload = offload;
    // The switch admits no others.
    let is_whole = offload.checksum == Checksum::Complete || Parsed::new(bytes).is_some();
    is_whole.then_some(frame)
}
