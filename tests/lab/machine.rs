//! A machine of one's own: a network and mount namespace in which a root's program may do what it likes.
//!
//! Where a [`Lab`](crate::Lab) plays host, world and container for a rootless program, a `Machine` is one empty host
//! for programs that want to be root on it: servers on port 53, bridges, firewall rules. It has `lo`, a
//! `/etc/resolv.conf` of its own, an empty `/run`, and nothing else. A [`Machine::namespace`] beside it plays a
//! container.
//!
//! Sockets are made by [`Machine::within`], on a thread that enters the namespace and ends there: a socket belongs to
//! the namespace it was made in and can then be used from anywhere.
//!
//! Limits: needs root. Daemons that leave their process group must be ended by the test that started them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

use crate::command::{Cmd, Output, Running};
use crate::missing;
use crate::unavailable::{NO_IPV6, Unavailable, ipv6};

const LIMIT: Duration = Duration::from_secs(20);

/// A private host. Its namespaces go when this does, unless a process still lives in them.
#[derive(Debug)]
pub struct Machine {
    holder: Running,
    dir: TempDir,
}

/// A bare network namespace, such as a container has before anybody set it up.
#[derive(Debug)]
pub struct Namespace {
    holder: Running,
}

impl Machine {
    /// Makes it.
    pub fn new() -> Result<Self, Unavailable> {
        if let Some(program) = missing(&["ip", "nsenter", "unshare", "mount"]) {
            return Err(Unavailable(format!("{program} is not installed")));
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(Unavailable("needs root".to_owned()));
        }
        if !ipv6() {
            return Err(Unavailable(NO_IPV6.to_owned()));
        }
        let dir = TempDir::with_prefix("slipway-machine-")?;
        std::fs::write(dir.path().join("resolv.conf"), "")?;
        let script = format!(
            "set -e
             mount --bind {}/resolv.conf /etc/resolv.conf
             mount -t tmpfs -o mode=755 tmpfs /run
             ip link set lo up
             echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
             echo ready; exec cat",
            dir.path().display()
        );
        let words = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c"];
        let mut holder = Cmd::new(words).arg(script).start()?;
        holder.until(LIMIT, |running| running.stdout().contains("ready"))?;
        Ok(Self { holder, dir })
    }

    /// A directory for the test's files; it goes with the machine.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process that holds the namespaces.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// The machine's `/etc/resolv.conf`, seen from outside. Writing it in place is what an administrator's editor does.
    #[must_use]
    pub fn resolv_conf(&self) -> PathBuf {
        self.dir.path().join("resolv.conf")
    }

    /// A command on this machine.
    pub fn cmd<I, S>(&self, argv: I) -> Cmd
    where
        I: IntoIterator<Item = S>,
        S: Into<std::ffi::OsString>,
    {
        inside(self.pid(), argv)
    }

    /// A shell script on this machine, for at most 20 seconds.
    pub fn sh(&self, script: &str) -> io::Result<Output> {
        self.cmd(["sh", "-c", script]).run(LIMIT)
    }

    /// Runs a function on a thread inside the machine's network namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        within(self.pid(), work)
    }

    /// A new network namespace on this machine, with nothing but a `lo` that is down.
    pub fn namespace(&self) -> io::Result<Namespace> {
        let mut holder = self.cmd(["unshare", "--net", "sh", "-c", "echo ready; exec cat"]).start()?;
        holder.until(LIMIT, |running| running.stdout().contains("ready"))?;
        Ok(Namespace { holder })
    }
}

impl Namespace {
    /// The process that holds it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// Its path, as container engines name it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.pid())
    }

    /// A command inside.
    pub fn cmd<I, S>(&self, argv: I) -> Cmd
    where
        I: IntoIterator<Item = S>,
        S: Into<std::ffi::OsString>,
    {
        inside(self.pid(), argv)
    }

    /// A shell script inside, for at most 20 seconds.
    pub fn sh(&self, script: &str) -> io::Result<Output> {
        self.cmd(["sh", "-c", script]).run(LIMIT)
    }

    /// Runs a function on a thread inside it.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        within(self.pid(), work)
    }
}

/// A command in the network and mount namespaces of a process.
fn inside<I, S>(pid: u32, argv: I) -> Cmd
where
    I: IntoIterator<Item = S>,
    S: Into<std::ffi::OsString>,
{
    Cmd::new(argv).under(["nsenter", "--target", &pid.to_string(), "--net", "--mount"])
}

/// Runs a function on a thread inside the network namespace of process `pid`.
pub fn within<T: Send>(pid: u32, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let net = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            setns(net, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        worker.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside panicked")))
    })
}
