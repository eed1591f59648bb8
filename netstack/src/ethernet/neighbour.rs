//! Who on the guest's link has which MAC address, and the frames that wait until we know.
//!
//! One cache serves both families: ARP (RFC 826) and neighbour discovery (RFC 4861 §7.3) teach it alike. It is bounded:
//! a guest has a handful of addresses, the bridge of a container network a hundred, and whatever it invents beyond
//! [`CAPACITY`] pushes out only what was used least recently, entries with waiting frames last.
//!
//! **Whom we believe.** What a station says of itself by ARP or neighbour discovery counts at once
//! ([`Neighbours::learn`]), as on any link. The source of a packet counts less ([`Neighbours::seen`]): it fills an
//! empty place and confirms what is known, but where another station is known to be, that one is asked first. Only if
//! it stays silent has the address moved. So a station that writes a neighbour's address into its packets gets none of
//! the neighbour's answers.
//!
//! **Not known.** A lookup of an unknown address starts a resolution: up to [`ATTEMPTS`] requests, [`RETRY`] apart (RFC
//! 1122 §2.3.2.1 allows one per second), then the address is *unreachable* for another [`RETRY`], after which a lookup
//! begins afresh. Meanwhile frames wait: at most [`WAITING_PER_NEIGHBOUR`] for one address, the oldest of them making
//! room for the newest (RFC 4861 §7.2.2), and at most [`WAITING_TOTAL`] in all.
//!
//! **Not confirmed.** An entry that nobody confirmed for [`LIFETIME`] is stale (RFC 4861 §7.3.3): it is used as before,
//! and whoever uses it asks beside. After [`ATTEMPTS`] requests without an answer it is forgotten.
//!
//! No timer runs but for resolutions that frames wait for. Every packet of the guest comes by here, so an entry is
//! found by hash, the last one without it.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::device::Offload;
use crate::drop_reason::DropReason;
use core::net::IpAddr;
use core::time::Duration;
use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
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

/// Who is on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLink {
    /// Any number of stations. Each is asked for its addresses, and has to ask for ours.
    Many {
        /// Where frames go whose address nobody answers for.
        otherwise: Option<MacAddr>,
    },
    /// One, which all frames are from and all are for, whatever addresses they have: nobody is asked who has one, and
    /// the station may call us, and itself, what it likes.
    One {
        /// Its MAC address; `None`: the source of the last frame, so that until the first one, only, it is asked for as
        /// among many.
        mac: Option<MacAddr>,
    },
}

impl Default for OnLink {
    fn default() -> Self {
        Self::Many { otherwise: None }
    }
}

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
    /// It was at this MAC address when it was last heard of, and most likely is: send a request now, and the frame as
    /// well.
    Stale(MacAddr),
    /// Not known yet: let the frame wait, and send a request now if `ask`.
    Resolve {
        /// Whether a request is due.
        ask: bool,
    },
    /// Nobody answered.
    Unreachable,
}

/// What a packet's source has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// What was known already.
    There,
    /// Where the address is: frames and flows may wait for it.
    New,
    /// Nothing, for another station has that address as far as we know.
    Elsewhere {
        /// Its MAC address.
        at: MacAddr,
        /// Whether a request is due.
        ask: bool,
    },
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
    /// Asked `asked` times since it was confirmed; the last request of all was sent at `last`.
    Known {
        mac: MacAddr,
        confirmed: Instant,
        asked: u8,
        last: Option<Instant>,
    },
    Resolving {
        asked: u8,
        last: Instant,
    },
    Failed {
        since: Instant,
    },
}

impl State {
    /// The address is at `mac`, as of now.
    const fn confirm(&mut self, mac: MacAddr, now: Instant) {
        // A confirmation is no reason to ask again at once: somebody may see to it that there is need.
        let last = match *self {
            Self::Known { last, .. } => last,
            Self::Resolving { .. } | Self::Failed { .. } => None,
        };
        *self = Self::Known { mac, confirmed: now, asked: 0, last };
    }
}

