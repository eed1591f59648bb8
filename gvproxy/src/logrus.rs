//! The log, in the shape that people's scripts know: `time="…" level=info msg="…"`, a line an event.
//!
//! It goes to stderr, or to a file, which both processes share: each line is one write to its end. Lines that a guest
//! or a client can cause are limited once the start is over, unless everything was asked for. A last word
//! ([`say`]) comes past level and limit, because it says why there is no more.
//!
//! Contract: gvproxy §1.3. Times are UTC. What a terminal would get is the same text.

use crate::flags::quote;
use log::{Level, LevelFilter, Log, Metadata, Record};
use slipway_host::clock;
use slipway_host::logging::limit::{Limit, Verdict};
use slipway_host::logging::stream::STDERR;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// How bad it is, beyond what the `log` facade knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// The start has failed.
    Fatal,
    /// A line of the facade.
    Of(Level),
}

impl Grade {
    const fn name(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::Of(Level::Error) => "error",
            Self::Of(Level::Warn) => "warning",
            Self::Of(Level::Info) => "info",
            Self::Of(Level::Debug) => "debug",
            Self::Of(Level::Trace) => "trace",
        }
    }
}

/// The level that a configuration names, in letters of any case; `None`: there is no such level.
#[must_use]
pub fn level(name: &str) -> Option<LevelFilter> {
    let known = [
        // What is as bad as that is said anyway.
        (&["panic", "fatal"][..], LevelFilter::Off),
        (&["error"], LevelFilter::Error),
        (&["warn", "warning"], LevelFilter::Warn),
        (&["info"], LevelFilter::Info),
        (&["debug"], LevelFilter::Debug),
        (&["trace"], LevelFilter::Trace),
    ];
    let is =
        |(names, _): &&(&[&str], LevelFilter)| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    known.iter().find(is).map(|(_, level)| *level)
}

static JOURNAL: Journal = Journal { file: OnceLock::new(), limit: Mutex::new(None) };

struct Journal {
    file: OnceLock<File>,
    /// `None`: the start is not over, or everything is written.
    limit: Mutex<Option<Limit>>,
}

/// Has lines of `level` and above written, to `file` if there is one, which is emptied first. Only the first call of a
/// process counts.
///
/// # Errors
/// Those of open(2).
pub fn open(level: LevelFilter, file: Option<&Path>) -> io::Result<()> {
    if let Some(path) = file {
        let truncated = File::options().write(true).create(true).truncate(true).open(path)?;
        drop(truncated);
        // Two processes write it, each to where its end is.
        let _ = JOURNAL.file.set(File::options().append(true).open(path)?);
    }
    if log::set_logger(&JOURNAL).is_ok() {
        if file.is_none() {
            STDERR.own(io::stderr());
        }
        log::set_max_level(level);
    }
    Ok(())
}

/// The start is over: from here on strangers can cause lines.
pub fn settle() {
    if log::max_level() < LevelFilter::Debug
        && let Ok(mut limit) = JOURNAL.limit.lock()
    {
        *limit = Some(Limit::new());
    }
}

/// Writes a line whatever level and limit say.
pub fn say(grade: Grade, text: &str) {
    JOURNAL.put(&line(clock::since_1970(), grade, text));
}

impl Journal {
    fn put(&self, line: &str) {
        match self.file.get() {
            // A disk that is full is no reason to fail.
            Some(mut file) => drop(file.write_all(line.as_bytes())),
            None => STDERR.offer(io::stderr().lock(), "", line),
        }
    }

    fn judge(&self) -> Verdict {
        let Ok(mut limit) = self.limit.lock() else { return Verdict::Drop };
        limit.as_mut().map_or(Verdict::Write, |limit| limit.judge(clock::now()))
    }
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let verdict = self.judge();
        if let Verdict::WriteAfter(count) = verdict {
            say(Grade::Of(Level::Warn), &format!("{count} lines left out"));
        }
        if verdict != Verdict::Drop {
            say(Grade::Of(record.level()), &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// One line, newline included.
fn line(at: Duration, grade: Grade, text: &str) -> String {
    // Plain words stand without quotes.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    let message = if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { quote(text) };
    format!("time=\"{}\" level={} msg={message}\n", rfc3339(at), grade.name())
}

/// A moment since 1970, in UTC.
fn rfc3339(at: Duration) -> String {
    let seconds = at.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 1 March of year 0, so that the day that some years have more stands at their end: 400 years
    // have 146097 days, 100 have 36524, 4 have 1461.
    let since = days + 719_468;
    let (era, day) = (since / 146_097, since % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (date, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_shape_that_scripts_know() {
        let at = Duration::from_secs(1_780_000_000);
        let said = line(at, Grade::Of(Level::Info), "waiting for clients...");
        assert_eq!(said, "time=\"2026-05-28T20:26:40Z\" level=info msg=\"waiting for clients...\"\n");
        let said = line(at, Grade::Fatal, "\"/x\" already exists");
        assert!(said.ends_with(" level=fatal msg=\"\\\"/x\\\" already exists\"\n"), "{said}");
        assert!(line(at, Grade::Of(Level::Warn), "plain").ends_with(" level=warning msg=plain\n"));
        assert!(line(at, Grade::Of(Level::Debug), "").ends_with(" level=debug msg=\"\"\n"));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn levels_have_names_in_letters_of_any_case() {
        assert_eq!(level("WARN"), level("warning"));
        assert_eq!(level("Trace"), Some(LevelFilter::Trace));
        assert_eq!(level("fatal"), Some(LevelFilter::Off));
        assert_eq!(level("verbose"), None);
    }
}
