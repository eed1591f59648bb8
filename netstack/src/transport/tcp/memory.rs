//! What all buffers together hold, and who has a right to how much of it.
//!
//! A window is a promise of room, and all promises together are more than the memory that we want to spend: 64 KiB for
//! each flow, and there may be a quarter of a million. Nearly all promises are never taken up, so memory is given out
//! when bytes come, not when room is promised, and [`Memory`] says when there is none.
//!
//! **Shares.** A guest address may hold as much as is still free (the *dynamic threshold* of Choudhury and Hahne,
//! 1998): one alone at most half of the bound, two a third each, n of them one part in n + 1. So nobody needs to know
//! beforehand how many there will be, whoever comes late finds room, and the bound holds in every moment.
//!
//! **Two kinds.** What is *firm* came in order and is acknowledged: it is never given up. What is *early* came ahead of
//! a gap and may be forgotten at any time, even if SACK told of it (RFC 2018 §8): its sender repeats it. So firm bytes
//! push early ones out, those of the address that holds most first, and a byte that finds no room is as if the link had
//! lost it.
//!
//! The guest chooses its addresses, so they are kept in a tree: no choice makes it slow.

use crate::flow::FlowId;
use core::cmp::Reverse;
use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of memory that one flow, or one address, holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Held {
    /// For bytes that came in order.
    pub(crate) firm: usize,
    /// For bytes that came ahead of a gap.
    pub(crate) early: usize,
}

impl Held {
    pub(crate) const fn total(self) -> usize {
        self.firm + self.early
    }

    /// What is held now when `before` becomes `after` in it.
    const fn changed(self, before: Self, after: Self) -> Self {
        Self {
            firm: (self.firm + after.firm).saturating_sub(before.firm),
            early: (self.early + after.early).saturating_sub(before.early),
        }
    }
}

/// The account of all buffers.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    all: Held,
    shares: BTreeMap<IpAddr, Held>,
    /// Flows that hold early bytes.
    early: BTreeSet<(IpAddr, FlowId)>,
}

impl Memory {
    pub(crate) fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { limit, all: Held::default(), shares: BTreeMap::new(), early: BTreeSet::new() }
    }

    /// Bytes held.
    pub(crate) const fn held(&self) -> usize {
        self.all.total()
    }

    /// Whether `guest` may hold `more` for bytes in order.
    pub(crate) fn has_room(&self, guest: IpAddr, more: usize) -> bool {
        // Whoever holds less than half of the bound together with everybody else holds less than is free.
        if self.all.firm.saturating_add(more) <= self.limit / 2 {
            return true;
        }
        let free = self.limit.saturating_sub(self.all.firm.saturating_add(more));
        self.share(guest).firm.saturating_add(more) <= free
    }

    /// Whether `guest` may hold `more` for bytes ahead of a gap.
    pub(crate) fn has_room_early(&self, guest: IpAddr, more: usize) -> bool {
        if self.held().saturating_add(more) <= self.limit / 2 {
            return true;
        }
        let free = self.limit.saturating_sub(self.held().saturating_add(more));
        self.share(guest).total().saturating_add(more) <= free
    }

    fn share(&self, guest: IpAddr) -> Held {
        self.shares.get(&guest).copied().unwrap_or_default()
    }

    /// What the flow `id` of `guest` holds has changed.
    pub(crate) fn account(&mut self, guest: IpAddr, id: FlowId, before: Held, after: Held) {
        if before == after {
            return;
        }
        self.all = self.all.changed(before, after);
        let share = self.shares.entry(guest).or_default();
        *share = share.changed(before, after);
        if *share == Held::default() {
            self.shares.remove(&guest);
        }
        match (before.early, after.early) {
            (0, 1..) => drop(self.early.insert((guest, id))),
            (1.., 0) => drop(self.early.remove(&(guest, id))),
            _ => {}
        }
    }

    /// Whether early bytes must go.
    pub(crate) const fn is_over(&self) -> bool {
        self.held() > self.limit
    }

    /// The flows whose early bytes must go, so that an eighth of the bound is free: those of the address that holds
    /// most first. Asked for when the bound is reached only: looking at everybody is then paid by the eighth that has
    /// to come before the next time.
    pub(crate) fn losers(&self) -> Vec<FlowId> {
        let mut addresses: Vec<_> = self.shares.iter().filter(|(_, share)| share.early > 0).collect();
        addresses.sort_unstable_by_key(|(_, share)| Reverse(share.total()));
        let mut excess = self.held().saturating_sub(self.limit - self.limit / 8);
        let mut losers = Vec::new();
        for (guest, share) in addresses {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(share.early);
            let (first, last) = (FlowId::new(0, 0), FlowId::new(u32::MAX, u32::MAX));
            losers.extend(self.early.range((*guest, first)..=(*guest, last)).map(|(_, id)| *id));
        }
        losers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 2, 100));
    const B: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 2, 101));

    fn id(n: u32) -> FlowId {
        FlowId::new(n, 0)
    }

    fn firm(firm: usize) -> Held {
        Held { firm, early: 0 }
    }

    fn early(early: usize) -> Held {
        Held { firm: 0, early }
    }

    #[test]
    fn each_address_may_hold_as_much_as_is_free() {
        let mut memory = Memory::new(1000);
        let nothing = Held::default();
        assert!(memory.has_room(A, 500) && !memory.has_room(A, 501));
        memory.account(A, id(1), nothing, firm(500));
        assert!(!memory.has_room(A, 1));
        assert!(memory.has_room(B, 250) && !memory.has_room(B, 251), "what one leaves is there for another");
        memory.account(B, id(2), nothing, firm(250));
        assert!(!memory.has_room(B, 1) && !memory.has_room_early(B, 1));
        memory.account(A, id(1), firm(500), firm(200));
        assert!(memory.has_room(A, 175) && memory.has_room(B, 150) && !memory.has_room(B, 151));
        memory.account(A, id(1), firm(200), nothing);
        memory.account(B, id(2), firm(250), nothing);
        assert!(memory.held() == 0 && memory.shares.is_empty());
    }

    #[test]
    fn bytes_in_order_push_early_ones_out_the_largest_holder_first() {
        let mut memory = Memory::new(1000);
        let nothing = Held::default();
        memory.account(A, id(1), nothing, early(300));
        memory.account(A, id(2), nothing, early(100));
        memory.account(B, id(3), nothing, early(200));
        assert!(memory.has_room_early(B, 100) && !memory.has_room_early(B, 101), "early bytes do not push");
        assert!(memory.has_room(B, 500), "bytes in order do");
        memory.account(B, id(4), nothing, firm(150));
        assert!(!memory.is_over());
        memory.account(B, id(4), firm(150), firm(401));
        assert!(memory.is_over());
        assert_eq!(memory.losers(), [id(3)], "126 are to go, and B has most");
        memory.account(B, id(3), early(200), nothing);
        assert!(!memory.is_over());
        memory.account(B, id(4), firm(401), firm(350));
        memory.account(B, id(3), nothing, early(300));
        assert_eq!(memory.losers(), [id(3)]);
        memory.account(A, id(2), early(100), early(700));
        assert_eq!(memory.losers(), [id(1), id(2)], "all of whoever has most");
    }
}
