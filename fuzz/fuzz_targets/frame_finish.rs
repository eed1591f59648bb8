//! See `testkit::fuzz::frame_finish`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::frame_finish(data));
