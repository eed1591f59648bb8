//! The promise of the decoder: any bytes are a rule or are not, and a rule that is understood is the same after it was
//! written and read again. So nothing of what it says was left out.

use super::decode::Listed;
use super::network;
use super::plan::{Plan, Ruleset, Step};
use super::rule::Rule;
use super::wire::object;
use super::{NetworkRules, PortRules, ports};
use crate::spec::validate::Isolation;
use crate::spec::{Compat, PortMapping};
use slipway_host::netlink::netfilter::Attributes;

/// See [`crate::fuzz::nft_rule`].
pub(in crate::firewall) fn fuzz(data: &[u8]) {
    let Some(Listed { rule: Some(rule), .. }) = Listed::decode(data) else { return };
    let again = Listed::decode(&listing(&rule)).and_then(|listed| listed.rule);
    assert_eq!(again.as_ref(), Some(&rule), "{rule}");
}

/// The rules of a network, whatever it says of itself, are ones that read back.
pub(in crate::firewall) fn fuzz_network(network: &NetworkRules) {
    let mut plan = Plan::new(Ruleset::default());
    network::add(&mut plan, network, true);
    fuzz_plan(plan);
}

/// The same for those of a container's ports, if they are not refused.
pub(in crate::firewall) fn fuzz_ports(ports: &PortRules) {
    for restore in [false, true] {
        let mut plan = Plan::new(Ruleset::default());
        if ports::add(&mut plan, ports, restore).is_ok() {
            fuzz_plan(plan);
        }
    }
}

fn fuzz_plan(plan: Plan) {
    for rule in rules(plan) {
        let again = Listed::decode(&listing(&rule)).and_then(|listed| listed.rule);
        assert_eq!(again.as_ref(), Some(&rule), "{rule}");
    }
}

fn rules(plan: Plan) -> impl Iterator<Item = Rule> {
    plan.into_steps().into_iter().filter_map(|step| match step {
        Step::Append(_, rule) | Step::Insert(_, rule) => Some(rule),
        _ => None,
    })
}

/// The entry of a listing that has this rule.
fn listing(rule: &Rule) -> Vec<u8> {
    let mut entry = Attributes::default();
    entry.text(object::RULE_CHAIN, "chain");
    entry.long(object::RULE_HANDLE, 7);
    rule.encode(&mut entry, 0);
    entry.as_bytes().to_vec()
}

/// One rule of each kind: those of a network with ports.
pub(in crate::firewall) fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut plan = Plan::new(Ruleset::default());
    let network = NetworkRules {
        subnets: Some(["10.88.4.0/22", "fd10::/64"].iter().filter_map(|net| net.parse().ok()).collect()),
        bridge_name: "podman0".to_owned(),
        network_id: "2f259bab".to_owned(),
        network_hash_name: String::new(),
        isolation: Isolation::Strict,
        dns_port: 1053,
        internal: false,
        outbound_addr4: None,
        outbound_addr6: "2001:db8::1".parse().ok(),
        compat: Compat::Two,
    };
    let mapping = |host_ip: &str, range: u16| PortMapping {
        container_port: 80,
        host_port: 8080,
        host_ip: host_ip.to_owned(),
        protocol: "tcp".to_owned(),
        range,
    };
    let ports = PortRules {
        container_id: String::new(),
        network_id: network.network_id.clone(),
        port_mappings: Some(vec![mapping("127.0.0.1", 2), mapping("", 30)]),
        network_name: String::new(),
        network_hash_name: String::new(),
        container_ip_v4: "10.88.4.2".parse().ok(),
        subnet_v4: "10.88.4.0/22".parse().ok(),
        container_ip_v6: "fd10::2".parse().ok(),
        subnet_v6: "fd10::/64".parse().ok(),
        dns_port: 1053,
        dns_server_ips: "10.88.4.1".parse().into_iter().collect(),
        internal: false,
        compat: Compat::Two,
    };
    network::add(&mut plan, &network, true);
    // They make sense.
    let _ = ports::add(&mut plan, &ports, false);
    rules(plan).enumerate().map(|(number, rule)| (format!("rule-{number:02}"), listing(&rule))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_rule_of_ours_reads_back() {
        let seeds = seeds();
        assert!(seeds.len() > 30);
        for (_, seed) in &seeds {
            assert!(Listed::decode(seed).unwrap().rule.is_some());
            fuzz(seed);
        }
    }

    proptest! {
        /// Rules with a few bytes changed: read as something that reads back, or not at all.
        #[test]
        fn damaged_rules_are_survived(
            number in 0_usize..30,
            changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
            cut in any::<usize>(),
        ) {
            let (_, mut seed) = seeds().swap_remove(number);
            for (at, value) in changes {
                let at = at % seed.len();
                seed[at] = value;
            }
            fuzz(&seed);
            seed.truncate(cut % seed.len());
            fuzz(&seed);
        }
    }
}
