//! Against the real kernel: what `nft` prints of our rules, that they are the very rules that `nft` would have made,
//! and what we make of those that others wrote.

use super::fixtures::{in_new_namespace, mapping, network, nft as command, ports, table};
use crate::error::Result;
use crate::firewall::conntrack;
use crate::firewall::nft;
use crate::firewall::nft::wire::{SUBSYSTEM, family, message, object};
use crate::firewall::{Firewall, Leaving, NetworkRules, PortRules, State};
use crate::living::{Living, Others};
use crate::spec::Compat;
use crate::spec::validate::Isolation;
use slipway_host::netlink::Netlink;
use slipway_host::netlink::netfilter::{Attributes, ListEvent, Netfilter, Request, attributes};
use std::io::Write as _;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

fn socket() -> Netfilter {
    Netfilter::open().unwrap()
}

/// Somebody, who lives.
fn others() -> Others {
    let everybody = (0..=255).map(|last| std::net::IpAddr::from([10, 88, 0, last]));
    Others { count: 1, living: Living::with(&everybody.collect::<Vec<_>>()), ..Others::default() }
}

fn setup(network: &NetworkRules, ports: &PortRules) -> Result<()> {
    nft::setup(&mut socket(), network, ports, &others()).map(drop)
}

fn teardown(network: &NetworkRules, ports: &PortRules, complete: bool) -> Result<()> {
    nft::teardown(&mut socket(), network, ports, complete)
}

/// One of everything.
fn everything() -> (NetworkRules, PortRules) {
    let mut network = network(&["10.88.0.0/16", "fd10:88:a::/64"]);
    network.isolation = Isolation::Strict;
    network.dns_port = 1053;
    let mappings = [
        mapping("", "tcp", 8080, 80, 1),
        mapping("127.0.0.1", "udp", 5000, 53, 3),
        mapping("2001:db8::1", "sctp", 5000, 53, 1),
        mapping("", "tcp", 10_000, 20_000, 17),
    ];
    let ports = ports(&network, &mappings);
    (network, ports)
}

#[test]
fn a_network_with_ports_prints_as_contracted() {
    in_new_namespace("a_network_with_ports_prints_as_contracted", || {
        let (network, ports) = everything();
        setup(&network, &ports).unwrap();
        let full = table();
        insta::assert_snapshot!("listing", full);
        teardown(&network, &ports, true).unwrap();
        insta::assert_snapshot!("listing_after_teardown", table());
        // As often as one likes.
        teardown(&network, &ports, true).unwrap();
        setup(&network, &ports).unwrap();
        assert_eq!(table(), full);
    });
}

/// The raw expressions of all rules in the table, without the names that the kernel gave to sets.
fn expressions() -> Vec<Vec<u8>> {
    let mut socket = Netfilter::open().unwrap();
    let mut name = Attributes::default();
    name.text(object::RULE_TABLE, "netavark");
    let request = Request { subsystem: SUBSYSTEM, kind: message::GET_RULE, family: family::INET };
    let mut all = Vec::new();
    socket
        .list(request, &name, |event| {
            if let ListEvent::Entry(entry) = event {
                let found = attributes(entry).find(|(kind, _)| *kind == object::RULE_EXPRESSIONS);
                all.push(found.unwrap().1.to_vec());
            }
        })
        .unwrap();
    // `__set7` and `__map7`: the digit says nothing.
    for rule in &mut all {
        for i in 0..rule.len().saturating_sub(6) {
            if [&b"__set"[..], b"__map"].contains(&&rule[i..i + 5]) {
                rule[i + 5] = b'0';
            }
        }
    }
    all
}

