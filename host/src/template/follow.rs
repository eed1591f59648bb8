//! The host's network changes, and the guest's with it.
//!
//! [`Following`] knows what the guest's interface has, and says from one template to the next which steps lead there.
//! They are few and gentle: what is new is added before anything goes, and an address that the host has lost stays, for
//! whatever speaks from it. A kernel drops the connections of an address that it takes away, of containers behind the
//! guest's masquerade too, so an old address is *deprecated*: nothing new is begun from it. It goes when an hour has
//! passed and nobody has a flow from it any more.
//!
//! IPv4 does not know deprecated addresses when it chooses one (Linux `inet_select_addr` takes the first of the link).
//! So from the first change on the routes of IPv4 say their source themselves.
//!
//! A host that has lost its network leaves the guest as it was: it may be back in a second. Local mode gives way to the
//! first network that appears.
//!
//! Pure: time is an argument, and whether somebody speaks from an address is asked of the caller.

use super::copy::Change;
use super::plan::Op;
use super::record::Family;
use super::{Side, Template};
use ipnet::IpNet;
use slipway_netstack::clock::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How long an address stays at least that the host has lost.
const KEPT: Duration = Duration::from_secs(3600);

/// How soon it is looked at again whether anybody speaks from it.
const AGAIN: Duration = Duration::from_secs(60);

/// Addresses of one family that are kept: the oldest goes for another one. A host that changes them every minute has an
/// hour's worth.
const OLD: usize = 64;

/// How long changes are gathered: a renewal, or a link that comes up, is a dozen of them.
const GATHERED: Duration = Duration::from_millis(200);

/// How many times as long as a look takes the next one waits for.
const SHARE: u32 = 20;

/// What the guest's interface has, and what it had.
#[derive(Debug)]
pub struct Following {
    template: Template,
    v4: State,
    v6: State,
}

/// The same for one family.
#[derive(Debug, Default)]
struct State {
    /// Its routes, as they were written.
    routes: Vec<Change>,
    /// Addresses that the host has lost, the oldest first.
    old: Vec<Old>,
    /// Whether routes name their source.
    has_sources: bool,
}

#[derive(Debug)]
struct Old {
    net: IpNet,
    change: Change,
    /// When it may go.
    until: Instant,
}

impl Following {
    /// Begins with what a [`plan`](super::plan()) of `template` has configured.
    #[must_use]
    pub fn new(template: Template) -> Self {
        let state = |side: &Option<Side>| State {
            routes: side.as_ref().map(|side| side.routes.clone()).unwrap_or_default(),
            ..State::default()
        };
        Self { v4: state(&template.v4), v6: state(&template.v6), template }
    }

    /// What the guest is like now.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// What an engine must know of it: the guest's addresses, old ones too, and gateways.
    #[must_use]
    pub fn visible(&self) -> (Vec<IpNet>, Vec<Option<IpAddr>>) {
        let current = self.template.sides().flat_map(|side| side.addresses.iter().copied());
        (current.chain(self.old()).collect(), self.template.sides().map(|side| side.gateway).collect())
    }

    /// Addresses that the guest has besides those of the template, and uses for what it began with them.
    pub fn old(&self) -> impl Iterator<Item = IpNet> {
        [&self.v4, &self.v6].into_iter().flat_map(|state| &state.old).map(|old| old.net)
    }

    /// The steps to what the host is like now. Without any nothing has changed that matters.
    pub fn turn_to(&mut self, now: Instant, fresh: Template) -> Vec<Op> {
        let mut steps = turn(&mut self.v4, now, &mut self.template.v4, fresh.v4);
        steps.extend(turn(&mut self.v6, now, &mut self.template.v6, fresh.v6));
        steps
    }

    /// The steps that take away addresses whose time has passed, and from which nobody speaks.
    pub fn retire(&mut self, now: Instant, is_in_use: impl Fn(IpAddr) -> bool) -> Vec<Op> {
        let mut steps = Vec::new();
        for state in [&mut self.v4, &mut self.v6] {
            state.old.retain_mut(|old| {
                if old.until > now {
                    return true;
                }
                if is_in_use(old.net.addr()) {
                    old.until = now + AGAIN;
                    return true;
                }
                steps.push(remove(old));
                false
            });
        }
        before_removals(steps)
    }

