//! Host to guest: what lies in the socket's receive queue leaves in segments, and stays in the queue until
//! acknowledged.
//!
//! Invariants. `una` is the first byte that the guest has not acknowledged, and (after the pending consume) the first
//! byte of the receive queue; so the byte `seq` lies at offset `seq - una`. `next` is the first byte never sent. The
//! guest's window is never overrun but by the one byte of a zero-window probe.
//!
//! What was lost, and when to ask, is decided in `loss`; how it becomes segments, in `send`.

mod loss;
mod send;

use super::Ctx;
use super::rtt::Rtt;
use super::segment::{Flags, Head, Out, Segment, Short, Wire, timestamp};
use super::seq::{Range, Ranges, SeqNum};
use super::to_upstream::ToUpstream;
use crate::clock::Instant;
use crate::device::Device;
use crate::frame::MAX_PAYLOAD;
use crate::headers::ip_header_len;
use crate::schedule::FRAME_COST;
use crate::upstream::{Errno, Peek, Upstream};
use core::time::Duration;

/// What the timestamps option takes of each segment, padding included (RFC 7323 appendix A).
const TIMESTAMPS_LEN: u16 = 12;

/// What the timer is running for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    Off,
    /// RFC 6298.
    Retransmit(Instant),
    /// RFC 8985 §7: the last segment is repeated to provoke a SACK.
    TailProbe(Instant),
    /// RFC 9293 §3.8.6.1: the window is closed and nothing is in flight.
    ZeroWindow(Instant),
}

/// The half of a connection that the host sends.
#[derive(Debug)]
pub(super) struct ToGuest {
    isn: SeqNum,
    una: SeqNum,
    next: SeqNum,
    /// The guest's window, in bytes from `una`.
    window: u32,
    max_window: u32,
    /// Sequence and acknowledgement number of the segment that last set `window` (RFC 9293 §3.10.7.4).
    window_seq: SeqNum,
    window_ack: SeqNum,
    shift: u8,
    /// Payload bytes in a segment.
    mss: u16,
    /// Acknowledged bytes that the socket does not know of yet.
    consume: u32,
    readable: bool,
    /// The last byte of the urgent data that the socket told of, until it is acknowledged.
    urgent: Option<SeqNum>,
    /// The socket has told of some: there may be more.
    may_be_urgent: bool,
    /// The connection broke: behind what can still be read comes RST instead of FIN.
    broken: bool,
    /// Where our FIN lies: the socket's stream ends there.
    fin: Option<SeqNum>,
    sacked: Ranges,
    /// Unacknowledged bytes before this are lost, unless SACKed.
    lost: SeqNum,
    /// From here on they have not been repeated yet.
    repeat: SeqNum,
    /// `next` when the loss was noticed: the recovery ends when the guest has acknowledged it.
    recover: Option<SeqNum>,
    /// After a timeout: one segment is repeated first, the rest when the guest answers.
    timed_out: bool,
    /// Partial acknowledgements since then.
    partials: u8,
    repeated_at: Instant,
    dup_acks: u32,
    rtt: Rtt,
    /// A byte whose acknowledgement is being timed, and since when.
    timed: Option<(SeqNum, Instant)>,
    timer: Timer,
    backoff: u8,
    unheard: u8,
    /// Probes since the guest last acknowledged something new.
    tail_probes: u8,
    /// A tail probe or zero-window probe is due.
    probe_due: bool,
    pub(super) keepalive_due: bool,
    /// A SYN or SYN-ACK is to be sent.
    pub(super) syn_due: bool,
}

impl ToGuest {
    pub(super) fn new(isn: SeqNum) -> Self {
        Self {
            isn,
            una: isn,
            next: isn,
            window: 0,
            max_window: 0,
            window_seq: SeqNum(0),
            window_ack: SeqNum(0),
            shift: 0,
            mss: 536,
            consume: 0,
            readable: false,
            urgent: None,
            may_be_urgent: false,
            broken: false,
            fin: None,
            sacked: Ranges::default(),
            lost: isn,
            repeat: isn,
            recover: None,
            timed_out: false,
            partials: 0,
            repeated_at: Instant::ZERO,
            dup_acks: 0,
            rtt: Rtt::default(),
            timed: None,
            timer: Timer::Off,
            backoff: 0,
            unheard: 0,
            tail_probes: 0,
            probe_due: false,
            keepalive_due: false,
            syn_due: false,
        }
    }

