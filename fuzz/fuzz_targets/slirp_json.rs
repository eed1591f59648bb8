//! See `testkit::fuzz::slirp_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::slirp_json(data));
