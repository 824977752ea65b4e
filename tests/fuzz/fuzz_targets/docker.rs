#![no_main]

#[path = "../src/docker.rs"]
mod docker;

libfuzzer_sys::fuzz_target!(|data: &[u8]| docker::docker(data));
