//! The contract of the uplink's socket, once: for `slipway uplink`, which serves it, and for those who ask.
//!
//! ```text
//!   network plugin ───┐                          ┌── address     where the socket is
//!   rootlessport ─────┼── wire ── client ────────┤
//!   slipway --show ───┘                          └── envelope    how long, and what a reply looks like
//!                                                         │
//!   slipway uplink ◀───────────── protocol ◀── wire ──────┘      requests as valid types
//! ```
//! [`wire`] is JSON as it is written, [`protocol`] what it means when all of it is right. What a request changes is the
//! server's business. docs/uplink.md is the same for people.

#![forbid(unsafe_code)]

pub mod address;
pub mod client;
pub mod envelope;
pub mod protocol;
pub mod wire;
