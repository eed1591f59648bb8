//! The questions under way, in places that are used again: addressed by index and generation.

use super::attempt::{Attempt, AttemptId};
use super::question::Pending;
use crate::message;
use core::net::IpAddr;

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
