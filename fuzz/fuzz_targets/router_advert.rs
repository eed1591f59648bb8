//! See `testkit::fuzz::router_advert`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::router_advert(data));
