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
//! What has come up is announced on its link (`announce`); what the dead have left is told from what the living have
//! (`living`); `docs` has the man pages. [`net`] and [`plugin`] are the program under other names: networks by hand,
//! and the network driver `slipway`. The commands ([`commands`]) decide the order of things; [`error`] has the words of
//! failure, [`logging`] the form of log lines.

#![forbid(unsafe_code)]

mod announce;
pub mod apply;
pub mod cli;
pub mod commands;
pub mod definition;
pub mod dhcp;
pub mod dns_handover;
mod docs;
pub mod driver;
pub mod error;
pub mod firewall;
pub mod fuzz;
mod input;
mod ipv6_frame;
mod living;
pub mod logging;
pub mod namespaces;
pub mod net;
mod output;
pub mod plan;
pub mod plugin;
pub mod proto;
mod rfc3339;
mod signals;
pub mod spec;
#[cfg(test)]
mod testing;

pub use error::{Context, Error, Errors, Result};

use slipway_host::environment;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Plays `netavark` with the words of a command line (or `slipway net`, or the network driver `slipway` of another
/// netavark, if that is its name), and returns the exit status: 2 for wrong usage, 1 (and an object with the error on
/// standard output) for everything else that fails.
#[must_use]
pub fn main(argv: &[OsString]) -> ExitCode {
    match argv.first().and_then(|name| Path::new(name).file_name()).and_then(OsStr::to_str) {
        Some(net::PROGRAM) => return net::main(argv),
        Some(slipway_manual::PROGRAM) => return docs::manual().main(argv.get(1..).unwrap_or_default()),
        Some(plugin::PROGRAM) => return plugin::main(argv),
        _ => {}
    }
    let cli = match cli::Cli::read(argv) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done when even that cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    logging::init(environment::variable("RUST_LOG").as_ref().and_then(|filter| filter.to_str()));
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print(&error.to_json());
            ExitCode::FAILURE
        }
    }
}
