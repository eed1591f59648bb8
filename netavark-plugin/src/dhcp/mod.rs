//! Addresses from a DHCP server of the network itself, for macvlan and for bridges that others manage.
//!
//! A lease must be renewed as long as the container lives, but the set-up ends at once. So a *proxy* (`netavark
//! dhcp-proxy`) holds the leases, and the set-up asks it over a Unix socket:
//!
//! ```text
//!   setup, teardown ── client ──gRPC──▶ service ──▶ keeper, one for each MAC address ──▶ container
//!                                          │           │                                  address, route
//!                                          ▼           ├── machine   pure: DORA, renewal, release
//!                                        cache         │     └── message, frame, lease                  opener
//!                                        (file)        └── drive     runs a machine
//!                                                            ├── link    packet socket on the host's interface
//!                                                            └── timer   a clock that goes on in suspend
//! ```
//! This is IPv4. A network that wants IPv6 too has a second call made, for which [`v6`] stands in the keeper's place.
//!
//! Only the proxy, and a call of [`client`], have a runtime; it has one thread.

mod cache;
pub mod client;
pub(crate) mod container;
mod drive;
mod frame;
mod keeper;
mod lease;
mod link;
mod machine;
mod message;
pub(crate) mod opener;
pub(crate) mod ready;
pub(crate) mod service;
mod timer;
mod v6;

pub use machine::fuzz;
pub use v6::{fuzz_advert, fuzz_replies};
