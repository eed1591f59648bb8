//! Notices that a target has ended: a process by its pidfd, a namespace that was bound to a path by the path's end.
//!
//! A namespace itself tells nobody that it is empty, and our TAP keeps it alive anyway. So the process that was named
//! is watched, or the file: engines unlink it when they are done (`ip netns delete`, Podman). Nothing is polled.

use crate::sys::proc::pidfd_open;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A target whose end is awaited.
#[derive(Debug)]
pub struct Watch {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Process(OwnedFd),
    File { inotify: Inotify, path: PathBuf, identity: (u64, u64) },
}

impl Watch {
    /// Watches the process `pid`.
    ///
    /// # Errors
    /// ESRCH when there is none.
    pub fn process(pid: Pid) -> io::Result<Self> {
        Ok(Self::from_pidfd(pidfd_open(pid)?))
    }

    pub(super) fn from_pidfd(pidfd: OwnedFd) -> Self {
        Self { kind: Kind::Process(pidfd) }
    }

    /// Watches what is at `path`; `/proc/PID/...` means the process.
    ///
    /// # Errors
    /// ENOENT when nothing is there; those of inotify(7).
    pub fn path(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let identity = identity(&path)?;
        if let Some(pid) = process_of(&path) {
            return Self::process(pid);
        }
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let gone = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_CREATE;
        inotify.add_watch(path.parent().unwrap_or_else(|| Path::new("/")), gone)?;
        Ok(Self { kind: Kind::File { inotify, path, identity } })
    }

    /// To be asked when the descriptor is readable.
    #[must_use]
    pub fn ended(&self) -> bool {
        match &self.kind {
            Kind::Process(_) => true,
            Kind::File { inotify, path, identity: first } => {
                // What happened does not matter, only what is there now.
                while matches!(inotify.read_events(), Ok(_) | Err(Errno::EINTR)) {}
                identity(path).ok() != Some(*first)
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Process(fd) => fd.as_fd(),
            Kind::File { inotify, .. } => inotify.as_fd(),
        }
    }
}

/// Device and inode: a namespace's own, when one is bound to the path.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// The process that `/proc/PID/...` belongs to.
fn process_of(path: &Path) -> Option<Pid> {
    let below = path.strip_prefix("/proc").ok()?;
    let pid: i32 = below.components().next()?.as_os_str().to_str()?.parse().ok()?;
    (pid > 0).then(|| Pid::from_raw(pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::proc::{fork_child, wait_for};
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::{Signal, kill};

    fn readable(watch: &Watch, patience: u16) -> bool {
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(patience)).unwrap() == 1
    }

    #[test]
    fn a_process_ends() {
        let child = fork_child(|| {
            std::thread::sleep(std::time::Duration::from_secs(30));
            0
        })
        .unwrap();
        let by_pid = Watch::process(child).unwrap();
        let by_path = Watch::path(Path::new(&format!("/proc/{child}/ns/net"))).unwrap();
        assert!(!readable(&by_pid, 0) && !readable(&by_path, 0));
        kill(child, Signal::SIGKILL).unwrap();
        assert!(readable(&by_pid, 5000) && readable(&by_path, 5000));
        assert!(by_pid.ended() && by_path.ended());
        wait_for(child).unwrap();
        assert!(Watch::process(child).is_err());
    }

    #[test]
    fn a_file_ends_when_it_is_removed_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns");
        std::fs::write(&path, "").unwrap();
        let watch = Watch::path(&path).unwrap();
        std::fs::write(dir.path().join("other"), "").unwrap();
        assert!(readable(&watch, 1000) && !watch.ended(), "a neighbour is no matter");
        assert!(!readable(&watch, 0), "and read away");
        std::fs::rename(dir.path().join("other"), &path).unwrap();
        assert!(readable(&watch, 1000) && watch.ended());
        let watch = Watch::path(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(readable(&watch, 1000) && watch.ended());
        assert!(Watch::path(&path).is_err());
    }
}
