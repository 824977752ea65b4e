#![no_main]

// One crate has one name in a manifest; the target is shared with tests that know it by the short one.
extern crate weft_packet as packet;

#[path = "../src/vxlan.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::vxlan(data));
