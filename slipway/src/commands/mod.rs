//! `slipway run` and `slipway attach`: networks for people. ([`uplink`] is one for container engines.)
//!
//! [`mod@network`] turns the options that both share into what the engine and the interface are told; [`run`] and
//! [`attach`] make or enter the namespaces, put the engine to work ([`slipway_runtime::serve`]) and end as they
//! promise. Whatever goes wrong before that ends in one line on stderr that says what to do.

pub mod attach;
mod net;
pub mod network;
pub mod run;
pub mod uplink;

use crate::cli::{Cli, Command, NetworkArgs};
use clap::Parser as _;
use clap::error::ErrorKind;
use log::LevelFilter;
use network::Network;
use slipway_host::device::Link;
use slipway_host::netlink::Netlink;
use slipway_host::netns::{Configure, Setup, Side};
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::strerror::words;
use slipway_runtime::logging::tell;
use slipway_runtime::report;
use slipway_runtime::serve::Session;
use slipway_runtime::start::{Confinement, Nameservers, Rights};
use slirp_compat::{pasta, pesto, slirp4netns};
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;

/// The exit code of `run` when slipway itself failed, as container tools have it.
const OWN_FAILURE: u8 = 125;
/// The exit code of the other commands for a command line that cannot be understood.
const USAGE: u8 = 2;

/// Runs `slipway` with the command line `argv`.
#[must_use]
pub fn main(argv: &[OsString]) -> ExitCode {
    let cli = match Cli::try_parse_from(argv) {
        Ok(cli) => cli,
        Err(error) => return refuse(argv, &error),
    };
    match cli.command {
        Command::Run(args) => run::main(&args),
        Command::Attach(args) => attach::main(&args),
        Command::Uplink(args) => uplink::main(&args),
        // The caller has looked for it already; this is for options in front of the word.
        Command::Net { args } => net::main(&args),
        Command::Slirp4netns { args } => slirp4netns::run::main("slipway slirp4netns", &args),
        Command::Pasta { args } => pasta::run::main("slipway pasta", &args),
        Command::Passt { args } => pasta::run::main("slipway passt", &args),
        Command::Pesto { args } => pesto::main("slipway pesto", &args),
        Command::Version => {
            let _ = writeln!(
                std::io::stdout(),
                "slipway {} (commit {})",
                env!("CARGO_PKG_VERSION"),
                slipway_runtime::COMMIT
            );
            ExitCode::SUCCESS
        }
    }
}

/// Help, version, or a complaint about the command line.
fn refuse(argv: &[OsString], error: &clap::Error) -> ExitCode {
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ if argv.get(1).is_some_and(|word| word == "run") => ExitCode::from(OWN_FAILURE),
        _ => ExitCode::from(USAGE),
    }
}

/// One line about what went wrong, on stderr.
fn complain(problem: &dyn Display) {
    tell(&format!("slipway: {problem}\n"));
}

/// The network that `args` describe.
fn network(args: &NetworkArgs) -> Result<Network, network::Error> {
    Network::new(args, &|name, ipv6| {
        Netlink::open().and_then(|mut netlink| netlink.first_address(name, ipv6)).ok()
    })
}

/// What the interface in the namespace is given.
fn configuration(network: &Network) -> Setup {
    let v4 = network.v4.map(|v4| Side {
        address: ipnet::Ipv4Net::new(v4.guest, v4.network.prefix_len()).unwrap_or(v4.network),
        gateway: v4.gateway,
    });
    let v6 = network.v6.map(|v6| Side {
        address: v6
            .guest
            .and_then(|guest| ipnet::Ipv6Net::new(guest, v6.network.prefix_len()).ok())
            .unwrap_or(v6.network),
        gateway: v6.gateway,
    });
    Setup::Configure(Configure { mtu: network.mtu, mac: None, v4, v6 })
}

/// Puts the engine to work on `link`: ports published, API socket open.
fn session(args: &NetworkArgs, network: &Network, link: Link) -> Result<Session, String> {
    let link = match &args.pcap {
        None => link,
        Some(path) => File::create(path)
            .and_then(|file| link.captured(file))
            .map_err(|error| format!("cannot record frames in {}: {}", path.display(), words(&error)))?,
    };
    let opened = Session::open(link, network.mac, |machine| network.engine(&machine));
    let mut session = opened.map_err(|error| error.to_string())?;
    for rule in &args.publish {
        session.publish(*rule).map_err(|error| error.to_string())?;
    }
    if !args.quiet {
        report::ports(session.table(), args.verbose > 0);
    }
    if let Some(path) = &args.api_socket {
        session.open_api(path, report::api).map_err(|error| error.to_string())?;
    }
    Ok(session)
}

/// How much is told on stderr.
fn log_level(quiet: bool, verbose: u8) -> LevelFilter {
    match verbose {
        _ if quiet => LevelFilter::Error,
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    }
}

/// Finds the nameservers, those of `--dns` or those of the host, and gives up what is not needed any more.
fn shut_in(session: &mut Session, network: &Network, calls: Profile) -> Result<(), String> {
    let names = match &network.nameservers[..] {
        _ if network.dns().is_empty() => Nameservers::Nobody,
        [] => Nameservers::Hosts,
        servers => Nameservers::These(servers),
    };
    let confinement = Confinement { rights: Rights::Dropped, names, calls: Some(calls) };
    session.shut_in(&confinement).map_err(|error| error.to_string())
}
