//! See `testkit::fuzz::resolv_conf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::resolv_conf(data));
