//! `slipway uplink`: one process of a user, in the host's network namespace, that is the way out for networks of
//! containers in another one.
//!
//! ```text
//!   host's network namespace                            │ the containers' (rootless) network namespace
//!                                                       │
//!   supervisor ◀────── socket: join, attach, leave ─────│── network plugin: bridge, veths, TAP (a port of the bridge)
//!     │    ▲            publish ◀── rootlessport        │      │
//!     │    └ records: networks, containers, ports       │      │
//!     ▼                                                 │      │
//!   worker, one for each network ◀══════════ TAP ═══════╪══════╯   gateway address, DNS; engine and host sockets
//! ```
//! Why a process for each network: what faces containers is confined by the sandbox of all other commands and shares no
//! memory with its neighbours, so a hostile container has its own network to lose and no more; a worker that dies is
//! started again on the same TAP; and the engine, its loop and its memory stay as they are for one link. The price is 1
//! to 2 MB for a network. The supervisor holds sockets and records and meets only programs of the same user, never a
//! frame. It executes nothing itself: that is for a process that meets nobody but the supervisor, which so can have a
//! sandbox of its own.
//!
//! Invariants. Nothing is polled: an idle uplink is never woken. The supervisor does one thing at a time, and a worker
//! answers it between two rounds of its loop. A request is carried out whole or not at all. Rules live until their
//! container has left, or their exit descriptor is closed. When the supervisor ends, however it ends, so do the
//! workers, and with them the TAPs.
//!
//! | module | what |
//! |---|---|
//! | [`slipway_uplink`] | a crate of its own: requests and replies, as valid types, and the client |
//! | [`door`] | where the uplink listens |
//! | [`records`] | who is on which network |
//! | [`orders`] | what the supervisor tells a worker |
//! | [`worker`] | the process of one network |
//! | [`names`] | what a network's containers are answered |
//! | [`ports`] | what a mapping of ports means |
//! | [`publications`] | ports in force, and what they hang on |
//! | [`networks`] | networks and their workers: what a request changes |
//! | [`starter`] | the process that executes workers |
//! | [`processes`] | workers as processes |
//! | [`supervisor`] | the loop: clients, signals, descriptors that end |
//!
//! docs/uplink.md is for those who speak with it.

pub mod door;
pub mod fuzz;
pub mod names;
pub mod networks;
pub mod orders;
pub mod ports;
pub mod processes;
pub mod publications;
pub mod records;
pub mod starter;
pub mod supervisor;
pub mod worker;
