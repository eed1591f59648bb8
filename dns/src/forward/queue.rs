//! Questions that wait for a place, queued fairly by who asks.
//!
//! A question under way costs sockets, so that there are only so many places ([`super::Policy::max_pending`]). One
//! source alone may have them all. Beyond, questions wait here, each source's in a line of its own. Whoever has the
//! fewest under way is next; of equals the one whose last turn is longest ago. Who has fewer than somebody else by more
//! than one need not wait for a place: the other's oldest question, the likeliest to stay without an answer, goes back
//! to the end of its line.
//!
//! What waits, and who waits with another for the same answer, is bounded in bytes. Beyond, the source that has most of
//! them loses its oldest question, without a word: its client asks again, which it would not after an error.

use crate::message::Transport;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A question that waits.
#[derive(Debug)]
pub(super) struct Queued<C> {
    pub(super) client: C,
    pub(super) source: IpAddr,
    pub(super) transport: Transport,
    pub(super) query: Vec<u8>,
    pub(super) servers: Vec<SocketAddr>,
    /// When it was asked.
    pub(super) since: Duration,
}

impl<C> Queued<C> {
    fn cost(&self) -> usize {
        size_of::<Self>() + self.query.len() + size_of_val(self.servers.as_slice())
    }
}

/// What a source has.
#[derive(Debug)]
struct Source<C> {
    /// Questions under way.
    under_way: usize,
    /// What its questions cost that are not.
    bytes: usize,
    line: VecDeque<Queued<C>>,
    /// When it was its turn last, counted in turns.
    turn: u64,
}

impl<C> Source<C> {
    /// Its place among those with a line, if it has one.
    fn in_line(&self, source: IpAddr) -> Option<(usize, u64, IpAddr)> {
        (!self.line.is_empty()).then_some((self.under_way, self.turn, source))
    }
}

impl<C> Default for Source<C> {
    fn default() -> Self {
        Self { under_way: 0, bytes: 0, line: VecDeque::new(), turn: 0 }
    }
}

/// All sources.
#[derive(Debug)]
pub(super) struct Queue<C> {
    sources: BTreeMap<IpAddr, Source<C>>,
    /// Sources with a line, by what they have under way and by their last turn; the first is next.
    turns: BTreeSet<(usize, u64, IpAddr)>,
    turn: u64,
    /// Sources by what they have under way, and by what their waiting questions cost.
    busiest: BTreeSet<(usize, IpAddr)>,
    longest: BTreeSet<(usize, IpAddr)>,
    bytes: usize,
}

impl<C> Default for Queue<C> {
    fn default() -> Self {
        Self {
            sources: BTreeMap::new(),
            turns: BTreeSet::new(),
            turn: 0,
            busiest: BTreeSet::new(),
            longest: BTreeSet::new(),
            bytes: 0,
        }
    }
}

impl<C> Queue<C> {
    /// Changes what a source has, and its place in the orders.
    fn change<R>(&mut self, source: IpAddr, change: impl FnOnce(&mut Source<C>) -> R) -> R {
        let state = self.sources.entry(source).or_default();
        let (under_way, bytes, in_line) = (state.under_way, state.bytes, state.in_line(source));
        let result = change(state);
        let now = (state.under_way, state.bytes);
        let stands = state.in_line(source);
        if now == (0, 0) && stands.is_none() {
            self.sources.remove(&source);
        }
        if in_line != stands {
            in_line.map(|in_line| self.turns.remove(&in_line));
            self.turns.extend(stands);
        }
        for (order, before, now) in [(&mut self.busiest, under_way, now.0), (&mut self.longest, bytes, now.1)]
        {
            if before != now {
                order.remove(&(before, source));
                if now > 0 {
                    order.insert((now, source));
                }
            }
        }
        self.bytes = self.bytes + now.1 - bytes;
        result
    }

    /// A question of this source is under way.
    pub(super) fn begun(&mut self, source: IpAddr) {
        self.change(source, |state| state.under_way += 1);
    }

    /// One is not any more.
    pub(super) fn ended(&mut self, source: IpAddr) {
        self.change(source, |state| state.under_way = state.under_way.saturating_sub(1));
    }

    /// A question of this source waits elsewhere, at this cost.
    pub(super) fn held(&mut self, source: IpAddr, cost: usize) {
        self.change(source, |state| state.bytes += cost);
    }

    /// It does not any more.
    pub(super) fn released(&mut self, source: IpAddr, cost: usize) {
        self.change(source, |state| state.bytes = state.bytes.saturating_sub(cost));
    }

    /// A question waits from now on.
    pub(super) fn push(&mut self, queued: Queued<C>) {
        self.change(queued.source, |state| {
            state.bytes += queued.cost();
            state.line.push_back(queued);
        });
    }

    /// The oldest question of whose turn it is, to look at.
    pub(super) fn peek(&self) -> Option<&Queued<C>> {
        let (.., source) = self.turns.first()?;
        self.sources.get(source)?.line.front()
    }

    /// The oldest question of whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Queued<C>> {
        let (.., source) = *self.turns.first()?;
        self.turn += 1;
        let turn = self.turn;
        self.change(source, |state| state.turn = turn);
        self.drop_oldest(source)
    }

    /// The oldest question in the line of a source.
    pub(super) fn drop_oldest(&mut self, source: IpAddr) -> Option<Queued<C>> {
        self.change(source, |state| {
            let queued = state.line.pop_front()?;
            state.bytes = state.bytes.saturating_sub(queued.cost());
            Some(queued)
        })
    }

    /// Whether nobody waits in line.
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// The source whose waiting questions cost most, if all together cost more than `bound`.
    pub(super) fn too_long(&self, bound: usize) -> Option<IpAddr> {
        self.longest.last().filter(|_| self.bytes > bound).map(|(_, source)| *source)
    }

    /// Who has more under way than `source`, so that one of it is owed.
    pub(super) fn hog(&self, source: IpAddr) -> Option<IpAddr> {
        let own = self.sources.get(&source).map_or(0, |state| state.under_way);
        self.busiest.last().filter(|(count, _)| *count > own + 1).map(|(_, hog)| *hog)
    }

    #[cfg(test)]
    pub(super) fn is_clear(&self) -> bool {
        self.sources.is_empty()
            && self.turns.is_empty()
            && self.busiest.is_empty()
            && self.longest.is_empty()
            && self.bytes == 0
    }
}
