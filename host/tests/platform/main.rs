//! What the design believes about Linux, one test for each belief. Loopback only.
#![expect(clippy::unwrap_used, reason = "test helpers fail by panicking")]

mod tcp;
mod udp;
