//! Datagrams by hand: sockets, trains, errors, the DNS address.

use crate::addr::MacAddr;
use crate::device::Offload;
use crate::device::vnet::{Gso, GsoKind};
use crate::frame::{Envelope, PROTO_UDP, Transport, assemble};
use crate::ip::rewrite::tests::config;
use crate::transport::lab::{GUEST_MAC, Lab};
use crate::transport::udp;
use crate::upstream::{Client, DatagramError, Errno, Event, Forwarded, Meta};
use core::net::SocketAddr;

fn dns() -> Lab {
    let mut lab = Lab::new();
    lab.server = "10.0.2.3:53".parse().unwrap();
    lab
}

#[test]
fn a_query_is_handed_out_and_its_answer_comes_from_the_dns_address() {
    let mut lab = dns();
    lab.datagram(b"\x00\x01question");
    lab.step();
    assert!(lab.host.datagrams.is_empty() && lab.engine.flow_count() == 0);
    let query = lab.engine.dns_query().unwrap();
    assert_eq!((query.message.as_slice(), query.asker.at), (&b"\x00\x01question"[..], lab.server));
    assert_eq!((query.asker.guest, lab.engine.dns_query()), (lab.guest, None));
    lab.engine.dns_answer(&query.asker, b"\x00\x01answer");
    lab.step();
    let packet = lab.other.pop().unwrap();
    assert_eq!((&packet[12..16], &packet[16..20]), (&[10, 0, 2, 3][..], &[10, 0, 2, 100][..]));
    assert_eq!((&packet[20..22], &packet[28..]), (&[0, 53][..], &b"\x00\x01answer"[..]));
}

#[test]
fn a_long_answer_is_fragmented_and_an_impossible_one_dropped() {
    let mut lab = dns();
    lab.datagram(b"\x00\x01question");
    let asker = lab.engine.dns_query().unwrap().asker;
    lab.engine.dns_answer(&asker, &[7; 65_507]);
    lab.engine.dns_answer(&asker, &vec![7; 65_508]);
    lab.step();
    let bytes: usize = lab.other.iter().map(|packet| packet.len() - 20).sum();
    assert_eq!(bytes, 65_507 + 8);
}

#[test]
fn queries_of_many_ports_hold_little_memory() {
    let mut lab = dns();
    for port in 1..=2000 {
        lab.guest.set_port(port);
        lab.datagram(&[0; 1400]);
    }
    assert_eq!(lab.engine.flow_count(), 0);
    let waiting = core::iter::from_fn(|| lab.engine.dns_query()).count();
    assert!((100..=200).contains(&waiting), "{waiting}");
    lab.datagram(&[0; 5000]);
    assert_eq!(lab.engine.dns_query(), None, "no query is that long");
}

#[test]
fn a_long_error_queue_is_read_to_its_end() {
    let mut lab = Lab::new();
    lab.datagram(b"hello");
    lab.step();
    lab.id = lab.host.datagrams[0].0;
    for _ in 0..50 {
        let to = lab.server;
        lab.host.errors.push_back(DatagramError { to, error: Errno::Refused, reporter: None, icmp: None });
    }
    lab.event(Event::Error);
    lab.step();
    assert!(lab.host.errors.is_empty(), "{} left", lab.host.errors.len());
    assert_eq!(lab.other.len(), 50);
}

#[test]
fn answers_follow_a_guest_that_changes_its_mac_address() {
    let mut lab = Lab::new();
    lab.datagram(b"hello");
    lab.step();
    lab.id = lab.host.datagrams[0].0;
    let moved = MacAddr([2, 0, 0, 0, 0, 9]);
    let env = Envelope {
        to_mac: lab.engine.config().mac,
        src: lab.guest,
        dst: lab.server,
        hops: 64,
        traffic_class: 0,
    };
    let header = udp::header(&env, 1);
    let frame =
        assemble(moved, &env, &Transport { protocol: PROTO_UDP, header: &header, checksum_at: 6 }, b"x");
    lab.engine.on_frame(lab.now, Offload::NONE, &frame, &mut lab.host);
    let from = lab.server;
    lab.host.inbox.push_back((lab.id, from, b"answer".to_vec()));
    lab.event(Event::Readable);
    lab.engine.drain(lab.now, &mut lab.host, &mut lab.link);
    assert!(lab.link.to().eq([moved]));
    assert_ne!(moved, GUEST_MAC);
}

