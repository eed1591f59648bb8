//! Notices that a target has ended: a process by its pidfd, a namespace that was bound to a path by the path's end.
//!
//! A namespace itself tells nobody that it is empty, and our TAP keeps it alive anyway. So the process that was named
//! is watched, or the file: engines unlink it when they are done (`ip netns delete`, Podman). Nothing is polled.
//!
//! Limits: a namespace that is bound to a path and has no process left goes on for us until that path is removed or
//! replaced; unmounting alone tells nobody. After the start no path is looked up again, for a sandbox may hide it.

use crate::sys::proc::pidfd_open;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A target whose end is awaited.
#[derive(Debug)]
pub struct Watch {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Process(OwnedFd),
    /// The directory is watched, of which only one name matters.
    File {
        inotify: Inotify,
        name: OsString,
    },
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

    /// Watches what is at `path`; `/proc/PID/...` means the process, even at the end of links.
    ///
    /// # Errors
    /// ENOENT when nothing is there; those of inotify(7).
    pub fn path(path: &Path) -> io::Result<Self> {
        let path = follow(std::path::absolute(path)?)?;
        if let Some(pid) = process_of(&path) {
            return Self::process(pid);
        }
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::EISDIR.into());
        };
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(dir, GONE | AddWatchFlags::IN_ONLYDIR)?;
        // Last, or its end could be missed.
        std::fs::metadata(&path)?;
        Ok(Self { kind: Kind::File { inotify, name: name.to_owned() } })
    }

    /// Whether a watched process has ended already.
    pub(super) fn process_is_gone(&self) -> bool {
        let Kind::Process(pidfd) = &self.kind else { return false };
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// To be asked once when the descriptor is readable: what has happened is read away.
    #[must_use]
    pub fn ended(&self) -> bool {
        match &self.kind {
            Kind::Process(_) => true,
            Kind::File { inotify, name } => {
                let mut ended = false;
                loop {
                    match inotify.read_events() {
                        Ok(events) => ended |= events.iter().any(|event| ends(event, name)),
                        Err(Errno::EINTR) => {}
                        Err(_) => return ended,
                    }
                }
            }
        }
    }
}

/// The name goes, is given to something else, or the directory itself goes.
const GONE: AddWatchFlags = AddWatchFlags::IN_DELETE
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// Whether this is the end of `name`. Without a name it is about the directory. That events were lost, and with
/// them perhaps the one awaited, happens after 16384 of them unread: it is no end.
fn ends(event: &InotifyEvent, name: &OsStr) -> bool {
    match &event.name {
        Some(named) => named == name,
        None => !event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW),
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

/// The file itself, in place of a link to it. The links below `/proc/PID` are none that could be followed by name.
fn follow(mut path: PathBuf) -> io::Result<PathBuf> {
    // As many as the kernel follows.
    for _ in 0..40 {
        if process_of(&path).is_some() || !std::fs::symlink_metadata(&path)?.is_symlink() {
            return Ok(path);
        }
        let link = std::fs::read_link(&path)?;
        path = path.parent().unwrap_or_else(|| Path::new("/")).join(link);
    }
    Err(Errno::ELOOP.into())
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
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
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
        let path = format!("/proc/{child}/ns/net");
        let by_path = Watch::path(Path::new(&path)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(path, dir.path().join("first")).unwrap();
        std::os::unix::fs::symlink("first", dir.path().join("second")).unwrap();
        let by_link = Watch::path(&dir.path().join("second")).unwrap();
        let all = [by_pid, by_path, by_link];
        assert!(all.iter().all(|watch| !readable(watch, 0)));
        kill(child, Signal::SIGKILL).unwrap();
        assert!(all.iter().all(|watch| readable(watch, 5000) && watch.ended()));
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
        std::fs::rename(dir.path().join("other"), dir.path().join("same")).unwrap();
        assert!(readable(&watch, 1000) && !watch.ended(), "a neighbour is no matter");
        assert!(!readable(&watch, 0), "and read away");
        std::fs::rename(dir.path().join("same"), &path).unwrap();
        assert!(readable(&watch, 1000) && watch.ended());
        let watch = Watch::path(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(readable(&watch, 1000) && watch.ended());
        assert!(Watch::path(&path).is_err());
    }

    #[test]
    fn a_bound_namespace_ends_with_its_name() {
        let name = "a_bound_namespace_ends_with_its_name";
        crate::netns::testing::in_new_mounts(name, || {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ns");
            std::fs::write(&path, "").unwrap();
            mount(Some("/proc/self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            let watch = Watch::path(&path).unwrap();
            std::fs::write(dir.path().join("neighbour"), "").unwrap();
            std::fs::remove_file(dir.path().join("neighbour")).unwrap();
            assert!(readable(&watch, 1000) && !watch.ended());
            umount2(&path, MntFlags::MNT_DETACH).unwrap();
            assert!(!readable(&watch, 0));
            std::fs::remove_file(&path).unwrap();
            assert!(readable(&watch, 1000) && watch.ended());
        });
    }

    #[test]
    fn what_cannot_be_watched_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let looped = dir.path().join("loop");
        std::os::unix::fs::symlink("loop", &looped).unwrap();
        assert_eq!(Watch::path(&looped).unwrap_err().raw_os_error(), Some(Errno::ELOOP as i32));
        assert_eq!(Watch::path(Path::new("/")).unwrap_err().raw_os_error(), Some(Errno::EISDIR as i32));
        assert!(Watch::path(Path::new("/proc/0/ns/net")).is_err());
    }
}
