//! Attempts, and the slab of questions that they belong to: addressed by index and generation, so that what belongs to an
//! old one misses.

use super::health::Server;
use super::question::Pending;
use crate::answer::Transport;
use crate::message;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

/// One attempt at one server. Fits an epoll token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    index: u32,
    generation: u16,
    number: u8,
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

/// All questions.
#[derive(Debug)]
pub(super) struct Slab<C> {
    slots: Vec<Slot<C>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Slot<C> {
    generation: u16,
    pending: Option<Pending<C>>,
}

impl<C> Default for Slab<C> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<C> Slab<C> {
    pub(super) fn insert(&mut self, pending: Pending<C>) -> usize {
        let index = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(index) {
            Some(slot) => slot.pending = Some(pending),
            None => self.slots.push(Slot { generation: 0, pending: Some(pending) }),
        }
        index
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<Pending<C>> {
        let slot = self.slots.get_mut(index)?;
        let pending = slot.pending.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(pending)
    }

    pub(super) fn get(&self, index: usize) -> Option<&Pending<C>> {
        self.slots.get(index)?.pending.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Pending<C>> {
        self.slots.get_mut(index)?.pending.as_mut()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pending<C>> {
        self.slots.iter_mut().filter_map(|slot| slot.pending.as_mut())
    }

    /// The oldest question of a source that nobody else waits for.
    pub(super) fn oldest_of(&self, source: IpAddr) -> Option<usize> {
        let all = self.slots.iter().enumerate();
        let of_source = all.filter_map(|(index, slot)| {
            let pending = slot.pending.as_ref().filter(|pending| pending.waiters.is_empty())?;
            let asker = pending.asker.as_ref().filter(|asker| asker.source == source)?;
            (!pending.has_begun()).then_some((asker.since, index))
        });
        of_source.min().map(|(_, index)| index)
    }

    /// The question of an attempt that is open, and that attempt.
    pub(super) fn find(&self, attempt: AttemptId) -> Option<(usize, Attempt)> {
        let index = usize::try_from(attempt.index).ok()?;
        let slot = self.slots.get(index).filter(|slot| slot.generation == attempt.generation)?;
        let mut open = slot.pending.as_ref()?.open.iter();
        open.find(|open| open.number == attempt.number).map(|found| (index, *found))
    }

    /// The name of an attempt of a question.
    pub(super) fn name(&self, index: usize, number: u8) -> Option<AttemptId> {
        let generation = self.slots.get(index)?.generation;
        Some(AttemptId { index: u32::try_from(index).ok()?, generation, number })
    }

    /// What an attempt sends: the query with the id of its own.
    pub(super) fn message(&self, index: usize, id: u16) -> Option<Vec<u8>> {
        let mut message = self.get(index)?.query.clone();
        message::set_id(&mut message, id);
        Some(message)
    }
}
