//! Who on the guest's link has which MAC address, and the frames that wait until we know.
//!
//! One cache serves both families: ARP (RFC 826) and neighbour discovery (RFC 4861 §7.3) teach it alike. It is bounded: a
//! guest has a handful of addresses, the bridge of a container network a hundred, and whatever it invents beyond [`CAPACITY`] pushes out only what
//! was used least recently, entries with waiting frames last.
//!
//! A lookup of an unknown address starts a resolution: up to [`ATTEMPTS`] requests, [`RETRY`] apart (RFC 1122 §2.3.2.1
//! allows one per second), then the address is *unreachable* for another [`RETRY`], after which a lookup begins afresh.
//! Meanwhile frames wait: at most [`WAITING_PER_NEIGHBOUR`] for one address, the oldest of them making room for
//! the newest (RFC 4861 §7.2.2), and at most [`WAITING_TOTAL`] in all.
//!
//! An entry that nobody confirmed for [`LIFETIME`] is resolved anew. No timer runs for that, only for resolutions.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::device::Offload;
use crate::drop_reason::DropReason;
use core::net::IpAddr;
use core::time::Duration;
use std::collections::VecDeque;

/// Addresses that the cache holds: those of a container network's bridge, both families.
pub const CAPACITY: usize = 256;
/// Frames that may wait for one address.
pub const WAITING_PER_NEIGHBOUR: usize = 8;
/// Frames that may wait in all.
pub const WAITING_TOTAL: usize = 64;
/// Requests sent before an address is given up.
pub const ATTEMPTS: u8 = 3;
/// Time between requests.
pub const RETRY: Duration = Duration::from_secs(1);
/// How long an address is believed without being confirmed.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// A whole frame, but for its destination MAC address (the first six bytes), that waits for a resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What is left undone in it.
    pub offload: Offload,
    /// Its bytes, Ethernet header first.
    pub frame: Vec<u8>,
}

/// What is known about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// It is at this MAC address.
    Known(MacAddr),
    /// Not known yet: let the frame wait, and send a request now if `ask`.
    Resolve {
        /// Whether a request is due.
        ask: bool,
    },
    /// Nobody answered.
    Unreachable,
}

/// What [`Neighbours::on_timeout`] wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Send a request for this address.
    Ask(IpAddr),
    /// Nobody answered for this address: these frames are lost.
    GaveUp(IpAddr, Vec<Waiting>),
}

#[derive(Debug, Clone, Copy)]
enum State {
    Known { mac: MacAddr, confirmed: Instant },
    Resolving { asked: u8, last: Instant },
    Failed { since: Instant },
}

#[derive(Debug)]
struct Entry {
    ip: IpAddr,
    state: State,
    used: Instant,
    waiting: VecDeque<Waiting>,
}

/// The neighbour cache.
#[derive(Debug, Default)]
pub struct Neighbours {
    entries: Vec<Entry>,
    lost: u64,
}

