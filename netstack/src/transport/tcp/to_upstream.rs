//! Guest to host: what arrives in segments leaves into the socket, in order, each byte once.
//!
//! Invariants. `next` is the first byte not yet taken; everything before it is in the socket or in `buffer`. `edge` is
//! the right edge of the window as last advertised and never moves back. What comes before `edge` is kept, ahead of a
//! gap in `early` and told by SACK; only when all flows together hold too much (see [`super::memory`]) it may find no
//! room. It is then as if the link had lost it: not acknowledged, and taken when the guest repeats it. Until then the
//! edge stands still.
//!
//! What the socket is offered, and when, is in [`socket`].

mod socket;

use super::buffer::Buffer;
use super::early::Early;
use super::memory::Held;
use super::options::MAX_SACK_BLOCKS;
use super::segment::{Segment, len32};
use super::seq::{Range, SeqNum};
use super::window::Sending;
use super::{Ctx, DELAYED_ACK, Shared, WINDOW_SHIFT, earlier};
use crate::clock::Instant;
use crate::drop_reason::DropReason;
use crate::surely::Surely;
use crate::upstream::{Errno, Upstream};
use core::time::Duration;
use socket::Full;

/// The first window: what a SYN-ACK can say without scaling.
pub(super) const FIRST_WINDOW: u32 = 65_535;
/// In-order data up to this many bytes may have its acknowledgement delayed.
const SMALL: u32 = 4096;

/// How far rounding the window up may carry its edge beyond the capacity.
const ROUNDING_SLACK: u32 = 64 << 10;
/// A guest that sends a whole window within this time may be held up by it rather than by us: its way here may be long.
const BRISK: Duration = Duration::from_secs(1);

/// A flow that found no room for bytes looks again after this time: no guest's next attempt is far away then, and
/// thousands of such flows cost little.
const NO_ROOM_RETRY: Duration = Duration::from_secs(1);

/// Whether the guest is owed an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ack {
    None,
    /// By then, if nothing carries it before.
    By(Instant),
    Now,
}

/// The half of a connection that the guest sends.
#[derive(Debug)]
pub(super) struct ToUpstream {
    next: SeqNum,
    edge: SeqNum,
    last_acked: SeqNum,
    /// What `edge` was when it was last told, for window updates.
    told_edge: SeqNum,
    /// Received ahead of `next`.
    early: Early,
    /// The range that was received last out of order: the first SACK block (RFC 2018 §4).
    latest: Option<Range>,
    /// What came although it was here already, until it is told (RFC 2883).
    repeat: Option<Range>,
    buffer: Buffer,
    /// The guest's last urgent byte, until it is passed on.
    urgent: Option<SeqNum>,
    /// The socket took less than offered; wait for it.
    blocked: bool,
    /// While it is: when more is offered all the same.
    full: Option<Full>,
    /// The most that `buffer` may hold.
    capacity: u32,
    /// There was no memory for bytes inside the window: when to look again.
    held_up: Option<Instant>,
    shift: u8,
    /// The guest is less than a millisecond away.
    near: bool,
    sending: Sending,
    /// Where and when the window's worth of data began that is being timed.
    brisk: Option<(SeqNum, Instant)>,
    ack: Ack,
    /// Where the guest's FIN lies, once seen.
    fin: Option<SeqNum>,
    /// It was reached, and is acknowledged.
    fin_reached: bool,
    shut: bool,
}

impl ToUpstream {
    /// Begins behind the guest's SYN, whose number is `isn`, with a window of `window` bytes.
    pub(super) fn new(isn: SeqNum, window: u16) -> Self {
        let next = isn.plus(1);
        let capacity = u32::from(window);
        Self {
            next,
            edge: next.plus(capacity),
            last_acked: next,
            told_edge: next.plus(capacity),
            early: Early::default(),
            latest: None,
            repeat: None,
            buffer: Buffer::default(),
            urgent: None,
            blocked: false,
            full: None,
            capacity,
            held_up: None,
            shift: 0,
            near: false,
            sending: Sending::default(),
            brisk: None,
            ack: Ack::None,
            fin: None,
            fin_reached: false,
            shut: false,
        }
    }

