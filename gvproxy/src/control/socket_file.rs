//! Sockets that are files: made at a path, in the place of another socket but never of anything else, and removed when
//! they are not needed any more, unless somebody has put another in their place.
//!
//! Whoever may expose a socket names any path, so what is removed is looked at first: the directory is opened once, and
//! within it the last part of the path is looked at and removed by name, without following a link. That the way to the
//! directory may lead through links is meant so: `/var/run` is one.
//!
//! Only the user has a socket that is made here (mode 0600), from the first moment on: this process has the mask for
//! it.

use crate::orders::endpoint::in_small_letters;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use slipway_host::strerror::words;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The mask under which sockets of this process are made: nobody's but the user's.
pub(crate) const MASK: Mode = Mode::from_bits_truncate(0o177);
/// The longest path that fits into an address (unix(7)).
const LONGEST: usize = 107;

/// A socket's file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    directory: OwnedFd,
    name: OsString,
    identity: (u64, u64),
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Something else is there.
    #[error("{} is no socket, and nothing else is replaced", .0.display())]
    Occupied(PathBuf),
    /// The kernel does not let us make one.
    #[error("listen unix {}: bind: {}", .0.display(), in_small_letters(&words(.1)))]
    Kernel(PathBuf, #[source] io::Error),
}

const fn identity(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn is_socket(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK
}

/// The directory of `path`, and the name in it.
fn parts(path: &Path) -> Result<(OwnedFd, OsString), Errno> {
    let name = path.file_name().ok_or(Errno::EISDIR)?;
    let directory =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok((open(directory, flags, Mode::empty())?, name.to_owned()))
}

/// Removes a socket that is at `path`. The directory, and the name in it.
///
/// # Errors
/// See [`Refused`].
pub(crate) fn make_way(path: &Path) -> Result<(OwnedFd, OsString), Refused> {
    let kernel = |errno: Errno| Refused::Kernel(path.to_owned(), errno.into());
    let (directory, name) = parts(path).map_err(kernel)?;
    match fstatat(&directory, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if is_socket(&stat) => {
            unlinkat(&directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir).map_err(kernel)?;
        }
        Ok(_) => return Err(Refused::Occupied(path.to_owned())),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(kernel(errno)),
    }
    Ok((directory, name))
}

impl SocketFile {
    /// Listens at `path`. A socket that is there is replaced.
    ///
    /// # Errors
    /// See [`Refused`].
    pub(crate) fn listen(path: &Path) -> Result<(OwnedFd, Self), Refused> {
        let kernel = |error: io::Error| Refused::Kernel(path.to_owned(), error);
        let (directory, name) = make_way(path)?;
        // bind(2) never takes the place of anything, so the path itself will do, and is what others see.
        let shorter;
        let place = if path.as_os_str().len() > LONGEST {
            shorter = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(&name);
            &shorter
        } else {
            path
        };
        let listener = UnixListener::bind(place).map_err(kernel)?;
        listener.set_nonblocking(true).map_err(kernel)?;
        let file = Self::in_directory(directory, name).map_err(|errno| kernel(errno.into()))?;
        Ok((listener.into(), file))
    }

    /// The socket that is at `path` already.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let (directory, name) = parts(path)?;
        Ok(Self::in_directory(directory, name)?)
    }

    fn in_directory(directory: OwnedFd, name: OsString) -> Result<Self, Errno> {
        let stat = fstatat(&directory, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if !is_socket(&stat) {
            return Err(Errno::ENOTSOCK);
        }
        Ok(Self { directory, name, identity: identity(&stat) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        if found.is_ok_and(|stat| identity(&stat) == self.identity)
            && let Err(errno) = unlinkat(&self.directory, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir)
        {
            log::warn!("the socket {} stays: {errno}", self.name.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socket_is_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (_first, file) = SocketFile::listen(&at("socket")).unwrap();
        let (second, other) = SocketFile::listen(&at("socket")).unwrap();
        drop(file);
        UnixStream::connect(at("socket")).unwrap();
        drop(second);
        drop(other);
        assert!(!at("socket").exists());

        fs::write(at("file"), "precious").unwrap();
        fs::create_dir(at("directory")).unwrap();
        let _kept = UnixListener::bind(at("real")).unwrap();
        std::os::unix::fs::symlink(at("real"), at("link")).unwrap();
        for name in ["file", "directory", "link"] {
            let refused = SocketFile::listen(&at(name)).unwrap_err().to_string();
            assert_eq!(refused, format!("{} is no socket, and nothing else is replaced", at(name).display()));
        }
        assert_eq!(fs::read(at("file")).unwrap(), b"precious");
        assert!(at("directory").is_dir() && at("link").is_symlink());
        assert!(fs::metadata(at("real")).unwrap().file_type().is_socket());
    }

    #[test]
    fn what_somebody_else_put_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (_listener, file) = SocketFile::listen(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "theirs").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
    }

    #[test]
    fn paths_of_every_kind_are_taken_or_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("d".repeat(180));
        fs::create_dir(&long).unwrap();
        let path = long.join("söcket");
        let (_listener, file) = SocketFile::listen(&path).unwrap();
        assert!(fs::metadata(&path).unwrap().file_type().is_socket());
        drop(file);
        assert!(!path.exists());
        let refused = |path: &Path| SocketFile::listen(path).unwrap_err().to_string();
        let missing = dir.path().join("no/such");
        assert_eq!(
            refused(&missing),
            format!("listen unix {}: bind: no such file or directory", missing.display())
        );
        assert!(refused(Path::new("/")).contains("is a directory"));
        assert!(refused(Path::new("")).contains("listen unix : bind:"));
        assert!(SocketFile::at(dir.path()).is_err());
    }

    #[test]
    fn under_the_mask_it_is_the_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let child = slipway_host::sys::proc::fork_child(|| {
            nix::sys::stat::umask(MASK);
            let Ok((_listener, file)) = SocketFile::listen(&path) else { return 1 };
            core::mem::forget(file);
            0
        });
        slipway_host::sys::proc::wait_for(child.unwrap()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
