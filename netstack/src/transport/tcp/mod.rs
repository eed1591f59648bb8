//! TCP: a translator between the guest's TCP and a host kernel socket, not a second full stack.
//!
//! ```text
//!   guest ──segments──▶ ToUpstream ──bytes──▶ socket      acknowledged when the socket or our buffer has them
//!   guest ◀──segments── ToGuest ◀──peeked── socket        consumed when the guest has acknowledged them
//! ```
//!
//! **Guest to host** (`to_upstream`). Payload in order goes straight from the device's buffer into the socket. What the
//! socket does not take is kept in a bounded buffer, and the window that we advertise is exactly the room that is left,
//! so nothing inside the advertised window is thrown away, with one exception: when all flows together hold more than
//! they may (`memory`). Bytes in that buffer are acknowledged: they are in order, in memory, and the socket is always
//! kept full from it. If they cannot be delivered in the end the flow is reset, never closed politely. Acknowledging
//! only what the kernel took would make a guest repeat data whenever a slow upstream pauses for longer than the guest's
//! retransmission timeout.
//!
//! **Host to guest** (`to_guest`). Data stays in the kernel's receive queue, peeked at an offset, until the guest has
//! acknowledged it; retransmission peeks again; no copy is kept here. There is no congestion window: the link is a
//! device on this machine that carries or refuses at once, so the guest's window is the only limit
//! (docs/rfc-exceptions.md). What it refuses has not been sent, and goes on when there is room.
//!
//! **Opening** (`open`). The guest's SYN is answered when the host's connect() has succeeded; its failure
//! becomes RST or the ICMP error it stands for.
//!
//! **Closing**. Each half closes by itself: FIN becomes shutdown(), end-of-file becomes FIN. A flow ends when both
//! halves are closed and acknowledged; there is no TIME-WAIT here, the socket's own does that duty upstream, and a
//! guest that repeats its last FIN is answered by RST, which by then harms nothing.
//!
//! A connection that breaks on the host's side is cut there at once; the guest still gets what had been received
//! before, as it would on a network, and RST behind it.
//!
//! A flow does its sending in [`Tcp::flush`] only, once per batch of frames and events: one acknowledgement covers the
//! batch, and it rides on data where there is any.

mod about;
pub(crate) mod buffer;
mod early;
mod keepalive;
mod memory;
mod open;
pub(crate) mod options;
mod orphan;
pub(crate) mod rtt;
pub(crate) mod segment;
pub(crate) mod seq;
mod to_guest;
mod to_upstream;
mod window;

#[cfg(test)]
mod tests;

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::config::TcpConfig;
use crate::counters::Counters;
use crate::device::Device;
use crate::drop_reason::DropReason;
use crate::flow::FlowId;
use crate::frame::Tx;
use crate::surely::Surely;
use crate::transport::table::Key;
use crate::upstream::{Errno, Event, Upstream};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use memory::{Held, Memory};
pub(crate) use open::{Opening, Refusal, refusal};
pub use orphan::PATIENCE;
pub(crate) use orphan::Parted;
pub(crate) use segment::{Flags, Segment};
use seq::SeqNum;
use to_guest::ToGuest;
use to_upstream::{FIRST_WINDOW, ToUpstream};

/// Our window scale: with it a window reaches 8 MiB, twice the default bound.
const WINDOW_SHIFT: u8 = 7;
/// Timeouts in a row without a sign of life after which the guest is gone (Linux's tcp_retries2).
const MAX_UNHEARD: u8 = 15;
/// Repeats of a SYN or SYN-ACK before the guest is given up: two minutes, as Linux's tcp_syn_retries has it.
const SYN_RETRIES: u8 = 6;
/// Challenge acknowledgements of a flow in so many seconds: the numbers of RFC 5961 §7. The count is each flow's own:
/// of one that they shared, a station could read what another one's segments met with (CVE-2016-5696).
const CHALLENGES: u8 = 10;
const CHALLENGE_SECONDS: u64 = 5;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The guest's SYN is here; the host has not begun to connect.
    Waiting,
    /// The host's connect() is under way.
    Connecting,
    /// A client is connected on the host's side; our SYN is on its way to the guest.
    SynSent,
    /// The host is connected; our SYN-ACK is on its way to the guest.
    SynReceived,
    /// Both sides are connected. Closing is told by the halves.
    Open,
    /// The guest has closed and is gone; the socket gets the rest until then.
    Orphan(Instant),
}

