//! Stage 3 of the data path: IPv4 and IPv6 themselves, and the messages that belong to them.

pub mod extension;
pub mod group;
pub mod icmp_error;
pub mod ndp;
