//! Commands with a deadline and a process group of their own.
//!
//! Output goes to files, not to pipes: a grandchild that keeps a pipe open can then never hang a test. The handle of
//! a running command kills its process group when it is dropped, by number, and nothing else.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::interrupt::interrupted;

/// The wall clock of the lab: the one place that asks the operating system.
#[expect(clippy::disallowed_methods, reason = "test tool: deadlines of real processes need the real clock")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// A command line to be run somewhere in the lab.
#[derive(Debug, Clone)]
pub struct Cmd {
    argv: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    input: Option<Vec<u8>>,
}

impl Cmd {
    /// A command from its words; the first is the program.
    pub fn new<I, S>(argv: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        Self { argv: argv.into_iter().map(Into::into).collect(), envs: Vec::new(), input: None }
    }

    /// Adds one word.
    #[must_use]
    pub fn arg(mut self, word: impl Into<OsString>) -> Self {
        self.argv.push(word.into());
        self
    }

    /// Adds words.
    #[must_use]
    pub fn args<I, S>(mut self, words: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        self.argv.extend(words.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Bytes for standard input, which ends after them. Without this, standard input is empty.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// The command under a prefix such as `nsenter …`.
    #[must_use]
    pub fn under<I, S>(self, prefix: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let mut argv: Vec<OsString> = prefix.into_iter().map(Into::into).collect();
        argv.extend(self.argv);
        Self { argv, ..self }
    }

    /// The command line as a person would read it.
    #[must_use]
    pub fn line(&self) -> String {
        self.argv.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// Runs to the end, for at most `limit`.
    pub fn run(self, limit: Duration) -> io::Result<Output> {
        let line = self.line();
        let mut running = self.start()?;
        running.stdin.take();
        running
            .finish(limit)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, format!("no end after {limit:?}: {line}")))
    }

    /// Runs to the end and demands success.
    pub fn ok(self, limit: Duration) -> io::Result<Output> {
        let line = self.line();
        let output = self.run(limit)?;
        if output.success() { Ok(output) } else { Err(io::Error::other(format!("{line}: {output}"))) }
    }

    /// Starts the command. Without [`Cmd::input`] its standard input is a pipe that stays open until the handle goes.
    pub fn start(self) -> io::Result<Running> {
        let line = self.line();
        let Self { argv, envs, input } = self;
        let (program, words) =
            argv.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "empty command"))?;
        let out = tempfile::tempfile()?;
        let err = tempfile::tempfile()?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut full = path.clone();
        full.push(OsStr::new(":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"));
        let mut command = Command::new(program);
        command.args(words).env("PATH", full).env("LC_ALL", "C").envs(envs).process_group(0);
        command.stdout(out.try_clone()?).stderr(err.try_clone()?);
        let stdin = match input {
            // A file rather than a pipe: the writer never waits for the reader.
            Some(bytes) => {
                let mut file = tempfile::tempfile()?;
                file.write_all(&bytes)?;
                file.seek(SeekFrom::Start(0))?;
                Stdio::from(file)
            }
            None => Stdio::piped(),
        };
        let mut child = command
            .stdin(stdin)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{line}: {error}")))?;
        let stdin = child.stdin.take();
        Ok(Running { child, stdin, out, err, line, status: None, tidies: interrupted() })
    }
}

/// A command that runs; it is killed when this goes out of scope.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// The write end of the command's standard input; dropping it is how a holder or an exit-fd is told to end.
    pub stdin: Option<ChildStdin>,
    out: File,
    err: File,
    line: String,
    status: Option<ExitStatus>,
    /// Whether it was started after this program was asked to end: then it is part of the end.
    tidies: bool,
}

impl Running {
    /// The process id, which is also its process group's.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed on standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&contents(&self.out)).into_owned()
    }

    /// What it printed on standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&contents(&self.err)).into_owned()
    }

    /// The exit status if it has ended.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits until it ends by itself; `None` (and it is killed) when that takes longer than `limit`. An error when this
    /// program is asked to end meanwhile.
    pub fn finish(&mut self, limit: Duration) -> io::Result<Option<Output>> {
        let end = now() + limit;
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(Output { status, stdout: contents(&self.out), stderr: contents(&self.err) }));
            }
            if now() >= end {
                self.kill();
                return Ok(None);
            }
            self.go_on()?;
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Waits until `probe` is true; an error with everything printed when the command ends first or time runs out.
    pub fn until(&mut self, limit: Duration, mut probe: impl FnMut(&Self) -> bool) -> io::Result<()> {
        let end = now() + limit;
        loop {
            if probe(self) {
                return Ok(());
            }
            self.go_on()?;
            let ended = self.ended()?;
            if ended.is_some() || now() >= end {
                let why =
                    ended.map_or_else(|| format!("nothing after {limit:?}"), |status| status.to_string());
                let (line, out, err) = (&self.line, self.stdout(), self.stderr());
                return Err(io::Error::other(format!("{line}: {why}\n{out}{err}")));
            }
            sleep(Duration::from_millis(2));
        }
    }

    /// An error when it is no longer worth waiting for.
    fn go_on(&self) -> io::Result<()> {
        if self.tidies || !interrupted() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, format!("interrupted: {}", self.line)))
    }

    /// Sends a signal to its process group.
    pub fn signal(&self, signal: Signal) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // Gone already is as good as killed.
            let _ = killpg(Pid::from_raw(group), signal);
        }
    }

    fn kill(&mut self) {
        // The leader may have ended while members of its group still run: the group is signalled while its number
        // cannot have been given to anybody else, which is until the leader is waited for.
        if self.status.is_none() {
            self.signal(Signal::SIGKILL);
            self.status = self.child.wait().ok();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stdin.take();
        self.kill();
    }
}

fn contents(file: &File) -> Vec<u8> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = Vec::new();
    let mut chunk = [0_u8; 16384];
    let mut offset = 0_u64;
    // Reads at explicit offsets: the child shares the file's position.
    while let Ok(count) = file.read_at(&mut chunk, offset) {
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
        offset += count as u64;
    }
    bytes
}

/// What a finished command left.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether the exit status is 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit status as a shell would give it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Standard output as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Both, for searching.
    #[must_use]
    pub fn all(&self) -> String {
        self.out() + &self.err()
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n--- stdout\n{}\n--- stderr\n{}", self.status, self.out(), self.err())
    }
}

/// How long a process has been ready to run, all its life, while no processor was free: the scheduler's own account
/// (`/proc/PID/schedstat`, second word, nanoseconds). Zero where the kernel keeps none.
#[must_use]
pub fn starved(pid: u32) -> Duration {
    let text = slurp(format!("/proc/{pid}/schedstat").as_ref());
    let text = String::from_utf8_lossy(&text);
    Duration::from_nanos(text.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0))
}

/// Reads a small file to its end, or nothing when it is not there.
pub(crate) fn slurp(path: &std::path::Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let _ = file.read_to_end(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_gives_output_and_code() {
        let output = Cmd::new(["sh", "-c", "cat; echo e >&2; exit 3"])
            .input("abc")
            .run(Duration::from_secs(5))
            .unwrap();
        assert_eq!((output.out().as_str(), output.err().as_str(), output.code()), ("abc", "e\n", 3));
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let error =
            Cmd::new(["sh", "-c", "sleep 60 & sleep 60"]).run(Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_holder_ends_when_its_input_closes() {
        let mut running = Cmd::new(["cat"]).start().unwrap();
        running.stdin.take();
        assert!(running.finish(Duration::from_secs(5)).unwrap().is_some());
    }
}
