//! The host's resolv.conf, followed while it changes.
//!
//! Guests ask our DNS address; the engine passes each query on to one of the host's nameservers and goes on to the next
//! when one is silent. Which servers these are changes while we run: a VPN comes up, a laptop moves to another network.
//! So `/etc/resolv.conf` is read again whenever its content may have changed.
//!
//! * [`text`] reads the text. Pure; no input makes it fail.
//! * [`trail`] walks the symbolic links to the file, and says which directory entries decide where it is.
//! * [`watch`] watches exactly those entries with inotify(7), so that replacing the file by rename, pointing the link
//!   elsewhere, removing and creating it, and writing it in place are all noticed. Idle costs nothing: no timer, no
//!   periodic stat.
//! * [`Follower`] puts the three together. Who reads the file in another way takes the [`Watcher`] alone.
//!
//! Open it *after* the sandbox has changed the root (`/etc` and `/run` are visible there too): watches hold inodes and
//! would survive the change, but the paths to look at after a change are looked up anew, and should be the same ones
//! from the start.
//!
//! Limits. Changes of a *file* that the sandbox had to bind on its own, because it lies outside `/etc` and `/run`, are
//! seen when it is written in place, not when it is replaced by rename: a bind mount pins the old inode. Network file
//! systems do not report changes made by others. When the user's inotify instances are used up,
//! [`Follower::needs_polling`] says so and the caller calls [`Follower::refresh_if_changed`] now and then, which costs
//! one stat(2) when nothing has changed.

pub mod text;
pub mod trail;
pub mod watch;

pub use text::ResolvConf;
pub use watch::Watcher;

use crate::scope::ZonedAddr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use text::Skipped;

/// Where the C library looks, and so do we.
pub const PATH: &str = "/etc/resolv.conf";

/// The host's nameservers, kept up to date.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    watcher: Watcher,
    current: ResolvConf,
    stamp: Option<Stamp>,
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

impl Follower {
    /// Reads `path` and watches it. A file that does not exist is the same as an empty one, and is noticed when it
    /// appears.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        // Watched before it is read, so that no change falls between the two.
        let watcher = Watcher::open(path);
        let mut follower =
            Self { path: path.to_owned(), watcher, current: ResolvConf::default(), stamp: None };
        follower.stamp = follower.stat();
        follower.current = follower.read();
        follower
    }

    /// What the file says now.
    #[must_use]
    pub const fn current(&self) -> &ResolvConf {
        &self.current
    }

    /// The nameservers, in the file's order.
    #[must_use]
    pub fn nameservers(&self) -> Vec<ZonedAddr> {
        self.current.nameservers.clone()
    }

    /// Becomes readable when the file may have changed; `None` if the system could not give us inotify.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.watcher.fd()
    }

    /// Whether [`Follower::refresh_if_changed`] has to be called now and then, because nothing will become readable.
    #[must_use]
    pub fn needs_polling(&self) -> bool {
        self.watcher.fd().is_none()
    }

    /// To be called when the descriptor is readable. Returns the new content if it really is another.
    pub fn on_ready(&mut self) -> Option<&ResolvConf> {
        if self.watcher.changed() { self.reload() } else { None }
    }

    /// Looks whether the file has changed and returns its content if it is another. For systems without inotify.
    pub fn refresh_if_changed(&mut self) -> Option<&ResolvConf> {
        let now = self.stat();
        if now == self.stamp {
            return None;
        }
        self.watcher.watch();
        self.reload()
    }

    fn reload(&mut self) -> Option<&ResolvConf> {
        self.stamp = self.stat();
        let fresh = self.read();
        if fresh == self.current {
            return None;
        }
        self.current = fresh;
        Some(&self.current)
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
            Ok(text) => {
                let conf = ResolvConf::parse(&text);
                for Skipped { value, reason } in &conf.skipped {
                    log::warn!("{}: {value} is not used: {reason}", self.path.display());
                }
                conf
            }
            Err(error) => {
                log::info!("no nameservers: {}: {error}", self.path.display());
                ResolvConf::default()
            }
        }
    }
}

/// The file's first [`text::MAX_BYTES`] bytes. A FIFO or a device in its place neither blocks nor floods us.
///
/// # Errors
/// Those of open(2) and read(2); what is not a regular file is refused.
pub fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    file.take(text::MAX_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
