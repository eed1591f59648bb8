//! See `testkit::fuzz::route_replay`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::route_replay(data));
