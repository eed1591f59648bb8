//! Frames between the TAP and the stream: what has been read on one side and not been taken by the other.
//!
//! ```text
//!          one frame a call                     many frames a call
//!   TAP ──────────────────▶ outbox ──────────────────────────────▶ stream
//!       ◀────────────────── inbox  ◀──────────────────────────────
//! ```
//! A TAP gives and takes one frame a call; the stream is spared that. Frames are read to where they are sent from, and
//! written from where they were read to: nothing is copied here.
//!
//! Invariants.
//! - Both boxes are bounded. While the outbox has no room for the longest frame, the TAP is not read: the kernel's
//!   queue in front of it fills, and the guest's senders wait or lose, as with any interface.
//! - While the TAP has no room, the stream is not read. A TAP that is down or short of memory loses the frame, and that
//!   is counted.
//! - A frame that has begun on the stream is finished before anything else.
//! - What is no frame (shorter than an Ethernet header, or longer than its length can say) is counted and dropped.
//!
//! Contract: gvproxy §12: two bytes of length, the low ones first.

use nix::errno::Errno;
use nix::unistd::{read, write};
use slipway_host::device::framing::{Framing, Lengths};
use slipway_host::device::{MAX_FRAME, Tap};
use slipway_host::strerror;
use slipway_netstack::device::{Device as _, Full, Offload};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Bytes of each box: several of the longest frames.
const BOX: usize = 256 << 10;
/// An Ethernet header.
const SHORTEST: usize = 14;
/// Room for what stands before a frame.
const HEADER_ROOM: usize = 4;
/// Frames that are taken from the TAP before the stream has its turn.
const TURN: usize = 256;

/// Why nothing is carried any more.
#[derive(Debug)]
pub(crate) enum End {
    /// The stream has ended; in the words of the contract.
    Stream(String),
    /// The interface is gone.
    Tap(io::Error),
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wants {
    /// Frames of the TAP.
    pub(crate) frames: bool,
    /// Room in the TAP.
    pub(crate) tap_room: bool,
    /// Bytes of the stream.
    pub(crate) bytes: bool,
    /// Room in the stream.
    pub(crate) stream_room: bool,
}

/// A connection at work.
#[derive(Debug)]
pub(crate) struct Relay {
    input: OwnedFd,
    output: Option<OwnedFd>,
    framing: Framing,
    inbox: Fill,
    outbox: Fill,
    /// The TAP had no room for the first frame of the inbox.
    held: bool,
    /// The stream had no room for the outbox.
    stuck: bool,
    /// What was no frame.
    misshapen: u64,
}

/// Bytes from `start` to `end`.
#[derive(Debug)]
struct Fill {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Fill {
    fn new() -> Self {
        Self { bytes: vec![0; BOX].into_boxed_slice(), start: 0, end: 0 }
    }

