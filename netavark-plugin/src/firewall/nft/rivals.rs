//! Rules that others have for a newcomer's ports and addresses.
//!
//! The first rule that matches decides, and rules of a container that vanished without a teardown stay. So at setup
//! ([`clear`]) those of the dead go: of whoever had the newcomer's address before, of everybody if nobody is left on
//! the network, and of those whose port is wanted and whom nobody has seen. Rules for a port of somebody who lives come
//! behind the newcomer's ([`Cleared::put_behind`]): the newest one counts, and when it goes the other one is in force
//! again.
//!
//! What led to a rule that has gone goes with it as far as nothing else needs it ([`prune`]).

use super::chains::DNAT;
use super::plan::{Plan, Wanted};
use super::ports::{own_chains, translations};
use super::rule::{Clause, Rule};
use super::translation::{Match, Translation, prune};
use crate::firewall::PortRules;
use std::collections::HashSet;
use std::net::IpAddr;

/// The end of the names of chains with translations.
const SUFFIX: &str = "_dnat";

/// The chains to which the newcomer's packets could be sent, by the jumps that were `seen`: others may have the same
/// ports.
pub(super) fn to_look_at(ports: &PortRules, seen: &Plan) -> Wanted {
    let translated = translations(ports);
    let mut wanted = Wanted::default();
    for rule in seen.rules(DNAT) {
        let meets = |matched| translated.iter().any(|it| it.matched.meets(&matched));
        if let Some(chain) = target(rule).filter(|_| Match::of(rule).is_some_and(meets)) {
            wanted.rules(chain);
        }
    }
    wanted
}

fn target(rule: &Rule) -> Option<&str> {
    rule.clauses().iter().find_map(|clause| match clause {
        Clause::Jump(chain) if chain.ends_with(SUFFIX) => Some(chain.as_str()),
        _ => None,
    })
}

/// What [`clear`] did.
#[derive(Debug, Default)]
pub(super) struct Cleared {
    behind: Vec<(String, Rule)>,
    /// The addresses whose rules have gone.
    pub(super) dead: HashSet<IpAddr>,
}

/// Makes room for the newcomer `ports`. `alone`: nobody else is on its network. `lives`: whether somebody has an
/// address.
pub(super) fn clear(
    plan: &mut Plan,
    ports: &PortRules,
    alone: bool,
    lives: impl Fn(IpAddr) -> bool,
) -> Cleared {
    let wanted = translations(ports);
    let taken: Vec<IpAddr> = ports.addresses().map(|(address, _)| address).collect();
    let own: Vec<_> = own_chains(ports).collect();
    let all: Vec<String> = plan.chains().filter(|chain| chain.ends_with(SUFFIX)).map(str::to_owned).collect();
    let mut cleared = Cleared::default();
    for chain in &all {
        let is_own = own.contains(chain);
        let is_rival = |it: &Translation| wanted.iter().any(|wanted| wanted.meets(it));
        let there: Vec<_> = plan.rules(chain).filter_map(Translation::of).collect();
        let is_dead = |it: &&Translation| {
            (is_own && (alone || taken.contains(&it.to))) || (is_rival(it) && !lives(it.to))
        };
        let dead: HashSet<_> = there.iter().filter(is_dead).map(|it| it.to).collect();
        if !dead.is_empty() {
            plan.delete(chain, |rule| Translation::of(rule).is_some_and(|it| dead.contains(&it.to)));
            if plan.understands(chain) {
                prune(plan, chain, |_, _| true);
            }
            cleared.dead.extend(dead);
        }
        if is_own {
            cleared.take(plan, chain, |rule| Translation::of(rule).is_some_and(|it| is_rival(&it)));
        } else {
            // In another network's chain the order does not matter, but which chain comes first.
            let rival = |rule: &Rule| {
                rule.jumps_to(chain)
                    && Match::of(rule).is_some_and(|it| wanted.iter().any(|wanted| wanted.matched.meets(&it)))
            };
            cleared.take(plan, DNAT, rival);
        }
    }
    cleared
}

impl Cleared {
    /// Takes rules out that come back behind.
    fn take(&mut self, plan: &mut Plan, chain: &str, such: impl Fn(&Rule) -> bool) {
        let behind = &mut self.behind;
        plan.delete(chain, |rule| {
            let takes = such(rule);
            if takes {
                behind.push((chain.to_owned(), rule.clone()));
            }
            takes
        });
    }

    /// Puts the rules of those who live behind what the newcomer has by now.
    pub(super) fn put_behind(&self, plan: &mut Plan) {
        for (chain, rule) in &self.behind {
            plan.append(chain, rule.clone());
        }
    }
}
