//! `gvforwarder`: the guest's end of a network of gvproxy's, where a hypervisor has no network card for it. It runs in
//! the guest, as root.
//!
//! ```text
//!   guest's kernel ── TAP ── relay ── stream (vsock, Unix socket, a program's standard streams) ── gvproxy
//!                      └── dhcp: address, routes, MTU, resolv.conf
//!
//! args       the flags
//! dial       where gvproxy is, and the way there
//! interface  the TAP
//! relay      frames between both
//! dhcp       an address for the interface
//! program    programs that are started: a DHCP client, whoever carries frames
//! confine    what is given up once the first connection stands
//! run        one connection after the other
//! ```
//! It never gives up: what fails is told, and tried again a second later, until a signal ends it.
//!
//! Contract: gvproxy §12.

mod args;
mod confine;
mod dhcp;
mod dial;
mod interface;
mod program;
mod relay;
mod run;

pub(crate) use args::{FLAGS, Key};

use crate::begin::{self, VERSION};
use crate::logrus::{self, Grade};
use args::Args;
use log::{Level, LevelFilter};
use run::Forwarder;
use slipway_host::netlink::Netlink;
use slipway_host::sandbox::tracers;
use slipway_host::sys::proc::close_inherited;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Its names: the one of today, and the one of old.
pub(crate) const NAMES: [&str; 2] = ["gvforwarder", "vm"];

/// Runs `gvforwarder` with these words; `program` is how it was called.
#[must_use]
pub fn main(program: &str, words: &[OsString]) -> ExitCode {
    let args = match Args::parse(words) {
        Ok(args) => args,
        Err(stop) => return begin::explain(FLAGS, program, &stop),
    };
    if args.version {
        let _ = writeln!(io::stdout(), "gvforwarder version {VERSION}");
        return ExitCode::SUCCESS;
    }
    if let Err(error) = close_inherited(None) {
        log::debug!("what was open stays open: {error}");
    }
    let level = if args.debug { LevelFilter::Debug } else { LevelFilter::Info };
    // Without a file there is nothing to fail.
    let _ = logrus::open(level, None);
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            logrus::say(Grade::Fatal, &why);
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Args) -> Result<(), String> {
    let there = Netlink::open().and_then(|mut netlink| netlink.interfaces());
    let names: Vec<_> = there.map_err(|error| error.to_string())?.into_iter().map(|link| link.name).collect();
    if let Some(name) = args.prevented_by(&names) {
        log::info!("interface {name} prevented this program to run");
        return Ok(());
    }
    if let Err(error) = tracers::keep_out() {
        log::warn!("a stage of the sandbox is left out: {error}");
    }
    let mut forwarder = Forwarder::new(args).map_err(|error| error.to_string())?;
    forwarder.run();
    logrus::say(Grade::Of(Level::Info), "signal caught");
    Ok(())
}
