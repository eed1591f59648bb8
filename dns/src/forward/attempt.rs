//! Attempts: one question at one server. Named by the question's place and generation, so that what belongs to an old
//! one misses.

use super::health::Server;
use crate::message::Transport;
use core::net::SocketAddr;
use core::time::Duration;

/// One attempt at one server. Fits an epoll token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    pub(super) index: u32,
    pub(super) generation: u16,
    pub(super) number: u8,
}

impl AttemptId {
    /// As a number below 2^56.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.index) << 24 | u64::from(self.generation) << 8 | u64::from(self.number)
    }

    /// From such a number. Any other number names no attempt.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        let [0, i0, i1, i2, i3, g0, g1, number] = bits.to_be_bytes() else { return None };
        Some(Self {
            index: u32::from_be_bytes([i0, i1, i2, i3]),
            generation: u16::from_be_bytes([g0, g1]),
            number,
        })
    }
}

/// An attempt whose socket is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) number: u8,
    pub(super) server: Server,
    pub(super) transport: Transport,
    pub(super) id: u16,
    pub(super) sent: Duration,
    /// How often its message may still be repeated, and when next.
    pub(super) repeats: u8,
    pub(super) again: Duration,
    /// How long its server has.
    pub(super) until: Duration,
    /// That time is over.
    pub(super) missed: bool,
}

impl Attempt {
    /// What its server is known by.
    pub(super) const fn key(&self) -> (SocketAddr, Transport) {
        (self.server.address, self.transport)
    }

    /// Whether it is worth waiting for when there is something else in hand.
    pub(super) const fn is_awaited(&self) -> bool {
        !self.missed && !self.server.standing.is_dead()
    }

    /// Whether its message is to be repeated at all.
    pub(super) const fn repeats(&self) -> bool {
        self.repeats > 0 && !self.missed
    }
}
