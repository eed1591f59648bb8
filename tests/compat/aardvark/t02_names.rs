//! Who may see which names, and how the answers look.

use crate::daemon;
use crate::message::{self, A, AAAA, Data, NOERROR, NXDOMAIN, OPT, PTR, reverse};
use crate::place::{Daemon, GATEWAY, GATEWAY_B, GATEWAY6, PODMAN1};
use crate::upstream::Upstream;

/// A network of each family, both reachable by a shared container.
const DUAL: &str = "10.89.0.1,fd89::1\nida 10.89.0.2 fd89::2 one,alpha\nidb 10.89.0.3  two\n";
const OTHER: &str = "10.90.0.1\nidc 10.90.0.2  three\nida 10.90.0.3  one,shared\n";

/// An upstream that knows no name, so that a leak shows.
fn nobody(daemon: &Daemon) -> Upstream {
    daemon.resolvers(&["198.51.100.1"]);
    Upstream::new(&daemon.machine, "198.51.100.1", |query, _| vec![message::answer(query, 0x0183, &[])])
}

#[test]
fn an_answer_has_the_shape_clients_expect() {
    let daemon = daemon!("an_answer_has_the_shape_clients_expect");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let reply = daemon.ask("10.89.0.2", GATEWAY, "TwO", A);
    assert_eq!((reply.rcode(), reply.addresses()), (NOERROR, vec!["10.89.0.3".to_owned()]));
    // Response, recursion desired and available; not authoritative.
    assert_eq!(reply.flags, 0x8180);
    assert_eq!((reply.name.as_str(), reply.kind), ("TwO", A));
    let record = &reply.answers[0];
    assert_eq!((record.ttl, record.name.as_str()), (0, "TwO"));
    // Without the wish for recursion there is no offer of it either.
    let client = daemon.client("10.89.0.2");
    let mut query = message::query(9, "two", A);
    query[2] = 0;
    client.send(GATEWAY, &query);
    assert_eq!(client.receive(crate::LIMIT).unwrap().flags, 0x8000);
}

#[test]
fn names_are_found_with_and_without_the_domain() {
    let daemon = daemon!("names_are_found_with_and_without_the_domain");
    let _nobody = nobody(&daemon);
    daemon.network("podman1", "10.89.0.1\nIDA 10.89.0.2  One,ALPHA\n");
    daemon.start();
    for name in ["one", "ONE", "one.dns.podman", "alpha", "Alpha.dns.podman"] {
        assert_eq!(daemon.ask("10.89.0.2", GATEWAY, name, A).addresses(), ["10.89.0.2"], "{name}");
    }
    for name in ["one.dns.podman.dns.podman", "one.podman", "x.one", "on", "ida"] {
        let reply = daemon.ask("10.89.0.2", GATEWAY, name, A);
        assert_eq!((reply.rcode(), reply.answers.len()), (NXDOMAIN, 0), "{name}");
    }
}

#[test]
fn both_families_are_answered() {
    let daemon = daemon!("both_families_are_answered");
    daemon.network("podman1", DUAL);
    daemon.start();
    for (source, server) in [("10.89.0.3", GATEWAY), ("fd89::2", GATEWAY6)] {
        assert_eq!(daemon.ask(source, server, "one", A).addresses(), ["10.89.0.2"]);
        assert_eq!(daemon.ask(source, server, "one", AAAA).addresses(), ["fd89::2"]);
        // A name without an address of this family exists all the same.
        let reply = daemon.ask(source, server, "two", AAAA);
        assert_eq!((reply.rcode(), reply.answers.len()), (NOERROR, 0));
    }
}

