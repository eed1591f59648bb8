//! The chains beside firewalld's, without a kernel.

use super::fixtures::{network, ports};
use super::plans::Table;
use crate::firewall::nft::beside;
use crate::firewall::nft::plan::Wanted;
use std::net::IpAddr;

#[test]
fn beside_firewalld_questions_are_led_while_they_have_to_be() {
    let network = network(&["10.88.0.0/16"]);
    let ports = ports(&network, &[]);
    let servers: Vec<IpAddr> = vec!["10.88.0.1".parse().unwrap(), "10.89.0.1".parse().unwrap()];
    let mut wanted = Wanted::default();
    wanted.rules("NAMES");
    let names = |port, covered| beside::Names { servers: &servers, port, covered };
    let rule = |server: &str, port: u16| {
        format!("ip daddr {server} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {server}:{port}")
    };
    let mut table = Table::default();
    let add = |table: &mut Table, port, covered| {
        table.change(&wanted, |plan| {
            beside::add(plan, names(port, covered));
            Ok(())
        })
    };
    let take = |table: &mut Table, complete, covered| {
        table.change(&beside::look_to_remove(complete), |plan| {
            beside::remove(plan, &network, &ports, complete, covered);
            Ok(())
        })
    };
    for _ in 0..2 {
        add(&mut table, 53, true);
        assert_eq!(table.text("NAMES"), [rule("10.88.0.1", 53), rule("10.89.0.1", 53)]);
    }
    // Others' stay, as long as somebody covers the port.
    take(&mut table, false, true);
    assert_eq!(table.text("NAMES").len(), 2);
    take(&mut table, true, true);
    assert_eq!(table.text("NAMES"), [rule("10.89.0.1", 53)]);
    take(&mut table, false, false);
    assert!(!table.chains.contains_key("NAMES"));
    // Those of servers at another port as long as their network is there.
    add(&mut table, 1053, false);
    take(&mut table, false, false);
    assert_eq!(table.text("NAMES"), [rule("10.88.0.1", 1053), rule("10.89.0.1", 1053)]);
    take(&mut table, true, false);
    assert_eq!(table.text("NAMES"), [rule("10.89.0.1", 1053)]);
}

#[test]
fn of_two_networks_with_one_subnet_either_is_led_back() {
    let one = network(&["10.88.0.0/16", "fd10::/64"]);
    let mut two = one.clone();
    two.network_id = "ffffffff00".to_owned();
    two.bridge_name = "podman1".to_owned();
    let mut table = Table::default();
    let rule = |bridge: &str| {
        format!("oifname \"{bridge}\" ip6 saddr fd10::/64 ip6 daddr fd10::/64 ct status dnat masquerade")
    };
    for network in [&one, &two, &one] {
        table.change(&beside::look_to_turn_back(), |plan| {
            beside::turn_back(plan, network);
            Ok(())
        });
    }
    assert_eq!(table.text("HAIRPIN"), [rule("podman0"), rule("podman1")]);
    table.change(&beside::look_to_remove(true), |plan| {
        beside::remove(plan, &one, &ports(&one, &[]), true, false);
        Ok(())
    });
    assert_eq!(table.text("HAIRPIN"), [rule("podman1")]);
}
