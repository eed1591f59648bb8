//! One direction of a connection: bytes from one socket to another.
//!
//! ```text
//!   from ──recv──▶ buffer, which all lanes share ──send──▶ to     few bytes; no pipe to be had
//!   from ─splice─▶ pipe, of this lane meanwhile ──splice─▶ to     many
//! ```
//! A short exchange costs two calls each way, and no pipe. Once [`BORDER`] bytes have been carried *and* the last read
//! was a large one, bytes go by way of a pipe, without being copied. A conversation of many small messages never needs
//! one.
//!
//! **Back-pressure.** What `to` did not take is held, in the pipe or in memory, and nothing is read before that is
//! delivered: then the kernel's buffers fill up, and the sender waits as it would for the receiver itself.
//!
//! **Edges.** Both sockets are watched edge-triggered. An [`End`] remembers what was announced and not used up yet: it
//! is readable until a read has found nothing (or less than it asked for), writable until a write has. So a lane that
//! can do nothing asks the kernel nothing, and whatever changes that raises an event. What goes on arriving while `to`
//! is full changes nothing: at the first such event the source is no longer listened to ([`DEAF`]), until there is
//! room.

use super::pipes::{Pipe, Pipes};
use crate::sys::sockopt;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use slipway_netstack::surely::Surely;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Bytes of a direction that are copied before there can be a pipe.
pub(super) const BORDER: usize = 64 << 10;
/// A read of so many bytes is one of a stream. That there is nothing just now does not end one.
const LARGE: usize = WITHOUT_PIPE;
/// Bytes copied at a time where a pipe would be in its place: what a slow receiver leaves of them lies in memory.
const WITHOUT_PIPE: usize = 16 << 10;
/// Bytes of one lane before others have their turn.
pub(super) const BUDGET: usize = 1 << 20;

/// What an end is waited for.
pub(super) const INTEREST: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLPRI)
    .union(EpollFlags::EPOLLET);

/// The same while nothing can be read, for what was read before is not delivered. Errors are told nevertheless.
pub(super) const DEAF: EpollFlags = EpollFlags::EPOLLOUT.union(EpollFlags::EPOLLET);

/// What all lanes share.
#[derive(Debug, Default)]
pub(super) struct Tools {
    buffer: Vec<u8>,
    pipes: Pipes,
}

#[cfg(test)]
impl Tools {
    pub(super) fn has_pipes(&self) -> bool {
        self.pipes.has_some()
    }

    pub(super) fn forbid_pipes(&mut self) {
        self.pipes.forbid();
    }
}

/// A socket of a connection.
#[derive(Debug)]
pub(super) struct End {
    fd: OwnedFd,
    readable: bool,
    writable: bool,
    /// An end-of-file or urgent data has been announced, in front of which reading stops: after a short read, there may
    /// be more.
    careful: bool,
    /// O_NONBLOCK is not set, without which splice(2) waits.
    blocking: bool,
    /// It is watched as [`DEAF`] says.
    pub(super) deaf: bool,
}

impl End {
    /// Of a socket that is connected, or about to be.
    pub(super) const fn new(fd: OwnedFd, blocking: bool) -> Self {
        Self { fd, readable: false, writable: true, careful: false, blocking, deaf: false }
    }

    /// Takes in what epoll says, and tells whether there may be something to read, and whether there is room that was
    /// missing.
    pub(super) fn note(&mut self, flags: EpollFlags) -> (bool, bool) {
        use EpollFlags as F;
        let over = F::EPOLLRDHUP | F::EPOLLHUP | F::EPOLLERR;
        let readable = flags.intersects(F::EPOLLIN | F::EPOLLPRI | over);
        let has_room = flags.intersects(F::EPOLLOUT | F::EPOLLHUP | F::EPOLLERR) && !self.writable;
        self.careful |= flags.intersects(F::EPOLLPRI | over);
        self.readable |= readable;
        self.writable |= has_room;
        (readable, has_room)
    }

    /// Whether something can be written, as far as is known.
    pub(super) const fn has_room(&self) -> bool {
        self.writable
    }

    /// Has close(2) reset the connection.
    pub(super) fn reset(&self) {
        // If it cannot be set, the socket is closed in the ordinary way.
        let _ = sockopt::reset_on_close(self.fd.as_fd());
    }

    fn receive(&mut self, into: &mut [u8]) -> Result<usize, Errno> {
        let got = recv(self.fd.as_raw_fd(), into, MsgFlags::MSG_DONTWAIT)?;
        // What comes later raises an event.
        self.readable = self.careful || got == into.len();
        Ok(got)
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
    }

    fn unblock(&mut self) -> Result<(), Errno> {
        if self.blocking {
            fcntl(&self.fd, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
            self.blocking = false;
        }
        Ok(())
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Bytes that were taken and not delivered yet.
#[derive(Debug)]
enum Held {
    Nothing,
    Bytes(Box<[u8]>, usize),
    Pipe(Pipe, usize),
}

/// One direction.
#[derive(Debug)]
pub(super) struct Lane {
    held: Held,
    /// Bytes delivered.
    carried: u64,
    /// The last read was a large one.
    bulk: bool,
    /// This kind of socket cannot be spliced from.
    copies: bool,
    /// There is nothing more to read.
    at_end: bool,
    /// The other side knows that.
    ended: bool,
    /// It is in the queue of those that have something to do.
    pub(super) queued: bool,
}

/// How a turn of a lane went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An event will tell when there is more to do.
    Waits,
    /// There is more to do.
    More,
    /// All is carried, and the end told.
    Ended,
    /// The connection of this end is dead.
    Broken(Which),
}

/// An end, as a lane sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    From,
    To,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            held: Held::Nothing,
            carried: 0,
            bulk: false,
            copies: false,
            at_end: false,
            ended: false,
            queued: false,
        }
    }
}