#[test]
fn networks_do_not_see_each_other() {
    let daemon = daemon!("networks_do_not_see_each_other");
    let nobody = nobody(&daemon);
    daemon.network("podman1", PODMAN1);
    daemon.network("podman2", "10.90.0.1\nidc 10.90.0.2  three\n");
    daemon.start();
    let reply = daemon.ask("10.89.0.2", GATEWAY, "three.dns.podman", A);
    assert_eq!((reply.rcode(), reply.answers.len()), (NXDOMAIN, 0));
    assert!(nobody.seen().is_empty(), "names below the domain are never forwarded");
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "three", A).rcode(), NXDOMAIN);
    // Single labels are forwarded, for a network's own resolver may know them.
    assert!(nobody.was_asked("three"));
    assert_eq!(daemon.ask("10.90.0.2", GATEWAY_B, "one", A).rcode(), NXDOMAIN);
}

#[test]
fn a_shared_container_sees_both_networks_through_any_gateway() {
    let daemon = daemon!("a_shared_container_sees_both_networks_through_any_gateway");
    let _nobody = nobody(&daemon);
    daemon.network("podman1", DUAL);
    daemon.network("podman2", OTHER);
    daemon.start();
    for (source, server) in [("10.89.0.2", GATEWAY), ("10.89.0.2", GATEWAY_B), ("10.90.0.3", GATEWAY)] {
        assert_eq!(daemon.ask(source, server, "two", A).addresses(), ["10.89.0.3"]);
        assert_eq!(daemon.ask(source, server, "three", A).addresses(), ["10.90.0.2"]);
        let mut own = daemon.ask(source, server, "one", A).addresses();
        own.sort();
        assert_eq!(own, ["10.89.0.2", "10.90.0.3"], "one name in two networks");
    }
    assert_eq!(daemon.ask("10.90.0.2", GATEWAY_B, "two", A).rcode(), NXDOMAIN);
    assert_eq!(daemon.ask("10.90.0.2", GATEWAY_B, "one", A).addresses(), ["10.90.0.3"]);
}

#[test]
fn a_stranger_sees_the_network_it_asks() {
    let daemon = daemon!("a_stranger_sees_the_network_it_asks");
    let _nobody = nobody(&daemon);
    daemon.network("podman1", PODMAN1);
    daemon.network("podman2", OTHER);
    daemon.start();
    // The host itself: no container has this address.
    assert_eq!(daemon.ask(GATEWAY, GATEWAY, "two", A).addresses(), ["10.89.0.3"]);
    assert_eq!(daemon.ask(GATEWAY_B, GATEWAY_B, "three", A).addresses(), ["10.90.0.2"]);
    assert_eq!(daemon.ask(GATEWAY_B, GATEWAY_B, "two", A).rcode(), NXDOMAIN);
    assert_eq!(daemon.ask("198.51.100.9", GATEWAY, "three", A).rcode(), NXDOMAIN);
}

#[test]
fn one_alias_of_many_gives_all_addresses_in_order() {
    let daemon = daemon!("one_alias_of_many_gives_all_addresses_in_order");
    let lines: Vec<String> = (2..42).map(|n| format!("id{n} 10.89.0.{n}  c{n},web")).collect();
    daemon.network("podman1", &format!("10.89.0.1\n{}\n", lines.join("\n")));
    daemon.start();
    let expected: Vec<String> = (2..42).map(|n| format!("10.89.0.{n}")).collect();
    // More than 512 octets, and still not truncated: the names of a network are few and the clients know their kernel.
    for _ in 0..3 {
        let reply = daemon.ask("10.89.0.2", GATEWAY, "web", A);
        assert!(!reply.is_truncated());
        assert_eq!(reply.addresses(), expected);
    }
}

#[test]
fn reverse_names_list_every_alias() {
    let daemon = daemon!("reverse_names_list_every_alias");
    let _nobody = nobody(&daemon);
    daemon.network("podman1", DUAL);
    daemon.start();
    for address in ["10.89.0.2", "fd89::2"] {
        let reply = daemon.ask("10.89.0.3", GATEWAY, &reverse(address), PTR);
        assert_eq!((reply.rcode(), reply.names()), (NOERROR, vec!["one".to_owned(), "alpha".to_owned()]));
        assert!(reply.answers.iter().all(|record| record.ttl == 0));
        assert!(reply.answers.iter().all(|record| matches!(record.data, Data::Name(_))));
    }
    assert_eq!(daemon.ask("10.89.0.3", GATEWAY, &reverse("10.89.0.77"), PTR).rcode(), NXDOMAIN);
    // Only containers may turn addresses into names.
    assert_eq!(daemon.ask(GATEWAY, GATEWAY, &reverse("10.89.0.2"), PTR).rcode(), NXDOMAIN);
}

