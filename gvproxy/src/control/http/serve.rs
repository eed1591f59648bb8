//! A connection, request by request.
//!
//! A client has [`PATIENCE`] for each of these: to begin a request, to bring it whole once it has begun, and to take
//! the answer; then the connection is closed without a word, as Go does it. One that has been taken over, by `/connect`
//! or `/tunnel`, is not timed any more.

use super::body::{self, Pieces, Progress};
use super::budget::{Budget, Held};
use super::head::{self, Body, Head, Parsed, Refusal};
use super::reply::Reply;
use crate::control::stream::Stream;
use slipway_host::clock;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// How long anything may take that a client does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request, head and body, that a connection may have without asking for room.
pub(crate) const SMALL: usize = 2 << 10;
/// Room that is made at first.
const FIRST: usize = 512;
/// Bytes of a client that is still sending when its last answer is given.
const DRAINED: usize = 4 << 20;
/// So much at a time.
const DRAIN: usize = 16 << 10;

/// A connection, and what has been read of it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
}

/// Who answers requests.
pub(crate) trait Handler {
    /// Whether the connection is taken as soon as this head is here, whatever follows it.
    fn takes(&self, head: &Head) -> bool;

    /// Takes it: `first` is what follows the head.
    async fn take(&self, head: &Head, stream: Stream, first: Vec<u8>);

    /// Answers a request.
    async fn answer(&self, head: &Head, body: &[u8]) -> Reply;
}

/// How a request ended that was not answered.
enum Ended {
    /// The connection is over.
    Over,
    /// It is, after this.
    Refused(Refusal),
    /// The body is longer than any may be.
    TooLong,
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Over
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(stream: Stream, budget: &Budget, handler: &impl Handler) {
    let mut connection = Connection { stream, buffer: Vec::new() };
    loop {
        let mut held = Held::default();
        if connection.buffer.is_empty() {
            connection.buffer = Vec::new();
            match timeout(PATIENCE, connection.stream.readable()).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
        let head = match timeout(PATIENCE, connection.head(budget, &mut held)).await {
            Ok(Ok(head)) => head,
            Ok(Err(ended)) => return connection.end(ended, None).await,
            Err(_) => return,
        };
        if handler.takes(&head) {
            drop(held);
            return handler.take(&head, connection.stream, connection.buffer).await;
        }
        let body = match timeout(PATIENCE, connection.body(&head, budget, &mut held)).await {
            Ok(Ok(body)) => body,
            Ok(Err(ended)) => return connection.end(ended, Some(&head)).await,
            Err(_) => return,
        };
        let reply = handler.answer(&head, &body).await;
        drop((body, held));
        let bytes = reply.bytes(&head, head.last, clock::since_1970());
        if head.last {
            return connection.finish(&bytes).await;
        }
        if !connection.write(&bytes).await {
            return;
        }
    }
}

impl Connection {
    /// Reads more. `Over`: there is no more.
    async fn more(&mut self) -> Result<(), Ended> {
        let len = self.buffer.len();
        if self.buffer.capacity() - len < FIRST / 2 {
            self.buffer.reserve(len.max(FIRST));
        }
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(Ended::Over),
            _ => Ok(()),
        }
    }

    async fn head(&mut self, budget: &Budget, held: &mut Held) -> Result<Box<Head>, Ended> {
        let mut seen = 0;
        loop {
            // Whoever sends byte by byte does not have each of them parsed again and again.
            if has_empty_line(&self.buffer, seen) || self.buffer.len() >= head::LONGEST {
                match head::parse(&self.buffer) {
                    Parsed::Whole(head, len) => {
                        self.buffer.drain(..len);
                        return Ok(head);
                    }
                    Parsed::Refused(refusal) => return Err(Ended::Refused(refusal)),
                    Parsed::Partial => {}
                }
            }
            seen = self.buffer.len();
            if self.buffer.len() >= SMALL {
                budget.middle(held).await;
            }
            self.more().await?;
        }
    }

    async fn body(&mut self, head: &Head, budget: &Budget, held: &mut Held) -> Result<Vec<u8>, Ended> {
        if head.body == Body::Length(0) {
            return Ok(Vec::new());
        }
        let here = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        let is_here = matches!(head.body, Body::Length(len) if len <= here);
        if head.expects_word && !is_here {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        match head.body {
            Body::Length(len) => {
                let len =
                    usize::try_from(len).ok().filter(|len| *len <= body::LONGEST).ok_or(Ended::TooLong)?;
                if len > SMALL {
                    budget.large(held).await;
                }
                while self.buffer.len() < len {
                    self.more().await?;
                }
                let rest = self.buffer.split_off(len);
                Ok(core::mem::replace(&mut self.buffer, rest))
            }
            Body::Chunked => {
                let mut pieces = Pieces::default();
                loop {
                    match pieces.take(&mut self.buffer) {
                        Progress::Whole => return Ok(pieces.body),
                        Progress::Wrong => return Err(Ended::Refused(Refusal::BAD)),
                        Progress::TooLong => return Err(Ended::TooLong),
                        Progress::More => {}
                    }
                    if pieces.body.len() + self.buffer.len() > SMALL {
                        budget.large(held).await;
                    }
                    self.more().await?;
                }
            }
        }
    }

    /// Whether the client has taken it.
    async fn write(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(PATIENCE, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    async fn end(mut self, ended: Ended, head: Option<&Head>) {
        let bytes = match (ended, head) {
            (Ended::Refused(refusal), _) => refusal.bytes(),
            (Ended::TooLong, Some(head)) => {
                let reply = Reply::Error(413, "http: request body too large".to_owned());
                reply.bytes(head, true, clock::since_1970())
            }
            _ => return,
        };
        self.finish(&bytes).await;
    }

    /// Says a last word. What the client is still sending is read for a moment: closing a socket with unread bytes
    /// resets it, and the word might be lost.
    async fn finish(&mut self, bytes: &[u8]) {
        const LINGER: Duration = Duration::from_millis(500);
        if !self.write(bytes).await || self.stream.shutdown().await.is_err() {
            return;
        }
        // It ends either way.
        let _ = timeout(LINGER, self.drain()).await;
    }

    async fn drain(&mut self) {
        self.buffer = Vec::with_capacity(DRAIN);
        let mut drained = 0;
        while drained < DRAINED {
            self.buffer.clear();
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(len @ 1..) => drained += len,
                _ => break,
            }
        }
    }
}

/// Whether an empty line ends behind `from`: the end of a head.
fn has_empty_line(bytes: &[u8], from: usize) -> bool {
    let fresh = bytes.get(from.saturating_sub(3)..).unwrap_or_default();
    fresh.windows(2).any(|pair| pair == b"\n\n") || fresh.windows(3).any(|three| three == b"\n\r\n")
}
