//! See `testkit::fuzz::yaml_config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::yaml_config(data));
