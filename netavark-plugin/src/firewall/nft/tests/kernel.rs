//! Against the real kernel: what `nft` prints of our rules, and what we make of rules that others wrote.

use super::fixtures::{in_new_namespace, mapping, network, ports, table};
use crate::firewall::nft::{setup, teardown};
use crate::spec::validate::Isolation;

#[test]
fn a_network_with_ports_prints_as_contracted() {
    in_new_namespace("a_network_with_ports_prints_as_contracted", || {
        let mut network = network(&["10.88.0.0/16", "fd10:88:a::/64"]);
        network.isolation = Isolation::Strict;
        network.dns_port = 1053;
        let mappings = [
            mapping("", "tcp", 8080, 80, 1),
            mapping("127.0.0.1", "udp", 5000, 53, 3),
            mapping("", "tcp", 10_000, 20_000, 100),
        ];
        let ports = ports(&network, &mappings);
        setup(&network, &ports).unwrap();
        let full = table();
        assert!(
            full.contains("ip saddr 10.88.0.0/16 meta l4proto { tcp, udp } th dport 53 accept"),
            "{full}"
        );
        teardown(&network, &ports, true).unwrap();
        let rest = table();
        assert!(!rest.contains("nv_") && !rest.contains("podman0"), "{rest}");
        setup(&network, &ports).unwrap();
        assert_eq!(table(), full);
    });
}
