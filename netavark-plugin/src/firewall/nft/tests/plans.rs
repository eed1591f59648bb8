//! Plans as text: what would be changed in a given table, without a kernel.

use super::fixtures::{ID, mapping, network, ports};
use crate::error::Result;
use crate::firewall::nft::decode::Listed;
use crate::firewall::nft::plan::{Look, Plan, Ruleset, Step, Wanted};
use crate::firewall::nft::rule::Rule;
use crate::firewall::nft::{network, ports};
use crate::firewall::{NetworkRules, PortRules};
use crate::spec::Compat;
use crate::spec::validate::Isolation;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A table in memory: chains with handles and rules.
#[derive(Default)]
pub(super) struct Table {
    pub(super) chains: BTreeMap<String, Vec<(u64, Rule)>>,
    bridges: Option<BTreeSet<String>>,
    last_handle: u64,
}

impl Table {
    /// What would be read of it.
    fn read(&self, wanted: &Wanted) -> Ruleset {
        let mut ruleset = Ruleset::default();
        if let Some(bridges) = self.bridges.clone().filter(|_| wanted.wants_bridges()) {
            ruleset.set_bridges(bridges);
        }
        for (chain, look) in wanted.chains() {
            let Some(rules) = self.chains.get(chain) else { continue };
            let listed = rules.iter().filter(|_| look == Look::Rules).map(|(handle, rule)| Listed {
                chain: chain.to_owned(),
                handle: *handle,
                rule: Some(rule.clone()),
            });
            ruleset.add_chain(chain, listed.collect());
        }
        ruleset
    }

    fn apply(&mut self, steps: &[Step]) {
        for step in steps {
            self.last_handle += 1;
            let handle = self.last_handle;
            match step {
                Step::Table => {}
                Step::DeleteTable => *self = Self { last_handle: handle, ..Self::default() },
                Step::BaseChain(base) => drop(self.chains.entry(base.name.to_owned()).or_default()),
                Step::Chain(chain) => drop(self.chains.entry(chain.clone()).or_default()),
                Step::Append(chain, rule) => {
                    self.chains.get_mut(chain).unwrap().push((handle, rule.clone()));
                }
                Step::Insert(chain, rule) => {
                    self.chains.get_mut(chain).unwrap().insert(0, (handle, rule.clone()));
                }
                Step::Delete { chain, handle, .. } => {
                    let rules = self.chains.get_mut(chain).unwrap();
                    let at = rules.iter().position(|(found, _)| found == handle).unwrap();
                    rules.remove(at);
                }
                Step::BridgeSet => assert_eq!(self.bridges.replace(BTreeSet::new()), None),
                Step::AddBridge(name) => assert!(self.bridges.as_mut().unwrap().insert(name.clone())),
                Step::RemoveBridge(name) => assert!(self.bridges.as_mut().unwrap().remove(name)),
                Step::DeleteChain(chain) => {
                    self.chains.remove(chain).unwrap();
                    let jumps = self.chains.values().flatten().any(|(_, rule)| rule.jumps_to(chain));
                    assert!(!jumps, "something still jumps to {chain}");
                }
            }
        }
    }

    /// Plans, applies, and gives the plan as text. The looking and the planning must agree on the chains.
    pub(super) fn change(&mut self, wanted: &Wanted, plan: impl Fn(&mut Plan) -> Result<()>) -> String {
        let mut changes = Plan::new(self.read(wanted));
        plan(&mut changes).unwrap();
        let steps = changes.into_steps();
        self.apply(&steps);
        steps.iter().map(|step| format!("{step}\n")).collect()
    }

    fn set_up(&mut self, network: &NetworkRules, ports: &PortRules) -> String {
        self.set_up_beside(network, ports, &ports.dns_server_ips)
    }

    /// The same where DNS servers of other networks are known.
    fn set_up_beside(&mut self, network: &NetworkRules, ports: &PortRules, served: &[IpAddr]) -> String {
        self.set_up_on(network, ports, served, true)
    }

    /// The same where another network may have the bridge, too.
    fn set_up_on(
        &mut self,
        network: &NetworkRules,
        ports: &PortRules,
        served: &[IpAddr],
        alone: bool,
    ) -> String {
        let mut wanted = Wanted::default();
        network::look_to_add(network, &mut wanted);
        ports::look_to_add(ports, false, &mut wanted);
        self.change(&wanted, |plan| {
            network::add(plan, network, alone);
            ports::add(plan, ports, false)?;
            ports::keep_names(plan, ports.dns_port, served);
            Ok(())
        })
    }

