//! `slirp4netns` at work: the start sequence, the ready byte, the loop, the end.
//!
//! ```text
//! parse ─▶ keep tracers out ─▶ take over -e and -r ─▶ TAP through a helper in the namespace ─▶ engine and event loop
//!       ─▶ API socket ─▶ sandbox ─▶ host's nameservers ─▶ seccomp ─▶ ready byte ─▶ serve until exit-fd or a signal
//! ```
//! Invariants: nothing is opened before the caller's descriptors are taken over; the API accepts connections and the
//! privileges are gone before the ready byte is written; there is one thread and no runtime, for the time from start
//! to ready byte is paid for every container. SIGPIPE is ignored, as in every Rust program.

use super::args::{self, Stop};
use super::chatter::{self, answer, complain, on_api, say, start_up};
use super::config::{Config, Netns, Target, World};
use super::usage;
use ipnet::Ipv4Net;
use log::LevelFilter;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, Pid, access};
use slipway_host::device::{Link, Listener, Tap};
use slipway_host::netlink::Netlink;
use slipway_host::netns::{self, NetnsError};
use slipway_host::sandbox::seccomp::{DENIED, Profile};
use slipway_host::sandbox::tracers;
use slipway_host::strerror::{strerror, words};
use slipway_host::sys::fdpass::take_inherited;
use slipway_netstack::config::Config as EngineConfig;
use slipway_netstack::ethernet::neighbour::OnLink;
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::slirp::Slirp;
use slipway_runtime::fds::{ExitFd, ReadyFd};
use slipway_runtime::logging;
use slipway_runtime::serve::{End, Ending, Session};
use slipway_runtime::start::{Confinement, Nameservers, Rights, StartError};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Why it could not start, or go on.
#[derive(Debug)]
enum Failure {
    /// The helper in the namespace met an error: its line, its exit status.
    Child(String, u8),
    /// Anything in this process.
    Parent(String),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Parent(error.to_string())
    }
}

