//! Unix sockets where programs ask for changes: how they come into being, whoever has been there before.
//!
//! At the path may be a socket on which somebody listens: then that one has it. Or what a process that was killed has
//! left behind, which makes way. Who is there is found out by connecting, without waiting: a queue that is full belongs
//! to somebody, too.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{Mode, umask};
use slipway_host::strerror::words;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Clients that may wait to be accepted.
const QUEUE: i32 = 64;

/// Why a socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there. The text is part of pasta's contract.
    #[error("Socket path {} already in use", .0.display())]
    InUse(PathBuf),
    /// The kernel does not let us listen there, or find out who does.
    #[error("cannot listen on the socket path {}: {}{}", path.display(), words(.error), advice(.error))]
    Bind {
        /// The path.
        path: PathBuf,
        /// The kernel's word.
        error: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENAMETOOLONG | Errno::EINVAL) => " (a socket's path has at most 107 bytes)",
        _ => "",
    }
}

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever the umask lets.
    Umask,
    /// This user.
    Owner,
}

/// Listens at `path` with a socket of type `kind`, without waiting for clients.
///
/// # Errors
/// See [`BindError`].
pub fn listen_at(path: &Path, kind: SockType, access: Access) -> Result<UnixListener, BindError> {
    let failed = |error: io::Error| BindError::Bind { path: path.to_owned(), error };
    let address = UnixAddr::new(path).map_err(|errno| failed(errno.into()))?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, kind, flags, None).map_err(|errno| failed(errno.into()))?;
    match connect(probe.as_raw_fd(), &address) {
        Err(Errno::ENOENT) => {}
        Err(Errno::ECONNREFUSED) => std::fs::remove_file(path).map_err(failed)?,
        // Its queue is full, or it is a socket of another type.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => return Err(BindError::InUse(path.to_owned())),
        Err(errno) => return Err(failed(errno.into())),
    }
    drop(probe);
    let open = || {
        let fd = socket(AddressFamily::Unix, kind, flags, None)?;
        // Not for others, from the first moment on.
        let before = (access == Access::Owner).then(|| umask(Mode::from_bits_truncate(0o177)));
        let bound = bind(fd.as_raw_fd(), &address);
        before.map(umask);
        bound?;
        listen(&fd, Backlog::new(QUEUE)?)?;
        Ok(UnixListener::from(fd))
    };
    open().map_err(|errno: Errno| failed(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn where_somebody_answers_nobody_else_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        for kind in [SockType::Stream, SockType::SeqPacket] {
            let first = listen_at(&path, kind, Access::Umask).unwrap();
            for other in [SockType::Stream, SockType::SeqPacket] {
                let error = listen_at(&path, other, Access::Umask).unwrap_err();
                assert_eq!(error.to_string(), format!("Socket path {} already in use", path.display()));
            }
            // As after SIGKILL: the file stays.
            drop(first);
        }
        let other = UnixDatagram::bind(dir.path().join("datagrams")).unwrap();
        let error = listen_at(&dir.path().join("datagrams"), SockType::Stream, Access::Umask).unwrap_err();
        assert!(matches!(error, BindError::InUse(_)), "{error}");
        drop(other);
    }

    #[test]
    fn a_full_queue_is_somebodys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _busy = listen_at(&path, SockType::Stream, Access::Umask).unwrap();
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let address = UnixAddr::new(&path).unwrap();
        let mut waiting = Vec::new();
        for _ in 0..=QUEUE {
            let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
            connect(fd.as_raw_fd(), &address).unwrap();
            waiting.push(fd);
        }
        let error = listen_at(&path, SockType::Stream, Access::Umask).unwrap_err();
        assert!(matches!(error, BindError::InUse(_)), "{error}");
    }

    #[test]
    fn what_is_left_behind_makes_way_and_the_owners_socket_is_the_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        std::fs::write(&path, "").unwrap();
        let _listener = listen_at(&path, SockType::SeqPacket, Access::Owner).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        for impossible in
            [dir.path().join("x".repeat(120)), dir.path().join("no/where"), dir.path().to_owned()]
        {
            let error = listen_at(&impossible, SockType::Stream, Access::Umask).unwrap_err();
            assert!(error.to_string().starts_with("cannot listen on the socket path /"), "{error}");
        }
    }
}
