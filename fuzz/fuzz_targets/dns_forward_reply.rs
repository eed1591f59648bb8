//! See `testkit::fuzz::dns_forward_reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::dns_forward_reply(data));
