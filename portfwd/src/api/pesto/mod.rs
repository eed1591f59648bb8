//! The protocol of pesto: programs look at pasta's forwarding rules, and replace them.
//!
//! | module | what |
//! |---|---|
//! | [`wire`] | the bytes, version 2, without any I/O |
//! | [`server`] | our end: one client's turn at a time |
//! | [`client`] | the other end: what is in force, and a change to it |
//!
//! The original has no answer to a change. Ours is a *status* behind which the connection ends; a client of the
//! original has gone by then.

pub mod client;
pub mod server;
pub mod wire;

pub use client::Client;
pub use server::Server;
