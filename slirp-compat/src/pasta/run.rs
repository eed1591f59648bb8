//! `pasta` and `passt`: from the command line to whoever serves the guest ([`super::namespace`], [`super::machine`]).
//!
//! ```text
//! parse ─▶ background ─▶ template of the host's network ─▶ files ─▶ user ─▶ user namespace ─▶ TAP, configured by a child
//!       ─▶ engine and event loop ─▶ thread inside ─▶ ports ─▶ sandbox, nameservers, filters ─▶ PID file ─▶ exit 0
//! ```
//! Invariants: whatever can fail does so before the process in the foreground ends, with one line on stderr and exit
//! code 1; nothing that guests or clients send is looked at before the sandbox is up.

use super::config::{Config, Guest};
use super::world::System;
use slipway_host::strerror::words;
use slipway_host::sys::proc::close_inherited;
use slipway_runtime::background::{self, Tell};
use slipway_runtime::logging::journal;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `pasta` or `passt` with the arguments `args`; `program` is its name in messages, and says which it is.
#[must_use]
pub fn main(program: &str, args: &[OsString]) -> ExitCode {
    let mut notices = Vec::new();
    let config = super::read(program, args, &mut notices, &System);
    notices.iter().for_each(|notice| Tell::nobody().complain(notice));
    let config = match config {
        Ok(config) => config,
        Err(stop) => return super::tell(&stop, program, args),
    };
    if let Err(error) = close_inherited(config.fd) {
        log::debug!("what was open stays open: {error}");
    }
    if config.foreground {
        return ExitCode::from(start(&config, &mut Tell::nobody()));
    }
    background::leave(|tell| start(&config, tell)).unwrap_or_else(|error| {
        Tell::nobody().complain(&format!("cannot go to the background: {}", words(&error)));
        ExitCode::FAILURE
    })
}

/// Starts and serves; the exit code.
fn start(config: &Config, tell: &mut Tell) -> u8 {
    if let Err(line) = journal::open(&config.log()) {
        tell.complain(&line);
        return 1;
    }
    let done = match &config.guest {
        Guest::Namespace(guest) => super::namespace::serve(config, guest, tell),
        Guest::Machine(machine) => super::machine::serve(config, machine, tell),
    };
    done.unwrap_or_else(|line| {
        journal::keep(&line);
        tell.complain(&line);
        1
    })
}
