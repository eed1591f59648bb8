//! The host's ports, as far as connections use them up: how many lead to each destination, and whose they are.
//!
//! A connection takes a port of the host's ephemeral range, and for one destination each port can be taken once.
//! Whoever has taken them all keeps every other program of the host from that destination. So connections to one
//! destination get three quarters of the range ([`crate::config::PortConfig`]), and of what they get one guest address
//! may have seven times as many as are still free: so that with one guest the last eighth, with two of them the last
//! fifteenth, is there for whoever has none yet. Who has too many finds his SYN unanswered, as if it had been lost;
//! nobody else does.
//!
//! A destination for which the host had no port left ([`Errno::NoPort`](crate::upstream::Errno::NoPort)) is left alone
//! for [`REST`]: to learn that takes the kernel a search through all of them.

use crate::clock::Instant;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// How long a destination is left alone.
const REST: Duration = Duration::from_secs(1);
/// Destinations that are left alone at once. Beyond, the first one is not any more.
const RESTING: usize = 64;
/// How many times what is free one guest may have.
const SHARE: u32 = 7;

/// Connections by destination.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    all: BTreeMap<SocketAddr, u32>,
    /// The same by guest.
    of_guest: BTreeMap<(SocketAddr, IpAddr), u32>,
    resting: VecDeque<(SocketAddr, Instant)>,
}

impl Destinations {
    /// Whether `guest` may have another connection to `to`, of `limit` that there may be in all.
    pub(crate) fn admits(&self, to: SocketAddr, guest: IpAddr, limit: u32) -> bool {
        let all = self.all.get(&to).copied().unwrap_or(0);
        let own = self.of_guest.get(&(to, guest)).copied().unwrap_or(0);
        let free = limit.saturating_sub(all);
        free > 0 && own < SHARE.saturating_mul(free)
    }

    /// A connection of `guest` to `to` begins.
    pub(crate) fn add(&mut self, to: SocketAddr, guest: IpAddr) {
        *self.all.entry(to).or_default() += 1;
        *self.of_guest.entry((to, guest)).or_default() += 1;
    }

    /// A connection of `guest` to `to` has ended.
    pub(crate) fn remove(&mut self, to: SocketAddr, guest: IpAddr) {
        release(&mut self.all, to);
        release(&mut self.of_guest, (to, guest));
    }

    /// The host has no port left for `to`.
    pub(crate) fn rest(&mut self, now: Instant, to: SocketAddr) {
        if self.resting.len() >= RESTING {
            self.resting.pop_front();
        }
        self.resting.push_back((to, now + REST));
    }

    /// Whether `to` is left alone.
    pub(crate) fn is_resting(&mut self, now: Instant, to: SocketAddr) -> bool {
        while self.resting.front().is_some_and(|(_, until)| *until <= now) {
            self.resting.pop_front();
        }
        self.resting.iter().any(|(resting, _)| *resting == to)
    }
}

fn release<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    if let std::collections::btree_map::Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 2, last])
    }

    fn to(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// As many connections as a guest gets.
    fn fill(all: &mut Destinations, last: u8, limit: u32) -> u32 {
        let mut count = 0;
        while all.admits(to(80), guest(last), limit) {
            all.add(to(80), guest(last));
            count += 1;
        }
        count
    }

    #[test]
    fn whoever_takes_all_he_gets_leaves_room_for_others() {
        let mut all = Destinations::default();
        assert_eq!(fill(&mut all, 1, 800), 700);
        assert!(fill(&mut all, 2, 800) >= 80);
        for last in 3..15 {
            assert!(all.admits(to(80), guest(last), 800), "{last}");
            all.add(to(80), guest(last));
        }
        assert_eq!(all.all[&to(80)], 800);
        assert!(all.admits(to(81), guest(1), 800), "another destination has ports of its own");
    }

    #[test]
    fn what_ends_gives_its_port_back() {
        let mut all = Destinations::default();
        for _ in 0..3 {
            let count = fill(&mut all, 1, 100);
            assert_eq!(count, 88);
            (0..count).for_each(|_| all.remove(to(80), guest(1)));
            assert!(all.all.is_empty() && all.of_guest.is_empty());
        }
    }

    #[test]
    fn a_destination_without_ports_rests_for_a_second() {
        let mut all = Destinations::default();
        let at = |millis: u64| Instant::from_micros(millis * 1000);
        all.rest(at(0), to(80));
        assert!(all.is_resting(at(999), to(80)) && !all.is_resting(at(999), to(81)));
        assert!(!all.is_resting(at(1000), to(80)));
        for port in 0..1000 {
            all.rest(at(2000), to(port));
        }
        assert_eq!(all.resting.len(), RESTING);
    }
}
