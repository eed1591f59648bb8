//! Makes namespaces for a command, and starts it in them.
//!
//! ```text
//!   this process                 child
//!   ────────────                 ─────
//!   fork ──────────────────────▶ unshare (user), map ids, unshare (network, mount, host name)
//!                                open the TAP, configure it; resolv.conf, host name
//!   receive the TAP ◀─ SCM_RIGHTS
//!   get ready to serve           (waits)
//!   Running::start ────────────▶ exec ── errno, if it fails ─▶ Err
//! ```
//! The command begins only when the network works. Of the file system it sees the caller's, but for `/etc/resolv.conf`.
//! When this process ends, however it ends, the command is killed. What the command leaves behind in the background is
//! ours by then (this process is its *subreaper*) and is killed when the command has ended, as the end of PID 1 does in
//! a container; with the last process in it the namespace goes.
//!
//! Ids: one user and one group are mapped, which needs no privilege and no helper. setgroups(2) has to be denied for that
//! (user_namespaces(7)), so supplementary groups keep their effect but cannot be changed.

use super::configure::{Configure, allow_low_ports, allow_ping};
use super::diagnose::{Settings, words};
use super::enter::{Answer, Opened, open_here, receive, report_tap};
use super::{NetnsError, Watch};
use crate::signals::Inheritance;
use crate::sys::fdpass;
use crate::sys::proc::{fork_child, pidfd_open, pidfd_signal, reap, wait_for};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Gid, Pid, Uid, execvp, getegid, geteuid, getppid, sethostname};
use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Who one is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The same user and group as outside.
    Unchanged,
    /// Root.
    Root,
}

/// A command and the namespaces it wants.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program, looked up in `PATH` unless it has a slash, and its arguments.
    pub words: Vec<OsString>,
    /// Who it runs as.
    pub identity: Identity,
    /// A host name of its own.
    pub hostname: Option<String>,
    /// What it reads in `/etc/resolv.conf`, if not what the host does.
    pub resolv_conf: Option<String>,
    /// The TAP's name.
    pub interface: String,
    /// What the TAP is given.
    pub configure: Configure,
    /// The signal mask and dispositions it starts with.
    pub inheritance: Inheritance,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With this status.
    Exited(u8),
    /// By this signal.
    Signaled(Signal),
}

/// Why a command could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// exec(3) refused it.
    #[error("{program}: {}", .errno.desc())]
    Exec {
        /// What was to be executed.
        program: String,
        /// Why not. ENOENT: there is no such program.
        errno: Errno,
    },
    /// The waiting child is gone.
    #[error("the child that was to execute the command is gone: {0}")]
    Gone(#[source] io::Error),
}

/// A command's process, from before its exec to its end. Dropped before the end, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Pid,
    pidfd: OwnedFd,
    gate: OwnedFd,
    program: String,
    outcome: Option<Outcome>,
}

/// Makes the namespaces and the TAP. The command waits for [`Running::start`]. Call it before starting threads.
///
/// # Errors
/// One line for the user.
pub fn spawn(command: &Command) -> Result<(Opened, Running), NetnsError> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|error| NetnsError::system("make a socket pair", error))?;
    let parent = Pid::this();
    // Linux 3.4; without it, what is left behind merely lives on.
    if let Err(error) = set_child_subreaper(true) {
        log::debug!("background processes may outlive the command: {}", error.desc());
    }
    // The parent's end is closed in the child, or the child would not notice the parent's death.
    let mut ours = Some(ours);
    let child = fork_child(|| {
        ours = None;
        in_child(command, parent, theirs.as_fd())
    })
    .map_err(|error| NetnsError::system("fork", error))?;
    drop(theirs);
    let Some(gate) = ours.take() else {
        return Err(NetnsError::system("fork", Errno::EBADF));
    };
    let program = command.words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let pidfd = match pidfd_open(child) {
        Ok(pidfd) => pidfd,
        Err(error) => {
            // Closing the gate ends the child.
            drop(gate);
            let _ = wait_for(child);
            return Err(NetnsError::system("watch the child", error));
        }
    };
    let mut running = Running { child, pidfd, gate, program, outcome: None };
    match receive(running.gate.as_fd()) {
        Ok(Answer::Tap(opened)) => Ok((opened, running)),
        Ok(Answer::Failure(message)) => Err(NetnsError::Child { message, status: 1 }),
        Err(error) => match running.reap() {
            Ok(Outcome::Signaled(signal)) => Err(NetnsError::Killed(signal)),
            _ => Err(error),
        },
    }
}

