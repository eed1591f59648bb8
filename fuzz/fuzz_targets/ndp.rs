//! See `testkit::fuzz::ndp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::ndp(data));
