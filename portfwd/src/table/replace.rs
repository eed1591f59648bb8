//! All rules at once: others take the place of those in force, whole or not at all.
//!
//! What is new is opened before anything old is closed, so that a failure has cost nothing. A socket that is wanted
//! before and after is the same socket, whatever rule it belongs to now: it stays open, whoever waits in its queue
//! waits on, and nobody else can take its port. A rule that is in force before and after keeps its id and its counters.
//!
//! One kind of change cannot be made in that order: a port whose address or interface changes (`0.0.0.0` to
//! `127.0.0.1`) is refused by the kernel as long as our own old socket is there. Such ports come last: the old socket
//! is closed, the new one opened, and should that fail, the old one is opened again.

use super::error::Failed;
use super::open::{is_exhausted, say_missing, spot_of};
use super::{AddError, Counters, Live, ReplaceError, RuleId, Table};
use crate::forwarder::Forwarder;
use crate::listen::Spot;
use crate::rule::passt::Forwards;
use crate::rule::{Proto, Rule};
use core::num::{NonZeroU16, NonZeroU64};
use nix::errno::Errno;
use slipway_host::inside::Side;
use std::collections::{BTreeMap, HashMap};

/// A rule that is to be in force.
#[derive(Debug)]
struct Next {
    id: RuleId,
    rule: Rule,
    counters: Counters,
    /// Its sockets, and the guest port of each.
    places: Vec<(u32, NonZeroU16)>,
    /// The first port that a weak rule does without.
    failed: Option<Failed>,
}

/// A port without a socket as yet: of which rule, where, and where it leads.
type Wanted = (usize, Spot, NonZeroU16);

/// A change under way.
#[derive(Debug, Default)]
struct Change {
    next: Vec<Next>,
    wanted: Vec<Wanted>,
    /// Sockets that nobody wants any more, by where they listen.
    doomed: HashMap<(Side, Proto, u16), Vec<u32>>,
    /// How many those are.
    passing: usize,
    opened: Vec<u32>,
    /// What had to be closed to make room: where it was, whose, and what.
    closed: Vec<(u32, RuleId, Spot, NonZeroU16)>,
}

impl Table {
    /// Puts these rules in force in the place of all others; returns their ids, in the same order.
    ///
    /// # Errors
    /// When one of them cannot be had whole, or a weak one not at all. What was in force is so still.
    pub fn replace(
        &mut self,
        rules: &[Rule],
        host: &mut impl Forwarder,
    ) -> Result<Vec<RuleId>, Box<ReplaceError>> {
        let mut set = Forwards::default();
        for rule in rules.iter().filter(|_| self.policy.checked) {
            let added = set.of_mut(rule.side()).add(*rule);
            added.map_err(|refusal| refused(*rule, Box::new(refusal).into()))?;
        }
        let (mut change, fresh) = self.plan(rules);
        self.keep(&mut change, host)?;
        if let Err(error) = self.open_wanted(&mut change, host) {
            let lost = self.take_back(&change, host);
            return Err(Box::new(ReplaceError { lost, ..*error }));
        }
        self.next = fresh;
        Ok(self.settle(change, host))
    }

    /// Gives each rule its id: that of the same rule in force, or a new one. And what the next new one would be.
    fn plan(&self, rules: &[Rule]) -> (Change, NonZeroU64) {
        let mut fresh = self.next;
        let mut known: HashMap<Rule, Vec<RuleId>> = HashMap::new();
        for (&id, live) in self.rules.iter().rev() {
            known.entry(live.rule).or_default().push(id);
        }
        let next = rules.iter().map(|rule| {
            let id = known.get_mut(rule).and_then(Vec::pop).unwrap_or_else(|| {
                let id = RuleId(fresh);
                fresh = fresh.saturating_add(1);
                id
            });
            let counters = self.rules.get(&id).map(|live| live.counters).unwrap_or_default();
            Next { id, rule: *rule, counters, places: Vec::new(), failed: None }
        });
        let next = next.collect();
        (Change { next, ..Change::default() }, fresh)
    }

    /// Finds the sockets that stay, the ports that need one, and what is left over.
    fn keep(&self, change: &mut Change, host: &impl Forwarder) -> Result<(), Box<ReplaceError>> {
        let mut free: HashMap<Spot, u32> = HashMap::new();
        let mut chosen: HashMap<RuleId, Vec<(u32, NonZeroU16)>> = HashMap::new();
        for (place, slot) in (0..).zip(&self.slots) {
            let Some(slot) = slot else { continue };
            if slot.spot.port == 0 {
                // A port that the kernel chose belongs to its rule.
                chosen.entry(slot.id).or_default().push((place, slot.target_port));
            } else {
                free.insert(slot.spot, place);
            }
        }
        for (at, next) in change.next.iter_mut().enumerate() {
            let rule = next.rule;
            let spot = spot_of(&rule, self.policy.free, host).map_err(|error| refused(rule, error))?;
            if let Some(own) = chosen.remove(&next.id) {
                next.places = own;
                continue;
            }
            for (port, target) in rule.ports().pairs() {
                let spot = Spot { port, ..spot };
                match free.remove(&spot) {
                    Some(place) => next.places.push((place, target)),
                    // Which of its ports are open, `follow` says.
                    None if rule.scan() => {}
                    None => change.wanted.push((at, spot, target)),
                }
            }
        }
        let left = chosen.into_values().flatten().map(|(place, _)| place).chain(free.into_values());
        for place in left {
            if let Some(slot) = self.slot(place) {
                let key = (slot.spot.side, slot.spot.proto, slot.local.port());
                change.doomed.entry(key).or_default().push(place);
                change.passing += 1;
            }
        }
        Ok(())
    }

