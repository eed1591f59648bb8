//! Datagrams by hand: sockets, trains, errors, the DNS address.

use crate::addr::MacAddr;
use crate::bytes::len16;
use crate::checksum;
use crate::device::vnet::{Checksum, Gso, GsoKind};
use crate::device::{Capabilities, Offload};
use crate::drop_reason::DropReason;
use crate::ethernet::neighbour::OnLink;
use crate::frame::{Envelope, Transport, assemble, wrap};
use crate::headers::{ETHERNET_LEN, PROTO_TCP, PROTO_UDP};
use crate::ip::fragment::fragment;
use crate::testing::config;
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
    assert!((1..=(256 << 10) / 1400).contains(&waiting), "{waiting}");
    lab.datagram(&[0; 5000]);
    assert_eq!(lab.engine.dns_query(), None, "no query is that long");
}

/// As many as a program with many tasks asks at once, all before anybody takes them.
#[test]
fn all_queries_of_a_round_are_handed_out() {
    let mut lab = dns();
    for _ in 0..1000 {
        lab.datagram(&[0; 35]);
    }
    assert_eq!(core::iter::from_fn(|| lab.engine.dns_query()).count(), 1000);
}

#[test]
fn a_long_error_queue_is_read_to_its_end() {
    let mut lab = Lab::new();
    lab.datagram(b"hello");
    lab.step();
    lab.id = lab.host.datagrams[0].0;
    for _ in 0..50 {
        let to = lab.server;
        lab.host.errors.push_back(DatagramError {
            to,
            error: Errno::Refused,
            reporter: None,
            icmp: None,
            sequence: None,
        });
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
        ident: None,
    };
    let header = udp::header(&env, 1);
    let frame = assemble(moved, &env, &Transport::udp(&header), b"x");
    // By ARP or neighbour discovery; what a packet bears as its source moves nothing.
    lab.engine.learn(lab.now, lab.guest.ip(), moved);
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
        ident: None,
    };
    for (len, size, sent) in [(60_000, 1, false), (64_000, 500, true)] {
        let payload = vec![0; len];
        let header = udp::header(&env, len);
        let transport = Transport::udp(&header);
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
    config.on_link = OnLink::Many { otherwise: Some(GUEST_MAC) };
    let mut lab = Lab::with(config);
    let hello = hello(client("192.0.2.1:5000", "192.0.2.9:53"), lab.guest);
    lab.engine.accept_udp(lab.now, &hello, &mut lab.link).unwrap();
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
        let inbound = lab.engine.accept_udp(lab.now, &hello(client, lab.guest), &mut lab.link).unwrap();
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
        ident: None,
    };
    let transport = Transport::icmp(false, &[8, 0, 0, 0, 0, 1, 0, 1]);
    let frame = assemble(GUEST_MAC, &env, &transport, b"ping");
    lab.engine.on_frame(lab.now, Offload::NONE, &frame, &mut lab.host);
    assert_eq!(lab.engine.flow_count(), 0);
}

