//! See `testkit::fuzz::dhcp4`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::dhcp4(data));
