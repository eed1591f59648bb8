//! Makes namespaces for a command, and starts it in them.
//!
//! ```text
//!   this process                 child, later the command's keeper (supervise.rs)
//!   ────────────                 ────────────────────────────────────────────────
//!   fork ──────────────────────▶ unshare (user), map ids, unshare (network, mount, host name)
//!                                resolv.conf, host name; open the TAP, configure it
//!   receive the TAP ◀─ SCM_RIGHTS                  (or the namespaces, for a TAP of the caller's)
//!   get ready to serve           (waits)
//!   Running::start ────────────▶ fork ─▶ exec ── errno, if it fails ─▶ Err
//! ```
//! The command begins only when the network works. Of the file system it sees the caller's, but for `/etc/resolv.conf`
//! (`cover`); its terminal, process group and descriptors are the caller's too. When it ends, everything that it has
//! left behind is ended; when this process ends, however it ends, so is the command. With the last process the
//! namespace goes.
//!
//! For the caller: catch every signal before ([`crate::signals::Signals::catch_all`]). The terminal sends Ctrl-C and
//! its like to the command as well as to you, so do not end of them ([`Running::signal_of_terminal`]); pass on whatever
//! has come to you alone ([`Running::signal`]).
//!
//! Ids: one user and one group are mapped, which needs no privilege and no helper. setgroups(2) has to be denied for
//! that (user_namespaces(7)), so supplementary groups keep their effect but cannot be changed. Root, where it may,
//! makes no user namespace: programs that change their user (apt, su) go on working, and so do hosts where user
//! namespaces are switched off.
//!
//! No call is needed that Linux 4.18 has not: a filter of an outer container may refuse all newer ones. So the keeper's
//! end is told by a pipe, not by a pidfd.
//!
//! Limits: `/sys` still shows the host's interfaces (it belongs to whoever mounted it), and services that are asked
//! through a socket in the file system (nscd, systemd-resolved) answer for the host.

use super::configure::{Setup, allow_low_ports, allow_ping};
use super::cover::Cover;
use super::diagnose::{Settings, Step};
use super::enter::{Answer, Namespaces, Opened, open_here, receive, report_failure, report_tap};
use super::supervise::{Keeper, TERMINAL};
use super::{NetnsError, Watch};
use crate::signals::Inheritance;
use crate::strerror::{strerror, words};
use crate::sys::fdpass;
use crate::sys::proc::fork_child;
use crate::sys::signal::{self, Ended};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use nix::unistd::{Gid, Pid, Uid, execvp, getegid, geteuid, getppid, pipe2, sethostname, write};
use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

/// Who one is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The same user and group as outside.
    Unchanged,
    /// Root.
    Root,
}

/// A command and the namespaces it wants.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program, looked up in `PATH` unless it has a slash, and its arguments.
    pub words: Vec<OsString>,
    /// Who it runs as.
    pub identity: Identity,
    /// A host name of its own.
    pub hostname: Option<String>,
    /// What it reads in `/etc/resolv.conf`, if not what the host does.
    pub resolv_conf: Option<String>,
    /// It does not begin unless it does so.
    pub resolv_conf_needed: bool,
    /// What program it is told to be; `None`: the first word. A shell that finds a `-` in front is a login shell.
    pub argv0: Option<OsString>,
    /// Process numbers of its own, a `/proc` that shows no others, and System V objects of its own.
    pub apart: bool,
    /// The signal mask and dispositions it starts with.
    pub inheritance: Inheritance,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With this status.
    Exited(u8),
    /// By the signal of this number.
    Signaled(i32),
}

/// Why a command could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// exec(3) refused it.
    #[error("{program}: {}", strerror(*.errno))]
    Exec {
        /// What was to be executed.
        program: String,
        /// Why not. ENOENT: there is no such program.
        errno: Errno,
    },
    /// The waiting child is gone.
    #[error("the child that was to execute the command is gone: {0}")]
    Gone(#[source] io::Error),
}

