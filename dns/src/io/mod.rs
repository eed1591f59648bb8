//! What everybody who answers names needs between the pure half and its descriptors, whatever loop turns it.
//!
//! [`exchange`] is a question on its way to one server, [`conversation`] a client that asks over a stream. Neither
//! waits, names its owner or knows an event set: `aardvark-dns` drives them from its loop, the stack's own name server
//! from the one around the engine. A conversation takes any stream: a guest's ends within this process and is no
//! socket.

pub mod conversation;
pub mod exchange;
