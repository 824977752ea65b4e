//! A sandbox whose TCP is made by hand: what it is sent after losses, and what it can claim without harm.

use packet::{checksum, checksum::protocol};

use crate::world::{Faults, GATEWAY, INSIDE, World};

const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;
/// Our first number, and our segments.
const ISN: u32 = 0xffff_f000;
const MSS: usize = 1000;

/// A segment that the sandbox got.
#[derive(Debug)]
struct Got {
    seq: u32,
    ack: u32,
    flags: u8,
    /// Selective acknowledgements.
    blocks: Vec<(u32, u32)>,
    options: Vec<u8>,
    payload: Vec<u8>,
}

struct Peer {
    world: World,
    /// Next number of ours.
    seq: u32,
    /// Number of the proxy's first byte.
    first: u32,
}

impl Peer {
    fn put(&mut self, seq: u32, ack: u32, flags: u8, options: &[u8], payload: &[u8]) {
        let (length, header) = (40 + options.len() + payload.len(), 20 + options.len());
        let ip = [&[0x45, 0][..], &u16::try_from(length).unwrap().to_be_bytes(), &[0, 0, 0x40, 0, 64, protocol::TCP, 0, 0, 10, 0, 0, 2, 192, 0, 2, 7]].concat();
        let tcp = [&4000u16.to_be_bytes()[..], &80u16.to_be_bytes(), &seq.to_be_bytes(), &ack.to_be_bytes(), &[(header * 4) as u8, flags, 0xff, 0xff, 0, 0, 0, 0], options, payload].concat();
        let mut bytes = [&GATEWAY.0[..], &INSIDE.0, &[8, 0], &ip, &tcp].concat();
        let sum = (!checksum::fold(checksum::sum(&bytes[14..34]))).to_be_bytes();
        bytes[24..26].copy_from_slice(&sum);
        let sum = (!checksum::fold(checksum::sum(&bytes[34..]) + checksum::pseudo_header(&bytes[14..], protocol::TCP, tcp.len()).unwrap())).to_be_bytes();
        bytes[50..52].copy_from_slice(&sum);
        self.world.wire.from_host.push(bytes);
    }

    /// Lets milliseconds pass; what came meanwhile.
    fn wait(&mut self, millis: usize) -> Vec<Got> {
        (0..millis).for_each(|_| self.world.turn());
        let word = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let got = |bytes: Vec<u8>| {
            let (total, data) = (14 + usize::from(u16::from_be_bytes([bytes[16], bytes[17]])), 34 + usize::from(bytes[46] >> 4) * 4);
            let options = &bytes[54..data];
            let sack = options.strip_prefix(&[1, 1, 5]).map_or(&[][..], |rest| &rest[1..usize::from(rest[0]) - 1]);
            let blocks = sack.chunks(8).map(|block| (word(block), word(&block[4..]))).collect();
            Got { seq: word(&bytes[38..]), ack: word(&bytes[42..]), flags: bytes[47], blocks, options: options.to_vec(), payload: bytes[data..total].to_vec() }
        };
        self.world.wire.to_host.drain(..).map(got).collect()
    }

    /// A connection; with selective acknowledgements, if it offers them.
    fn open(options: &[u8]) -> Self {
        let mut this = Self { world: World::new(3, Faults::default(), 1 << 20), seq: ISN.wrapping_add(1), first: 0 };
        this.put(ISN, 0, SYN, options, &[]);
        let got = this.wait(1);
        assert!(got.len() == 1 && got[0].flags == SYN | ACK && got[0].ack == this.seq, "{got:?}");
        assert_eq!(got[0].options.windows(2).any(|two| two == [4, 2]), options.windows(2).any(|two| two == [4, 2]), "SACK is offered to those who can");
        this.first = got[0].seq.wrapping_add(1);
        this.put(this.seq, this.first, ACK, &[], &[]);
        this.wait(1);
        this
    }

    fn with_sack() -> Self {
        Self::open(&[2, 4, 3, 232, 4, 2, 1, 1])
    }

    /// The byte that far into what the proxy sends.
    const fn at(&self, offset: u32) -> u32 {
        self.first.wrapping_add(offset)
    }

    fn acknowledge(&mut self, offset: u32, blocks: &[(u32, u32)]) {
        let mut options = Vec::new();
        if !blocks.is_empty() {
            options.extend([1, 1, 5, (2 + blocks.len() * 8) as u8]);
            for (from, to) in blocks {
                options.extend(self.at(*from).to_be_bytes());
                options.extend(self.at(*to).to_be_bytes());
            }
        }
        self.put(self.seq, self.at(offset), ACK, &options, &[]);
    }

