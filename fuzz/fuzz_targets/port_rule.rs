//! See `testkit::fuzz::port_rule`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::port_rule(data));
