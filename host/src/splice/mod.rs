//! The shortcut: loopback traffic between host and namespace, from socket to socket, without a packet.
//!
//! ```text
//!   client ── its socket ══ lane ══ our socket in the other namespace ── server
//! ```
//! Who comes from the host's own loopback to a forwarded port, or from the namespace's to one that leads to the host,
//! needs neither the guest's link nor a TCP of ours: both ends are sockets of this kernel. Bytes of a connection go
//! from one to the other, copied while they are few and by splice(2) when they are many ([`lane`]); datagrams go in
//! trains ([`datagrams`]).
//!
//! What crosses: bytes, half-close, reset (also the refusal of a connection, after the fact: the client was accepted
//! before the server was asked), back-pressure, datagrams and their bounds. What does not: urgent data, which becomes
//! ordinary; errors of datagrams; addresses, for each side sees one of its own.
//!
//! The event loop ([`crate::driver`]) decides what goes here, has sockets of the other namespace by
//! [`crate::inside`], and passes events on by their tokens. Nothing in this folder waits, and no conversation can harm
//! another.

mod datagrams;
mod lane;
mod pipes;
mod slab;
mod streams;

pub(crate) use datagrams::Datagrams;
pub(crate) use streams::{Parties, Streams};

use crate::inside::Side;
use std::net::SocketAddr;

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A conversation that goes by the shortcut, for those who list them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversation {
    /// Its number, below 2^32: no other has it at the same time. Lists are in its order.
    pub id: u64,
    /// Its protocol.
    pub proto: Proto,
    /// Where the client is.
    pub side: Side,
    /// The client.
    pub client: SocketAddr,
    /// Where it leads, on the other side.
    pub server: SocketAddr,
    /// Bytes delivered to the server.
    pub up: u64,
    /// Bytes delivered to the client.
    pub down: u64,
}

/// [`Conversation::id`]: connections come first, each kind by its place.
fn number(proto: Proto, place: u32) -> u64 {
    let first = match proto {
        Proto::Tcp => 0,
        Proto::Udp => 1 << 31,
    };
    first | u64::from(place)
}
