//! The client's side of DHCP (RFC 2131), for whoever wants an address of a network: containers on a network of somebody
//! else's, machines of a hypervisor.
//!
//! ```text
//!   client      discovery, renewal, release: frames and time in, frames and events out
//!     ├── message     the messages; `search` reads names in them
//!     └── frame       Ethernet, IPv4 and UDP around them
//!   lease       what was granted
//!   machine     what clients of every version of IP have in common
//!   split_mix   numbers that differ from client to client
//! ```
//! No I/O and no clock: whoever drives it has a socket and waits.

mod client;
mod frame;
mod lease;
mod machine;
mod message;
mod search;
mod split_mix;

pub use client::{Client, Event, fuzz};
pub use lease::{Lease, Times};
pub use machine::{Loss, Machine, Step};
pub use message::Identity;
pub use split_mix::Random;
