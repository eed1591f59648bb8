//! The starter: a small process beside the supervisor that executes the workers for it.
//!
//! ```text
//!   supervisor ── start NAME, with the worker's end of its line ──▶ starter ── fork, exec ──▶ worker
//!              ◀── its process id ─────────────────────────────────
//!              ── terminate, kill, is it there? ──────────────────▶
//! ```
//! The supervisor reads what others send, so it executes nothing any more, and takes its own sandbox: nobody who took
//! it over would come further than to have workers started, of this program and no other. The starter never meets
//! anything but the supervisor's orders: a kind, a number or a name. It ends with the supervisor, whose end of the
//! socket it reads to the end; so do the workers, each with its own line.

use super::worker::{LEVEL, NAME};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, dup2_stdin, setpgid};
use slipway_host::sys::fdpass;
use slipway_host::sys::proc::{close_inherited, fork_child};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// The running program, also when its file has been replaced since.
const SELF: &str = "/proc/self/exe";
/// More than the longest order.
const LONGEST: usize = 4096;

const START: u8 = b's';
const KILL: u8 = b'k';
const TERMINATE: u8 = b't';
const HAS: u8 = b'h';

/// The supervisor's end.
#[derive(Debug)]
pub struct Starter(OwnedFd);

impl Starter {
    /// Starts the starter: before there are other threads, and before there is anything that workers must not inherit.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // Each process closes the other's end.
        let (mut ours, mut theirs) = (Some(ours), Some(theirs));
        fork_child(|| {
            ours = None;
            theirs.take().map_or(1, |theirs| u8::from(stay(theirs).is_err()))
        })?;
        drop(theirs);
        ours.map(Self).ok_or_else(|| Errno::EBADF.into())
    }

    /// One whose part a test plays.
    #[cfg(test)]
    pub(super) const fn played(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Has a worker executed, whose standard input `line` becomes; gives its process id.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(&self, name: &str, line: BorrowedFd<'_>) -> io::Result<i32> {
        // The name is for those who list processes.
        let cut = name.get(..name.floor_char_boundary(LONGEST - 1)).unwrap_or_default();
        match self.ask(&[&[START], cut.as_bytes()].concat(), Some(line))? {
            pid @ 1.. => Ok(pid),
            errno => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
        }
    }

    /// Kills a worker that has not been waited for.
    pub fn kill(&self, pid: i32) {
        // A starter that is gone has no workers.
        let _ = self.ask(&numbered(KILL, pid), None);
    }

    /// Sends SIGTERM to a worker that has not been waited for.
    pub fn terminate(&self, pid: i32) {
        let _ = self.ask(&numbered(TERMINATE, pid), None);
    }

    /// Whether a worker is still there; one that has ended has been waited for by then.
    #[must_use]
    pub fn has(&self, pid: i32) -> bool {
        self.ask(&numbered(HAS, pid), None).is_ok_and(|answer| answer == 1)
    }

    fn ask(&self, order: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<i32> {
        fdpass::send(self.0.as_fd(), order, fd)?;
        let mut answer = [0; 4];
        match fdpass::receive(self.0.as_fd(), &mut answer)? {
            (4, _) => Ok(i32::from_ne_bytes(answer)),
            _ => Err(Errno::EPIPE.into()),
        }
    }
}

impl AsFd for Starter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn numbered(kind: u8, pid: i32) -> Vec<u8> {
    [&[kind][..], &pid.to_ne_bytes()].concat()
}

/// The starter's whole life.
fn stay(socket: OwnedFd) -> io::Result<()> {
    // What comes from the terminal or the service manager is for the supervisor; this ends with it.
    SigSet::all().thread_block()?;
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    dup2_stdin(&socket)?;
    drop(socket);
    // The socket that systemd handed over, for one: workers would inherit it.
    close_inherited(None)?;
    let socket = fdpass::take_inherited(0)?;
    let mut children = BTreeMap::new();
    while let Some(answer) = obey(&socket, &mut children)? {
        fdpass::send(socket.as_fd(), &answer.to_ne_bytes(), None)?;
    }
    Ok(())
}

/// One order; `None` when there will be no more.
fn obey(socket: &OwnedFd, children: &mut BTreeMap<i32, Child>) -> io::Result<Option<i32>> {
    let mut order = [0; LONGEST];
    let (len, fd) = fdpass::receive(socket.as_fd(), &mut order)?;
    let number = |bytes: &[u8]| bytes.try_into().map(i32::from_ne_bytes).unwrap_or(0);
    Ok(Some(match (order.get(..len), fd) {
        (None | Some([]), _) => return Ok(None),
        (Some([START, name @ ..]), Some(line)) => match execute(OsStr::from_bytes(name), line) {
            Ok(child) => {
                let pid = i32::try_from(child.id()).unwrap_or(0);
                children.insert(pid, child);
                pid
            }
            Err(error) => error.raw_os_error().unwrap_or(Errno::EIO as i32).saturating_neg(),
        },
        (Some([KILL, pid @ ..]), _) => {
            // Not waited for yet, so the number is its own.
            children.get_mut(&number(pid)).map_or(0, |child| i32::from(child.kill().is_ok()))
        }
        (Some([TERMINATE, pid @ ..]), _) => {
            let pid = number(pid);
            let term = |_| kill(Pid::from_raw(pid), Signal::SIGTERM);
            i32::from(children.get(&pid).is_some_and(|child| term(child).is_ok()))
        }
        (Some([HAS, pid @ ..]), _) => {
            let pid = number(pid);
            // An error: nobody can wait for it any more.
            let runs = children.get_mut(&pid).is_some_and(|child| matches!(child.try_wait(), Ok(None)));
            if !runs {
                children.remove(&pid);
            }
            i32::from(runs)
        }
        (Some(_), _) => 0_i32.saturating_sub(Errno::EINVAL as i32),
    }))
}

fn execute(name: &OsStr, line: OwnedFd) -> io::Result<Child> {
    Command::new(SELF)
        .arg0(NAME)
        .arg(name)
        .env(LEVEL, log::max_level().as_str())
        .stdin(Stdio::from(line))
        .stdout(Stdio::null())
        // The terminal's signals are for the supervisor.
        .process_group(0)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_that_make_no_sense_start_and_kill_nobody() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let mut children = BTreeMap::new();
        let invalid = Some(-(Errno::EINVAL as i32));
        for (order, answer) in [
            (&b"s"[..], invalid),
            (b"x", invalid),
            (b"k\x01", Some(0)),
            (b"k\x01\0\0\0", Some(0)),
            (b"t\x01\0\0\0", Some(0)),
            (b"h\x01\0\0\0", Some(0)),
            (b"w", invalid),
        ] {
            fdpass::send(ours.as_fd(), order, None).unwrap();
            assert_eq!(obey(&theirs, &mut children).unwrap(), answer, "{order:?}");
        }
        assert!(children.is_empty());
        drop(ours);
        assert_eq!(obey(&theirs, &mut children).unwrap(), None);
    }
}
