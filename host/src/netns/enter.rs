//! Enters an existing namespace to open the guest's TAP there.
//!
//! A forked child joins the user namespace (so that it may do anything in the network namespace that belongs to it),
//! then the network namespace. That the user namespace cannot be joined is no error yet: container engines run us
//! inside of it already, where the kernel answers EINVAL. It is mentioned if the network namespace cannot be joined
//! either.

use super::configure::Setup;
use super::{NetnsError, Watch};
use crate::device::Tap;
use crate::sandbox::tracers;
use crate::strerror::{strerror, words};
use crate::sys::fdpass;
use crate::sys::proc::{fork_child, wait_for};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The longest line that the child reports.
const LINE_MAX: usize = 4096;

/// The namespaces to enter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The user namespace, joined first.
    pub userns: Option<PathBuf>,
    /// The network namespace.
    pub netns: PathBuf,
}

impl Target {
    /// The namespaces of the process `pid`.
    #[must_use]
    pub fn pid(pid: Pid) -> Self {
        Self {
            userns: Some(PathBuf::from(format!("/proc/{pid}/ns/user"))),
            netns: PathBuf::from(format!("/proc/{pid}/ns/net")),
        }
    }

    /// The network namespace at `path`, within the caller's user namespace.
    #[must_use]
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self { userns: None, netns: path.into() }
    }

    /// The same, but with `userns` joined first, if it is given.
    #[must_use]
    pub fn with_userns(self, userns: Option<PathBuf>) -> Self {
        Self { userns: userns.or(self.userns), netns: self.netns }
    }

    /// Joins both. Only for a process with one thread.
    fn join(&self, watch: Option<&Watch>) -> Result<(), String> {
        let user = self.userns.as_ref().map(|path| (path, find(path).and_then(|file| enter_user(&file))));
        let opened = find(&self.netns);
        // A number may have been passed on before its namespace was opened by it; but not while its process lived.
        if watch.is_some_and(Watch::process_is_gone) {
            return Err(format!("whoever had {} is gone", self.netns.display()));
        }
        let joined = opened.and_then(|file| setns(&file, CloneFlags::CLONE_NEWNET).map_err(strerror));
        let Err(error) = joined else { return Ok(()) };
        let mut line = format!("cannot join the network namespace {}: {error}", self.netns.display());
        if let Some((path, Err(error))) = user {
            line += &format!(" (nor its user namespace {}: {error})", path.display());
        }
        Err(line)
    }
}

fn find(path: &Path) -> Result<File, String> {
    open_file(path).map(File::from).map_err(|error| words(&error))
}

/// Opens the file of a namespace.
///
/// # Errors
/// Those of open(2).
pub fn open_file(path: &Path) -> io::Result<OwnedFd> {
    // A FIFO in its place would have us wait for a writer.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    opened.map(OwnedFd::from)
}

fn enter_user(file: &File) -> Result<(), String> {
    setns(file, CloneFlags::CLONE_NEWUSER).map_err(strerror)
}

/// The namespaces that were made for a command.
#[derive(Debug)]
pub struct Namespaces {
    /// Its user namespace; that of this process, if none was made.
    pub user: OwnedFd,
    /// Its network namespace.
    pub net: OwnedFd,
}

/// A TAP that came out of a namespace.
#[derive(Debug)]
pub struct Opened {
    /// It, in this process.
    pub tap: Tap,
    /// The descriptor's number in the child (`sent tapfd=5 for tap0`).
    pub sent_fd: RawFd,
}

impl Opened {
    /// The descriptor's number in this process (`received tapfd=5`).
    #[must_use]
    pub fn received_fd(&self) -> RawFd {
        self.tap.as_fd().as_raw_fd()
    }
}

/// Opens (or attaches to) the TAP `name` in `target`, and sets it up if that is wanted. This process stays where it
/// is. Call it before starting threads.
///
/// # Errors
/// [`NetnsError::Child`] with one line for the user in all ordinary cases.
pub fn open_tap(target: &Target, name: &str, wanted: Option<&Setup>) -> Result<Opened, NetnsError> {
    open(target, None, name, wanted)
}

/// The same for a process that was watched before its namespaces were named: when it has ended meanwhile, its number
/// may be another's, and nothing is touched.
///
/// # Errors
/// As [`open_tap`].
pub fn open_tap_of(
    watch: &Watch,
    target: &Target,
    name: &str,
    wanted: Option<&Setup>,
) -> Result<Opened, NetnsError> {
    open(target, Some(watch), name, wanted)
}

