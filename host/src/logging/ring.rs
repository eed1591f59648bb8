//! A log file that never gets longer than it may: when it is full, its oldest part goes.
//!
//! ```text
//! header line          stays: who writes here
//! oldest lines         a cut takes whole lines, three tenths of what the file may hold
//! …
//! newest line          at the end
//! ```
//! The file is opened once, before a sandbox hides its path, and everything is done on that descriptor: the lines that
//! stay are copied over those that go, and the end is cut off. A cut of a file of a mebibyte takes a millisecond or so,
//! once for some three thousand lines. Whoever cuts the file from outside (logrotate's copytruncate) does no harm: the
//! next line goes where the end is then.
//!
//! What there is no room for on the disk is lost; the next line that gets through says how many were. A path that is no
//! plain file (a terminal, /dev/null) is written to, and never cut.

use slipway_netstack::surely::Surely as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The longest line, in bytes. A file should have room for a few.
pub const LINE_MAX: usize = 8192;
/// Bytes that are copied at a time.
const CHUNK: usize = 64 << 10;

/// The file.
#[derive(Debug)]
pub struct Ring {
    file: File,
    /// How long it may get, and how long the header is, if it can be cut.
    bounds: Option<(u64, u64)>,
    lost: u64,
}

impl Ring {
    /// Makes the file at `path`, or empties the one that is there, and writes the line `header`. It may get `limit`
    /// bytes long.
    ///
    /// # Errors
    /// Those of open(2) and write(2).
    pub fn create(path: &Path, limit: u64, header: &str) -> io::Result<Self> {
        // Waits for nobody who might read a pipe: what does not fit is lost.
        let open = |read: bool| {
            OpenOptions::new()
                .read(read)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(path)
        };
        // One that may only be written (in a home directory, by AppArmor's profile for pasta) is emptied when full.
        let mut file = open(true).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => open(false),
            _ => Err(error),
        })?;
        let plain = file.metadata()?.is_file();
        let line = format!("{header}\n");
        file.write_all(line.as_bytes())?;
        let bounds = plain.then_some((limit, u64::try_from(line.len()).surely()));
        Ok(Self { file, bounds, lost: 0 })
    }

    /// Adds a line. Control characters in `text` become spaces, so that one line stays one.
    pub fn write(&mut self, text: &str) {
        let mut line = text.replace(char::is_control, " ");
        line.truncate(line.floor_char_boundary(LINE_MAX - 1));
        line.push('\n');
        if self.lost > 0 && self.append(format!("{} lines lost\n", self.lost).as_bytes()).is_ok() {
            self.lost = 0;
        }
        if self.append(line.as_bytes()).is_err() {
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let Some((limit, head)) = self.bounds else { return self.file.write_all(line) };
        let mut end = self.file.seek(SeekFrom::End(0))?;
        let more = u64::try_from(line.len()).surely();
        if end.saturating_add(more) > limit {
            end = self.cut(limit, head.min(end)).or_else(|_| self.forget(head))?;
        }
        let written = self.file.seek(SeekFrom::Start(end)).and_then(|_| self.file.write_all(line));
        // Half a line is worse than none.
        written.inspect_err(|_| drop(self.file.set_len(end)))
    }

    /// Takes the oldest lines out; gives the new end.
    fn cut(&mut self, limit: u64, head: u64) -> io::Result<u64> {
        let mut chunk = vec![0; CHUNK];
        let mut from = self.line_after(head.saturating_add(limit / 10 * 3), &mut chunk)?;
        let mut to = head;
        loop {
            let count = self.read_at(from, &mut chunk)?;
            let Some(piece @ [_, ..]) = chunk.get(..count) else { break };
            self.file.seek(SeekFrom::Start(to))?;
            self.file.write_all(piece)?;
            let moved = u64::try_from(count).surely();
            (from, to) = (from.saturating_add(moved), to.saturating_add(moved));
        }
        self.file.set_len(to)?;
        Ok(to)
    }

    /// Where the next line begins, at `at` or behind it.
    fn line_after(&mut self, at: u64, chunk: &mut [u8]) -> io::Result<u64> {
        // The byte in front may end a line.
        let at = at.saturating_sub(1);
        let count = self.read_at(at, chunk)?;
        let found = chunk.get(..count).surely().iter().position(|byte| *byte == b'\n');
        Ok(at.saturating_add(u64::try_from(found.map_or(count, |position| position + 1)).surely()))
    }

    fn read_at(&mut self, at: u64, chunk: &mut [u8]) -> io::Result<usize> {
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read(chunk)
    }

    /// What could not be moved goes as a whole.
    fn forget(&mut self, head: u64) -> io::Result<u64> {
        self.file.set_len(head)?;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn made(limit: u64) -> (tempfile::TempDir, std::path::PathBuf, Ring) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let ring = Ring::create(&path, limit, "pasta 1: /usr/bin/pasta (7)").unwrap();
        (dir, path, ring)
    }

    #[test]
    fn the_oldest_lines_go_and_the_header_stays() {
        let (_dir, path, mut ring) = made(40_960);
        let mut longest = 0;
        for number in 0..5000 {
            ring.write(&format!("line {number}"));
            longest = longest.max(fs::metadata(&path).unwrap().len());
        }
        assert!((40_000..=40_960).contains(&longest), "{longest}");
        let text = fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("pasta 1: /usr/bin/pasta (7)"));
        let first = lines.next().unwrap().strip_prefix("line ").unwrap().parse::<u32>().unwrap();
        assert!(first > 1000, "{first}");
        // Whole, in order, to the newest.
        let rest: Vec<_> = (first + 1..5000).map(|number| format!("line {number}")).collect();
        assert_eq!(lines.collect::<Vec<_>>(), rest);
        assert!(text.len() > 40_960 * 6 / 10, "no more than three tenths go at a time");
    }

    #[test]
    fn lines_of_any_length_are_survived() {
        let (_dir, path, mut ring) = made(40_960);
        for length in [0, 1, 9000, 40_000, 100_000] {
            for _ in 0..20 {
                ring.write(&"ü".repeat(length));
                assert!(fs::metadata(&path).unwrap().len() <= 40_960);
            }
        }
        ring.write("a\nb\u{7}c");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("\na b c\n"));
    }

    #[test]
    fn who_cuts_the_file_from_outside_does_no_harm() {
        let (_dir, path, mut ring) = made(40_960);
        (0..100).for_each(|number| ring.write(&format!("line {number}")));
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        ring.write("after");
        assert_eq!(fs::read_to_string(&path).unwrap(), "after\n");
        (0..8000).for_each(|number| ring.write(&format!("line {number}")));
        assert!(fs::read_to_string(&path).unwrap().ends_with("line 7999\n"));
    }

    #[test]
    fn a_device_is_written_to_and_a_full_one_costs_lines_only() {
        Ring::create(Path::new("/dev/null"), 40_960, "head").unwrap().write("text");
        assert!(Ring::create(Path::new("/dev/full"), 40_960, "head").is_err());
        let (_dir, path, mut ring) = made(40_960);
        let good = std::mem::replace(&mut ring.file, File::options().write(true).open("/dev/full").unwrap());
        ring.bounds = None;
        (0..3).for_each(|_| ring.write("lost"));
        ring.file = good;
        ring.write("here");
        assert!(fs::read_to_string(&path).unwrap().ends_with("3 lines lost\nhere\n"));
    }
}