fn load(text: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_kernel_holds_what_nft_would_have_made() {
    in_new_namespace("the_kernel_holds_what_nft_would_have_made", || {
        let (mut network, ports) = everything();
        network.outbound_addr6 = "2001:db8::9".parse().ok();
        for subnet in ["10.90.4.0/22", "10.91.0.1/32"] {
            network.subnets.as_mut().unwrap().push(subnet.parse().unwrap());
        }
        setup(&network, &ports).unwrap();
        let (text, ours) = (table(), expressions());
        command(&["flush", "ruleset"]);
        load(&text);
        assert_eq!(table(), text);
        for (ours, theirs) in ours.iter().zip(&expressions()) {
            assert_eq!(ours, theirs);
        }
        assert_eq!(ours.len(), expressions().len());
        // And as nft's rules they are recognised.
        teardown(&network, &ports, true).unwrap();
        let rest = table();
        assert!(!rest.contains("10.8") && !rest.contains("fd10") && !rest.contains("podman0"), "{rest}");
    });
}

#[test]
fn rules_of_others_stay() {
    in_new_namespace("rules_of_others_stay", || {
        let (network, ports) = everything();
        setup(&network, &ports).unwrap();
        for rule in [
            "ip saddr 10.88.0.0/16 counter accept",
            "ip saddr 10.88.0.0/16 accept comment \"mine\"",
            "iifname \"podman*\" drop",
            "meta nfproto ipv4 accept",
            "tcp dport != 8080 accept",
        ] {
            load(&format!("add rule inet netavark FORWARD {rule}\n"));
        }
        teardown(&network, &ports, true).unwrap();
        let rest = table();
        for kept in ["counter", "mine", "podman*", "nfproto", "!= 8080"] {
            assert!(rest.contains(kept), "{kept}: {rest}");
        }
    });
}

#[test]
fn a_table_that_has_gone_is_no_error() {
    in_new_namespace("a_table_that_has_gone_is_no_error", || {
        let (network, ports) = everything();
        teardown(&network, &ports, true).unwrap();
        setup(&network, &ports).unwrap();
        command(&["delete", "table", "inet", "netavark"]);
        teardown(&network, &ports, false).unwrap();
        teardown(&network, &ports, true).unwrap();
    });
}

#[test]
fn a_refusal_names_the_rule_and_leaves_nothing() {
    in_new_namespace("a_refusal_names_the_rule_and_leaves_nothing", || {
        let (network, ports) = everything();
        // A chain of that name of another kind is in the way.
        load("table inet netavark {\n chain OUTPUT { type filter hook output priority 0\n }\n }\n");
        let before = table();
        let error = setup(&network, &ports).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "nftables error: the kernel refused the ruleset at \"insert rule NETAVARK-HOSTPORT-DNAT "
            ),
            "{error}"
        );
        assert_eq!(table(), before);
    });
}

#[test]
fn everything_comes_back_after_a_flush() {
    in_new_namespace("everything_comes_back_after_a_flush", || {
        let (network, ports) = everything();
        let directory = tempfile::tempdir().unwrap();
        let state = State::new(directory.path());
        assert!(state.load().unwrap().is_none());
        assert!(state.save("nftables", &network, &ports).unwrap());
        assert!(!state.save("nftables", &network, &ports).unwrap());
        setup(&network, &ports).unwrap();
        let before = table();
        command(&["flush", "ruleset"]);
        nft::restore(&mut socket(), &state.load().unwrap().unwrap()).unwrap();
        assert_eq!(table(), before);
        // Without a flush nothing is added twice.
        nft::restore(&mut socket(), &state.load().unwrap().unwrap()).unwrap();
        assert_eq!(table(), before);
        state.forget(&ports, true).unwrap();
        assert!(state.load().unwrap().unwrap().networks.is_empty());
    });
}

#[test]
fn thousands_of_ports_go_in_at_once() {
    in_new_namespace("thousands_of_ports_go_in_at_once", || {
        let network = network(&["10.88.0.0/16"]);
        let all = ports(&network, &[mapping("", "udp", 1, 1, u16::MAX)]);
        setup(&network, &all).unwrap();
        teardown(&network, &all, false).unwrap();
        let without = expressions().len();
        // As single rules: a message of a megabyte.
        let list: Vec<_> = (1..=2000).map(|port| mapping("", "tcp", port, port, 1)).collect();
        let many = ports(&network, &list);
        setup(&network, &many).unwrap();
        assert_eq!(expressions().len(), without + 4 * 2000);
        teardown(&network, &many, false).unwrap();
        assert_eq!(expressions().len(), without);
    });
}