/// A command's process, from before its exec to its end. Dropped before the end, it is killed with all that it started.
#[derive(Debug)]
pub struct Running {
    keeper: Pid,
    gate: OwnedFd,
    /// Carries signals; its end is the command's.
    life: Option<OwnedFd>,
    /// Nothing comes through it but the end: the keeper's.
    death: OwnedFd,
    program: String,
    reaped: bool,
}

/// Makes the namespaces, and in them the TAP `interface`, which is set up as `setup` says. The command waits for
/// [`Running::start`]. Call it before starting threads.
///
/// # Errors
/// One line for the user.
pub fn spawn(command: &Command, interface: &str, setup: &Setup) -> Result<(Opened, Running), NetnsError> {
    let make = |gate: BorrowedFd<'_>, made: Result<(), String>| {
        report_tap(gate, made.and_then(|()| open_here(interface, Some(setup))))
    };
    match begin(command, make)? {
        (Answer::Tap(opened), running) => Ok((opened, running)),
        _ => Err(NetnsError::system("receive the TAP", Errno::EPROTO)),
    }
}

/// Makes the namespaces, and leaves it to the caller to open a TAP there. Otherwise as [`spawn()`].
///
/// # Errors
/// One line for the user.
pub fn spawn_in_namespaces(command: &Command) -> Result<(Namespaces, Running), NetnsError> {
    match begin(command, report_namespaces)? {
        (Answer::Namespaces(made), running) => Ok((made, running)),
        _ => Err(NetnsError::system("receive the namespaces", Errno::EPROTO)),
    }
}

/// Sends the child's namespaces to the parent; `Err` when they could not be made or sent.
fn report_namespaces(gate: BorrowedFd<'_>, made: Result<(), String>) -> Result<(), ()> {
    // Its own a process may always open, tracers or not.
    let own = |kind: &str| {
        let path = format!("/proc/self/ns/{kind}");
        fs::File::open(&path).map_err(|error| format!("cannot open {path}: {}", words(&error)))
    };
    let opened = made.and_then(|()| Ok((own("user")?, own("net")?)));
    match opened {
        Ok((user, net)) => {
            fdpass::send_all(gate, &[super::enter::NAMESPACES], &[user.as_fd(), net.as_fd()]).map_err(drop)
        }
        Err(line) => {
            report_failure(gate, &line);
            Err(())
        }
    }
}

