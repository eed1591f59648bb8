//! Rules that send packets to a container, and what leads to them: compared by the packets that they mean.
//!
//! Jumps to a network's chain, and the marks in it, are shared by all containers of the network that have the same
//! port. They go with the last translation that they lead to ([`prune`]).

use super::chains::DNAT;
use super::plan::Plan;
use super::rule::{Clause, End, Rule};
use ipnet::IpNet;
use std::collections::HashSet;
use std::net::IpAddr;

/// What a rule asks of a packet: the address that it is for, the protocol, the ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Match {
    host: Option<IpNet>,
    protocol: u8,
    first: u16,
    last: u16,
}

impl Match {
    /// `None` for a rule that asks for no port.
    pub(super) fn of(rule: &Rule) -> Option<Self> {
        let (mut host, mut protocol, mut ports) = (None, None, None);
        for clause in rule.clauses() {
            match clause {
                Clause::Address { end: End::Destination, net, equal: true } => host = Some(*net),
                Clause::Protocol(number) => protocol = Some(*number),
                Clause::Port { first, last } => ports = Some((*first, *last)),
                _ => {}
            }
        }
        let (first, last) = ports?;
        Some(Self { host, protocol: protocol?, first, last })
    }

    /// Whether some packet is meant by both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let hosts = self.host.zip(other.host).is_none_or(|(one, two)| one == two);
        hosts && self.protocol == other.protocol && self.first <= other.last && other.first <= self.last
    }
}

/// A rule that sends packets to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Translation {
    pub(super) matched: Match,
    pub(super) to: IpAddr,
}

impl Translation {
    /// `None` for any other rule, the DNS server's own included.
    pub(super) fn of(rule: &Rule) -> Option<Self> {
        let to = rule.clauses().iter().find_map(|clause| match clause {
            Clause::Dnat(to) => Some(to.ip()),
            Clause::DnatByPort(map) => Some(map.to.ip()),
            _ => None,
        })?;
        Some(Self { matched: Match::of(rule)?, to })
    }

    pub(super) fn meets(&self, other: &Self) -> bool {
        self.to.is_ipv4() == other.to.is_ipv4() && self.matched.meets(&other.matched)
    }
}

/// Removes jumps to a chain, and marks in it, that lead to no translation any more, as far as `such` (chain, rule)
/// says. One that is needed stays once.
pub(super) fn prune(plan: &mut Plan, chain: &str, such: impl Fn(&str, &Rule) -> bool) {
    let left: Vec<_> = plan.rules(chain).filter_map(Translation::of).collect();
    let is_needed =
        |rule: &Rule| Match::of(rule).is_some_and(|it| left.iter().any(|other| other.matched.meets(&it)));
    for place in [DNAT, chain] {
        let mut kept = HashSet::new();
        plan.delete(place, |rule| {
            let concerned =
                if place == DNAT { rule.jumps_to(chain) } else { Translation::of(rule).is_none() };
            concerned && such(place, rule) && !(is_needed(rule) && kept.insert(rule.clone()))
        });
    }
}
