//! Where the container engine tells the port helper of a container's new addresses: a socket of its own for each
//! container, in a directory of the engine's. The uplink, to whom the socket is handed over, removes it at the end; one
//! that was killed does not.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use slipway_uplink::client::packets;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

/// A socket file younger than this may have its socket yet to come.
const BEING_MADE: Duration = Duration::from_secs(10);

/// Listens for what `rootlessport` is asked by the container engine, at the place where it expects that.
///
/// # Errors
/// The kernel's.
pub fn listen_beside(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let path = dir.join(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let fd = packets()?;
    let short = UnixAddr::new(&path);
    match short {
        Ok(address) => bind(fd.as_raw_fd(), &address)?,
        // The path is too long for an address, its last part is not.
        Err(_) => {
            std::env::set_current_dir(dir)?;
            bind(fd.as_raw_fd(), &UnixAddr::new(name)?)?;
        }
    }
    let listener = UnixListener::from(fd);
    listener.set_nonblocking(true)?;
    listen(&listener, Backlog::new(8)?)?;
    sweep(dir, &path);
    Ok(listener.into())
}

/// Removes the sockets beside `ours` that killed programs have left behind: nobody else does, for those who come after
/// them do not know of each other's.
fn sweep(dir: &Path, ours: &Path) {
    let modified = |path: &Path| path.symlink_metadata().and_then(|found| found.modified());
    let Some(late) = modified(ours).ok().and_then(|made| made.checked_sub(BEING_MADE)) else { return };
    let others = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in others.filter(|path| path != ours) {
        if modified(&path).is_ok_and(|made| made < late) && is_abandoned(&path) {
            log::info!("{} is removed: nobody listens there", path.display());
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether nobody has the socket at `path` open. The type is not that of the sockets there, so that whoever listens is
/// not woken: the kernel refuses it by EPROTOTYPE, if there is somebody to refuse.
fn is_abandoned(path: &Path) -> bool {
    let probe = || {
        let probe = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        connect(probe.as_raw_fd(), &UnixAddr::new(path)?)
    };
    path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket())
        && probe() == Err(Errno::ECONNREFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_does_not_matter_beside_the_engine() {
        let dir = tempfile::tempdir().unwrap();
        let here = std::env::current_dir().unwrap();
        let deep = dir.path().join("d".repeat(100));
        let name = "c".repeat(64);
        listen_beside(&deep, &name).unwrap();
        let again = listen_beside(&deep, &name);
        std::env::set_current_dir(here).unwrap();
        again.unwrap();
        assert!(deep.join(name).exists());
        listen_beside(&dir.path().join("rp"), "short").unwrap();
        assert!(dir.path().join("rp/short").exists());
    }

    #[test]
    fn what_killed_helpers_have_left_is_removed() {
        use nix::sys::stat::{UtimensatFlags, utimensat};
        use nix::sys::time::TimeSpec;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let old = |name: &str| {
            let hour = TimeSpec::from_duration(Duration::from_secs(3600));
            utimensat(nix::fcntl::AT_FDCWD, &at(name), &hour, &hour, UtimensatFlags::NoFollowSymlink)
                .unwrap();
        };
        let alive = listen_beside(dir.path(), "alive").unwrap();
        drop(listen_beside(dir.path(), "dead").unwrap());
        drop(listen_beside(dir.path(), "young").unwrap());
        // Between bind(2) and listen(2).
        let bound = packets().unwrap();
        bind(bound.as_raw_fd(), &UnixAddr::new(&at("bound")).unwrap()).unwrap();
        std::fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink(at("alive"), at("link")).unwrap();
        ["alive", "dead", "bound", "file", "link"].into_iter().for_each(old);
        let ours = listen_beside(dir.path(), "ours").unwrap();
        let mut left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["alive", "bound", "file", "link", "ours", "young"]);
        let nobody = UnixListener::from(alive).accept().map(drop);
        assert_eq!(nobody.unwrap_err().kind(), io::ErrorKind::WouldBlock, "who listens is not disturbed");
        drop(ours);
    }
}
