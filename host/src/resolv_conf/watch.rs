//! Watching one file through every symbolic link on the way to it, with inotify(7).
//!
//! The watches are those of the [`Trail`]: each directory entry that decides where the file is, and the file itself. So
//! replacing it by rename, pointing a link elsewhere, removing and creating it, and writing it in place are all
//! noticed, and nothing else wakes anybody. When something on the way has changed, the trail is walked and watched
//! anew.

use super::trail::Trail;
use crate::strerror::strerror;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::ffi::OsString;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

/// Rounds of "watch, then see whether the trail is still the same" before we make do with what we have. Each further
/// round needs the trail to have changed within microseconds; the watches set so far report it anyway.
const SETTLE_ROUNDS: usize = 4;

/// What can change a directory entry or the file behind it. Modification is left out on purpose: a writer that
/// truncates first would be seen half way; its close is enough.
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

/// A file that is watched.
#[derive(Debug)]
pub struct Watcher {
    path: PathBuf,
    pub(super) inotify: Option<Inotify>,
    watches: Vec<Watch>,
}

/// One inotify watch, and the names in that directory that matter; `None` for the file itself.
#[derive(Debug)]
struct Watch {
    descriptor: WatchDescriptor,
    names: Option<Vec<OsString>>,
}

impl Watcher {
    /// Watches `path`, whether it exists or not. Without inotify (the user's instances are used up) that is said in the
    /// log, and [`Watcher::fd`] is `None`.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let inotify = match Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC) {
            Ok(inotify) => Some(inotify),
            Err(error) => {
                log::warn!("changes of {} are noticed late: inotify: {}", path.display(), strerror(error));
                None
            }
        };
        let mut watcher = Self { path: path.to_owned(), inotify, watches: Vec::new() };
        watcher.watch();
        watcher
    }

    /// Becomes readable when the file may have changed.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(|inotify| inotify.as_fd())
    }

    /// To be called when the descriptor is readable: whether the file may really have changed. Then the way to it is
    /// watched anew, and a change made after this call leaves an event.
    pub fn changed(&mut self) -> bool {
        let mut relevant = false;
        // Bounded by what the kernel queues (fs.inotify.max_queued_events) in a directory that only the host can write
        // to.
        while let Some(events) = self.events() {
            relevant |= events.iter().any(|event| self.concerns(event));
        }
        if relevant {
            self.watch();
        }
        relevant
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

    /// Makes the watches fit the trail as it is now. On return a change of the trail or of the file leaves an event,
    /// unless the system has no watches left to give.
    pub(super) fn watch(&mut self) {
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
}
