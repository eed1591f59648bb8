//! See `testkit::fuzz::dbus_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::dbus_answer(data));
