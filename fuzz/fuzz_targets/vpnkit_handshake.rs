//! See `testkit::fuzz::vpnkit_handshake`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::vpnkit_handshake(data));
