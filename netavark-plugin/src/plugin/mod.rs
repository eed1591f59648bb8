//! The plugin role: this program as the network driver `slipway` of any netavark. Protocol version 1.0.0.
//!
//! ```text
//!            containers                        the network's namespace           the host's, elsewhere
//!   eth0 ──veth── ┐
//!   eth0 ──veth── ┼─ bridge ── TAP ═══════════ its descriptor ═════════════════ slipway uplink
//!                                                                               stack, sockets, names, ports
//! ```
//! The bridge joins the containers of one network and no more: it has no address, there are no firewall rules. The
//! gateway that containers send to is the stack of `slipway uplink`, a program that the user has running, reached
//! through a Unix socket. That works without root: a rootless engine runs us inside a namespace from which the host's
//! network is out of reach, and the uplink stands outside of it.
//!
//! ```text
//!   JSON ──▶ request ──▶ setup, teardown ──▶ plan::switch ──▶ apply
//!                              ├──▶ uplink    names, the TAP, published ports
//!                              └──▶ record    who is on the network, for an uplink that was started anew
//!   JSON ──▶ create            definition, with our own choices
//! ```
//! A call is made for one container on one network. It prints one JSON document; after an error an object with the
//! error, and exit status 1.

mod create;
#[cfg(test)]
mod fake;
mod record;
mod request;
mod setup;
mod surroundings;
mod teardown;
#[cfg(test)]
mod tests;
pub mod uplink;
mod used;

pub use crate::driver::external::PROGRAM;
pub use create::fuzz as fuzz_create;
pub use request::fuzz as fuzz_request;

use crate::error::{Error, Result};
use crate::logging;
use crate::output::print;
use serde::Serialize;
use slipway_host::environment;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Which call of the protocol this is, for those who ask.
#[derive(Serialize)]
struct Info {
    version: &'static str,
    api_version: &'static str,
}

/// Plays the driver, and returns the exit status.
#[must_use]
pub fn main(argv: &[OsString]) -> ExitCode {
    logging::init(environment::variable("RUST_LOG").as_ref().and_then(|filter| filter.to_str()));
    match run(argv.get(1..).unwrap_or_default()) {
        Ok(answer) => {
            if let Some(line) = answer {
                print(&line);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            print(&error.to_json());
            ExitCode::FAILURE
        }
    }
}

/// The answer to a call; a teardown has none.
fn run(words: &[OsString]) -> Result<Option<String>> {
    let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
    let (command, rest) = words.split_first().map_or((None, &[][..]), |(first, rest)| (first.to_str(), rest));
    match (command, rest) {
        (None | Some("info"), []) if words.len() <= 1 => {
            let info = Info { version: env!("CARGO_PKG_VERSION"), api_version: "1.0.0" };
            Ok(Some(serde_json::to_string(&info)?))
        }
        (Some("create"), []) => Ok(Some(serde_json::to_string(&create::run()?)?)),
        (Some("setup"), [namespace]) => Ok(Some(serde_json::to_string(&setup::run(Path::new(namespace))?)?)),
        (Some("teardown"), [namespace]) => teardown::run(Path::new(namespace)).map(|()| None),
        _ => Err(Error::msg(
            "this is the network driver \"slipway\" of netavark: create, setup NETNS, teardown NETNS, or info; \
             the program for people is the other slipway",
        )),
    }
}
