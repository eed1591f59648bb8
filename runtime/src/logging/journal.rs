//! The log of a program that goes to the background.
//!
//! ```text
//!              start                     afterwards
//! foreground   stderr                    stderr
//! background   stderr and system's log   system's log
//! with a file  stderr and file           file
//! ```
//! While it starts, somebody reads standard error, and what is said there is what people see when it fails; afterwards
//! nobody may. Files and the socket of the system's log are opened at once, because a sandbox comes later. Lines that a
//! stranger can cause are limited once the start is over, to more for whoever has asked for more (`--debug`,
//! `--trace`).

use log::{Level, LevelFilter, Log, Metadata, Record};
use slipway_host::clock::{self, LocalTime};
use slipway_host::logging::limit::{BURST, LARGE_BURST, Limit, Verdict};
use slipway_host::logging::ring::Ring;
use slipway_host::logging::stream::STDERR;
use slipway_host::logging::syslog::{Facility, Syslog, stamp};
use slipway_host::strerror::words;
use slipway_netstack::Instant;
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

/// What is logged, and where.
#[derive(Debug, Clone, Copy)]
pub struct Wishes<'a> {
    /// The program, for the system's log and the head of a file.
    pub name: &'static str,
    /// Its version, for the head of a file.
    pub version: &'a str,
    /// Lines of this level and above.
    pub level: LevelFilter,
    /// A file in place of the system's log, and how long it may get, in bytes.
    pub file: Option<(&'a Path, u64)>,
    /// Whether the process stays in the foreground.
    pub foreground: bool,
}

/// Has lines of the `log` facade written as wished. To be called in the process that stays, before the sandbox; only
/// the first call of a process counts.
///
/// # Errors
/// The file cannot be written: one line that says why.
pub fn open(wishes: &Wishes<'_>) -> Result<(), String> {
    let journal = Journal::new(wishes)?;
    if log::set_logger(JOURNAL.get_or_init(|| journal)).is_ok() {
        // In the background nobody keeps the caller's streams open: who reads them to their end waits for us otherwise.
        if wishes.foreground {
            STDERR.own(std::io::stderr());
        }
        log::set_max_level(wishes.level);
    }
    Ok(())
}

/// The start is over: whoever started us may not read on.
pub fn settle() {
    if let Some(journal) = JOURNAL.get() {
        journal.settle();
    }
}

/// Keeps a last word, an error that standard error is told otherwise, where lines outlast the start.
pub fn keep(text: &str) {
    if let Some(journal) = JOURNAL.get()
        && let Ok(mut state) = journal.state.lock()
    {
        text.lines().for_each(|line| state.keep(Level::Error, format_args!("{line}")));
    }
}

static JOURNAL: OnceLock<Journal> = OnceLock::new();

/// Where lines go that outlast the start.
#[derive(Debug)]
enum Keeper {
    /// Nowhere but stderr.
    Nobody,
    System(Syslog),
    File(Ring),
}

#[derive(Debug)]
struct Journal {
    /// More was asked for: a larger limit, and with the time on stderr.
    verbose: bool,
    /// What the time on stderr counts from.
    opened: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    keeper: Keeper,
    starting: bool,
    limit: Limit,
}

impl Journal {
    fn new(wishes: &Wishes<'_>) -> Result<Self, String> {
        let keeper = match wishes.file {
            Some((path, size)) => {
                let exe = std::env::current_exe().unwrap_or_else(|_| wishes.name.into());
                let head =
                    format!("{} {}: {} ({})", wishes.name, wishes.version, exe.display(), std::process::id());
                let ring = Ring::create(path, size, &head);
                Keeper::File(ring.map_err(|error| {
                    format!("Couldn't open log file {}: {}", path.display(), words(&error))
                })?)
            }
            None if wishes.foreground => Keeper::Nobody,
            None => Keeper::System(Syslog::new(wishes.name, Facility::Daemon)),
        };
        let verbose = wishes.level >= LevelFilter::Debug;
        let limit = Limit::of(if verbose { LARGE_BURST } else { BURST });
        let state = State { keeper, starting: true, limit };
        Ok(Self { verbose, opened: clock::now(), state: Mutex::new(state) })
    }