    /// Opens what is missing: first where nothing of ours is in the way, then where something is.
    fn open_wanted(
        &mut self,
        change: &mut Change,
        host: &mut impl Forwarder,
    ) -> Result<(), Box<ReplaceError>> {
        let wanted = core::mem::take(&mut change.wanted);
        let waiting = self.open_some(change, wanted, false, host)?;
        self.open_some(change, waiting, true, host)?;
        for next in &mut change.next {
            if let Some(failed) =
                next.failed.take_if(|(_, error)| next.places.is_empty() && !is_exhausted(error))
            {
                return Err(refused(next.rule, AddError::of(failed)));
            }
        }
        Ok(())
    }

    /// Opens these, after closing what is in the way if `make_way`. Returns those where something is.
    fn open_some(
        &mut self,
        change: &mut Change,
        wanted: Vec<Wanted>,
        make_way: bool,
        host: &mut impl Forwarder,
    ) -> Result<Vec<Wanted>, Box<ReplaceError>> {
        let mut waiting = Vec::new();
        for (at, spot, target) in wanted {
            let Some((id, rule)) = change.next.get(at).map(|next| (next.id, next.rule)) else { continue };
            let key = (spot.side, spot.proto, spot.port);
            if make_way && let Some(places) = change.doomed.remove(&key) {
                self.close_early(change, &places, host);
            }
            let mut tried = self.open_beside(change.passing, id, spot, target, host);
            if make_way
                && change.passing > 0
                && tried.as_ref().is_err_and(|failed| self.is_short(change, failed))
            {
                let places: Vec<u32> = change.doomed.drain().flat_map(|(_, places)| places).collect();
                self.close_early(change, &places, host);
                tried = self.open_beside(0, id, spot, target, host);
            }
            let failed = match tried {
                Ok(place) => {
                    change.opened.push(place);
                    change.next.get_mut(at).into_iter().for_each(|next| next.places.push((place, target)));
                    continue;
                }
                Err(failed) => failed,
            };
            let ours = is_in_use(&failed) && change.doomed.contains_key(&key);
            if !make_way && (ours || change.passing > 0 && self.is_short(change, &failed)) {
                waiting.push((at, spot, target));
            } else if let Some(next) = change.next.get_mut(at).filter(|_| rule.weak()) {
                next.failed.get_or_insert(failed);
            } else {
                return Err(refused(rule, AddError::of(failed)));
            }
        }
        Ok(waiting)
    }

    /// Whether the kernel has no more descriptors, though there would be room for another socket here.
    fn is_short(&self, change: &Change, (_, error): &Failed) -> bool {
        is_exhausted(error) && self.in_use() - change.passing < self.policy.sockets
    }

    /// Closes sockets that nobody wants any more before it is sure that nobody will.
    fn close_early(&mut self, change: &mut Change, places: &[u32], host: &mut impl Forwarder) {
        change.passing -= places.len();
        for &place in places {
            if let Some(slot) = self.slot(place) {
                change.closed.push((place, slot.id, slot.spot, slot.target_port));
            }
        }
        self.close(places, host);
    }

    /// Undoes what a failed change has done; returns how many sockets are lost.
    fn take_back(&mut self, change: &Change, host: &mut impl Forwarder) -> usize {
        self.close(&change.opened, host);
        let mut lost = 0;
        for &(place, id, spot, target) in &change.closed {
            let again = self.open(id, spot, target, host);
            let Some(live) = self.rules.get_mut(&id) else { continue };
            match again {
                Ok(new) => live.slots.iter_mut().filter(|old| **old == place).for_each(|old| *old = new),
                Err((_, error)) => {
                    log::warn!("{} port {} could not be opened again: {error}", spot.proto, spot.port);
                    live.slots.retain(|old| *old != place);
                    lost += 1;
                }
            }
        }
        lost
    }

    /// The new rules are in force; what nobody wants any more is closed.
    fn settle(&mut self, change: Change, host: &mut impl Forwarder) -> Vec<RuleId> {
        let doomed: Vec<u32> = change.doomed.into_values().flatten().collect();
        self.close(&doomed, host);
        let ids = change.next.iter().map(|next| next.id).collect();
        let mut rules = BTreeMap::new();
        for Next { id, rule, counters, mut places, failed } in change.next {
            places.sort_by_key(|(place, _)| self.slot(*place).map(|slot| slot.spot.port));
            for &(place, target) in &places {
                let slot = usize::try_from(place).ok().and_then(|at| self.slots.get_mut(at));
                if let Some(slot) = slot.and_then(Option::as_mut) {
                    (slot.id, slot.target_port) = (id, target);
                }
            }
            let slots: Vec<u32> = places.into_iter().map(|(place, _)| place).collect();
            let missing = match &failed {
                Some(failed) => {
                    let missing = usize::from(rule.ports().count().get()) - slots.len();
                    say_missing(&rule, missing, failed);
                    missing
                }
                None => 0,
            };
            rules.insert(id, Live { rule, counters, slots, missing });
        }
        self.rules = rules;
        ids
    }
}

fn refused(rule: Rule, error: AddError) -> Box<ReplaceError> {
    Box::new(ReplaceError { rule, error, lost: 0 })
}

fn is_in_use((_, error): &Failed) -> bool {
    error.raw_os_error() == Some(Errno::EADDRINUSE as i32)
}
