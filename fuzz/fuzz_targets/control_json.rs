//! See `testkit::fuzz::control_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::control_json(data));
