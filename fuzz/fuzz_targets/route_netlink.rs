//! See `testkit::fuzz::route_netlink`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::route_netlink(data));