    /// The guest scales windows, so we do.
    pub(super) const fn scale(&mut self) {
        self.shift = WINDOW_SHIFT;
    }

    pub(super) const fn is_scaled(&self) -> bool {
        self.shift > 0
    }

    pub(super) const fn is_near(&self) -> bool {
        self.near
    }

    pub(super) const fn set_near(&mut self, near: bool) {
        self.near = near;
    }

    /// Bytes of window that the guest may still use.
    pub(super) fn under_way(&self) -> u32 {
        self.edge.since(self.next)
    }

    /// Bytes that wait for room in the socket.
    pub(super) fn unsent(&self) -> usize {
        self.buffer.len()
    }

    pub(super) const fn next(&self) -> SeqNum {
        self.next
    }

    pub(super) const fn last_acked(&self) -> SeqNum {
        self.last_acked
    }

    pub(super) const fn ack_now(&mut self) {
        self.ack = Ack::Now;
    }

    pub(super) const fn guest_closed(&self) -> bool {
        self.fin_reached
    }

    /// Everything was passed on, the end included.
    pub(super) const fn is_done(&self) -> bool {
        self.shut
    }

    /// The first window: what a SYN-ACK tells.
    pub(super) fn first_window(&self) -> u16 {
        u16::try_from(self.capacity).unwrap_or(u16::MAX)
    }

    /// What this half took from the shared pool.
    pub(super) const fn promised(&self) -> u64 {
        self.capacity.saturating_sub(FIRST_WINDOW) as u64
    }

    pub(super) fn held(&self) -> Held {
        Held { firm: self.buffer.capacity(), early: self.early.held() }
    }

    /// RFC 9293 §3.10.7.4, table 6: whether any part of the segment lies in the window. What arrives right at a closed
    /// one is looked at, too: its acknowledgement counts, its data does not. So is a bare FIN there, which some send.
    pub(super) fn acceptable(&self, seg: &Segment<'_>) -> bool {
        let window = self.edge.since(self.next);
        let space = seg.space();
        if window == 0 {
            return seg.seq == self.next;
        }
        let inside = |seq: SeqNum| self.next.before_or_at(seq) && seq.before(self.edge);
        // A pure ACK right at the edge is what a sender with a full window sends.
        if space == 0 {
            return inside(seg.seq) || seg.seq == self.edge;
        }
        inside(seg.seq) || inside(seg.seq.plus(space - 1))
    }

    /// Whether this is what a guest sends to hear whether we live (RFC 9293 §3.8.4): nothing new, or one byte that we
    /// have, from right before what we expect. Into a closed window Linux sends the same to hear whether it has opened.
    pub(super) fn is_keepalive(&self, seg: &Segment<'_>) -> bool {
        seg.seq.plus(1) == self.next
            && seg.payload.len() <= 1
            && !(seg.flags.syn() || seg.flags.fin() || seg.flags.rst())
            && self.last_acked == self.next
            && self.next.before(self.edge)
    }

    /// Owes the guest an acknowledgement that tells which bytes of this segment came before, if any did.
    pub(super) fn note_repeat(&mut self, seg: &Segment<'_>) {
        let old = if seg.seq.before(self.next) { self.next.since(seg.seq) } else { 0 };
        let old = old.min(len32(seg.payload));
        if old > 0 {
            self.repeat = Some(Range { start: seg.seq, end: seg.seq.plus(old) });
            self.ack = Ack::Now;
        }
    }

    /// What was repeated, told once.
    pub(super) const fn take_repeat(&mut self) -> Option<Range> {
        self.repeat.take()
    }

