//! See `testkit::fuzz::dhcpv6_reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::dhcpv6_reply(data));
