//! The commands: `slipway` with its own sub-commands, and the drop-in names that container engines spawn.
//!
//! One binary answers to all names. Which personality it is follows from the last part of `argv[0]`; under any other
//! name than those it replaces, it is `slipway`, which takes the drop-in names as sub-commands too.
//!
//! ```text
//! main.rs          nothing but main
//! lib.rs           this page; personality choice
//! flags/           getopt_long and the option tables of the drop-in names; usage texts
//! slirp4netns/     args -> config -> run
//! cli.rs           the command line of slipway itself
//! commands/        run, attach, uplink
//! uplink/          the process behind networks of containers in another namespace
//! rootlessport.rs  the port helper of Podman, for those containers
//! serve.rs         the loop that every command ends up in, and its end; names.rs: the resolver behind the DNS address
//! tuning.rs        what the environment sets
//! docs/            man pages and completions, from the same tables, written when it is called slipway-pages
//! ```

pub mod cli;
pub mod commands;
pub mod docs;
pub mod fds;
pub mod flags;
pub mod logging;
mod names;
pub mod pid_file;
pub mod rootlessport;
pub mod serve;
pub mod slirp4netns;
pub mod tuning;
pub mod uplink;

pub use slipway_host::words;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// The commit that was built, as far as the build knew it: set `SLIPWAY_COMMIT` when compiling.
pub const COMMIT: &str = match option_env!("SLIPWAY_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

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
