//! The network of virtual machine hosts: `gvproxy`.
//!
//! A program of its own: an HTTP server and an SSH client are linked with nothing else of ours. Which personality it
//! plays follows from the last part of `argv[0]`.
//!
//! ```text
//! config      what a start was asked for, valid and complete; plain data that everything below is made from
//! network     addresses, names and leases: from the configuration to engine and zones
//! orders      what the control process asks of the one that carries packets, and how that carries it out
//! control     the control process: HTTP API, notifications, SSH forwards
//! ```
//! Two processes: one carries packets and is as shut in as those of other personalities, the other talks to whoever
//! gives orders. If the second fails, packets flow on.

#![forbid(unsafe_code)]

pub mod config;
pub mod control;
pub mod network;
pub mod orders;

use std::ffi::OsString;
use std::process::ExitCode;

/// Plays the personality that the first word of `argv` names.
#[must_use]
pub fn main(argv: &[OsString]) -> ExitCode {
    let _ = argv;
    ExitCode::FAILURE
}
