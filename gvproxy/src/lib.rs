//! The network of virtual machine hosts: `gvproxy`, and its partner in the guest, `gvforwarder`.
//!
//! A program of its own: an HTTP server and an SSH client are linked with nothing else of ours. Which personality it
//! plays follows from the last part of `argv[0]`: `gvforwarder`, or `vm` as that was called before; `slipway-pages`
//! writes the man pages; any other name is `gvproxy`.
//!
//! ```text
//! flags, args  Go's rules for a command line; the table of gvproxy's flags
//! yaml         the configuration file
//! listen       URLs of sockets, and how they are listened at
//! config       what a start was asked for, valid and complete; plain data that everything below is made from
//! validate     from words and file to that
//! logrus       the shape of the log
//! begin, run   from the words to a configuration; from that to the end
//! hub          the network at work: session, names, guests
//! network      addresses, names and leases: from the configuration to engine and zones
//! orders       what the control process asks of the one that carries packets, and how that carries it out
//! control      the control process: HTTP API, notifications, SSH forwards
//! forwarder    gvforwarder
//! docs         man pages and completion
//! ```
//! gvproxy is two processes: one carries packets and is as shut in as those of other personalities, the other talks to
//! whoever gives orders, and to guests' SSH servers; a third, where one is wanted, has the keys for those. If the
//! second fails, packets flow on.

#![forbid(unsafe_code)]

pub mod args;
pub mod begin;
pub mod config;
pub mod control;
pub mod docs;
pub mod flags;
pub mod forwarder;
pub mod fuzz;
pub mod hub;
pub mod listen;
pub mod logrus;
pub mod network;
pub mod orders;
pub mod own;
pub mod run;
pub mod validate;
pub mod yaml;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Plays the personality that the first word of `argv` names.
#[must_use]
pub fn main(argv: &[OsString]) -> ExitCode {
    let (program, words) = match argv.split_first() {
        Some((program, words)) => (program.to_string_lossy().into_owned(), words),
        None => ("gvproxy".to_owned(), argv),
    };
    let name = Path::new(&program).file_name().unwrap_or_default();
    if name == slipway_manual::PROGRAM {
        return docs::manual().main(words);
    }
    if forwarder::NAMES.iter().any(|forwarder| name == *forwarder) {
        return forwarder::main(&program, words);
    }
    begin::main(&program, words)
}