impl Running {
    /// Lets the command begin.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub fn start(&mut self) -> Result<(), StartError> {
        fdpass::send(self.gate.as_fd(), b"G", None).map_err(StartError::Gone)?;
        let mut errno = [0; 4];
        loop {
            match fdpass::receive(self.gate.as_fd(), &mut errno) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Closed by exec.
                Ok((0, _)) => return Ok(()),
                Ok(_) => {
                    let errno = Errno::from_raw(i32::from_ne_bytes(errno));
                    return Err(StartError::Exec { program: self.program.clone(), errno });
                }
                Err(error) => return Err(StartError::Gone(error)),
            }
        }
    }

    /// Tells when it has ended.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn watch(&self) -> io::Result<Watch> {
        Ok(Watch::from_pidfd(self.pidfd.try_clone()?))
    }

    /// Sends it a signal; that it has ended already is no error.
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_signal(self.pidfd.as_fd(), signal) {
            log::debug!("cannot pass on {signal}: {error}");
        }
    }

    /// Buries processes of the background that have ended: to be called on SIGCHLD.
    pub fn bury(&mut self) {
        while let Ok(Some(status)) = reap() {
            self.note(status);
        }
    }

    /// Waits for its end, then ends what it left behind.
    ///
    /// # Errors
    /// Those of waitpid(2).
    pub fn wait(mut self) -> io::Result<Outcome> {
        self.reap()
    }

    fn reap(&mut self) -> io::Result<Outcome> {
        let outcome = match self.outcome {
            Some(outcome) => outcome,
            None => outcome_of(wait_for(self.child)?),
        };
        self.outcome = Some(outcome);
        sweep();
        Ok(outcome)
    }

    fn note(&mut self, status: WaitStatus) {
        if status.pid() == Some(self.child) {
            self.outcome = Some(outcome_of(status));
        }
    }
}

fn outcome_of(status: WaitStatus) -> Outcome {
    match status {
        WaitStatus::Signaled(_, signal, _) => Outcome::Signaled(signal),
        WaitStatus::Exited(_, status) => Outcome::Exited(u8::try_from(status).unwrap_or(u8::MAX)),
        _ => Outcome::Exited(u8::MAX),
    }
}

/// Kills our children until there are none: each that dies hands its own to us. A child's number cannot pass to
/// another process before we have waited for it.
fn sweep() {
    // Deep families take a round for each generation; what forks faster than it is killed is left to its fate.
    const ROUNDS: usize = 64;
    let list = format!("/proc/self/task/{}/children", nix::unistd::gettid());
    for _ in 0..ROUNDS {
        let Ok(children) = fs::read_to_string(&list) else { return };
        let children: Vec<Pid> =
            children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect();
        if children.is_empty() {
            return;
        }
        for child in &children {
            let _ = kill(*child, Signal::SIGKILL);
        }
        for child in children {
            let _ = wait_for(child);
        }
    }
    log::warn!("the command has left processes behind that cannot be ended");
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.outcome.is_none() {
            self.signal(Signal::SIGKILL);
            let _ = self.reap();
        }
    }
}

/// The child's whole life, if all goes wrong; otherwise exec ends it.
fn in_child(command: &Command, parent: Pid, gate: BorrowedFd<'_>) -> u8 {
    let tap = match prepare(command, parent) {
        Ok(()) => open_here(&command.interface, Some(&command.configure)),
        Err(line) => Err(line),
    };
    let tap = tap.and_then(|tap| finish(command).map(|()| tap));
    if report_tap(gate, tap).is_err() {
        return 1;
    }
    let mut go = [0; 1];
    match fdpass::receive(gate, &mut go) {
        Ok((1.., _)) => {}
        // The parent has given up, and said why.
        _ => return 1,
    }
    let errno = execute(command);
    let number = errno as i32;
    let _ = fdpass::send(gate, &number.to_ne_bytes(), None);
    1
}