    /// Takes a segment's payload and FIN.
    pub(super) fn accept<U: Upstream>(
        &mut self,
        seg: &Segment<'_>,
        ctx: &mut Ctx<'_, U>,
    ) -> Result<(), Errno> {
        let before = self.held();
        let taken = self.take(seg, ctx);
        ctx.account(before, self.held());
        taken
    }

    fn take<U: Upstream>(&mut self, seg: &Segment<'_>, ctx: &mut Ctx<'_, U>) -> Result<(), Errno> {
        let (mut seq, mut payload) = (seg.seq, seg.payload);
        let end = seq.plus(len32(payload));
        self.note_repeat(seg);
        if seg.urgent > 0 {
            self.note_urgent(seg);
        }
        if seg.flags.fin() && end.before_or_at(self.edge) && self.fin.is_none_or(|fin| fin == end) {
            self.fin = Some(end);
        }
        if let Some(fin) = self.fin {
            // RFC 9293 §3.10.7.4: nothing lies behind a FIN.
            payload = payload.get(..fin.since(seq).min(len32(payload)) as usize).surely();
        }
        if seq.before(self.next) {
            let old = self.next.since(seq).min(len32(payload));
            payload = payload.get(old as usize..).surely();
            seq = seq.plus(old);
        }
        let room = self.edge.since(seq).min(len32(payload));
        if room < len32(payload) {
            self.ack = Ack::Now; // it does not know our window
        }
        payload = payload.get(..room as usize).surely();
        if !payload.is_empty() && !self.fin_reached {
            if seq == self.next {
                self.in_order(payload, ctx)?;
            } else {
                self.out_of_order(seq, payload, ctx);
            }
        }
        if seg.flags.fin() && (self.fin_reached || self.fin != Some(self.next)) {
            self.ack = Ack::Now; // a repeat, or ahead of data that is missing
        }
        self.reach_fin(ctx)
    }

    fn in_order<U: Upstream>(&mut self, payload: &[u8], ctx: &mut Ctx<'_, U>) -> Result<(), Errno> {
        let mut taken = self.pass_on(payload, ctx)?;
        self.next = self.next.plus(taken);
        let mut complete = taken == len32(payload);
        if !self.early.is_empty() {
            self.ack = Ack::Now; // RFC 5681 §4.2: at once when a gap closes
            while complete && let Some(piece) = self.early.take(self.next) {
                let bytes = piece.from(self.next);
                taken = self.pass_on(bytes, ctx)?;
                self.next = self.next.plus(taken);
                complete = taken == len32(bytes);
            }
        }
        self.note_room(complete, ctx);
        ctx.shared.uploads.note(ctx.now, len32(payload), &mut self.sending);
        if !ctx.shared.is_crowded(ctx.guest) {
            self.capacity = self.capacity.max(FIRST_WINDOW);
            self.grow(ctx.now, ctx.shared);
        }
        self.shrink(ctx.shared);
        self.owe(ctx.now);
        Ok(())
    }

    /// Whether there was memory for everything that came in order. If not, nothing behind the last byte that there was
    /// room for is known any more, and the edge stands still until there is room again.
    fn note_room<U>(&mut self, complete: bool, ctx: &mut Ctx<'_, U>) {
        if complete {
            self.held_up = None;
        } else {
            ctx.counters.drop(DropReason::NoRoom);
            self.early.clear();
            self.held_up = Some(ctx.now + NO_ROOM_RETRY);
        }
        if self.early.is_empty() {
            self.latest = None;
        }
    }

    fn out_of_order<U>(&mut self, seq: SeqNum, payload: &[u8], ctx: &mut Ctx<'_, U>) {
        self.ack = Ack::Now; // RFC 5681 §4.2: a duplicate acknowledgement at once
        let range = Range { start: seq, end: seq.plus(len32(payload)) };
        if self.early.ranges().any(|held| held.holds(range)) {
            self.repeat = Some(range);
        } else if !ctx.shared.memory.has_room_early(ctx.guest, Early::cost(payload.len())) {
            ctx.counters.drop(DropReason::NoRoom);
        } else if self.early.insert(seq, payload) {
            self.latest = Some(range);
        }
    }

