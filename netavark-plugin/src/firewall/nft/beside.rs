//! What stands in our table while firewalld keeps the rules: what it has no words for.
//!
//! - The host's loopback is nobody else's: the chain LOOPBACK, see [`chains`].
//! - Questions to a DNS server go where it listens: the chain NAMES. A forward of firewalld's looks at the port alone,
//!   and has no order among others, so a published port that covers 53 would take them. A connection is translated
//!   once, and this chain is asked before firewalld's, which have 10 more than the usual priority.
//! - A published port leads back into its own network: the chain HAIRPIN. Without another source the answers would go
//!   straight to who asked, from an address that it has not asked. firewalld's policies masquerade IPv4 alone.
//!
//! As with the driver nftables, a server that listens on port 53 has its rule only while a published port covers that.

use super::chains::{self, out_by};
use super::kernel;
use super::plan::{Base, Plan, Wanted};
use super::ports::{keeps_names, move_dns, moves_dns, moves_dns_within};
use super::rule::{Clause, End, Rule};
use crate::error::Result;
use crate::firewall::{DNS_PORT, NetworkRules, PortRules};
use slipway_host::netlink::netfilter::Netfilter;
use std::net::IpAddr;

/// Of the kind and at the place of PREROUTING.
static NAMES: Base = Base { name: "NAMES", kind: "nat", hook: 0, hook_name: "prerouting", priority: -100 };

/// Of the kind and at the place of POSTROUTING.
static HAIRPIN: Base =
    Base { name: "HAIRPIN", kind: "nat", hook: 4, hook_name: "postrouting", priority: 100 };

/// DNS servers, and what may take their questions.
#[derive(Debug, Clone, Copy)]
pub(in crate::firewall) struct Names<'a> {
    pub(in crate::firewall) servers: &'a [IpAddr],
    /// Where they listen.
    pub(in crate::firewall) port: u16,
    /// Whether a published port covers 53.
    pub(in crate::firewall) covered: bool,
}

impl<'a> Names<'a> {
    /// Those that need a rule.
    fn led(self) -> &'a [IpAddr] {
        if self.covered || self.port != DNS_PORT { self.servers } else { &[] }
    }
}

/// Closes the loopback to everybody but the host itself and leads published ports back, if the network has a way out.
pub(in crate::firewall) fn stand_beside(socket: &mut Netfilter, network: &NetworkRules) -> Result<()> {
    if network.internal {
        return Ok(());
    }
    let mut wanted = look_to_turn_back();
    chains::look_at_beyond(&mut wanted);
    kernel::change(socket, &wanted, |plan| {
        plan.make_table();
        chains::close_loopback(plan, &network.bridge_name);
        turn_back(plan, network);
        Ok(())
    })
}

pub(super) fn look_to_turn_back() -> Wanted {
    let mut wanted = Wanted::default();
    wanted.rules(HAIRPIN.name);
    wanted
}

/// Connections to published ports that come from the network itself have the bridge's address there.
pub(super) fn turn_back(plan: &mut Plan, network: &NetworkRules) {
    for subnet in network.subnets().iter().filter(|subnet| subnet.addr().is_ipv6()) {
        plan.make_base_chain(&HAIRPIN);
        let at = |end| Clause::Address { end, net: subnet.trunc(), equal: true };
        // Networks may have a subnet in common; a bridge is somebody's as long as there is anybody on it.
        let by = out_by(&network.bridge_name, true);
        let back =
            Rule(vec![by, at(End::Source), at(End::Destination), Clause::Rewritten, Clause::Masquerade]);
        if !plan.has(HAIRPIN.name, |rule| *rule == back) {
            plan.append(HAIRPIN.name, back);
        }
    }
}

/// Leads questions to the servers that need it.
pub(in crate::firewall) fn lead_names(socket: &mut Netfilter, names: Names<'_>) -> Result<()> {
    if names.led().is_empty() {
        return Ok(());
    }
    let mut wanted = Wanted::default();
    wanted.rules(NAMES.name);
    kernel::change(socket, &wanted, |plan| {
        add(plan, names);
        Ok(())
    })
}

/// Takes away what nobody needs any more once a container has gone, and with the last one (`complete`) its network's.
/// `covered` is whether another one's published port covers 53.
pub(in crate::firewall) fn tidy(
    socket: &mut Netfilter,
    network: &NetworkRules,
    ports: &PortRules,
    complete: bool,
    covered: bool,
) -> Result<()> {
    let wanted = look_to_remove(complete);
    kernel::change(socket, &wanted, |plan| {
        remove(plan, network, ports, complete, covered);
        Ok(())
    })
}

pub(super) fn add(plan: &mut Plan, names: Names<'_>) {
    plan.make_table();
    plan.make_base_chain(&NAMES);
    for server in names.led() {
        if !plan.has(NAMES.name, |rule| moves_dns(rule, *server)) {
            plan.append(NAMES.name, move_dns(*server, names.port));
        }
    }
}

pub(super) fn look_to_remove(complete: bool) -> Wanted {
    let mut wanted = Wanted::default();
    wanted.rules(NAMES.name);
    if complete {
        wanted.rules(HAIRPIN.name);
        chains::look_at_beyond(&mut wanted);
    }
    wanted
}

pub(super) fn remove(
    plan: &mut Plan,
    network: &NetworkRules,
    ports: &PortRules,
    complete: bool,
    covered: bool,
) {
    if !covered {
        plan.delete(NAMES.name, keeps_names);
    }
    if complete {
        plan.delete(NAMES.name, |rule| {
            ports.dns_server_ips.iter().any(|server| moves_dns(rule, *server))
                || network.subnets().iter().any(|subnet| moves_dns_within(rule, subnet))
        });
        plan.delete(HAIRPIN.name, |rule| rule.names(&network.bridge_name));
        if plan.remove_bridges(|_, bridge| bridge == network.bridge_name) {
            chains::delete_beyond(plan);
        }
    }
    for chain in [NAMES.name, HAIRPIN.name] {
        if plan.is_empty(chain) {
            plan.delete_chain(chain);
        }
    }
}