impl Neighbours {
    /// An empty cache.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new(), lost: 0 }
    }

    /// `ip` was seen to be at `mac`. Returns whether frames wait for it: then fetch them with
    /// [`Neighbours::take_waiting`]. A MAC address that no station can have teaches nothing.
    pub fn learn(&mut self, now: Instant, ip: IpAddr, mac: MacAddr) -> bool {
        if !mac.is_unicast() || ip.is_unspecified() || ip.is_multicast() {
            return false;
        }
        let entry = self.entry(now, ip);
        entry.state = State::Known { mac, confirmed: now };
        !entry.waiting.is_empty()
    }

    /// What is known about `ip`. A lookup that says `ask` has counted the request as sent.
    pub fn lookup(&mut self, now: Instant, ip: IpAddr) -> Lookup {
        let entry = self.entry(now, ip);
        entry.used = now;
        match &mut entry.state {
            State::Known { mac, confirmed } if now.since(*confirmed) < LIFETIME => {
                return Lookup::Known(*mac);
            }
            State::Resolving { asked, last }
                if *asked == 0 || now.since(*last) >= RETRY && *asked < ATTEMPTS =>
            {
                *asked += 1;
                *last = now;
                return Lookup::Resolve { ask: true };
            }
            State::Resolving { last, .. } if now.since(*last) < RETRY => {
                return Lookup::Resolve { ask: false };
            }
            // All requests went unanswered. `on_timeout` collects the frames, if there are any.
            State::Resolving { last, .. } if now.since(*last) < 2 * RETRY || !entry.waiting.is_empty() => {
                return Lookup::Unreachable;
            }
            State::Failed { since } if now.since(*since) < RETRY => return Lookup::Unreachable,
            State::Known { .. } | State::Resolving { .. } | State::Failed { .. } => {}
        }
        entry.state = State::Resolving { asked: 1, last: now };
        Lookup::Resolve { ask: true }
    }

    /// Lets a frame wait for `ip`, for which [`Neighbours::lookup`] has just said [`Lookup::Resolve`].
    ///
    /// # Errors
    /// [`DropReason::NoRoom`] when too many wait in all, [`DropReason::Unresolved`] when nobody resolves `ip`.
    pub fn wait(&mut self, ip: IpAddr, frame: Waiting) -> Result<(), DropReason> {
        let total: usize = self.entries.iter().map(|entry| entry.waiting.len()).sum();
        let entry = self
            .entries
            .iter_mut()
            .find(|entry| entry.ip == ip && matches!(entry.state, State::Resolving { .. }))
            .ok_or(DropReason::Unresolved)?;
        if entry.waiting.len() >= WAITING_PER_NEIGHBOUR {
            entry.waiting.pop_front();
            self.lost += 1;
        } else if total >= WAITING_TOTAL {
            return Err(DropReason::NoRoom);
        }
        entry.waiting.push_back(frame);
        Ok(())
    }

    /// The frames that waited for `ip`, oldest first.
    pub fn take_waiting(&mut self, ip: IpAddr) -> Vec<Waiting> {
        self.entries
            .iter_mut()
            .find(|entry| entry.ip == ip)
            .map(|entry| core::mem::take(&mut entry.waiting).into())
            .unwrap_or_default()
    }

    /// The MAC address of `ip`, if it is known, without starting anything.
    #[must_use]
    pub fn peek(&self, ip: IpAddr) -> Option<MacAddr> {
        self.entries.iter().find(|entry| entry.ip == ip).and_then(|entry| match entry.state {
            State::Known { mac, .. } => Some(mac),
            _ => None,
        })
    }

    /// When the next request or surrender is due. Only resolutions that frames wait for need a timer.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.entries.iter().filter(|entry| !entry.waiting.is_empty()).filter_map(due_at).min()
    }

    /// One thing that is due at `now`; call it until it says `None`.
    pub fn on_timeout(&mut self, now: Instant) -> Option<Due> {
        let entry = self
            .entries
            .iter_mut()
            .filter(|entry| !entry.waiting.is_empty())
            .find(|entry| due_at(entry).is_some_and(|at| at <= now))?;
        match &mut entry.state {
            State::Resolving { asked, last } if *asked < ATTEMPTS => {
                *asked += 1;
                *last = now;
                Some(Due::Ask(entry.ip))
            }
            state => {
                *state = State::Failed { since: now };
                Some(Due::GaveUp(entry.ip, core::mem::take(&mut entry.waiting).into()))
            }
        }
    }

    /// `ip` has left the link: whoever has it next has another MAC address.
    pub fn forget(&mut self, ip: IpAddr) {
        self.entries.retain(|entry| entry.ip != ip);
    }

    /// How many waiting frames were pushed out by newer ones since the last call.
    pub const fn take_lost(&mut self) -> u64 {
        core::mem::replace(&mut self.lost, 0)
    }

    /// The entry of `ip`, made if need be.
    fn entry(&mut self, now: Instant, ip: IpAddr) -> &mut Entry {
        let at = match self.entries.iter().position(|entry| entry.ip == ip) {
            Some(at) => at,
            None => self.insert(now, ip),
        };
        #[expect(clippy::indexing_slicing, reason = "the place was found or made on the line above")]
        &mut self.entries[at]
    }

    /// Makes an entry for `ip` and says where; pushes out the least precious one when the cache is full.
    fn insert(&mut self, now: Instant, ip: IpAddr) -> usize {
        let fresh = Entry {
            ip,
            state: State::Resolving { asked: 0, last: now },
            used: now,
            waiting: VecDeque::new(),
        };
        if self.entries.len() >= CAPACITY {
            let victim = (0..self.entries.len())
                .min_by_key(|&at| self.entries.get(at).map(|entry| (!entry.waiting.is_empty(), entry.used)));
            if let Some((at, entry)) = victim.and_then(|at| Some((at, self.entries.get_mut(at)?))) {
                self.lost += entry.waiting.len() as u64;
                *entry = fresh;
                return at;
            }
        }
        self.entries.push(fresh);
        self.entries.len() - 1
    }
}

