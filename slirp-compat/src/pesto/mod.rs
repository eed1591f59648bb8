//! `pesto`: shows and changes the forwarding rules of a running `pasta`, ours or the original.
//!
//! The command line and all texts are the original's; the protocol is [`slipway_portfwd::api::pesto`]. Podman starts it
//! for each container whose ports it publishes through pasta. What the original does not do: it waits until the server
//! has looked at the change, and where the server says what came of it (ours does), a change that failed is said in
//! words and makes the exit code 1.

pub mod args;
pub mod change;

use crate::flags;
use args::{Args, Stop, TABLE};
use change::Tables;
use slipway_host::ports::ephemeral_range;
use slipway_portfwd::api::pesto::client::{Client, Remote};
use slipway_portfwd::api::pesto::wire::abilities;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// The release of passt whose command line and protocol this personality has.
pub const COMPATIBLE: &str = "2026_10_02";
/// How long a server may be silent. Others have their turn before us: each may take 10 s of it with our server.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `pesto` with these arguments.
#[must_use]
pub fn main(program: &str, args: &[OsString]) -> ExitCode {
    let stop = match args::parse(args) {
        Ok(args) => {
            return match run(&args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(text) => {
                    complain(&text);
                    ExitCode::FAILURE
                }
            };
        }
        Err(stop) => stop,
    };
    match stop {
        Stop::Help => say(&flags::usage::text(&TABLE, program)),
        Stop::Version => {
            say(&format!("pesto {COMPATIBLE}.slipway-{}\n", env!("CARGO_PKG_VERSION")));
        }
        Stop::Usage(diagnostic) => {
            if let Some(line) = diagnostic {
                complain(&format!("{program}: {line}"));
            }
            complain(flags::usage::text(&TABLE, program).trim_end());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Whoever does not read what we say does not want to know.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn run(args: &Args) -> Result<(), String> {
    let client = Client::connect(&args.path, PATIENCE).map_err(|error| error.to_string())?;
    if args.debug {
        complain("Connected to passt/pasta control socket");
        client.tables().iter().for_each(explain);
    }
    let mut tables = Tables::new(client.tables().to_vec(), ephemeral_range());
    let path = args.path.display();
    if args.steps.is_empty() {
        say(&format!("passt/pasta configuration ({path})\n{}", tables.shown()));
        return Ok(());
    }
    if args.show {
        say(&format!("Previous configuration ({path})\n{}", tables.shown()));
    }
    let done = tables.apply(&args.steps);
    tables.warnings.iter().for_each(|warning| complain(warning));
    done.map_err(|error| error.to_string())?;
    match client.replace(&tables.to_send()).map_err(|error| error.to_string())? {
        Some(status) if !status.done => return Err(status.text),
        Some(status) if !status.text.is_empty() => complain(&status.text),
        _ => {}
    }
    if args.show {
        say(&format!("Updated configuration ({path})\n{}", tables.shown()));
    }
    Ok(())
}

/// One of the server's tables, for people.
fn explain(table: &Remote) {
    let can = table.head.can;
    let names = [
        (can.ipv4, "IPv4"),
        (can.ipv6, "IPv6"),
        (can.tcp, "TCP"),
        (can.udp, "UDP"),
        (can.scan, "scan"),
        (can.interface, "ifname"),
    ];
    let names: Vec<_> = names.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
    let (place, name, count) = (table.head.place, &table.head.name, table.head.count);
    let bits = abilities(can);
    complain(&format!("PIF {place}: {name}, {count} rules, capabilities {bits:#x}: {}", names.join(" ")));
}