    /// What the guest's SYN said. `timestamps`: each segment will carry them.
    pub(super) fn negotiate(&mut self, seg: &Segment<'_>, our_mss: u16, timestamps: bool, shift: Option<u8>) {
        // A peer that says less than 64 is taken as saying 64, as Linux does, so that nobody makes us send a frame for
        // each byte.
        let theirs = seg.options.mss.unwrap_or(seg.default_mss).max(64);
        let options = if timestamps { TIMESTAMPS_LEN } else { 0 };
        // A link too small for its own headers (IPv6 needs 1280) gets segments that are too long, but never empty ones.
        self.mss = theirs.min(our_mss).saturating_sub(options).max(1);
        self.shift = shift.unwrap_or(0);
        self.window = u32::from(seg.window); // RFC 7323 §2.2: not scaled in a SYN
        self.max_window = self.window;
        self.window_seq = seg.seq;
        self.window_ack = seg.ack;
    }

    /// Segments were too long for a router on their way, one of them the one at `seq`: what is in flight is repeated in
    /// shorter ones. False when nothing in flight lies there.
    pub(super) fn narrow(&mut self, seq: SeqNum, mss: u16, timestamps: bool) -> bool {
        if seq.before(self.una) || !seq.before(self.next) {
            return false;
        }
        let options = if timestamps { TIMESTAMPS_LEN } else { 0 };
        let mss = mss.saturating_sub(options).max(1);
        if mss < self.mss {
            self.mss = mss;
            // RFC 1191 §6.4: at once. What has arrived all the same, the guest's SACK blocks tell.
            self.repeat = self.una;
            self.lost = self.next;
            self.recover = Some(self.next);
            self.timed = None;
        }
        true
    }

    /// The first byte behind our SYN.
    pub(super) const fn first(&self) -> SeqNum {
        self.isn.plus(1)
    }

    pub(super) const fn isn(&self) -> SeqNum {
        self.isn
    }

    pub(super) const fn una(&self) -> SeqNum {
        self.una
    }

    pub(super) const fn next(&self) -> SeqNum {
        self.next
    }

    pub(super) const fn upstream_closed(&self) -> bool {
        self.fin.is_some()
    }

    /// The guest has acknowledged everything, our FIN included.
    pub(super) fn is_done(&self) -> bool {
        self.fin.is_some_and(|fin| fin.before(self.una))
    }

    /// The connection broke on the host's side.
    pub(super) const fn break_off(&mut self) {
        self.broken = true;
        self.look();
    }

    /// The socket may have something to read.
    pub(super) const fn look(&mut self) {
        // Behind its end there is nothing.
        self.readable = self.fin.is_none();
    }

    /// The last byte of urgent data that the guest is still to be told of.
    pub(super) const fn urgent(&self) -> Option<SeqNum> {
        self.urgent
    }

    /// The socket has urgent data: asks where it ends. Says whether the guest is to be told. What has left already was
    /// sent as what it seemed to be.
    pub(super) fn find_urgent<U: Upstream>(&mut self, ctx: &mut Ctx<'_, U>) -> bool {
        self.may_be_urgent = true;
        let Some(offset) = ctx.up.tcp_urgent(ctx.id).and_then(|offset| u32::try_from(offset).ok()) else {
            return false;
        };
        let last = self.una.max(self.first()).minus(self.consume).plus(offset);
        let news = self.urgent != Some(last) && self.fin.is_none() && self.next.before_or_at(last);
        if news {
            self.urgent = Some(last);
        }
        news
    }

    pub(super) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Everything that could be read was sent and acknowledged, or the guest does not read.
    pub(super) fn is_drained(&self) -> bool {
        self.window == 0 || self.una == self.next && !self.readable
    }

    /// The number for a RST: what the guest expects next, as far as we know. A probe beyond its window it has not
    /// taken.
    pub(super) fn reset_at(&self) -> SeqNum {
        if self.una == self.isn { self.next } else { self.next.min(self.una.plus(self.window)) }
    }

