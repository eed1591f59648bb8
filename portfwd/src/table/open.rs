//! Rules that come into force one by one.

use super::error::Failed;
use super::{AddError, Counters, Live, RuleId, Slot, Table};
use crate::forwarder::Forwarder;
use crate::listen::{Bind, Families, Listener, Spot};
use crate::rule::Rule;
use crate::rule::passt::RuleSet;
use core::num::NonZeroU16;
use nix::errno::Errno;
use std::io;

/// Where the sockets of `rule` listen: the kernel chooses the port of this one. `free`: see [`super::Policy::free`].
pub(super) fn spot_of(rule: &Rule, free: bool, host: &impl Forwarder) -> Result<Spot, AddError> {
    let families = Families { v4: host.family_on(false), v6: host.family_on(true) };
    let bind = Bind::of(rule, families).ok_or(AddError::FamilyOff(*rule, families.v4))?;
    Ok(Spot { side: rule.side(), proto: rule.proto(), bind, interface: rule.interface(), free, port: 0 })
}

/// Whether it makes no sense to try the next port, for want of descriptors or watches.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOSPC | Errno::ENOMEM | Errno::ENOBUFS))
}

impl Table {
    /// Puts `rule` in force. Of one that scans no socket is opened before [`Table::follow`] says so.
    ///
    /// # Errors
    /// When it cannot be had whole, or a weak one not at all (but for want of descriptors: then it has no ports);
    /// nothing has changed then.
    pub fn add(&mut self, rule: Rule, host: &mut impl Forwarder) -> Result<RuleId, AddError> {
        if self.policy.checked {
            let beside =
                self.rules.values().map(|live| live.rule).filter(|other| other.side() == rule.side());
            RuleSet::in_force(beside.collect()).add(rule).map_err(Box::new)?;
        }
        let spot = spot_of(&rule, self.policy.free, host)?;
        let count = usize::from(rule.ports().count().get());
        if !rule.scan() && self.tokens.len() - self.in_use() < count && !rule.weak() {
            return Err(AddError::Full(rule, self.in_use()));
        }
        let id = RuleId(self.next);
        let mut slots = Vec::new();
        let mut missing = 0;
        if !rule.scan() {
            match self.open_ports(id, &rule, spot, &mut slots, host) {
                Ok(()) => {}
                Err(failed) if !rule.weak() || slots.is_empty() && !is_exhausted(&failed.1) => {
                    self.close(&slots, host);
                    return Err(AddError::of(failed));
                }
                Err(failed) => {
                    missing = count - slots.len();
                    say_missing(&rule, missing, &failed);
                }
            }
        }
        // 2^64 ids: at a thousand a second, half a billion years.
        self.next = self.next.saturating_add(1);
        self.rules.insert(id, Live { rule, counters: Counters::default(), slots, missing });
        Ok(id)
    }

    /// Opens the ports of a rule: all up to the first that cannot be had, or of a weak rule all that can. The error is
    /// the first one.
    fn open_ports(
        &mut self,
        id: RuleId,
        rule: &Rule,
        spot: Spot,
        slots: &mut Vec<u32>,
        host: &mut impl Forwarder,
    ) -> Result<(), Failed> {
        let mut first = None;
        for (port, target_port) in rule.ports().pairs() {
            match self.open(id, Spot { port, ..spot }, target_port, host) {
                Ok(place) => slots.push(place),
                Err(failed) if rule.weak() => {
                    let exhausted = is_exhausted(&failed.1);
                    first.get_or_insert(failed);
                    if exhausted {
                        break;
                    }
                }
                Err(failed) => return Err(failed),
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Opens one socket and has it watched.
    pub(super) fn open(
        &mut self,
        id: RuleId,
        spot: Spot,
        target_port: NonZeroU16,
        host: &mut impl Forwarder,
    ) -> Result<u32, Failed> {
        self.open_beside(0, id, spot, target_port, host)
    }

    /// The same while so many sockets are there that will not stay.
    pub(super) fn open_beside(
        &mut self,
        passing: usize,
        id: RuleId,
        spot: Spot,
        target_port: NonZeroU16,
        host: &mut impl Forwarder,
    ) -> Result<u32, Failed> {
        let failed = |error| (spot, error);
        if self.in_use() - passing >= self.policy.sockets || self.in_use() >= self.tokens.len() {
            return Err(failed(Errno::EMFILE.into()));
        }
        let (listener, local) = Listener::open(spot, host).map_err(failed)?;
        let port = local.port();
        let slot = Slot { id, listener, local, target_port, spot };
        self.watch(slot, host).map_err(|error| (Spot { port, ..spot }, error))
    }
}

/// A weak rule is in force without some of its ports.
pub(super) fn say_missing(rule: &Rule, missing: usize, (spot, error): &Failed) {
    let draft = crate::rule::passt::Draft::from(rule).to_string();
    let words = slipway_host::strerror::words(error);
    log::warn!(
        "{}: {missing} ports are not to be had, the first of them {}: {words}",
        draft.trim_end(),
        spot.port
    );
}
