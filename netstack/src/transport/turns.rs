//! Connections that wait for their turn to be made.
//!
//! Most calls to connect() take microseconds, but one for a destination to which nearly all ports are taken takes
//! milliseconds, and the loop does nothing else meanwhile. So the host says when it has connected enough for the moment
//! ([`Upstream::may_connect`](crate::upstream::Upstream::may_connect)), and SYNs wait here: the guests' addresses take
//! turns, each with the one that has waited longest; who has too many under way is passed over ([`super::dials`]). At
//! most [`MOST`] wait. For another one the longest waiting of whoever has most is forgotten, as if its SYN had been
//! lost: it comes again.
//!
//! Where the host makes few connections at once, what waits may be mostly for black holes. So there the one that has
//! come last goes first, and no more wait than there are places: whoever is new is served before what is stuck.

use crate::flow::FlowId;
use core::net::IpAddr;
use std::collections::{BTreeMap, VecDeque};

/// Connections that wait at once.
pub(crate) const MOST: usize = 1024;

/// The waiting.
#[derive(Debug)]
pub(crate) struct Turns {
    most: usize,
    /// Of one guest's, the one that came last goes first.
    latest_first: bool,
    by_guest: BTreeMap<IpAddr, VecDeque<FlowId>>,
    /// Whose turn it is, next first. Each guest in `by_guest` stands here once.
    round: VecDeque<IpAddr>,
    count: usize,
}

impl Turns {
    /// For a host that makes `limit` connections at once, if there is such a bound.
    pub(crate) fn new(limit: Option<u32>) -> Self {
        let most = limit.map_or(MOST, |limit| usize::try_from(limit.max(1)).unwrap_or(MOST).min(MOST));
        Self {
            most,
            latest_first: limit.is_some(),
            by_guest: BTreeMap::new(),
            round: VecDeque::new(),
            count: 0,
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// `flow` of `guest` waits. Returns the one that is to be forgotten for it, if there are too many.
    pub(crate) fn wait(&mut self, guest: IpAddr, flow: FlowId) -> Option<FlowId> {
        let victim = if self.count >= self.most { self.most() } else { None };
        let waiting = self.by_guest.entry(guest).or_default();
        if waiting.is_empty() {
            self.round.push_back(guest);
        }
        waiting.push_back(flow);
        self.count += 1;
        victim
    }

    /// Who is next, of the guests that may have one.
    pub(crate) fn next(&mut self, may: impl Fn(IpAddr) -> bool) -> Option<FlowId> {
        let at = self.round.iter().position(|&guest| may(guest))?;
        let guest = self.round.remove(at)?;
        let waiting = self.by_guest.get_mut(&guest)?;
        let flow = if self.latest_first { waiting.pop_back() } else { waiting.pop_front() };
        if waiting.is_empty() {
            self.by_guest.remove(&guest);
        } else {
            self.round.push_back(guest);
        }
        self.count -= usize::from(flow.is_some());
        flow
    }

    /// Takes out the longest waiting of whoever has most. Looks at all guests.
    fn most(&mut self) -> Option<FlowId> {
        let (guest, waiting) = self.by_guest.iter_mut().max_by_key(|(_, waiting)| waiting.len())?;
        let (guest, flow) = (*guest, waiting.pop_front());
        if waiting.is_empty() {
            self.by_guest.remove(&guest);
            self.round.retain(|other| *other != guest);
        }
        self.count -= usize::from(flow.is_some());
        flow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 2, last])
    }

    fn flow(n: usize) -> FlowId {
        FlowId::new(u32::try_from(n).unwrap(), 0)
    }

    #[test]
    fn guests_take_turns() {
        let mut turns = Turns::new(None);
        for n in 0..100 {
            assert_eq!(turns.wait(guest(1), flow(n)), None);
        }
        turns.wait(guest(2), flow(500));
        turns.wait(guest(2), flow(501));
        let order: Vec<_> = std::iter::from_fn(|| turns.next(|_| true)).map(FlowId::index).collect();
        assert_eq!(order[..5], [0, 500, 1, 501, 2]);
        assert_eq!(order.len(), 102);
        assert!(turns.is_empty() && turns.by_guest.is_empty());
    }

    #[test]
    fn where_few_may_be_made_at_once_the_latest_goes_first_and_few_wait() {
        let mut turns = Turns::new(Some(3));
        let forgotten: Vec<_> = (0..5).map(|n| turns.wait(guest(1), flow(n))).collect();
        assert_eq!(forgotten, [None, None, None, Some(flow(0)), Some(flow(1))]);
        let order: Vec<_> = std::iter::from_fn(|| turns.next(|_| true)).collect();
        assert_eq!(order, [4, 3, 2].map(flow));
    }

    #[test]
    fn who_may_not_is_passed_over_and_keeps_the_place() {
        let mut turns = Turns::new(None);
        for (n, last) in [(0, 1), (1, 2), (2, 1), (3, 3)] {
            turns.wait(guest(last), flow(n));
        }
        assert_eq!(turns.next(|of| of != guest(1)), Some(flow(1)));
        assert_eq!(turns.next(|of| of != guest(1)), Some(flow(3)));
        assert_eq!(turns.next(|of| of != guest(1)), None);
        assert_eq!(turns.next(|_| true), Some(flow(0)));
    }

    #[test]
    fn whoever_has_most_loses_the_longest_waiting() {
        let mut turns = Turns::new(None);
        turns.wait(guest(2), flow(5000));
        for n in 0..3000 {
            let forgotten = turns.wait(guest(1), flow(n));
            assert_eq!(forgotten, n.checked_sub(MOST - 1).map(flow));
        }
        assert_eq!(turns.count, MOST);
        let left: Vec<_> = std::iter::from_fn(|| turns.next(|_| true)).collect();
        assert_eq!((left.len(), left[0]), (MOST, flow(5000)));
        // One each, of as many guests as there are places.
        for n in 0..3000_u16 {
            turns.wait(IpAddr::from([10, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]]), flow(n.into()));
            assert!(turns.count <= MOST && turns.round.len() == turns.by_guest.len());
        }
    }
}