    fn tear_down(&mut self, network: &NetworkRules, ports: &PortRules, complete: bool) -> String {
        let mut wanted = Wanted::default();
        ports::look_to_remove(ports, complete, &mut wanted);
        if complete {
            network::look_to_remove(network, &mut wanted);
        }
        self.change(&wanted, |plan| {
            ports::remove(plan, ports, complete);
            if complete {
                network::remove(plan, network);
            }
            Ok(())
        })
    }

    pub(super) fn text(&self, chain: &str) -> Vec<String> {
        self.chains[chain].iter().map(|(_, rule)| rule.to_string()).collect()
    }
}

#[test]
fn the_first_container_of_a_dual_stack_network() {
    let mut network = network(&["10.88.0.0/16", "fd10:88:a::/64"]);
    network.dns_port = 1053;
    let ports = ports(&network, &[mapping("", "tcp", 8080, 80, 1)]);
    let mut table = Table::default();
    insta::assert_snapshot!("first_container", table.set_up(&network, &ports));
    // Everything shared is there for the second one.
    let mut second = ports.clone();
    second.container_id = "c2".to_owned();
    second.container_ip_v4 = "10.88.0.3".parse().ok();
    second.container_ip_v6 = None;
    second.port_mappings = Some(vec![mapping("198.51.100.1", "udp", 53, 5353, 1)]);
    let steps = table.set_up(&network, &second);
    insta::assert_snapshot!("second_container", strip_shared(&steps));
    insta::assert_snapshot!("teardown_of_one", table.tear_down(&network, &second, false));
    insta::assert_snapshot!("teardown_of_the_last", table.tear_down(&network, &ports, true));
    assert!(table.chains.keys().all(|chain| !chain.starts_with("nv_")));
    assert_eq!(table.chains.values().map(Vec::len).sum::<usize>(), 3 + 1 + 1 + 1 + 1 + 1);
}

/// Without the table and the chains that are always asked for.
fn strip_shared(steps: &str) -> String {
    let kept =
        steps.lines().filter(|l| *l != "add table" && (!l.starts_with("add chain") || l.contains("nv_")));
    kept.map(|line| format!("{line}\n")).collect()
}

#[test]
fn isolation_of_each_kind() {
    let chains = ["NETAVARK-ISOLATION-1", "NETAVARK-ISOLATION-2", "NETAVARK-ISOLATION-3"];
    let mut table = Table::default();
    for (bridge, isolation) in
        [("a", Isolation::Never), ("b", Isolation::Normal), ("c", Isolation::Strict), ("d", Isolation::Never)]
    {
        let mut network = network(&[]);
        bridge.clone_into(&mut network.bridge_name);
        network.isolation = isolation;
        let none = ports(&network, &[]);
        table.set_up(&network, &none);
        // Once only.
        table.set_up(&network, &none);
    }
    let text = chains.map(|chain| format!("{chain}\n  {}", table.text(chain).join("\n  "))).join("\n");
    insta::assert_snapshot!("isolation", text);
}

#[test]
fn a_table_of_the_older_contract_gets_the_mark_before_the_isolation() {
    let mut table = Table::default();
    let mut old = network(&["10.88.0.0/16"]);
    old.compat = Compat::One;
    let old_ports = ports(&old, &[mapping("", "tcp", 80, 80, 2)]);
    table.set_up(&old, &old_ports);
    let first = ["iifname @bridges ct state invalid drop", "jump NETAVARK-ISOLATION-1"];
    assert_eq!(table.text("FORWARD")[..2], first);
    let dnat = format!("nv_{}_10_88_0_0_nm16_dnat", &ID[..8]);
    assert_eq!(table.text(&dnat)[2], "tcp dport 80 dnat ip to 10.88.0.2:80");

    // The caller is replaced while the container runs: teardown takes the older rules all the same.
    let new = network(&["10.88.0.0/16"]);
    let mut other = network(&["10.89.0.0/24"]);
    other.network_id = "ffffffff00".to_owned();
    other.bridge_name = "podman1".to_owned();
    table.set_up(&other, &ports(&other, &[]));
    let mark = table.text("FORWARD").iter().position(|r| r == "ct mark & 0x00001000 == 0x00001000 accept");
    let jump = table.text("FORWARD").iter().position(|r| r == "jump NETAVARK-ISOLATION-1");
    assert!(mark.unwrap() < jump.unwrap());
    table.tear_down(&new, &ports(&new, &[mapping("", "tcp", 80, 80, 2)]), false);
    assert!(table.text(&dnat).is_empty() && table.text("NETAVARK-HOSTPORT-DNAT").is_empty());
}

