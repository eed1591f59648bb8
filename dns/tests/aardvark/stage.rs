//! Where a test plays: a network and a mount namespace of its own, a configuration, and the program in it.
//!
//! The namespaces are entered by the test's thread alone (unshare(2) is per thread), so programs and threads that it
//! starts are in them too, and the machine never notices. That takes root; for others the tests say that they were
//! skipped.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_host::sys::proc::pidfd_open;
use std::fs;
use std::net::{Ipv6Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// The port of all tests: nobody else is in the namespace.
pub(crate) const PORT: u16 = 5353;

/// A namespace with a configuration.
pub(crate) struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    /// Enters it; `None` after saying why not.
    pub(crate) fn enter(test: &str) -> Option<Self> {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
            println!("SKIP {test}: a network namespace needs root: {error}");
            return None;
        }
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let stage = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(stage.config()).unwrap();
        fs::create_dir(stage.dir.path().join("etc")).unwrap();
        stage.set_resolv_conf("");
        // The directory, not the file, so that a test can also replace the file.
        let target = fs::canonicalize("/etc").unwrap();
        mount(Some(&stage.dir.path().join("etc")), &target, none, MsFlags::MS_BIND, none).unwrap();
        Some(stage)
    }

    /// The same for a test that needs IPv6, which not every kernel has.
    pub(crate) fn enter_with_ipv6(test: &str) -> Option<Self> {
        if UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_err() {
            println!("SKIP {test}: this machine has no IPv6");
            return None;
        }
        Self::enter(test)
    }

    /// A system log of this namespace's own, to be read.
    pub(crate) fn log(&self) -> Log {
        let (dev, none): (_, Option<&str>) = (self.dir.path().join("dev"), None);
        fs::create_dir(&dev).unwrap();
        fs::write(dev.join("null"), "").unwrap();
        mount(Some("/dev/null"), &dev.join("null"), none, MsFlags::MS_BIND, none).unwrap();
        let socket = UnixDatagram::bind(dev.join("log")).unwrap();
        mount(Some(&dev), "/dev", none, MsFlags::MS_BIND | MsFlags::MS_REC, none).unwrap();
        Log(socket)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    pub(crate) fn set_resolv_conf(&self, text: &str) {
        fs::write(self.dir.path().join("etc/resolv.conf"), text).unwrap();
    }

    /// Writes a network's file.
    pub(crate) fn network(&self, name: &str, text: &str) {
        fs::write(self.config().join(name), text).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.config().join(name)).unwrap();
    }

    /// The command as netavark writes it.
    pub(crate) fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("--config").arg(self.config()).args(["-p", &PORT.to_string()]);
        command.args(options).arg("run").env_clear();
        command
    }

    /// Starts the program, which has to become ready.
    pub(crate) fn start(&self, options: &[&str]) -> Daemon {
        let output = self.command(options).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
        self.daemon()
    }

    /// The running program.
    pub(crate) fn daemon(&self) -> Daemon {
        let text = fs::read_to_string(self.pid_file()).unwrap();
        Daemon { pid: Pid::from_raw(text.parse().unwrap()) }
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.config().join("aardvark.pid")
    }
}

pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_aardvark-dns")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the program writes to the system's log.
pub(crate) struct Log(UnixDatagram);

impl Log {
    /// The next line, without what stands before its text; `None` when there is none for a while.
    pub(crate) fn line(&self, limit: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 4096];
        let len = self.0.recv(&mut buffer).ok()?;
        let line = String::from_utf8_lossy(&buffer[..len]).into_owned();
        let (head, text) = line.split_once("]: ").unwrap();
        assert!(head.starts_with('<') && head.contains(" aardvark-dns["), "{line}");
        Some(text.to_owned())
    }
}

/// The program in the background. It is killed with its handle.
pub(crate) struct Daemon {
    pid: Pid,
}

impl Daemon {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    /// A file of it in /proc.
    pub(crate) fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// Whether it has ended, waiting up to `limit`.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        let gone = || match fs::read_to_string(self.proc("stat")) {
            // Whoever inherits orphans here may not reap them.
            Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
            Err(_) => true,
        };
        eventually(limit, gone)
    }

    /// Processor time used, in ticks of 10 ms.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(self.proc("stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // By a descriptor, so that a number used again is nobody else's end.
        if pidfd_open(self.pid).is_ok() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}

/// Tries until it is true or the time is up.
pub(crate) fn eventually(limit: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let start = now();
    loop {
        if is_true() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A stopwatch, running.
pub(crate) struct Watch(Duration);

impl Watch {
    pub(crate) fn elapsed(&self) -> Duration {
        since_origin() - self.0
    }
}

pub(crate) fn now() -> Watch {
    Watch(since_origin())
}

fn since_origin() -> Duration {
    Duration::from_micros(slipway_host::clock::now().as_micros())
}
