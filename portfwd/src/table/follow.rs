//! Rules that scan: their ports are open while somebody listens across, which somebody else looks at.

use super::Table;
use super::open::{is_exhausted, spot_of};
use crate::forwarder::Forwarder;
use crate::listen::Spot;
use crate::rule::Proto;
use slipway_host::inside::Side;
use slipway_host::port_set::PortSet;
use std::collections::HashMap;

impl Table {
    /// Whether there is a rule that scans: only then anybody has to look.
    #[must_use]
    pub fn scans(&self) -> bool {
        self.rules.values().any(|live| live.rule.scan())
    }

    /// The ports where sockets of ours listen on a side, so that nobody takes them for a service.
    pub fn listening(&self, side: Side, proto: Proto) -> impl Iterator<Item = u16> {
        let here = move |spot: &Spot| spot.side == side && spot.proto == proto;
        self.slots.iter().flatten().filter(move |slot| here(&slot.spot)).map(|slot| slot.local.port())
    }

    /// Opens and closes ports of the rules of `side` that scan: those are open from now on which lead to a port that is
    /// `open` across. One that cannot be had (somebody else listens there) is tried again the next time. Returns
    /// whether anything has changed.
    pub fn follow(&mut self, side: Side, proto: Proto, open: &PortSet, host: &mut impl Forwarder) -> bool {
        let mut changed = false;
        let scanning =
            |live: &super::Live| live.rule.scan() && live.rule.side() == side && live.rule.proto() == proto;
        let ids: Vec<_> = self.rules.iter().filter(|(_, live)| scanning(live)).map(|(&id, _)| id).collect();
        for id in ids {
            let Some(live) = self.rules.get_mut(&id) else { continue };
            let rule = live.rule;
            let Ok(spot) = spot_of(&rule, self.policy.free, host) else { continue };
            let places = core::mem::take(&mut live.slots);
            let known = places.iter().filter_map(|&place| Some((self.slot(place)?.spot.port, place)));
            let mut known: HashMap<u16, u32> = known.collect();
            let mut slots = Vec::new();
            let mut exhausted = false;
            for (port, target) in open.iter().filter_map(|target| rule.ports().leading_to(target)) {
                if let Some(place) = known.remove(&port) {
                    slots.push(place);
                } else if !exhausted {
                    match self.open(id, Spot { port, ..spot }, target, host) {
                        Ok(place) => {
                            changed = true;
                            slots.push(place);
                        }
                        Err((_, error)) => {
                            exhausted = is_exhausted(&error);
                            log::debug!("{} port {port} is not to be had: {error}", rule.proto());
                        }
                    }
                }
            }
            let gone: Vec<u32> = known.into_values().collect();
            changed |= !gone.is_empty();
            self.close(&gone, host);
            if let Some(live) = self.rules.get_mut(&id) {
                live.slots = slots;
            }
        }
        changed
    }
}
