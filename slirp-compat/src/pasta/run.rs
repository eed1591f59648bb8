//! `pasta` at work: the start sequence, the loop, the end.
//!
//! ```text
//! parse ─▶ background ─▶ template of the host's network ─▶ files ─▶ user ─▶ user namespace ─▶ TAP, configured by a child
//!       ─▶ engine and event loop ─▶ thread inside ─▶ ports ─▶ sandbox, nameservers, filters ─▶ PID file ─▶ exit 0
//! ```
//! Invariants: whatever can fail does so before the process in the foreground ends, with one line on stderr and exit
//! code 1; nothing that guests or clients send is looked at before the sandbox is up. This process stays in the host's
//! network namespace and joins the guest's user namespace, while it has one thread: a thread that is started later, and
//! goes inside, gets its right to do so from there. Contract: pasta B.

use super::config::{Config, Guest, Ids, Namespace, Place, Userns};
use super::network;
use super::world::System;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid, setgid, setgroups, setuid};
use slipway_host::driver::Driver;
use slipway_host::inside::{Inside, Side};
use slipway_host::netns::{self, Command, Identity, Outcome, Running, Setup, Target, Watch};
use slipway_host::ports;
use slipway_host::resolv_conf::{self, ResolvConf};
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::sandbox::tracers;
use slipway_host::scope::ZonedAddr;
use slipway_host::signals::Inheritance;
use slipway_host::strerror::{strerror, words};
use slipway_host::sys::proc::close_inherited;
use slipway_host::template::{self, Device, Following, Op, Template};
use slipway_netstack::config::{Config as EngineConfig, Mtu};
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::pasta::Pasta;
use slipway_portfwd::Rule;
use slipway_portfwd::api::socket::BindError;
use slipway_portfwd::rule::passt::Context;
use slipway_portfwd::table::Policy;
use slipway_runtime::background::{self, Tell};
use slipway_runtime::logging::journal;
use slipway_runtime::network::{HostNetwork, OpenError};
use slipway_runtime::pid_file::Promise;
use slipway_runtime::serve::{ApiError, End, Ending, Session};
use slipway_runtime::start::{Confinement, Nameservers, Rights};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

/// Runs `pasta` or `passt` with the arguments `args`; `program` is its name in messages, and says which it is.
#[must_use]
pub fn main(program: &str, args: &[OsString]) -> ExitCode {
    let mut notices = Vec::new();
    let config = super::read(program, args, &mut notices, &System);
    notices.iter().for_each(|notice| complain(notice));
    let config = match config {
        Ok(config) => config,
        Err(stop) => return super::tell(&stop, program, args),
    };
    if let Err(error) = close_inherited(config.fd) {
        log::debug!("what was open stays open: {error}");
    }
    if config.foreground {
        return ExitCode::from(start(&config, &mut Tell::nobody()));
    }
    background::leave(|tell| start(&config, tell)).unwrap_or_else(|error| {
        complain(&format!("cannot go to the background: {}", words(&error)));
        ExitCode::FAILURE
    })
}

