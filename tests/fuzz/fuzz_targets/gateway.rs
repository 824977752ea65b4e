#![no_main]

// One crate has one name in a manifest; the target is shared with tests that know it by the short one.
extern crate weft_packet as packet;

#[path = "../src/gateway.rs"]
mod gateway;

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::gateway(data));
