//! See `testkit::fuzz::plugin_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::plugin_request(data));