/// Whether a request may be sent again.
fn is_due(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| now.since(last) >= RETRY)
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
    /// By address: the place in `entries`.
    index: HashTable<usize>,
    on_link: OnLink,
    /// Key of its hash: stations choose their addresses.
    secret: [u8; 16],
    /// The place that was found last.
    recent: usize,
    /// Frames that wait, for all addresses together.
    waiting: usize,
    lost: u64,
}

impl Neighbours {
    /// An empty cache of these stations, which hashes under `secret`.
    #[must_use]
    pub const fn new(secret: [u8; 16], on_link: OnLink) -> Self {
        Self { entries: Vec::new(), index: HashTable::new(), on_link, secret, recent: 0, waiting: 0, lost: 0 }
    }

    /// Who is on the link, as far as is known.
    #[must_use]
    pub const fn on_link(&self) -> OnLink {
        self.on_link
    }

    /// Whether frames are for us whatever address they are for.
    #[must_use]
    pub const fn takes_all(&self) -> bool {
        matches!(self.on_link, OnLink::One { .. })
    }

    /// Where frames go whose address nobody answers for.
    #[must_use]
    pub const fn otherwise(&self) -> Option<MacAddr> {
        match self.on_link {
            OnLink::Many { otherwise } => otherwise,
            OnLink::One { mac } => mac,
        }
    }

    /// A frame came from `from`. Returns whether the one station of this link was not known before: then see
    /// [`Neighbours::waited_for`].
    pub fn hears(&mut self, from: MacAddr) -> bool {
        let OnLink::One { mac } = &mut self.on_link else { return false };
        mac.replace(from).is_none()
    }

    /// The addresses that frames wait for.
    #[must_use]
    pub fn waited_for(&self) -> Vec<IpAddr> {
        self.entries.iter().filter(|entry| !entry.waiting.is_empty()).map(|entry| entry.ip).collect()
    }

    /// Where the one station is that has all addresses.
    const fn station(&self) -> Option<MacAddr> {
        match self.on_link {
            OnLink::One { mac } => mac,
            OnLink::Many { .. } => None,
        }
    }

    /// `ip` says that it is at `mac`. Returns whether frames wait for it: then fetch them with
    /// [`Neighbours::take_waiting`]. A MAC address that no station can have teaches nothing.
    pub fn learn(&mut self, now: Instant, ip: IpAddr, mac: MacAddr) -> bool {
        if !mac.is_unicast() || ip.is_unspecified() || ip.is_multicast() || self.takes_all() {
            return false;
        }
        let entry = self.entry(now, ip);
        entry.state.confirm(mac, now);
        !entry.waiting.is_empty()
    }

    /// A packet of `ip` came from `mac`, and that is where the address is that was looked at last: it is confirmed. If
    /// not, nothing has happened, and [`Neighbours::seen`] decides. Nearly every packet of a guest ends here.
    pub fn confirm(&mut self, now: Instant, ip: IpAddr, mac: MacAddr) -> bool {
        match self.entries.get_mut(self.recent) {
            Some(Entry {
                ip: known, state: State::Known { mac: at, confirmed, asked, .. }, used, ..
            }) if *known == ip && *at == mac => {
                (*confirmed, *asked, *used) = (now, 0, now);
                true
            }
            _ => false,
        }
    }

    /// A packet of `ip` came from `mac`, the address of a station.
    pub fn seen(&mut self, now: Instant, ip: IpAddr, mac: MacAddr) -> Seen {
        if self.takes_all() {
            return Seen::There;
        }
        let entry = self.entry(now, ip);
        entry.used = now;
        match &mut entry.state {
            State::Known { mac: at, asked, last, .. } if *at != mac => {
                let ask = is_due(*last, now);
                // Whoever had it answers no more.
                if ask && *asked >= ATTEMPTS {
                    entry.state.confirm(mac, now);
                    return Seen::New;
                }
                if ask {
                    *asked += 1;
                    *last = Some(now);
                }
                Seen::Elsewhere { at: *at, ask }
            }
            State::Known { confirmed, asked, .. } => {
                (*confirmed, *asked) = (now, 0);
                Seen::There
            }
            State::Resolving { .. } | State::Failed { .. } => {
                entry.state.confirm(mac, now);
                Seen::New
            }
        }
    }

