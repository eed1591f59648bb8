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
//! - If the fast link was asked for, the first frame that comes says whether it is granted. Then the guest's kernel is
//!   told to leave cutting and checksums to others, and when the connection ends, to do them again. What the TAP still
//!   has of an old connection with something left open is lost on a new one until that is fast.
//!
//! Contract: gvproxy §12: two bytes of length, the low ones first. `docs/fast-link.md` has the other framing.

use nix::errno::Errno;
use nix::unistd::{read, write};
use slipway_host::device::framing::{Framing, Lengths};
use slipway_host::device::{MAX_FRAME, Tap, fast};
use slipway_host::strerror;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::vnet::{Checksum, HEADER_LEN};
use slipway_netstack::device::{Device as _, Full, Offload, segment};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Bytes of each box: several of the longest frames.
const BOX: usize = 256 << 10;
/// An Ethernet header.
const SHORTEST: usize = 14;
/// Room for what stands before a frame, and for a marker behind it.
const HEADER_ROOM: usize = 4 + HEADER_LEN + 64;
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
    /// How frames come, and how they go.
    incoming: Framing,
    outgoing: Framing,
    /// The guest's address, as long as it is not known whether the fast link that was asked for is granted.
    asked: Option<MacAddr>,
    inbox: Fill,
    outbox: Fill,
    /// The TAP had no room for the first frame of the inbox.
    held: bool,
    /// The stream had no room for the outbox.
    stuck: bool,
    /// What was no frame, or had something left open where that cannot be said.
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

    /// Puts more there, as far as there is room.
    fn push(&mut self, bytes: &[u8]) {
        let room = self.room(bytes.len());
        let count = room.len().min(bytes.len());
        room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        self.grow(count);
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
        outbox.push(greeting);
        Self {
            input,
            output,
            incoming: Framing::Le16,
            outgoing: Framing::Le16,
            asked: None,
            inbox: Fill::new(),
            outbox,
            held: false,
            stuck: false,
            misshapen: 0,
        }
    }

    /// The greeting asks for the fast link. `guest` is the interface's address.
    pub(crate) const fn asks(mut self, guest: MacAddr) -> Self {
        self.asked = Some(guest);
        self
    }

    /// The descriptor that is read.
    pub(crate) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// The descriptor that is written, if it is another one.
    pub(crate) fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(OwnedFd::as_fd)
    }

    /// What was no frame, of either side, or could not be sent.
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
        let is_fast = self.outgoing == Framing::Fast;
        let more = if is_fast { HEADER_LEN } else { 0 };
        let header = self.outgoing.header_len() + more;
        let mut prefix = Vec::with_capacity(HEADER_ROOM);
        for _ in 0..TURN {
            if self.outbox.room(HEADER_ROOM + MAX_FRAME).is_empty() {
                self.push()?;
            }
            let room = self.outbox.room(HEADER_ROOM + MAX_FRAME);
            let Some((before, room)) = room.split_at_mut_checked(header) else { return Ok(()) };
            let Some((offload, len)) = tap.read_frame(room).map_err(End::Tap)? else { return Ok(()) };
            prefix.clear();
            // The kernel has finished it, unless it waits since another connection.
            let can_be_said = is_fast || is_finished(offload);
            if len < SHORTEST || !can_be_said || !self.outgoing.put(more + len, &mut prefix) {
                self.misshapen += 1;
                continue;
            }
            if is_fast {
                prefix.extend(offload.emit_short_le());
            }
            before.copy_from_slice(&prefix);
            self.outbox.grow(header + len);
        }
        Ok(())
    }

    /// Gives the whole frames of the inbox to the TAP, as far as it takes them.
    fn deliver(&mut self, tap: &mut Tap) -> Result<(), End> {
        self.held = false;
        while let Some(len) = self.incoming.length(self.inbox.content()) {
            let is_fast = self.incoming == Framing::Fast;
            let lengths = if is_fast { Lengths::OfFast } else { Lengths::Any };
            if !lengths.allow(len) {
                return Err(End::Stream(lengths.refusal(len).to_string()));
            }
            let header = self.incoming.header_len();
            let Some(bytes) = self.inbox.content().get(header..header + len) else { break };
            let granted = self.asked.take().zip(fast::announced(bytes));
            let opened = if is_fast { fast::open(bytes) } else { Some((Offload::NONE, bytes)) };
            match (granted, opened) {
                (Some((guest, version)), _) => {
                    self.inbox.drop_front(header + len);
                    self.hasten(guest, version, tap)?;
                    continue;
                }
                (None, Some((offload, frame))) if frame.len() >= SHORTEST => {
                    if give(tap, offload, frame) == Err(Full) {
                        self.held = true;
                        break;
                    }
                }
                (None, _) => self.misshapen += 1,
            }
            self.inbox.drop_front(header + len);
        }
        Ok(())
    }

    /// The fast link is granted: what comes and what goes is fast from here on.
    fn hasten(&mut self, guest: MacAddr, version: u8, tap: &mut Tap) -> Result<(), End> {
        if version != fast::VERSION {
            let reason = format!("the fast link has version {version}, which was not asked for");
            return Err(End::Stream(reason));
        }
        let mut marker = Vec::new();
        let frame = fast::marker(guest);
        if self.outgoing.put(frame.len(), &mut marker) {
            marker.extend(frame);
        }
        self.outbox.push(&marker);
        (self.incoming, self.outgoing) = (Framing::Fast, Framing::Fast);
        tap.want_finished(false);
        log::debug!("the link is fast");
        self.flush()
    }
}

/// Whether nothing is left open in a frame.
const fn is_finished(offload: Offload) -> bool {
    offload.gso.is_none() && !matches!(offload.checksum, Checksum::Partial { .. })
}

/// Gives a frame to the TAP, as it is or as the kernel can take it. Of one that is cut the end may be lost.
fn give(tap: &mut Tap, offload: Offload, frame: &[u8]) -> Result<(), Full> {
    let mut given = None;
    let finished = segment::finish(offload, frame, tap.capabilities(), &mut |offload, one| {
        if given != Some(Err(Full)) {
            let taken = tap.transmit(offload, one);
            given = given.or(Some(taken));
        }
    });
    // What makes no sense is nobody's.
    finished.ok().and(given).unwrap_or(Ok(()))
}

fn broken(doing: &str, error: Errno) -> End {
    End::Stream(format!("cannot {doing} socket: {}", strerror::strerror(error).to_lowercase()))
}

#[cfg(test)]
mod tests;