    fn content(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The first `count` are done with.
    fn drop_front(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Where more can be put: at least `least` bytes, or nothing.
    fn room(&mut self, least: usize) -> &mut [u8] {
        if self.bytes.len() - self.end < least && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.bytes.get_mut(self.end..).filter(|room| room.len() >= least).unwrap_or_default()
    }

    /// So many of them were.
    fn grow(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }
}

impl Relay {
    /// Carries frames over a stream that does not block, once `greeting` has been sent. `output` is where it is
    /// written, if that is another descriptor.
    pub(crate) fn new(input: OwnedFd, output: Option<OwnedFd>, greeting: &[u8]) -> Self {
        let mut outbox = Fill::new();
        let room = outbox.room(greeting.len());
        for (to, from) in room.iter_mut().zip(greeting) {
            *to = *from;
        }
        outbox.grow(greeting.len());
        let framing = Framing::Le16;
        Self { input, output, framing, inbox: Fill::new(), outbox, held: false, stuck: false, misshapen: 0 }
    }

    /// The descriptor that is read.
    pub(crate) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// The descriptor that is written, if it is another one.
    pub(crate) fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(OwnedFd::as_fd)
    }

    /// What was no frame, of either side.
    pub(crate) const fn misshapen(&self) -> u64 {
        self.misshapen
    }

    /// What is to be waited for now.
    pub(crate) fn wants(&mut self) -> Wants {
        let frames = !self.outbox.room(HEADER_ROOM + MAX_FRAME).is_empty();
        Wants { frames, tap_room: self.held, bytes: !self.held, stream_room: self.stuck }
    }

    /// The TAP has frames, or room.
    ///
    /// # Errors
    /// It is over.
    pub(crate) fn tap_is_ready(&mut self, tap: &mut Tap) -> Result<(), End> {
        if self.held {
            self.deliver(tap)?;
        }
        self.gather(tap)?;
        self.push()
    }

    /// The stream has bytes.
    ///
    /// # Errors
    /// It is over.
    pub(crate) fn stream_has_bytes(&mut self, tap: &mut Tap) -> Result<(), End> {
        if self.held {
            return Ok(());
        }
        let room = self.inbox.room(HEADER_ROOM + MAX_FRAME);
        match read(&self.input, room) {
            Ok(0) => Err(End::Stream("cannot read size from socket: EOF".to_owned())),
            Ok(count) => {
                self.inbox.grow(count);
                self.deliver(tap)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(error) => Err(broken("read size from", error)),
        }
    }

    /// Sends what waits, as far as there is room.
    ///
    /// # Errors
    /// It is over.
    pub(crate) fn flush(&mut self) -> Result<(), End> {
        self.stuck = false;
        let output = self.output.as_ref().unwrap_or(&self.input);
        while !self.outbox.content().is_empty() {
            match write(output, self.outbox.content()) {
                Ok(count) => self.outbox.drop_front(count),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => {
                    self.stuck = true;
                    break;
                }
                Err(error) => return Err(broken("write packet to", error)),
            }
        }
        Ok(())
    }

    /// Sends what waits, unless the stream has still to say that there is room.
    fn push(&mut self) -> Result<(), End> {
        if self.stuck { Ok(()) } else { self.flush() }
    }

    /// Takes frames from the TAP, until there are none, or no room, or it is another's turn.
    fn gather(&mut self, tap: &mut Tap) -> Result<(), End> {
        let header = self.framing.header_len();
        let mut prefix = Vec::with_capacity(HEADER_ROOM);
        for _ in 0..TURN {
            if self.outbox.room(HEADER_ROOM + MAX_FRAME).is_empty() {
                self.push()?;
            }
            let room = self.outbox.room(HEADER_ROOM + MAX_FRAME);
            let Some((before, room)) = room.split_at_mut_checked(header) else { return Ok(()) };
            // Without offloads asked for, the kernel has finished it.
            let Some((_, len)) = tap.read_frame(room).map_err(End::Tap)? else { return Ok(()) };
            prefix.clear();
            if len < SHORTEST || !self.framing.put(len, &mut prefix) {
                self.misshapen += 1;
                continue;
            }
            before.copy_from_slice(&prefix);
            self.outbox.grow(header + len);
        }
        Ok(())
    }

    /// Gives the whole frames of the inbox to the TAP, as far as it takes them.
    fn deliver(&mut self, tap: &mut Tap) -> Result<(), End> {
        self.held = false;
        let header = self.framing.header_len();
        while let Some(len) = self.framing.length(self.inbox.content()) {
            if !Lengths::Any.allow(len) {
                return Err(End::Stream(Lengths::Any.refusal(len).to_string()));
            }
            let Some(frame) = self.inbox.content().get(header..header + len) else { break };
            if len < SHORTEST {
                self.misshapen += 1;
            } else if tap.transmit(Offload::NONE, frame) == Err(Full) {
                self.held = true;
                break;
            }
            self.inbox.drop_front(header + len);
        }
        Ok(())
    }
}

fn broken(doing: &str, error: Errno) -> End {
    End::Stream(format!("cannot {doing} socket: {}", strerror::strerror(error).to_lowercase()))
}

#[cfg(test)]
mod tests;
