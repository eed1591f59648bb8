//! A connection whose guest is gone (see [`crate::transport::parting`]).

use super::{Ctx, Stage, Step, Tcp};
use crate::clock::Instant;
use crate::upstream::{Event, Upstream};
use core::time::Duration;

/// What is left of a connection without its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Parted {
    /// Nothing: its socket is closed, or reset.
    Over,
    /// Bytes that the socket has no room for. At this moment they are given up.
    Orphan(Instant),
}

/// How long an orphan may take.
pub const PATIENCE: Duration = Duration::from_secs(2);

impl Tcp {
    /// The guest is gone, and only bytes for the socket are left.
    pub(crate) const fn is_orphan(&self) -> bool {
        matches!(self.stage, Stage::Orphan(_))
    }

    /// The guest may have more to say.
    pub(crate) fn awaits_guest(&self) -> bool {
        self.stage == Stage::Open && !self.rx.guest_closed() && !self.tx.is_broken()
    }

    /// The guest is gone. Without `mercy` nothing is waited for.
    pub(crate) fn part<U: Upstream>(&mut self, mercy: bool, ctx: &mut Ctx<'_, U>) -> Parted {
        match self.stage {
            // Its time runs already.
            Stage::Orphan(until) => return Parted::Orphan(until),
            Stage::Open if self.rx.guest_closed() && !self.tx.is_broken() => {}
            // Never opened, not complete, or broken.
            _ => {
                self.give_up(ctx);
                return Parted::Over;
            }
        }
        if self.close_if_done(ctx) {
            return Parted::Over;
        }
        if !mercy {
            self.give_up(ctx);
            return Parted::Over;
        }
        let until = ctx.now + PATIENCE;
        self.stage = Stage::Orphan(until);
        Parted::Orphan(until)
    }

    /// News of an orphan's socket.
    pub(super) fn orphan_news<U: Upstream>(&mut self, event: Event, ctx: &mut Ctx<'_, U>) -> Step {
        let pushed = match event {
            Event::Writable => self.rx.push(ctx),
            Event::Failed(errno) => Err(errno),
            // What the peer says, nobody hears.
            Event::Readable | Event::Urgent | Event::Connected | Event::Error => Ok(()),
        };
        if pushed.is_err() {
            self.give_up(ctx);
            return Step::Finished;
        }
        if self.close_if_done(ctx) { Step::Finished } else { Step::Continue }
    }

    /// Closes the socket when it has taken everything; the kernel sees to the rest.
    fn close_if_done<U: Upstream>(&self, ctx: &mut Ctx<'_, U>) -> bool {
        let done = self.rx.is_done();
        if done {
            ctx.counters.tcp_closed += 1;
            ctx.up.close(ctx.id);
        }
        done
    }

    /// Its time is over.
    pub(super) fn orphan_timeout<U: Upstream>(&mut self, ctx: &mut Ctx<'_, U>) -> Step {
        ctx.counters.tcp_timeouts += 1;
        self.give_up(ctx);
        Step::Finished
    }

    fn give_up<U: Upstream>(&mut self, ctx: &mut Ctx<'_, U>) {
        ctx.counters.tcp_reset += 1;
        if self.has_socket() {
            ctx.up.tcp_reset(ctx.id);
        }
    }
}