#[test]
fn two_networks_with_the_same_subnet_keep_each_others_rules() {
    let mut table = Table::default();
    let one = network(&["10.88.0.0/16"]);
    let mut two = one.clone();
    two.network_id = "ffffffff00".to_owned();
    let (one_ports, two_ports) = (ports(&one, &[]), ports(&two, &[]));
    table.set_up(&one, &one_ports);
    let before = table.text("FORWARD");
    table.set_up(&two, &two_ports);
    assert_eq!(table.text("INPUT").len(), 2);
    table.tear_down(&one, &one_ports, true);
    assert_eq!((table.text("INPUT").len(), table.text("FORWARD")), (1, before));
    assert_eq!(table.text("POSTROUTING").len(), 2);
    table.tear_down(&two, &two_ports, true);
    assert_eq!((table.text("INPUT").len(), table.text("FORWARD").len()), (0, 3));
}

#[test]
fn internal_networks_reach_the_dns_server_and_nothing_else() {
    let mut network = network(&["10.88.0.0/16"]);
    network.internal = true;
    network.dns_port = 1053;
    let ports = ports(&network, &[mapping("", "tcp", 8080, 80, 1)]);
    let mut table = Table::default();
    insta::assert_snapshot!("internal", strip_shared(&table.set_up(&network, &ports)));
    table.tear_down(&network, &ports, true);
    assert!(table.text("INPUT").is_empty() && table.text("NETAVARK-HOSTPORT-DNAT").is_empty());
}

/// The rules in all chains, without handles; in those of several networks their order says nothing.
fn contents(table: &Table) -> BTreeMap<&str, Vec<String>> {
    table
        .chains
        .keys()
        .map(|chain| {
            let mut rules = table.text(chain);
            if !chain.starts_with("nv_") {
                rules.sort();
            }
            (chain.as_str(), rules)
        })
        .collect()
}

#[test]
fn rules_of_a_network_in_use_follow_its_definition() {
    let plain = network(&["10.88.0.0/16", "fd10:88::/64"]);
    let internal = NetworkRules { internal: true, ..plain.clone() };
    let fixed = NetworkRules { outbound_addr4: "198.51.100.9".parse().ok(), ..plain.clone() };
    let isolated = NetworkRules { isolation: Isolation::Normal, ..plain.clone() };
    let strict = NetworkRules { isolation: Isolation::Strict, ..fixed.clone() };
    let all = [plain, internal, fixed, isolated, strict];
    let fresh = |network: &NetworkRules| {
        let mut table = Table::default();
        table.set_up(network, &ports(network, &[]));
        table
    };
    for before in &all {
        for after in &all {
            let mut table = fresh(before);
            let steps = table.set_up(after, &ports(after, &[]));
            // The chains beyond the contract stay until the last container goes.
            let (mut there, as_new) = (contents(&table), fresh(after));
            there.retain(|chain, _| !after.internal || !["LOOPBACK", "INVALID"].contains(chain));
            assert_eq!(there, contents(&as_new), "{before:?} {after:?}: {steps}");
            // What was right stays untouched.
            assert!(before != after || !steps.contains("rule"), "{steps}");
            table.tear_down(after, &ports(after, &[]), true);
            let rules = contents(&table);
            assert!(!rules.values().flatten().any(|rule| rule.contains("10.88") || rule.contains("podman0")));
            assert!(rules.keys().all(|chain| !chain.starts_with("nv_")));
        }
    }
}

