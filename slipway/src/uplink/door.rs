//! The socket where the uplink listens.
//!
//! The directory and the socket are the user's alone, and whoever connects is asked for the user once more
//! (SO_PEERCRED, in the numbers of our own user namespace: root of the user's containers is that user).
//!
//! systemd may have opened the socket for us ([`slipway_host::activation`]); then it stays systemd's.

use nix::errno::Errno;
use nix::sys::socket::{Backlog, SockType, UnixAddr, bind, connect, getsockopt, listen, sockopt};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Uid, geteuid};
use slipway_host::activation::{self, ActivationError, Addressee};
use slipway_host::strerror::words;
use slipway_host::sys::fdpass;
use slipway_uplink::client::packets;
use slipway_uplink::envelope::Refusal;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The socket that clients come to; its file goes with it, unless it is systemd's.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    file: Option<PathBuf>,
}

impl Door {
    /// The socket of systemd if there is one, otherwise a new one at `path`.
    ///
    /// # Errors
    /// One line that says what to do.
    pub fn open(path: Option<&Path>) -> Result<Self, String> {
        if let Some(listener) = handed_over()? {
            return Ok(Self { listener, file: None });
        }
        let path = path.ok_or_else(|| {
            "where to listen? Set XDG_RUNTIME_DIR, as a login session does, or give --socket".to_owned()
        })?;
        let listener = make(path)
            .map_err(|error| format!("cannot listen on {}: {}", path.display(), explain(&error)))?;
        Ok(Self { listener, file: Some(path.to_owned()) })
    }

    /// The next client, if there is one. It has to be of this user.
    ///
    /// # Errors
    /// The kernel's: out of descriptors or memory. `PermissionDenied`: it is somebody else, and has been told so.
    pub fn accept(&self) -> io::Result<Option<OwnedFd>> {
        let client = match self.listener.accept() {
            Ok((client, _)) => OwnedFd::from(client),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        set_nonblocking(client.as_fd())?;
        let who = Uid::from_raw(getsockopt(&client, sockopt::PeerCredentials)?.uid());
        if who != geteuid() {
            let refusal = Refusal {
                text: format!("this is the uplink of user {}, not of user {who}", geteuid()),
                errno: Some(Errno::EACCES as i32),
            };
            let _ = fdpass::send(client.as_fd(), refusal.to_json().as_bytes(), None);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal.text));
        }
        Ok(Some(client))
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// What systemd has opened for this process.
fn handed_over() -> Result<Option<UnixListener>, String> {
    let wrong = |error: &io::Error| format!("the socket of systemd: {}", words(error));
    match activation::socket(Addressee::ThisProcess) {
        Ok(fd) => fd.map(listener).transpose().map_err(|error| wrong(&error)),
        Err(ActivationError::Take(error)) => Err(wrong(&error)),
        Err(count) => Err(count.to_string()),
    }
}

/// A socket that somebody else has opened.
///
/// # Errors
/// When it is another kind of socket, or none.
pub fn listener(fd: OwnedFd) -> io::Result<UnixListener> {
    let listener = fdpass::unix_listener(fd, SockType::SeqPacket)
        .ok_or_else(|| io::Error::other("it must be a listening Unix socket for sequential packets"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Makes the socket. One that a killed uplink left behind makes way; one on which somebody listens does not.
fn make(path: &Path) -> io::Result<UnixListener> {
    let address = UnixAddr::new(path)?;
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let fd = packets()?;
    // Only ours from the first moment on.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = bind(fd.as_raw_fd(), &address).or_else(|errno| {
        if errno != Errno::EADDRINUSE || connect(packets()?.as_raw_fd(), &address) != Err(Errno::ECONNREFUSED)
        {
            return Err(errno);
        }
        nix::unistd::unlink(path)?;
        bind(fd.as_raw_fd(), &address)
    });
    umask(before);
    bound?;
    set_nonblocking(fd.as_fd())?;
    listen(&fd, Backlog::new(64)?)?;
    Ok(UnixListener::from(fd))
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn explain(error: &io::Error) -> String {
    let hint = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => " (an uplink runs there already)",
        Some(Errno::ENAMETOOLONG) => " (a socket's path has at most 107 bytes)",
        _ => "",
    };
    format!("{}{hint}", words(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use slipway_uplink::client::Client;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_socket_is_ours_alone_and_replaces_a_dead_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/uplink.sock");
        let door = Door::open(Some(&path)).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let error = Door::open(Some(&path)).unwrap_err();
        assert!(error.contains("Address already in use (an uplink runs there already)"), "{error}");
        // Whoever looked whether somebody listens.
        assert!(door.accept().unwrap().is_some() && door.accept().unwrap().is_none());
        let client = Client::connect(&path).unwrap();
        let theirs = door.accept().unwrap().unwrap();
        assert!(door.accept().unwrap().is_none());
        drop(theirs);
        assert_eq!(client.ask::<Value>(&Value::Null, &[]).unwrap_err().errno(), Some(Errno::EPIPE as i32));
        // As after SIGKILL: the file stays.
        let kept = path.with_extension("kept");
        std::fs::rename(&path, &kept).unwrap();
        drop(door);
        std::fs::rename(&kept, &path).unwrap();
        let again = Door::open(Some(&path)).unwrap();
        drop(again);
        assert!(!path.exists());
        assert!(Door::open(Some(Path::new(&"/x".repeat(100)))).unwrap_err().contains("107 bytes"));
        assert!(Door::open(None).unwrap_err().contains("--socket"));
    }
}
