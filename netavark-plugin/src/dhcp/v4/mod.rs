//! IPv4 for containers whose addresses come from the network: by DHCP (RFC 2131).
//!
//! ```text
//!   service ──▶ keeper, one for each MAC address ──▶ container   address, default route
//!                 │
//!                 ├── client    pure: discovery, renewal, release
//!                 │     ├── message
//!                 │     └── frame     Ethernet, IPv4 and UDP around it
//!                 └── lease     what was granted, and as the message for the caller
//! ```

mod client;
mod container;
mod frame;
mod keeper;
mod lease;
mod message;

pub use client::fuzz;
pub(crate) use container::default_route;
pub(super) use keeper::Keeper;
pub(super) use message::Identity;
