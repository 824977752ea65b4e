#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weft_fuzz::vnet_frame(data));
