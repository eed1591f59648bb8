//! See `testkit::fuzz::proc_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::proc_text(data));
