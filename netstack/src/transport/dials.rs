//! Connections that the host is making, where there may be so many at once and no more
//! ([`crate::config::TcpConfig::max_in_flight`]).
//!
//! A connect() to where nobody answers takes half a minute to fail. So whoever asks for many of them must not take all
//! the places: of the places one guest address may have seven times as many as are free, as with ports
//! ([`super::destinations`]). What finds no place waits for its turn ([`super::turns`]), and when somebody waits, what
//! has taken [`PATIENCE`] makes room: the oldest of whoever has most is forgotten, as if its SYN had been lost. It
//! comes again. So a place is had within that time however many black holes there are, and a peer that is merely far
//! away is reached unless others press.
//!
//! Nothing is kept where there is no bound.

use crate::clock::Instant;
use crate::flow::FlowId;
use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// What has been under way for so long makes room: a guest repeats its SYN after as much (RFC 6298 §2.1).
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// How many times what is free one guest may have.
const SHARE: usize = 7;

/// The connections that are being made.
#[derive(Debug, Default)]
pub(crate) struct Dials {
    limit: Option<usize>,
    /// When they were begun, oldest first.
    begun: VecDeque<(Instant, FlowId, IpAddr)>,
}

impl Dials {
    pub(crate) fn new(limit: Option<u32>) -> Self {
        // One at least, or there would be none ever.
        let limit = limit.map(|limit| usize::try_from(limit.max(1)).unwrap_or(usize::MAX));
        Self { limit, begun: VecDeque::new() }
    }

    /// Whether one more of `guest` may begin.
    pub(crate) fn admits(&self, guest: IpAddr) -> bool {
        let Some(limit) = self.limit else { return true };
        let free = limit.saturating_sub(self.begun.len());
        let own = self.begun.iter().filter(|(.., of)| *of == guest).count();
        free > 0 && own < SHARE.saturating_mul(free)
    }

    /// One of `guest` begins.
    pub(crate) fn begin(&mut self, now: Instant, flow: FlowId, guest: IpAddr) {
        if self.limit.is_some() {
            self.begun.push_back((now, flow, guest));
        }
    }

    /// It is connected, or will not be.
    pub(crate) fn end(&mut self, flow: FlowId) {
        if let Some(at) = self.begun.iter().position(|(_, begun, _)| *begun == flow) {
            self.begun.remove(at);
        }
    }

    /// Who makes room next, and from when on.
    pub(crate) fn victim(&self) -> Option<(Instant, FlowId)> {
        let mut counts = BTreeMap::<IpAddr, usize>::new();
        self.begun.iter().for_each(|(.., guest)| *counts.entry(*guest).or_default() += 1);
        let most = counts.values().copied().max()?;
        let mut candidates = self.begun.iter().filter(|(.., guest)| counts.get(guest) == Some(&most));
        candidates.next().map(|(began, flow, _)| (*began + PATIENCE, *flow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 127, last])
    }

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    /// As many as a guest gets, from number `first` on.
    fn fill(dials: &mut Dials, last: u8, first: u32) -> u32 {
        let mut count = 0;
        while dials.admits(guest(last)) {
            assert!(count < 1000);
            dials.begin(at(count.into()), FlowId::new(first + count, 0), guest(last));
            count += 1;
        }
        count
    }

    #[test]
    fn whoever_takes_all_he_gets_leaves_places_for_others() {
        let mut dials = Dials::new(Some(128));
        assert_eq!(fill(&mut dials, 2, 0), 112);
        assert_eq!(fill(&mut dials, 3, 200), 14);
        assert!(dials.admits(guest(4)) && !dials.admits(guest(2)));
        (0..112).for_each(|n| dials.end(FlowId::new(n, 0)));
        assert_eq!(dials.begun.len(), 14);
    }

    #[test]
    fn the_smallest_bounds_let_one_through() {
        for limit in [0, 1, 2] {
            let mut dials = Dials::new(Some(limit));
            assert_eq!(fill(&mut dials, 2, 0), limit.max(1));
        }
    }

    #[test]
    fn without_a_bound_nothing_is_kept() {
        let mut dials = Dials::new(None);
        dials.begin(at(0), FlowId::new(1, 0), guest(2));
        assert!(dials.admits(guest(2)) && dials.begun.is_empty() && dials.victim().is_none());
    }

    #[test]
    fn the_oldest_of_whoever_has_most_makes_room() {
        let mut dials = Dials::new(Some(10));
        for (n, of) in [(0, 3), (1, 2), (2, 2), (3, 3), (4, 2)] {
            dials.begin(at(n.into()), FlowId::new(n, 0), guest(of));
        }
        assert_eq!(dials.victim(), Some((at(1) + PATIENCE, FlowId::new(1, 0))));
        dials.end(FlowId::new(1, 0));
        dials.end(FlowId::new(2, 0));
        assert_eq!(dials.victim(), Some((at(0) + PATIENCE, FlowId::new(0, 0))));
    }
}
