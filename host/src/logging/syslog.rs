//! The system's log: one datagram a line to `/dev/log`, in the form of RFC 3164.
//!
//! ```text
//! <PRI>Mmm dd hh:mm:ss TAG[PID]: text
//! ```
//! No host name stands in it: on the local socket every daemon leaves it out and every receiver adds it. The time is
//! local time, as the RFC (§4.1.2) and syslog(3) have it.
//!
//! A system without a log is an ordinary one (containers, early boot): then lines go nowhere and nobody is told. The
//! socket never blocks, so a log that does not read costs lines, not service. After a restart of the log the next line
//! finds the new socket.
//!
//! The socket and the calendar of this place are opened at once: a program that gives up its privileges can open
//! neither any more. To find a log that was restarted takes no new socket.

use crate::clock::LocalTime;
use std::fmt::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Where the system's log listens.
pub const PATH: &str = "/dev/log";
/// The longest datagram that is sent. RFC 3164 §4.1 asks for 1024; receivers of today take far more.
const LONGEST: usize = 2048;

/// What kind of program speaks (RFC 3164 §4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facility {
    /// A user's.
    User = 1,
    /// One of the system's.
    Daemon = 3,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// How serious a line is (RFC 3164 §4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Something failed.
    Error = 3,
    /// Something is odd.
    Warning = 4,
    /// For the record.
    Info = 6,
    /// For developers.
    Debug = 7,
}

impl From<log::Level> for Severity {
    fn from(level: log::Level) -> Self {
        match level {
            log::Level::Error => Self::Error,
            log::Level::Warn => Self::Warning,
            log::Level::Info => Self::Info,
            log::Level::Debug | log::Level::Trace => Self::Debug,
        }
    }
}

/// A way to the system's log.
#[derive(Debug)]
pub struct Syslog {
    path: PathBuf,
    tag: &'static str,
    facility: Facility,
    socket: Option<UnixDatagram>,
    /// Whether it leads to somebody.
    connected: bool,
}

impl Syslog {
    /// Lines begin with `tag`. Whether there is a log shows with each line.
    #[must_use]
    pub fn new(tag: &'static str, facility: Facility) -> Self {
        Self::at(Path::new(PATH), tag, facility)
    }

    /// A log that listens elsewhere.
    #[must_use]
    pub fn at(path: &Path, tag: &'static str, facility: Facility) -> Self {
        // The C library reads the rules of the time zone once, with the first time that it splits.
        let _ = LocalTime::now();
        let socket = UnixDatagram::unbound().ok().filter(|socket| socket.set_nonblocking(true).is_ok());
        let mut log = Self { path: path.to_owned(), tag, facility, socket, connected: false };
        log.connect();
        log
    }

    fn connect(&mut self) {
        self.connected = self.socket.as_ref().is_some_and(|socket| socket.connect(&self.path).is_ok());
    }

    /// Writes one line; if that cannot be done now, it is lost.
    pub fn write(&mut self, severity: Severity, text: fmt::Arguments<'_>) {
        if !self.connected {
            self.connect();
        }
        let Some(socket) = self.socket.as_ref().filter(|_| self.connected) else { return };
        let line = line(self.facility, severity, LocalTime::now(), self.tag, std::process::id(), text);
        let Err(error) = socket.send(line.as_bytes()) else { return };
        if error.kind() == std::io::ErrorKind::WouldBlock {
            return;
        }
        // The log was restarted: its old socket is gone.
        self.connect();
        if let Some(socket) = self.socket.as_ref().filter(|_| self.connected) {
            let _ = socket.send(line.as_bytes());
        }
    }
}

/// Day and time as RFC 3164 (§4.1.2) has them.
#[must_use]
pub fn stamp(time: LocalTime) -> String {
    let LocalTime { month, day, hour, minute, second } = time;
    let month = MONTHS.get(usize::from(month)).copied().unwrap_or("Jan");
    format!("{month} {day:>2} {hour:02}:{minute:02}:{second:02}")
}

/// A line as it is sent. Control characters become spaces, so that one line stays one.
fn line(
    facility: Facility,
    severity: Severity,
    time: LocalTime,
    tag: &str,
    pid: u32,
    text: fmt::Arguments<'_>,
) -> String {
    let priority = (facility as u8) << 3 | severity as u8;
    let mut line = format!("<{priority}>{} {tag}[{pid}]: ", stamp(time));
    let start = line.len();
    let _ = line.write_fmt(text);
    if line.get(start..).is_some_and(|text| text.contains(char::is_control)) {
        line = line.replace(char::is_control, " ");
    }
    line.truncate(line.floor_char_boundary(LONGEST));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: LocalTime = LocalTime { month: 10, day: 3, hour: 4, minute: 5, second: 6 };

    #[test]
    fn lines_have_the_form_of_the_rfc() {
        let line =
            line(Facility::User, Severity::Error, TIME, "aardvark-dns", 42, format_args!("failed: {}", 7));
        assert_eq!(line, "<11>Nov  3 04:05:06 aardvark-dns[42]: failed: 7");
    }

    #[test]
    fn one_line_stays_one_and_is_bounded() {
        let text = format!("a\nb\u{7}{}", "ü".repeat(5000));
        let line = line(Facility::Daemon, Severity::Info, TIME, "t", 1, format_args!("{text}"));
        assert!(line.starts_with("<30>Nov  3 04:05:06 t[1]: a b ü"));
        assert!((LONGEST - 1..=LONGEST).contains(&line.len()));
    }

    #[test]
    fn a_log_that_is_missing_or_restarted_costs_lines_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Syslog::at(&path, "t", Facility::User);
        log.write(Severity::Info, format_args!("lost"));
        let mut buffer = [0; 100];
        for round in 0..2 {
            let _ = std::fs::remove_file(&path);
            let there = UnixDatagram::bind(&path).unwrap();
            log.write(Severity::Info, format_args!("round {round}"));
            let len = there.recv(&mut buffer).unwrap();
            let text = std::str::from_utf8(&buffer[..len]).unwrap();
            assert!(text.ends_with(&format!("]: round {round}")), "{text}");
        }
    }

    #[test]
    fn a_log_that_does_not_read_blocks_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _there = UnixDatagram::bind(&path).unwrap();
        let mut log = Syslog::at(&path, "t", Facility::User);
        for _ in 0..5000 {
            log.write(Severity::Debug, format_args!("text"));
        }
    }
}
