//! See `testkit::fuzz::switch_frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::switch_frames(data));
