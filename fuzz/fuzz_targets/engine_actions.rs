//! See `testkit::fuzz::engine_actions`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::engine_actions(data));