/// What a step did to the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Step {
    /// It lives on, and may have something to flush.
    Continue,
    /// It lives on; the guest spoke of another connection with the same ends, and is to be told by RST with this
    /// sequence number.
    Reject(SeqNum),
    /// It is over, and its socket closed.
    Finished,
    /// It is over, its socket closed, and the guest is to be told by RST with this sequence number.
    Abort(SeqNum),
}

/// What all TCP flows share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: TcpConfig,
    /// Bytes of window that may still be promised.
    pool: u64,
    /// What all buffers hold, and for whom.
    memory: Memory,
    /// Memory that buffers have given back, for the next one.
    spare: buffer::Spare,
    uploads: window::Uploads,
}

impl Shared {
    pub(crate) fn new(config: TcpConfig) -> Self {
        Self {
            config,
            pool: config.window_pool,
            memory: Memory::new(config.max_held),
            spare: buffer::Spare::default(),
            uploads: window::Uploads::default(),
        }
    }

    /// Whether windows of `guest` must not grow, and new ones are small: there is not even room for a first one.
    fn is_crowded(&self, guest: IpAddr) -> bool {
        !self.memory.has_room(guest, FIRST_WINDOW as usize)
    }

    /// The first window of a new flow of `guest`: one segment when memory is short, so that it gets on all the same.
    pub(crate) fn first_window(&self, guest: IpAddr, mss: u16) -> u16 {
        if self.is_crowded(guest) { mss } else { u16::try_from(FIRST_WINDOW).unwrap_or(u16::MAX) }
    }

    /// Whether there is no memory left.
    pub(crate) const fn is_over(&self) -> bool {
        self.memory.is_over()
    }

    /// The flows that must then forget what came ahead of a gap.
    pub(crate) fn losers(&self) -> Vec<FlowId> {
        self.memory.losers()
    }

    /// Bytes of memory that all buffers hold.
    pub(crate) const fn held(&self) -> usize {
        self.memory.held()
    }
}

/// What a step may touch beside its flow.
pub(crate) struct Ctx<'a, U> {
    pub(crate) now: Instant,
    pub(crate) id: FlowId,
    /// The guest's address.
    pub(crate) guest: IpAddr,
    pub(crate) up: &'a mut U,
    pub(crate) shared: &'a mut Shared,
    pub(crate) counters: &'a mut Counters,
}

impl<U> Ctx<'_, U> {
    /// The flow's buffers held `before`, and hold `after` now.
    fn account(&mut self, before: Held, after: Held) {
        self.shared.memory.account(self.guest, self.id, before, after);
    }
}

/// One TCP connection.
#[derive(Debug)]
pub(crate) struct Tcp {
    stage: Stage,
    /// The guest's MAC address, once known.
    pub(crate) mac: Option<MacAddr>,
    /// Where it leads on the host's side, if the guest began it and it leads there: as it was decided then, whatever
    /// the plan says by now. It is counted among those that lead there.
    pub(crate) to: Option<SocketAddr>,
    rx: ToUpstream,
    tx: ToGuest,
    /// The timestamp to echo; `None` when the option is not in use (RFC 7323 §3.2).
    ts_recent: Option<u32>,
    /// Both sides permit SACK.
    sack: bool,
    /// It began with the guest.
    outbound: bool,
    /// When the guest last said something.
    heard: Instant,
    /// When something last got on: a byte or a FIN taken, or acknowledged.
    carried: Instant,
    /// Keepalive probes since the guest was heard.
    probes: u8,
    /// The idle time of the guest's own keepalive, in seconds; 0: none is known.
    guest_idle: u16,
    /// The largest segment that fits the guest's link.
    own_mss: u16,
    /// Challenges sent, and the stretch of time in which they were, by number.
    challenges: (u8, u32),
    /// The largest that fits the way to the guest: routers may lie behind the link.
    path_mss: u16,
    /// The traffic class that the guest's packets had last, without ECN: the host's socket has it, too.
    pub(crate) class: u8,
}

