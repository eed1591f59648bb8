//! IPv4 for containers whose addresses come from the network: by DHCP (RFC 2131).
//!
//! ```text
//!   service ──▶ keeper, one for each MAC address ──▶ container   address, default route
//!                 │
//!                 ├── slipway_netstack::dhcp_client    pure: discovery, renewal, release
//!                 └── lease     what was granted, as the message for the caller
//! ```

mod container;
mod keeper;
mod lease;

pub(crate) use container::default_route;
pub(super) use keeper::Keeper;
pub(super) use lease::to_message;
