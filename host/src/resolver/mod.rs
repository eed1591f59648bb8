//! The host's resolver configuration, followed while it changes.
//!
//! Guests ask our DNS address; the engine passes each query on to one of the host's nameservers and goes on to the next when
//! one is silent. Which servers these are changes while we run: a VPN comes up, a laptop moves to another network. So
//! `/etc/resolv.conf` is read again whenever its content may have changed.
//!
//! * [`conf`] reads the text. Pure; no input makes it fail.
//! * [`trail`] walks the symbolic links to the file, and says which directory entries decide where it is.
//! * [`Resolver`] watches exactly those entries with inotify(7), so that replacing the file by rename, pointing the link elsewhere,
//!   removing and creating it, and writing it in place are all noticed. Idle costs nothing: no timer, no periodic stat.
//!
//! Open it *after* the sandbox has changed the root (`/etc` and `/run` are visible there too): watches hold inodes and would
//! survive the change, but the paths to look at after a change are looked up anew, and should be the same ones from the start.
//!
//! Limits. Changes of a *file* that the sandbox had to bind on its own, because it lies outside `/etc` and `/run`, are seen when it is
//! written in place, not when it is replaced by rename: a bind mount pins the old inode. Network file systems do not
//! report changes made by others. When the user's inotify instances are used up, [`Resolver::needs_polling`] says so and
//! the caller calls [`Resolver::refresh_if_changed`] now and then, which costs one stat(2) when nothing has changed.

pub mod conf;
pub mod trail;

pub use conf::ResolvConf;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use trail::Trail;

/// Where the C library looks, and so do we.
pub const PATH: &str = "/etc/resolv.conf";

/// Rounds of "watch, then see whether the trail is still the same" before we make do with what we have. Each further
/// round needs the trail to have changed within microseconds; the watches set so far report it anyway.
const SETTLE_ROUNDS: usize = 4;

/// What can change a directory entry or the file behind it. Modification is left out on purpose: a writer that truncates
/// first would be seen half way; its close is enough.
fn directory_events() -> AddWatchFlags {
    AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
}

/// What can change the file itself. Needed beside the directory when the file is bind-mounted from elsewhere, as in
/// containers: then writes are reported to the directory it came from.
fn file_events() -> AddWatchFlags {
    AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF
}

/// The host's nameservers, kept up to date.
#[derive(Debug)]
pub struct Resolver {
    path: PathBuf,
    inotify: Option<Inotify>,
    watches: Vec<Watch>,
    current: ResolvConf,
    stamp: Option<Stamp>,
}

/// One inotify watch, and the names in that directory that matter; `None` for the file itself.
#[derive(Debug)]
struct Watch {
    descriptor: WatchDescriptor,
    names: Option<Vec<OsString>>,
}