    /// Our SYN left.
    pub(super) fn syn_sent(&mut self, now: Instant) {
        if self.una == self.next {
            self.next = self.isn.plus(1);
            self.timed = Some((self.isn, now));
        } else {
            self.timed = None; // Karn: a repeated segment is not timed
        }
        self.timer = Timer::Retransmit(now + self.rtt.timeout(self.backoff));
    }

    /// The neighbour is not resolved yet: look again soon.
    pub(super) const fn retry_at(&mut self, at: Instant) {
        self.timer = Timer::Retransmit(at);
    }

    /// Our SYN is acknowledged.
    pub(super) fn opened(&mut self, now: Instant) {
        if let Some((_, since)) = self.timed.take() {
            self.rtt.measure(now.since(since));
        }
        self.una = self.first();
        self.next = self.next.max(self.una);
        self.lost = self.una;
        self.repeat = self.una;
        self.timer = Timer::Off;
        self.backoff = 0;
        self.readable = true;
    }

    /// The shortest round trip to the guest and back.
    pub(super) fn quickest(&self) -> Option<Duration> {
        self.rtt.least()
    }

    /// The guest said something.
    pub(super) const fn heard(&mut self) {
        self.unheard = 0;
    }

    /// Takes a segment's acknowledgement. False when it acknowledges what was never sent.
    pub(super) fn on_ack<U>(&mut self, seg: &Segment<'_>, ctx: &mut Ctx<'_, U>) -> bool {
        let ack = seg.ack;
        if self.next.before(ack) {
            return false;
        }
        if ack.before(self.una) {
            return true; // old
        }
        let sacked_before = self.sacked.total();
        for block in seg.options.sack.iter().flatten() {
            // RFC 2018 §4, RFC 2883: blocks at or below the acknowledgement, or beyond what was sent, say nothing here.
            if ack.before(block.start) && block.start.before(block.end) && block.end.before_or_at(self.next) {
                self.sacked.insert(*block);
            }
        }
        let progress = ack.since(self.una);
        let window_changed = self.take_window(seg, ctx.now);
        if progress > 0 {
            self.advance(ack, ctx.now);
        } else if self.una != self.next
            && (self.sacked.total() > sacked_before
                || (seg.payload.is_empty() && !window_changed && !seg.flags.fin() && self.window > 0))
        {
            self.dup_acks = self.dup_acks.saturating_add(1);
        }
        self.detect_loss(ctx);
        true
    }

    /// Takes a segment's window; says whether it changed. A repeat of older data is no reason to leave it when the
    /// segment acknowledges something new: the two belong together.
    fn take_window(&mut self, seg: &Segment<'_>, now: Instant) -> bool {
        let newer = self.una.before(seg.ack)
            || self.window_seq.before(seg.seq)
            || (self.window_seq == seg.seq && self.window_ack.before_or_at(seg.ack));
        if !newer {
            return false;
        }
        let window = u32::from(seg.window) << self.shift;
        let changed = window != self.window;
        if self.window == 0 && window > 0 && self.una != self.next {
            // What was in flight when the window closed, a probe perhaps, was not taken: repeat it at once.
            self.repeat = self.una;
            self.lost = self.next;
            self.backoff = 0;
            self.arm(now);
        }
        self.window = window;
        self.max_window = self.max_window.max(window);
        self.window_seq = seg.seq;
        self.window_ack = seg.ack;
        if window > 0 && matches!(self.timer, Timer::ZeroWindow(_)) {
            self.timer = Timer::Off;
            self.backoff = 0;
        }
        changed
    }

