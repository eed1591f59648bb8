//! One direction of a connection: bytes from one socket to another.
//!
//! ```text
//!   from ──recv──▶ buffer, which all lanes share ──send──▶ to     few bytes; no pipe to be had
//!   from ─splice─▶ pipe, of this lane meanwhile ──splice─▶ to     many
//! ```
//! A short exchange costs two calls each way, and no pipe. Once [`BORDER`] bytes have been carried *and* the last read
//! was a large one, bytes go by way of a pipe, without being copied. A conversation of many small messages never needs
//! one. An end that is known when the last bytes are copied leaves with them, in one packet.
//!
//! **Back-pressure.** What `to` did not take is held, in the pipe or in memory, and nothing is read before that is
//! delivered: then the kernel's buffers fill up, and the sender waits as it would for the receiver itself.
//!
//! **Edges.** Both sockets are watched edge-triggered. An [`End`] remembers what was announced and not used up yet: it
//! is readable until a read has found nothing (or less than it asked for), writable until a write has. So a lane that
//! can do nothing asks the kernel nothing, and whatever changes that raises an event. Room is waited for only where it
//! was missing once ([`End::interest`]): short exchanges never see an event for it. What goes on arriving while `to` is
//! full changes nothing: at the first such event the source is no longer listened to, until there is room.

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

/// What is waited for on an end that is listened to.
const HEARING: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLPRI);

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
    /// The end of the stream has been announced.
    over: bool,
    /// Urgent data or an error has been announced, in front of which reading stops: after a short read, there may be
    /// more.
    careful: bool,
    /// O_NONBLOCK is not set, without which splice(2) waits.
    blocking: bool,
    /// Nobody listens to it: what was read before is not delivered. Errors are told nevertheless.
    pub(super) deaf: bool,
    /// It had no room once.
    was_full: bool,
}

impl End {
    /// Of a socket that is connected, or about to be.
    pub(super) const fn new(fd: OwnedFd, blocking: bool) -> Self {
        Self {
            fd,
            // The first words are often there already.
            readable: true,
            writable: true,
            over: false,
            careful: false,
            blocking,
            deaf: false,
            was_full: false,
        }
    }

    /// What it is to be waited for.
    pub(super) fn interest(&self) -> EpollFlags {
        let mut flags = EpollFlags::EPOLLET;
        flags.set(HEARING, !self.deaf);
        flags.set(EpollFlags::EPOLLOUT, self.was_full);
        flags
    }

    /// Takes in what epoll says, and tells whether there may be something to read, and whether there is room that was
    /// missing.
    pub(super) fn note(&mut self, flags: EpollFlags) -> (bool, bool) {
        use EpollFlags as F;
        let over = F::EPOLLRDHUP | F::EPOLLHUP | F::EPOLLERR;
        let readable = flags.intersects(F::EPOLLIN | F::EPOLLPRI | over);
        let has_room = flags.intersects(F::EPOLLOUT | F::EPOLLHUP | F::EPOLLERR) && !self.writable;
        self.over |= flags.intersects(F::EPOLLRDHUP | F::EPOLLHUP);
        self.careful |= flags.intersects(F::EPOLLPRI | F::EPOLLERR);
        self.readable |= readable;
        self.writable |= has_room;
        (readable, has_room)
    }

    /// Whether something can be written, as far as is known.
    pub(super) const fn has_room(&self) -> bool {
        self.writable
    }

