//! See `testkit::fuzz::ssh_server`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::ssh_server(data));