    /// Has the host send `count` segments to the sandbox, which says nothing to them.
    fn flight(&mut self, count: u32) {
        let stream = self.world.echo.streams.values_mut().next().unwrap();
        stream.waiting.extend((0..count as usize * MSS).map(|at| (at / MSS) as u8));
        let got = self.wait(1);
        assert_eq!(got.iter().map(|got| got.payload.len()).sum::<usize>(), count as usize * MSS);
    }

    /// Where segments with payload began, and how long they were together.
    fn offsets(&self, got: &[Got]) -> (Vec<u32>, usize) {
        let data = || got.iter().filter(|got| !got.payload.is_empty());
        for got in data() {
            let offset = got.seq.wrapping_sub(self.first) as usize;
            assert!(got.payload.iter().enumerate().all(|(at, byte)| *byte == ((offset + at) / MSS) as u8), "other bytes at {offset}");
        }
        (data().map(|got| got.seq.wrapping_sub(self.first)).collect(), data().map(|got| got.payload.len()).sum())
    }
}

#[test]
fn holes_are_sent_again_at_once_and_nothing_else() {
    let mut peer = Peer::with_sack();
    peer.flight(14);
    peer.acknowledge(2000, &[(3000, 5000)]);
    let got = peer.wait(1);
    assert_eq!(peer.offsets(&got), (vec![], 0), "two segments may have overtaken one");
    peer.acknowledge(2000, &[(8000, 12_000), (3000, 5000)]);
    let got = peer.wait(1);
    assert_eq!(peer.offsets(&got), (vec![2000, 5000, 6000, 7000], 4000));
    // Some of what left again arrived, but not what left before: again, and for the first time.
    peer.acknowledge(2000, &[(3000, 6000), (8000, 12_000)]);
    let got = peer.wait(1);
    assert_eq!(peer.offsets(&got), (vec![2000, 12_000, 13_000], 3000));
    peer.acknowledge(14_000, &[]);
    let got = peer.wait(2000);
    assert_eq!(peer.offsets(&got), (vec![], 0));
}

#[test]
fn the_end_of_a_flight_is_probed_before_the_timeout() {
    let mut peer = Peer::with_sack();
    peer.flight(20);
    let got = peer.wait(50);
    assert_eq!(peer.offsets(&got), (vec![19_000; 3], 3000), "three times");
    peer.acknowledge(15_000, &[(19_000, 20_000)]);
    let got = peer.wait(1);
    assert_eq!(peer.offsets(&got), (vec![15_000, 16_000, 17_000, 18_000], 4000));
}

#[test]
fn without_selective_acknowledgements_losses_are_found_one_by_one() {
    let mut peer = Peer::open(&[2, 4, 3, 232]);
    peer.flight(20);
    (0..3).for_each(|_| peer.acknowledge(1000, &[]));
    let got = peer.wait(1);
    assert_eq!(peer.offsets(&got), (vec![], 0), "the first of them acknowledged something");
    peer.acknowledge(1000, &[]);
    let got = peer.wait(1);
    assert_eq!(peer.offsets(&got), (vec![1000], 1000));
    peer.acknowledge(4000, &[]);
    let got = peer.wait(1);
    assert_eq!(peer.offsets(&got), (vec![4000], 1000));
    // Blocks that were not negotiated mean nothing.
    peer.acknowledge(4000, &[(6000, 20_000)]);
    let got = peer.wait(1);
    assert_eq!(peer.offsets(&got), (vec![], 0));
    let got = peer.wait(300);
    assert_eq!(peer.offsets(&got).0[0], 4000, "by the clock");
}

#[test]
fn lies_about_what_arrived_harm_nobody_else() {
    let mut peer = Peer::with_sack();
    peer.flight(20);
    for blocks in [[(21_000, 25_000)], [(19_000, 22_000)], [(5000, 3000)], [(5000, 5000)], [(0x9000_0000, 5000)], [(5000, 0x9000_0000)]] {
        peer.acknowledge(1000, &blocks);
    }
    let got = peer.wait(1);
    assert_eq!(peer.offsets(&got), (vec![], 0), "none of them is believed");
    // All but the first byte arrived, it says, and asks for it for ever.
    for round in 0..40 {
        peer.acknowledge(1000, &[(1001, 20_000)]);
        let got = peer.wait(30);
        let (offsets, bytes) = peer.offsets(&got);
        assert!(bytes <= 20_000, "{bytes} bytes in round {round}: {offsets:?}");
    }
    // And all of it, which cannot be: by the clock it is sent again (RFC 2018 8).
    peer.acknowledge(1000, &[(1000, 20_000)]);
    let got = peer.wait(70_000);
    assert!(peer.offsets(&got).0.contains(&1000));
    peer.acknowledge(20_000, &[]);
    peer.wait(1);
    assert_eq!(peer.world.proxy.flows()[0].state, "ESTABLISHED");
}