/// Namespaces and ids.
fn prepare(command: &Command, parent: Pid) -> Result<(), String> {
    let (uid, gid) = (geteuid(), getegid());
    let settings = Settings::read();
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| settings.explain(error))?;
    map_ids(command.identity, uid, gid)
        .map_err(|error| settings.explain(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))?;
    let mut kinds = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    kinds.set(CloneFlags::CLONE_NEWUTS, command.hostname.is_some());
    unshare(kinds).map_err(|error| settings.explain(error))?;
    // Only now: a change of credentials forgets it. What may have happened before, is looked at.
    set_pdeathsig(Signal::SIGKILL).map_err(|error| error.desc().to_owned())?;
    if getppid() != parent {
        return Err("the parent is gone".to_owned());
    }
    // What is mounted here stays here; what the host mounts is seen.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(|error| settings.explain(error))
}

/// What the command may notice, when the network is there.
fn finish(command: &Command) -> Result<(), String> {
    allow_ping();
    allow_low_ports();
    if let Some(name) = &command.hostname {
        sethostname(name).map_err(|error| format!("cannot set the host name {name}: {}", error.desc()))?;
    }
    if let Some(text) = &command.resolv_conf
        && let Err(error) = cover_resolv_conf(text)
    {
        log::warn!("the command sees the host's /etc/resolv.conf: {}", words(&error));
    }
    Ok(())
}

fn map_ids(identity: Identity, uid: Uid, gid: Gid) -> io::Result<()> {
    let inside = |id: u32| if identity == Identity::Root { 0 } else { id };
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{} {uid} 1", inside(uid.as_raw())))?;
    fs::write("/proc/self/gid_map", format!("{} {gid} 1", inside(gid.as_raw())))
}