/// Says something on stderr, a whole line. That nobody reads is no reason to fail.
fn complain(line: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// Starts and serves; the exit code.
fn start(config: &Config, tell: &mut Tell) -> u8 {
    if let Err(line) = journal::open(&config.log()) {
        complain(&line);
        return 1;
    }
    let done = match &config.guest {
        Guest::Namespace(guest) => serve(config, guest, tell),
        Guest::Machine(machine) => super::machine::serve(config, machine, tell),
    };
    done.unwrap_or_else(|line| {
        journal::keep(&line);
        tell.complain(&line);
        1
    })
}

pub(super) fn system(doing: &str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("cannot {doing}: {}", words(&error))
}

fn serve(config: &Config, guest: &Namespace, tell: &mut Tell) -> Result<u8, String> {
    // Whoever starts us may have put us into the guest's user namespace.
    if let Err(error) = tracers::keep_out() {
        log::debug!("{error}");
    }
    let host = Host::look(config, Some(guest))?;
    let template = host.network.following().template().clone();
    let addresses = host.addresses();
    let pid_file = config.pid_file.as_deref().map(promise).transpose()?;
    if let Some(ids) = config.run_as {
        become_user(ids)?;
    }
    let mut seat = Seat::take(config, guest)?;
    let mut session = open(config, guest, &template, &seat, |machine| {
        network::engine(config, &template, &addresses, &host.search, &machine)
    })?;

    let inside = Inside::start(seat.netns.try_clone().map_err(system("keep the namespace"))?)
        .map_err(system("join the network namespace"))?;
    session
        .go_inside(inside, network::shortcut(config, &template))
        .map_err(system("watch the thread inside"))?;
    host.follow(guest.configure.is_some(), &mut session)?;
    listen(config, &mut session)?;
    if config.conf_path.is_some() || config.control.is_some() || config.forwards.all().any(|rule| rule.scan())
    {
        session.follow_listeners().map_err(system("look who listens"))?;
    }
    if let Some(watch) = seat.watch.take() {
        session.watch_target(watch).map_err(system("watch the namespace"))?;
    }
    let calls = if seat.running.is_some() { Profile::ShortcutParent } else { Profile::Shortcut };
    settle(config, &mut session, &addresses, (Rights::AsPermitted, calls), pid_file, tell)?;
    if let Some(running) = &mut seat.running {
        running.start().map_err(|error| error.to_string())?;
    }
    finish(&mut session, guest, seat.running)
}

/// Ports, sockets over which they are changed, signals.
pub(super) fn listen(config: &Config, session: &mut Session) -> Result<(), String> {
    let rules: Vec<Rule> = config.forwards.all().collect();
    let policy = |descriptors| Policy { free: config.freebind, ..Policy::passt(descriptors) };
    if let Err(error) = session.replace_rules(&rules, policy) {
        complain(&error.in_passts_words());
        return Err("Couldn't listen on requested ports".to_owned());
    }
    open_sockets(config, session)?;
    session.catch(&[Signal::SIGTERM, Signal::SIGQUIT]).map_err(system("catch signals"))
}

/// The end of a start: the sandbox, the PID file, the background.
pub(super) fn settle(
    config: &Config,
    session: &mut Session,
    addresses: &Pasta,
    (rights, calls): (Rights<'_>, Profile),
    pid_file: Option<Promise>,
    tell: &mut Tell,
) -> Result<(), String> {
    let servers = network::named_servers(config.dns_host);
    let confinement = Confinement {
        rights,
        names: match (network::answers_names(addresses), servers.as_slice()) {
            (false, _) => Nameservers::Nobody,
            (true, []) => Nameservers::Hosts,
            (true, these) => Nameservers::These(these),
        },
        calls: Some(calls),
    };
    session.drop_rights(&confinement).map_err(|error| error.to_string())?;
    if let Some(promise) = pid_file {
        promise.keep().map_err(system("write the PID file"))?;
    }
    tell.detach().map_err(system("go to the background"))?;
    session.forbid_calls(&confinement).map_err(|error| error.to_string())?;
    tell.ready().map_err(system("tell that the network works"))?;
    journal::settle();
    if let Some(every) = config.stats {
        session.show_counters(every);
    }
    Ok(())
}

/// The sockets over which rules are changed.
fn open_sockets(config: &Config, session: &mut Session) -> Result<(), String> {
    let can = config.abilities;
    if let Some(path) = &config.conf_path {
        let sides: &[Side] = match config.guest {
            Guest::Namespace(_) => &[Side::Host, Side::Namespace],
            Guest::Machine(_) => &[Side::Host],
        };
        let tables = sides.iter().map(|side| (*side, can));
        session.open_pesto(path, tables).map_err(|error| error.to_string())?;
    }
    if let Some(path) = &config.control {
        let context = Context { can, ephemeral: ports::ephemeral_range() };
        match session.open_control(path, context) {
            Ok(()) => {}
            Err(error @ ApiError::Taken(BindError::InUse(_))) => return Err(error.to_string()),
            // Where the profile of another program forbids it, everything else goes on.
            Err(error) => log::warn!("no orders are taken: {error}"),
        }
    }
    Ok(())
}

/// Serves until the end; the exit code.
fn finish(session: &mut Session, guest: &Namespace, running: Option<Running>) -> Result<u8, String> {
    let end = loop {
        match session.run() {
            Ok(End::Asked | End::ExitFd) => {}
            other => break other,
        }
    };
    // Whoever sends a signal may wait for the process.
    session.end(Ending::AtOnce);
    match end {
        Ok(End::Target) => match running {
            Some(running) => running.wait().map(status).map_err(system("wait for the command")),
            None => {
                if let Some(path) = guest.place.netns() {
                    log::info!("Namespace {} is gone, exiting", path.display());
                }
                Ok(0)
            }
        },
        Ok(End::Link(reason)) => Err(format!("the interface is gone: {}", words(&reason))),
        Ok(_) => Ok(0),
        Err(error) => Err(format!("the network has ended: {}", words(&error))),
    }
}

/// As a shell tells the end of a command.
fn status(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Exited(status) => status,
        Outcome::Signaled(number) => u8::try_from(128 + number).unwrap_or(u8::MAX),
    }
}

/// What the host's network says about the guest's. It is looked at before any namespace is joined.
pub(super) struct Host<'a> {
    config: &'a Config,
    pub(super) network: HostNetwork,
    /// Those of the host's resolv.conf as it is at the start.
    nameservers: Vec<IpAddr>,
    /// The host's search domains.
    pub(super) search: Vec<String>,
}