#[test]
fn the_older_contract_has_no_connection_mark() {
    in_new_namespace("the_older_contract_has_no_connection_mark", || {
        let (mut network, mut ports) = everything();
        network.compat = Compat::One;
        ports.compat = Compat::One;
        setup(&network, &ports).unwrap();
        let text = table();
        assert!(!text.contains("ct mark"), "{text}");
        network.compat = Compat::Two;
        ports.compat = Compat::Two;
        teardown(&network, &ports, true).unwrap();
        assert!(!table().contains("nv_"));
    });
}

/// The kernel's UDP connections to that port.
fn connections(port: u16) -> usize {
    let mut netfilter = Netfilter::open().unwrap();
    let all = netfilter.connections(false, 17, None).unwrap();
    let found = netfilter.connections(false, 17, Some(port)).unwrap().len();
    assert_eq!(all.iter().filter(|connection| connection.original.1.port() == port).count(), found);
    found
}

#[test]
fn one_port_among_thousands_of_connections_is_forgotten_alone() {
    in_new_namespace("one_port_among_thousands_of_connections_is_forgotten_alone", || {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.interface("lo").unwrap();
        netlink.set_up(&lo).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let firewall = Firewall::select(None, directory.path(), false).unwrap();
        let network = network(&["10.88.0.0/16"]);
        firewall.setup(&network, &ports(&network, &[]), &others()).unwrap();
        // More than are looked through as a text.
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        for port in 20_000..23_100_u16 {
            peer.send_to(b"hello", ("127.0.0.1", port)).unwrap();
        }
        assert!(conntrack::may_be_tracked(&[&mapping("", "udp", 5000, 53, 1)]));
        assert_eq!((connections(20_500), connections(20_501)), (1, 1));
        let published = ports(&network, &[mapping("", "udp", 20_500, 53, 1)]);
        firewall.setup(&network, &published, &others()).unwrap();
        assert_eq!((connections(20_500), connections(20_501)), (0, 1));
    });
}

#[test]
fn udp_peers_notice_that_a_port_was_published_and_that_it_was_not() {
    in_new_namespace("udp_peers_notice_that_a_port_was_published_and_that_it_was_not", || {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.interface("lo").unwrap();
        netlink.set_up(&lo).unwrap();
        // The container's subnet leads to this very host.
        netlink.add_address(&lo, "10.88.0.1/16".parse().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let firewall = Firewall::select(None, directory.path(), false).unwrap();
        let network = network(&["10.88.0.0/16"]);
        firewall.setup(&network, &ports(&network, &[]), &others()).unwrap();

        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let send = |port: u16| peer.send_to(b"hello", ("127.0.0.1", port)).unwrap();
        send(5000);
        send(6000);
        assert_eq!((connections(5000), connections(6000)), (1, 1));
        // Whoever publishes another port need not look through them all.
        let mapping_of = |port: u16| mapping("", "udp", port, 53, 2);
        assert!(
            conntrack::may_be_tracked(&[&mapping_of(4999)])
                && conntrack::may_be_tracked(&[&mapping_of(6000)])
        );
        if std::fs::exists("/proc/thread-self/net/nf_conntrack").unwrap() {
            assert!(!conntrack::may_be_tracked(&[&mapping_of(5001)]));
        }
        let published = ports(&network, &[mapping("", "udp", 4999, 53, 2)]);
        firewall.setup(&network, &published, &others()).unwrap();
        assert_eq!((connections(5000), connections(6000)), (0, 1));

        let container = UdpSocket::bind("10.88.0.2:54").unwrap();
        send(5000);
        let mut text = [0; 16];
        container.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(container.recv(&mut text).unwrap(), 5);
        assert_eq!(connections(5000), 1);
        // Set up once more, it leads to the right container.
        firewall.setup(&network, &published, &others()).unwrap();
        assert_eq!(connections(5000), 1);
        firewall.teardown(&network, &published, Leaving { complete: true, connected: true }).unwrap();
        assert_eq!((connections(5000), connections(6000)), (0, 1));
    });
}
