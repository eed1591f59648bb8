//! The server's process: told by SIGHUP, started when there is none.
//!
//! It is started with the arguments that tests look for (`aardvark-dns --config DIR -p PORT run`), in a scope of its
//! own where systemd runs, so that stopping the unit that started a container does not stop names for all others. Its
//! launcher ends when it is ready or has failed; what it says on stderr until then is the error's text. It is collected
//! in a file, not a pipe: a server that keeps its stderr open must not hold up a container.
//!
//! A process ID on disk may be stale and belong to somebody else by now; a process whose command line names neither the
//! server nor its directory is left in peace, and so is one that does not let us see its command line, or has none:
//! ours is of our user, and alive.

use super::files::PID_FILE;
use crate::error::{Context, Error, Result};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_host::environment;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// As much of the server's last words as is worth showing.
const WORDS: u64 = 16 * 1024;

#[derive(Debug)]
pub(super) struct Server {
    pub(super) dir: PathBuf,
    pub(super) binary: PathBuf,
    pub(super) rootless: bool,
    pub(super) port: u16,
}

impl Server {
    /// Whether there is a program to start at all.
    pub(super) fn exists(&self) -> bool {
        !self.binary.as_os_str().is_empty() && self.binary.exists()
    }

    /// Tells the running server to read its files; `None` if there is none.
    pub(super) fn notify(&self) -> Result<Option<Pid>> {
        let Some(pid) = self.pid()? else { return Ok(None) };
        match kill(pid, Signal::SIGHUP) {
            Ok(()) => Ok(Some(pid)),
            Err(Errno::ESRCH) => Ok(None),
            Err(error) => Err(Error::msg(format!("failed to send SIGHUP to aardvark: {error}"))),
        }
    }

    /// What [`Self::notify`] and, `start`ing, [`Self::start`] would do. Nothing is touched.
    pub(super) fn describe_notify(&self, start: bool) -> Result<Option<String>> {
        Ok(match self.pid()? {
            Some(pid) => Some(format!("host       kill -HUP {pid}")),
            None => {
                let (binary, dir) = (self.binary.display(), self.dir.display());
                start.then(|| format!("host       {binary} --config {dir} -p {} run", self.port))
            }
        })
    }

    fn pid(&self) -> Result<Option<Pid>> {
        let text = match fs::read_to_string(self.dir.join(PID_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("failed to get aardvark pid"),
        };
        // Zero and negative numbers mean whole groups of processes to kill(2).
        let pid = text.trim().parse().ok().filter(|pid| *pid > 1).map(Pid::from_raw);
        if pid.is_none() {
            log::debug!("no process ID in {}/{PID_FILE}: {text:?}", self.dir.display());
        }
        Ok(pid.filter(|pid| self.is_server(*pid)))
    }

    fn is_server(&self, pid: Pid) -> bool {
        let Ok(words) = fs::read(format!("/proc/{pid}/cmdline")) else {
            // Without /proc nobody's can be seen, and the number has to do.
            return fs::read("/proc/self/cmdline").is_err();
        };
        let name = self.binary.file_name();
        words.split(|byte| *byte == 0).enumerate().any(|(number, word)| {
            let word = Path::new(OsStr::from_bytes(word));
            word == self.dir || (number == 0 && word.file_name().is_some() && word.file_name() == name)
        })
    }

    /// Says so when the server cannot be reached by the container, because it serves another network namespace.
    pub(super) fn check_namespace(&self, pid: Pid) {
        let here = fs::read_link("/proc/self/ns/net");
        let there = fs::read_link(format!("/proc/{pid}/ns/net"));
        // A server that is just ending has no namespace any more; that is no reason to complain.
        if let (Ok(here), Ok(there)) = (here, there)
            && here != there
        {
            log::error!(
                "aardvark-dns runs in a different netns, dns will not work for this container. To resolve please stop \
                 all containers, kill the aardvark-dns process, remove the {} directory and then start the containers \
                 again",
                self.dir.display()
            );
        }
    }

    /// Starts it, and waits until it is ready.
    pub(super) fn start(&self) -> Result<()> {
        let scope = Path::new("/run/systemd/system").exists() && in_path("systemd-run");
        let mut words: Vec<OsString> = Vec::new();
        if scope {
            words.extend(["systemd-run", "-q", "--scope"].map(OsString::from));
            if self.rootless {
                words.push("--user".into());
            }
        }
        words.extend([self.binary.clone().into(), "--config".into(), self.dir.clone().into()]);
        words.extend(["-p".into(), self.port.to_string().into(), "run".into()]);
        log::debug!("start {words:?}");
        let Some((program, arguments)) = words.split_first() else { return Ok(()) };

        let mut said = File::from(memfd_create(c"aardvark-dns stderr", MFdFlags::MFD_CLOEXEC)?);
        let status = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said.try_clone()?)
            .env("RUST_LOG", log::max_level().as_str())
            .status()?;
        if status.success() {
            return Ok(());
        }
        let mut words = Vec::new();
        said.rewind()?;
        said.take(WORDS).read_to_end(&mut words)?;
        let words = String::from_utf8_lossy(&words);
        Err(Error::msg(match words.trim() {
            "" => "aardvark-dns exited unexpectedly without error message".to_owned(),
            words => format!("aardvark-dns failed to start: {words}"),
        }))
    }
}

fn in_path(program: &str) -> bool {
    environment::variable("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()))
}