    /// What is known about `ip`. A lookup that says that a request is due has counted it as sent.
    pub fn lookup(&mut self, now: Instant, ip: IpAddr) -> Lookup {
        if let Some(mac) = self.station() {
            return Lookup::Known(mac);
        }
        let entry = self.entry(now, ip);
        entry.used = now;
        match &mut entry.state {
            State::Known { mac, confirmed, asked, last } => {
                if now.since(*confirmed) < LIFETIME || !is_due(*last, now) {
                    return Lookup::Known(*mac);
                }
                if *asked < ATTEMPTS {
                    *asked += 1;
                    *last = Some(now);
                    return Lookup::Stale(*mac);
                }
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
            State::Resolving { .. } | State::Failed { .. } => {}
        }
        entry.state = State::Resolving { asked: 1, last: now };
        Lookup::Resolve { ask: true }
    }

    /// Lets a frame wait for `ip`, for which [`Neighbours::lookup`] has just said [`Lookup::Resolve`].
    ///
    /// # Errors
    /// [`DropReason::NoRoom`] when too many wait in all, [`DropReason::Unresolved`] when nobody resolves `ip`.
    pub fn wait(&mut self, ip: IpAddr, frame: Waiting) -> Result<(), DropReason> {
        let total = self.waiting;
        let entry = self
            .find(ip)
            .and_then(|at| self.entries.get_mut(at))
            .filter(|entry| matches!(entry.state, State::Resolving { .. }))
            .ok_or(DropReason::Unresolved)?;
        if entry.waiting.len() >= WAITING_PER_NEIGHBOUR {
            entry.waiting.pop_front();
            self.lost += 1;
        } else if total >= WAITING_TOTAL {
            return Err(DropReason::NoRoom);
        } else {
            self.waiting += 1;
        }
        entry.waiting.push_back(frame);
        Ok(())
    }

    /// The frames that waited for `ip`, oldest first.
    pub fn take_waiting(&mut self, ip: IpAddr) -> Vec<Waiting> {
        let Some(entry) = self.find(ip).and_then(|at| self.entries.get_mut(at)) else { return Vec::new() };
        self.waiting -= entry.waiting.len();
        core::mem::take(&mut entry.waiting).into()
    }

    /// The MAC address of `ip`, if it is known, without starting anything.
    #[must_use]
    pub fn peek(&self, ip: IpAddr) -> Option<MacAddr> {
        if let Some(mac) = self.station() {
            return Some(mac);
        }
        match self.entries.get(self.find(ip)?)?.state {
            State::Known { mac, .. } => Some(mac),
            _ => None,
        }
    }

    /// Whether `ip` is being asked for.
    #[must_use]
    pub fn is_wanted(&self, ip: IpAddr) -> bool {
        let entry = self.find(ip).and_then(|at| self.entries.get(at));
        entry.is_some_and(|entry| matches!(entry.state, State::Resolving { asked: 1.., .. }))
    }

    /// When the next request or surrender is due. Only resolutions that frames wait for need a timer.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.waiting == 0 {
            return None;
        }
        self.entries.iter().filter(|entry| !entry.waiting.is_empty()).filter_map(due_at).min()
    }

    /// One thing that is due at `now`; call it until it says `None`.
    pub fn on_timeout(&mut self, now: Instant) -> Option<Due> {
        if self.waiting == 0 {
            return None;
        }
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
                self.waiting -= entry.waiting.len();
                Some(Due::GaveUp(entry.ip, core::mem::take(&mut entry.waiting).into()))
            }
        }
    }

    /// `ip` has left the link: whoever has it next has another MAC address.
    pub fn forget(&mut self, ip: IpAddr) {
        let Some(at) = self.find(ip) else { return };
        self.vacate(at);
        let last = self.entries.len() - 1;
        self.entries.swap_remove(at);
        if let Some(moved) = self.entries.get(at)
            && let Ok(place) = self.index.find_entry(hash(&self.secret, moved.ip), |&place| place == last)
        {
            *place.into_mut() = at;
        }
    }

    /// The addresses that stations have of which `of` says so.
    pub fn addresses_of(&self, of: impl Fn(MacAddr) -> bool) -> Vec<IpAddr> {
        let at = |entry: &&Entry| matches!(entry.state, State::Known { mac, .. } if of(mac));
        self.entries.iter().filter(at).map(|entry| entry.ip).collect()
    }

    /// Those whose addresses `keep` does not say yes to have left the link.
    pub fn retain(&mut self, keep: impl Fn(IpAddr) -> bool) {
        let gone: Vec<_> = self.entries.iter().map(|entry| entry.ip).filter(|&ip| !keep(ip)).collect();
        gone.into_iter().for_each(|ip| self.forget(ip));
    }

    /// Everybody has left the link, on which there may be `on_link` from now on.
    pub fn clear(&mut self, on_link: OnLink) {
        self.lost += self.waiting as u64;
        self.waiting = 0;
        self.on_link = on_link;
        self.entries.clear();
        self.index.clear();
    }

    /// How many waiting frames were pushed out by newer ones since the last call.
    pub const fn take_lost(&mut self) -> u64 {
        core::mem::replace(&mut self.lost, 0)
    }

    /// The place of `ip`.
    fn find(&self, ip: IpAddr) -> Option<usize> {
        let at = |place: usize| self.entries.get(place).is_some_and(|entry| entry.ip == ip);
        if at(self.recent) {
            return Some(self.recent);
        }
        self.index.find(hash(&self.secret, ip), |&place| at(place)).copied()
    }

    /// The entry of `ip`, made if need be.
    fn entry(&mut self, now: Instant, ip: IpAddr) -> &mut Entry {
        let at = match self.find(ip) {
            Some(at) => at,
            None => self.insert(now, ip),
        };
        self.recent = at;
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
        let victim = if self.entries.len() < CAPACITY {
            None
        } else {
            let precious = |entry: &Entry| (!entry.waiting.is_empty(), entry.used);
            (0..self.entries.len()).min_by_key(|&at| self.entries.get(at).map(precious))
        };
        let at = victim.unwrap_or(self.entries.len());
        if victim.is_some() {
            self.vacate(at);
        }
        match self.entries.get_mut(at) {
            Some(entry) => *entry = fresh,
            None => self.entries.push(fresh),
        }
        let (entries, secret) = (&self.entries, &self.secret);
        let rehash = |&place: &usize| entries.get(place).map_or(0, |entry| hash(secret, entry.ip));
        self.index.insert_unique(hash(secret, ip), at, rehash);
        at
    }

    /// The entry in this place is about to go: its frames are lost, and it is found no more.
    fn vacate(&mut self, at: usize) {
        let Some(entry) = self.entries.get(at) else { return };
        self.lost += entry.waiting.len() as u64;
        self.waiting -= entry.waiting.len();
        if let Ok(found) = self.index.find_entry(hash(&self.secret, entry.ip), |&place| place == at) {
            found.remove();
        }
    }
}

fn hash(secret: &[u8; 16], ip: IpAddr) -> u64 {
    let hasher = SipHasher13::new_with_key(secret);
    match ip {
        IpAddr::V4(ip) => hasher.hash(&ip.octets()),
        IpAddr::V6(ip) => hasher.hash(&ip.octets()),
    }
}

fn due_at(entry: &Entry) -> Option<Instant> {
    match entry.state {
        State::Resolving { last, .. } => Some(last + RETRY),
        State::Known { .. } | State::Failed { .. } => None,
    }
}

#[cfg(test)]
mod tests;
