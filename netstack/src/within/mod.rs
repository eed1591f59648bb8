//! Stage 6: the servers that exist only within the stack.
//!
//! The guest meets them at the gateway's address as it would meet those of a router at home: a DHCP server for each
//! family, router advertisements, and the DNS address. Each is a codec with a little state, fed with one message at a
//! time; nothing here knows sockets, and time is an argument.

pub mod dhcp4;
pub mod dhcp6;
pub mod dns;
pub mod names;
pub mod ra;
mod serve;

pub(crate) use serve::Within;
