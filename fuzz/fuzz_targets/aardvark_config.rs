//! See `testkit::fuzz::aardvark_config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::aardvark_config(data));
