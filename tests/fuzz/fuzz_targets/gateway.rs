#![no_main]

#[path = "../src/gateway.rs"]
mod gateway;

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::gateway(data));
