//! The pure engine of slipway: Ethernet frames in, Ethernet frames out, wishes to host sockets out.
//!
//! ```text
//!        guest                         engine                                  host
//!   ┌────────────┐   frame   device → ethernet → ip → transport → upstream   ┌─────────┐
//!   │ container, │ ────────▶                              │                  │ sockets │
//!   │ virtual    │                                     within                │ (crate  │
//!   │ machine    │ ◀────────  (DHCP, RA, DNS address, gateway: we answer)    │  host)  │
//!   └────────────┘   frame                                                   └─────────┘
//! ```
//!
//! The folders are the data path and sort in path order; the files beside them are the supporting cast. One folder
//! stands apart: [`dhcp_client`], the other side of a server that is played within, for who wants an address himself.
//! There is no I/O here, no clock, no randomness, no unsafe code: frames, events and time are arguments
//! of the verbs of [`Engine`], sockets are the trait [`upstream::Upstream`], the link is [`device::Device`].
//! The same engine runs under the event loop of the `host` crate, the simulator and the fuzzer.
//!
//! Vocabulary. *Guest*: what is behind the device. *Upstream*: real host sockets. *Within*: servers that the
//! stack itself plays. *Flow*: one conversation, with two *sides*. *Frame* is L2, *packet* L3,
//! *segment* or *datagram* L4.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![warn(clippy::indexing_slicing)]

pub mod addr;
mod bytes;
pub mod checksum;
pub mod clock;
pub mod config;
pub mod counters;
pub mod device;
pub mod dhcp_client;
pub mod drop_reason;
pub mod engine;
pub mod ethernet;
mod flow;
pub(crate) mod frame;
mod headers;
pub mod ip;
pub mod listing;
mod schedule;
pub mod surely;
#[cfg(test)]
mod testing;
pub mod token_bucket;
pub mod transport;
pub mod upstream;
pub mod within;

pub use clock::Instant;
pub use config::Config;
pub use engine::Engine;
pub use flow::FlowId;
