//! `slipway net`: a named network by hand, and namespaces that join it. What otherwise takes ten commands of ip(8) and
//! nft(8).
//!
//! ```text
//!   up NAME NAMESPACE ──▶ cli ──▶ definition: the one on record, or a new one (definition)
//!                                 member.rs: which namespace; address.rs: which addresses
//!                                      │
//!                                      ▼
//!                         the request of a container engine ──▶ commands::setup, teardown
//! ```
//! It is the caller that a container engine is otherwise: it completes definitions, gives out addresses, and remembers
//! (state.rs) who is on which network, so that `down` needs nothing but a name. All that is done to the system is done
//! by the same code as for containers; `--dry-run` prints the steps instead.
//!
//! A record is written before anything is touched and removed after everything is gone: whatever stops us in between,
//! `down` cleans up. One call runs at a time, by a lock on the directory of the records.

mod address;
pub mod cli;
mod down;
mod member;
pub mod ports;
mod show;
mod state;
mod up;

use crate::cli::{DNS_SERVER, Global};
use crate::error::Result;
use crate::logging;
use clap::Parser as _;
use cli::{Cli, Command};
use slipway_host::{environment, user};
use state::Records;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The name under which the program is `slipway net`.
pub const PROGRAM: &str = "slipway-net";

/// Where records are kept when we are root.
const DIRECTORY: &str = "/run/slipway/net";

/// Plays `slipway net`, and returns the exit status: 2 for wrong usage, 1 for everything else that fails.
#[must_use]
pub fn main(argv: &[OsString]) -> ExitCode {
    let cli = match Cli::try_parse_from(argv) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done when even that cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    logging::init(environment::variable("RUST_LOG").as_ref().and_then(|filter| filter.to_str()));
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "slipway net: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let rootless = !user::is_root_of_the_machine();
    let directory = cli.state.map_or_else(|| directory(rootless), PathBuf::from);
    let surroundings = Surroundings { rootless, directory: &directory, firewall: cli.firewall };
    match cli.command {
        Command::Show { name, json } => show::run(&Records::look(&directory), name.as_deref(), json),
        Command::Up(up) => up::run(&surroundings, &up),
        Command::Down(down) => down::run(&surroundings, &down),
    }
}

/// What a call takes for given.
#[derive(Debug)]
struct Surroundings<'a> {
    rootless: bool,
    directory: &'a Path,
    firewall: Option<String>,
}

impl Surroundings<'_> {
    /// The options that a container engine would give.
    fn global(&self) -> Global {
        Global {
            file: None,
            firewall_driver: self.firewall.clone(),
            config: Some(self.directory.join("run").into_os_string()),
            rootless: self.rootless,
            aardvark_binary: dns_server(),
            plugin_directories: Vec::new(),
        }
    }
}

/// The DNS server: the one installed beside us, or the usual one.
fn dns_server() -> OsString {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("aardvark-dns"));
    beside.filter(|path| path.is_file()).map_or_else(|| DNS_SERVER.into(), PathBuf::into_os_string)
}

fn directory(rootless: bool) -> PathBuf {
    let runtime = user::runtime_directory().filter(|_| rootless);
    runtime.map_or_else(|| DIRECTORY.into(), |dir| dir.join("slipway/net"))
}