/// Starts the child, which makes the namespaces and reports by `report`; what it said, and the command that waits.
fn begin(
    command: &Command,
    report: impl FnOnce(BorrowedFd<'_>, Result<(), String>) -> Result<(), ()>,
) -> Result<(Answer, Running), NetnsError> {
    let (gate, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|error| NetnsError::system("make a socket pair", error))?;
    let (life_read, life) =
        pipe2(OFlag::O_CLOEXEC).map_err(|error| NetnsError::system("make a pipe", error))?;
    let (death, death_write) =
        pipe2(OFlag::O_CLOEXEC).map_err(|error| NetnsError::system("make a pipe", error))?;
    // Our ends are closed in the child, or it would not notice our death. In each process one of two closures
    // takes its ends; the other's are dropped.
    let mut ours = Some((gate, life, death));
    let mut their_ends = Some((theirs, life_read, death_write));
    let keeper = fork_child(|| {
        ours = None;
        // The last is held until the process ends, and by no program that it executes.
        their_ends.take().map_or(1, |(gate, life, _death)| in_child(command, report, gate, life))
    })
    .map_err(|error| NetnsError::system("fork", error))?;
    drop(their_ends);
    let Some((gate, life, death)) = ours else {
        return Err(NetnsError::system("fork", Errno::EBADF));
    };
    let program = command.words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let mut running = Running { keeper, gate, life: Some(life), death, program, reaped: false };
    match receive(running.gate.as_fd()) {
        Ok(Answer::Failure(message)) => Err(NetnsError::Child { message, status: 1 }),
        Ok(made) => Ok((made, running)),
        Err(error) => match running.reap() {
            Ok(Outcome::Signaled(number)) => Err(NetnsError::Killed(signal::name(number))),
            _ => Err(error),
        },
    }
}

impl Running {
    /// Lets the command begin.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub fn start(&mut self) -> Result<(), StartError> {
        fdpass::send(self.gate.as_fd(), b"G", None).map_err(StartError::Gone)?;
        let mut errno = [0; 4];
        loop {
            match fdpass::receive(self.gate.as_fd(), &mut errno) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Closed by exec.
                Ok((0, _)) => return Ok(()),
                Ok(_) => {
                    let errno = Errno::from_raw(i32::from_ne_bytes(errno));
                    return Err(StartError::Exec { program: self.program.clone(), errno });
                }
                Err(error) => return Err(StartError::Gone(error)),
            }
        }
    }

    /// Tells when it has ended, and what it left behind has been ended.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn watch(&self) -> io::Result<Watch> {
        Ok(Watch::from_pipe(self.death.try_clone()?))
    }

    /// Sends the started command the signal of this number; that it has ended already is no error.
    pub fn signal(&self, number: i32) {
        self.order(number, 0);
    }

    /// The same for one that a terminal has sent to our process group: only a command that has left the group gets it
    /// from us.
    pub fn signal_of_terminal(&self, number: i32) {
        self.order(number, TERMINAL);
    }

    fn order(&self, number: i32, origin: u8) {
        // Signals have numbers from 1 to 64.
        let byte = u8::try_from(number).unwrap_or(0) | origin;
        if let Some(life) = &self.life
            && let Err(error) = write(life, &[byte])
        {
            log::debug!("cannot pass on {}: {error}", signal::name(number));
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Those of waitpid(2).
    pub fn wait(mut self) -> io::Result<Outcome> {
        self.reap()
    }

    fn reap(&mut self) -> io::Result<Outcome> {
        let ended = signal::wait_end(self.keeper)?;
        self.reaped = true;
        Ok(match ended {
            Ended::Signaled(number) => Outcome::Signaled(number),
            Ended::Exited(status) => Outcome::Exited(status),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // Whether it waits at the gate or keeps a command: it has to end now. The gate's end is of no use to a child
        // that is still opening the TAP, but what it does there does not take long.
        self.life = None;
        let _ = shutdown(self.gate.as_raw_fd(), Shutdown::Both);
        let _ = self.reap();
    }
}

/// The child's whole life.
fn in_child(
    command: &Command,
    report: impl FnOnce(BorrowedFd<'_>, Result<(), String>) -> Result<(), ()>,
    gate: OwnedFd,
    life: OwnedFd,
) -> u8 {
    let (made, cover) = match prepare(command).and_then(|()| finish(command)) {
        Ok(cover) => (Ok(()), cover),
        Err(line) => (Err(line), None),
    };
    // The TAP itself is kept by the parent alone.
    if report(gate.as_fd(), made).is_err() {
        return 1;
    }
    let mut go = [0; 1];
    match fdpass::receive(gate.as_fd(), &mut go) {
        Ok((1.., _)) => {}
        // The parent has given up, and said why.
        _ => return 1,
    }
    let keeper = Pid::this();
    let started = Keeper::new(life, cover).and_then(|ready| {
        if command.apart {
            // For whoever is forked from here on: the command is number 1 there, and all others end with it.
            unshare(CloneFlags::CLONE_NEWPID)?;
        }
        let pid = fork_child(|| {
            let errno = execute(command, keeper);
            refuse(gate.as_fd(), errno);
            1
        })?;
        Ok((ready, pid))
    });
    match started {
        Ok((ready, pid)) => {
            // Exec closes the command's copy; ours must not hide that from the parent.
            drop(gate);
            ready.stay(pid)
        }
        Err(error) => {
            refuse(gate.as_fd(), error.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
            1
        }
    }
}

/// Tells the parent why the command was not executed.
fn refuse(gate: BorrowedFd<'_>, errno: Errno) {
    let number = errno as i32;
    let _ = fdpass::send(gate, &number.to_ne_bytes(), None);
}

/// Namespaces and ids.
fn prepare(command: &Command) -> Result<(), String> {
    let (uid, gid) = (geteuid(), getegid());
    let settings = Settings::read();
    let mut kinds = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    kinds.set(CloneFlags::CLONE_NEWUTS, command.hostname.is_some());
    kinds.set(CloneFlags::CLONE_NEWIPC, command.apart);
    // A root without CAP_SYS_ADMIN, as containers have it, is refused and goes the way of all others.
    let is_user = !uid.is_root() || unshare(kinds).is_err();
    if is_user {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| settings.explain(Step::User, error))?;
        map_ids(command.identity, uid, gid).map_err(|error| {
            settings.explain(Step::Ids, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
        })?;
        unshare(kinds).map_err(|error| settings.explain(Step::Network, error))?;
    }
    // What is mounted here stays here; what the host mounts is seen.
    match mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>) {
        // mount_namespaces(7): in one that belongs to a user namespace of its own it is so from the start. The profile
        // of AppArmor for pasta does not know this call.
        Err(Errno::EACCES) if is_user => Ok(()),
        result => result.map_err(|error| settings.explain(Step::Mounts, error)),
    }
}

/// What the command may notice, when the network is there.
fn finish(command: &Command) -> Result<Option<Cover>, String> {
    allow_ping();
    allow_low_ports();
    if let Some(name) = &command.hostname {
        sethostname(name).map_err(|error| format!("cannot set the host name {name}: {}", strerror(error)))?;
    }
    match command.resolv_conf.as_deref().map(Cover::lay).transpose() {
        Ok(cover) => Ok(cover),
        Err(error) if command.resolv_conf_needed => {
            Err(format!("cannot show the command its own /etc/resolv.conf: {}", words(&error)))
        }
        Err(error) => {
            log::warn!("the command sees the host's /etc/resolv.conf: {}", words(&error));
            Ok(None)
        }
    }
}

/// A `/proc` for the process namespace that this process is the first of. Where one is covered in part, as in
/// containers, the kernel lets nobody mount another; the command sees the old one then.
fn show_own_processes() {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounted = match mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>) {
        // The profile of AppArmor for pasta knows none that comes from somewhere.
        Err(Errno::EACCES) => mount(None::<&str>, "/proc", Some("proc"), flags, None::<&str>),
        result => result,
    };
    if let Err(error) = mounted {
        log::warn!("the command sees the host's /proc: {}", strerror(error));
    }
}

fn map_ids(identity: Identity, uid: Uid, gid: Gid) -> io::Result<()> {
    let inside = |id: u32| if identity == Identity::Root { 0 } else { id };
    // A program that its user may execute but not read has a /proc that belongs to root.
    let _ = set_dumpable(true);
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{} {uid} 1", inside(uid.as_raw())))?;
    fs::write("/proc/self/gid_map", format!("{} {gid} 1", inside(gid.as_raw())))
}

/// In the command's process. Returns only if it fails.
fn execute(command: &Command, keeper: Pid) -> Errno {
    let words: Result<Vec<CString>, _> =
        command.words.iter().map(|word| CString::new(word.as_bytes())).collect();
    let Ok(mut words) = words else { return Errno::EINVAL };
    let Some(program) = words.first().cloned() else { return Errno::ENOENT };
    if let (Some(name), Some(first)) = (&command.argv0, words.first_mut()) {
        let Ok(name) = CString::new(name.as_bytes()) else { return Errno::EINVAL };
        *first = name;
    }
    // The keeper might have been killed before this took effect. From another process namespace it cannot be seen.
    let parent = if command.apart { Pid::from_raw(0) } else { keeper };
    match set_pdeathsig(Signal::SIGKILL) {
        Ok(()) if getppid() == parent => {}
        Ok(()) => return Errno::ESRCH,
        Err(errno) => return errno,
    }
    if command.apart {
        show_own_processes();
    }
    if let Err(error) = command.inheritance.restore() {
        return error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    }
    match execvp(&program, &words) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

#[cfg(test)]
mod tests;
