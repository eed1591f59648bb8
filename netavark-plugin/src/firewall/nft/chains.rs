//! The chains of the table `inet netavark`, and the rules in them that belong to no network.
//!
//! ```text
//!  hook          chain          what it does
//!  input         INPUT          lets containers reach the DNS server
//!  forward       FORWARD        ─▶ ISOLATION-1 ─▶ ISOLATION-3 ─▶ ISOLATION-2 ; lets containers out and answers in
//!  prerouting    PREROUTING ┐
//!  output        OUTPUT     ┴─▶ HOSTPORT-DNAT ─▶ nv_…_dnat ─▶ HOSTPORT-SETMARK ; sends published ports to containers
//!  postrouting   POSTROUTING    masquerades what SETMARK marked ; ─▶ nv_… masquerades what leaves a subnet
//! ```
//! Names and order are the contract: other programs and older versions look for them.
//!
//! Beyond the contract, as long as a network has a way out: the chain LOOPBACK. Bridges have route_localnet, so that
//! the answers to what the host sent to 127.0.0.1 find their way back. With it a container reaches the host's loopback
//! by its gateway, and a port published for 127.0.0.1 is translated for whoever forges that destination, for
//! translation comes before the kernel looks whether an address may come from there. So it is looked at first of all.
//! ::1 needs it only where frames that stay on a bridge pass the firewall, too (br_netfilter): elsewhere the kernel
//! drops it before any rule. Which bridges are ours says the set `bridges`; it may be empty.
//!
//! Shared rules concern our own bridges and connections. The contract's drop what is invalid of everybody whom the host
//! routes for (half of a connection seen is invalid), and masquerade whatever bears the mark: ours stand in the same
//! place and ask for more. What is invalid and goes to a bridge is dropped in a chain of its own, INVALID, which is
//! there as LOOPBACK is, for the suites count the rules of FORWARD.

use super::plan::{Base, Plan, Wanted};
use super::rule::{Clause, Direction, End, INVALID, Rule};
use crate::spec::Compat;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr};

/// The table.
pub(super) const TABLE: &str = "netavark";
/// That of [`super::internal`].
pub(super) const INTERNAL_TABLE: &str = "netavark_internal";

pub(super) const INPUT: &str = "INPUT";
pub(super) const FORWARD: &str = "FORWARD";
pub(super) const POSTROUTING: &str = "POSTROUTING";
pub(super) const PREROUTING: &str = "PREROUTING";
pub(super) const OUTPUT: &str = "OUTPUT";
pub(super) const DNAT: &str = "NETAVARK-HOSTPORT-DNAT";
pub(super) const SETMARK: &str = "NETAVARK-HOSTPORT-SETMARK";
pub(super) const ISOLATION_1: &str = "NETAVARK-ISOLATION-1";
pub(super) const ISOLATION_2: &str = "NETAVARK-ISOLATION-2";
pub(super) const ISOLATION_3: &str = "NETAVARK-ISOLATION-3";

/// The mark of packets to be masqueraded.
pub(super) const MASQUERADE_MARK: u32 = 0x2000;
/// The mark of connections to published ports, which isolation does not concern.
pub(super) const PUBLISHED_MARK: u32 = 0x1000;

/// In the order in which they are made, which is the order of a listing.
pub(super) static BASES: [Base; 5] = [
    Base { name: INPUT, kind: "filter", hook: 1, hook_name: "input", priority: 0 },
    Base { name: FORWARD, kind: "filter", hook: 2, hook_name: "forward", priority: 0 },
    Base { name: POSTROUTING, kind: "nat", hook: 4, hook_name: "postrouting", priority: 100 },
    Base { name: PREROUTING, kind: "nat", hook: 0, hook_name: "prerouting", priority: -100 },
    Base { name: OUTPUT, kind: "nat", hook: 3, hook_name: "output", priority: -100 },
];

/// Before everything else, the connection tracker included.
static LOOPBACK: Base =
    Base { name: "LOOPBACK", kind: "filter", hook: 0, hook_name: "prerouting", priority: -300 };

/// At the place of FORWARD.
static INVALID_CHAIN: Base =
    Base { name: "INVALID", kind: "filter", hook: 2, hook_name: "forward", priority: 0 };

/// The chain of a subnet: `nv_2f259bab_10_88_0_0_nm16`.
pub(super) fn subnet_chain(network_id: &str, subnet: &IpNet) -> String {
    let id = network_id.get(..8).unwrap_or(network_id);
    let subnet = subnet.to_string().replace('.', "_").replace(':', "-").replace('/', "_nm");
    format!("nv_{id}_{subnet}")
}

/// The chain of the published ports of a subnet.
pub(super) fn dnat_chain(network_id: &str, subnet: &IpNet) -> String {
    format!("{}_dnat", subnet_chain(network_id, subnet))
}

/// What [`make_shared`] looks at.
pub(super) fn look_at_shared(wanted: &mut Wanted) {
    look_at_beyond(wanted);
    for chain in [FORWARD, POSTROUTING, PREROUTING, OUTPUT, SETMARK, ISOLATION_1, ISOLATION_2, ISOLATION_3] {
        wanted.rules(chain);
    }
    for chain in [INPUT, DNAT] {
        wanted.existence(chain);
    }
}

