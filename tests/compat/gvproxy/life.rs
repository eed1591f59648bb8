//! A gvproxy at work, for tests: a directory, a process in it, and what becomes of both.

use super::{Subject, lines};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_lab::now;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long something may take that a busy machine does late.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A gvproxy at work in a directory of its own.
pub(crate) struct Life {
    dir: TempDir,
    pub(crate) child: Child,
}

impl Life {
    /// Starts with these words, where `@` stands for the directory, and waits for the socket of QEMU's guests.
    pub(crate) fn start(subject: &Subject, words: &[&str]) -> Self {
        let life = Self::begin(subject, words);
        assert!(until(|| life.at("qemu").exists()), "{:?}", life.said());
        life
    }

    pub(crate) fn begin(subject: &Subject, words: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().to_str().unwrap();
        let words = words.iter().map(|word| word.replace('@', place));
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = subject.cmd().args(words).stderr(log).stdout(Stdio::null()).spawn().unwrap();
        Self { dir, child }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn said(&self) -> Vec<String> {
        let place = self.dir.path().to_str().unwrap();
        lines(&std::fs::read(self.at("log")).unwrap()).iter().map(|line| line.replace(place, "@")).collect()
    }

    /// What is in the directory.
    pub(crate) fn files(&self) -> Vec<String> {
        let listed = std::fs::read_dir(self.dir.path()).unwrap();
        let mut files: Vec<_> =
            listed.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        files.sort();
        files
    }

    pub(crate) fn tell(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// The exit code, once it has ended.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        assert!(until(|| self.child.try_wait().unwrap().is_some()), "it stays: {:?}", self.said());
        self.child.wait().unwrap().code()
    }

    /// A guest. A socket has its file a moment before anybody is let in.
    pub(crate) fn guest(&self) -> UnixStream {
        let mut guest = Err(std::io::ErrorKind::NotFound.into());
        until(|| {
            guest = UnixStream::connect(self.at("qemu"));
            guest.is_ok()
        });
        guest.unwrap()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn until(mut done: impl FnMut() -> bool) -> bool {
    let end = now() + LIMIT;
    while now() < end {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    done()
}

pub(crate) fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}