/// Runs `slirp4netns` with the arguments `args`; `program` is its name in messages.
#[must_use]
pub fn main(program: &str, args: &[OsString]) -> ExitCode {
    let mut notices = Vec::new();
    let config = args::parse(program, args, &mut notices, &|path| System.find(path).is_ok())
        .and_then(|low| Config::new(low, &mut notices, &System));
    for notice in notices {
        say(&format!("{notice}\n"));
    }
    let stop = match config {
        Ok(config) => return finish(start(&config)),
        Err(stop) => stop,
    };
    match stop {
        Stop::Help => answer(&usage::help(program)),
        Stop::Version => answer(&usage::version()),
        Stop::Usage(diagnostic) => {
            if let Some(line) = diagnostic {
                complain(&line);
            }
            answer(&usage::help(program));
            return ExitCode::FAILURE;
        }
        Stop::Value(diagnostic) => {
            complain(&diagnostic);
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The exit code, and the last lines.
fn finish(result: Result<End, Failure>) -> ExitCode {
    match result {
        // Nothing else is watched, or ends the loop; it would be an ordinary end.
        Ok(End::ExitFd | End::Target | End::Link(_) | End::Asked) => ExitCode::SUCCESS,
        // As a shell tells the death by a signal.
        Ok(End::Signal(signal)) => ExitCode::from(u8::try_from(128 + signal.number).unwrap_or(u8::MAX)),
        Err(Failure::Child(line, status)) => {
            complain(&line);
            complain(&format!("child failed({status})"));
            ExitCode::from(status)
        }
        Err(Failure::Parent(line)) => {
            complain(&line);
            complain("do_slirp failed");
            complain("parent failed");
            ExitCode::FAILURE
        }
    }
}

/// The real system.
struct System;

impl World for System {
    fn find(&self, path: &Path) -> Result<(), Errno> {
        access(path, AccessFlags::F_OK)
    }

    fn interface_address(&self, name: &str, ipv6: bool) -> Option<IpAddr> {
        Netlink::open().and_then(|mut netlink| netlink.first_address(name, ipv6)).ok()
    }
}

fn parent(doing: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::Parent(format!("cannot {doing}: {}", words(&error)))
}

fn start(config: &Config) -> Result<End, Failure> {
    logging::init(LevelFilter::Warn);
    chatter::prepare();
    // Whoever starts us may have put us into the guest's user namespace.
    if let Err(error) = tracers::keep_out() {
        log::debug!("{error}");
    }
    let exit = config.exit_fd.map(ExitFd::take);
    let ready = config.ready_fd.map(ReadyFd::take).transpose().unwrap_or_else(|error| {
        // Whoever waits for the byte notices our life or death too.
        complain(&format!("ready-fd: {}", words(&error)));
        None
    });
    let (link, door) = link(config)?;
    say(&start_up(config));

    let mut session = session(config, link)?;
    if let Some(door) = door {
        session.readmit(door).map_err(parent("keep the BESS socket"))?;
    }
    if let Some(path) = &config.api_socket {
        session.open_api(path, on_api).map_err(|error| Failure::Parent(error.to_string()))?;
    }
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    session.catch(&signals).map_err(parent("catch signals"))?;
    if let Some(exit) = exit {
        session.watch_exit(exit).map_err(parent("watch exit-fd"))?;
    }
    let userns = guest_userns(config);
    let confinement = Confinement {
        rights: if config.sandbox { Rights::Sandboxed(userns.as_deref()) } else { Rights::Kept },
        names: Nameservers::Hosts,
        calls: config.seccomp.then_some(Profile::Network),
    };
    session.shut_in(&confinement)?;
    if config.seccomp {
        complain(&format!("seccomp: The following syscalls are blocked: {}", DENIED.join(" ")));
    }
    if let Some(ready) = ready
        && let Err(error) = ready.tell()
    {
        complain(&format!("ready-fd: {}", words(&error)));
    }
    loop {
        match session.run().map_err(parent("serve the guest"))? {
            // As the original, which lives on until exit-fd or a signal says otherwise: whoever started it counts on
            // that.
            End::Link(reason) => complain(&format!("do_slirp: read: {}", words(&reason))),
            end => {
                session.end(ending(&end));
                return Ok(end);
            }
        }
    }
}

/// Whoever closes the exit-fd waits for nothing but our ports and paths. A signal ended the original on the spot, and
/// whoever sends one may well wait for the process.
fn ending(end: &End) -> Ending {
    if !matches!(end, End::ExitFd) {
        return Ending::AtOnce;
    }
    complain("exitfd event");
    complain("do_slirp is exiting");
    Ending::Delivered
}

/// The user namespace in which the sandbox may mount: the guest's, where it is known.
fn guest_userns(config: &Config) -> Option<PathBuf> {
    match &config.target {
        Target::Netns { userns: Some(path), .. } => Some(path.clone()),
        Target::Netns { netns: Netns::Pid(pid), .. } => Some(format!("/proc/{pid}/ns/user").into()),
        _ => None,
    }
}

/// The engine at work on `link`.
fn session(config: &Config, link: Link) -> Result<Session, StartError> {
    let addresses =
        Slirp { v4: Some(config.v4), v6: config.v6, host_loopback: config.host_loopback, internal: false };
    Session::open(link, config.gateway_mac, |machine| EngineConfig {
        on_link: OnLink::Many { otherwise: config.configure.and_then(|configure| configure.mac) },
        mtu: config.mtu,
        plan: Plan::slirp(config.gateway_mac, &addresses),
        outbound: config.outbound,
        ..machine
    })
}

/// The guest's link, and where the next guest comes in when this one has hung up.
fn link(config: &Config) -> Result<(Link, Option<Listener>), Failure> {
    match &config.target {
        Target::Netns { netns, userns, tap } => {
            let target = match netns {
                Netns::Pid(pid) => netns::Target::pid(Pid::from_raw(i32::try_from(*pid).unwrap_or(i32::MAX))),
                Netns::Path(path) => netns::Target::path(path),
            };
            let target = target.with_userns(userns.clone());
            let opened = netns::open_tap(&target, tap, configuration(config)?.as_ref()).map_err(child)?;
            complain(&format!("sent tapfd={} for {tap}", opened.sent_fd));
            complain(&format!("received tapfd={}", opened.received_fd()));
            Ok((opened.tap.into(), None))
        }
        Target::TapFd(number) => {
            let tap = take_inherited(*number).and_then(Tap::from_owned_fd);
            tap.map(|tap| (tap.into(), None))
                .map_err(|error| Failure::Parent(format!("tapfd {number}: {}", words(&error))))
        }
        Target::Bess(path) => {
            let fail = |error| Failure::Parent(format!("{}: {}", path.display(), words(&error)));
            let listener = Listener::packets(path).map_err(fail)?;
            complain(&format!("Waiting for connection to {}", path.display()));
            Ok((listener.accept().map_err(fail)?, Some(listener)))
        }
    }
}

/// What `-c` does in the namespace. IPv6 is left to router advertisements.
fn configuration(config: &Config) -> Result<Option<netns::Setup>, Failure> {
    let Some(configure) = config.configure else { return Ok(None) };
    if config.link_mtu < config.mtu.bytes() {
        // What the kernel says to an MTU that IPv4 does not permit.
        return Err(Failure::Child(format!("cannot set MTU: {}", strerror(Errno::EINVAL)), 1));
    }
    let v4 = config.v4;
    let address = Ipv4Net::new(v4.guest, v4.network.prefix_len()).unwrap_or(v4.network);
    Ok(Some(netns::Setup::Configure(netns::Configure {
        mtu: config.mtu,
        mac: configure.mac,
        v4: Some(netns::Side { address, gateway: v4.gateway }),
        v6: None,
    })))
}

fn child(error: NetnsError) -> Failure {
    match error {
        NetnsError::Child { message, status } => Failure::Child(message, status),
        other => Failure::Child(other.to_string(), 1),
    }
}