    /// Others need the memory of what came ahead of a gap: it is forgotten, and SACK tells of it no more.
    pub(super) fn forget_early(&mut self) {
        self.early.clear();
        self.latest = None;
    }

    /// Whether the guest's FIN is next: acknowledged now, passed on behind the last byte.
    fn reach_fin<U: Upstream>(&mut self, ctx: &mut Ctx<'_, U>) -> Result<(), Errno> {
        if self.fin != Some(self.next) || self.fin_reached {
            return Ok(());
        }
        self.next = self.next.plus(1);
        self.edge = self.edge.max(self.next);
        self.fin_reached = true;
        // A server closes when its client does: its FIN, a moment later, carries the acknowledgement.
        let passed_on = self.buffer.len() == 0 && !self.blocked;
        self.ack = match self.ack {
            Ack::None | Ack::By(_) if passed_on => Ack::By(ctx.now + DELAYED_ACK),
            _ => Ack::Now,
        };
        if self.blocked { Ok(()) } else { self.fill(ctx) }
    }

    /// RFC 9293 §3.8.5: what lies before the pointer is urgent; RFC 6093 §2.1: the pointer leads to the byte behind it.
    /// Only the last byte of urgent data is passed on as such, as every socket interface has it, and a later one takes
    /// its place.
    fn note_urgent(&mut self, seg: &Segment<'_>) {
        let last = seg.seq.plus(u32::from(seg.urgent) - 1);
        if self.front().before_or_at(last) && self.urgent.is_none_or(|other| other.before(last)) {
            self.urgent = Some(last);
        }
    }

    /// The first byte that the socket does not have.
    fn front(&self) -> SeqNum {
        let kept = u32::try_from(self.buffer.len()).surely();
        self.next.minus(kept + u32::from(self.fin_reached))
    }

    /// Doubles the window when the guest comes near its edge, or fills one quickly: it could send faster if it might.
    fn grow(&mut self, now: Instant, shared: &mut Shared) {
        let (from, since) = *self.brisk.get_or_insert((self.next, now));
        let filled = self.next.since(from) >= self.capacity;
        if filled {
            self.brisk = Some((self.next, now));
        }
        let near = self.edge.since(self.next) <= self.capacity / 2;
        if self.shift == 0 || !(near || filled && now.since(since) <= BRISK) {
            return;
        }
        let wanted = self.capacity.saturating_mul(2).min(self.most(shared).max(self.capacity));
        let more = u64::from(wanted - self.capacity).min(shared.pool);
        shared.pool -= more;
        self.capacity += u32::try_from(more).surely();
    }

    /// What the window may grow to.
    fn most(&self, shared: &Shared) -> u32 {
        let most = shared.config.max_window;
        if self.near { most.min(shared.uploads.share()) } else { most }
    }

    /// Takes back what the window has too much, as far as the guest has used it up already.
    fn shrink(&mut self, shared: &mut Shared) {
        let front = self.next.minus(u32::try_from(self.buffer.len()).surely());
        let least = self.most(shared).max(self.edge.since(front)).max(FIRST_WINDOW);
        if self.capacity > least {
            shared.pool += u64::from(self.capacity - least);
            self.capacity = least;
        }
    }

    /// In-order data came: when is it to be acknowledged?
    fn owe(&mut self, now: Instant) {
        if self.ack == Ack::Now {
            return;
        }
        let unacked = self.next.since(self.last_acked);
        self.ack = match self.ack {
            Ack::None if unacked <= SMALL => Ack::By(now + DELAYED_ACK),
            Ack::By(at) if unacked <= SMALL => Ack::By(at),
            _ => Ack::Now,
        };
    }

