//! The personalities `pasta` and `passt`: what Podman, RootlessKit, QEMU and libvirt start under those names.
//!
//! `pasta` serves a guest in a network namespace, `passt` a virtual machine; they are one program with one list of
//! options. The outside is a contract: options, streams, exit codes, messages. Its pieces, in the order in which a
//! start goes through them:
//!
//! - [`table`]: the options;
//! - [`args`]: the words of the command line into [`args::LowArgs`], from left to right; [`values`] reads each;
//! - [`config`]: those into a [`config::Config`] of valid types, with every check and its exact message; [`guest`] is
//!   where the guest is, [`world`] what is asked;
//! - [`usage`]: the texts of `--help`, `--version` and `--print-capabilities`;
//! - [`run`]: what happens then; `namespace` and `machine` serve the one and the other guest, from what they have in
//!   common (`begin`); `network` is what of it concerns addresses, `said` what `--debug` says of it.

pub mod args;
mod begin;
pub mod config;
mod guest;
mod machine;
mod namespace;
mod network;
pub mod run;
mod said;
mod stop;
pub mod table;
pub mod usage;
mod values;
pub mod world;

use crate::flags::getopt::{Getopt, Item, Order};
use args::Stop;
use config::{Config, World};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use table::{FLAGS, Key};

/// Which of the two names it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The guest is a network namespace.
    Pasta,
    /// The guest is a virtual machine.
    Passt {
        /// Which shares its memory with us.
        vhost_user: bool,
    },
}

impl Mode {
    /// What `argv[0]` and `--vhost-user` among the options say; `None` for a name that contains neither `pasta` nor
    /// `passt`.
    #[must_use]
    pub fn of(program: &str, args: &[OsString]) -> Option<Self> {
        let name =
            Path::new(program).file_name().map_or_else(|| program.into(), |name| name.to_string_lossy());
        let vhost_user = Getopt::new(FLAGS, Order::StopAtPositional, args)
            .take_while(|item| !matches!(item, Ok(Item::Positional(_))))
            .any(|item| matches!(item, Ok(Item::Flag(flag, _)) if flag.key == Key::VhostUser));
        match (name.contains("pasta"), name.contains("passt")) {
            (false, false) => None,
            (true, _) if !vhost_user => Some(Self::Pasta),
            _ => Some(Self::Passt { vhost_user }),
        }
    }

    /// The name in texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Passt { .. } => "passt",
        }
    }
}

/// Reads the command line `args` of `program`. Warnings, for stderr, are pushed to `notices`, also when it fails.
///
/// # Errors
/// [`Stop`]; see [`tell`].
pub fn read(
    program: &str,
    args: &[OsString],
    notices: &mut Vec<String>,
    world: &dyn World,
) -> Result<Config, Stop> {
    let Some(mode) = Mode::of(program, args) else {
        return Err(Stop::Value("Cannot determine mode, invoke as \"passt\" or \"pasta\"".to_owned()));
    };
    Config::new(mode, args::parse(mode, program, args, notices)?, notices, world)
}

/// Says why there is nothing to run, and gives the exit code. What somebody asked for goes to stdout, a complaint to
/// stderr.
#[must_use]
pub fn tell(stop: &Stop, program: &str, args: &[OsString]) -> ExitCode {
    let mode = Mode::of(program, args).unwrap_or(Mode::Pasta);
    let (text, good) = match stop {
        Stop::Help => (usage::help(program, mode), true),
        Stop::Version => (usage::version(mode), true),
        Stop::Capabilities => (usage::CAPABILITIES.to_owned(), true),
        Stop::Usage(line) => (format!("{line}\n{}", usage::help(program, mode)), false),
        Stop::Value(lines) => (format!("{lines}\n"), false),
    };
    // Waits for the reader; that nobody reads is no reason to fail otherwise.
    if good {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        return ExitCode::SUCCESS;
    }
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
    ExitCode::FAILURE
}