#[test]
fn a_train_of_countless_datagrams_is_malformed() {
    let mut lab = Lab::new();
    let env = Envelope {
        to_mac: lab.engine.config().mac,
        src: lab.guest,
        dst: lab.server,
        hops: 64,
        traffic_class: 0,
    };
    for (len, size, sent) in [(60_000, 1, false), (64_000, 500, true)] {
        let payload = vec![0; len];
        let header = udp::header(&env, len);
        let transport = Transport { protocol: PROTO_UDP, header: &header, checksum_at: 6 };
        let frame = assemble(GUEST_MAC, &env, &transport, &payload);
        let gso = Some(Gso { kind: GsoKind::Udp, size, header_len: 42 });
        lab.engine.on_frame(lab.now, Offload { gso, ..Offload::NONE }, &frame, &mut lab.host);
        lab.step();
        assert_eq!(!lab.host.datagrams.is_empty(), sent, "{size}");
    }
}

#[test]
fn a_guest_whose_mac_address_is_configured_is_not_looked_for() {
    let mut config = config();
    config.guest_mac = Some(GUEST_MAC);
    let mut lab = Lab::with(config);
    let hello = hello(client("192.0.2.1:5000", "192.0.2.9:53"), lab.guest);
    lab.engine.accept_udp(lab.now, &hello).unwrap();
    lab.engine.drain(lab.now, &mut lab.host, &mut lab.link);
    assert!(lab.link.to().any(|mac| mac == GUEST_MAC), "the datagram; beside it we ask");
}

fn client(address: &str, at: &str) -> Client {
    Client { address: address.parse().unwrap(), at: at.parse().unwrap() }
}

fn hello(client: Client, guest: SocketAddr) -> Forwarded<'static> {
    Forwarded { client, guest, payload: b"hello", segment: 5, meta: Meta::default() }
}

#[test]
fn clients_that_look_alike_get_their_own_answers() {
    conversations_are_apart([
        client("127.0.0.1:5000", "127.0.0.1:53"),
        client("127.0.0.2:5000", "127.0.0.1:53"),
    ]);
}

#[test]
fn one_client_at_two_forwarded_ports_has_two_conversations() {
    conversations_are_apart([
        client("192.0.2.1:5000", "192.0.2.9:53"),
        client("192.0.2.1:5000", "192.0.2.9:54"),
    ]);
    conversations_are_apart([
        client("192.0.2.1:5000", "192.0.2.8:53"),
        client("192.0.2.1:5000", "192.0.2.9:53"),
    ]);
}

/// Each of two that look alike to the guest has a flow of its own, and its answers go there.
fn conversations_are_apart(clients: [Client; 2]) {
    let mut lab = Lab::new();
    lab.datagram(b"teaches the MAC address");
    lab.step();
    lab.host.datagrams.clear();
    let mut flows = Vec::new();
    for client in clients.into_iter().chain(clients) {
        let inbound = lab.engine.accept_udp(lab.now, &hello(client, lab.guest)).unwrap();
        lab.host.sockets.entry(inbound.flow).or_default();
        flows.push((inbound.flow, inbound.new));
    }
    assert_eq!((flows[0].1, flows[1].1), (true, true));
    assert_eq!((flows[2].0, flows[3].0), (flows[0].0, flows[1].0));
    for (&(id, _), client) in flows.iter().zip(clients) {
        lab.server = lab.engine.flows().find(|flow| flow.id == id).unwrap().peer;
        lab.datagram(b"answer");
        lab.step();
        let (flow, to, ..) = lab.host.datagrams.pop().unwrap();
        assert_eq!((flow, to), (id, client.address));
    }
}

#[test]
fn a_ping_from_nowhere_opens_no_socket() {
    let mut lab = Lab::new();
    let env = Envelope {
        to_mac: lab.engine.config().mac,
        src: "0.0.0.0:0".parse().unwrap(),
        dst: lab.server,
        hops: 64,
        traffic_class: 0,
    };
    let transport = Transport { protocol: 1, header: &[8, 0, 0, 0, 0, 1, 0, 1], checksum_at: 2 };
    let frame = assemble(GUEST_MAC, &env, &transport, b"ping");
    lab.engine.on_frame(lab.now, Offload::NONE, &frame, &mut lab.host);
    assert_eq!(lab.engine.flow_count(), 0);
}
