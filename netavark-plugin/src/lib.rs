//! Container network set-up: what container engines call `netavark` for.
//!
//! ```text
//!   JSON ──▶ spec ──▶ driver ──▶ plan ──▶ apply ──▶ kernel (netlink)
//!             types    one per    pure     with an
//!             checked  network    steps    undo log
//!                        │
//!                        ├──▶ firewall       rules of the network, published ports
//!                        └──▶ dns_handover   names for the DNS server
//! ```
//! [`error`] has the words of failure.

#![forbid(unsafe_code)]

pub mod apply;
pub mod driver;
pub mod error;
pub mod firewall;
pub mod namespaces;
pub mod plan;
pub mod spec;

pub use error::{Context, Error, Errors, Result};
