//! Notices that a target has ended: a process by its pidfd, a namespace that was bound to a path by the path's end, a
//! child of ours by a pipe that it holds.
//!
//! Where the kernel, or the filter of a container around us, gives no pidfd, the process's directory in /proc is opened
//! (so that its number cannot pass to another unnoticed) and looked at once a second.
//!
//! A namespace itself tells nobody that it is empty, and our TAP keeps it alive anyway. So the process that was named
//! is watched, or the file: engines unlink it when they are done (`ip netns delete`, Podman). Where a user's instances
//! of inotify(7) are used up (128 are the kernel's default, and each container may take some), the name is looked at
//! once a second instead. Nothing else is polled.
//!
//! Limits: a namespace that is bound to a path and has no process left goes on for us until that path is removed or
//! replaced; unmounting alone tells nobody. After the start no path is looked up again, for a sandbox may hide it.

use crate::sys::proc::pidfd_open;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use nix::sys::stat::{Mode, fstatat};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
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
    /// The other end is closed by its end.
    Pipe(OwnedFd),
    /// `/proc/PID`, looked at when the timer says so.
    Polled {
        process: OwnedFd,
        timer: TimerFd,
    },
    /// The directory is watched, of which only one name matters.
    File {
        inotify: Inotify,
        name: OsString,
    },
    /// A name in an open directory, looked at when the timer says so: whether it still is this file.
    Looked {
        directory: OwnedFd,
        name: OsString,
        file: (u64, u64),
        timer: TimerFd,
    },
}

impl Watch {
    /// Watches the process `pid`.
    ///
    /// # Errors
    /// ESRCH when there is none; whatever stands in the way of looking at it.
    pub fn process(pid: Pid) -> io::Result<Self> {
        match pidfd_open(pid) {
            Ok(pidfd) => Ok(Self { kind: Kind::Process(pidfd) }),
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Err(error),
            // ENOSYS of an old kernel, or whatever a filter answers to calls that it does not know.
            Err(error) => {
                log::debug!("the process {pid} is looked at now and then: {error}");
                Self::polled(pid)
            }
        }
    }

    fn polled(pid: Pid) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let process = open(format!("/proc/{pid}").as_str(), flags, Mode::empty())
            .map_err(|errno| if errno == Errno::ENOENT { Errno::ESRCH } else { errno })?;
        Ok(Self { kind: Kind::Polled { process, timer: each_second()? } })
    }

    pub(super) fn from_pipe(pipe: OwnedFd) -> Self {
        Self { kind: Kind::Pipe(pipe) }
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
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .and_then(|inotify| inotify.add_watch(dir, GONE | AddWatchFlags::IN_ONLYDIR).map(|_| inotify));
        let watch = match inotify {
            Ok(inotify) => Self { kind: Kind::File { inotify, name: name.to_owned() } },
            Err(errno @ (Errno::ENOENT | Errno::ENOTDIR)) => return Err(errno.into()),
            Err(errno) => {
                log::debug!("{} is looked at now and then: {errno}", path.display());
                return Self::looked(dir, name);
            }
        };
        // Last, or its end could be missed.
        std::fs::metadata(&path)?;
        Ok(watch)
    }

    fn looked(directory: &Path, name: &OsStr) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(directory, flags, Mode::empty())?;
        let file = identity(&directory, name)?;
        let kind = Kind::Looked { directory, name: name.to_owned(), file, timer: each_second()? };
        Ok(Self { kind })
    }

    /// Whether a watched process has ended already.
    pub(super) fn process_is_gone(&self) -> bool {
        match &self.kind {
            Kind::Process(pidfd) => {
                let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
            }
            Kind::Polled { process, .. } => has_ended(process),
            Kind::Pipe(_) | Kind::File { .. } | Kind::Looked { .. } => false,
        }
    }

    /// To be asked once when the descriptor is readable: what has happened is read away.
    #[must_use]
    pub fn ended(&self) -> bool {
        match &self.kind {
            Kind::Process(_) | Kind::Pipe(_) => true,
            Kind::Polled { process, timer } => {
                let _ = timer.wait();
                has_ended(process)
            }
            Kind::Looked { directory, name, file, timer } => {
                let _ = timer.wait();
                match identity(directory, name) {
                    Ok(found) => found != *file,
                    // What may not be looked at any more is there, for all that we know.
                    Err(errno) => matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE),
                }
            }
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
            Kind::Process(fd) | Kind::Pipe(fd) => fd.as_fd(),
            Kind::Polled { timer, .. } | Kind::Looked { timer, .. } => timer.as_fd(),
            Kind::File { inotify, .. } => inotify.as_fd(),
        }
    }
}

fn each_second() -> io::Result<TimerFd> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    timer.set(Expiration::Interval(TimeSpec::seconds(1)), TimerSetTimeFlags::empty())?;
    Ok(timer)
}

/// Which file has this name.
fn identity(directory: &OwnedFd, name: &OsStr) -> Result<(u64, u64), Errno> {
    let found = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok((found.st_dev, found.st_ino))
}

/// Whether the process of this directory in /proc has ended, be it that nobody has waited for it yet.
fn has_ended(process: &OwnedFd) -> bool {
    let mut text = String::new();
    let read = openat(process, "stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|fd| File::from(fd).read_to_string(&mut text));
    match read {
        // proc_pid_stat(5): behind the name, which may hold anything, comes the state.
        Ok(_) => {
            matches!(text.rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('Z' | 'X' | 'x'))
        }
        // Out of descriptors, for instance, is no end.
        Err(error) => {
            let gone = [Errno::ESRCH, Errno::ENOENT].map(|errno| Some(errno as i32));
            gone.contains(&error.raw_os_error())
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
    fn without_a_pidfd_a_process_is_looked_at() {
        let child = fork_child(|| {
            std::thread::sleep(std::time::Duration::from_secs(30));
            0
        })
        .unwrap();
        let watch = Watch::polled(child).unwrap();
        assert!(readable(&watch, 5000) && !watch.ended());
        kill(child, Signal::SIGKILL).unwrap();
        // A zombie first, nobody then.
        let ended = || (0..10).any(|_| readable(&watch, 5000) && watch.ended());
        assert!(ended());
        wait_for(child).unwrap();
        assert!(ended());
        assert_eq!(Watch::polled(child).unwrap_err().raw_os_error(), Some(Errno::ESRCH as i32));
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

    #[test]
    fn without_inotify_a_name_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns");
        std::fs::write(&path, "").unwrap();
        let watch = Watch::looked(dir.path(), OsStr::new("ns")).unwrap();
        assert!(readable(&watch, 5000) && !watch.ended(), "a second has passed, and it is there");
        std::fs::write(dir.path().join("other"), "").unwrap();
        std::fs::rename(dir.path().join("other"), &path).unwrap();
        assert!(readable(&watch, 5000) && watch.ended(), "another has its name");
        let watch = Watch::looked(dir.path(), OsStr::new("ns")).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(readable(&watch, 5000) && watch.ended());
        assert!(Watch::looked(dir.path(), OsStr::new("ns")).is_err());
    }
}
