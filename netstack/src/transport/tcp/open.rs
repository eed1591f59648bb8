//! Opening a connection, from either side.
//!
//! From the guest: SYN, then the host's connect(), then SYN-ACK; a failed connect() becomes what the guest would have
//! seen on a network of its own ([`refusal`]). From the host: a client was accepted on a forwarded port, SYN goes to
//! the guest, and the guest's RST or silence resets the client.

use super::options::{Timestamps, Written};
use super::segment::{Flags, Out, Segment, Wire};
use super::seq::SeqNum;
use super::to_guest::ToGuest;
use super::to_upstream::ToUpstream;
use super::{Ctx, Stage, Step, Tcp, WINDOW_SHIFT};
use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::device::Device;
use crate::drop_reason::DropReason;
use crate::upstream::{Errno, Upstream};
use core::net::SocketAddr;
use core::time::Duration;

/// What a new connection starts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    pub(crate) now: Instant,
    /// Our initial sequence number (RFC 6528).
    pub(crate) isn: u32,
    /// The largest segment that fits the guest's link.
    pub(crate) mss: u16,
    /// The window of its first segment, in bytes.
    pub(crate) window: u16,
    /// The largest that fits the way to it, as far as is known.
    pub(crate) path_mss: u16,
    pub(crate) mac: Option<MacAddr>,
    /// Where the guest's connection leads on the host's side.
    pub(crate) to: Option<SocketAddr>,
    /// The traffic class of the guest's packets.
    pub(crate) class: u8,
}

/// What the guest is told when the host could not connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// RST: somebody is there and said no.
    Reset,
    /// An ICMP error with the meaning of this one.
    Unreachable(Errno),
}

/// RFC 9293 §3.5.3 and RFC 1122 §4.2.3.9: how a connect() error looks from the guest.
pub(crate) const fn refusal(errno: Errno) -> Refusal {
    match errno {
        Errno::Refused | Errno::Reset => Refusal::Reset,
        other => Refusal::Unreachable(other),
    }
}

impl Tcp {
    /// The guest's SYN; the caller starts the host's connect().
    pub(crate) fn from_guest(seg: &Segment<'_>, opening: &Opening) -> Self {
        let mut tcp = Self {
            stage: Stage::Waiting,
            mac: opening.mac,
            to: opening.to,
            rx: ToUpstream::new(seg.seq, opening.window),
            tx: ToGuest::new(SeqNum(opening.isn)),
            ts_recent: None,
            sack: false,
            outbound: true,
            heard: opening.now,
            carried: opening.now,
            probes: 0,
            guest_idle: 0,
            own_mss: opening.mss,
            challenges: (0, 0),
            path_mss: opening.path_mss,
            class: opening.class,
        };
        tcp.take_syn(seg);
        tcp
    }

    /// A client on the host's side; our SYN follows with the first flush.
    pub(crate) fn from_host(opening: &Opening) -> Self {
        let mut tx = ToGuest::new(SeqNum(opening.isn));
        tx.syn_due = true;
        Self {
            stage: Stage::SynSent,
            mac: opening.mac,
            to: None,
            rx: ToUpstream::new(SeqNum(0), opening.window),
            tx,
            ts_recent: None,
            sack: false,
            outbound: false,
            heard: opening.now,
            carried: opening.now,
            probes: 0,
            guest_idle: 0,
            own_mss: opening.mss,
            challenges: (0, 0),
            path_mss: opening.path_mss,
            class: opening.class,
        }
    }

    /// The host begins to connect.
    pub(crate) fn connecting(&mut self, now: Instant) {
        if self.stage == Stage::Waiting {
            self.stage = Stage::Connecting;
            self.carried = now;
        }
    }

    /// The host's connect() succeeded.
    pub(crate) fn connected(&mut self) {
        if self.stage == Stage::Connecting {
            self.stage = Stage::SynReceived;
            self.tx.syn_due = true;
        }
    }

    /// Whether the host's connect() is under way.
    pub(crate) fn is_connecting(&self) -> bool {
        self.stage == Stage::Connecting
    }

    /// Whether our SYN still waits for the guest's MAC address.
    pub(crate) fn needs_neighbour(&self) -> bool {
        self.mac.is_none()
    }

    /// How long our SYN has been waiting for it.
    pub(crate) const fn waited(&self, now: Instant) -> Duration {
        now.since(self.heard)
    }

