//! `slipway run`: a command in namespaces of its own, with a network, and its exit status as ours.
//!
//! The command begins when everything works and this process has dropped its privileges: ports are published, the
//! nameservers known. Signals that ask for the end are passed on to the command, which decides; those of the
//! terminal (Ctrl-C, Ctrl-\) reach it without us. When it ends, we do, and with us the namespace.

use super::{
    OWN_FAILURE, complain, configuration, drop_privileges, log_level, nameservers, network, report, session,
};
use crate::cli::RunArgs;
use crate::logging;
use crate::serve::{End, Session};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use slipway_host::netns::{self, Command, Identity, Outcome, Running, StartError};
use slipway_host::resolver::{self, ResolvConf};
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::signals::Signals;
use slipway_host::words::words;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

/// The command cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
const NOT_FOUND: u8 = 127;

/// One line, and the exit code that goes with it.
struct Failure(String, u8);

impl From<String> for Failure {
    fn from(line: String) -> Self {
        Self(line, OWN_FAILURE)
    }
}

/// Runs `slipway run`.
#[must_use]
pub fn main(args: &RunArgs) -> ExitCode {
    match start(args) {
        Ok(Outcome::Exited(status)) => ExitCode::from(status),
        Ok(Outcome::Signaled(signal)) => ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)),
        Err(Failure(line, code)) => {
            complain(&line);
            ExitCode::from(code)
        }
    }
}

fn start(args: &RunArgs) -> Result<Outcome, Failure> {
    logging::init(log_level(args.network.quiet, args.network.verbose));
    let network = network(&args.network).map_err(|error| error.to_string())?;
    // Caught before there is a child: no signal falls between.
    let asked = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGCHLD];
    let signals =
        Signals::catch(&asked).map_err(|error| format!("cannot catch signals: {}", words(&error)))?;
    let command = Command {
        words: if args.cmd.is_empty() { vec![shell()] } else { args.cmd.clone() },
        identity: if args.map_root { Identity::Root } else { Identity::Unchanged },
        hostname: args.hostname.clone(),
        resolv_conf: resolv_conf(&network.dns(), network.search.as_deref()),
        interface: args.network.ifname.clone(),
        configure: configuration(&network),
        inheritance: signals.inheritance(),
    };
    let (opened, mut running) = netns::spawn(&command).map_err(|error| error.to_string())?;

    let mut session = session(&args.network, &network, opened.tap.into())?;
    session
        .listen(signals)
        .and_then(|()| session.watch_target(running.watch()?))
        .map_err(|error| format!("cannot set up the event loop: {}", words(&error)))?;
    nameservers(&mut session, &network)?;
    drop_privileges(Profile::Parent)?;
    running.start().map_err(|error| cannot_start(&error))?;
    let outcome = serve(&mut session, running)?;
    if args.network.stats {
        let _ = std::io::stderr().write_all(report::counters(session.driver(), session.table()).as_bytes());
    }
    Ok(outcome)
}

/// Serves until the command ends.
fn serve(session: &mut Session, running: Running) -> Result<Outcome, Failure> {
    loop {
        match session.run() {
            Ok(End::Signal(signal @ (Signal::SIGTERM | Signal::SIGHUP))) => running.signal(signal),
            // SIGINT and SIGQUIT come from the terminal, which has sent them to the command as well. SIGCHLD is caught only
            // so that it is not ignored; the command's end is told by its pidfd.
            Ok(End::Signal(_) | End::Asked) => {}
            Ok(End::Target | End::ExitFd) => break,
            // The command may delete its interface; it runs on without network.
            Ok(End::Link(reason)) => complain(&format!("the interface is gone: {}", words(&reason))),
            Err(error) => {
                complain(&format!("the network has ended: {}", words(&error)));
                break;
            }
        }
    }
    running.wait().map_err(|error| Failure::from(format!("cannot wait for the command: {}", words(&error))))
}

fn cannot_start(error: &StartError) -> Failure {
    let code = match error {
        StartError::Exec { errno: Errno::ENOENT, .. } => NOT_FOUND,
        // exec says so too when it may not look into some directory of PATH.
        StartError::Exec { errno: Errno::EACCES, program } if !exists(program) => NOT_FOUND,
        StartError::Exec { .. } => NOT_EXECUTABLE,
        StartError::Gone(_) => OWN_FAILURE,
    };
    match error {
        StartError::Exec { program, .. } if code == NOT_FOUND => {
            Failure(format!("{program}: command not found (is it installed, and in PATH?)"), code)
        }
        _ => Failure(error.to_string(), code),
    }
}

/// Whether there is a file of this name where exec looks for it.
fn exists(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// What a terminal starts.
fn shell() -> OsString {
    std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into())
}

/// The text of resolv.conf(5) inside; `None` without nameserver. Search domains and options are the host's unless given.
fn resolv_conf(servers: &[IpAddr], search: Option<&[String]>) -> Option<String> {
    if servers.is_empty() {
        return None;
    }
    let host = std::fs::read(resolver::PATH).map(|text| ResolvConf::parse(&text).search).unwrap_or_default();
    let search = search.unwrap_or(&host);
    let mut out = String::new();
    if !search.is_empty() {
        let _ = writeln!(out, "search {}", search.join(" "));
    }
    for server in servers {
        let _ = writeln!(out, "nameserver {server}");
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_names_our_servers() {
        let servers = ["10.0.2.3", "fd00::3"].map(|text| text.parse().unwrap());
        let text = resolv_conf(&servers, Some(&["a.example".to_owned(), "b".to_owned()])).unwrap();
        assert_eq!(text, "search a.example b\nnameserver 10.0.2.3\nnameserver fd00::3\n");
        assert_eq!(resolv_conf(&[], None), None);
    }
}
