//! The opener: a small process beside the proxy that opens the containers' network namespaces for it.
//!
//! ```text
//!   proxy ── path ──▶ opener
//!         ◀── descriptor of a namespace, or an error number
//! ```
//! The proxy reads what strangers send on the networks of containers, so it is confined to its own files by Landlock
//! (`host/src/sandbox/files.rs`). That shuts `/proc/PID` of everybody else to it, where callers may say that a
//! namespace is. The opener never meets a frame. It gives out nothing but namespaces, whoever asks; and it ends with
//! the proxy, whose end of the socket it reads to the end.

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use slipway_host::sandbox::caps::{self, Capability};
use slipway_host::sandbox::tracers;
use slipway_host::sys::fdpass;
use slipway_host::sys::proc::fork_child;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::OnceLock;

/// The longest path, as for every system call.
const PATH_MAX: usize = 4096;
/// The answer that comes with a descriptor.
const OPENED: &[u8] = b"+";

static OPENER: OnceLock<OwnedFd> = OnceLock::new();

/// Starts the opener; before there are other threads, and before there are descriptors that it must not keep.
///
/// # Errors
/// The kernel's.
pub(crate) fn start() -> io::Result<()> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    // Each process closes the other's end.
    let mut ours = Some(ours);
    fork_child(|| {
        ours = None;
        settle();
        while let Ok(true) = serve(&theirs) {}
        0
    })?;
    if let Some(ours) = ours {
        let _ = OPENER.set(ours);
    }
    Ok(())
}

/// Opens the namespace at `path`, by way of the opener once there is one.
///
/// # Errors
/// The kernel's; EINVAL: that is no namespace.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let Some(opener) = OPENER.get() else { return namespace(path) };
    fdpass::send(opener.as_fd(), path.as_os_str().as_bytes(), None)?;
    let mut answer = [0; 4];
    match fdpass::receive(opener.as_fd(), &mut answer)? {
        (_, Some(fd)) => Ok(File::from(fd)),
        (4, None) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(answer))),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// One request. `false`: there will be no more.
fn serve(socket: &OwnedFd) -> io::Result<bool> {
    let mut path = [0; PATH_MAX];
    let (len, _) = fdpass::receive(socket.as_fd(), &mut path)?;
    if len == 0 {
        return Ok(false);
    }
    let path = Path::new(OsStr::from_bytes(path.get(..len).unwrap_or_default()));
    match namespace(path) {
        Ok(file) => fdpass::send(socket.as_fd(), OPENED, Some(file.as_fd()))?,
        Err(error) => {
            let number = error.raw_os_error().unwrap_or(Errno::EINVAL as i32);
            fdpass::send(socket.as_fd(), &number.to_ne_bytes(), None)?;
        }
    }
    Ok(true)
}

fn namespace(path: &Path) -> io::Result<File> {
    // The writer of a FIFO in its place is not waited for.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if fstatfs(&file)?.filesystem_type() == NSFS_MAGIC { Ok(file) } else { Err(Errno::EINVAL.into()) }
}

/// What it needs: the sight of processes of others.
fn settle() {
    let wanted = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
    for error in [tracers::keep_out(), caps::drop_all_but(&wanted)].into_iter().filter_map(Result::err) {
        log::warn!("a stage of the opener's sandbox is left out: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_come_out_and_the_end_is_noticed() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let ask = |path: &str| {
            fdpass::send(ours.as_fd(), path.as_bytes(), None).unwrap();
            assert!(serve(&theirs).unwrap());
            let mut answer = [0; 4];
            let (len, fd) = fdpass::receive(ours.as_fd(), &mut answer).unwrap();
            if fd.is_some() { Ok(()) } else { Err((len, i32::from_ne_bytes(answer))) }
        };
        assert_eq!(ask("/proc/self/ns/net"), Ok(()));
        assert_eq!(ask("/no/such/file"), Err((4, Errno::ENOENT as i32)));
        for other in ["/etc/passwd", "/proc/self/mem", "/dev/null", "/"] {
            assert_eq!(ask(other), Err((4, Errno::EINVAL as i32)), "{other}");
        }
        assert_eq!(ask("\0"), Err((4, Errno::EINVAL as i32)));
        drop(ours);
        assert!(!serve(&theirs).unwrap());
    }
}