    /// The guest's MAC address is being asked for: the SYN waits until `at` at the latest.
    pub(crate) const fn await_neighbour(&mut self, at: Instant) {
        self.tx.retry_at(at);
    }

    /// The number that a RST must acknowledge to refuse the guest's SYN.
    pub(crate) const fn behind_syn(&self) -> SeqNum {
        self.rx.next()
    }

    fn take_syn(&mut self, seg: &Segment<'_>) {
        let options = &seg.options;
        self.ts_recent = options.timestamps.map(|ts| ts.value);
        self.sack = options.sack_permitted;
        self.tx.negotiate(seg, self.path_mss, self.ts_recent.is_some(), options.window_scale);
        if options.window_scale.is_some() {
            self.rx.scale();
        }
    }

    /// Segments while the host's connect() is under way: the guest may repeat its SYN, begin anew, or give up.
    pub(super) fn while_connecting<U: Upstream>(
        &mut self,
        seg: &Segment<'_>,
        mac: MacAddr,
        ctx: &mut Ctx<'_, U>,
    ) -> Step {
        if self.mac != Some(mac) {
            // Nothing but the first number says so far whose connection this is.
            ctx.counters.drop(DropReason::OutOfWindow);
        } else if seg.flags.rst() {
            if seg.seq == self.rx.next() {
                if self.has_socket() {
                    ctx.up.tcp_reset(ctx.id);
                }
                return Step::Finished;
            }
            ctx.counters.drop(DropReason::OutOfWindow);
        } else if seg.flags.syn() && seg.seq.plus(1) != self.rx.next() {
            // The guest has begun anew from the same port; the connect() serves the new attempt as well.
            self.rx = ToUpstream::new(seg.seq, self.rx.first_window());
            self.take_syn(seg);
        }
        Step::Continue
    }

    /// RFC 9293 §3.10.7.3, SYN-SENT.
    pub(super) fn answer_to_syn<U: Upstream>(
        &mut self,
        seg: &Segment<'_>,
        mac: MacAddr,
        ctx: &mut Ctx<'_, U>,
    ) -> Step {
        if seg.flags.ack() && (seg.ack != self.tx.first() || self.tx.next() == self.tx.isn()) {
            // Of an earlier connection, which the guest may still believe in: reset it, so that our next SYN is heard.
            ctx.counters.drop(DropReason::OutOfWindow);
            return if seg.flags.rst() { Step::Continue } else { Step::Reject(seg.ack) };
        }
        if seg.flags.rst() {
            if !seg.flags.ack() {
                return Step::Continue;
            }
            ctx.counters.tcp_refused += 1;
            ctx.up.tcp_reset(ctx.id);
            return Step::Finished;
        }
        if !(seg.flags.syn() && seg.flags.ack()) {
            ctx.counters.drop(DropReason::OutOfWindow);
            return Step::Continue;
        }
        self.rx = ToUpstream::new(seg.seq, self.rx.first_window());
        self.take_syn(seg);
        self.mac = Some(mac);
        self.stage = Stage::Open;
        self.hear(ctx.now);
        self.tx.opened(ctx.now);
        self.rx.ack_now();
        Step::Continue
    }

    /// Sends our SYN or SYN-ACK.
    pub(super) fn send_syn<D: Device>(&mut self, now: Instant, wire: &mut Wire<'_, '_, D>) {
        let answering = self.stage == Stage::SynReceived;
        let mut options = Written::new();
        options.mss(self.own_mss);
        // From the host's side everything is offered; an answer holds what the guest offered.
        if !answering || self.sack {
            options.sack_permitted();
        }
        if !answering || self.ts_recent.is_some() {
            let echo = self.ts_recent.unwrap_or(0);
            options.timestamps(Timestamps { value: self.tx.timestamp(now), echo });
        }
        if !answering || self.rx.is_scaled() {
            options.window_scale(WINDOW_SHIFT);
        }
        let (flags, ack) = if answering {
            (Flags::SYN.and(Flags::ACK), self.rx.acked_now())
        } else {
            (Flags::SYN, SeqNum(0))
        };
        let window = self.rx.first_window(); // RFC 7323 §2.2: never scaled in a SYN
        let segment = Out { seq: self.tx.isn(), ack, flags, window };
        match wire.send_with(&segment, options.bytes(), 0, None) {
            Ok(()) => self.tx.syn_sent(now),
            Err(_) => self.tx.syn_due = true,
        }
    }
}
