//! See `testkit::fuzz::vnet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::vnet(data));
