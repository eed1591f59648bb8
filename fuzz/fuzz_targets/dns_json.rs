//! See `testkit::fuzz::dns_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::dns_json(data));
