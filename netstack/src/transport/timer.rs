//! Deadlines of all flows: a binary heap with one entry a flow, moved in place.
//!
//! A flow knows its own timers (retransmission, delayed acknowledgement, keepalive, expiry) and tells only the
//! earliest. Deadlines move at nearly every packet; with one movable entry a flow the heap never holds stale ones, so
//! its size is the number of flows and an idle engine has nothing to wake up for but real deadlines.

use crate::clock::Instant;
use crate::flow::FlowId;

const NOWHERE: u32 = u32::MAX;

/// The earliest deadline of each flow that has one.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// A binary min-heap.
    heap: Vec<(Instant, FlowId)>,
    /// By flow index: its place in the heap.
    place: Vec<u32>,
}

impl Timers {
    /// Sets, moves or removes the deadline of `id`.
    pub(crate) fn set(&mut self, id: FlowId, at: Option<Instant>) {
        if self.place.len() <= id.index() {
            self.place.resize(id.index() + 1, NOWHERE);
        }
        let place = self.place.get(id.index()).copied().unwrap_or(NOWHERE);
        match (place, at) {
            (NOWHERE, None) => {}
            (NOWHERE, Some(at)) => {
                self.heap.push((at, id));
                self.up(self.heap.len() - 1);
            }
            (place, Some(at)) => {
                let place = place as usize;
                let Some(entry) = self.heap.get_mut(place) else { return };
                if *entry == (at, id) {
                    return;
                }
                *entry = (at, id);
                self.down(place);
                self.up(place);
            }
            (place, None) => self.remove(place as usize),
        }
    }

    /// The earliest deadline of all.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// Takes a flow whose deadline is at or before `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<FlowId> {
        let (at, id) = *self.heap.first()?;
        if at > now {
            return None;
        }
        self.remove(0);
        Some(id)
    }

    fn remove(&mut self, place: usize) {
        if place >= self.heap.len() {
            return;
        }
        let (_, gone) = self.heap.swap_remove(place);
        self.note(gone, NOWHERE);
        if place < self.heap.len() {
            self.down(place);
            self.up(place);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "flow indices are u32, and one entry a flow")]
    fn settle(&mut self, place: usize) {
        if let Some(&(_, id)) = self.heap.get(place) {
            self.note(id, place as u32);
        }
    }

    fn note(&mut self, id: FlowId, place: u32) {
        if let Some(slot) = self.place.get_mut(id.index()) {
            *slot = place;
        }
    }

    fn at(&self, place: usize) -> Option<Instant> {
        self.heap.get(place).map(|(at, _)| *at)
    }

    fn up(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.at(parent) <= self.at(place) {
                break;
            }
            self.heap.swap(parent, place);
            self.settle(place);
            place = parent;
        }
        self.settle(place);
    }

    fn down(&mut self, mut place: usize) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let child = match (self.at(left), self.at(right)) {
                (None, _) => break,
                (Some(l), Some(r)) if r < l => right,
                _ => left,
            };
            if self.at(place) <= self.at(child) {
                break;
            }
            self.heap.swap(place, child);
            self.settle(place);
            place = child;
        }
        self.settle(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_agrees_with_a_sorted_map() {
        proptest::proptest!(|(ops in proptest::collection::vec((0u32..20, proptest::option::of(0u64..50)), 0..200))| {
            let mut timers = Timers::default();
            let mut model = BTreeMap::new();
            for (index, at) in ops {
                let id = FlowId::new(index, 0);
                timers.set(id, at.map(Instant::from_micros));
                match at {
                    Some(at) => { model.insert(index, at); }
                    None => { model.remove(&index); }
                }
                proptest::prop_assert_eq!(timers.next().map(Instant::as_micros), model.values().min().copied());
            }
            let mut last = 0;
            while let Some(id) = timers.pop(Instant::from_micros(u64::MAX)) {
                let at = model.remove(&u32::try_from(id.index()).unwrap()).expect("set and not yet popped");
                proptest::prop_assert!(at >= last);
                last = at;
            }
            proptest::prop_assert!(model.is_empty());
        });
    }

    #[test]
    fn nothing_pops_early() {
        let mut timers = Timers::default();
        timers.set(FlowId::new(3, 1), Some(Instant::from_micros(10)));
        assert_eq!(timers.pop(Instant::from_micros(9)), None);
        assert_eq!(timers.pop(Instant::from_micros(10)), Some(FlowId::new(3, 1)));
        assert_eq!(timers.next(), None);
    }
}