fn open(
    target: &Target,
    watch: Option<&Watch>,
    name: &str,
    wanted: Option<&Setup>,
) -> Result<Opened, NetnsError> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|error| NetnsError::system("make a socket pair", error))?;
    let child = fork_child(|| {
        // Root of the guest's user namespace must not get hold of a process that is a copy of ours.
        let kept_out = tracers::keep_out().map_err(|error| error.to_string());
        let result = kept_out.and_then(|()| target.join(watch)).and_then(|()| open_here(name, wanted));
        u8::from(report_tap(theirs.as_fd(), result).is_err())
    })
    .map_err(|error| NetnsError::system("fork", error))?;
    drop(theirs);
    let answer = receive(ours.as_fd());
    let status = wait_for(child);
    match (answer, status) {
        (Ok(Answer::Tap(opened)), _) => Ok(opened),
        (Ok(Answer::Namespaces(_)), _) => Err(NetnsError::system("receive the TAP", Errno::EPROTO)),
        (Ok(Answer::Failure(message)), _) => Err(NetnsError::Child { message, status: 1 }),
        (_, Ok(WaitStatus::Signaled(_, signal, _))) => Err(NetnsError::Killed(signal.to_string())),
        (Err(error), _) => Err(error),
    }
}

/// Opens and sets up the TAP in the calling thread's network namespace.
pub(super) fn open_here(name: &str, wanted: Option<&Setup>) -> Result<Tap, String> {
    let tap = Tap::open(name).map_err(|error| error.to_string())?;
    if let Some(wanted) = wanted {
        wanted.apply(tap.name()).map_err(|error| error.to_string())?;
    }
    Ok(tap)
}

// The child's one message: a byte for its kind, then the descriptor's number, or the line.
const TAP: u8 = b'T';
pub(super) const NAMESPACES: u8 = b'N';
const FAILURE: u8 = b'E';

/// What the child reports.
#[derive(Debug)]
pub(super) enum Answer {
    Tap(Opened),
    Namespaces(Namespaces),
    Failure(String),
}

/// Sends the result to the parent; `Err` when it was a failure or could not be sent.
pub(super) fn report_tap(socket: BorrowedFd<'_>, result: Result<Tap, String>) -> Result<(), ()> {
    match result {
        Ok(tap) => {
            let [a, b, c, d] = tap.as_fd().as_raw_fd().to_ne_bytes();
            fdpass::send(socket, &[TAP, a, b, c, d], Some(tap.as_fd())).map_err(drop)
        }
        Err(line) => {
            report_failure(socket, &line);
            Err(())
        }
    }
}

pub(super) fn report_failure(socket: BorrowedFd<'_>, line: &str) {
    let mut message = vec![FAILURE];
    message.extend(line.bytes().take(LINE_MAX - 1));
    if let Err(error) = fdpass::send(socket, &message, None) {
        log::debug!("the parent is gone: {error}");
    }
}

/// Receives the child's message.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<Answer, NetnsError> {
    let mut buffer = [0; LINE_MAX];
    let (len, mut fds) = receive_message(socket, &mut buffer)?;
    match (buffer.get(..len), fds.pop(), fds.pop()) {
        (Some([NAMESPACES]), Some(net), Some(user)) => Ok(Answer::Namespaces(Namespaces { user, net })),
        (Some([TAP, number @ ..]), Some(fd), None) => {
            let sent_fd = number.try_into().map(RawFd::from_ne_bytes).unwrap_or(-1);
            let tap = Tap::from_owned_fd(fd).map_err(|error| NetnsError::system("use the TAP", error))?;
            Ok(Answer::Tap(Opened { tap, sent_fd }))
        }
        (Some([FAILURE, line @ ..]), ..) => Ok(Answer::Failure(String::from_utf8_lossy(line).into_owned())),
        _ => Err(NetnsError::Child {
            message: "the helper process ended without a word".to_owned(),
            status: 1,
        }),
    }
}

fn receive_message(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), NetnsError> {
    loop {
        match fdpass::receive_all(socket, buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(|error| NetnsError::system("receive the TAP", error)),
        }
    }
}

#[cfg(test)]
mod tests;
