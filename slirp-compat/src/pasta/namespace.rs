//! `pasta` at work: a guest in a network namespace, from its start to its end.
//!
//! This process stays in the host's network namespace and joins the guest's user namespace, while it has one thread: a
//! thread that is started later, and goes inside, gets its right to do so from there. The TAP is opened and configured
//! by a child. Contract: pasta B.

use super::begin::{Host, become_user, listen, not_open, promise, recorded, settle, system};
use super::config::{Config, Namespace, Place, Userns};
use super::network;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Pid, gethostname};
use slipway_host::device::Link;
use slipway_host::environment;
use slipway_host::inside::Inside;
use slipway_host::netlink::{self, Netlink};
use slipway_host::netns::{self, Command, Identity, Outcome, Running, Setup, Target, Watch};
use slipway_host::sandbox::mounts::Leave;
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::sandbox::tracers;
use slipway_host::signals::Inheritance;
use slipway_host::strerror::{strerror, words};
use slipway_host::sys::fdpass::take_inherited;
use slipway_host::template::{self, Device, Op, Template};
use slipway_netstack::config::{Config as EngineConfig, Mtu};
use slipway_netstack::device::Capabilities;
use slipway_runtime::background::Tell;
use slipway_runtime::serve::{End, Ending, Session};
use slipway_runtime::start::Rights;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

/// Serves the guest from start to end; the exit code.
pub(super) fn serve(config: &Config, guest: &Namespace, tell: &mut Tell) -> Result<u8, String> {
    // Whoever starts us may have put us into the guest's user namespace.
    if let Err(error) = tracers::keep_out() {
        log::debug!("{error}");
    }
    // It has to be open, as the options of both names are read alike; the guest's link is its own interface.
    drop(config.fd.map(take_inherited).transpose().map_err(|error| not_open(&error))?);
    let host = Host::look(config, Some(guest))?;
    let template = host.network.following().template();
    let addresses = host.addresses();
    let pid_file = config.pid_file.as_deref().map(promise).transpose()?;
    if let Some(ids) = config.run_as {
        become_user(ids)?;
    }
    let mut seat = Seat::take(config, guest)?;
    let engine = |machine| host.engine(&addresses, &machine);
    let mut session = open(config, guest, template, &seat, engine)?;

    let inside = Inside::start(seat.netns.try_clone().map_err(system("keep the namespace"))?)
        .map_err(system("join the network namespace"))?;
    if config.splice.only {
        let up = inside.ask(loopback_up).map_err(system("reach the thread inside"))?;
        up.map_err(|error| format!("cannot bring the loopback interface up: {error}"))?;
    }
    session
        .go_inside(inside, network::shortcut(config, template))
        .map_err(system("watch the thread inside"))?;
    if !config.splice.only {
        host.follow(guest.configure.is_some(), &mut session)?;
    }
    listen(config, &mut session)?;
    if config.conf_path.is_some() || config.control.is_some() || config.forwards.all().any(|rule| rule.scan())
    {
        session.follow_listeners().map_err(system("look who listens"))?;
    }
    if let Some(watch) = seat.watch.take() {
        session.watch_target(watch).map_err(system("watch the namespace"))?;
    }
    let calls = if seat.running.is_some() { Profile::ShortcutParent } else { Profile::Shortcut };
    let leave = if config.chroot_fallback { Leave::Chroot } else { Leave::Pivot };
    settle(config, &mut session, &addresses, (Rights::AsPermitted(leave), calls), pid_file, tell)?;
    if let Some(running) = &mut seat.running {
        running.start().map_err(|error| error.to_string())?;
    }
    finish(&mut session, guest, seat.running)
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
        environment::variable("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let mut name = OsString::from("-");
    name.push(Path::new(&path).file_name().unwrap_or_else(|| OsStr::new("sh")));
    (path, name)
}

/// What a command's machine is called: as this one is, but told apart from it.
fn hostname() -> String {
    let host = gethostname().unwrap_or_default();
    let name = format!("pasta-{}", host.to_string_lossy());
    // The kernel takes no longer one.
    name.chars().take(64).collect()
}

/// In the namespace of the calling thread.
fn loopback_up() -> Result<(), netlink::Error> {
    let mut netlink = Netlink::open()?;
    let loopback = netlink.interface("lo")?;
    netlink.set_up(&loopback)
}

/// The engine at work on the guest's TAP, which is opened and configured on the way.
fn open(
    config: &Config,
    guest: &Namespace,
    template: &Template,
    seat: &Seat,
    engine: impl FnOnce(EngineConfig) -> EngineConfig,
) -> Result<Session, String> {
    if config.splice.only {
        // Nothing travels in packets, so there is no interface.
        return Session::open_idle(Capabilities::default(), config.mac, engine)
            .map_err(|error| error.to_string());
    }
    let device = Device { mtu: config.mtu.and_then(Mtu::new), mac: guest.tap_mac };
    let bare = || vec![Op::Loopback, Op::Device(Device { mtu: None, ..device })];
    let steps = guest.configure.map_or_else(bare, |_| template::plan(template, device));
    let target = Target::path(format!("/proc/self/fd/{}", seat.netns.as_raw_fd()));
    let opened = netns::open_tap(&target, template.ifname(), Some(&Setup::Template(steps)))
        .map_err(|error| error.to_string())?;
    let mut link = Link::from(opened.tap);
    if let Some(path) = &config.pcap {
        link = recorded(path, |file| link.captured(file))?;
    }
    Session::open(link, config.mac, engine).map_err(|error| error.to_string())
}
