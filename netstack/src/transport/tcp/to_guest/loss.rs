//! What was lost on the way to the guest, and the timers that find it out.
//!
//! SACK blocks are remembered; the gaps below `lost` are repeated once each, in order, by `repeat`, a cursor. Three
//! things move `lost` forward: duplicate acknowledgements or SACKed bytes above a gap (RFC 6675 §5, in the reduced form
//! that needs no congestion window), the tail probe (RFC 8985 §7) and the retransmission timeout (RFC 6298 §5). A
//! repeat that is lost itself is noticed by time: the cursor then goes back.

use super::{Timer, ToGuest};
use crate::clock::Instant;
use crate::transport::tcp::{Ctx, MAX_UNHEARD, SYN_RETRIES, earlier};
use core::time::Duration;

/// Duplicate acknowledgements that mean loss (RFC 5681 §3.2).
const DUP_THRESHOLD: u32 = 3;
/// How long a receiver may delay an acknowledgement (Linux: 40 ms), with some slack: a tail probe waits for it.
const WORST_DELAYED_ACK: Duration = Duration::from_millis(50);
/// In a recovery acknowledgements are not delayed (RFC 5681 §4.2): less slack.
const RECOVERY_SLACK: Duration = Duration::from_millis(5);
/// Probes of a recovery before the retransmission timeout has its turn.
const RECOVERY_PROBES: u8 = 3;

impl ToGuest {
    /// After an acknowledgement: what is lost?
    pub(super) fn detect_loss<U>(&mut self, ctx: &mut Ctx<'_, U>) {
        if self.una == self.next {
            return;
        }
        let mss = u32::from(self.mss).max(1);
        // RFC 5827 §3: with few segments in flight there cannot be three duplicates.
        let flight = self.next.since(self.una).div_ceil(mss);
        let few = DUP_THRESHOLD.min(flight.saturating_sub(1)).max(1);
        // RFC 8985 §7: what lay before the tail probe left long ago; one block is enough.
        let threshold = if self.tail_probes > 0 { 1 } else { few };
        let above = self.sacked.total().div_ceil(mss).min(DUP_THRESHOLD);
        if self.recover.is_none() && (self.dup_acks >= threshold || above >= threshold) {
            self.recover = Some(self.next);
            self.repeat = self.una;
            self.lost = self.una.plus(mss).min(self.next);
            self.timed = None;
            self.tail_probes = 0;
            self.partials = 0;
            self.arm(ctx.now);
            ctx.counters.tcp_fast_retransmits += 1;
        }
        if self.recover.is_none() || self.timed_out {
            return;
        }
        if let Some(highest) = self.sacked.highest() {
            // RFC 6675 §4 IsLost: enough was received above it. Near the end of a flight less suffices.
            let margin = mss * (threshold - 1);
            self.lost = self.lost.max(highest.minus(margin).max(self.una));
        }
        // A repeat may be lost, too: when the first gap stays open for longer than a round trip after it was
        // repeated, the gaps are gone through once more.
        let patience = self.rtt.smoothed().unwrap_or_default() * 5 / 4 + Duration::from_millis(1);
        if self.una.before(self.repeat) && ctx.now.since(self.repeated_at) > patience {
            self.repeat = self.una;
            self.repeated_at = ctx.now;
        }
    }

    /// (Re)starts the timer that suits what is in flight.
    pub(super) fn arm(&mut self, now: Instant) {
        if self.una == self.next {
            if !matches!(self.timer, Timer::ZeroWindow(_)) {
                self.timer = Timer::Off;
            }
            return;
        }
        let timeout = self.rtt.timeout(self.backoff);
        self.timer = match self.probe_after() {
            Some(probe) if probe < timeout => Timer::TailProbe(now + probe),
            _ => Timer::Retransmit(now + timeout),
        };
    }

    /// How long to wait for the guest before probing, if a probe is to come before the retransmission timeout.
    ///
    /// RFC 8985 §7.2: once, two round trips and time for a delayed acknowledgement. In a recovery the probe repeats the
    /// first gap, whose first repeat must have been lost: nothing else would notice before the timeout.
    fn probe_after(&self) -> Option<Duration> {
        let two_trips = self.rtt.smoothed()? * 2;
        match self.recover {
            _ if self.backoff > 0 || self.timed_out => None,
            None => (self.tail_probes == 0).then_some(two_trips + WORST_DELAYED_ACK),
            Some(_) => (self.tail_probes < RECOVERY_PROBES)
                .then(|| (two_trips + RECOVERY_SLACK) * (1 << self.tail_probes)),
        }
    }

    pub(in super::super) fn deadline(&self) -> Option<Instant> {
        match self.timer {
            Timer::Off => None,
            Timer::Retransmit(at) | Timer::TailProbe(at) | Timer::ZeroWindow(at) => earlier(None, at),
        }
    }

    /// False when the guest has been silent through too many timeouts.
    pub(in super::super) fn on_timeout<U>(&mut self, ctx: &mut Ctx<'_, U>) -> bool {
        let now = ctx.now;
        match self.timer {
            Timer::Retransmit(at) if at <= now => {
                let opening = self.una == self.isn;
                if self.unheard >= if opening { SYN_RETRIES } else { MAX_UNHEARD } {
                    return false;
                }
                self.unheard += 1;
                self.backoff = self.backoff.saturating_add(1);
                if opening {
                    self.syn_due = true;
                    self.timer = Timer::Retransmit(now + self.rtt.timeout(self.backoff));
                    return true;
                }
                self.recover = Some(self.next);
                self.timed_out = true;
                self.timed = None;
                self.repeat = self.una;
                self.lost = self.una.plus(self.mss.into()).min(self.next);
                // RFC 2018 §8: after a timeout the guest may have discarded what it had SACKed.
                self.sacked.clear();
                self.dup_acks = 0;
                ctx.counters.tcp_retransmits += 1;
                self.timer = Timer::Retransmit(now + self.rtt.timeout(self.backoff));
            }
            Timer::TailProbe(at) if at <= now => {
                self.tail_probes = self.tail_probes.saturating_add(1);
                self.probe_due = true;
                self.arm(now);
            }
            Timer::ZeroWindow(at) if at <= now => {
                self.probe_due = true;
                self.timer = Timer::Off;
            }
            _ => {}
        }
        true
    }
}
