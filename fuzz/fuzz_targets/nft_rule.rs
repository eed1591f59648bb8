//! See `testkit::fuzz::nft_rule`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::nft_rule(data));
