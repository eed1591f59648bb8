//! The contract of the uplink's socket, once: for `slipway uplink`, which serves it, and for those who ask.
//!
//! ```text
//!   network plugin ───┐                      ┌ address    where it listens
//!   rootlessport ─────┼── client ── socket ──┤
//!   slipway --show ───┘                      └ protocol   requests, replies, refusals; networks, containers, mappings
//! ```
//! Text becomes valid types here and valid types become text; what a request changes is the server's business. docs/uplink.md
//! is the same for people.

#![forbid(unsafe_code)]

pub mod address;
pub mod client;
pub mod protocol;
