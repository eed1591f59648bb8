//! See `testkit::fuzz::getopt_argv`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::getopt_argv(data));