    fn settle(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.starting = false;
        }
    }

    fn write(&self, level: Level, text: fmt::Arguments<'_>) {
        let Ok(mut state) = self.state.lock() else { return };
        if !state.starting {
            match state.limit.judge(clock::now()) {
                Verdict::Drop => return,
                Verdict::Write => {}
                Verdict::WriteAfter(count) => {
                    self.put(&mut state, Level::Warn, format_args!("{count} lines left out"));
                }
            }
        }
        self.put(&mut state, level, text);
    }

    fn put(&self, state: &mut State, level: Level, text: fmt::Arguments<'_>) {
        if state.starting || matches!(state.keeper, Keeper::Nobody) {
            let line = if self.verbose {
                format!("{:.4}: {text}\n", clock::now().since(self.opened).as_secs_f64())
            } else {
                format!("{text}\n")
            };
            STDERR.offer(std::io::stderr().lock(), "", &line);
        }
        state.keep(level, text);
    }
}

impl State {
    fn keep(&mut self, level: Level, text: fmt::Arguments<'_>) {
        match &mut self.keeper {
            Keeper::Nobody => {}
            Keeper::System(log) => log.write(level.into(), text),
            Keeper::File(ring) => {
                ring.write(&format!("{} {}: {text}", stamp(LocalTime::now()), word(level)));
            }
        }
    }
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.write(record.level(), *record.args());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(path: &Path, level: LevelFilter) -> Journal {
        let wishes =
            Wishes { name: "pasta", version: "1.2", level, file: Some((path, 40_960)), foreground: false };
        Journal::new(&wishes).unwrap()
    }

    #[test]
    fn a_file_says_who_writes_and_how_serious_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let journal = journal(&path, LevelFilter::Info);
        journal.write(Level::Warn, format_args!("first"));
        journal.settle();
        journal.write(Level::Info, format_args!("second"));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let exe = std::env::current_exe().unwrap();
        assert_eq!(lines[0], format!("pasta 1.2: {} ({})", exe.display(), std::process::id()));
        assert!(lines[1].ends_with(" warning: first") && lines[2].ends_with(" info: second"), "{text}");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn floods_are_limited_once_the_start_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for (level, flood, most) in [
            (LevelFilter::Info, 100, 120..=160),
            (LevelFilter::Debug, 100, 201..=201),
            // The machine may be slow enough to begin a second window.
            (LevelFilter::Trace, 12_000, 5101..=11_000),
        ] {
            let size = 10 << 20;
            let wishes =
                Wishes { name: "pasta", version: "1", level, file: Some((&path, size)), foreground: false };
            let journal = Journal::new(&wishes).unwrap();
            (0..100).for_each(|_| journal.write(Level::Info, format_args!("start")));
            journal.settle();
            (0..flood).for_each(|_| journal.write(Level::Trace, format_args!("flood")));
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            assert!(most.contains(&lines), "{level}: {lines}");
        }
    }

    #[test]
    fn the_systems_log_has_what_is_said_in_the_background() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let state = State {
            keeper: Keeper::System(Syslog::at(&path, "pasta", Facility::Daemon)),
            starting: true,
            limit: Limit::new(),
        };
        let journal = Journal { verbose: false, opened: clock::now(), state: Mutex::new(state) };
        journal.write(Level::Warn, format_args!("while it starts"));
        journal.settle();
        journal.write(Level::Info, format_args!("afterwards"));
        let mut buffer = [0; 200];
        for (priority, text) in [("<28>", "while it starts"), ("<30>", "afterwards")] {
            let count = socket.recv(&mut buffer).unwrap();
            let line = std::str::from_utf8(&buffer[..count]).unwrap();
            let tail = format!(" pasta[{}]: {text}", std::process::id());
            assert!(line.starts_with(priority) && line.ends_with(&tail), "{line}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_made_is_told() {
        let wishes = Wishes {
            name: "pasta",
            version: "1",
            level: LevelFilter::Info,
            file: Some((Path::new("/nosuch/x"), 40_960)),
            foreground: true,
        };
        let error = Journal::new(&wishes).unwrap_err();
        assert_eq!(error, "Couldn't open log file /nosuch/x: No such file or directory");
    }
}
