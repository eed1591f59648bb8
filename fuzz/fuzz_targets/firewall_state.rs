//! See `testkit::fuzz::firewall_state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::firewall_state(data));
