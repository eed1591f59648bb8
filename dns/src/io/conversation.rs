//! One who asks over a stream: several queries on a connection (RFC 7766), within bounds.
//!
//! It costs the bytes that have come of an unfinished message, and answers that are not read. It ends when nothing has
//! got further for [`IDLE`] (a whole message received, an answer sent, bytes of an answer taken); single bytes of a
//! message are not getting further. While an upstream server is being asked for it, it waits: the forwarder has bounds
//! of its own. Answers go out as they are found, not in the order of the queries (RFC 7766 §7). A client with
//! [`IN_FLIGHT`] unanswered queries, or one that does not read its answers, is not read from.
//!
//! An answer may have many messages (a zone transfer): a client that does not read them is not given more, and whoever
//! gives them has to wait.
//!
//! A message that is no query ends the connection. After the client's end of stream what it asked is still answered.
//!
//! The stream is anything that reads and writes without blocking; who waits for it, and names its owner, is elsewhere.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

/// How long a connection may stand still.
const IDLE: Duration = Duration::from_secs(3);
/// Queries of one connection that are being asked upstream.
const IN_FLIGHT: u16 = 16;
/// Answers that a client has not read, in bytes.
const UNREAD: usize = 1 << 17;
/// What is read at a time, and how often in one turn.
const CHUNK: usize = 16 << 10;
const ROUNDS: usize = 4;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The answer is there.
    Answered,
    /// The answer comes later.
    Later,
    /// The connection is to be closed.
    Close,
}

/// Room that conversations share: it is used in one call and means nothing afterwards.
#[derive(Debug, Default)]
pub struct Scratch {
    chunk: Vec<u8>,
    reply: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
pub struct Conversation<S> {
    stream: S,
    /// An unfinished message, with its length in front.
    input: Vec<u8>,
    /// Answers, with their lengths in front, of which the first `sent` bytes are gone.
    output: Vec<u8>,
    sent: usize,
    in_flight: u16,
    deadline: Duration,
    /// Nothing more is read; when all is answered, it ends.
    ending: bool,
}

impl<S: Read + Write> Conversation<S> {
    /// One that begins now.
    pub const fn new(stream: S, now: Duration) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            in_flight: 0,
            deadline: now.saturating_add(IDLE),
            ending: false,
        }
    }

    /// The stream.
    pub const fn stream(&self) -> &S {
        &self.stream
    }

    /// The same, to change it.
    pub const fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Something happened to the stream: writes what waits, reads, and has `decide` look at each whole message (with
    /// room for an answer). `false`: the connection is to be closed.
    pub fn go_on(
        &mut self,
        scratch: &mut Scratch,
        now: Duration,
        mut decide: impl FnMut(&[u8], &mut Vec<u8>) -> Verdict,
    ) -> bool {
        scratch.chunk.resize(CHUNK, 0);
        self.flush(now) && self.read(scratch, now, &mut decide) && !self.is_done()
    }

    /// The answer to a query that had to be asked upstream; `None`: there is none. `false`: the connection is to be
    /// closed.
    pub fn answer(&mut self, reply: Option<&[u8]>, now: Duration) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.deadline = now + IDLE;
        reply.is_none_or(|reply| self.queue(reply) && self.flush(now)) && !self.is_done()
    }

    /// A message of an answer that has more of them. `false`: the connection is to be closed.
    pub fn part(&mut self, message: &[u8], now: Duration) -> bool {
        self.queue(message) && self.flush(now)
    }

    /// Whether more messages of such an answer are wanted.
    pub const fn has_room(&self) -> bool {
        self.output.len() - self.sent < UNREAD
    }

    /// Whether messages wait that had too many before them: then [`Conversation::go_on`] is to be called, for the
    /// stream has nothing more to tell.
    pub fn has_more(&self) -> bool {
        self.wants_read() && split(&self.input).is_some()
    }

    /// Whether more queries are wanted from it.
    pub const fn wants_read(&self) -> bool {
        !self.ending && self.in_flight < IN_FLIGHT && self.output.len() - self.sent < UNREAD
    }

    /// Whether answers wait that the stream has no room for.
    pub const fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }

    /// Bytes that it holds: of an unfinished message, and of answers that wait for room in the stream.
    pub fn held(&self) -> usize {
        self.input.len() + self.output.len()
    }

    /// When it has stood still too long, unless it waits for us.
    pub fn deadline(&self) -> Option<Duration> {
        (self.in_flight == 0).then_some(self.deadline)
    }

    /// How readily it is given up for another, the smallest first: the one that has stood still longest, one that waits
    /// for us only if all do.
    pub const fn dispensable(&self) -> (bool, Duration) {
        (self.in_flight > 0, self.deadline)
    }

    fn is_done(&self) -> bool {
        self.ending && self.in_flight == 0 && self.output.is_empty()
    }

    /// Reads and answers what has arrived. `false`: the connection is to be closed.
    fn read(
        &mut self,
        scratch: &mut Scratch,
        now: Duration,
        decide: &mut impl FnMut(&[u8], &mut Vec<u8>) -> Verdict,
    ) -> bool {
        let Scratch { chunk, reply } = scratch;
        // Messages may be left over from when too much was in flight.
        let mut round = 0;
        loop {
            if !self.messages(reply, now, decide) || !self.flush(now) {
                return false;
            }
            if !self.wants_read() || round == ROUNDS {
                return true;
            }
            round += 1;
            match self.stream.read(chunk) {
                Ok(0) => {
                    self.ending = true;
                    return true;
                }
                Ok(len) => self.input.extend_from_slice(chunk.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Takes the whole messages out of the input. `false`: the connection is to be closed.
    fn messages(
        &mut self,
        reply: &mut Vec<u8>,
        now: Duration,
        decide: &mut impl FnMut(&[u8], &mut Vec<u8>) -> Verdict,
    ) -> bool {
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while self.wants_read()
            && let Some((message, behind)) = split(rest)
        {
            rest = behind;
            self.deadline = now + IDLE;
            match decide(message, reply) {
                Verdict::Answered if !self.queue(reply) => return false,
                Verdict::Answered => {}
                Verdict::Later => self.in_flight += 1,
                Verdict::Close => return false,
            }
        }
        // An idle connection keeps no buffer.
        self.input = rest.to_vec();
        true
    }

    /// Puts an answer behind those that wait. `false`: it is too long for TCP.
    fn queue(&mut self, reply: &[u8]) -> bool {
        let Ok(len) = u16::try_from(reply.len()) else { return false };
        // A client that reads, but never all, does not make it grow.
        if self.sent >= self.output.len() / 2 {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        self.output.extend_from_slice(&len.to_be_bytes());
        self.output.extend_from_slice(reply);
        true
    }

    /// Writes what the stream takes. `false`: the connection is gone.
    fn flush(&mut self, now: Duration) -> bool {
        while let Some(waiting) = self.output.get(self.sent..).filter(|waiting| !waiting.is_empty()) {
            match self.stream.write(waiting) {
                Ok(0) => return false,
                Ok(len) => {
                    self.sent += len;
                    self.deadline = now + IDLE;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.output = Vec::new();
        self.sent = 0;
        true
    }
}

/// The first whole message (RFC 1035 §4.2.2), and what is behind it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}
