//! See `testkit::fuzz::tcp_actions`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::tcp_actions(data));
