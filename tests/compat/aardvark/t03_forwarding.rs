//! Which upstream is asked, with what patience, and what comes back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slipway_lab::now;

use crate::daemon;
use crate::message::{self, A, MX, NXDOMAIN, REFUSED, TXT};
use crate::place::{GATEWAY, PODMAN1};
use crate::upstream::Upstream;

const FIRST: &str = "198.51.100.1";
const SECOND: &str = "198.51.100.2";

/// In less than the share of five seconds that the first of two servers has.
#[track_caller]
fn at_once(work: impl FnOnce()) {
    let start = now();
    work();
    assert!(start.elapsed() < Duration::from_millis(2400), "{:?}", start.elapsed());
}

#[test]
fn any_answer_is_relayed_as_it_is() {
    let daemon = daemon!("any_answer_is_relayed_as_it_is");
    let upstream = Upstream::new(&daemon.machine, FIRST, |query, _| {
        let seen = message::Message::read(query).unwrap();
        vec![match seen.kind {
            TXT => message::answer(query, 0x0580, &[(TXT, b"\x0bhello world".to_vec())]),
            A => message::answer(query, 0x0185, &[]),
            _ => message::answer(query, 0x0180, &[(65280, vec![1, 2, 3])]),
        }]
    });
    daemon.resolvers(&[FIRST]);
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let reply = daemon.ask("10.89.0.2", GATEWAY, "words.test", TXT);
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(reply.answers[0].data, message::Data::Other(b"\x0bhello world".to_vec()));
    assert_eq!(reply.answers[0].ttl, 60);
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "short", A).rcode(), REFUSED);
    let strange = daemon.ask("10.89.0.2", GATEWAY, "strange.test", 65280);
    assert_eq!(strange.answers[0].data, message::Data::Other(vec![1, 2, 3]));
    assert!(upstream.seen().iter().all(|seen| !seen.tcp && !seen.opt));
}

/// host(1) asks for A, AAAA and MX, and calls a name unknown that has one of them denied.
#[test]
fn other_types_of_a_name_that_exists_have_no_data() {
    let daemon = daemon!(ours "other_types_of_a_name_that_exists_have_no_data");
    let upstream = Upstream::with_address(&daemon.machine, FIRST, "198.51.100.50");
    daemon.resolvers(&[FIRST]);
    daemon.network("podman1", PODMAN1);
    daemon.start();
    for name in ["one", "one.dns.podman", "ONE.dns.podman"] {
        for kind in [MX, TXT, 65, 64] {
            let reply = daemon.ask("10.89.0.2", GATEWAY, name, kind);
            assert_eq!((reply.rcode(), reply.answers.len()), (0, 0), "{name} {kind}");
        }
    }
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "nobody.dns.podman", MX).rcode(), NXDOMAIN);
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "world.test", A).addresses(), ["198.51.100.50"]);
    let asked: Vec<u16> = upstream.seen().iter().map(|seen| seen.kind).collect();
    assert_eq!(asked, [A], "no stranger hears of the others");
}

/// The next server is asked when one says SERVFAIL, REFUSED or NOTIMP; what the last one says is relayed.
#[test]
fn an_error_leads_to_the_next_server() {
    let daemon = daemon!(ours "an_error_leads_to_the_next_server");
    let first = Upstream::new(&daemon.machine, FIRST, |query, _| vec![message::answer(query, 0x0182, &[])]);
    let _second = Upstream::new(&daemon.machine, SECOND, |query, _| {
        let knows = message::Message::read(query).unwrap().name.starts_with("known");
        vec![if knows {
            message::answer(query, 0x0180, &[(A, vec![198, 51, 100, 50])])
        } else {
            message::answer(query, 0x0185, &[])
        }]
    });
    daemon.resolvers(&[FIRST, SECOND]);
    daemon.network("podman1", PODMAN1);
    daemon.start();
    at_once(|| {
        assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "known.test", A).addresses(), ["198.51.100.50"]);
    });
    let mut stream = daemon.client("10.89.0.2").connect(GATEWAY);
    at_once(|| assert_eq!(stream.ask("known-too.test", A).addresses(), ["198.51.100.50"]));
    at_once(|| assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "other.test", A).rcode(), REFUSED));
    assert!(first.was_asked("known.test") && first.was_asked("other.test"));
}

#[test]
fn extensions_travel_both_ways() {
    let daemon = daemon!("extensions_travel_both_ways");
    let upstream = Upstream::with_address(&daemon.machine, FIRST, "198.51.100.50");
    daemon.resolvers(&[FIRST]);
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let client = daemon.client("10.89.0.2");
    client.send(GATEWAY, &message::query_with_opt(0x1234, "example.test", A));
    let reply = client.receive(crate::LIMIT).unwrap();
    assert_eq!((reply.id, reply.addresses()), (0x1234, vec!["198.51.100.50".to_owned()]));
    assert!(upstream.seen()[0].opt);
}

