//! Our own control socket: programs add, remove, replace and list forwarding rules, many programs at once.
//!
//! docs/control.md is the contract. [`message`] reads requests and writes replies, without any I/O; [`server`] is the
//! socket.

pub mod message;
pub mod server;

pub use message::dry_run;
pub use server::Server;
