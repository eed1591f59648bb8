//! See `testkit::fuzz::netavark_options`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::netavark_options(data));