/// Makes the table, the chains and the rules that all networks share, where they are missing. The rule that ends the
/// isolation comes after the network's own, see [`end_isolation`].
pub(super) fn make_shared(plan: &mut Plan, compat: Compat) {
    plan.make_table();
    plan.make_bridge_set();
    for base in &BASES {
        plan.make_base_chain(base);
    }
    for chain in [DNAT, SETMARK, ISOLATION_1, ISOLATION_2, ISOLATION_3] {
        plan.make_chain(chain);
    }
    confine(plan);
    for Confined { chain, ours, .. } in confined() {
        if !plan.has(chain, |rule| *rule == ours) {
            plan.insert(chain, ours);
        }
    }
    let set_mark = Rule(vec![Clause::SetPacketMark(MASQUERADE_MARK)]);
    if !plan.has(SETMARK, |rule| *rule == set_mark) {
        plan.append(SETMARK, set_mark);
    }
    for chain in [PREROUTING, OUTPUT] {
        if !plan.has(chain, |rule| rule.jumps_to(DNAT)) {
            plan.append(chain, Rule(vec![Clause::LocalDestination, jump(DNAT)]));
        }
    }
    make_forward(plan, compat);
}

/// A shared rule that stands first in its chain.
struct Confined {
    chain: &'static str,
    /// As the original and earlier versions have it: for everybody's packets.
    everybodys: Rule,
    /// As it is here, and how it begins must not matter to the suites.
    ours: Rule,
}

fn confined() -> [Confined; 2] {
    let confined = |chain, whose, what: [Clause; 2]| Confined {
        chain,
        everybodys: Rule(what.to_vec()),
        ours: Rule([vec![whose], what.to_vec()].concat()),
    };
    let marked = [Clause::PacketMark(MASQUERADE_MARK), Clause::Masquerade];
    [
        // Not "by our bridges": those of another version, which finds its rule here and adds none, count as well.
        confined(POSTROUTING, Clause::Rewritten, marked),
        confined(FORWARD, Clause::OurBridge(Direction::In), [Clause::State(INVALID), Clause::Drop]),
    ]
}

/// Replaces the shared rules of another version, if they are there: they would concern others for ever.
pub(super) fn confine(plan: &mut Plan) {
    for Confined { chain, everybodys, ours } in confined() {
        if !plan.has(chain, |rule| *rule == everybodys) {
            continue;
        }
        // Those that it stood for are not to be without it.
        plan.make_bridge_set();
        for isolation in [ISOLATION_1, ISOLATION_2, ISOLATION_3] {
            for bridge in plan.interfaces(isolation) {
                plan.add_bridge(&bridge);
            }
        }
        plan.delete(chain, |rule| *rule == everybodys);
        plan.insert(chain, ours);
    }
}

/// What is to be known of the set and the chains beyond the contract.
pub(super) fn look_at_beyond(wanted: &mut Wanted) {
    wanted.bridges();
    for base in [&LOOPBACK, &INVALID_CHAIN] {
        wanted.existence(base.name);
    }
}

/// Takes those chains away, when no bridge is left in the set.
pub(super) fn delete_beyond(plan: &mut Plan) {
    for base in [&LOOPBACK, &INVALID_CHAIN] {
        plan.delete_chain(base.name);
    }
}

/// Drops what is invalid and goes to one of our bridges.
pub(super) fn drop_invalid(plan: &mut Plan) {
    if !plan.has_chain(INVALID_CHAIN.name) {
        plan.make_base_chain(&INVALID_CHAIN);
        let to = Clause::OurBridge(Direction::Out);
        plan.append(INVALID_CHAIN.name, Rule(vec![to, Clause::State(INVALID), Clause::Drop]));
    }
}

fn make_forward(plan: &mut Plan, compat: Compat) {
    let mark = Clause::ConnectionMark(PUBLISHED_MARK);
    if compat >= Compat::Two && !plan.has(FORWARD, |rule| rule.clauses().contains(&mark)) {
        let rule = Rule(vec![mark, Clause::Accept]);
        // It must stand before the isolation; in a table of an older version that is there already.
        if plan.has(FORWARD, |rule| rule.jumps_to(ISOLATION_1)) {
            plan.insert(FORWARD, rule);
        } else {
            plan.append(FORWARD, rule);
        }
    }
    if !plan.has(FORWARD, |rule| rule.jumps_to(ISOLATION_1)) {
        plan.append(FORWARD, Rule(vec![jump(ISOLATION_1)]));
    }
}

/// Closes the loopback to everybody but the host itself, with the first bridge that could open it.
pub(super) fn close_loopback(plan: &mut Plan, bridge: &str) {
    plan.add_bridge(bridge);
    if plan.has_chain(LOOPBACK.name) {
        return;
    }
    plan.make_base_chain(&LOOPBACK);
    // Not "unless by lo": a vrf is the loopback of what is in it, and may have 127.0.0.1 itself.
    for (net, length) in [(IpAddr::from([127, 0, 0, 0]), 8), (Ipv6Addr::LOCALHOST.into(), 128)] {
        let to = Clause::Address { end: End::Destination, net: subnet(net, length), equal: true };
        plan.append(LOOPBACK.name, Rule(vec![to, Clause::ElsewhereDestination, Clause::Drop]));
    }
    let from = Clause::Address { end: End::Source, net: subnet([127, 0, 0, 0].into(), 8), equal: true };
    plan.append(LOOPBACK.name, Rule(vec![Clause::OurBridge(Direction::In), from, Clause::Drop]));
}

fn subnet(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).unwrap_or_default()
}

/// The last rule of the isolation, which is shared.
pub(super) fn end_isolation(plan: &mut Plan) {
    if !plan.has(ISOLATION_3, |rule| rule.jumps_to(ISOLATION_2)) {
        plan.append(ISOLATION_3, Rule(vec![jump(ISOLATION_2)]));
    }
}

/// What leaves by a bridge, or by anything else.
pub(super) fn out_by(bridge: &str, equal: bool) -> Clause {
    Clause::Interface { direction: Direction::Out, name: bridge.to_owned(), equal }
}

pub(super) fn jump(chain: &str) -> Clause {
    Clause::Jump(chain.to_owned())
}
