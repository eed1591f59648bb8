//! Flows from the host's side that wait until it is known where their guest is.
//!
//! They wait by address, so that a station which tells where it is wakes its own and no others. A flow is entered once,
//! when it begins; its deadline is its own. What has ended meanwhile is taken out from the front when the next one
//! comes, for those of one address give up in the order in which they came. At most [`MOST`] wait; a flow beyond looks
//! again with its own timer.

use crate::flow::FlowId;
use core::net::IpAddr;
use std::collections::{BTreeMap, VecDeque};

/// Flows that wait at once, for all addresses.
pub(crate) const MOST: usize = 1024;

/// The flows, by the address that they wait for.
#[derive(Debug, Default)]
pub(crate) struct Unresolved {
    by_address: BTreeMap<IpAddr, VecDeque<FlowId>>,
    count: usize,
}

impl Unresolved {
    /// `flow` waits for `ip`. `lives` tells of earlier ones whether they still do.
    pub(crate) fn add(&mut self, ip: IpAddr, flow: FlowId, mut lives: impl FnMut(FlowId) -> bool) {
        if self.count >= MOST {
            self.by_address.retain(|_, waiting| {
                waiting.retain(|&flow| lives(flow));
                !waiting.is_empty()
            });
            self.count = self.by_address.values().map(VecDeque::len).sum();
        }
        if self.count >= MOST {
            return;
        }
        let waiting = self.by_address.entry(ip).or_default();
        while waiting.front().is_some_and(|&flow| !lives(flow)) {
            waiting.pop_front();
            self.count -= 1;
        }
        waiting.push_back(flow);
        self.count += 1;
    }

    /// All addresses that are waited for.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.by_address.keys().copied().collect()
    }

    /// What has waited for `ip`, the longest first.
    pub(crate) fn take(&mut self, ip: IpAddr) -> VecDeque<FlowId> {
        let waiting = self.by_address.remove(&ip).unwrap_or_default();
        self.count -= waiting.len();
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u32) -> IpAddr {
        IpAddr::from((0x0a00_0200 + last).to_be_bytes())
    }

    #[test]
    fn an_address_wakes_its_own() {
        let mut all = Unresolved::default();
        for n in 0..10 {
            all.add(ip(n % 2), FlowId::new(n, 0), |_| true);
        }
        assert_eq!(all.take(ip(1)).len(), 5);
        assert_eq!(all.take(ip(1)).len(), 0);
        assert_eq!(all.take(ip(0)).front(), Some(&FlowId::new(0, 0)));
        assert_eq!(all.count, 0);
    }

    #[test]
    fn what_has_ended_takes_no_room() {
        let mut all = Unresolved::default();
        let lives = |flow: FlowId| flow.index() >= 5000;
        for n in 0..6000 {
            all.add(ip(n % 7), FlowId::new(n, 0), lives);
            assert!(all.count <= MOST);
        }
        let left: Vec<_> = (0..7).flat_map(|n| all.take(ip(n))).collect();
        assert_eq!(left.iter().filter(|flow| flow.index() >= 5000).count(), 1000);
        let mut all = Unresolved::default();
        for n in 0..3000 {
            all.add(ip(1), FlowId::new(n, 0), |_| true);
        }
        assert_eq!(all.count, MOST);
    }
}