    fn advance(&mut self, ack: SeqNum, now: Instant) {
        let mut data = ack.since(self.una);
        if self.fin.is_some_and(|fin| fin.before(ack)) {
            data -= 1;
        }
        self.consume += data;
        self.una = ack;
        self.sacked.advance(ack);
        self.urgent = self.urgent.filter(|last| ack.before_or_at(*last));
        self.lost = self.lost.max(ack);
        self.repeat = self.repeat.max(ack);
        self.dup_acks = 0;
        self.backoff = 0;
        self.tail_probes = 0;
        if let Some((seq, since)) = self.timed
            && seq.before(ack)
        {
            self.rtt.measure(now.since(since));
            self.timed = None;
        }
        if let Some(recover) = self.recover {
            if recover.before_or_at(ack) {
                self.recover = None;
                self.timed_out = false;
            } else if self.timed_out {
                // The guest lives: everything that was in flight at the timeout is taken as lost.
                self.lost = recover;
                self.timed_out = false;
            } else if self.sacked.is_empty() {
                // RFC 6582 §3.2, a partial acknowledgement: the next segment is missing, too. (deviation): each one in
                // a row doubles how much is repeated. A guest without SACK, or one that has dropped what it had
                // SACKed, would else be served one segment a round trip.
                let run = u32::from(self.mss) << self.partials;
                self.partials = (self.partials + 1).min(10);
                self.lost = self.lost.max(ack.plus(run).min(recover));
            }
        }
        self.arm(now);
    }

    /// Sends repeats, probes, new data, FIN: about `budget` bytes at the most. True when more is waiting. Ends early
    /// when the link is full; then nothing counts as sent that has not left.
    pub(super) fn flush<U: Upstream, D: Device>(
        &mut self,
        ctx: &mut Ctx<'_, U>,
        rx: &mut ToUpstream,
        head: &Head,
        wire: &mut Wire<'_, '_, D>,
        mut budget: usize,
    ) -> Result<bool, Errno> {
        if self.consume > 0 {
            ctx.up.tcp_consume(ctx.id, self.consume as usize);
            self.consume = 0;
        }
        if core::mem::take(&mut self.keepalive_due) {
            // RFC 9293 §3.8.4: a number already acknowledged provokes an answer.
            let segment = Out {
                seq: self.una.minus(1),
                ack: rx.acked_now(),
                flags: Flags::ACK,
                window: rx.advertise(),
            };
            self.keepalive_due = wire.send(&segment, head, 0, None).is_err();
        }
        if core::mem::take(&mut self.probe_due) {
            self.probe(ctx, rx, head, wire)?;
            self.probe_due = wire.out.full;
        }
        while budget > 0
            && !wire.out.full
            && let Some(gap) = self.sacked.first_gap(self.repeat, self.lost)
        {
            let Some(end) = self.resend(gap, ctx, rx, head, wire)? else { break };
            budget = budget.saturating_sub(end.since(self.repeat) as usize + FRAME_COST);
            self.repeat = end;
            self.repeated_at = ctx.now;
            ctx.counters.tcp_retransmits += 1;
        }
        if budget == 0 && self.sacked.first_gap(self.repeat, self.lost).is_some() {
            return Ok(true);
        }
        loop {
            if self.fin == Some(self.next) {
                self.send_fin(ctx.now, rx, head, wire);
            }
            if wire.out.full {
                return Ok(true);
            }
            let room = self.una.plus(self.window).since(self.next);
            if !self.readable || self.fin.is_some() {
                return Ok(false);
            }
            // RFC 9293 §3.8.6.2.1, sender's silly window avoidance: a full segment, half of the largest window, or
            // nothing in flight.
            let enough = u32::from(self.mss).min(self.max_window / 2).max(1);
            if room < enough && (room == 0 || self.una != self.next) {
                if self.una == self.next {
                    self.await_window(ctx);
                }
                return Ok(false);
            }
            if budget == 0 {
                return Ok(true);
            }
            if self.may_be_urgent {
                self.find_urgent(ctx);
                wire.urgent = self.urgent;
            }
            let want = self.chunk(wire.key.guest.ip(), head, ctx.now).min(room as usize);
            let before = self.next;
            self.send_new(want, ctx, rx, head, wire)?;
            budget = budget.saturating_sub(self.next.since(before) as usize + FRAME_COST);
        }
    }

    /// The window is closed, nothing is in flight, and data (or the end) may be waiting: probe, so that a lost window
    /// update does not stall the flow for ever.
    fn await_window<U>(&mut self, ctx: &Ctx<'_, U>) {
        if self.timer == Timer::Off {
            self.timer = Timer::ZeroWindow(ctx.now + self.rtt.timeout(self.backoff));
            self.backoff = self.backoff.saturating_add(1).min(10);
        }
    }

    /// Our timestamp clock at `now`.
    pub(super) const fn timestamp(&self, now: Instant) -> u32 {
        timestamp(now, self.first().0)
    }
}
