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
//! commands/        run, attach
//! docs/            man pages and completions, from the same tables
//! ```

pub mod cli;
pub mod docs;
pub mod flags;
pub mod slirp4netns;

/// The commit that was built, as far as the build knew it: set `SLIPWAY_COMMIT` when compiling.
pub const COMMIT: &str = match option_env!("SLIPWAY_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
