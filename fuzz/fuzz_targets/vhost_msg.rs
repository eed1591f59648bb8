//! See `testkit::fuzz::vhost_msg`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::vhost_msg(data));