/// Enough of stat(2) to tell whether a file may have changed.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Resolver {
    /// Reads `path` and watches it. A file that does not exist is the same as an empty one, and is noticed when it appears.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let inotify = match Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC) {
            Ok(inotify) => Some(inotify),
            Err(error) => {
                log::warn!("changes of {} are noticed late: inotify: {}", path.display(), error.desc());
                None
            }
        };
        let mut resolver = Self {
            path: path.to_owned(),
            inotify,
            watches: Vec::new(),
            current: ResolvConf::default(),
            stamp: None,
        };
        resolver.watch();
        resolver.stamp = resolver.stat();
        resolver.current = resolver.read();
        resolver
    }

    /// What the file says now.
    #[must_use]
    pub const fn current(&self) -> &ResolvConf {
        &self.current
    }

    /// The nameservers, in the file's order.
    #[must_use]
    pub fn nameservers(&self) -> Vec<IpAddr> {
        self.current.nameservers.clone()
    }

    /// Becomes readable when the file may have changed; `None` if the system could not give us inotify.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(|inotify| inotify.as_fd())
    }

    /// Whether [`Resolver::refresh_if_changed`] has to be called now and then, because nothing will become readable.
    #[must_use]
    pub const fn needs_polling(&self) -> bool {
        self.inotify.is_none()
    }

    /// To be called when the descriptor is readable. Returns the new content if it really is another.
    pub fn on_ready(&mut self) -> Option<&ResolvConf> {
        let mut relevant = false;
        // Bounded by what the kernel queues (fs.inotify.max_queued_events) in a directory that only the host can write to.
        while let Some(events) = self.events() {
            relevant |= events.iter().any(|event| self.concerns(event));
        }
        if relevant { self.reload() } else { None }
    }

    /// Looks whether the file has changed and returns its content if it is another. For systems without inotify.
    pub fn refresh_if_changed(&mut self) -> Option<&ResolvConf> {
        let now = self.stat();
        if now == self.stamp { None } else { self.reload() }
    }

    fn reload(&mut self) -> Option<&ResolvConf> {
        self.watch();
        self.stamp = self.stat();
        let fresh = self.read();
        if fresh == self.current {
            return None;
        }
        self.current = fresh;
        Some(&self.current)
    }

    /// A batch of queued events; `None` when the queue is empty.
    fn events(&self) -> Option<Vec<InotifyEvent>> {
        let inotify = self.inotify.as_ref()?;
        loop {
            match inotify.read_events() {
                Ok(events) => return Some(events),
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }

    fn concerns(&self, event: &InotifyEvent) -> bool {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return true;
        }
        // Events of watches that have been given up may still be queued.
        let Some(watch) = self.watches.iter().find(|watch| watch.descriptor == event.wd) else {
            return false;
        };
        match (&watch.names, &event.name) {
            (Some(names), Some(name)) => names.contains(name),
            // About the directory or the file itself: moved, deleted, or the watch is gone.
            _ => true,
        }
    }

    /// Makes the watches fit the trail as it is now. On return a change of the trail or of the file leaves an event, unless the
    /// system has no watches left to give.
    fn watch(&mut self) {
        let mut trail = Trail::of(&self.path);
        for _ in 0..SETTLE_ROUNDS {
            self.watch_trail(&trail);
            let again = Trail::of(&self.path);
            if again == trail {
                break;
            }
            trail = again;
        }
    }

    fn watch_trail(&mut self, trail: &Trail) {
        let Some(inotify) = &self.inotify else { return };
        let mut watches: Vec<Watch> = Vec::new();
        for hop in &trail.hops {
            // A directory that has vanished meanwhile is noticed by the next round.
            let Ok(descriptor) = inotify.add_watch(&hop.directory, directory_events()) else { continue };
            match watches.iter_mut().find(|watch| watch.descriptor == descriptor) {
                Some(Watch { names: Some(names), .. }) => names.push(hop.name.clone()),
                _ => watches.push(Watch { descriptor, names: Some(vec![hop.name.clone()]) }),
            }
        }
        if let Some(end) = &trail.end
            && let Ok(descriptor) = inotify.add_watch(end, file_events())
            && watches.iter().all(|watch| watch.descriptor != descriptor)
        {
            watches.push(Watch { descriptor, names: None });
        }
        for old in &self.watches {
            if watches.iter().all(|watch| watch.descriptor != old.descriptor) {
                // Fails if the kernel has dropped the watch with its inode, which is as good.
                let _ = inotify.rm_watch(old.descriptor);
            }
        }
        self.watches = watches;
    }

    fn stat(&self) -> Option<Stamp> {
        let data = std::fs::metadata(&self.path).ok()?;
        Some(Stamp {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }

    fn read(&self) -> ResolvConf {
        match read_bounded(&self.path) {
            Ok(text) => ResolvConf::parse(&text),
            Err(error) => {
                log::info!("no nameservers: {}: {error}", self.path.display());
                ResolvConf::default()
            }
        }
    }
}

/// The file's first [`conf::MAX_BYTES`] bytes. A FIFO or a device in its place neither blocks nor floods us.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    file.take(conf::MAX_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
