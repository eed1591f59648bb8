//! Going to the background: the process that was started ends when the network works, and another one stays.
//!
//! ```text
//!   the process that was started          the one that stays
//!   ────────────────────────────          ──────────────────
//!   fork ───────────────────────────────▶ namespaces, link, ports, threads, sandbox: whatever may fail
//!   waits                                 the PID file
//!   exit 0  ◀──────────── one byte ────── a session of its own, standard streams to /dev/null
//!   exit as it did ◀──────── end ──────── a line on stderr, and the end
//! ```
//! The fork stands at the beginning, not at the end: whatever fails is said while somebody still reads it, and nothing
//! that a fork would lose or copy (threads, locks, what the kernel counts by process) has to be made twice. Contract:
//! pasta B.2 and B.3: exit 0 means that the network can be used, the PID file is complete, and nobody holds the
//! caller's standard streams any more (Podman reads them to their end).
//!
//! Limits: whoever kills the waiting process kills no more than that; the other one notices when it tells.

use nix::fcntl::OFlag;
use nix::sys::wait::WaitStatus;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid, write};
use slipway_host::sys::proc::{fork_child, wait_for};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

/// What the process that stays says once: that the network works.
#[derive(Debug)]
#[must_use = "whoever waits for the word waits until the end"]
pub struct Tell(Option<Line>);

/// The line to the one that waits.
#[derive(Debug)]
struct Line {
    word: OwnedFd,
    /// To take the place of the standard streams.
    null: File,
    /// Standard error as it was, from the moment when it is none any more.
    stderr: Option<File>,
}

impl Tell {
    /// Nobody waits: this process stays in the foreground, with its standard streams.
    pub const fn nobody() -> Self {
        Self(None)
    }

    /// Whether somebody waits.
    #[must_use]
    pub const fn is_awaited(&self) -> bool {
        self.0.is_some()
    }

    /// Lets go of terminal and standard streams, which a filter of system calls would not let pass later. What fails
    /// between this and the word is told by [`Tell::complain`].
    ///
    /// # Errors
    /// Those of setsid(2) and dup2(2).
    pub fn detach(&mut self) -> io::Result<()> {
        let Some(line) = &mut self.0 else { return Ok(()) };
        line.stderr = Some(io::stderr().as_fd().try_clone_to_owned()?.into());
        setsid()?;
        dup2_stdin(&line.null)?;
        dup2_stdout(&line.null)?;
        dup2_stderr(&line.null)?;
        Ok(())
    }

    /// Says a line on standard error, as it was at the start. That nobody reads is no reason to fail.
    pub fn complain(&self, text: &str) {
        let text = format!("{text}\n");
        let _ = match self.0.as_ref().and_then(|line| line.stderr.as_ref()) {
            Some(mut stderr) => stderr.write_all(text.as_bytes()),
            None => io::stderr().lock().write_all(text.as_bytes()),
        };
    }

    /// Says that it works. From here on nobody's streams are held.
    ///
    /// # Errors
    /// EPIPE when the one that waited is gone, and whoever started it knows nothing of us: the end is near then, too.
    pub fn ready(&mut self) -> io::Result<()> {
        let Some(Line { word, stderr, .. }) = self.0.take() else { return Ok(()) };
        drop(stderr);
        write(&word, b"1")?;
        Ok(())
    }
}

/// Has `work` done by a process in the background, and returns in this one when that has told that it is ready, or has
/// ended: with the exit code that this one should have. Call it before starting threads.
///
/// # Errors
/// Out of processes or descriptors.
pub fn leave(work: impl FnOnce(&mut Tell) -> u8) -> io::Result<ExitCode> {
    let (heard, word) = pipe2(OFlag::O_CLOEXEC)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // Each process drops the end that is the other's.
    let (mut heard, mut line) = (Some(heard), Some(Line { word, null, stderr: None }));
    let child = fork_child(|| {
        heard = None;
        work(&mut Tell(line.take()))
    })?;
    line = None;
    drop(line);
    let mut word = [0; 1];
    let told = match heard {
        Some(heard) => File::from(heard).read(&mut word)?,
        None => 0,
    };
    if told > 0 {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(match wait_for(child)? {
        WaitStatus::Exited(_, status) => ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)),
        _ => ExitCode::FAILURE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Pid, getpid, getsid};

    #[test]
    fn exit_0_comes_with_the_word() {
        let (mut said, say) = io::pipe().unwrap();
        let (gate, mut open) = io::pipe().unwrap();
        let mut gate = Some(gate);
        let code = leave(|tell| {
            assert!(tell.is_awaited());
            tell.detach().unwrap();
            tell.ready().unwrap();
            // Whoever waited has gone on, and this one is still there.
            let alone = getsid(None).is_ok_and(|session| session == getpid());
            let mut go = [0; 1];
            gate.take().unwrap().read_exact(&mut go).unwrap();
            write!(&say, "{} {}", getpid(), u8::from(alone)).unwrap();
            3
        });
        assert_eq!(format!("{:?}", code.unwrap()), format!("{:?}", ExitCode::SUCCESS));
        drop(say);
        open.write_all(b"1").unwrap();
        let mut text = String::new();
        said.read_to_string(&mut text).unwrap();
        let (pid, alone) = text.split_once(' ').unwrap();
        assert_eq!(alone, "1", "a session of its own");
        let child = wait_for(Pid::from_raw(pid.parse().unwrap())).unwrap();
        assert!(matches!(child, WaitStatus::Exited(_, 3)), "{child:?}");
    }

    #[test]
    fn a_failure_before_the_word_is_the_callers() {
        for status in [0, 1, 7] {
            let code = leave(|_tell| status).unwrap();
            assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(status)));
        }
        let code = leave(|_tell| {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
            0
        });
        assert_eq!(format!("{:?}", code.unwrap()), format!("{:?}", ExitCode::FAILURE));
    }

    #[test]
    fn nobody_waits_in_the_foreground() {
        assert!(!Tell::nobody().is_awaited());
        let mut nobody = Tell::nobody();
        nobody.detach().and_then(|()| nobody.ready()).unwrap();
    }
}