impl Tcp {
    /// A segment of the guest arrived for this flow, whose station is at `mac`. What we send follows it there once the
    /// segment has shown that it belongs to the connection: another station may have written the addresses into it.
    pub(crate) fn on_segment<U: Upstream>(
        &mut self,
        seg: &Segment<'_>,
        mac: MacAddr,
        ctx: &mut Ctx<'_, U>,
    ) -> Step {
        match self.stage {
            Stage::Waiting | Stage::Connecting => return self.while_connecting(seg, mac, ctx),
            Stage::SynSent => return self.answer_to_syn(seg, mac, ctx),
            // It is not found by a guest's segments.
            Stage::Orphan(_) => return Step::Continue,
            Stage::SynReceived | Stage::Open => {}
        }
        // RFC 9293 §3.10.7.4, first: is it in the window?
        if !self.rx.acceptable(seg) {
            ctx.counters.drop(DropReason::OutOfWindow);
            if self.stage == Stage::SynReceived && seg.flags.syn() {
                self.tx.syn_due = true; // our SYN-ACK was lost
            } else if !seg.flags.rst() {
                self.hear_probe(seg, ctx);
                self.rx.ack_now();
                self.rx.note_repeat(seg);
                self.hear(ctx.now);
            }
            return Step::Continue;
        }
        // Second: RST. RFC 5961 §3.2: only the exact next number resets; others are challenged.
        if seg.flags.rst() {
            if seg.seq == self.rx.next() {
                ctx.counters.tcp_reset += 1;
                ctx.up.tcp_reset(ctx.id);
                return Step::Finished;
            }
            self.challenge(ctx);
            return Step::Continue;
        }
        // Fourth: SYN. RFC 5961 §4.2: challenged, so that a guest that has forgotten the connection resets it.
        if seg.flags.syn() {
            if self.stage == Stage::SynReceived {
                self.tx.syn_due = true;
            } else {
                self.challenge(ctx);
            }
            return Step::Continue;
        }
        // Fifth: ACK.
        if !seg.flags.ack() {
            ctx.counters.drop(DropReason::Malformed);
            return Step::Continue;
        }
        if !self.timestamp_is_fresh(seg) {
            ctx.counters.drop(DropReason::OutOfWindow);
            self.rx.ack_now();
            return Step::Continue;
        }
        self.hear(ctx.now);
        self.measure_distance(seg, ctx.now);
        if self.stage == Stage::SynReceived {
            if seg.ack != self.tx.first() {
                // RFC 9293 §3.10.7.4: an unacceptable ACK in SYN-RECEIVED is answered by RST from its own number.
                ctx.counters.drop(DropReason::OutOfWindow);
                return Step::Reject(seg.ack);
            }
            self.stage = Stage::Open;
            self.tx.opened(ctx.now);
        }
        let before = (self.rx.next(), self.tx.una());
        if !self.tx.on_ack(seg, ctx) {
            self.rx.ack_now(); // it acknowledges what was never sent
            return Step::Continue;
        }
        if before.1.before_or_at(seg.ack) {
            self.mac = Some(mac);
        }
        if before.1 != self.tx.una() {
            self.carried = ctx.now;
        }
        if self.tx.is_broken() {
            // Nobody takes what it sends: it is neither kept nor acknowledged. A guest that closes wants no answer.
            return if seg.flags.fin() { self.abort(ctx) } else { Step::Continue };
        }
        // Sixth to eighth: URG, text, FIN; a download is acknowledged without any.
        if (seg.space() > 0 || seg.urgent > 0)
            && let Err(errno) = self.rx.accept(seg, ctx)
        {
            return self.upstream_failed(errno, ctx);
        }
        if seg.flags.fin() && self.tx.upstream_closed() {
            self.rx.ack_now(); // our FIN has left: nothing comes to carry it
        }
        if before.0 != self.rx.next() {
            self.carried = ctx.now;
        }
        Step::Continue
    }

    /// The flow's socket has news.
    pub(crate) fn on_upstream<U: Upstream>(&mut self, event: Event, ctx: &mut Ctx<'_, U>) -> Step {
        if matches!(self.stage, Stage::Orphan(_)) {
            return self.orphan_news(event, ctx);
        }
        match event {
            Event::Readable => self.tx.look(),
            Event::Urgent => {
                if self.tx.find_urgent(ctx) {
                    self.rx.ack_now(); // RFC 9293 §3.8.5: told at once, even if its window is closed
                }
                self.tx.look();
            }
            Event::Writable if self.tx.is_broken() => {}
            Event::Writable => {
                self.carried = ctx.now;
                if let Err(errno) = self.rx.push(ctx) {
                    return self.upstream_failed(errno, ctx);
                }
            }
            Event::Failed(errno) => return self.upstream_failed(errno, ctx),
            Event::Connected | Event::Error => {}
        }
        Step::Continue
    }

