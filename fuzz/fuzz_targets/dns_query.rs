//! See `testkit::fuzz::dns_query`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::dns_query(data));
