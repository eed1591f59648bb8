//! See `testkit::fuzz::sock_diag`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::sock_diag(data));
