//! Questions to DNS servers in firewalld's terms. Pure.
//!
//! Containers ask the server at their bridge, so what they send there comes in to the host, and that no zone of ours
//! lets in; internal networks are in no zone at all. A rich rule of a policy towards the host does it for either: from
//! a subnet of the network to one of its servers, at the port where that listens. One that listens elsewhere than on
//! port 53 has been translated by then.

use crate::firewall::{NetworkRules, PortRules};

/// What lets the questions of a network in; nothing for a network without names.
pub(super) fn rules(network: &NetworkRules, ports: &PortRules) -> Vec<String> {
    let mut rules = Vec::new();
    for server in &ports.dns_server_ips {
        let family = if server.is_ipv4() { "ipv4" } else { "ipv6" };
        let askers = network.subnets().iter().filter(|subnet| subnet.addr().is_ipv4() == server.is_ipv4());
        for subnet in askers {
            for protocol in ["tcp", "udp"] {
                rules.push(format!(
                    "rule family=\"{family}\" source address=\"{}\" destination address=\"{server}\" \
                     port port=\"{}\" protocol=\"{protocol}\" accept",
                    subnet.trunc(),
                    ports.dns_port
                ));
            }
        }
    }
    rules
}

/// Whether a rule is one that a container of this network has made, whatever servers and ports it had by then.
pub(super) fn is_of(rule: &str, network: &NetworkRules) -> bool {
    network.subnets().iter().any(|subnet| rule.contains(&format!("source address=\"{}\"", subnet.trunc())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Compat;
    use crate::spec::validate::Isolation;

    fn network(subnets: &[&str]) -> NetworkRules {
        NetworkRules {
            subnets: Some(subnets.iter().map(|subnet| subnet.parse().unwrap()).collect()),
            bridge_name: "podman0".to_owned(),
            network_id: "n".to_owned(),
            network_hash_name: "N".to_owned(),
            isolation: Isolation::Never,
            dns_port: 53,
            internal: true,
            outbound_addr4: None,
            outbound_addr6: None,
            compat: Compat::Two,
        }
    }

    fn ports(servers: &[&str]) -> PortRules {
        PortRules {
            container_id: "c".to_owned(),
            network_id: "n".to_owned(),
            port_mappings: None,
            network_name: "n".to_owned(),
            network_hash_name: "N".to_owned(),
            container_ip_v4: "10.88.0.2".parse().ok(),
            subnet_v4: "10.88.0.0/16".parse().ok(),
            container_ip_v6: None,
            subnet_v6: None,
            dns_port: 1053,
            dns_server_ips: servers.iter().map(|server| server.parse().unwrap()).collect(),
            internal: true,
            compat: Compat::Two,
        }
    }

    #[test]
    fn the_networks_own_subnets_may_ask_its_servers() {
        let network = network(&["10.88.0.7/16", "fd10::/64"]);
        let rules = rules(&network, &ports(&["10.88.0.1", "fd10::1"]));
        let four = "rule family=\"ipv4\" source address=\"10.88.0.0/16\" destination address=\"10.88.0.1\" port port=\"1053\" protocol=\"tcp\" accept";
        let six =
            four.replace("v4", "v6").replace("10.88.0.0/16", "fd10::/64").replace("10.88.0.1", "fd10::1");
        let udp = |rule: &str| rule.replace("tcp", "udp");
        assert_eq!(rules, [four.to_owned(), udp(four), six.clone(), udp(&six)]);
        assert!(super::rules(&network, &ports(&[])).is_empty());
    }

    #[test]
    fn rules_are_known_by_their_subnets() {
        let made = rules(&network(&["10.88.0.0/16"]), &ports(&["10.88.0.1"]));
        let (same, other) = (network(&["10.89.0.0/24", "10.88.0.1/16"]), network(&["10.88.0.0/24"]));
        assert!(made.iter().all(|rule| is_of(rule, &same) && !is_of(rule, &other)));
    }
}
