//! Programs that are started: whoever carries frames in place of a socket, and DHCP clients.
//!
//! One that is not wanted any more is told to end, and killed when it does not within a second, so none is left behind
//! however often the connection is made anew. Source: pidfd_open(2).

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::unistd::Pid;
use slipway_host::sys::proc::pidfd_open;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};

/// How long one may take to end, in milliseconds.
const GRACE: u16 = 1000;

/// A program that runs, or has run.
#[derive(Debug)]
pub(crate) struct Program(Child);

impl Program {
    /// Starts it. Signals that we have blocked to read them reach it as ever: the mask passes through execve(2).
    ///
    /// # Errors
    /// Those of fork(2) and execve(2): ENOENT when it is not installed.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        // One that comes just now has its default effect, which is to end us: that is what we would do.
        let blocked = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let started = command.spawn().map(Self);
        blocked.thread_set_mask()?;
        started
    }

    /// What it writes, and what it reads, if both are pipes of ours that nobody has taken.
    pub(crate) fn streams(&mut self) -> Option<(OwnedFd, OwnedFd)> {
        let (input, output) = (self.0.stdout.take()?, self.0.stdin.take()?);
        Some((input.into(), output.into()))
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        // That it cannot be asked is impossible: it is our child, and nobody else waits for it.
        self.0.try_wait().ok().flatten()
    }

    fn end(&mut self) -> io::Result<()> {
        let number = i32::try_from(self.0.id()).map_err(io::Error::other)?;
        kill(Pid::from_raw(number), Signal::SIGTERM)?;
        let process = pidfd_open(Pid::from_raw(number))?;
        let mut wait = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        poll(&mut wait, PollTimeout::from(GRACE))?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.ended().is_none() {
            if let Err(error) = self.end() {
                log::debug!("a program is killed: {error}");
            }
            // Of one that has ended meanwhile this does nothing.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// The end of a program in the words of Go's package `os/exec`.
pub(crate) fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let name = match Signal::try_from(signal) {
                Ok(Signal::SIGKILL) => "killed",
                Ok(Signal::SIGTERM) => "terminated",
                Ok(other) => other.as_str(),
                Err(_) => "unknown",
            };
            format!("signal: {name}")
        }
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::path::Path;
    use std::process::Stdio;

    #[test]
    fn whoever_is_not_wanted_ends() {
        for script in ["exec sleep 60", "trap '' TERM; echo; while :; do sleep 1; done"] {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut program = Program::start(&mut command).unwrap();
            let place = format!("/proc/{}", program.0.id());
            let streams = program.streams().unwrap();
            if script.contains("echo") {
                assert_eq!(
                    nix::unistd::read(&streams.0, &mut [0; 8]),
                    Ok(1),
                    "it hears nothing from here on"
                );
            }
            assert_eq!(program.ended(), None);
            drop(program);
            assert!(!Path::new(&place).exists(), "nor is it a zombie");
        }
        let missing = Program::start(&mut Command::new("/no/such")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_we_block_reaches_it() {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTERM);
        blocked.thread_block().unwrap();
        let mut command = Command::new("sh");
        let script = ["-c", "grep SigBlk: /proc/self/status"];
        let mut program =
            Program::start(command.args(script).stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
        let mut said = String::new();
        std::fs::File::from(program.streams().unwrap().0).read_to_string(&mut said).unwrap();
        assert_eq!(said, "SigBlk:\t0000000000000000\n");
        assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM), "and we block it still");
    }

    #[test]
    fn an_end_is_told_as_go_tells_it() {
        let ended = |script: &str| words(Command::new("sh").args(["-c", script]).status().unwrap());
        assert_eq!(ended("exit 3"), "exit status 3");
        assert_eq!(ended("kill -KILL $$"), "signal: killed");
    }
}
