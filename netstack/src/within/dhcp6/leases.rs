//! Who has which address of a pool that several stations share.
//!
//! A client is the hardware address that its message comes from: machines that are copies of each other have one DUID,
//! and one machine has another in its firmware than in its system. Each has one address at most, and each address one
//! station, so that nobody's can be somebody else's. Where a new one begins to look follows from its hardware address:
//! it finds the same one after a restart of ours, if it is free. An offer costs nothing and binds nobody (RFC 8415
//! §18.3.1 asks for no reservation): who asks for what was offered gets it, or another one if somebody was faster.
//!
//! A lease stays on record after its time, and its address goes to somebody else only when no other is left.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::ip::plan::Dhcp6Pool;
use core::net::Ipv6Addr;
use core::time::Duration;
use std::collections::BTreeMap;

/// How long an address is left alone that a client found in use.
const DECLINE_HOLD: Duration = Duration::from_secs(600);

/// The addresses that are spoken for, by their place in the pool.
#[derive(Debug)]
pub(super) struct Leases {
    pool: Dhcp6Pool,
    all: BTreeMap<u16, Lease>,
}

#[derive(Debug)]
struct Lease {
    /// `None`: a stranger, who has it without asking.
    mac: Option<MacAddr>,
    until: Instant,
}

impl Leases {
    pub(super) const fn new(pool: Dhcp6Pool) -> Self {
        Self { pool, all: BTreeMap::new() }
    }

    /// How long one is valid.
    pub(super) const fn time(&self) -> Duration {
        self.pool.lease
    }

    /// The address that `mac` would get, who wishes for one of these.
    pub(super) fn offer(&self, now: Instant, mac: MacAddr, wishes: &[Ipv6Addr]) -> Option<Ipv6Addr> {
        self.choose(now, mac, wishes).map(|place| self.address(place))
    }

    /// The same, and it is its own from now on.
    pub(super) fn bind(&mut self, now: Instant, mac: MacAddr, wishes: &[Ipv6Addr]) -> Option<Ipv6Addr> {
        let place = self.choose(now, mac, wishes)?;
        self.all.insert(place, Lease { mac: Some(mac), until: now + self.pool.lease });
        Some(self.address(place))
    }

    /// `mac` does not need these any more.
    pub(super) fn release(&mut self, now: Instant, mac: MacAddr, addresses: &[Ipv6Addr]) {
        if let Some(lease) = self.named(mac, addresses) {
            lease.until = now;
        }
    }

    /// `mac` has found that somebody else has them.
    pub(super) fn decline(&mut self, now: Instant, mac: MacAddr, addresses: &[Ipv6Addr]) {
        if let Some(lease) = self.named(mac, addresses) {
            *lease = Lease { mac: None, until: now + DECLINE_HOLD };
        }
    }

    /// The addresses in use, and by whom.
    pub(super) fn in_use(&self, now: Instant) -> impl Iterator<Item = (Ipv6Addr, MacAddr)> {
        let used = self.all.iter().filter(move |(_, lease)| lease.until > now);
        used.filter_map(|(place, lease)| Some((self.address(*place), lease.mac?)))
    }

    /// What it has or had; what it wishes for; a free one; the one whose time has been over for longest.
    fn choose(&self, now: Instant, mac: MacAddr, wishes: &[Ipv6Addr]) -> Option<u16> {
        if let Some(known) = self.place_of(mac) {
            return Some(known);
        }
        let is_free = |place: &u16| self.all.get(place).is_none_or(|lease| lease.until <= now);
        let wish = wishes.iter().filter_map(|addr| self.place(*addr)).find(is_free);
        wish.or_else(|| self.fresh(mac)).or_else(|| self.stale(now))
    }

    fn place_of(&self, mac: MacAddr) -> Option<u16> {
        self.all.iter().find(|(_, lease)| lease.mac == Some(mac)).map(|(place, _)| *place)
    }

    /// One that nobody has had. Of a pool that is used up the look is short.
    fn fresh(&self, mac: MacAddr) -> Option<u16> {
        let count = self.pool.count;
        if self.all.len() >= usize::from(count) {
            return None;
        }
        let [.., high, low] = mac.0;
        let first = u16::from_be_bytes([high, low]).checked_rem(count)?;
        (first..count).chain(0..first).find(|place| !self.all.contains_key(place))
    }

    fn stale(&self, now: Instant) -> Option<u16> {
        let over = self.all.iter().filter(|(_, lease)| lease.until <= now);
        over.min_by_key(|(_, lease)| lease.until).map(|(place, _)| *place)
    }

    fn named(&mut self, mac: MacAddr, addresses: &[Ipv6Addr]) -> Option<&mut Lease> {
        let place = self.place_of(mac)?;
        let named = addresses.contains(&self.address(place));
        self.all.get_mut(&place).filter(|_| named)
    }

