//! Standard output and error of a program that must not wait for whoever reads them.
//!
//! A pipe that nobody empties, or a terminal that Ctrl-S has stopped, would hold a blocking write up for ever, and with
//! it everything that the program serves. So each piece is preceded by the question whether there is room, and what
//! there is none for is lost and counted; the next text that gets through says how much. The descriptor cannot be made
//! non-blocking instead: it is shared with others, who do not expect that.
//!
//! A pipe that says POLLOUT takes PIPE_BUF bytes at once (pipe(7)), if nobody else fills it meanwhile. A terminal
//! promises nothing: it says so as long as there is room for one byte. So both are opened once more, for us alone and
//! without waiting ([`Stream::own`]). Where that is refused, as much is written at a time as a pipe promises, or 256
//! bytes (the kernel's WAKEUP_CHARS), and a terminal whose reader stands still may hold us up.

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::write;
use slipway_netstack::surely::Surely;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that fit when there is room at all.
const PIPE: usize = 4096;
const TERMINAL: usize = 256;

/// A stream, and what it did not take.
#[derive(Debug, Default)]
pub struct Stream {
    lost: AtomicU64,
    /// The pipe or terminal, opened for us alone.
    own: OnceLock<OwnedFd>,
}

/// Standard output.
pub static STDOUT: Stream = Stream::new();
/// Standard error.
pub static STDERR: Stream = Stream::new();

impl Stream {
    /// Nothing lost yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { lost: AtomicU64::new(0), own: OnceLock::new() }
    }

    /// If `fd`, on which this stream will write, is a pipe or terminal, opens it once more: before a sandbox forbids
    /// that.
    pub fn own(&self, fd: impl AsFd) {
        let fd = fd.as_fd();
        if one_that_blocks(fd).is_none() {
            return;
        }
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        match open(path.as_str(), flags, Mode::empty()) {
            Ok(own) => drop(self.own.set(own)),
            Err(errno) => log::debug!("{path} cannot be opened once more: {errno}"),
        }
    }

    /// Writes `text`, whole lines, to `fd` as far as there is room; `name` stands before what is said about lost lines.
    pub fn offer(&self, fd: impl AsFd, name: &str, text: &str) {
        let fd = self.best(fd.as_fd());
        let lines = u64::try_from(text.lines().count()).unwrap_or(u64::MAX);
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            if !put(fd, format!("{name}{lost} lines lost\n").as_bytes()) {
                self.lost.fetch_add(lines, Ordering::Relaxed);
                return;
            }
            self.lost.fetch_sub(lost, Ordering::Relaxed);
        }
        if !put(fd, text.as_bytes()) {
            self.lost.fetch_add(lines, Ordering::Relaxed);
        }
    }

    /// Our own way to where `fd` leads. The number of it may be something else by now: a child that closes what it has
    /// inherited does not ask.
    fn best<'a>(&'a self, fd: BorrowedFd<'a>) -> BorrowedFd<'a> {
        match self.own.get() {
            Some(own) if one_that_blocks(own.as_fd()).is_some_and(|it| one_that_blocks(fd) == Some(it)) => {
                own.as_fd()
            }
            _ => fd,
        }
    }
}

/// Which terminal (or other such device) or pipe it is, and whether it is a device. Asked by fstat, which a filter lets
/// through, rather than by an ioctl.
fn one_that_blocks(fd: BorrowedFd<'_>) -> Option<(bool, u64, u64)> {
    let stat = fstat(fd).ok()?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    let device = kind == SFlag::S_IFCHR;
    (device || kind == SFlag::S_IFIFO).then_some((device, stat.st_dev, stat.st_ino))
}

/// Writes all of it; `false` when there was no room for some. That nobody is there to read is no loss.
fn put(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    let most = if one_that_blocks(fd).is_some_and(|(device, ..)| device) { TERMINAL } else { PIPE };
    while !bytes.is_empty() {
        let mut room = [PollFd::new(fd, PollFlags::POLLOUT)];
        match poll(&mut room, PollTimeout::ZERO) {
            Ok(0) => return false,
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return true,
            Ok(_) => {}
        }
        let piece = bytes.get(..most).unwrap_or(bytes);
        match write(fd, piece) {
            Ok(count) => bytes = bytes.get(count..).surely(),
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN) => return false,
            Err(_) => return true,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::pty::openpty;
    use nix::sys::termios::{FlowArg, tcflow};
    use nix::unistd::{pipe2, read};

    fn taken(fd: impl AsFd) -> String {
        let mut text = Vec::new();
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = read(fd.as_fd(), &mut buffer) {
            text.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_full_pipe_takes_nothing_and_the_loss_is_told() {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK).unwrap();
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        let stream = Stream::new();
        let line = format!("{}\n", "x".repeat(999));
        for _ in 0..200 {
            stream.offer(&writer, "me: ", &line);
        }
        let held = taken(&reader);
        let whole = held.lines().filter(|line| line.len() == 999).count();
        assert!((60..=80).contains(&whole), "{whole} lines of a pipe's 64 KiB");
        stream.offer(&writer, "me: ", "after\n");
        assert_eq!(taken(&reader), format!("me: {} lines lost\nafter\n", 200 - whole));
        stream.offer(&writer, "me: ", "again\n");
        assert_eq!(taken(&reader), "again\n", "told once");
    }

    #[test]
    fn a_long_text_fills_what_room_there_is() {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK).unwrap();
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        Stream::new().offer(&writer, "", &"y".repeat(100_000));
        assert_eq!(taken(&reader).len(), 65536);
    }

    #[test]
    fn a_stopped_terminal_holds_nobody_up() {
        let Ok(pair) = openpty(None, None) else {
            println!("SKIP a_stopped_terminal_holds_nobody_up: there are no terminals here");
            return;
        };
        tcflow(&pair.slave, FlowArg::TCOOFF).unwrap();
        let stream = Stream::new();
        stream.offer(&pair.slave, "", "not seen\n");
        tcflow(&pair.slave, FlowArg::TCOON).unwrap();
        stream.offer(&pair.slave, "", "seen\n");
        let mut buffer = [0; 200];
        let count = read(&pair.master, &mut buffer).unwrap();
        let seen = std::str::from_utf8(&buffer[..count]).unwrap();
        assert!(seen.starts_with("1 lines lost"), "{seen}");
    }

    #[test]
    fn a_terminal_that_nobody_reads_holds_nobody_up() {
        let Ok(pair) = openpty(None, None) else {
            println!("SKIP a_terminal_that_nobody_reads_holds_nobody_up: there are no terminals here");
            return;
        };
        let stream = Stream::new();
        stream.own(&pair.slave);
        for _ in 0..10_000 {
            stream.offer(&pair.slave, "", "a line of some length, so that it does not take for ever\n");
        }
        assert!(stream.lost.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn a_reader_that_is_gone_is_no_loss() {
        let (reader, writer) = pipe2(OFlag::empty()).unwrap();
        drop(reader);
        let stream = Stream::new();
        stream.offer(&writer, "", "for nobody\n");
        assert_eq!(stream.lost.load(Ordering::Relaxed), 0);
    }
}
