//! The program `slipway`: its own commands, and the choice among the drop-in names that it answers to.
//!
//! One binary answers to all names. Which personality it is follows from the last part of `argv[0]`; under any other
//! name than those it replaces, it is `slipway`, which takes the drop-in names as sub-commands too.
//!
//! ```text
//! main.rs     nothing but main
//! lib.rs      this page; personality choice
//! cli.rs      the command line of slipway itself
//! commands/   run, attach, uplink; net, which is handed on to another program
//! uplink/     the process behind networks of containers in another namespace
//! docs/       man pages and completions, from the same tables, written when it is called slipway-pages
//! ```

#![forbid(unsafe_code)]

pub mod cli;
pub mod commands;
pub mod docs;
pub mod uplink;

use slirp_compat::{rootlessport, slirp4netns};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Plays the part that `argv[0]` asks for, and returns the exit code.
#[must_use]
pub fn main(argv: &[OsString]) -> ExitCode {
    let program = argv.first().map_or_else(|| OsStr::new("slipway"), OsString::as_os_str);
    let args = argv.get(1..).unwrap_or_default();
    match Path::new(program).file_name().and_then(OsStr::to_str) {
        Some("slirp4netns") => return slirp4netns::run::main(&program.to_string_lossy(), args),
        Some(rootlessport::NAME) => return rootlessport::main(),
        Some(uplink::worker::NAME) => return uplink::worker::main(args),
        Some(slipway_manual::PROGRAM) => return docs::manual().main(args),
        _ => {}
    }
    // Not left to clap, which would have an opinion about its words.
    if let Some((first, rest)) = args.split_first()
        && first == "slirp4netns"
    {
        return slirp4netns::run::main(&format!("{} slirp4netns", program.to_string_lossy()), rest);
    }
    commands::main(argv)
}
