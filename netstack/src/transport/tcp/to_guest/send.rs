//! How bytes of the socket become segments: new ones, repeats, probes, and the end.
//!
//! A frame holds what the socket shows from an offset on, and the end of the stream leaves with the last byte before
//! it. Nothing counts as sent that the link has refused.

use super::*;
use crate::surely::Surely;

/// What lies in the frame buffer.
#[derive(Debug, Clone, Copy)]
struct Found {
    len: usize,
    /// The socket has nothing behind it, so far.
    push: bool,
    /// The stream ends with it.
    end: bool,
}

impl ToGuest {
    /// The most payload of one frame: whole segments, as many as an IP packet holds.
    pub(super) fn chunk(&self, guest: core::net::IpAddr, head: &Head, now: Instant) -> usize {
        let mss = usize::from(self.segment_len(head, now));
        let headers = ip_header_len(guest) + 20 + head.options(now).bytes().len();
        (MAX_PAYLOAD - headers) / mss * mss
    }

    /// Payload of one segment with these options: SACK blocks leave less of it (RFC 6691 §3).
    fn segment_len(&self, head: &Head, now: Instant) -> u16 {
        let reckoned = if head.ts_recent.is_some() { TIMESTAMPS_LEN } else { 0 };
        let options = u16::try_from(head.options(now).bytes().len()).unwrap_or(reckoned);
        self.mss.saturating_sub(options.saturating_sub(reckoned)).max(1)
    }

    /// Sends up to `want` bytes of what was never sent, and the end of the stream with the last of them.
    pub(super) fn send_new<U: Upstream, D: Device>(
        &mut self,
        want: usize,
        ctx: &mut Ctx<'_, U>,
        rx: &mut ToUpstream,
        head: &Head,
        wire: &mut Wire<'_, '_, D>,
    ) -> Result<(), Errno> {
        let found = self.fill_frame(want, ctx, wire);
        if found.len == 0 {
            if found.end {
                self.fin = Some(self.next);
                self.send_fin(ctx.now, rx, head, wire);
            }
            return Ok(());
        }
        let sent = self.emit(self.next, found, rx, head, wire);
        if sent < found.len {
            self.readable = true; // what is left, or the end behind it, is to be seen again
        }
        if sent == 0 {
            return Ok(());
        }
        if self.timed.is_none() {
            self.timed = Some((self.next, ctx.now));
        }
        let idle = self.una == self.next;
        self.next = self.next.plus(u32::try_from(sent).surely());
        if found.end && sent == found.len {
            self.fin = Some(self.next);
            self.next = self.next.plus(1);
        }
        if idle || matches!(self.timer, Timer::Off) {
            self.arm(ctx.now);
        }
        Ok(())
    }

    /// Peeks at up to `want` bytes of what was never sent, until there are so many or there is nothing behind them: so
    /// it is known whether the stream ends with them.
    fn fill_frame<U: Upstream, D: Device>(
        &mut self,
        want: usize,
        ctx: &mut Ctx<'_, U>,
        wire: &mut Wire<'_, '_, D>,
    ) -> Found {
        let offset = self.next.since(self.una) as usize;
        let mut found = Found { len: 0, push: true, end: false };
        // Reading stops short at urgent data, of whose end the socket is asked before each frame.
        while self.readable && (found.len == 0 || !self.may_be_urgent) {
            let room = wire.out.buffer.payload_mut(want).get_mut(found.len..).surely();
            if room.is_empty() {
                found.push = false;
                break;
            }
            match ctx.up.tcp_peek(ctx.id, offset + found.len, room) {
                Peek::Data(n) => found.len += n,
                Peek::Empty => self.readable = false,
                Peek::End => (found.end, self.readable) = (!self.broken, false),
                Peek::Failed(_) => (self.broken, self.readable) = (true, false),
            }
        }
        found
    }