    pub(super) fn on_timeout<U: Upstream>(&mut self, ctx: &mut Ctx<'_, U>) -> Result<(), Errno> {
        if matches!(self.ack, Ack::By(at) if at <= ctx.now) {
            self.ack = Ack::Now;
        }
        if self.held_up.is_some_and(|at| at <= ctx.now) {
            self.held_up = ctx.shared.is_crowded(ctx.guest).then(|| ctx.now + NO_ROOM_RETRY);
            if self.held_up.is_none() {
                self.capacity = self.capacity.max(FIRST_WINDOW);
                self.ack = Ack::Now; // its window opens
            }
        }
        match self.full {
            Some(full) if full.again <= ctx.now => self.offer_again(full, ctx),
            _ => Ok(()),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let held_up = self.full.map_or(self.held_up, |full| earlier(self.held_up, full.again));
        match self.ack {
            Ack::By(at) => earlier(held_up, at),
            Ack::None | Ack::Now => held_up,
        }
    }

    fn room(&self) -> u32 {
        self.capacity.saturating_sub(u32::try_from(self.buffer.len()).surely_or(u32::MAX))
    }

    /// Whether a segment must leave even without data: an acknowledgement is due, or the window has opened so far that
    /// the guest should know (RFC 9293 §3.8.6.2.2, receiver's silly window avoidance).
    pub(super) fn wants_ack(&self, _shared: &Shared) -> bool {
        if self.ack == Ack::Now {
            return true;
        }
        let told = self.told_edge.since(self.next);
        let opened = self.next.plus(self.room()).since(self.told_edge);
        !self.fin_reached && told < self.capacity / 2 && opened >= (self.capacity / 2).min(FIRST_WINDOW)
    }

    /// The window field of a segment that leaves now; moves the edge.
    pub(super) fn advertise(&mut self) -> u16 {
        let front = self.next.minus(u32::try_from(self.buffer.len()).surely());
        if self.held_up.is_none() {
            self.edge = self.edge.max(front.plus(self.capacity));
        }
        let (exact, grain) = (self.edge.since(self.next), 1 << self.shift);
        // Rounded up, so that scaling never takes back what was promised. But each rounding moves the edge, so a guest
        // that sends byte by byte would never see the window close: beyond the slack it is rounded down, which takes
        // less than one unit back from what is told (RFC 7323 §2.4 warns senders of that) and nothing from what is
        // kept.
        let up = exact.next_multiple_of(grain);
        let fits = self.next.plus(up).since(front) <= self.capacity + ROUNDING_SLACK;
        let window = if fits { up } else { exact } >> self.shift;
        let field = u16::try_from(window).unwrap_or(u16::MAX);
        self.told_edge = self.next.plus(u32::from(field) << self.shift);
        self.edge = self.edge.max(self.told_edge);
        field
    }

    /// The acknowledgement field of a segment that leaves now: nothing is owed afterwards.
    pub(super) const fn acked_now(&mut self) -> SeqNum {
        self.last_acked = self.next;
        self.ack = Ack::None;
        self.next
    }

    /// SACK blocks, the latest first (RFC 2018 §4); before them a repeat, which the next one holds if it lies ahead
    /// (RFC 2883 §4).
    pub(super) fn blocks(&self, repeat: Option<Range>) -> [Option<Range>; MAX_SACK_BLOCKS] {
        let mut blocks = [None; MAX_SACK_BLOCKS];
        if self.early.is_empty() && repeat.is_none() {
            return blocks;
        }
        let news = repeat.or(self.latest);
        let holds = |range: &Range| news.is_some_and(|news| range.holds(news));
        let first = self.early.ranges().filter(&holds).take(1);
        let others = self.early.ranges().filter(|r| !holds(r));
        for (slot, range) in blocks.iter_mut().zip(repeat.into_iter().chain(first).chain(others)) {
            *slot = Some(range);
        }
        blocks
    }
}
