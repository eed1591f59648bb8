//! What a connection tells of itself: to listings, to whoever is short of room, and when it ends.

use super::memory::Held;
use super::{Shared, Stage, Tcp};
use crate::clock::Instant;
use crate::config::TcpConfig;
use crate::flow::FlowId;
use crate::transport::{LONG, SHORT};
use core::net::IpAddr;
use core::time::Duration;

impl Tcp {
    /// The flow ends: gives back what it had of the shared pool.
    pub(crate) fn release(&self, guest: IpAddr, id: FlowId, shared: &mut Shared) {
        shared.pool += self.rx.promised();
        shared.memory.account(guest, id, self.rx.held(), Held::default());
        if shared.held() == 0 {
            shared.spare.shrink();
        }
    }

    /// What came ahead of a gap is forgotten.
    pub(crate) fn forget_early(&mut self, guest: IpAddr, id: FlowId, shared: &mut Shared) {
        let before = self.rx.held();
        self.rx.forget_early();
        shared.memory.account(guest, id, before, self.rx.held());
    }

    /// Bytes of memory held for this flow beyond its place in the table.
    pub(crate) fn held(&self) -> usize {
        size_of::<Self>() + self.rx.held().total()
    }

    /// Bytes of window that the guest may still use.
    pub(crate) fn window(&self) -> u32 {
        self.rx.under_way()
    }

    /// The name of the state, in the words of RFC 9293 as far as they fit a translator.
    pub(crate) fn state_name(&self) -> &'static str {
        match (self.stage, self.rx.guest_closed(), self.tx.upstream_closed()) {
            (Stage::Waiting | Stage::Connecting, ..) => "connecting",
            (Stage::Orphan(_), ..) => "orphan",
            (Stage::SynSent, ..) => "syn-sent",
            (Stage::SynReceived, ..) => "syn-received",
            (Stage::Open, false, false) => "established",
            (Stage::Open, true, false) => "guest-closed",
            (Stage::Open, false, true) => "upstream-closed",
            (Stage::Open, true, true) => "closing",
        }
    }

    /// When the guest last said something.
    pub(crate) const fn heard(&self) -> Instant {
        self.heard
    }

    /// When something last got on: a byte or an end taken, or acknowledged.
    pub(crate) const fn carried(&self) -> Instant {
        self.carried
    }

    /// Whether there is a socket on the host's side.
    pub(crate) fn has_socket(&self) -> bool {
        self.stage != Stage::Waiting
    }

    /// Whether the host is making the connection.
    pub(crate) fn is_dialling(&self) -> bool {
        self.stage == Stage::Connecting && self.to.is_some()
    }

    /// Until when that may take, if there is a bound.
    pub(crate) fn dial_ends(&self, config: &TcpConfig) -> Option<Instant> {
        config.connect_timeout.filter(|_| self.is_dialling()).map(|most| self.carried + most)
    }

    /// Whether it began with the guest.
    pub(crate) const fn is_outbound(&self) -> bool {
        self.outbound
    }

    /// Whether both sides are connected.
    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// How long the flow must have been silent to be ended for want of room; `None`: it is not.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match self.stage {
            Stage::Waiting | Stage::Connecting | Stage::SynSent | Stage::SynReceived => Some(SHORT),
            Stage::Open if self.rx.guest_closed() && self.tx.upstream_closed() => Some(LONG),
            Stage::Open | Stage::Orphan(_) => None,
        }
    }
}
