//! `aardvark-dns` from outside: the real program, real sockets, on loopback in a network namespace of each test's own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers fail by panicking")]

mod answers;
mod client;
mod forward;
mod process;
mod reload;
mod stage;
mod tcp;