#[test]
fn what_is_not_the_networks_alone_stays_when_its_definition_changes() {
    let one = network(&["10.88.0.0/16"]);
    let two = NetworkRules { network_id: "ffffffff00".to_owned(), ..one.clone() };
    let isolated = NetworkRules { isolation: Isolation::Normal, ..one.clone() };
    let internal = NetworkRules { internal: true, ..two.clone() };
    let none = ports(&one, &[]);
    let mut table = Table::default();
    table.set_up(&isolated, &none);
    table.set_up_on(&two, &none, &[], false);
    assert_eq!(table.text("NETAVARK-ISOLATION-1").len(), 1);
    // Of two with one subnet, one becomes internal.
    let both = table.text("FORWARD");
    table.set_up_on(&internal, &none, &[], false);
    assert_eq!(table.text("FORWARD").len(), both.len() - 2);
    assert_eq!((table.text("POSTROUTING").len(), table.text("INPUT").len()), (2, 2));
    // Somebody has put a rule into the subnet's chain.
    let chain = "nv_2f259bab_10_88_0_0_nm16";
    let theirs = Rule(vec![crate::firewall::nft::rule::Clause::Accept]);
    table.chains.get_mut(chain).unwrap().insert(0, (4711, theirs));
    table.set_up(&NetworkRules { outbound_addr4: "198.51.100.9".parse().ok(), ..one }, &none);
    let rules = ["accept", "ip daddr 10.88.0.0/16 accept", "ip daddr != 224.0.0.0/4 snat ip to 198.51.100.9"];
    assert_eq!(table.text(chain), rules);
}

#[test]
fn the_loopback_is_closed_from_the_first_network_with_a_way_out_to_the_last() {
    let mut one = network(&["10.88.0.0/16"]);
    let mut two = network(&["10.89.0.0/24"]);
    two.network_id = "ffffffff00".to_owned();
    two.bridge_name = "podman1".to_owned();
    two.isolation = Isolation::Strict;
    let (one_ports, two_ports) = (ports(&one, &[]), ports(&two, &[]));
    let mut table = Table::default();
    one.internal = true;
    table.set_up(&one, &one_ports);
    assert!(!table.chains.contains_key("LOOPBACK"));
    one.internal = false;
    for _ in 0..2 {
        table.set_up(&one, &one_ports);
        table.set_up(&two, &two_ports);
    }
    let closed = [
        "ip daddr 127.0.0.0/8 fib daddr . iif type != local drop",
        "ip6 daddr ::1 fib daddr . iif type != local drop",
        "iifname @bridges ip saddr 127.0.0.0/8 drop",
    ];
    assert_eq!(table.text("LOOPBACK"), closed);
    table.tear_down(&one, &one_ports, false);
    assert_eq!(table.bridges.as_ref().unwrap().len(), 2);
    table.tear_down(&one, &one_ports, true);
    assert_eq!(table.text("LOOPBACK"), closed);
    assert!(table.bridges.as_ref().unwrap().iter().eq(["podman1"]));
    table.tear_down(&two, &two_ports, true);
    assert!(!table.chains.contains_key("LOOPBACK") && table.bridges.as_ref().unwrap().is_empty());
    assert!(!table.chains.contains_key("INVALID"));
}

#[test]
fn a_bridge_that_another_version_took_down_is_forgotten() {
    let one = network(&["10.88.0.0/16"]);
    let mut two = network(&["10.89.0.0/24"]);
    two.network_id = "ffffffff00".to_owned();
    two.bridge_name = "podman1".to_owned();
    let mut table = Table::default();
    table.set_up(&one, &ports(&one, &[]));
    table.set_up(&two, &ports(&two, &[]));
    // What it knows of: rules and chains, not the set.
    table.chains.get_mut("NETAVARK-ISOLATION-3").unwrap().retain(|(_, rule)| !rule.names("podman0"));
    table.tear_down(&two, &ports(&two, &[]), true);
    assert!(table.bridges.as_ref().unwrap().is_empty() && !table.chains.contains_key("LOOPBACK"));
}

