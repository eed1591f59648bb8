//! See `testkit::fuzz::expose_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::expose_json(data));
