//! What the design believes about Linux, one test for each belief. Loopback only.
#![expect(clippy::unwrap_used, reason = "test helpers fail by panicking")]

#[path = "../../src/families.rs"]
mod families;
mod tcp;
mod udp;