fn due_at(entry: &Entry) -> Option<Instant> {
    match entry.state {
        State::Resolving { last, .. } => Some(last + RETRY),
        State::Known { .. } | State::Failed { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 2, n])
    }

    fn frame(n: u8) -> Waiting {
        Waiting { offload: Offload::NONE, frame: vec![n] }
    }

    #[test]
    fn a_reply_releases_the_waiting_frames_in_order() {
        let mut cache = Neighbours::new();
        assert_eq!(cache.lookup(at(0), ip(100)), Lookup::Resolve { ask: true });
        cache.wait(ip(100), frame(1)).unwrap();
        assert_eq!(cache.lookup(at(1), ip(100)), Lookup::Resolve { ask: false });
        cache.wait(ip(100), frame(2)).unwrap();
        assert!(cache.learn(at(2), ip(100), MAC));
        assert_eq!(cache.take_waiting(ip(100)), [frame(1), frame(2)]);
        assert_eq!(cache.lookup(at(3), ip(100)), Lookup::Known(MAC));
        assert_eq!(cache.next_timeout(), None);
        assert!(!cache.learn(at(4), ip(100), MAC), "nothing waits any more");
    }

    #[test]
    fn three_requests_then_unreachable_then_anew() {
        let mut cache = Neighbours::new();
        cache.lookup(at(0), ip(9));
        cache.wait(ip(9), frame(1)).unwrap();
        assert_eq!(cache.next_timeout(), Some(at(1000)));
        assert_eq!(cache.on_timeout(at(999)), None);
        assert_eq!(cache.on_timeout(at(1000)), Some(Due::Ask(ip(9))));
        assert_eq!(cache.on_timeout(at(1000)), None);
        assert_eq!(cache.lookup(at(1500), ip(9)), Lookup::Resolve { ask: false });
        assert_eq!(cache.on_timeout(at(2000)), Some(Due::Ask(ip(9))));
        assert_eq!(cache.on_timeout(at(3000)), Some(Due::GaveUp(ip(9), vec![frame(1)])));
        assert_eq!(cache.next_timeout(), None);
        assert_eq!(cache.lookup(at(3500), ip(9)), Lookup::Unreachable);
        assert_eq!(cache.wait(ip(9), frame(2)), Err(DropReason::Unresolved));
        assert_eq!(cache.lookup(at(4000), ip(9)), Lookup::Resolve { ask: true });
    }

    #[test]
    fn without_waiting_frames_lookups_alone_drive_the_resolution() {
        let mut cache = Neighbours::new();
        let seen: Vec<_> = (0..12).map(|half| cache.lookup(at(half * 500), ip(9))).collect();
        let (ask, hold) = (Lookup::Resolve { ask: true }, Lookup::Resolve { ask: false });
        let round = [ask, hold, ask, hold, ask, hold, Lookup::Unreachable, Lookup::Unreachable];
        assert_eq!(seen[..8], round);
        assert_eq!(seen[8..], round[..4]);
        assert_eq!(cache.next_timeout(), None, "no timer for an address that nobody waits for");
    }

    #[test]
    fn old_knowledge_is_asked_for_anew() {
        let mut cache = Neighbours::new();
        cache.learn(at(0), ip(1), MAC);
        assert_eq!(cache.lookup(at(599_999), ip(1)), Lookup::Known(MAC));
        assert_eq!(cache.lookup(at(600_000), ip(1)), Lookup::Resolve { ask: true });
        assert_eq!(cache.peek(ip(1)), None);
    }

    #[test]
    fn the_newest_frames_of_a_neighbour_are_kept() {
        let mut cache = Neighbours::new();
        cache.lookup(at(0), ip(1));
        for n in 0..10 {
            cache.wait(ip(1), frame(n)).unwrap();
        }
        assert_eq!(cache.take_waiting(ip(1)), (2..10).map(frame).collect::<Vec<_>>());
        assert_eq!(cache.take_lost(), 2);
    }

    #[test]
    fn the_total_is_bounded() {
        let mut cache = Neighbours::new();
        for n in 0..8 {
            cache.lookup(at(0), ip(n));
            for k in 0..8 {
                cache.wait(ip(n), frame(k)).unwrap();
            }
        }
        cache.lookup(at(0), ip(8));
        assert_eq!(cache.wait(ip(8), frame(0)), Err(DropReason::NoRoom));
    }

    #[test]
    fn a_flood_of_addresses_evicts_the_least_recently_used_and_spares_waiting_frames() {
        let mut cache = Neighbours::new();
        cache.lookup(at(0), ip(1));
        cache.wait(ip(1), frame(1)).unwrap();
        cache.learn(at(1), ip(2), MAC);
        for n in 0..1000_u32 {
            let flood = IpAddr::from((0x0a01_0000 + n).to_be_bytes());
            cache.learn(at(u64::from(n) + 2), flood, MAC);
            assert_eq!(cache.lookup(at(u64::from(n) + 2), ip(2)), Lookup::Known(MAC), "in use, so it stays");
        }
        assert_eq!(cache.entries.len(), CAPACITY);
        assert_eq!(cache.take_waiting(ip(1)), [frame(1)]);
        assert_eq!(cache.peek(IpAddr::from(0x0a01_0000_u32.to_be_bytes())), None);
    }

    #[test]
    fn who_left_is_forgotten() {
        let mut cache = Neighbours::new();
        cache.learn(at(0), ip(1), MAC);
        cache.learn(at(0), ip(2), MAC);
        cache.forget(ip(1));
        assert_eq!((cache.peek(ip(1)), cache.peek(ip(2))), (None, Some(MAC)));
        assert_eq!(cache.lookup(at(1), ip(1)), Lookup::Resolve { ask: true });
    }

    #[test]
    fn impossible_addresses_teach_nothing() {
        let mut cache = Neighbours::new();
        cache.learn(at(0), ip(1), MacAddr::BROADCAST);
        cache.learn(at(0), ip(1), MacAddr([0; 6]));
        cache.learn(at(0), IpAddr::from([0, 0, 0, 0]), MAC);
        cache.learn(at(0), IpAddr::from([224, 0, 0, 1]), MAC);
        assert!(cache.entries.is_empty());
    }
}