#[test]
fn what_comes_ahead_of_a_hole_is_kept_and_told() {
    let mut peer = Peer::with_sack();
    let (first, base) = (peer.first, peer.seq);
    let at = |offset: u32| base.wrapping_add(offset);
    let bytes: Vec<u8> = (0..6000u32).map(|at| (at / 7) as u8).collect();
    let send = |peer: &mut Peer, from: u32, to: u32, flags| {
        peer.put(at(from), first, ACK | flags, &[], &bytes[from as usize..to as usize]);
        peer.wait(1)
    };
    // Numbers wrap on the way.
    let got = send(&mut peer, 4000, 5000, 0);
    assert_eq!((got[0].ack, &got[0].blocks[..]), (base, &[(at(4000), at(5000))][..]));
    let got = send(&mut peer, 5000, 6000, FIN);
    assert_eq!(got[0].blocks, [(at(4000), at(6001))]);
    let got = send(&mut peer, 1000, 2000, 0);
    assert_eq!(got[0].blocks, [(at(1000), at(2000)), (at(4000), at(6001))]);
    let got = send(&mut peer, 1200, 1800, 0);
    assert_eq!(got[0].blocks, [(at(1200), at(1800)), (at(1000), at(2000)), (at(4000), at(6001))], "it came twice (RFC 2883)");
    let got = send(&mut peer, 0, 1500, 0);
    assert!(got.iter().any(|got| got.ack == at(2000) && got.blocks == [(at(4000), at(6001))]), "{got:?}");
    send(&mut peer, 1900, 4100, 0);
    let stream = peer.world.echo.streams.values().next().unwrap();
    assert_eq!(stream.echoed, 6000);
    assert!(stream.waiting.iter().eq(&bytes));
    let got = send(&mut peer, 0, 100, 0);
    assert_eq!((got[0].ack, &got[0].blocks[..]), (at(6001), &[(at(0), at(100))][..]));
}

#[test]
fn a_flood_ahead_of_a_hole_is_refused_by_name() {
    let mut peer = Peer::open(&[2, 4, 3, 232, 4, 2, 1, 1, 1, 3, 3, 7]);
    let (first, base) = (peer.first, peer.seq);
    // The window allows a mebibyte; crumbs far from each other are the dearest.
    for number in 0..5000 {
        peer.put(base.wrapping_add(10 + number * 100), first, ACK, &[], &[1]);
    }
    let got = peer.wait(1);
    assert!(got.len() == 5000 && got.iter().all(|got| got.blocks.len() <= 4 && got.ack == base));
    let refused = peer.world.proxy.stats().ahead;
    assert!((4000..5000).contains(&refused), "{refused}");
    // What the window does not allow is not kept, nor counted.
    peer.put(base.wrapping_add(3 << 20), first, ACK, &[], &[1]);
    let got = peer.wait(1);
    assert!(got[0].blocks.iter().all(|(_, to)| to.wrapping_sub(base) < 1 << 20));
    assert_eq!(peer.world.proxy.stats().ahead, refused);
}

#[test]
fn whatever_a_peer_says_is_survived() {
    let mut state = 0x5eed_u64;
    let mut dice = move |sides: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as u32 % sides
    };
    for round in 0..60 {
        let mut peer = if round % 3 == 0 { Peer::open(&[2, 4, 3, 232]) } else { Peer::with_sack() };
        peer.flight(1 + dice(60));
        for _ in 0..100 {
            let near = |dice: &mut dyn FnMut(u32) -> u32, number: u32| number.wrapping_add(dice(70_000)).wrapping_sub(dice(3000) * dice(2));
            let mut options = Vec::new();
            let blocks = dice(5);
            if blocks > 0 {
                options.extend([1, 1, 5, (2 + blocks * 8) as u8]);
                (0..blocks * 2).for_each(|_| options.extend(near(&mut dice, peer.first).to_be_bytes()));
            }
            let flags = [ACK, ACK, ACK, ACK, ACK | FIN, SYN, SYN | ACK, 0][dice(8) as usize];
            let (seq, ack) = (near(&mut dice, peer.seq), near(&mut dice, peer.first));
            peer.put(seq, ack, flags, &options, &vec![0; dice(1400) as usize]);
            if dice(4) == 0 {
                peer.wait(1 + dice(300) as usize);
            }
        }
        peer.world.proxy.remove_network(packet::NetworkId::new(0, 0), &mut peer.world.echo);
        assert!(peer.world.proxy.flows().is_empty() && peer.world.echo.streams.is_empty());
        assert_eq!(peer.world.proxy.poll_timeout(), None, "nobody waits for the clock");
        let used = peer.world.pool.stats();
        assert_eq!((used.small_used, used.large_used), (0, 0), "all buffers are home");
    }
}
