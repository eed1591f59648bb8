//! Addresses from a DHCP server of the network itself, for macvlan and for bridges that others manage.
//!
//! A lease must be renewed as long as the container lives, but the set-up ends at once. So a *proxy* (`netavark
//! dhcp-proxy`) holds the leases, and the set-up asks it over a Unix socket:
//!
//! ```text
//!   setup, teardown ── proxy::client ──gRPC──▶ proxy::service ──▶ v4::keeper, v6::keeper ──▶ target     opener
//!                                                │                  │  one for each MAC      (the interface in
//!                                                ▼                  │  address               the container)
//!                                         proxy::lease_file         ├── client    pure: the protocol, without I/O; that of v4
//!                                                                   │             is slipway_netstack::dhcp_client
//!                                                                   └── drive     runs it
//!                                                                         ├── link    packet socket on the host's interface
//!                                                                         └── timer   a clock that goes on in suspend
//! ```
//! A network that wants both versions of IP has a call made for each. In every folder `client` is the client of the
//! protocol that the folder is about.
//!
//! Only the proxy, and a call of [`proxy::client`], have a runtime; it has one thread.

pub(crate) mod async_fd;
mod drive;
mod keeping;
mod link;
pub(crate) mod opener;
pub mod proxy;
pub(crate) mod target;
mod timer;
pub(crate) mod v4;
mod v6;

pub use v6::{fuzz_advert, fuzz_replies};