impl<'a> Host<'a> {
    pub(super) fn look(config: &'a Config, guest: Option<&Namespace>) -> Result<Self, String> {
        let network = HostNetwork::open(network::wishes(config, guest)).map_err(|error| match error {
            OpenError::Choose(error) => error.to_string(),
            OpenError::Netlink(error) => format!("cannot look at the host's network: {error}"),
        })?;
        network.following().template().infos().for_each(|info| log::info!("{info}"));
        let ResolvConf { nameservers, search, .. } = resolver();
        let nameservers = nameservers.iter().map(ZonedAddr::ip).collect();
        Ok(Self { config, network, nameservers, search })
    }

    /// What the engine's plan is made from.
    pub(super) fn addresses(&self) -> Pasta {
        network::addresses(self.config, self.network.following(), &self.nameservers)
    }

    /// Keeps the guest like the host for as long as it is served. One that we have configured is configured anew; any
    /// other hears of it by its own questions.
    pub(super) fn follow(self, is_configured: bool, session: &mut Session) -> Result<(), String> {
        let Self { config, network, nameservers, .. } = self;
        let config = config.clone();
        let readdress = move |following: &Following, driver: &mut Driver| {
            driver.readdress(Plan::pasta(&network::addresses(&config, following, &nameservers)));
            driver.set_shortcut(network::shortcut(&config, following.template()));
        };
        session
            .follow_host_network(network, is_configured, readdress)
            .map_err(system("watch the host's network"))
    }
}

/// Those of the host's resolv.conf as it is now, for what is fixed at the start.
fn resolver() -> ResolvConf {
    let text = resolv_conf::read_bounded(Path::new(resolv_conf::PATH)).unwrap_or_default();
    ResolvConf::parse(&text)
}

pub(super) fn promise(path: &Path) -> Result<Promise, String> {
    Promise::open(path)
        .map_err(|error| format!("Couldn't open PID file {}: {}", path.display(), words(&error)))
}

/// Becomes a user whom the machine trusts with nothing. The rights to the guest come from its user namespace.
pub(super) fn become_user(ids: Ids) -> Result<(), String> {
    let failed = |error: Errno| {
        format!("cannot become user {} and group {}: {}", ids.user, ids.group, strerror(error))
    };
    setgroups(&[]).map_err(failed)?;
    setgid(Gid::from_raw(ids.group)).map_err(failed)?;
    setuid(Uid::from_raw(ids.user)).map_err(failed)?;
    // The kernel has taken it back with the user.
    tracers::keep_out().map_err(|error| error.to_string())
}

/// The guest's namespaces, entered as far as this process has to.
struct Seat {
    netns: OwnedFd,
    /// What waits there to be started.
    running: Option<Running>,
    /// Whose end is ours.
    watch: Option<Watch>,
}

impl Seat {
    fn take(config: &Config, guest: &Namespace) -> Result<Self, String> {
        if let Userns::Join(path) = &guest.userns {
            join_user(path)?;
        }
        match &guest.place {
            Place::Command(words) => Self::of_command(config, guest, words),
            Place::Pid(pid) => {
                let pid = Pid::from_raw(i32::try_from(*pid).unwrap_or(i32::MAX));
                let watch = Watch::process(pid).map_err(|error| no_process(pid, &error))?;
                Self::of_path(guest, Path::new(&format!("/proc/{pid}/ns/net")), watch)
            }
            Place::Path(path) => {
                let watch = Watch::path(path).map_err(|error| cannot_open(path, &error))?;
                Self::of_path(guest, path, watch)
            }
        }
    }

