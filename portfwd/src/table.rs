//! The live table: rules that are in force, with the sockets that serve them.
//!
//! A change touches nothing but its own rule: adding opens new sockets, removing closes listening sockets; other rules
//! and established flows do not notice. A rule is added whole or not at all: if one port of a range cannot be had,
//! those already opened are closed again and the caller learns the errno and the endpoint. A *weak* rule does without
//! such ports as long as it has one. All rules at once are exchanged by `replace`, where a socket that is wanted before
//! and after stays open throughout. Ports of rules that *scan* are opened and closed by `follow`.
//!
//! Whether two rules conflict is for the kernel to say (EADDRINUSE), which also knows about everybody else's sockets;
//! unless the table's [`Policy`] has it said before, as pasta does, with limits on how many rules and sockets there
//! are.
//!
//! Each socket has a token out of the range that the caller set aside. Ids are never used twice, tokens are; a late
//! event that meets a token's next tenant finds nothing to accept there and does no harm.
//!
//! One call of [`Table::on_ready`] does a bounded amount of work; events are level-triggered, so what is left comes
//! up in the next round. When the host has run out of descriptors, a listener would be ready all the time without
//! anything to be done about it: it is not watched until [`Table::next_deadline`].

mod error;
mod follow;
mod open;
mod replace;
mod turn;

use crate::forwarder::Forwarder;
use crate::listen::{Listener, Spot};
use crate::rule::Rule;
use core::fmt;
use core::num::{NonZeroU16, NonZeroU64};
use core::ops::Range;
use core::time::Duration;
use slipway_host::driver::Interest;
use slipway_netstack::clock::Instant;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use turn::{Inbox, Turn};

pub use error::{AddError, ReplaceError};

/// How long a listener is left alone when the host is out of descriptors or memory.
const BACKOFF: Duration = Duration::from_millis(100);

/// The name of a rule in a table: counted from 1, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(NonZeroU64);

impl RuleId {
    /// The id of the first rule.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// As a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl From<NonZeroU64> for RuleId {
    fn from(id: NonZeroU64) -> Self {
        Self(id)
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a rule has done so far: connections of a TCP rule, datagrams of a UDP rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Carried on to the guest.
    pub accepted: u64,
    /// Turned away, because the guest's address is not known or no flow could be made.
    pub refused: u64,
}

/// One socket of one rule.
#[derive(Debug)]
struct Slot {
    id: RuleId,
    listener: Listener,
    local: SocketAddr,
    target_port: NonZeroU16,
    spot: Spot,
}

/// What a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Rules that conflict, or are too many, are refused before a socket is tried
    /// ([`crate::rule::passt::RuleSet`]).
    pub checked: bool,
    /// At most so many sockets: what is beyond fails with EMFILE.
    pub sockets: usize,
    /// Listeners may have addresses that the host does not have (yet): IP_FREEBIND of ip(7).
    pub free: bool,
}

impl Policy {
    /// As many as the kernel has.
    pub const KERNEL: Self = Self { checked: false, sockets: usize::MAX, free: false };

    /// As pasta has it: checked, and listeners take half of the descriptors that this process may have, so that those
    /// who come to them find some.
    #[must_use]
    pub const fn passt(descriptors: usize) -> Self {
        Self { checked: true, sockets: descriptors / 2, free: false }
    }
}

/// A rule in force.
#[derive(Debug)]
struct Live {
    rule: Rule,
    counters: Counters,
    /// Where its sockets are, in the order of its ports.
    slots: Vec<u32>,
    /// Ports of a weak rule that are done without.
    missing: usize,
}

/// Rules in force.
#[derive(Debug)]
pub struct Table {
    tokens: Range<u32>,
    policy: Policy,
    rules: BTreeMap<RuleId, Live>,
    next: NonZeroU64,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Slots not watched before `resume_at`.
    paused: Vec<u32>,
    resume_at: Option<Instant>,
    /// A pause was logged, and nobody has been accepted since.
    complained: bool,
    inbox: Inbox,
}

/// A rule in force, as [`Table::list`] shows it.
#[derive(Debug, Clone, Copy)]
pub struct Info<'a> {
    /// Its id.
    pub id: RuleId,
    /// The rule.
    pub rule: &'a Rule,
    /// What it has done so far.
    pub counters: Counters,
    /// Ports of a weak rule that could not be had.
    pub missing: usize,
    table: &'a Table,
    slots: &'a [u32],
}

impl Info<'_> {
    /// Its sockets: the address and port each has got (an ephemeral port is known here), and the guest port.
    pub fn endpoints(&self) -> impl Iterator<Item = (SocketAddr, NonZeroU16)> {
        self.slots.iter().filter_map(|&slot| self.table.slot(slot)).map(|slot| (slot.local, slot.target_port))
    }
}

impl Table {
    /// An empty table, whose sockets are watched with tokens of `tokens`; there can be as many sockets as tokens.
    #[must_use]
    pub fn new(tokens: Range<u32>) -> Self {
        Self {
            tokens,
            policy: Policy::KERNEL,
            rules: BTreeMap::new(),
            next: NonZeroU64::MIN,
            slots: Vec::new(),
            free: Vec::new(),
            paused: Vec::new(),
            resume_at: None,
            complained: false,
            inbox: Inbox::default(),
        }
    }

