//! Queries under way at nameservers, each in a place with a number: the number makes its token.

use slipway_dns::forward::AttemptId;
use slipway_dns::io::exchange::Exchange;
use std::collections::HashMap;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    places: Vec<Option<Exchange>>,
    free: Vec<u32>,
    of: HashMap<AttemptId, u32>,
}

impl Exchanges {
    /// What is in that place.
    pub(super) fn at(&mut self, place: u32) -> Option<&mut Exchange> {
        self.places.get_mut(usize::try_from(place).ok()?)?.as_mut()
    }

    /// The exchange of that attempt, and its place.
    pub(super) fn of(&mut self, attempt: AttemptId) -> Option<(u32, &mut Exchange)> {
        let place = *self.of.get(&attempt)?;
        Some((place, self.at(place)?))
    }

    /// Where the next one will be.
    pub(super) fn next_place(&self) -> u32 {
        let fresh = || u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.free.last().copied().unwrap_or_else(fresh)
    }

    /// Puts one in its place.
    pub(super) fn insert(&mut self, exchange: Exchange) {
        let place = self.next_place();
        self.of.insert(exchange.attempt, place);
        match self.free.pop().and_then(|place| self.places.get_mut(usize::try_from(place).ok()?)) {
            Some(free) => *free = Some(exchange),
            None => self.places.push(Some(exchange)),
        }
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, attempt: AttemptId) -> Option<Exchange> {
        let place = self.of.remove(&attempt)?;
        self.free.push(place);
        self.places.get_mut(usize::try_from(place).ok()?)?.take()
    }
}