    /// The deadline has come.
    pub(crate) fn on_timeout<U: Upstream>(&mut self, ctx: &mut Ctx<'_, U>) -> Step {
        match self.stage {
            Stage::Waiting | Stage::Connecting => return Step::Continue,
            Stage::Orphan(until) if until <= ctx.now => return self.orphan_timeout(ctx),
            Stage::Orphan(_) => return Step::Continue,
            Stage::SynSent | Stage::SynReceived | Stage::Open => {}
        }
        let before = self.rx.unsent();
        if let Err(errno) = self.rx.on_timeout(ctx) {
            return self.upstream_failed(errno, ctx);
        }
        if self.rx.unsent() < before {
            self.carried = ctx.now;
        }
        let gone = !self.tx.on_timeout(ctx) || self.silence_is_over(ctx);
        if gone {
            ctx.counters.tcp_timeouts += 1;
            ctx.up.tcp_reset(ctx.id);
            return Step::Abort(self.tx.reset_at());
        }
        Step::Continue
    }

    /// A router on the way to the guest has dropped the segment that begins at `seq`: it takes `mss` bytes, options
    /// included. False when none such can be under way (RFC 5927 §7.2: what is made up is ignored).
    pub(crate) fn path_narrows(&mut self, seq: SeqNum, mss: u16) -> bool {
        self.stage == Stage::Open && self.tx.narrow(seq, mss, self.ts_recent.is_some())
    }

    /// When [`Tcp::on_timeout`] wants to be called.
    pub(crate) fn deadline(&self, config: &TcpConfig) -> Option<Instant> {
        match self.stage {
            Stage::Waiting => return None,
            Stage::Connecting => return self.dial_ends(config), // else the kernel's own timeout ends it
            Stage::Orphan(until) => return Some(until),
            Stage::SynSent | Stage::SynReceived | Stage::Open => {}
        }
        let silence = match self.probes {
            0 => config.keepalive_idle,
            _ => config.keepalive_idle + config.keepalive_interval * u32::from(self.probes),
        };
        let mut quiet = self.heard + silence;
        if self.is_half_closed() {
            let bound = self.carried + config.half_closed_timeout;
            quiet = if self.guest_is_through() { bound } else { quiet.min(bound) };
        }
        [self.rx.deadline(), self.tx.deadline(), Some(quiet)].into_iter().flatten().min()
    }

    /// Sends what there is to send, about `budget` bytes at the most. True when more is waiting; if the link is full
    /// ([`Tx::full`]) that is not known yet.
    pub(crate) fn flush<U: Upstream, D: Device>(
        &mut self,
        key: &Key,
        ctx: &mut Ctx<'_, U>,
        out: &mut Tx<'_, D>,
        budget: usize,
    ) -> Result<bool, Step> {
        let Some(mac) = self.mac else { return Ok(false) };
        if matches!(self.stage, Stage::Waiting | Stage::Connecting | Stage::Orphan(_)) {
            return Ok(false);
        }
        let mut wire = segment::Wire { key, mac, out, now: ctx.now, urgent: self.tx.urgent() };
        if self.stage != Stage::Open {
            if core::mem::take(&mut self.tx.syn_due) {
                self.send_syn(ctx.now, &mut wire);
            }
            return Ok(wire.out.full);
        }
        let head = segment::Head {
            ts_recent: self.ts_recent,
            ts_offset: self.tx.first().0,
            blocks: if self.sack { self.rx.blocks(None) } else { Default::default() },
        };
        let closed = self.tx.upstream_closed();
        let Ok(more) = self.tx.flush(ctx, &mut self.rx, &head, &mut wire, budget) else {
            return Err(self.abort(ctx));
        };
        if closed != self.tx.upstream_closed() {
            self.carried = ctx.now;
        }
        if wire.out.full {
            self.rx.ack_now(); // what the refused one would have acknowledged and advertised is not told
            return Ok(true);
        }
        if self.tx.is_broken() && self.tx.is_drained() {
            return Err(self.abort(ctx));
        }
        // RFC 2883 §4: told once, in one segment; data that has carried the acknowledgement did not carry this.
        let repeat = self.rx.take_repeat().filter(|_| self.sack);
        if self.rx.wants_ack(ctx.shared) || repeat.is_some() {
            let blocks = if repeat.is_some() { self.rx.blocks(repeat) } else { head.blocks };
            let head = segment::Head { blocks, ..head };
            let window = self.rx.advertise();
            let segment =
                segment::Out { seq: self.tx.next(), ack: self.rx.acked_now(), flags: Flags::ACK, window };
            if wire.send(&segment, &head, 0, None).is_err() {
                self.rx.ack_now();
                return Ok(true);
            }
        }
        if self.rx.is_done() && self.tx.is_done() {
            ctx.counters.tcp_closed += 1;
            ctx.up.close(ctx.id);
            return Err(Step::Finished);
        }
        Ok(more)
    }

