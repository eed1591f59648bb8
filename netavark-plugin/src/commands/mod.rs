//! The commands: who decides in which order things happen.
//!
//! On success a command prints its answer ([`crate::output`]) and nothing on stderr.

mod create;
mod dhcp_proxy;
mod firewall_reload;
mod firewalld_reload;
mod join;
pub(crate) mod setup;
pub(crate) mod teardown;
mod update;
mod version;

use crate::cli::{Cli, Command, Global};
use crate::error::{Error, Result};
use slipway_host::environment;
use std::ffi::OsString;
use std::path::PathBuf;

/// Does what the command line says.
///
/// # Errors
/// The text for the caller.
pub fn run(cli: Cli) -> Result<()> {
    let Cli { mut global, command } = cli;
    global.firewall_driver = global.firewall_driver.or_else(firewall_of_environment);
    match command {
        Command::Setup(namespace) => setup::run(&global, &namespace.netns_path),
        Command::Teardown(namespace) => teardown::run(&global, &namespace.netns_path),
        Command::Update(update) => update::run(&global, &update),
        Command::Create => create::run(&global),
        Command::Version => version::run(),
        Command::DhcpProxy(options) => dhcp_proxy::run(&options),
        Command::FirewallReload => firewall_reload::run(&global),
        Command::FirewalldReload => firewalld_reload::run(&global),
    }
}

fn firewall_of_environment() -> Option<String> {
    let value = environment::variable("NETAVARK_FW").filter(|value| !value.is_empty())?;
    Some(value.to_string_lossy().into_owned())
}

/// The run directory, which `command` cannot do without.
fn config_dir(global: &Global, command: &str) -> Result<PathBuf> {
    let required = || Error::msg(format!("--config not specified but required for netavark {command}"));
    global.config.as_ref().map(PathBuf::from).ok_or_else(required)
}

/// The port of the DNS server, from the environment.
fn dns_port() -> Result<u16> {
    let value: Option<OsString> = environment::variable(crate::dns_handover::PORT_VARIABLE);
    crate::dns_handover::port(value.as_deref())
}
