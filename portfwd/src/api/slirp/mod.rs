//! The API socket of slirp4netns: one JSON request and one JSON reply per connection on a Unix stream socket.
//!
//! [`message`] is the pure half: bytes to [`Request`], [`Reply`] to bytes, every error string. [`server`] is the socket
//! half. It differs from the original where the original hurts: a client that says nothing occupies a slot for some
//! seconds and nothing else, a request may arrive in pieces, several clients are served at once.

pub mod message;
pub mod server;

pub use message::{Refusal, Reply, Request, dry_run};
pub use server::{BindError, Notice, Server};
