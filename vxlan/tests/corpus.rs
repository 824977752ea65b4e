//! The fuzz target of tunnels over its corpus, over that of frames, and over what is almost right.

extern crate weft_vxlan as vxlan;

#[path = "../../tests/fuzz/src/vxlan.rs"]
#[expect(unreachable_pub, reason = "a target of its own to the fuzzer")]
mod target;

use std::path::Path;

/// The crate itself opens nothing; its test reads its corpus.
fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::OpenOptions::new().read(true).open(path).expect("a file"), &mut bytes).expect("a file");
    bytes
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = folder.read_dir().expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() > 5);
    files.iter().map(|path| read(path)).collect()
}

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

fn record(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&[kind][..], &length.to_be_bytes(), &bytes[..usize::from(length)]].concat()
}

#[test]
fn the_corpus_is_survived_whole_and_spoilt() {
    let mut random = Random(1);
    for file in corpus("vxlan") {
        target::vxlan(&file);
        for _ in 0..500 {
            let mut spoilt = file.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(spoilt.len().min(200));
                spoilt[at] ^= 1 << random.below(8);
            }
            spoilt.truncate(spoilt.len() - random.below(spoilt.len().min(60)));
            target::vxlan(&spoilt);
        }
    }
}

/// Virtio headers and frames of all kinds: through the clear network, the encrypted one, and that with each of some bits
/// damaged on the way.
#[test]
fn frames_cross_whole_or_not_at_all() {
    let mut random = Random(2);
    for file in corpus("vnet_frame") {
        for kind in [2, 3] {
            target::vxlan(&[record(kind, &file), record(kind, &file)].concat());
        }
        for _ in 0..40 {
            let bit = u16::try_from(random.below(1 << 16)).expect("16 bits");
            target::vxlan(&[record(4, &[&bit.to_be_bytes()[..], &file].concat()), record(3, &file)].concat());
        }
    }
}

/// Bytes of a peer that has no key, in buffers as the kernel would join them.
#[test]
fn strangers_are_survived() {
    let mut random = Random(3);
    for _ in 0..3000 {
        let length = [random.below(100), random.below(2000), random.below(65_000)][random.below(3)];
        let mut bytes: Vec<u8> = (0..length).map(|_| random.below(256).to_le_bytes()[0]).collect();
        let segment = random.below(200);
        for datagram in bytes.chunks_mut(segment.max(1)).filter(|datagram| datagram.len() > 24) {
            let vni = [42, 43, 44][random.below(3)];
            datagram[..8].copy_from_slice(&[[8, 0x40, 0x48, 0][random.below(4)], 0, 0, 0, 0, 0, vni, 0]);
            if random.below(2) == 0 {
                datagram[8..12].copy_from_slice(&[0, 0, 0, 2]);
            }
        }
        let joined = [&u16::try_from(segment).expect("short").to_be_bytes()[..], &bytes].concat();
        target::vxlan(&[record(0, &bytes), record(1, &joined)].concat());
    }
}