    fn address(&self, place: u16) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.pool.first.to_bits().saturating_add(place.into()))
    }

    fn place(&self, addr: Ipv6Addr) -> Option<u16> {
        let place = addr.to_bits().checked_sub(self.pool.first.to_bits())?;
        u16::try_from(place).ok().filter(|place| *place < self.pool.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const TIME: Duration = Duration::from_secs(3600);

    fn leases(count: u16) -> Leases {
        Leases::new(Dhcp6Pool { first: address(0), count, lease: TIME })
    }

    fn address(place: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 1, 0, 0, place)
    }

    fn mac(number: u16) -> MacAddr {
        let [high, low] = number.to_be_bytes();
        MacAddr([2, 0, 0, 0, high, low])
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_station_has_one_address_and_finds_it_again() {
        let mut leases = leases(1000);
        assert_eq!(leases.bind(at(0), mac(0x0cee), &[]), Some(address(0x0cee % 1000)));
        assert_eq!(leases.bind(at(1), mac(0x0cee), &[address(7)]), Some(address(0x0cee % 1000)));
        // Whose place is taken gets the next.
        assert_eq!(leases.bind(at(1), mac(0x0cee + 1000), &[]), Some(address(0x0cee % 1000 + 1)));
        assert_eq!(leases.in_use(at(2)).count(), 2);
        assert_eq!(leases.in_use(at(3601)).count(), 0);
        leases.release(at(2), mac(0x0cee), &[address(0x0cee % 1000)]);
        assert_eq!(leases.in_use(at(3)).count(), 1);
        assert_eq!(leases.bind(at(9000), mac(0x0cee), &[]), Some(address(0x0cee % 1000)));
    }

    #[test]
    fn a_wish_is_heeded_if_nobody_has_it() {
        let mut leases = leases(10);
        assert_eq!(leases.offer(at(0), mac(1), &[address(5)]), Some(address(5)));
        assert_eq!(leases.offer(at(0), mac(2), &[address(5)]), Some(address(5)), "an offer binds nobody");
        assert_eq!(leases.bind(at(0), mac(2), &[address(5)]), Some(address(5)));
        assert_eq!(leases.bind(at(0), mac(1), &[address(5)]), Some(address(1)));
        let outside = [Ipv6Addr::UNSPECIFIED, address(10), Ipv6Addr::from_bits(u128::MAX)];
        assert_eq!(leases.bind(at(0), mac(3), &outside), Some(address(3)));
    }

    #[test]
    fn what_somebody_else_has_is_left_alone_for_ten_minutes() {
        let mut leases = leases(2);
        assert_eq!(leases.bind(at(0), mac(0), &[]), Some(address(0)));
        leases.decline(at(0), mac(1), &[address(0)]);
        assert_eq!(leases.in_use(at(0)).count(), 1, "who does not have it cannot decline it");
        leases.decline(at(0), mac(0), &[address(0)]);
        assert_eq!(leases.bind(at(1), mac(0), &[address(0)]), Some(address(1)));
        assert_eq!(leases.bind(at(2), mac(2), &[]), None);
        assert_eq!(leases.bind(at(600), mac(2), &[]), Some(address(0)));
    }

    #[test]
    fn a_pool_that_is_used_up_takes_back_what_is_over_and_nothing_else() {
        let mut leases = leases(3);
        for number in 0..3 {
            assert!(leases.bind(at(number.into()), mac(number), &[]).is_some());
        }
        assert_eq!(leases.bind(at(10), mac(9), &[]), None);
        assert_eq!(leases.bind(at(3600), mac(9), &[]), Some(address(0)), "over for longest");
        assert_eq!(leases.bind(at(3600), mac(0), &[address(0)]), None, "the others are bound");
        assert_eq!(leases.bind(at(3602), mac(0), &[address(0)]), Some(address(1)));
        assert_eq!(Leases::new(Dhcp6Pool { count: 0, ..leases.pool }).bind(at(0), mac(1), &[]), None);
    }

    proptest! {
        /// The promise, whatever is asked for and when.
        #[test]
        fn no_address_is_two_stations(
            steps in prop::collection::vec((0_u16..12, 0_u16..8, 0_u8..4, 0_u64..2000), 0..80),
        ) {
            let (mut leases, mut now) = (leases(6), 0);
            for (who, wish, what, later) in steps {
                now += later;
                let (who, wish) = (mac(who), [address(wish)]);
                match what {
                    0 => leases.release(at(now), who, &wish),
                    1 => leases.decline(at(now), who, &wish),
                    _ => {
                        let got = leases.bind(at(now), who, &wish);
                        prop_assert!(got.is_none_or(|got| leases.in_use(at(now)).any(|one| one == (got, who))));
                    }
                }
                prop_assert!(leases.all.len() <= 6);
                let used: Vec<_> = leases.in_use(at(now)).collect();
                let macs: BTreeSet<_> = used.iter().map(|(_, mac)| *mac).collect();
                prop_assert_eq!(macs.len(), used.len());
            }
        }
    }
}
