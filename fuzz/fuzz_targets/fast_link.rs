//! See `testkit::fuzz::fast_link`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::fast_link(data));