#[test]
fn shared_rules_of_other_versions_give_way_to_ours() {
    let one = network(&["10.88.0.0/16"]);
    let mut two = network(&["10.89.0.0/24"]);
    two.network_id = "ffffffff00".to_owned();
    two.bridge_name = "podman1".to_owned();
    let of_another_version = || {
        let mut table = Table::default();
        table.set_up(&one, &ports(&one, &[]));
        for chain in ["LOOPBACK", "INVALID"] {
            table.chains.remove(chain);
        }
        table.bridges = None;
        for (chain, first) in [("FORWARD", "OurBridge"), ("POSTROUTING", "Rewritten")] {
            let rules = table.chains.get_mut(chain).unwrap();
            let place = rules.iter().position(|(_, rule)| format!("{rule:?}").contains(first)).unwrap();
            let (_, Rule(clauses)) = &mut rules[place];
            clauses.remove(0);
            assert_eq!(place, 0, "it is the first");
        }
        assert_eq!(table.text("FORWARD")[0], "ct state invalid drop");
        table
    };
    let confined = |table: &Table| {
        assert_eq!(table.text("FORWARD")[0], "iifname @bridges ct state invalid drop");
        assert_eq!(
            table.text("POSTROUTING")[0],
            "ct status dnat meta mark & 0x00002000 == 0x00002000 masquerade"
        );
        assert_eq!(table.text("FORWARD").iter().filter(|rule| rule.contains("invalid")).count(), 1);
        assert_eq!(table.text("POSTROUTING").iter().filter(|rule| rule.contains("mark")).count(), 1);
    };
    // By another network: the bridge that the old rule stood for is not forgotten.
    let mut table = of_another_version();
    table.set_up(&two, &ports(&two, &[]));
    confined(&table);
    assert!(table.bridges.as_ref().unwrap().iter().eq(["podman0", "podman1"]));
    assert_eq!(table.text("INVALID"), ["oifname @bridges ct state invalid drop"]);
    // By the last container, so that nothing of it outlives the networks.
    let mut table = of_another_version();
    table.tear_down(&one, &ports(&one, &[]), true);
    confined(&table);
    assert!(table.bridges.as_ref().unwrap().is_empty() && !table.chains.contains_key("INVALID"));
}

#[test]
fn host_addresses_choose_the_family() {
    let network = network(&["10.88.0.0/16", "fd10::/64"]);
    let count = |host: &str| {
        let ports = ports(&network, &[mapping(host, "tcp", 80, 80, 1)]);
        let mut table = Table::default();
        table.set_up(&network, &ports);
        table.text("NETAVARK-HOSTPORT-DNAT")
    };
    assert_eq!(count("").len(), 2);
    for (host, rule) in [
        ("0.0.0.0", "tcp dport 80 jump nv_2f259bab_10_88_0_0_nm16_dnat"),
        ("::", "tcp dport 80 jump nv_2f259bab_fd10--_nm64_dnat"),
        ("198.51.100.7", "ip daddr 198.51.100.7 tcp dport 80 jump nv_2f259bab_10_88_0_0_nm16_dnat"),
        ("2001:db8::7", "ip6 daddr 2001:db8::7 tcp dport 80 jump nv_2f259bab_fd10--_nm64_dnat"),
    ] {
        assert_eq!(count(host), [rule]);
    }
}

#[test]
fn mappings_that_make_no_sense_are_refused_and_torn_down_without_a_word() {
    let network = network(&["10.88.0.0/16"]);
    for (bad, text) in [
        (mapping("blah", "tcp", 8080, 80, 1), "invalid host ip \"blah\" provided for port 8080"),
        (
            mapping("", "icmp", 8080, 80, 1),
            "nftables error: protocol \"icmp\" of port 8080 has no ports or is unknown",
        ),
        (mapping("", "tcp", 65_530, 80, 10), "a range of 10 ports from 65530 to 80 goes beyond 65535"),
        (mapping("", "tcp", 80, 65_535, 2), "a range of 2 ports from 80 to 65535 goes beyond 65535"),
    ] {
        let ports = ports(&network, &[bad]);
        let mut plan = Plan::new(Ruleset::default());
        assert_eq!(ports::add(&mut plan, &ports, false).unwrap_err().to_string(), text);
        let mut table = Table::default();
        assert_eq!(table.tear_down(&network, &ports, true), "");
    }
}

#[test]
fn outbound_addresses_replace_the_masquerade() {
    let mut network = network(&["10.88.0.0/16", "fd10::/64"]);
    network.outbound_addr4 = "198.51.100.9".parse().ok();
    network.outbound_addr6 = "2001:db8::9".parse().ok();
    let mut table = Table::default();
    table.set_up(&network, &ports(&network, &[]));
    assert_eq!(
        table.text("nv_2f259bab_10_88_0_0_nm16")[1],
        "ip daddr != 224.0.0.0/4 snat ip to 198.51.100.9"
    );
    assert_eq!(table.text("nv_2f259bab_fd10--_nm64")[1], "ip6 daddr != ff00::/8 snat ip6 to 2001:db8::9");
}

