//! From the command to the daemon: fork, and a parent that ends when the child is ready.
//!
//! ```text
//!   parent   pipe, fork ─────────────── read one byte ──▶ exit 0;  end of the pipe without a byte ──▶ exit 1
//!   child          └─▶ signals blocked, pid file, configuration, sockets, new session, stdio to /dev/null, "1", sandbox, loop
//! ```
//! netavark waits for the parent's end *and* for the end of standard error, so both must come with readiness, and what
//! fails before that reaches the user verbatim. The pid stands in its file before anything can fail: that is where
//! netavark looks whether there is a server. A failed start leaves it behind; netavark knows what to do.
//!
//! The signals are blocked before the pid can be read, because the first SIGHUP may follow at once; and they get their
//! default back first, because a program that was started by nohup(1) would never see another reload.

use super::args::Options;
use super::run::{Ended, Server};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid};
use slipway_host::sandbox::caps::Capability;
use slipway_host::sandbox::files::{self, Place};
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::sandbox::{self, Needs};
use slipway_host::signals::Signals;
use slipway_host::sys::{code, disposition, heap, proc};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The signals that mean something to us. SIGTERM and SIGINT keep their default: they end us and leave the pid file.
const SIGNALS: [Signal; 3] = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];

/// Starts the daemon and waits until it is ready. Returns the exit status of the parent.
pub(super) fn start(options: &Options) -> u8 {
    match in_background(options) {
        Ok(true) => 0,
        Ok(false) => failed(format_args!("Error from child process")),
        Err(error) => failed(format_args!("fork failed with error: {error}")),
    }
}

/// Whether the child became ready.
fn in_background(options: &Options) -> io::Result<bool> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    // Each process closes the other's end; the closure runs in the child alone, on its own copy of these.
    let (mut read, mut write) = (Some(read), Some(write));
    proc::fork_child(|| {
        drop(read.take());
        child(options, write.take())
    })?;
    drop(write.take());
    let Some(read) = read.take() else { return Ok(false) };
    let mut read = File::from(read);
    loop {
        match read.read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return Ok(outcome? == 1),
        }
    }
}

fn child(options: &Options, ready: Option<OwnedFd>) -> u8 {
    let signals = match catch() {
        Ok(signals) => signals,
        Err(error) => return failed(format_args!("Error starting server signals: {error}")),
    };
    let pid_file = PidFile::of(&options.config);
    if let Err(error) = pid_file.write() {
        return failed(format_args!("Error creating aardvark pid {}: {error}", pid_file.0.display()));
    }
    let mut server = match Server::start(options, signals) {
        Ok(Some(server)) => server,
        // There is nothing to serve. No byte: whoever wanted a server has to hear that there is none.
        Ok(None) => return end(&pid_file),
        Err(errors) => return failed(format_args!("Error starting server {errors}")),
    };
    if let Err(error) = detach() {
        return failed(format_args!("Error starting server /dev/null: {error}"));
    }
    if let Some(ready) = ready {
        // The parent may be gone already; the server is wanted all the same.
        let _ = File::from(ready).write_all(b"1");
    }
    // Nobody need wait for this, for nothing that strangers send has been read yet.
    settle(options);
    // What the start took goes back: one of these lives as long as any container.
    heap::trim();
    code::let_go();
    match server.run() {
        Ended::NothingToServe => end(&pid_file),
        Ended::Failed(error) => {
            log::error!("the event loop failed: {error}");
            1
        }
    }
}

fn catch() -> io::Result<Signals> {
    for signal in SIGNALS {
        disposition::set_default(signal)?;
    }
    Signals::catch(&SIGNALS)
}

/// Gives up what names do not take.
fn settle(options: &Options) {
    sandbox::settle(&Needs {
        files: &places(options),
        capabilities: &[Capability::CAP_NET_BIND_SERVICE],
        calls: Profile::Names { report: options.stats.is_some() },
    });
}

/// Where files are opened from now on: the configuration, whose pid file is removed at the end; the host's servers; and
/// the counters.
fn places(options: &Options) -> Vec<Place> {
    let mut places = files::of_resolv_conf(&options.resolv_conf);
    places.push(Place::write(&options.config));
    if let Some(directory) = options.stats.as_deref().and_then(Path::parent) {
        let here = directory.as_os_str().is_empty();
        places.push(Place::write(if here { Path::new(".") } else { directory }));
    }
    places
}

/// A session of our own, and nothing left of the standard streams.
fn detach() -> io::Result<()> {
    // Fails for the leader of a process group only, which a child just forked is not.
    let _ = setsid();
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).and_then(|()| dup2_stderr(&null)).map_err(Errno::into)
}

/// The orderly end.
fn end(pid_file: &PidFile) -> u8 {
    log::info!("no network is left; ending");
    match std::fs::remove_file(&pid_file.0) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{}: {error}", pid_file.0.display());
            1
        }
    }
}

/// Says why on standard error, which netavark shows to the user.
fn failed(text: std::fmt::Arguments<'_>) -> u8 {
    // Nobody may be reading.
    let _ = writeln!(io::stderr().lock(), "{text}");
    1
}

/// Where netavark finds whom to signal.
#[derive(Debug)]
struct PidFile(PathBuf);

impl PidFile {
    fn of(config: &Path) -> Self {
        Self(config.join(crate::config::aardvark::PID_FILE))
    }

    /// Decimal, without a newline.
    fn write(&self) -> io::Result<()> {
        std::fs::write(&self.0, std::process::id().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_files_are_its_directory_and_the_resolvers() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("network");
        std::fs::write(&own, "").unwrap();
        let options = Options {
            config: dir.path().to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            ..Options::default()
        };
        let all = ["/usr/bin/env", "/proc/self/environ", "/dev/null", "/etc/passwd"].map(Path::new);
        let all: Vec<_> = all.into_iter().chain([own.as_path()]).collect();
        match sandbox::trial::opened(|| settle(&options), &all).unwrap() {
            Some(opened) => assert_eq!(opened, [Path::new("/etc/passwd"), own.as_path()]),
            None => {
                println!("SKIP its_files_are_its_directory_and_the_resolvers: this kernel has no Landlock");
            }
        }
    }
}