    /// The guest has closed, and knows that we have: it may have forgotten the connection, and must not be asked about
    /// it. What is left is to pass on what it sent.
    fn guest_is_through(&self) -> bool {
        self.rx.guest_closed() && self.tx.is_done()
    }

    const fn is_half_closed(&self) -> bool {
        self.rx.guest_closed() || self.tx.upstream_closed()
    }

    const fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.probes = 0;
        self.tx.heard();
    }

    /// RFC 5961 §7: an acknowledgement, if there were not too many lately.
    fn challenge<U>(&mut self, ctx: &mut Ctx<'_, U>) {
        let stretch = ctx.now.as_micros() / (1_000_000 * CHALLENGE_SECONDS);
        // Its low half, in which neighbours differ.
        let stretch = u32::try_from(stretch & u64::from(u32::MAX)).surely();
        let sent = if self.challenges.1 == stretch { self.challenges.0 } else { 0 };
        if sent < CHALLENGES {
            self.challenges = (sent + 1, stretch);
            self.rx.ack_now();
        } else {
            ctx.counters.drop(DropReason::RateLimited);
        }
    }

    /// RFC 7323 §5.3: protection against wrapped sequence numbers; and §4.3: which timestamp to echo.
    fn timestamp_is_fresh(&mut self, seg: &Segment<'_>) -> bool {
        let (Some(recent), Some(ts)) = (self.ts_recent, seg.options.timestamps) else { return true };
        if ts.value.wrapping_sub(recent).cast_signed() < 0 {
            return false;
        }
        if seg.seq.before_or_at(self.rx.last_acked()) {
            self.ts_recent = Some(ts.value);
        }
        true
    }

    /// Whether the guest is near: one round trip that took less than [`window::NEAR`] is proof. A sender's echo of our
    /// timestamp is as old as a round trip at least (RFC 7323 §4.1), and its clock ticks in milliseconds.
    fn measure_distance(&mut self, seg: &Segment<'_>, now: Instant) {
        if !self.rx.is_near() {
            let quick = self.tx.quickest().is_some_and(|rtt| rtt < window::NEAR);
            let fresh = seg.options.timestamps.is_some_and(|ts| ts.echo == self.tx.timestamp(now));
            self.rx.set_near(quick || fresh);
        }
    }

    /// Keepalive (RFC 9293 §3.8.4) and the bound on half-closed flows. True when the guest is given up.
    fn silence_is_over<U>(&mut self, ctx: &Ctx<'_, U>) -> bool {
        let (config, silent) = (&ctx.shared.config, ctx.now.since(self.heard));
        // Keepalive is answered by the guest's kernel: it says nothing about whether anybody will ever use this again.
        if self.is_half_closed() && ctx.now.since(self.carried) >= config.half_closed_timeout {
            return true;
        }
        if self.guest_is_through() {
            return false;
        }
        if silent < config.keepalive_idle + config.keepalive_interval * u32::from(self.probes) {
            return false;
        }
        if self.probes >= config.keepalive_probes {
            return true;
        }
        self.probes += 1;
        self.tx.keepalive_due = true;
        false
    }

    /// The host's connection broke. What its peer sent before can still be read from the socket (on Linux, too), and
    /// may say why: the guest gets it first, then RST.
    fn upstream_failed<U: Upstream>(&mut self, _errno: Errno, ctx: &mut Ctx<'_, U>) -> Step {
        match self.stage {
            Stage::Waiting | Stage::Connecting | Stage::SynSent => self.abort(ctx),
            Stage::SynReceived | Stage::Open | Stage::Orphan(_) => {
                self.tx.break_off();
                self.rx.break_off(ctx);
                Step::Continue
            }
        }
    }

    /// Ends the flow on both sides by RST.
    pub(crate) fn abort<U: Upstream>(&self, ctx: &mut Ctx<'_, U>) -> Step {
        ctx.counters.tcp_reset += 1;
        if self.has_socket() {
            ctx.up.tcp_reset(ctx.id);
        }
        Step::Abort(self.tx.reset_at())
    }
}

/// The earlier of a deadline that may be set and another.
fn earlier(a: Option<Instant>, b: Instant) -> Option<Instant> {
    Some(a.map_or(b, |a| a.min(b)))
}

/// How long an acknowledgement of little data may wait for data to ride on.
///
/// A local server answers within this time, which saves a frame for each request; a remote one costs one timer. It is
/// far below the 40 ms of Linux because a guest with Nagle's algorithm on may be waiting for it.
const DELAYED_ACK: Duration = Duration::from_millis(1);