/// A frame as a kernel hands it out whose device has a tunnel: a UDP datagram around another packet, whose TCP checksum
/// is left to us. Gives the frame, the offload, and the datagram's payload as it must leave.
fn tunnelled(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> (Vec<u8>, Offload, Vec<u8>) {
    let inner = Envelope {
        to_mac: GUEST_MAC,
        src: "10.99.0.1:1".parse().unwrap(),
        dst: "10.99.0.2:2".parse().unwrap(),
        hops: 64,
        traffic_class: 0,
        ident: None,
    };
    let header = [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 99, 0, 0, 0, 0];
    let segment = assemble(GUEST_MAC, &inner, &Transport::tcp(&header), payload);
    let vxlan = [8, 0, 0, 0, 0, 0, 42, 0];
    let finished = [&vxlan[..], &segment].concat();
    let outer = Envelope { to_mac: Lab::new().engine.config().mac, src, dst, ident: Some(1), ..inner };
    let header = udp::header(&outer, finished.len());
    // The outer checksum is right for the finished bytes, as the kernel's is.
    let transport = Transport::udp(&header);
    let mut frame = assemble(GUEST_MAC, &outer, &transport, &finished);
    let start = frame.len() - 20 - payload.len();
    let pseudo = checksum::pseudo_header(
        inner.src.ip(),
        inner.dst.ip(),
        PROTO_TCP,
        u32::try_from(segment.len() - 34).unwrap(),
    );
    frame[start + 16..start + 18].copy_from_slice(&pseudo.to_be_bytes());
    let checksum = Checksum::Partial { start: u16::try_from(start).unwrap(), offset: 16 };
    (frame, Offload { checksum, gso: None }, finished)
}

const TUNNELS: [(&str, &str); 2] =
    [("10.0.2.100:4000", "192.0.2.1:4789"), ("[fd00::64]:4000", "[2001:db8::1]:4789")];

#[test]
fn the_checksum_inside_a_tunnel_is_completed() {
    for (src, dst) in TUNNELS {
        let mut lab = Lab::new();
        let (mut frame, offload, finished) = tunnelled(src.parse().unwrap(), dst.parse().unwrap(), b"odd");
        if src.starts_with("10.") {
            assert_eq!(offload.checksum, Checksum::Partial { start: 84, offset: 16 });
        }
        lab.engine.on_frame(lab.now, offload, &frame, &mut lab.host);
        lab.step();
        assert!(lab.host.datagrams.pop().unwrap().2 == finished, "{src}");
        // What is around it is verified as ever.
        frame[60] ^= 1;
        lab.engine.on_frame(lab.now, offload, &frame, &mut lab.host);
        lab.step();
        assert!(lab.host.datagrams.is_empty() && lab.engine.counters().dropped(DropReason::Checksum) == 1);
    }
}

#[test]
fn a_checksum_to_complete_in_a_fragment_is_completed_in_the_fragment() {
    for (src, dst) in TUNNELS {
        let mut lab = Lab::new();
        let (frame, offload, finished) = tunnelled(src.parse().unwrap(), dst.parse().unwrap(), &[7; 100]);
        let Checksum::Partial { start, offset } = offload.checksum else { panic!() };
        let to = lab.engine.config().mac;
        // The inner packet ends in the first fragment, and something follows.
        let longer = [&frame[..], &[0; 64]].concat();
        let mut packet = longer[ETHERNET_LEN..].to_vec();
        let v6 = src.starts_with('[');
        let ip = if v6 { 40 } else { 20 };
        let (at, total) = if v6 { (4, packet.len() - 40) } else { (2, packet.len()) };
        packet[at..at + 2].copy_from_slice(&len16(total).to_be_bytes());
        let udp_len = len16(packet.len() - ip);
        packet[ip + 4..ip + 6].copy_from_slice(&udp_len.to_be_bytes());
        let mut pieces = Vec::new();
        // Header checksums are made anew by the cut; that of the datagram says "none", or covers the finished bytes.
        let room = frame.len() - ETHERNET_LEN + 16;
        packet[ip + 6..ip + 8].fill(0);
        if v6 {
            let mut whole = packet.clone();
            whole[ip + 8..ip + 8 + finished.len()].copy_from_slice(&finished);
            let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            let sum = checksum::transport(src.ip(), dst.ip(), PROTO_UDP, &whole[ip..]);
            packet[ip + 6..ip + 8].copy_from_slice(&sum.to_be_bytes());
        }
        fragment(&packet, room, 9, |piece| pieces.push(wrap(GUEST_MAC, to, piece))).unwrap();
        let (first, rest) = pieces.split_first().unwrap();
        let start = start + if v6 { 8 } else { 0 };
        let offload = Offload { checksum: Checksum::Partial { start, offset }, gso: None };
        lab.engine.on_frame(lab.now, offload, first, &mut lab.host);
        for piece in rest {
            lab.engine.on_frame(lab.now, Offload::NONE, piece, &mut lab.host);
        }
        lab.step();
        let sent = lab.host.datagrams.pop().unwrap().2;
        assert!(sent[..finished.len()] == finished && sent.len() == finished.len() + 64, "{src}");
    }
}

#[test]
fn a_train_whose_checksum_is_elsewhere_makes_no_sense() {
    let mut lab = Lab::new();
    let (src, dst) = TUNNELS[0];
    let (frame, offload, _) = tunnelled(src.parse().unwrap(), dst.parse().unwrap(), &[7; 100]);
    for kind in [GsoKind::Udp, GsoKind::Tcp4] {
        let gso = Some(Gso { kind, size: 50, header_len: 42 });
        lab.engine.on_frame(lab.now, Offload { gso, ..offload }, &frame, &mut lab.host);
        let own = Checksum::Partial { start: 34, offset: 6 };
        lab.engine.on_frame(lab.now, Offload { gso, checksum: own }, &frame, &mut lab.host);
    }
    let outside = Checksum::Partial { start: 34, offset: 60_000 };
    lab.engine.on_frame(lab.now, Offload { checksum: outside, gso: None }, &frame, &mut lab.host);
    lab.step();
    // The one train that says of itself what it is.
    assert_eq!(lab.host.datagrams.len(), 1);
    assert_eq!(lab.engine.counters().dropped(DropReason::Malformed), 4);
}

/// `count` datagrams of `size` bytes of one client, all at once.
fn forwarded(lab: &Lab, payload: &'static [u8], size: usize) -> Forwarded<'static> {
    Forwarded { payload, segment: size, ..hello(client("192.0.2.1:5000", "192.0.2.9:53"), lab.guest) }
}

#[test]
fn a_train_for_a_forwarded_port_is_one_frame_where_the_device_cuts_it() {
    static BYTES: [u8; 64_000] = [7; 64_000];
    for (uso, frames) in [(true, 1), (false, 64)] {
        let mut config = config();
        config.device = Capabilities { checksum: uso, tso4: uso, tso6: uso, uso };
        let mut lab = Lab::with(config);
        lab.datagram(b"teaches the MAC address");
        lab.step();
        let train = forwarded(&lab, &BYTES, 1000);
        lab.engine.accept_udp(lab.now, &train, &mut lab.link).unwrap();
        assert_eq!(lab.link.frames.len(), frames, "without waiting for a drain");
        let gso = lab.link.frames[0].0.gso.map(|gso| (gso.kind, gso.size, gso.header_len));
        assert_eq!(gso, uso.then_some((GsoKind::Udp, 1000, 42)));
        let bytes: usize = lab.link.frames.iter().map(|(_, frame)| frame.len() - 42).sum();
        assert_eq!(bytes, BYTES.len());
        // An empty datagram is one, too, and ends nothing.
        lab.link.frames.clear();
        let empty = forwarded(&lab, b"", 0);
        lab.engine.accept_udp(lab.now, &empty, &mut lab.link).unwrap();
        assert_eq!(lab.link.frames.iter().map(|(_, frame)| frame.len()).collect::<Vec<_>>(), [42]);
        assert_eq!(lab.engine.counters().udp_in, 65);
    }
}

#[test]
fn a_burst_for_forwarded_ports_leaves_other_frames_their_place() {
    static BYTES: [u8; 64] = [7; 64];
    let mut lab = Lab::new();
    lab.datagram(b"teaches the MAC address");
    lab.step();
    for _ in 0..100 {
        let train = forwarded(&lab, &BYTES, 1);
        lab.engine.accept_udp(lab.now, &train, &mut lab.link).unwrap();
    }
    // Larger than the link, too: fragments.
    static LONG: [u8; 60_000] = [7; 60_000];
    for _ in 0..100 {
        let train = forwarded(&lab, &LONG, LONG.len());
        lab.engine.accept_udp(lab.now, &train, &mut lab.link).unwrap();
    }
    lab.server = "10.0.2.2:0".parse().unwrap();
    lab.packet(&Transport::icmp(false, &[8, 0, 0, 0, 0, 1, 0, 1]), b"ping");
    lab.step();
    assert_eq!(lab.other.last().map(|packet| &packet[28..]), Some(&b"ping"[..]));
    assert_eq!(lab.engine.counters().dropped_total(), 0);
}

#[test]
fn datagrams_wait_for_a_neighbour_in_their_order() {
    let mut lab = Lab::new();
    for payload in [&b""[..], b"abc"] {
        let train = forwarded(&lab, payload, 1);
        lab.engine.accept_udp(lab.now, &train, &mut lab.link).unwrap();
    }
    lab.engine.drain(lab.now, &mut lab.host, &mut lab.link);
    assert_eq!(lab.link.frames.len(), 1, "the question who it is");
    lab.link.frames.clear();
    lab.datagram(b"me");
    lab.engine.drain(lab.now, &mut lab.host, &mut lab.link);
    let sizes: Vec<_> = lab.link.frames.iter().map(|(_, frame)| frame.len() - 42).collect();
    assert_eq!(sizes, [0, 1, 1, 1]);
}

#[test]
fn what_the_guest_says_of_fragments_goes_with_the_datagram() {
    for (src, dst) in TUNNELS {
        let (mut lab, v6) = (Lab::new(), src.starts_with('['));
        let mut env = Envelope {
            to_mac: lab.engine.config().mac,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            hops: 64,
            traffic_class: 0,
            ident: None,
        };
        let send = |lab: &mut Lab, env: &Envelope, payload: &[u8], room: usize| {
            let header = udp::header(env, payload.len());
            let transport = Transport::udp(&header);
            let frame = assemble(GUEST_MAC, env, &transport, payload);
            let to = lab.engine.config().mac;
            fragment(&frame[ETHERNET_LEN..], room, 7, |piece| {
                lab.engine.on_frame(lab.now, Offload::NONE, &wrap(GUEST_MAC, to, piece), &mut lab.host);
            })
            .unwrap();
            lab.step();
            lab.host.meta.dont_fragment
        };
        assert!(send(&mut lab, &env, &[7; 1000], 1500));
        env.ident = Some(7);
        assert_eq!(
            send(&mut lab, &env, &[7; 1000], 1500),
            v6,
            "IPv6 has no such flag: only its fragments tell"
        );
        assert!(!send(&mut lab, &env, &[7; 1000], 600));
    }
}

#[test]
fn each_error_names_its_own_request() {
    let mut lab = Lab::new();
    lab.server.set_port(0);
    for sequence in 1..=4 {
        let header = [8, 0, 0, 0, 0, 77, 0, sequence];
        lab.packet(&Transport::icmp(false, &header), b"ping");
    }
    lab.id = lab.engine.flows().next().unwrap().id;
    // The last is one that the kernel could not say more about.
    for sequence in [Some(1), Some(3), Some(2), None] {
        let (to, icmp) = (lab.server, Some((11, 0)));
        let error = Errno::HostUnreachable;
        lab.host.errors.push_back(DatagramError { to, error, reporter: None, icmp, sequence });
    }
    lab.event(Event::Error);
    lab.step();
    let quoted: Vec<_> =
        lab.other.iter().map(|packet| (packet[20], packet[48 + 4..48 + 8].to_vec())).collect();
    assert_eq!(quoted, [1, 3, 2, 4].map(|sequence| (11, vec![0, 77, 0, sequence])));
}

#[test]
fn a_turn_of_small_datagrams_is_as_short_as_one_of_large_ones() {
    let mut lab = Lab::new();
    lab.datagram(b"hello");
    lab.step();
    lab.id = lab.host.datagrams[0].0;
    for _ in 0..2000 {
        lab.host.inbox.push_back((lab.id, lab.server, b"x".to_vec()));
    }
    lab.event(Event::Readable);
    let mut most = 0;
    loop {
        let before = lab.engine.counters().frames_out;
        let more = lab.engine.drain(lab.now, &mut lab.host, &mut lab.link);
        most = most.max(lab.engine.counters().frames_out - before);
        if !more {
            break;
        }
    }
    assert_eq!(lab.engine.counters().frames_out, 2000);
    assert!(most <= 300, "{most} frames before anybody else was looked at");
}

#[test]
fn datagrams_that_a_full_link_refuses_are_dropped_and_counted() {
    static BYTES: [u8; 3000] = [7; 3000];
    let mut lab = Lab::open();
    lab.datagram(b"hello");
    lab.step();
    let (tcp, flow) = (lab.id, lab.host.datagrams[0].0);
    lab.link.room = Some(2);
    for _ in 0..5 {
        lab.host.inbox.push_back((flow, lab.server, b"x".to_vec()));
    }
    lab.id = flow;
    lab.event(Event::Readable);
    lab.id = tcp;
    lab.step();
    // A published port: what the link has no room for is lost at the tail.
    let train = forwarded(&lab, &BYTES, 1000);
    lab.engine.accept_udp(lab.now, &train, &mut lab.link).unwrap();
    let sent: Vec<u8> = (0..40_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    lab.serve(&sent);
    assert!(lab.step().is_empty() && lab.engine.awaits_link());
    lab.link.room = None;
    let got: Vec<u8> = lab.step().into_iter().flat_map(|got| got.payload).collect();
    assert_eq!(got, sent, "TCP waits, and loses nothing");
    assert!(!lab.engine.awaits_link());
    let dropped = lab.engine.counters().dropped(DropReason::Device);
    assert_eq!((lab.other.len() as u64 + dropped, lab.host.inbox.len()), (8, 0));
    assert!(dropped >= 3, "{dropped} of 8");
    assert_eq!(lab.engine.counters().tcp_retransmits, 0);
}
