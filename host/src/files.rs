//! Files that are shared with other processes: written whole or not at all, by one at a time.
//!
//! **Whole.** Records, leases, rules and names are read by others, and the next call has to understand them after this
//! one was killed or the disk was full. So the text goes into a file beside, which then takes the place of the old one
//! (rename(2)).
//!
//! **One at a time.** A [`Lock`] is flock(2)'s: it is on the open file, whatever becomes of its name, and the kernel
//! gives it back when the process ends, however it ends. Whoever replaces files holds whatever lock there is: two
//! writers of one `fresh` would mix.

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What everybody may read, as far as the process's mask lets them.
pub const PUBLIC: u32 = 0o666;
/// What nobody else may read.
pub const PRIVATE: u32 = 0o600;

/// Puts `text` in the place of what `path` has, by way of `fresh`, which is on the same file system.
///
/// # Errors
/// The kernel's. The old file is then as it was, and nothing else is left.
pub fn replace(path: &Path, fresh: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(fresh)
        .and_then(|mut file| file.write_all(text))
        .and_then(|()| fs::rename(fresh, path));
    if written.is_err() {
        // What was written before the disk was full; if it cannot be removed, the next call writes over it.
        let _ = fs::remove_file(fresh);
    }
    written
}

/// A file or directory that nobody else has locked, until this is dropped.
#[derive(Debug)]
pub struct Lock(Flock<File>);

impl Lock {
    /// Waits until it can be had. A signal in between is no reason to give up.
    ///
    /// # Errors
    /// The kernel's: a file system without locks, for instance.
    pub fn of(mut file: File) -> io::Result<Self> {
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => return Ok(Self(lock)),
                Err((same, Errno::EINTR)) => file = same,
                Err((_, errno)) => return Err(errno.into()),
            }
        }
    }

    /// What is locked, to look at.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn a_lock_is_waited_for_and_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let open = || File::open(dir.path()).unwrap();
        let first = Lock::of(open()).unwrap();
        let (told, heard) = channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let second = Lock::of(open()).unwrap();
                told.send(second.file().metadata().unwrap().is_dir()).unwrap();
            });
            assert!(heard.recv_timeout(Duration::from_millis(50)).is_err(), "the first has it");
            drop(first);
            assert!(heard.recv_timeout(Duration::from_secs(20)).unwrap());
        });
    }
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_new_takes_the_place_of_the_old_and_a_failure_leaves_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, fresh) = (dir.path().join("a"), dir.path().join("a.new"));
        fs::write(&path, "old").unwrap();
        replace(&path, &fresh, b"new", PRIVATE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(replace(&dir.path().join("taken"), &fresh, b"x", PUBLIC).is_err());
        assert!(!fresh.exists(), "nothing is left");
        fs::remove_dir(dir.path().join("taken")).unwrap();
        let full = Path::new("/dev/full");
        assert!(replace(&path, &full.join("x"), b"x", PUBLIC).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
