//! See `testkit::fuzz::goflag_argv`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::goflag_argv(data));
