//! See `testkit::fuzz::pasta_argv`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::pasta_argv(data));