#[test]
fn an_internal_network_never_asks_the_world() {
    let daemon = daemon!("an_internal_network_never_asks_the_world");
    let upstream = Upstream::with_address(&daemon.machine, "198.51.100.1", "198.51.100.99");
    daemon.resolvers(&["198.51.100.1"]);
    daemon.network("podman1%int", "10.89.0.1,fd89::1 198.51.100.1\nida 10.89.0.2 fd89::2 one 198.51.100.1\n");
    daemon.start();
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "one", A).addresses(), ["10.89.0.2"]);
    for (source, server) in [("10.89.0.2", GATEWAY), ("fd89::2", GATEWAY6)] {
        for kind in [A, AAAA, message::TXT] {
            let reply = daemon.ask(source, server, "example.test", kind);
            assert_eq!((reply.rcode(), reply.answers.len()), (NXDOMAIN, 0));
        }
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_container_on_an_internal_and_an_open_network_may_ask() {
    let daemon = daemon!("a_container_on_an_internal_and_an_open_network_may_ask");
    let _upstream = Upstream::with_address(&daemon.machine, "198.51.100.1", "198.51.100.99");
    daemon.resolvers(&["198.51.100.1"]);
    daemon.network("inside%int", PODMAN1);
    daemon.network("outside", OTHER);
    daemon.start();
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "example.test", A).addresses(), ["198.51.100.99"]);
    assert_eq!(daemon.ask("10.89.0.3", GATEWAY, "example.test", A).rcode(), NXDOMAIN);
}

#[test]
fn the_clients_opt_record_comes_back() {
    let daemon = daemon!("the_clients_opt_record_comes_back");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let client = daemon.client("10.89.0.2");
    client.send(GATEWAY, &message::query_with_opt(3, "one", A));
    let reply = client.receive(crate::LIMIT).unwrap();
    assert_eq!(reply.addresses(), ["10.89.0.2"]);
    assert_eq!(reply.rest.iter().filter(|record| record.kind == OPT).count(), 1);
    client.send(GATEWAY, &message::query(4, "one", A));
    assert!(client.receive(crate::LIMIT).unwrap().rest.is_empty());
}

#[test]
fn a_name_of_any_permitted_length_and_shape() {
    let daemon = daemon!("a_name_of_any_permitted_length_and_shape");
    let long = "l".repeat(63);
    let network = "n".repeat(111);
    daemon.network(&network, &format!("10.89.0.1\nida 10.89.0.2  {long},with_underscore,a.b.c,1234\n"));
    daemon.start();
    for name in [long.as_str(), "with_underscore", "a.b.c", "1234", "a.b.c.dns.podman"] {
        assert_eq!(daemon.ask("10.89.0.2", GATEWAY, name, A).addresses(), ["10.89.0.2"], "{name}");
    }
}

#[test]
fn a_name_beyond_ascii_is_found_by_its_ascii_form() {
    let daemon = daemon!("a_name_beyond_ascii_is_found_by_its_ascii_form");
    daemon.network("podman1", "10.89.0.1\nida 10.89.0.2  one,Bücher\n");
    daemon.start();
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "xn--bcher-kva", A).addresses(), ["10.89.0.2"]);
    let names = daemon.ask("10.89.0.2", GATEWAY, &reverse("10.89.0.2"), PTR).names();
    // The original leaves such names out of reverse answers.
    assert!(names == ["one", "xn--bcher-kva"] || !daemon.is_ours() && names == ["one"], "{names:?}");
}
