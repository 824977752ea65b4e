//! The bodies of the fuzz targets over their corpus and over many made-up inputs, on a stable
//! compiler. What a fuzzer found stays in `tests/fuzz/corpus`.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../../../tests/fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a library of its own to the fuzz targets")]
mod targets;

use std::{fs, io::Read as _, path::Path};

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 3] =
    [("frame_parse", targets::frame_parse), ("vnet_frame", targets::vnet_frame), ("pcap", targets::pcap)];

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(target);
    let mut inputs: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mut bytes = Vec::new();
            fs::OpenOptions::new().read(true).open(entry.path()).unwrap().read_to_end(&mut bytes).unwrap();
            (entry.file_name().into_string().unwrap(), bytes)
        })
        .collect();
    inputs.sort();
    inputs
}

/// Runs a body; a panic says on what.
fn run((target, body): Target, name: &str, input: &[u8]) {
    let result = std::panic::catch_unwind(|| body(input));
    assert!(result.is_ok(), "{target} fails on {name}, {} bytes: {:02x?}..", input.len(), &input[..input.len().min(96)]);
}

#[test]
fn every_corpus_file_is_survived() {
    for target in TARGETS {
        let inputs = corpus(target.0);
        assert!(!inputs.is_empty());
        for (name, bytes) in inputs {
            run(target, &name, &bytes);
        }
    }
}

/// Every length that a small buffer can hold, and some of all others.
#[test]
fn random_bytes_of_every_length_are_survived() {
    let mut random = Random(1);
    for round in 0..8 {
        let longer: Vec<usize> = (0..500).map(|_| 2000 + random.below(63_536)).collect();
        for length in (0..=2000).chain(longer).chain([65_535, 65_560, 65_600]) {
            let mut input = random.bytes(length);
            if round % 4 > 0 {
                make_plausible(&mut input, round % 4, &mut random);
            }
            for target in TARGETS {
                run(target, &format!("round {round}"), &input);
            }
        }
    }
}

/// What is almost right goes deepest.
#[test]
fn spoilt_corpus_files_are_survived() {
    let mut random = Random(2);
    for target in TARGETS {
        let inputs = corpus(target.0);
        for turn in 0..10_000 {
            let (name, bytes) = &inputs[random.below(inputs.len())];
            let mut bytes = bytes.clone();
            for _ in 0..random.below(4) {
                // Headers, mostly.
                let span = if random.below(4) == 0 { bytes.len() } else { bytes.len().min(100) };
                if span > 0 {
                    let at = random.below(span);
                    bytes[at] = if random.below(2) == 0 { bytes[at] ^ 1 << random.below(8) } else { random.byte() };
                }
            }
            if random.below(4) == 0 {
                bytes.truncate(random.below(bytes.len() + 1));
            }
            run(target, &format!("{name}, turn {turn}"), &bytes);
        }
    }
}

/// Makes random bytes look like a (virtio header and a) frame with an IP packet of the right length.
fn make_plausible(input: &mut [u8], round: usize, random: &mut Random) {
    let ethernet = if round > 1 { 10 } else { 0 };
    let ip = ethernet + 14;
    if input.len() < ip + 40 {
        return;
    }
    if ethernet > 0 {
        input[..4].copy_from_slice(&[1, [0, 1, 4, 5][random.below(4)], 0, 0]);
    }
    let length = u16::try_from(input.len() - ip).unwrap_or(u16::MAX);
    let protocol = [1, 6, 6, 17, 17, 44, 58][random.below(7)];
    let start = if random.below(2) == 0 {
        input[ethernet + 12..ethernet + 14].copy_from_slice(&[8, 0]);
        input[ip] = 0x45;
        input[ip + 2..ip + 4].copy_from_slice(&length.to_be_bytes());
        input[ip + 6..ip + 8].copy_from_slice(&[0x40, 0]);
        input[ip + 9] = protocol;
        34
    } else {
        input[ethernet + 12..ethernet + 14].copy_from_slice(&[0x86, 0xdd]);
        input[ip] = 0x60;
        input[ip + 4..ip + 6].copy_from_slice(&(length - 40).to_be_bytes());
        input[ip + 6] = protocol;
        54
    };
    if ethernet > 0 {
        input[6..10].copy_from_slice(&[start, 0, if protocol == 17 { 6 } else { 16 }, 0]);
        // At least some of these are cut into few pieces.
        input[5] |= 1;
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }
}
