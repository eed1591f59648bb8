//! Asks a DHCP proxy by hand and prints the lease, for tests: `[--uds SOCKET] [-f FILE] setup|teardown`. The request is
//! JSON with the names of the .proto file, from FILE or standard input.

#![forbid(unsafe_code)]

use clap::{Parser, ValueEnum};
use slipway_netavark::dhcp::proxy::client::{self, Call};
use slipway_netavark::proto::NetworkConfig;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(about = "Ask the DHCP proxy by hand")]
struct Arguments {
    /// The proxy's socket
    #[arg(short, long, value_name = "SOCKET", default_value = client::SOCKET)]
    uds: PathBuf,
    /// Read the request from this file instead of standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What to ask for
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Command {
    Setup,
    Teardown,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(lease) => {
            println!("{lease}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> slipway_netavark::Result<String> {
    let mut text = String::new();
    match &arguments.file {
        Some(path) => text = std::fs::read_to_string(path)?,
        None => {
            std::io::stdin().read_to_string(&mut text)?;
        }
    }
    let config: NetworkConfig = serde_json::from_str(&text)?;
    let call = match arguments.command {
        Command::Setup => Call::Setup,
        Command::Teardown => Call::Teardown,
    };
    Ok(serde_json::to_string_pretty(&client::call(call, &arguments.uds, config)?)?)
}