    /// Tells the other side that nothing follows.
    pub(super) fn finish(&self) {
        // Fails only on a connection that is dead already, which its next event tells.
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Write);
    }

    /// Has close(2) reset the connection.
    pub(super) fn reset(&self) {
        // If it cannot be set, the socket is closed in the ordinary way.
        let _ = sockopt::reset_on_close(self.fd.as_fd());
    }

    /// How much was read, and whether nothing follows it.
    fn receive(&mut self, into: &mut [u8]) -> Result<(usize, bool), Errno> {
        let got = recv(self.fd.as_raw_fd(), into, MsgFlags::MSG_DONTWAIT)?;
        let has_all = got < into.len() && !self.careful;
        // What comes later raises an event.
        self.readable = self.over || !has_all;
        Ok((got, got == 0 || (has_all && self.over)))
    }

    /// Offers it bytes. The last ones wait for the end, which has to follow at once.
    fn send(&self, bytes: &[u8], last: bool) -> Result<usize, Errno> {
        let mut flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        flags.set(MsgFlags::from_bits_retain(libc::MSG_MORE), last);
        send(self.fd.as_raw_fd(), bytes, flags)
    }

    fn is_full(&mut self) {
        (self.writable, self.was_full) = (false, true);
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

    /// Carries what can be carried, about `budget` bytes at most. After [`Outcome::Ended`] the other side is to be told
    /// ([`End::finish`]), if only by closing.
    pub(super) fn pump(&mut self, from: &mut End, to: &mut End, tools: &mut Tools, budget: usize) -> Outcome {
        let outcome = self.carry(from, to, tools, budget);
        self.ended |= outcome == Outcome::Ended;
        outcome
    }

    /// The same for a connection that has died: what came before is delivered, but no end, for it is none.
    pub(super) fn salvage(&mut self, from: &mut End, to: &mut End, tools: &mut Tools) {
        (from.readable, from.over) = (true, false);
        if !self.ended {
            self.carry(from, to, tools, BUDGET);
        }
    }

    fn carry(&mut self, from: &mut End, to: &mut End, tools: &mut Tools, mut budget: usize) -> Outcome {
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
                Ok(count) => budget = budget.saturating_sub(count.max(1)),
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
                Held::Bytes(bytes, at) => to.send(bytes.get(*at..).surely(), false),
                Held::Pipe(pipe, len) => pipe.empty(to.as_fd(), *len),
            };
            match sent {
                Ok(count) => self.delivered(count, pipes),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => to.is_full(),
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

    /// Reads, while nothing is held; how much.
    fn fetch(&mut self, from: &mut End, to: &mut End, tools: &mut Tools) -> Result<usize, Errno> {
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

    fn fill(&mut self, pipe: Pipe, from: &mut End, to: &mut End, pipes: &mut Pipes) -> Result<usize, Errno> {
        let filled = from.unblock().and_then(|()| to.unblock()).and_then(|()| pipe.fill(from.as_fd()));
        match filled {
            Ok(count @ 1..) => {
                self.bulk = count >= LARGE;
                self.held = Held::Pipe(pipe, count);
                return Ok(count);
            }
            Ok(_) => self.at_end = true,
            // An MPTCP socket of an old kernel, say.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => self.copies = true,
            _ => {}
        }
        pipes.put_back(pipe);
        if self.copies { Ok(0) } else { filled }
    }

    fn copy(
        &mut self,
        from: &mut End,
        to: &mut End,
        buffer: &mut Vec<u8>,
        most: usize,
    ) -> Result<usize, Errno> {
        buffer.resize(BORDER, 0);
        let (count, at_end) = from.receive(buffer.get_mut(..most).surely())?;
        self.at_end = at_end;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(0) };
        self.bulk = count >= LARGE;
        // What goes wrong here is found again by `deliver`.
        let sent = to.send(bytes, at_end).unwrap_or(0);
        self.carried = self.carried.saturating_add(u64::try_from(sent).surely_or(u64::MAX));
        if let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            self.held = Held::Bytes(rest.into(), 0);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_end_is_known_with_the_last_bytes_where_nothing_can_stand_between() {
        use EpollFlags as F;
        let cases = [
            (F::EPOLLIN, (4, false)),
            (F::EPOLLIN | F::EPOLLRDHUP, (4, true)),
            (F::EPOLLIN | F::EPOLLRDHUP | F::EPOLLPRI, (4, false)),
            (F::EPOLLIN | F::EPOLLRDHUP | F::EPOLLHUP | F::EPOLLERR, (4, false)),
        ];
        for (flags, expected) in cases {
            let door = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut sender = TcpStream::connect(door.local_addr().unwrap()).unwrap();
            let mut end = End::new(door.accept().unwrap().0.into(), true);
            sender.write_all(b"last").unwrap();
            drop(sender);
            end.note(flags);
            // A full buffer says nothing of what follows.
            assert_eq!(end.receive(&mut [0; 2]), Ok((2, false)));
            assert!(end.readable);
            let (count, at_end) = end.receive(&mut [0; 8]).unwrap();
            assert_eq!((count + 2, at_end), expected, "{flags:?}");
            assert_eq!(end.readable, flags != F::EPOLLIN, "{flags:?}");
        }
    }
}
