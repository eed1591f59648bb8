//! See `testkit::fuzz::uplink_order`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::uplink_order(data));