    fn of_path(guest: &Namespace, path: &Path, watch: Watch) -> Result<Self, String> {
        let netns = netns::open_file(path).map_err(|error| cannot_open(path, &error))?;
        Ok(Self { netns, running: None, watch: guest.quit.then_some(watch) })
    }

    fn of_command(config: &Config, guest: &Namespace, command: &[OsString]) -> Result<Self, String> {
        let inheritance = Inheritance::current().map_err(system("look at signals"))?;
        let shell = command.is_empty().then(shell);
        let (words, argv0) = match shell {
            Some((path, name)) => (vec![path], Some(name)),
            None => (command.to_vec(), None),
        };
        let command = Command {
            words,
            argv0,
            identity: Identity::Root,
            apart: guest.pidns,
            hostname: Some(config.hostname.clone().unwrap_or_else(hostname)),
            resolv_conf: None,
            resolv_conf_needed: false,
            inheritance,
        };
        let (made, running) = netns::spawn_in_namespaces(&command).map_err(|error| error.to_string())?;
        // The kernel says EINVAL where none was made.
        match setns(made.user.as_fd(), CloneFlags::CLONE_NEWUSER) {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(error) => {
                return Err(format!("cannot join the command's user namespace: {}", strerror(error)));
            }
        }
        let watch = running.watch().map_err(system("watch the command"))?;
        Ok(Self { netns: made.net, running: Some(running), watch: Some(watch) })
    }
}

fn no_process(pid: Pid, error: &std::io::Error) -> String {
    format!("cannot watch the process {pid}: {}", words(error))
}

fn cannot_open(path: &Path, error: &std::io::Error) -> String {
    format!("Couldn't open network namespace {}: {}", path.display(), words(error))
}

/// Joins the user namespace at `path`. That we are in it already is no error.
fn join_user(path: &Path) -> Result<(), String> {
    let failed = |error: &std::io::Error| {
        format!("Couldn't enter user namespace {}: {}", path.display(), words(error))
    };
    let file = netns::open_file(path).map_err(|error| failed(&error))?;
    match setns(&file, CloneFlags::CLONE_NEWUSER) {
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(failed(&errno.into())),
    }
}

/// The user's shell, and the name that makes it a login shell.
fn shell() -> (OsString, OsString) {
    let path =
        std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let mut name = OsString::from("-");
    name.push(Path::new(&path).file_name().unwrap_or_else(|| OsStr::new("sh")));
    (path, name)
}

/// What a command's machine is called: as this one is, but told apart from it.
fn hostname() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = format!("pasta-{}", host.trim());
    // The kernel takes no longer one.
    name.chars().take(64).collect()
}

/// The engine at work on the guest's TAP, which is opened and configured on the way.
fn open(
    config: &Config,
    guest: &Namespace,
    template: &Template,
    seat: &Seat,
    engine: impl FnOnce(EngineConfig) -> EngineConfig,
) -> Result<Session, String> {
    let device = Device { mtu: config.mtu.and_then(Mtu::new), mac: guest.tap_mac };
    let bare = || vec![Op::Loopback, Op::Device(Device { mtu: None, ..device })];
    let steps = guest.configure.map_or_else(bare, |_| template::plan(template, device));
    let target = Target::path(format!("/proc/self/fd/{}", seat.netns.as_raw_fd()));
    let opened = netns::open_tap(&target, template.ifname(), Some(&Setup::Template(steps)))
        .map_err(|error| error.to_string())?;
    let mut link = opened.tap.into();
    if let Some(path) = &config.pcap {
        link = record(link, path)?;
    }
    Session::open(link, config.mac, engine).map_err(|error| error.to_string())
}

pub(super) fn record(
    link: slipway_host::device::Link,
    path: &Path,
) -> Result<slipway_host::device::Link, String> {
    let failed =
        |error: std::io::Error| format!("Couldn't open pcap file {}: {}", path.display(), words(&error));
    let file = File::create(path).map_err(failed)?;
    link.captured(file).map_err(failed)
}
