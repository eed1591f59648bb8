//! Where the uplink listens, and how it is reached.
//!
//! A Unix socket of type SOCK_SEQPACKET: one request is one packet, with descriptors if need be, and so is one reply. The
//! directory and the socket are the user's alone, and whoever connects is asked for the user once more (SO_PEERCRED, in
//! the numbers of our own user namespace: root of the user's containers is that user).
//!
//! systemd may have opened the socket for us (sd_listen_fds(3)); then it stays systemd's.

use super::protocol::{MAX_REQUEST, Refusal, read_reply};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, socket, sockopt,
};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Uid, geteuid};
use serde_json::Value;
use slipway_host::environment;
use slipway_host::sys::fdpass;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The environment variable with the socket's path.
pub const VARIABLE: &str = "SLIPWAY_UPLINK";
/// The socket of root, and that of a user below `$XDG_RUNTIME_DIR`.
const ROOTS: &str = "/run/slipway/uplink.sock";
const USERS: &str = "slipway/uplink.sock";
/// How systemd hands over sockets: whose they are, how many, and the number of the first.
const ACTIVATION_PID: &str = "LISTEN_PID";
const ACTIVATION_COUNT: &str = "LISTEN_FDS";
const ACTIVATION_FD: RawFd = 3;
/// A socket file younger than this may have its socket yet to come.
const BEING_MADE: Duration = Duration::from_secs(10);

/// Where the uplink of this user listens; `None` for a user without a runtime directory.
#[must_use]
pub fn path() -> Option<PathBuf> {
    let whole_machine = || {
        // One line that maps all numbers onto themselves: no user namespace.
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
    };
    let root = geteuid().is_root() && whole_machine();
    path_from(environment::variable(VARIABLE), environment::variable("XDG_RUNTIME_DIR"), root)
}

fn path_from(variable: Option<OsString>, runtime: Option<OsString>, root: bool) -> Option<PathBuf> {
    match variable.filter(|path| !path.is_empty()) {
        Some(path) => Some(path.into()),
        None if root => Some(ROOTS.into()),
        None => runtime.filter(|dir| !dir.is_empty()).map(|dir| Path::new(&dir).join(USERS)),
    }
}

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
    let number = |name| environment::text(name).and_then(|text| text.parse::<u32>().ok());
    if number(ACTIVATION_PID).is_none_or(|pid| pid != std::process::id()) {
        return Ok(None);
    }
    match number(ACTIVATION_COUNT) {
        Some(1) => {}
        count => {
            let count = count.unwrap_or(0);
            return Err(format!("systemd handed over {count} sockets, but there must be exactly one"));
        }
    }
    let taken = fdpass::take_inherited(ACTIVATION_FD).and_then(listener);
    taken.map(Some).map_err(|error| format!("the socket of systemd: {}", crate::words::words(&error)))
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

fn packets() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
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
    format!("{}{hint}", crate::words::words(error))
}

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
    set_nonblocking(fd.as_fd())?;
    listen(&fd, Backlog::new(8)?)?;
    sweep(dir, &path);
    Ok(fd)
}

/// Removes the sockets beside `ours` that killed programs have left behind: nobody else does, for those who come after them
/// do not know of each other's.
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

/// Whether nobody has the socket at `path` open. The type is not that of the sockets there, so that whoever listens is not
/// woken: the kernel refuses it by EPROTOTYPE, if there is somebody to refuse.
fn is_abandoned(path: &Path) -> bool {
    let probe = || {
        let probe = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        connect(probe.as_raw_fd(), &UnixAddr::new(path)?)
    };
    path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket())
        && probe() == Err(Errno::ECONNREFUSED)
}

/// A conversation with the uplink.
#[derive(Debug)]
pub struct Client(OwnedFd);

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// The kernel's: nobody listens there, for instance.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let fd = packets()?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Self(fd))
    }

    /// Asks, and waits for the reply.
    ///
    /// # Errors
    /// The uplink's refusal, or that it does not answer.
    pub fn ask(&self, request: &Value, fds: &[BorrowedFd<'_>]) -> Result<Value, Refusal> {
        let lost = |error: &io::Error| Refusal::system("speak with the uplink", error);
        match fdpass::send_all(self.0.as_fd(), request.to_string().as_bytes(), fds) {
            // Shown the door before we have said anything: why is there to be read.
            Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
            sent => sent.map_err(|error| lost(&error))?,
        }
        let mut buffer = vec![0; 16 * MAX_REQUEST];
        let mut receive = || fdpass::receive(self.0.as_fd(), &mut buffer);
        let received = match receive() {
            // The same, and our words were not read: the kernel tells this once, then gives what there is.
            Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => receive(),
            received => received,
        };
        let (len, _) = received.map_err(|error| lost(&error))?;
        match buffer.get(..len) {
            None | Some([]) => Err(lost(&Errno::EPIPE.into())),
            Some(reply) => read_reply(reply),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_environment_says_where() {
        let os = |text: &str| Some(OsString::from(text));
        assert_eq!(path_from(os("/x"), os("/run/user/7"), true), Some("/x".into()));
        assert_eq!(path_from(os(""), os("/run/user/7"), true), Some(ROOTS.into()));
        assert_eq!(path_from(None, os("/run/user/7"), false), Some("/run/user/7/slipway/uplink.sock".into()));
        assert_eq!(path_from(None, os(""), false), None);
    }

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
        assert_eq!(client.ask(&Value::Null, &[]).unwrap_err().errno, Some(Errno::EPIPE as i32));
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
        let nobody = listener(alive).unwrap().accept().map(drop);
        assert_eq!(nobody.unwrap_err().kind(), io::ErrorKind::WouldBlock, "who listens is not disturbed");
        drop(ours);
    }
}
