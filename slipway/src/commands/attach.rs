//! `slipway attach`: gives a namespace that is already there a network, until it ends.
//!
//! Order: take over descriptors, watch the target (so that its number cannot pass to another process unnoticed, which
//! is looked at again when its namespaces are open), open and configure the TAP in it, publish ports, drop privileges,
//! tell that we are ready, serve.

use super::{complain, configuration, log_level, network, session, shut_in};
use crate::cli::AttachArgs;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use slipway_host::netns::{self, Target, Watch};
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::strerror::words;
use slipway_runtime::fds::{ExitFd, ReadyFd};
use slipway_runtime::pid_file::PidFile;
use slipway_runtime::serve::{End, Ending};
use slipway_runtime::{logging, report};
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// Runs `slipway attach`.
#[must_use]
pub fn main(args: &AttachArgs) -> ExitCode {
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            complain(&line);
            ExitCode::FAILURE
        }
    }
}

fn start(args: &AttachArgs) -> Result<(), String> {
    logging::init(log_level(args.network.quiet, args.network.verbose));
    let exit = args.exit_fd.map(ExitFd::take);
    let ready = args
        .ready_fd
        .map(ReadyFd::take)
        .transpose()
        .map_err(|error| format!("--ready-fd: {}", words(&error)))?;
    let network = network(&args.network).map_err(|error| error.to_string())?;
    let (target, watch) = target(&args.target)?;
    let target = target.with_userns(args.userns.clone());
    let opened = netns::open_tap_of(&watch, &target, &args.network.ifname, Some(&configuration(&network)))
        .map_err(|error| advise(error.to_string(), target.userns.is_some()))?;

    let mut session = session(&args.network, &network, opened.tap.into())?;
    let system = |error: std::io::Error| format!("cannot set up the event loop: {}", words(&error));
    session.catch(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).map_err(system)?;
    if let Some(exit) = exit {
        session.watch_exit(exit).map_err(system)?;
    }
    session.watch_target(watch).map_err(system)?;
    if let Some(path) = &args.pid_file {
        session.hold(PidFile::write(path)?);
    }
    shut_in(&mut session, &network, Profile::Network)?;
    if !args.network.quiet && !network.dns().is_empty() {
        hint(&network.dns());
    }
    if let Some(ready) = ready
        && let Err(error) = ready.tell()
    {
        complain(&format!("--ready-fd: {}", words(&error)));
    }
    let end = match session.run() {
        Ok(End::Link(reason)) => Err(format!("the interface is gone: {}", words(&reason))),
        // Whatever the reason, it is an ordinary end.
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the network has ended: {}", words(&error))),
    };
    session.end(Ending::Delivered);
    if args.network.stats {
        logging::tell(&report::counters(session.driver(), session.table()));
    }
    end
}

/// A namespace given by its path is taken as one of our own user namespace: what to do if it is not.
fn advise(line: String, userns: bool) -> String {
    let foreign = !userns && line.contains("cannot join") && line.contains("not permitted");
    if foreign {
        format!("{line} (if it belongs to another user namespace, name that with --userns)")
    } else {
        line
    }
}

/// Says what we do not do: which nameservers to write into the target's resolv.conf.
fn hint(servers: &[std::net::IpAddr]) {
    let servers: Vec<_> = servers.iter().map(|address| format!("nameserver {address}")).collect();
    logging::tell(&format!("slipway: for the target's /etc/resolv.conf: {}\n", servers.join(", ")));
}

/// A process, if it is a number; otherwise a path.
fn target(word: &OsStr) -> Result<(Target, Watch), String> {
    let pid = word.to_str().and_then(|text| text.parse::<i32>().ok());
    match pid {
        Some(pid @ 1..) => {
            let pid = Pid::from_raw(pid);
            let watch = Watch::process(pid).map_err(|error| match error.raw_os_error() {
                Some(errno) if errno == Errno::ESRCH as i32 => format!("there is no process {pid}"),
                _ => format!("cannot watch the process {pid}: {}", words(&error)),
            })?;
            Ok((Target::pid(pid), watch))
        }
        Some(pid) => Err(format!("{pid} is no process id: it is a positive number")),
        None => {
            let path = Path::new(word);
            let watch =
                Watch::path(path).map_err(|error| format!("{}: {}", path.display(), words(&error)))?;
            Ok((Target::path(path), watch))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_namespace_is_told_by_its_missing_userns() {
        let refused = "cannot join the network namespace /run/netns/x: Operation not permitted";
        assert!(advise(refused.to_owned(), false).ends_with("name that with --userns)"));
        assert_eq!(advise(refused.to_owned(), true), refused);
        let missing = "cannot join the network namespace /x: No such file or directory";
        assert_eq!(advise(missing.to_owned(), false), missing);
    }
}
