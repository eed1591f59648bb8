//! See `testkit::fuzz::pesto_wire`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::pesto_wire(data));
