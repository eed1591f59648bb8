//! See `testkit::fuzz::dhcp_client`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::dhcp_client(data));