#[test]
fn a_long_range_is_one_rule_and_nothing_is_left_of_it() {
    let network = network(&["10.88.0.0/16"]);
    let ports = ports(&network, &[mapping("", "udp", 1, 1, u16::MAX)]);
    let mut table = Table::default();
    let steps = table.set_up(&network, &ports);
    insta::assert_snapshot!("long_range", strip_shared(&steps));
    table.tear_down(&network, &ports, false);
    assert!(table.text("nv_2f259bab_10_88_0_0_nm16_dnat").is_empty());
}

#[test]
fn a_restore_adds_nothing_twice() {
    let network = network(&["10.88.0.0/16"]);
    let ports = ports(&network, &[mapping("", "tcp", 8080, 80, 3)]);
    let mut wanted = Wanted::default();
    network::look_to_add(&network, &mut wanted);
    ports::look_to_add(&ports, true, &mut wanted);
    let mut table = Table::default();
    let restore = |table: &mut Table| {
        strip_shared(&table.change(&wanted, |plan| {
            network::add(plan, &network, false);
            ports::add(plan, &ports, true)
        }))
    };
    let first = restore(&mut table);
    assert!(first.contains("add rule nv_"));
    let again = restore(&mut table);
    assert!(!again.contains("rule"), "{again}");
}

#[test]
fn moves_of_dns_go_with_the_subnet_even_when_no_names_are_served_any_more() {
    let mut network = network(&["10.88.0.0/16", "fd10::/64"]);
    network.dns_port = 1053;
    let with_names = ports(&network, &[]);
    let mut without = with_names.clone();
    without.dns_server_ips.clear();
    let mut table = Table::default();
    table.set_up(&network, &with_names);
    assert_eq!(table.text("NETAVARK-HOSTPORT-DNAT").len(), 2);
    table.tear_down(&network, &without, false);
    assert_eq!(table.text("NETAVARK-HOSTPORT-DNAT").len(), 2);
    table.tear_down(&network, &without, true);
    assert!(table.text("NETAVARK-HOSTPORT-DNAT").is_empty());
}

#[test]
fn published_ports_that_cover_53_leave_dns_servers_their_questions() {
    let one = network(&["10.88.0.0/16"]);
    let mut two = network(&["10.89.0.0/24"]);
    two.network_id = "ffffffff00".to_owned();
    two.bridge_name = "podman1".to_owned();
    let names = ports(&one, &[]);
    let kept = |server: &str| {
        format!("ip daddr {server} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {server}:53")
    };
    for (covering, covers) in [
        (mapping("", "udp", 53, 53, 1), true),
        (mapping("0.0.0.0", "tcp", 50, 50, 4), true),
        (mapping("", "udp", 1, 1, u16::MAX), true),
        (mapping("", "sctp", 53, 53, 1), false),
        (mapping("", "tcp", 50, 50, 3), false),
        (mapping("", "udp", 54, 53, 1), false),
    ] {
        let mut publisher = ports(&two, &[covering]);
        assert_eq!(publisher.cover_dns(), covers);
        // Its own network has no names: what it answers at its own gateway stays its own.
        publisher.dns_server_ips.clear();
        for names_first in [true, false] {
            let mut table = Table::default();
            if names_first {
                table.set_up(&one, &names);
                assert!(table.text("NETAVARK-HOSTPORT-DNAT").is_empty());
                table.set_up_beside(&two, &publisher, &names.dns_server_ips);
            } else {
                table.set_up(&two, &publisher);
                table.set_up(&one, &names);
                table.set_up(&one, &names);
            }
            let rules = table.text("NETAVARK-HOSTPORT-DNAT");
            assert_eq!(rules.len(), 1 + usize::from(covers), "{rules:?}");
            assert_eq!(rules[0] == kept("10.88.0.1"), covers, "{rules:?}");
            table.tear_down(&two, &publisher, false);
            assert!(table.text("NETAVARK-HOSTPORT-DNAT").is_empty());
        }
    }
}
