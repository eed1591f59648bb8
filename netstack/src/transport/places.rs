//! Places for the conversations with the DNS address, and as many for those with each service of this process.
//!
//! A connection to the DNS address ends in this process. It costs no descriptor, so the bound that the host's sockets
//! have does not hold it; it costs memory (queries and answers that somebody has not read) and the resolver's
//! attention. So there are [`PLACES`] of them, and a newcomer who finds none free gets one: another conversation is
//! reset for it. With a service it is the same, but that each costs two descriptors.
//!
//! Whose: one that never opened goes before one that did, then one of the address that has most, and of those the one
//! in which nothing has got on for longest. While others have conversations too, an address with [`SHARE`] of them
//! makes room for its newcomers itself. So a guest that takes all it can get loses its own, and a neighbour's query is
//! answered.
//!
//! Nothing is noted when a flow ends: a place whose flow is gone is seen to be free when the next one is wanted. That
//! costs a look at [`PLACES`] flows for each newcomer, and nothing for all other flows.

use crate::clock::Instant;
use crate::flow::FlowId;
use core::cmp::Reverse;
use core::net::IpAddr;

/// Conversations at once.
pub(crate) const PLACES: usize = 64;
/// Of these, for one guest address while others have some.
pub(crate) const SHARE: usize = PLACES / 4;

/// A conversation in its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tenant {
    pub(crate) flow: FlowId,
    pub(crate) guest: IpAddr,
    /// The guest has completed the handshake.
    pub(crate) opened: bool,
    /// When something last got on.
    pub(crate) since: Instant,
}

/// Who makes room for a newcomer from `newcomer`, if there is need.
pub(crate) fn victim(tenants: &[Tenant], newcomer: IpAddr) -> Option<FlowId> {
    let own = tenants.iter().filter(|tenant| tenant.guest == newcomer).count();
    let full = tenants.len() >= PLACES;
    let over_share = own >= SHARE && own < tenants.len();
    if !full && !over_share {
        return None;
    }
    let (mut candidates, unopened): (Vec<Tenant>, Vec<Tenant>) = tenants
        .iter()
        .filter(|tenant| !over_share || tenant.guest == newcomer)
        .partition(|tenant| tenant.opened);
    if !unopened.is_empty() {
        candidates = unopened;
    }
    candidates.sort_unstable_by_key(|tenant| (tenant.guest, tenant.since));
    let by_address = candidates.chunk_by(|one, next| one.guest == next.guest);
    let most = by_address.max_by_key(|own| (own.len(), Reverse(own.first().map(|oldest| oldest.since))))?;
    most.first().map(|oldest| oldest.flow)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 2, last])
    }

    /// Conversations, each with the number of its place for a moment and an id.
    fn tenants(of: &[(u8, usize)]) -> Vec<Tenant> {
        let guests = of.iter().flat_map(|&(guest, count)| std::iter::repeat_n(guest, count));
        let tenant = |(at, guest): (u32, u8)| Tenant {
            flow: FlowId::new(at, 0),
            guest: ip(guest),
            opened: true,
            since: Instant::from_micros(at.into()),
        };
        (0..).zip(guests).map(tenant).collect()
    }

    fn index(victim: Option<FlowId>) -> Option<usize> {
        victim.map(FlowId::index)
    }

    #[test]
    fn a_single_address_may_have_all_and_then_loses_its_oldest() {
        assert_eq!(victim(&tenants(&[(1, PLACES - 1)]), ip(1)), None);
        let mut all = tenants(&[(1, PLACES)]);
        assert_eq!(index(victim(&all, ip(1))), Some(0));
        all[0].since = Instant::from_micros(1000);
        assert_eq!(index(victim(&all, ip(1))), Some(1), "the one that has stood still longest");
        assert_eq!(index(victim(&all, ip(2))), Some(1), "whoever asks");
    }

    #[test]
    fn beside_others_a_quarter_is_the_bound() {
        assert_eq!(victim(&tenants(&[(1, SHARE - 1), (2, 1)]), ip(1)), None);
        assert_eq!(index(victim(&tenants(&[(2, 1), (1, SHARE)]), ip(1))), Some(1), "its own");
        assert_eq!(victim(&tenants(&[(1, SHARE), (2, 1)]), ip(2)), None, "there is room for others");
    }

    #[test]
    fn whoever_has_most_makes_room_for_others() {
        let all = tenants(&[(3, 10), (1, 30), (2, 24)]);
        assert_eq!(index(victim(&all, ip(4))), Some(10));
        assert_eq!(index(victim(&all, ip(3))), Some(10));
    }

    #[test]
    fn what_never_opened_goes_first() {
        let mut all = tenants(&[(1, 60), (2, 4)]);
        (all[62].opened, all[63].opened) = (false, false);
        assert_eq!(index(victim(&all, ip(3))), Some(62));
    }

    #[test]
    fn addresses_with_one_each_lose_the_oldest() {
        let mut all: Vec<Tenant> = (0..64).flat_map(|n| tenants(&[(n, 1)])).collect();
        for (tenant, at) in all.iter_mut().zip(100..) {
            (tenant.flow, tenant.since) = (FlowId::new(at, 0), Instant::from_micros(1000 - u64::from(at)));
        }
        assert_eq!(index(victim(&all, ip(200))), Some(163));
    }
}
