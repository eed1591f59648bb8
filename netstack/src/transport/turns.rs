//! Connections that wait for their turn to be made.
//!
//! Most calls to connect() take microseconds, but one for a destination to which nearly all ports are taken takes
//! milliseconds, and the loop does nothing else meanwhile. So the host says when it has connected enough for the moment
//! ([`Upstream::may_connect`](crate::upstream::Upstream::may_connect)), and SYNs wait here: the guests' addresses take
//! turns, each with the one that has waited longest. At most [`MOST`] wait. For another one the longest waiting of
//! whoever has most is forgotten, as if its SYN had been lost: it comes again.

use crate::flow::FlowId;
use core::net::IpAddr;
use std::collections::{BTreeMap, VecDeque};

/// Connections that wait at once.
pub(crate) const MOST: usize = 1024;

/// The waiting.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    by_guest: BTreeMap<IpAddr, VecDeque<FlowId>>,
    /// Whose turn it is, next first. Each guest in `by_guest` stands here once.
    round: VecDeque<IpAddr>,
    count: usize,
}

impl Turns {
    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// `flow` of `guest` waits. Returns the one that is to be forgotten for it, if there are too many.
    pub(crate) fn wait(&mut self, guest: IpAddr, flow: FlowId) -> Option<FlowId> {
        let victim = if self.count >= MOST { self.most() } else { None };
        let waiting = self.by_guest.entry(guest).or_default();
        if waiting.is_empty() {
            self.round.push_back(guest);
        }
        waiting.push_back(flow);
        self.count += 1;
        victim
    }

    /// Who is next.
    pub(crate) fn next(&mut self) -> Option<FlowId> {
        let guest = self.round.pop_front()?;
        let waiting = self.by_guest.get_mut(&guest)?;
        let flow = waiting.pop_front();
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
        let mut turns = Turns::default();
        for n in 0..100 {
            assert_eq!(turns.wait(guest(1), flow(n)), None);
        }
        turns.wait(guest(2), flow(500));
        turns.wait(guest(2), flow(501));
        let order: Vec<_> = std::iter::from_fn(|| turns.next()).map(FlowId::index).collect();
        assert_eq!(order[..5], [0, 500, 1, 501, 2]);
        assert_eq!(order.len(), 102);
        assert!(turns.is_empty() && turns.by_guest.is_empty());
    }

    #[test]
    fn whoever_has_most_loses_the_longest_waiting() {
        let mut turns = Turns::default();
        turns.wait(guest(2), flow(5000));
        for n in 0..3000 {
            let forgotten = turns.wait(guest(1), flow(n));
            assert_eq!(forgotten, n.checked_sub(MOST - 1).map(flow));
        }
        assert_eq!(turns.count, MOST);
        let left: Vec<_> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!((left.len(), left[0]), (MOST, flow(5000)));
        // One each, of as many guests as there are places.
        for n in 0..3000_u16 {
            turns.wait(IpAddr::from([10, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]]), flow(n.into()));
            assert!(turns.count <= MOST && turns.round.len() == turns.by_guest.len());
        }
    }
}