/// Binds a file with `text` over `/etc/resolv.conf`. The file lives in a tmpfs that has no other name: it was mounted on
/// `/tmp` for a moment, and nothing of it is left when the namespace ends.
fn cover_resolv_conf(text: &str) -> io::Result<()> {
    const PLACE: &str = "/tmp";
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), PLACE, Some("tmpfs"), flags, Some("size=64k,mode=0755"))?;
    let file = Path::new(PLACE).join("resolv.conf");
    let covered = fs::write(&file, text).and_then(|()| {
        Ok(mount(Some(&file), "/etc/resolv.conf", None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    });
    umount2(PLACE, MntFlags::MNT_DETACH)?;
    covered
}

/// Returns only if it fails.
fn execute(command: &Command) -> Errno {
    let words: Result<Vec<CString>, _> =
        command.words.iter().map(|word| CString::new(word.as_bytes())).collect();
    let Ok(words) = words else { return Errno::EINVAL };
    let Some(program) = words.first() else { return Errno::ENOENT };
    if let Err(error) = command.inheritance.restore() {
        return error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    }
    match execvp(program, &words) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_netstack::config::Mtu;

    fn command(words: &[&str]) -> Command {
        Command {
            words: words.iter().map(OsString::from).collect(),
            identity: Identity::Root,
            hostname: Some("inside".to_owned()),
            resolv_conf: Some("nameserver 192.0.2.3\n".to_owned()),
            interface: "tap3".to_owned(),
            configure: Configure { mtu: Mtu::ETHERNET, mac: None, v4: None, v6: None },
            inheritance: Inheritance::current().unwrap(),
        }
    }

    /// Namespaces for `words`, unless the machine cannot.
    fn ready(name: &str, words: &[&str]) -> Option<(Opened, Running)> {
        match spawn(&command(words)) {
            Err(error)
                if error.to_string().contains("/dev/net/tun")
                    || error.to_string().contains("user namespace") =>
            {
                println!("SKIP {name}: {error}");
                None
            }
            result => Some(result.unwrap()),
        }
    }

    #[test]
    fn a_command_finds_what_was_prepared() {
        let script = "test \"$(id -u)\" = 0 && test \"$(cat /proc/sys/kernel/hostname)\" = inside \
                      && grep -q 192.0.2.3 /etc/resolv.conf && test -e /sys/class/net && grep -q tap3 /proc/net/dev \
                      && ls /tmp >/dev/null && exit 7";
        let Some((opened, mut running)) = ready("a_command_finds_what_was_prepared", &["sh", "-c", script])
        else {
            return;
        };
        assert_eq!(opened.tap.name(), "tap3");
        running.start().unwrap();
        assert_eq!(running.wait().unwrap(), Outcome::Exited(7));
    }

    #[test]
    fn what_cannot_be_executed_is_told() {
        for (program, expected) in [("/no/such/program", Errno::ENOENT), ("/etc/passwd", Errno::EACCES)] {
            let Some((_, mut running)) = ready("what_cannot_be_executed_is_told", &[program]) else { return };
            match running.start() {
                Err(StartError::Exec { program: named, errno }) => {
                    assert_eq!((named.as_str(), errno), (program, expected));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn signals_reach_it_and_dropping_kills() {
        let name = "signals_reach_it_and_dropping_kills";
        let Some((_, mut running)) = ready(name, &["sleep", "30"]) else { return };
        running.start().unwrap();
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait().unwrap(), Outcome::Signaled(Signal::SIGTERM));
        let Some((_, running)) = ready(name, &["sleep", "30"]) else { return };
        let child = running.child;
        drop(running);
        assert_eq!(kill(child, None), Err(Errno::ESRCH), "even before it was started");
    }

    #[test]
    fn it_dies_with_its_parent() {
        let name = "it_dies_with_its_parent";
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let parent = fork_child(|| {
            let Some((_, mut running)) = ready(name, &["sleep", "30"]) else { return 0 };
            running.start().unwrap();
            fdpass::send(theirs.as_fd(), b"C", Some(running.pidfd.as_fd())).unwrap();
            std::thread::sleep(std::time::Duration::from_secs(30));
            0
        })
        .unwrap();
        drop(theirs);
        if let Ok((1, Some(pidfd))) = fdpass::receive(ours.as_fd(), &mut [0; 1]) {
            kill(parent, Signal::SIGKILL).unwrap();
            let mut fds = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
            assert_eq!(nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(5000_u16)).unwrap(), 1);
        }
        wait_for(parent).unwrap();
    }

    #[test]
    fn what_stays_in_the_background_is_ended() {
        let name = "what_stays_in_the_background_is_ended";
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = "(sleep 30 & echo $! >\"$0\"; sleep 30) & while ! test -s \"$0\"; do :; done; exit 4";
        let path = file.path().to_str().unwrap();
        // In a process of its own: the other tests of this one have children too.
        let parent = fork_child(|| {
            let Some((_, mut running)) = ready(name, &["sh", "-c", script, path]) else { return 0 };
            running.start().unwrap();
            assert_eq!(running.wait().unwrap(), Outcome::Exited(4));
            let grandchild: i32 = fs::read_to_string(path).unwrap().trim().parse().unwrap();
            assert_eq!(kill(Pid::from_raw(grandchild), None), Err(Errno::ESRCH));
            0
        })
        .unwrap();
        assert!(matches!(wait_for(parent).unwrap(), WaitStatus::Exited(_, 0)));
    }

    #[test]
    fn the_parents_own_namespaces_stay() {
        let before = fs::read_link("/proc/self/ns/net").unwrap();
        let Some((_, running)) = ready("the_parents_own_namespaces_stay", &["true"]) else { return };
        let inside = fs::read_link(format!("/proc/{}/ns/net", running.child)).unwrap();
        assert_ne!(inside, before);
        assert_eq!(fs::read_link("/proc/self/ns/net").unwrap(), before);
    }
}