#[test]
fn the_transport_of_the_client_is_kept() {
    let daemon = daemon!("the_transport_of_the_client_is_kept");
    let upstream = Upstream::with_address(&daemon.machine, FIRST, "198.51.100.50");
    daemon.resolvers(&[FIRST]);
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let mut stream = daemon.client("10.89.0.2").connect(GATEWAY);
    assert_eq!(stream.ask("by-stream.test", A).addresses(), ["198.51.100.50"]);
    let _ = daemon.ask("10.89.0.2", GATEWAY, "by-datagram.test", A);
    let seen: Vec<(String, bool)> = upstream.seen().into_iter().map(|seen| (seen.name, seen.tcp)).collect();
    assert_eq!(seen, [("by-stream.test".to_owned(), true), ("by-datagram.test".to_owned(), false)]);
}

#[test]
fn a_truncated_answer_is_relayed_with_its_mark() {
    let daemon = daemon!("a_truncated_answer_is_relayed_with_its_mark");
    let _upstream = Upstream::new(&daemon.machine, FIRST, |query, tcp| {
        vec![if tcp {
            message::answer(query, 0x0180, &[(A, vec![198, 51, 100, 7])])
        } else {
            message::answer(query, 0x0380, &[])
        }]
    });
    daemon.resolvers(&[FIRST]);
    daemon.network("podman1", PODMAN1);
    daemon.start();
    assert!(daemon.ask("10.89.0.2", GATEWAY, "big.test", A).is_truncated());
    let reply = daemon.client("10.89.0.2").connect(GATEWAY).ask("big.test", A);
    assert_eq!(reply.addresses(), ["198.51.100.7"]);
}

#[test]
fn the_second_of_two_is_asked_after_half_the_time() {
    let daemon = daemon!("the_second_of_two_is_asked_after_half_the_time");
    let first = Upstream::silent(&daemon.machine, FIRST);
    let _second = Upstream::with_address(&daemon.machine, SECOND, "198.51.100.50");
    daemon.resolvers(&[FIRST, SECOND]);
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let times = |took: Duration| took > Duration::from_millis(2000) && took < Duration::from_millis(4900);
    let start = now();
    let reply = daemon.ask("10.89.0.2", GATEWAY, "datagram.test", A);
    assert_eq!(reply.addresses(), ["198.51.100.50"]);
    assert!(times(start.elapsed()), "{:?}", start.elapsed());
    let mut stream = daemon.client("10.89.0.2").connect(GATEWAY);
    let start = now();
    assert_eq!(stream.ask("stream.test", A).addresses(), ["198.51.100.50"]);
    assert!(times(start.elapsed()), "{:?}", start.elapsed());
    assert!(first.was_asked("datagram.test") && first.was_asked("stream.test"));
}

#[test]
fn a_lost_datagram_is_sent_again() {
    let daemon = daemon!("a_lost_datagram_is_sent_again");
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::new(&daemon.machine, FIRST, move |query, _| {
        let lost = asked.fetch_add(1, Ordering::Relaxed) < 2;
        let answer = || message::answer(query, 0x0180, &[(A, vec![198, 51, 100, 50])]);
        if lost { Vec::new() } else { vec![answer()] }
    });
    daemon.resolvers(&[FIRST]);
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let start = now();
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "example.test", A).addresses(), ["198.51.100.50"]);
    assert!(start.elapsed() < Duration::from_millis(4900), "{:?}", start.elapsed());
    assert_eq!(upstream.seen().len(), 3);
}

#[test]
fn dead_servers_are_met_with_silence() {
    let daemon = daemon!("dead_servers_are_met_with_silence");
    let _first = Upstream::silent(&daemon.machine, FIRST);
    daemon.resolvers(&[FIRST]);
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let client = daemon.client("10.89.0.2");
    client.send(GATEWAY, &message::query(1, "slow.test", A));
    assert!(client.receive(Duration::from_secs(6)).is_none());
    // And nobody else had to wait.
    assert_eq!(client.ask(GATEWAY, "one", A).addresses(), ["10.89.0.2"]);
}

#[test]
fn no_server_at_all_is_silence() {
    let daemon = daemon!("no_server_at_all_is_silence");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let client = daemon.client("10.89.0.2");
    client.send(GATEWAY, &message::query(1, "nowhere.test", A));
    assert!(client.receive(Duration::from_millis(1500)).is_none());
}