    /// Sends what was found in the frame buffer; returns how many of its bytes have left.
    fn emit<D: Device>(
        &self,
        seq: SeqNum,
        found: Found,
        rx: &mut ToUpstream,
        head: &Head,
        wire: &mut Wire<'_, '_, D>,
    ) -> usize {
        let flags = match (found.end, found.push) {
            (true, _) => Flags::ACK.and(Flags::PSH).and(Flags::FIN),
            (false, true) => Flags::ACK.and(Flags::PSH),
            (false, false) => Flags::ACK,
        };
        let window = rx.advertise();
        let segment = Out { seq, ack: rx.acked_now(), flags, window };
        let mss = self.segment_len(head, wire.now);
        match wire.send(&segment, head, found.len, Some(mss)) {
            Ok(()) => found.len,
            Err(Short(sent)) => sent,
        }
    }

    pub(super) fn send_fin<D: Device>(
        &mut self,
        now: Instant,
        rx: &mut ToUpstream,
        head: &Head,
        wire: &mut Wire<'_, '_, D>,
    ) {
        let Some(fin) = self.fin else { return };
        let window = rx.advertise();
        let segment = Out { seq: fin, ack: rx.acked_now(), flags: Flags::FIN.and(Flags::ACK), window };
        if wire.send(&segment, head, 0, None).is_err() {
            return;
        }
        self.next = self.next.max(fin.plus(1));
        if !matches!(self.timer, Timer::Retransmit(_)) {
            self.arm(now);
        }
    }

    /// Repeats the beginning of `gap`, as much as one frame holds. `None` when nothing was: the link is full, or the
    /// socket cannot show it (which would be a fault of the host's); otherwise where the rest begins.
    pub(super) fn resend<U: Upstream, D: Device>(
        &mut self,
        gap: Range,
        ctx: &mut Ctx<'_, U>,
        rx: &mut ToUpstream,
        head: &Head,
        wire: &mut Wire<'_, '_, D>,
    ) -> Result<Option<SeqNum>, Errno> {
        self.timed = None; // Karn's rule
        if self.fin == Some(gap.start) {
            self.send_fin(ctx.now, rx, head, wire);
            return Ok((!wire.out.full).then_some(gap.end));
        }
        // RFC 9293 §3.8.6: a window that was taken back binds repeats, too; at its very edge one byte is a probe.
        let room = self.una.plus(self.window).since(gap.start);
        if room == 0 && gap.start != self.una {
            return Ok(None);
        }
        let data = self.fin.map_or(gap.end, |fin| gap.end.min(fin)).since(gap.start).min(room.max(1));
        let want = self.chunk(wire.key.guest.ip(), head, ctx.now).min(data as usize);
        let offset = gap.start.since(self.una) as usize;
        match ctx.up.tcp_peek(ctx.id, offset, wire.out.buffer.payload_mut(want)) {
            Peek::Data(len) => {
                let left = self.emit(gap.start, Found { len, push: false, end: false }, rx, head, wire);
                Ok((left > 0).then(|| gap.start.plus(u32::try_from(left).surely())))
            }
            Peek::Failed(errno) => Err(errno),
            Peek::Empty | Peek::End => Ok(None),
        }
    }

    /// A tail probe repeats the last segment; a zero-window probe sends one byte beyond the window.
    pub(super) fn probe<U: Upstream, D: Device>(
        &mut self,
        ctx: &mut Ctx<'_, U>,
        rx: &mut ToUpstream,
        head: &Head,
        wire: &mut Wire<'_, '_, D>,
    ) -> Result<(), Errno> {
        if self.una == self.next {
            if self.readable && self.window == 0 {
                self.send_new(1, ctx, rx, head, wire)?;
            }
            return Ok(());
        }
        let start = self.una.max(self.next.minus(self.mss.into()));
        let start = match self.fin {
            // The last segment is the FIN alone, or data before it.
            Some(fin) if fin.before(self.next) => fin,
            _ => start,
        };
        let mut again = Range { start, end: self.next };
        if self.recover.is_some()
            && let Some(gap) = self.sacked.first_gap(self.una, self.next)
        {
            again = Range { start: gap.start, end: gap.end.min(gap.start.plus(self.mss.into())) };
        }
        if self.resend(again, ctx, rx, head, wire)?.is_some() {
            ctx.counters.tcp_retransmits += 1;
        }
        Ok(())
    }
}
