//! The fuzz target of the resolver over its corpus, whole and cut everywhere, and with each byte damaged.

#[path = "../../../tests/fuzz/src/names.rs"]
#[expect(unreachable_pub, reason = "a target of its own to the fuzzer")]
mod names;

use std::path::Path;

/// The crate itself opens nothing; its test reads its corpus.
fn read(path: &std::path::Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::OpenOptions::new().read(true).open(path).expect("a file"), &mut bytes).expect("a file");
    bytes
}

#[test]
fn no_message_breaks_the_resolver() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/names");
    let files: Vec<_> = folder.read_dir().unwrap().map(|entry| read(&entry.unwrap().path())).collect();
    assert!(files.len() > 10);
    for file in files {
        for at in 0..file.len() {
            names::names(&file[..at]);
            for value in [0, 1, 0x40, 0x80, 0xc0, 0xff] {
                let mut damaged = file.clone();
                damaged[at] = value;
                names::names(&damaged);
            }
        }
        names::names(&file);
    }
}