#[test]
fn the_nearest_list_of_servers_is_used() {
    let daemon = daemon!("the_nearest_list_of_servers_is_used");
    let mut kept = Vec::new();
    for number in 1..=4 {
        let (address, says) = (format!("198.51.100.{number}"), format!("198.51.100.{}", 100 + number));
        kept.push(Upstream::with_address(&daemon.machine, &address, &says));
    }
    daemon.resolvers(&["198.51.100.1"]);
    let text = "10.89.0.1 198.51.100.2\nida 10.89.0.2  one 198.51.100.3\nidb 10.89.0.3  two\n";
    daemon.network("podman1", text);
    daemon.network("podman2", "10.90.0.1\nidc 10.90.0.2  three\n");
    daemon.network("podman3", "10.91.0.1 198.51.100.4\nidd 10.91.0.2  four\nidc 10.91.0.3  three\n");
    daemon.start();
    for (source, server, expected) in [
        ("10.89.0.2", "10.89.0.1", "198.51.100.103"), // its own
        ("10.89.0.3", "10.89.0.1", "198.51.100.102"), // its network's
        ("10.90.0.2", "10.90.0.1", "198.51.100.104"), // of all its networks
        ("10.91.0.2", "10.91.0.1", "198.51.100.104"),
    ] {
        let reply = daemon.ask(source, server, "example.test", A);
        assert_eq!(reply.addresses(), [expected], "{source} asks {server}");
    }
}

#[test]
fn resolv_conf_is_read_as_the_resolver_does() {
    let daemon = daemon!("resolv_conf_is_read_as_the_resolver_does");
    let _upstream = Upstream::with_address(&daemon.machine, "198.51.100.3", "198.51.100.50");
    let _fourth = Upstream::with_address(&daemon.machine, "198.51.100.4", "198.51.100.51");
    let text =
        "# a comment\n; another\nsearch test\noptions ndots:2\nnameserver 198.51.100.3 # here\nsortlist x\n";
    std::fs::write(daemon.machine.resolv_conf(), text).unwrap();
    daemon.network("podman1", PODMAN1);
    daemon.start();
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "example.test", A).addresses(), ["198.51.100.50"]);
}

#[test]
fn a_changed_resolv_conf_is_followed() {
    let daemon = daemon!("a_changed_resolv_conf_is_followed");
    let _first = Upstream::with_address(&daemon.machine, FIRST, "198.51.100.101");
    let _second = Upstream::with_address(&daemon.machine, SECOND, "198.51.100.102");
    daemon.resolvers(&[FIRST]);
    daemon.network("podman1", PODMAN1);
    daemon.start();
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "example.test", A).addresses(), ["198.51.100.101"]);
    daemon.resolvers(&[SECOND]);
    // No signal: the file is watched.
    daemon.ask_until("10.89.0.2", "example.test", A, |reply| reply.addresses() == ["198.51.100.102"]);
}

#[test]
fn forwarding_can_be_switched_off() {
    let daemon = daemon!("forwarding_can_be_switched_off");
    let upstream = Upstream::with_address(&daemon.machine, FIRST, "198.51.100.50");
    daemon.resolvers(&[FIRST]);
    daemon.network("podman1", PODMAN1);
    // Any value will do, the empty one, too.
    daemon.cmd().env("AARDVARK_NO_PROXY", "").ok(crate::LIMIT).unwrap();
    let reply = daemon.ask("10.89.0.2", GATEWAY, "example.test", A);
    assert_eq!((reply.rcode(), reply.answers.len(), reply.name.as_str()), (NXDOMAIN, 0, "example.test"));
    assert!(upstream.seen().is_empty());
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "two", A).addresses(), ["10.89.0.3"]);
}

#[test]
fn a_slow_upstream_keeps_nobody_waiting() {
    let daemon = daemon!("a_slow_upstream_keeps_nobody_waiting");
    let _silent = Upstream::silent(&daemon.machine, FIRST);
    daemon.resolvers(&[FIRST]);
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let client = daemon.client("10.89.0.2");
    for number in 0..200 {
        client.send(GATEWAY, &message::query(number, &format!("n{number}.test"), A));
    }
    for _ in 0..50 {
        at_once(|| assert_eq!(daemon.ask("10.89.0.3", GATEWAY, "one", A).addresses(), ["10.89.0.2"]));
    }
}

#[test]
fn a_lying_upstream_is_not_believed() {
    let daemon = daemon!(ours "a_lying_upstream_is_not_believed");
    let _upstream = Upstream::new(&daemon.machine, FIRST, |query, _| {
        let truth = message::answer(query, 0x0180, &[(A, vec![198, 51, 100, 50])]);
        let mut lie = message::answer(query, 0x0180, &[(A, vec![198, 51, 100, 66])]);
        lie[0] ^= 0xff;
        vec![lie, b"not a message".to_vec(), truth]
    });
    daemon.resolvers(&[FIRST]);
    daemon.network("podman1", PODMAN1);
    daemon.start();
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "example.test", A).addresses(), ["198.51.100.50"]);
}
