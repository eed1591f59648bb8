//! See `testkit::fuzz::port_spec`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::port_spec(data));
