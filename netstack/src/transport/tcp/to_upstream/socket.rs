//! From the buffer into the socket: what it takes goes at once, the rest when it has room.
//!
//! A socket that is full says so again only when a third of what it holds has left (Linux, `sk_stream_is_writeable`).
//! On a long way, where the send buffer is what limits the flow, it would never be more than full and on the average
//! five sixths of it. So while a flow is brisk the rest is offered every few milliseconds instead ([`Full`]).

use super::super::buffer::Buffer;
use super::super::seq::SeqNum;
use super::{Ctx, ToUpstream};
use crate::clock::Instant;
use crate::surely::Surely;
use crate::upstream::{Errno, MAX_PIECES, Sent, Upstream};
use core::time::Duration;

/// How soon after a socket was full more is offered to it, at first.
const OFFER_AGAIN: Duration = Duration::from_millis(4);
/// The longest such wait: beyond it the kernel's own word comes soon enough.
const OFFER_LAST: Duration = Duration::from_millis(32);
/// What must have been taken for the next wait to be no longer: a call for fewer bytes is not worth its price.
const WORTH_OFFERING: usize = 64 << 10;

/// A full socket, and when more is offered to it without its having asked. It takes some 130 Mbit/s to be offered to
/// every [`OFFER_AGAIN`], and what a flow of less than 16 Mbit/s costs is four calls for each time that its socket is
/// full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Full {
    pub(super) again: Instant,
    wait: Duration,
}

impl Full {
    /// It has just been found full.
    fn at(now: Instant) -> Self {
        Self { again: now + OFFER_AGAIN, wait: OFFER_AGAIN }
    }

    /// It is still full, after it took so many bytes.
    fn after(self, taken: usize, now: Instant) -> Option<Self> {
        let wait = if taken < WORTH_OFFERING { self.wait * 2 } else { self.wait };
        (wait <= OFFER_LAST).then(|| Self { again: now + wait, wait })
    }
}

impl ToUpstream {
    /// Passes bytes on to the socket, or keeps them for it. Says how many: fewer than these if memory has run out.
    pub(super) fn pass_on<U: Upstream>(&mut self, bytes: &[u8], ctx: &mut Ctx<'_, U>) -> Result<u32, Errno> {
        let direct = self.buffer.len() == 0 && !self.blocked;
        let mut taken = if direct { self.offer(self.next, bytes, ctx)? } else { 0 };
        if direct {
            self.full = self.blocked.then(|| Full::at(ctx.now));
        }
        if let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let fits = if ctx.shared.memory.has_room(ctx.guest, self.buffer.growth(rest.len())) {
                rest.len()
            } else {
                self.buffer.slack().min(rest.len())
            };
            self.buffer.append(rest.get(..fits).surely(), &mut ctx.shared.spare);
            taken += fits;
        }
        Ok(u32::try_from(taken).surely())
    }

    /// Offers bytes to the socket, of which the first is number `front`; returns how many it took.
    fn offer<U: Upstream>(
        &mut self,
        front: SeqNum,
        bytes: &[u8],
        ctx: &mut Ctx<'_, U>,
    ) -> Result<usize, Errno> {
        let before = self.urgent.map_or(usize::MAX, |last| last.since(front) as usize);
        let Some((plain, [urgent, rest @ ..])) = bytes.split_at_checked(before) else {
            return self.send(&[bytes], bytes.len(), ctx);
        };
        let mut taken = if plain.is_empty() { 0 } else { self.send(&[plain], plain.len(), ctx)? };
        if !self.blocked {
            taken += self.send_urgent(*urgent, ctx)?;
        }
        if !self.blocked && !rest.is_empty() {
            taken += self.send(&[rest], rest.len(), ctx)?;
        }
        Ok(taken)
    }

    fn send<U: Upstream>(
        &mut self,
        pieces: &[&[u8]],
        offered: usize,
        ctx: &mut Ctx<'_, U>,
    ) -> Result<usize, Errno> {
        match ctx.up.tcp_send(ctx.id, pieces) {
            Sent::Taken(n) => {
                self.blocked = n < offered;
                Ok(n)
            }
            Sent::Failed(errno) => Err(errno),
        }
    }

    /// Passes the urgent byte on.
    fn send_urgent<U: Upstream>(&mut self, byte: u8, ctx: &mut Ctx<'_, U>) -> Result<usize, Errno> {
        match ctx.up.tcp_send_urgent(ctx.id, byte) {
            Sent::Taken(0) => {
                self.blocked = true;
                Ok(0)
            }
            Sent::Taken(n) => {
                self.urgent = None;
                Ok(n)
            }
            Sent::Failed(errno) => Err(errno),
        }
    }

    /// The socket has room again.
    pub(in super::super) fn push<U: Upstream>(&mut self, ctx: &mut Ctx<'_, U>) -> Result<(), Errno> {
        let before = self.held();
        let filled = self.fill(ctx);
        self.full = self.blocked.then(|| Full::at(ctx.now));
        ctx.account(before, self.held());
        filled
    }

    /// The socket has not said so, but may have room.
    pub(super) fn offer_again<U: Upstream>(&mut self, full: Full, ctx: &mut Ctx<'_, U>) -> Result<(), Errno> {
        let (before, held) = (self.held(), self.buffer.len());
        let filled = self.fill(ctx);
        let taken = held - self.buffer.len();
        self.full = if self.blocked { full.after(taken, ctx.now) } else { None };
        ctx.account(before, self.held());
        filled
    }

    /// Fills the socket from the buffer, and closes it behind the last byte.
    pub(super) fn fill<U: Upstream>(&mut self, ctx: &mut Ctx<'_, U>) -> Result<(), Errno> {
        self.blocked = false;
        while self.buffer.len() > 0 && !self.blocked {
            let before = self.urgent.map_or(usize::MAX, |last| last.since(self.front()) as usize);
            let taken = if let (0, Some(byte)) = (before, self.buffer.first()) {
                self.send_urgent(byte, ctx)?
            } else {
                let mut room = [[].as_slice(); MAX_PIECES];
                let (pieces, offered) = self.buffer.pieces(&mut room, before);
                match ctx.up.tcp_send(ctx.id, pieces) {
                    Sent::Taken(n) => {
                        self.blocked = n < offered;
                        n
                    }
                    Sent::Failed(errno) => return Err(errno),
                }
            };
            self.buffer.consume(taken, &mut ctx.shared.spare);
        }
        if self.fin_reached && self.buffer.len() == 0 && !self.shut {
            self.shut = true;
            ctx.up.tcp_shutdown(ctx.id);
        }
        Ok(())
    }

    /// The socket is dead: nothing more goes there.
    pub(in super::super) fn break_off<U>(&mut self, ctx: &mut Ctx<'_, U>) {
        let before = self.held();
        self.buffer = Buffer::default();
        self.full = None;
        self.forget_early();
        ctx.account(before, self.held());
    }
}
