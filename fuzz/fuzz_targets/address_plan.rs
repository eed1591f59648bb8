//! See `testkit::fuzz::address_plan`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::address_plan(data));