    /// Whether an event with this token is for [`Table::on_ready`].
    #[must_use]
    pub fn owns(&self, token: u32) -> bool {
        self.tokens.contains(&token)
    }

    /// What it holds from now on; rules in force stay.
    pub const fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Takes a rule out of force and returns it; `None` if there is none of that id. Its sockets close. Connections
    /// live on; conversations over UDP end, since the closed socket was theirs, too.
    pub fn remove(&mut self, id: RuleId, host: &mut impl Forwarder) -> Option<Rule> {
        let live = self.rules.remove(&id)?;
        self.close(&live.slots, host);
        Some(live.rule)
    }

    /// Closes the sockets of all rules, which stay listed with what they have done.
    pub fn close_all(&mut self, host: &mut impl Forwarder) {
        let places: Vec<u32> =
            self.rules.values_mut().flat_map(|live| core::mem::take(&mut live.slots)).collect();
        self.close(&places, host);
        self.paused.clear();
        self.resume_at = None;
    }

    /// The rules in force, by id.
    pub fn list(&self) -> impl Iterator<Item = Info<'_>> {
        self.rules.iter().map(|(&id, live)| self.info(id, live))
    }

    /// The rule of this id, if it is in force.
    #[must_use]
    pub fn get(&self, id: RuleId) -> Option<Info<'_>> {
        self.rules.get(&id).map(|live| self.info(id, live))
    }

    /// The socket watched with `token` has something, or had it when the event was made.
    pub fn on_ready(&mut self, token: u32, now: Instant, host: &mut impl Forwarder) {
        let Some(place) = token.checked_sub(self.tokens.start) else { return };
        let Some(slot) =
            usize::try_from(place).ok().and_then(|at| self.slots.get_mut(at)).and_then(Option::as_mut)
        else {
            return;
        };
        let Some(live) = self.rules.get_mut(&slot.id) else { return };
        let (local, port) = (slot.local, slot.target_port);
        let mut turn = Turn { rule: &live.rule, local, port, counters: &mut live.counters };
        let pause = match &mut slot.listener {
            Listener::Tcp(listener) => turn.accept_all(listener, host),
            Listener::Udp(socket, hint) => {
                turn.receive_batch(socket, hint, &mut self.inbox, host);
                None
            }
        };
        match pause {
            Some(error) => self.pause(place, &error, now, host),
            None => self.complained = false,
        }
    }

    /// When [`Table::on_deadline`] wants to be called.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.resume_at
    }

    /// Watches again what was left alone until now.
    pub fn on_deadline(&mut self, now: Instant, host: &mut impl Forwarder) {
        if self.resume_at.is_none_or(|at| now < at) {
            return;
        }
        self.resume_at = None;
        for place in core::mem::take(&mut self.paused) {
            let token = self.tokens.start.saturating_add(place);
            if let Some(slot) = self.slot(place)
                && let Err(error) = host.modify(slot.listener.as_fd(), Interest::READ, token)
            {
                log::warn!("{} is not watched any more: {error}", slot.local);
            }
        }
    }

    fn info<'a>(&'a self, id: RuleId, live: &'a Live) -> Info<'a> {
        Info {
            id,
            rule: &live.rule,
            counters: live.counters,
            missing: live.missing,
            table: self,
            slots: &live.slots,
        }
    }

    /// How many sockets there are.
    fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn slot(&self, place: u32) -> Option<&Slot> {
        self.slots.get(usize::try_from(place).ok()?)?.as_ref()
    }

    /// Gives `slot` a place and has it watched.
    fn watch(&mut self, slot: Slot, host: &mut impl Forwarder) -> io::Result<u32> {
        let place = match self.free.last() {
            Some(&place) => place,
            None => u32::try_from(self.slots.len()).map_err(io::Error::other)?,
        };
        host.watch(slot.listener.as_fd(), Interest::READ, self.tokens.start.saturating_add(place))?;
        match self.slots.get_mut(usize::try_from(place).map_err(io::Error::other)?) {
            Some(vacant) => {
                *vacant = Some(slot);
                self.free.pop();
            }
            None => self.slots.push(Some(slot)),
        }
        Ok(place)
    }

    fn close(&mut self, places: &[u32], host: &mut impl Forwarder) {
        for &place in places {
            let slot = usize::try_from(place).ok().and_then(|at| self.slots.get_mut(at));
            if let Some(slot) = slot.and_then(Option::take) {
                host.unwatch(slot.listener.as_fd());
                if let Listener::Udp(socket, _) = &slot.listener {
                    host.release_udp(socket);
                }
                self.free.push(place);
            }
        }
    }

    fn pause(&mut self, place: u32, error: &io::Error, now: Instant, host: &mut impl Forwarder) {
        let Some(slot) = self.slot(place) else { return };
        if !self.complained {
            log::warn!("{}: clients have to wait: {error}", slot.local);
        }
        let token = self.tokens.start.saturating_add(place);
        if host.modify(slot.listener.as_fd(), Interest::NONE, token).is_ok() {
            self.complained = true;
            self.paused.push(place);
            self.resume_at.get_or_insert(now + BACKOFF);
        }
    }
}

#[cfg(test)]
mod tests;
