//! A network's rules: isolation from other bridges, the way out, the DNS server.
//!
//! Whether a subnet's rules are there is told by its chain. When two networks have the same subnet (possible with
//! VLANs), each has a copy of the rules that name the subnet; removing one network removes one copy.

use super::chains::{
    FORWARD, INPUT, ISOLATION_1, ISOLATION_2, ISOLATION_3, POSTROUTING, close_loopback, confine,
    delete_beyond, drop_invalid, end_isolation, jump, look_at_beyond, look_at_shared, make_shared,
    subnet_chain,
};
use super::plan::{Plan, Wanted};
use super::rule::{Clause, Direction, ESTABLISHED, End, RELATED, Rule};
use crate::firewall::{DNS_PORT, NetworkRules};
use crate::spec::validate::Isolation;
use ipnet::IpNet;
use std::net::IpAddr;

/// What [`add`] looks at.
pub(super) fn look_to_add(network: &NetworkRules, wanted: &mut Wanted) {
    look_at_shared(wanted);
    for chain in [ISOLATION_1, ISOLATION_2] {
        wanted.rules(chain);
    }
    for subnet in network.subnets() {
        wanted.existence(subnet_chain(&network.network_id, subnet));
    }
}

/// Adds what is missing.
pub(super) fn add(plan: &mut Plan, network: &NetworkRules) {
    make_shared(plan, network.compat);
    isolate(plan, network);
    end_isolation(plan);
    if !network.internal {
        close_loopback(plan, &network.bridge_name);
        drop_invalid(plan);
    }
    for subnet in network.subnets() {
        let chain = subnet_chain(&network.network_id, subnet);
        if !plan.has_chain(&chain) {
            add_subnet(plan, network, subnet, &chain);
        }
    }
}

fn isolate(plan: &mut Plan, network: &NetworkRules) {
    let bridge = network.bridge_name.as_str();
    let leaves = || vec![out_by(bridge, true), Clause::Drop];
    let next = match network.isolation {
        Isolation::Strict => ISOLATION_3,
        Isolation::Normal => ISOLATION_2,
        Isolation::Never => {
            if !plan.has(ISOLATION_3, |rule| rule.names(bridge)) {
                plan.insert(ISOLATION_3, Rule(leaves()));
            }
            return;
        }
    };
    if !plan.has(ISOLATION_1, |rule| rule.names(bridge)) {
        let came_in = Clause::Interface { direction: Direction::In, name: bridge.to_owned(), equal: true };
        plan.append(ISOLATION_1, Rule(vec![came_in, out_by(bridge, false), jump(next)]));
    }
    if !plan.has(ISOLATION_2, |rule| rule.names(bridge)) {
        plan.append(ISOLATION_2, Rule(leaves()));
    }
}

fn add_subnet(plan: &mut Plan, network: &NetworkRules, subnet: &IpNet, chain: &str) {
    log::info!(target: crate::firewall::NFT_TARGET, "Creating container chain {chain}");
    plan.make_chain(chain);
    if !network.internal {
        plan.append(chain, Rule(vec![to(subnet), Clause::Accept]));
        plan.append(chain, Rule(vec![unless_multicast(subnet), translate(network, subnet)]));
    }
    let dns = Clause::Port { first: DNS_PORT, last: DNS_PORT };
    plan.append(INPUT, Rule(vec![from(subnet), Clause::TcpOrUdp, dns, Clause::Accept]));
    if !network.internal {
        let answers = Clause::State(ESTABLISHED | RELATED);
        plan.append(FORWARD, Rule(vec![to(subnet), answers, Clause::Accept]));
        plan.append(FORWARD, Rule(vec![from(subnet), Clause::Accept]));
        plan.append(POSTROUTING, Rule(vec![from(subnet), jump(chain)]));
    }
}

/// The source address of what goes out.
fn translate(network: &NetworkRules, subnet: &IpNet) -> Clause {
    let fixed = match subnet {
        IpNet::V4(_) => network.outbound_addr4.map(IpAddr::V4),
        IpNet::V6(_) => network.outbound_addr6.map(IpAddr::V6),
    };
    fixed.map_or(Clause::Masquerade, Clause::Snat)
}

/// What [`remove`] looks at.
pub(super) fn look_to_remove(network: &NetworkRules, wanted: &mut Wanted) {
    look_at_beyond(wanted);
    for chain in [INPUT, FORWARD, POSTROUTING, ISOLATION_1, ISOLATION_2, ISOLATION_3] {
        wanted.rules(chain);
    }
    for subnet in network.subnets() {
        wanted.existence(subnet_chain(&network.network_id, subnet));
    }
}

/// Removes whatever is there of it.
pub(super) fn remove(plan: &mut Plan, network: &NetworkRules) {
    for subnet in network.subnets() {
        let chain = subnet_chain(&network.network_id, subnet);
        let shared = plan.has(POSTROUTING, |rule| rule.matches_net(subnet) && !rule.jumps_to(&chain));
        for base in [INPUT, FORWARD] {
            // One copy of each when another network has the same subnet.
            let mut removed: Vec<Rule> = Vec::new();
            plan.delete(base, |rule| {
                let ours = rule.matches_net(subnet) && !(shared && removed.contains(rule));
                if ours {
                    removed.push(rule.clone());
                }
                ours
            });
        }
        plan.delete(POSTROUTING, |rule| rule.jumps_to(&chain));
        plan.delete_chain(&chain);
    }
    for chain in [ISOLATION_1, ISOLATION_2, ISOLATION_3] {
        plan.delete(chain, |rule| rule.names(&network.bridge_name));
    }
    confine(plan);
    // The isolation names every bridge; those that it does not were taken down by another version.
    if plan.remove_bridges(|plan, bridge| !is_isolated(plan, bridge)) {
        delete_beyond(plan);
    }
}

fn is_isolated(plan: &Plan, bridge: &str) -> bool {
    [ISOLATION_1, ISOLATION_2, ISOLATION_3].iter().any(|chain| plan.has(chain, |rule| rule.names(bridge)))
}

fn from(subnet: &IpNet) -> Clause {
    Clause::Address { end: End::Source, net: subnet.trunc(), equal: true }
}

fn to(subnet: &IpNet) -> Clause {
    Clause::Address { end: End::Destination, net: subnet.trunc(), equal: true }
}

fn unless_multicast(subnet: &IpNet) -> Clause {
    let net = match subnet {
        IpNet::V4(_) => IpNet::new([224, 0, 0, 0].into(), 4),
        IpNet::V6(_) => IpNet::new([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8),
    };
    Clause::Address { end: End::Destination, net: net.unwrap_or_default(), equal: false }
}

fn out_by(bridge: &str, equal: bool) -> Clause {
    Clause::Interface { direction: Direction::Out, name: bridge.to_owned(), equal }
}
