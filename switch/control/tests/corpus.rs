//! The fuzz targets of the resolver and of Docker's API over their corpus, whole and cut everywhere, and with each
//! byte damaged.

#[path = "../../../tests/fuzz/src/names.rs"]
#[expect(unreachable_pub, reason = "a target of its own to the fuzzer")]
mod names;

#[path = "../../../tests/fuzz/src/docker.rs"]
#[expect(unreachable_pub, reason = "a target of its own to the fuzzer")]
mod docker;

use std::path::Path;

/// The crate itself opens nothing; its test reads its corpus.
fn read(path: &std::path::Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::OpenOptions::new().read(true).open(path).expect("a file"), &mut bytes).expect("a file");
    bytes
}

/// Each file of a target's corpus, cut and damaged in each place.
fn replay(target: &str, damage: &[u8], run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(target);
    let files: Vec<_> = folder.read_dir().expect("a corpus").map(|entry| read(&entry.expect("a file").path())).collect();
    assert!(files.len() > 10);
    for file in files {
        for at in 0..file.len() {
            run(&file[..at]);
            for value in damage {
                let mut damaged = file.clone();
                damaged[at] = *value;
                run(&damaged);
            }
        }
        run(&file);
    }
}

#[test]
fn no_message_breaks_the_resolver() {
    replay("names", &[0, 1, 0x40, 0x80, 0xc0, 0xff], names::names);
}

#[test]
fn no_body_breaks_the_engine() {
    replay("docker", b"09\"/:{,\0\xff", docker::docker);
}
