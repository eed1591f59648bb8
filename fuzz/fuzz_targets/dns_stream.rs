//! See `testkit::fuzz::dns_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::dns_stream(data));
