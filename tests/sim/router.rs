//! The fuzz target of gateway, router and NAT over its corpus, over recorded frames, and over what is almost
//! right.

#[path = "../fuzz/src/gateway.rs"]
#[expect(unreachable_pub, reason = "a target of its own to the fuzzer")]
mod target;

use std::path::Path;

use packet::checksum;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.into_iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound
    }
}

fn record(side: u8, frame: &[u8]) -> Vec<u8> {
    let length = u16::try_from(frame.len()).unwrap_or(u16::MAX);
    [&[side][..], &length.to_be_bytes(), &frame[..length.into()]].concat()
}

/// A frame to the router on a side, with an address that it may use, and the IPv4 header's checksum right.
fn aimed(mut frame: Vec<u8>, side: u8, random: &mut Random) -> Vec<u8> {
    if frame.len() < 34 {
        return frame;
    }
    frame[..6].copy_from_slice(&target::FACES[usize::from(side)].0);
    if frame[12..14] == [8, 0] && random.below(8) > 0 {
        let (source, destination) = if side == 0 { ([10, 0, 0, 2], [198, 51, 100, 7]) } else { ([198, 51, 100, 7], [192, 0, 2, 9]) };
        frame[26..30].copy_from_slice(&source);
        frame[30..34].copy_from_slice(if side == 0 && random.below(4) == 0 { &[192, 0, 2, 9] } else { &destination });
        frame[24..26].fill(0);
        let length = usize::from(frame[14] & 0xf) * 4;
        let sum = !checksum::fold(checksum::sum(&frame[14..(14 + length).min(frame.len())]));
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

#[test]
fn strangers_on_both_sides_are_survived() {
    let frames = corpus("frame_parse");
    for input in corpus("gateway") {
        target::gateway(&input);
    }
    let mut random = Random(1);
    for _ in 0..1500 {
        let mut input = Vec::new();
        for _ in 0..random.below(12) + 1 {
            let mut frame = frames[random.below(frames.len())].clone();
            for _ in 0..random.below(3) {
                let span = frame.len().min(90);
                let at = random.below(span.max(1));
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            let side = u8::try_from(random.below(2)).unwrap_or(0);
            input.extend(record(side, &aimed(frame, side, &mut random)));
            if random.below(4) == 0 {
                input.extend(record(2, &vec![0; random.below(9000)]));
            }
        }
        target::gateway(&input);
    }
}
