//! The testkit: simulator, fake guests and hosts, network namespaces.
//!
//! The simulator runs the real engine under a virtual clock: [`world::World`] is the event loop, [`link::Link`] the
//! wire to the guest, [`upstream::Host`] the host's sockets and the servers behind them, and the guest is smoltcp
//! ([`guest::SmolGuest`]) or driven by hand, field by field ([`raw_guest::RawGuest`]).
//! Everything is decided by a seed: the same seed gives the same run.

#![forbid(unsafe_code)]

pub mod fuzz;
pub mod guest;
pub mod link;
pub mod offload;
pub mod packet;
pub mod pattern;
pub mod pump;
pub mod raw_guest;
pub mod rng;
pub mod throughput;
pub mod upstream;
pub mod watch;
pub mod world;
