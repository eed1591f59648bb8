//! A network's rules: isolation from other bridges, the way out, the DNS server.
//!
//! A network that is in use may have got another definition, so what is there is compared with what should be. When
//! two networks have the same subnet (possible with VLANs), each has a copy of the rules that name the subnet; removing
//! one network removes one copy. Whose copy is there is told by the subnet's chain, which has the network's ID, and the
//! jump to it, which goes with a way out. Rules of a bridge that two networks have are added only: nothing says which
//! of them they are of.

use super::chains::{
    FORWARD, INPUT, ISOLATION_1, ISOLATION_2, ISOLATION_3, POSTROUTING, close_loopback, confine,
    delete_beyond, drop_invalid, end_isolation, jump, look_at_beyond, look_at_shared, make_shared, out_by,
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
    for chain in [ISOLATION_1, ISOLATION_2, INPUT] {
        wanted.rules(chain);
    }
    for subnet in network.subnets() {
        wanted.rules(subnet_chain(&network.network_id, subnet));
    }
}

/// Adds what is missing, and takes away what the network had by another definition; of what belongs to its bridge only
/// if no other network has that (`alone`).
pub(super) fn add(plan: &mut Plan, network: &NetworkRules, alone: bool) {
    make_shared(plan, network.compat);
    isolate(plan, network, alone);
    end_isolation(plan);
    if !network.internal {
        close_loopback(plan, &network.bridge_name);
        drop_invalid(plan);
    }
    for subnet in network.subnets() {
        complete_subnet(plan, network, subnet);
    }
}

fn isolate(plan: &mut Plan, network: &NetworkRules, alone: bool) {
    let bridge = network.bridge_name.as_str();
    let came_in = || Clause::Interface { direction: Direction::In, name: bridge.to_owned(), equal: true };
    let leaves_to = |next| Rule(vec![came_in(), out_by(bridge, false), jump(next)]);
    let closed = || Rule(vec![out_by(bridge, true), Clause::Drop]);
    let wanted = match network.isolation {
        Isolation::Strict => [Some(leaves_to(ISOLATION_3)), Some(closed()), None],
        Isolation::Normal => [Some(leaves_to(ISOLATION_2)), Some(closed()), None],
        Isolation::Never => [None, None, Some(closed())],
    };
    for (chain, wanted) in [ISOLATION_1, ISOLATION_2, ISOLATION_3].into_iter().zip(wanted) {
        if alone {
            plan.delete(chain, |rule| rule.names(bridge) && Some(rule) != wanted.as_ref());
        }
        let Some(rule) = wanted.filter(|wanted| !plan.has(chain, |rule| rule == wanted)) else { continue };
        // What ends the third chain stays its end.
        if chain == ISOLATION_3 {
            plan.insert(chain, rule);
        } else {
            plan.append(chain, rule);
        }
    }
}

fn complete_subnet(plan: &mut Plan, network: &NetworkRules, subnet: &IpNet) {
    let chain = &subnet_chain(&network.network_id, subnet);
    let new = !plan.has_chain(chain);
    if new {
        log::info!(target: crate::firewall::NFT_TARGET, "Creating container chain {chain}");
        plan.make_chain(chain);
    }
    complete_chain(plan, network, subnet, chain);
    let dns = Clause::Port { first: DNS_PORT, last: DNS_PORT };
    let asks = Rule(vec![from(subnet), Clause::TcpOrUdp, dns, Clause::Accept]);
    if new || !plan.has(INPUT, |rule| *rule == asks) {
        plan.append(INPUT, asks);
    }
    let led_out = plan.has(POSTROUTING, |rule| rule.jumps_to(chain));
    if network.internal {
        if led_out {
            remove_of_subnet(plan, &[FORWARD], subnet, chain);
            plan.delete(POSTROUTING, |rule| rule.jumps_to(chain));
        }
        return;
    }
    let answers = Clause::State(ESTABLISHED | RELATED);
    for rule in [Rule(vec![to(subnet), answers, Clause::Accept]), Rule(vec![from(subnet), Clause::Accept])] {
        if !led_out || !plan.has(FORWARD, |there| *there == rule) {
            plan.append(FORWARD, rule);
        }
    }
    if !led_out {
        plan.append(POSTROUTING, Rule(vec![from(subnet), jump(chain)]));
    }
}

/// The subnet's own chain. Rules that others have put into it stay.
fn complete_chain(plan: &mut Plan, network: &NetworkRules, subnet: &IpNet, chain: &str) {
    let within = Rule(vec![to(subnet), Clause::Accept]);
    let outward = unless_multicast(subnet);
    let is_ours = |rule: &Rule| *rule == within || rule.clauses().first() == Some(&outward);
    let mut wanted = Vec::new();
    if !network.internal {
        wanted = vec![within.clone(), Rule(vec![outward.clone(), translate(network, subnet)])];
    }
    if !plan.rules(chain).filter(|rule| is_ours(rule)).eq(&wanted) {
        plan.delete(chain, is_ours);
        wanted.into_iter().for_each(|rule| plan.append(chain, rule));
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
        remove_of_subnet(plan, &[INPUT, FORWARD], subnet, &chain);
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

/// Removes the rules that name the subnet from these chains; one copy of each when another network has the same.
fn remove_of_subnet(plan: &mut Plan, bases: &[&str], subnet: &IpNet, chain: &str) {
    let shared = plan.has(POSTROUTING, |rule| rule.matches_net(subnet) && !rule.jumps_to(chain));
    for base in bases {
        let mut removed: Vec<Rule> = Vec::new();
        plan.delete(base, |rule| {
            let ours = rule.matches_net(subnet) && !(shared && removed.contains(rule));
            if ours {
                removed.push(rule.clone());
            }
            ours
        });
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