impl Lane {
    /// Bytes delivered so far.
    pub(super) const fn carried(&self) -> u64 {
        self.carried
    }

    /// Whether the end was told.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Carries what can be carried, [`BUDGET`] bytes at most.
    pub(super) fn pump(&mut self, from: &mut End, to: &mut End, tools: &mut Tools) -> Outcome {
        match self.carry(from, to, tools) {
            Outcome::Ended => {
                // Fails only on a connection that is dead already, which its next event tells.
                let _ = shutdown(to.fd.as_raw_fd(), Shutdown::Write);
                self.ended = true;
                Outcome::Ended
            }
            outcome => outcome,
        }
    }

    /// The same for a connection that has died: what came before is delivered, but no end, for it is none.
    pub(super) fn salvage(&mut self, from: &mut End, to: &mut End, tools: &mut Tools) {
        from.readable = true;
        if !self.ended {
            self.carry(from, to, tools);
        }
    }

    fn carry(&mut self, from: &mut End, to: &mut End, tools: &mut Tools) -> Outcome {
        let mut budget = BUDGET;
        loop {
            match self.deliver(to, &mut tools.pipes) {
                Ok(()) => {}
                Err(Errno::EAGAIN) => return Outcome::Waits,
                Err(_) => return Outcome::Broken(Which::To),
            }
            if self.at_end {
                return Outcome::Ended;
            }
            if !from.readable || !to.writable {
                return Outcome::Waits;
            }
            if budget == 0 {
                return Outcome::More;
            }
            match self.fetch(from, to, tools) {
                Ok(Some(count)) => budget = budget.saturating_sub(count.max(1)),
                Ok(None) => self.at_end = true,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => from.readable = false,
                Err(_) => return Outcome::Broken(Which::From),
            }
        }
    }

    /// Delivers what is held. EAGAIN: not all of it.
    fn deliver(&mut self, to: &mut End, pipes: &mut Pipes) -> Result<(), Errno> {
        loop {
            let sent = match &self.held {
                Held::Nothing => return Ok(()),
                _ if !to.writable => return Err(Errno::EAGAIN),
                Held::Bytes(bytes, at) => to.send(bytes.get(*at..).surely()),
                Held::Pipe(pipe, len) => pipe.empty(to.as_fd(), *len),
            };
            match sent {
                Ok(count) => self.delivered(count, pipes),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => to.writable = false,
                Err(errno) => return Err(errno),
            }
        }
    }

    /// `count` bytes are no longer held.
    fn delivered(&mut self, count: usize, pipes: &mut Pipes) {
        self.carried = self.carried.saturating_add(u64::try_from(count).surely_or(u64::MAX));
        self.held = match core::mem::replace(&mut self.held, Held::Nothing) {
            Held::Bytes(bytes, at) if at + count < bytes.len() => Held::Bytes(bytes, at + count),
            Held::Pipe(pipe, len) if count < len => Held::Pipe(pipe, len - count),
            Held::Pipe(pipe, _) => {
                pipes.put_back(pipe);
                Held::Nothing
            }
            Held::Nothing | Held::Bytes(..) => Held::Nothing,
        };
    }

    /// Reads, while nothing is held; how much. `None`: the end.
    fn fetch(&mut self, from: &mut End, to: &mut End, tools: &mut Tools) -> Result<Option<usize>, Errno> {
        let past_border = self.carried >= u64::try_from(BORDER).surely_or(u64::MAX);
        if self.bulk
            && past_border
            && !self.copies
            && let Some(pipe) = tools.pipes.take()
        {
            return self.fill(pipe, from, to, &mut tools.pipes);
        }
        let most = if past_border { WITHOUT_PIPE } else { BORDER };
        self.copy(from, to, &mut tools.buffer, most)
    }

    fn fill(
        &mut self,
        pipe: Pipe,
        from: &mut End,
        to: &mut End,
        pipes: &mut Pipes,
    ) -> Result<Option<usize>, Errno> {
        let filled = from.unblock().and_then(|()| to.unblock()).and_then(|()| pipe.fill(from.as_fd()));
        match filled {
            Ok(count @ 1..) => {
                self.bulk = count >= LARGE;
                self.held = Held::Pipe(pipe, count);
                return Ok(Some(count));
            }
            // An MPTCP socket of an old kernel, say.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => self.copies = true,
            _ => {}
        }
        pipes.put_back(pipe);
        match filled {
            Ok(_) => Ok(None),
            Err(_) if self.copies => Ok(Some(0)),
            Err(errno) => Err(errno),
        }
    }

    fn copy(
        &mut self,
        from: &mut End,
        to: &mut End,
        buffer: &mut Vec<u8>,
        most: usize,
    ) -> Result<Option<usize>, Errno> {
        buffer.resize(BORDER, 0);
        let count = from.receive(buffer.get_mut(..most).surely())?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
        self.bulk = count >= LARGE;
        // What goes wrong here is found again by `deliver`.
        let sent = to.send(bytes).unwrap_or(0);
        self.carried = self.carried.saturating_add(u64::try_from(sent).surely_or(u64::MAX));
        if let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            self.held = Held::Bytes(rest.into(), 0);
        }
        Ok(Some(count))
    }
}
