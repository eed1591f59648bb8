//! See `testkit::fuzz::rootlessport`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::rootlessport(data));