    /// When [`retire`](Self::retire) has something to look at.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        [&self.v4, &self.v6].into_iter().flat_map(|state| &state.old).map(|old| old.until).min()
    }
}

/// One family's steps.
fn turn(state: &mut State, now: Instant, current: &mut Option<Side>, fresh: Option<Side>) -> Vec<Op> {
    let (Some(before), Some(after)) = (current.as_ref(), fresh) else { return Vec::new() };
    if after.interface.is_none() && before.interface.is_some() {
        return Vec::new();
    }
    let given: BTreeSet<_> = before.given.iter().collect();
    let fresh = after.given.iter().filter(|change| !given.contains(change));
    let mut steps: Vec<Op> = fresh.cloned().map(Op::Address).collect();
    // What is back is no longer old, and what is given again is no longer deprecated.
    let has: BTreeSet<IpAddr> = after.addresses.iter().map(IpNet::addr).collect();
    state.old.retain(|old| !has.contains(&old.net.addr()));
    let mut gone = Vec::new();
    for (net, change) in before.addresses.iter().zip(&before.given) {
        if !has.contains(&net.addr()) {
            gone.push(Op::Deprecate(change.deprecated()));
            state.old.push(Old { net: *net, change: change.clone(), until: now + KEPT });
        }
    }
    let too_many = state.old.len().saturating_sub(OLD);
    let removed: Vec<Op> = state.old.drain(..too_many).map(|old| remove(&old)).collect();
    state.has_sources |= !state.old.is_empty();
    let routes = sourced(&after, state.has_sources);
    let (had, has): (BTreeSet<_>, BTreeSet<_>) = (state.routes.iter().collect(), routes.iter().collect());
    steps.extend(routes.iter().filter(|route| !had.contains(route)).cloned().map(Op::Route));
    steps.extend(gone);
    let lost = state.routes.iter().filter(|route| !has.contains(route));
    steps.extend(lost.cloned().map(Op::RemoveRoute));
    steps.extend(before_removals(removed));
    state.routes = routes;
    *current = Some(after);
    steps
}

fn remove(old: &Old) -> Op {
    Op::RemoveAddress(old.change.clone())
}

/// With an address of IPv4 all others of its network would go that came later.
fn before_removals(steps: Vec<Op>) -> Vec<Op> {
    let v4 =
        steps.iter().any(|step| matches!(step, Op::RemoveAddress(change) if change.family() == Family::V4));
    v4.then_some(Op::PromoteSecondaries).into_iter().chain(steps).collect()
}

/// A side's routes, those of IPv4 with their source if that is wanted: the address in the network that a route leads
/// to, or else the main one.
fn sourced(side: &Side, wanted: bool) -> Vec<Change> {
    let Some(main) = side.addresses.first().filter(|net| wanted && net.addr().is_ipv4()) else {
        return side.routes.clone();
    };
    // Of several in one network the first counts.
    let near: BTreeMap<IpNet, IpAddr> =
        side.addresses.iter().rev().map(|net| (net.trunc(), net.addr())).collect();
    let source = |route: &Change| {
        let to = route.destination().and_then(|to| near.get(&to));
        to.copied().unwrap_or_else(|| main.addr())
    };
    side.routes.iter().map(|route| route.with_source(source(route))).collect()
}

/// Changes come in swarms: the first sets a time, and what comes until then counts with it. Where a look takes long, as
/// on a router whose routes never rest, the next one waits longer, so that looking is a twentieth of the time at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gather {
    due: Option<Instant>,
    rests_until: Instant,
}

impl Gather {
    /// Something has changed.
    pub fn note(&mut self, now: Instant) {
        self.due.get_or_insert_with(|| (now + GATHERED).max(self.rests_until));
    }

    /// A look that began at `begun` is over.
    pub fn looked(&mut self, begun: Instant, now: Instant) {
        self.rests_until = now + now.since(begun) * SHARE;
    }

    /// When to look at it.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is time; then it begins anew.
    pub fn take(&mut self, now: Instant) -> bool {
        let is_time = self.due.is_some_and(|due| due <= now);
        if is_time {
            self.due = None;
        }
        is_time
    }
}
