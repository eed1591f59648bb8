//! `slipway run`: a command in namespaces of its own, with a network, and its exit status as ours.
//!
//! The command begins when everything works and this process has dropped its privileges: ports are published, the
//! nameservers known. It stands for the command: every signal that has come to this process alone is passed on, and the
//! command decides; those of the terminal (Ctrl-C, Ctrl-\, a new window size) reach it without us, unless it has left
//! our process group. When it ends, we do, and with us the namespace (see [`slipway_runtime::serve::Ending`]).

use super::{OWN_FAILURE, complain, configuration, log_level, network, session, shut_in};
use crate::cli::RunArgs;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use slipway_host::netns::{self, Command, Identity, Outcome, Running, StartError};
use slipway_host::resolv_conf::{self, ResolvConf};
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::signals::{Caught, Signals};
use slipway_host::strerror::words;
use slipway_runtime::serve::{End, Ending, Session};
use slipway_runtime::{logging, report};
use std::ffi::OsString;
use std::fmt::Write as _;
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
        Ok(Outcome::Signaled(number)) => ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX)),
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
    let signals = Signals::catch_all().map_err(|error| format!("cannot catch signals: {}", words(&error)))?;
    let command = Command {
        words: if args.cmd.is_empty() { vec![shell()] } else { args.cmd.clone() },
        identity: if args.map_root { Identity::Root } else { Identity::Unchanged },
        hostname: args.hostname.clone(),
        resolv_conf: resolv_conf(&network.dns(), network.search.as_deref()),
        // Who names servers wants them, and nobody else's.
        resolv_conf_needed: !network.nameservers.is_empty(),
        argv0: None,
        apart: false,
        inheritance: signals.inheritance(),
    };
    let (opened, mut running) = netns::spawn(&command, &args.network.ifname, &configuration(&network))
        .map_err(|error| error.to_string())?;

    let mut session = session(&args.network, &network, opened.tap.into())?;
    session
        .listen(signals)
        .and_then(|()| session.watch_target(running.watch()?))
        .map_err(|error| format!("cannot set up the event loop: {}", words(&error)))?;
    shut_in(&mut session, &network, Profile::Parent)?;
    running.start().map_err(|error| cannot_start(&error))?;
    // What has come so far, of the terminal's too, the command has missed, or part of it: better twice than not at all.
    while let Ok(Some(caught)) = session.signal_so_far() {
        pass_on(&running, caught);
    }
    let outcome = serve(&mut session, running)?;
    if args.network.stats {
        logging::tell(&report::counters(session.driver(), session.table()));
    }
    Ok(outcome)
}

/// Serves until the command ends, and ends the session.
fn serve(session: &mut Session, running: Running) -> Result<Outcome, Failure> {
    let ending = loop {
        match session.run() {
            Ok(End::Signal(caught)) if caught.terminal => running.signal_of_terminal(caught.number),
            Ok(End::Signal(caught)) => pass_on(&running, caught),
            Ok(End::Asked) => {}
            Ok(End::Target | End::ExitFd) => break Ending::HeardOut,
            // The command may delete its interface; it runs on without network.
            Ok(End::Link(reason)) => complain(&format!("the interface is gone: {}", words(&reason))),
            Err(error) => {
                complain(&format!("the network has ended: {}", words(&error)));
                break Ending::AtOnce;
            }
        }
    };
    session.end(ending);
    running.wait().map_err(|error| Failure::from(format!("cannot wait for the command: {}", words(&error))))
}

/// Tells the command what we were told. SIGCHLD is about it, not for it: caught only so that it is not ignored.
fn pass_on(running: &Running, caught: Caught) {
    if !caught.is(Signal::SIGCHLD) {
        running.signal(caught.number);
    }
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

/// The text of resolv.conf(5) inside; `None` without nameserver. Search domains and options are the host's unless
/// given.
fn resolv_conf(servers: &[IpAddr], search: Option<&[String]>) -> Option<String> {
    if servers.is_empty() {
        return None;
    }
    let host = resolv_conf::read_bounded(Path::new(resolv_conf::PATH))
        .map(|text| ResolvConf::parse(&text).search)
        .unwrap_or_default();
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
