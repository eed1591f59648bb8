//! The other end of pesto's protocol, for a program that may wait: what is in force at pasta, and a change to it.
//!
//! The server is believed as little as any stranger: counts are bounded before memory is taken, and all it has to say
//! has to be said within a while, however it is cut up. Behind a change comes a [`Status`] from our server, nothing
//! from the original, and then the end of
//! the connection, which in both cases says that the change has been looked at.

use super::wire::{
    self, GREETING_LEN, HEAD_LEN, Head, MAX_STATUS, RULE_LEN, Status, WireError, new_table, read_head,
    read_rule,
};
use crate::rule::passt::Draft;
use core::time::Duration;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use slipway_host::clock;
use slipway_host::strerror::{strerror, words};
use slipway_host::sys::sockopt;
use slipway_netstack::Instant;
use std::io::{self, Read, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Why a client gets nowhere. The texts are those of the original where it has one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("Failed to connect to {}: {}", .0.display(), words(.1))]
    Connect(PathBuf, io::Error),
    /// Somebody is there who does not greet.
    #[error("Couldn't read server greeting: {}", read_words(.0))]
    Greeting(io::Error),
    /// Or falls silent.
    #[error("Error reading from control socket: {}", read_words(.0))]
    Read(io::Error),
    /// Or does not listen.
    #[error("Error writing to control socket: {}", words(.0))]
    Write(io::Error),
    /// Or ends before it has said what came of a change.
    #[error("the server ended without a word about the change")]
    NoStatus,
    /// Or makes no sense.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// An end comes too early, and a wait ends after a while.
fn read_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => strerror(Errno::ENODATA),
        io::ErrorKind::WouldBlock => strerror(Errno::ETIMEDOUT),
        _ => words(error),
    }
}

/// One of the server's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Where its rules listen, and what they may ask for.
    pub head: Head,
    /// Its rules.
    pub rules: Vec<Draft>,
}

/// A connection, and what the server has said.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    patience: Duration,
    tables: Vec<Remote>,
}

/// A stream of which all reads together end by a time.
struct Listening<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl Read for Listening<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.until - clock::now();
        // No time at all would mean for ever to the kernel.
        if left < Duration::from_millis(1) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        sockopt::set_patience(self.stream.as_fd(), left)?;
        self.stream.read(into)
    }
}

impl Client {
    /// Connects and reads all tables. Others may have their turn first: all of it takes `patience` at most.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, ClientError> {
        let open = || {
            let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            sockopt::set_patience(fd.as_fd(), patience)?;
            connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
            Ok(UnixStream::from(fd))
        };
        let stream = open().map_err(|errno: Errno| ClientError::Connect(path.to_owned(), errno.into()))?;
        let mut listening = Listening { stream: &stream, until: clock::now() + patience };
        let mut greeting = [0; GREETING_LEN];
        listening.read_exact(&mut greeting).map_err(ClientError::Greeting)?;
        wire::read_greeting(&greeting)?;
        let tables = read_tables(&mut listening)?;
        Ok(Self { stream, patience, tables })
    }

    /// What the server has.
    #[must_use]
    pub fn tables(&self) -> &[Remote] {
        &self.tables
    }

    /// Sends all tables anew, and waits for what comes of it: a status, if the server has such a thing.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn replace(mut self, tables: &[(u8, Vec<Draft>)]) -> Result<Option<Status>, ClientError> {
        let mut bytes = Vec::new();
        for (place, rules) in tables {
            new_table(*place, rules, &mut bytes);
        }
        bytes.push(0);
        self.stream.write_all(&bytes).map_err(ClientError::Write)?;
        // Whether this fails, the next read tells.
        let _ = self.stream.shutdown(Shutdown::Write);
        let mut status = Vec::new();
        let most = u64::try_from(MAX_STATUS + 1).unwrap_or(u64::MAX);
        let listening = Listening { stream: &self.stream, until: clock::now() + self.patience };
        match listening.take(most).read_to_end(&mut status) {
            Ok(_) => {}
            // The end, of a server that had not read everything.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(ClientError::Read(error)),
        }
        let status = Status::read(&status);
        if status.is_none() && self.tables.iter().any(|table| table.head.answers) {
            return Err(ClientError::NoStatus);
        }
        Ok(status)
    }
}

fn read_tables(stream: &mut impl Read) -> Result<Vec<Remote>, ClientError> {
    let mut tables: Vec<Remote> = Vec::new();
    loop {
        let mut place = [0];
        stream.read_exact(&mut place).map_err(ClientError::Read)?;
        let [place] = place;
        if place == 0 {
            return Ok(tables);
        }
        if tables.iter().any(|table| table.head.place == place) {
            return Err(WireError::Twice.into());
        }
        let mut head = [0; HEAD_LEN - 1];
        stream.read_exact(&mut head).map_err(ClientError::Read)?;
        let head = read_head(place, &head)?;
        let mut rules = Vec::with_capacity(head.count);
        for _ in 0..head.count {
            let mut rule = [0; RULE_LEN];
            stream.read_exact(&mut rule).map_err(ClientError::Read)?;
            rules.push(read_rule(&rule)?);
        }
        tables.push(Remote { head, rules });
    }
}

/// What any bytes of a server are, for fuzzing: no more tables than there are places, no more rules than they hold.
#[must_use]
pub fn dry_run(mut bytes: &[u8]) -> Option<Vec<Remote>> {
    let (greeting, rest) = bytes.split_first_chunk()?;
    wire::read_greeting(greeting).ok()?;
    bytes = rest;
    read_tables(&mut bytes).ok()
}

#[cfg(test)]
mod tests;
