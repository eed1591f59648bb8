//! What the guest's side says of sizes, and what is made of it.

use super::*;
use crate::drop_reason::DropReason;
use crate::frame::Transport;
use crate::headers::{PROTO_TCP, PROTO_UDP};
use crate::ip::icmp_error::quote;
use crate::testing::config;
use crate::transport::lab::{Lab, bytes, ms};
use crate::upstream::Event;

fn ends(v6: bool) -> Lab {
    let mut lab = Lab::new();
    if v6 {
        lab.guest = "[fd00::64]:40000".parse().unwrap();
        lab.server = "[2001:db8::1]:80".parse().unwrap();
    }
    lab
}

/// The guest says that what begins with `rest` did not fit.
fn complain(lab: &mut Lab, mtu: u16, protocol: u8, rest: &[u8]) {
    let quoted = quote(lab.server.ip(), lab.guest.ip(), protocol, rest, 1000);
    let [high, low] = mtu.to_be_bytes();
    let (kind, code) = if lab.guest.is_ipv6() { (2, 0) } else { (3, 4) };
    let header = [kind, code, 0, 0, 0, 0, high, low];
    lab.packet(&Transport::icmp(lab.guest.is_ipv6(), &header), &quoted);
}

fn ports(lab: &Lab) -> [u8; 4] {
    let ([s0, s1], [d0, d1]) = (lab.server.port().to_be_bytes(), lab.guest.port().to_be_bytes());
    [s0, s1, d0, d1]
}

fn complain_of_tcp(lab: &mut Lab, mtu: u16, seq: u32) {
    let rest = [&ports(lab)[..], &seq.to_be_bytes()].concat();
    complain(lab, mtu, PROTO_TCP, &rest);
}

fn complain_of_udp(lab: &mut Lab, mtu: u16) {
    let rest = [&ports(lab)[..], &[0; 4]].concat();
    complain(lab, mtu, PROTO_UDP, &rest);
}

/// An answer of `len` bytes for the guest's socket: the packets that it gets.
fn answer(lab: &mut Lab, len: usize) -> Vec<Vec<u8>> {
    let from = lab.server;
    lab.host.inbox.push_back((lab.id, from, vec![7; len]));
    lab.event(Event::Readable);
    lab.step();
    core::mem::take(&mut lab.other)
}

fn open_udp(lab: &mut Lab) {
    lab.datagram(b"hello");
    lab.step();
    lab.id = lab.host.datagrams.last().unwrap().0;
}

#[test]
fn tcp_repeats_in_segments_that_fit() {
    for v6 in [false, true] {
        let mut lab = ends(v6);
        lab.connect();
        let headers = if v6 { 60 } else { 40 };
        lab.serve(&bytes(4000));
        assert!(lab.step().iter().any(|got| got.packet > 1400));
        let seq = lab.theirs(1460 - if v6 { 20 } else { 0 });
        complain_of_tcp(&mut lab, 1300, seq);
        let got = lab.step();
        assert!(got.iter().all(|got| got.packet <= 1300), "{got:?}");
        let again: Vec<u8> = got.into_iter().flat_map(|got| got.payload).collect();
        assert!(again == bytes(4000), "everything in flight, at once");
        lab.say(0, 4000, &[]);
        // From now on, and for the next connection.
        lab.serve(&bytes(3000));
        assert_eq!(lab.step()[0].payload.len(), 1300 - headers);
        lab.guest.set_port(40_001);
        lab.connect();
        lab.serve(&bytes(3000));
        assert_eq!(lab.step()[0].payload.len(), 1300 - headers);
    }
}

#[test]
fn what_tcp_cannot_have_sent_is_no_reason_to_shrink() {
    let mut lab = ends(false);
    lab.connect();
    lab.serve(&bytes(4000));
    lab.step();
    lab.say(0, 1460, &[]);
    lab.step();
    for seq in [0, 1459, 4000, 1 << 30] {
        let seq = lab.theirs(seq);
        complain_of_tcp(&mut lab, 600, seq);
    }
    lab.guest.set_port(40_001);
    let seq = lab.theirs(1460);
    complain_of_tcp(&mut lab, 600, seq);
    assert!(lab.step().is_empty());
    assert_eq!(lab.engine.counters().dropped(DropReason::Unsolicited), 5);
    // Nor is one that is no smaller than the link; and a tiny one is believed as far as Linux would.
    lab.guest.set_port(40_000);
    complain_of_tcp(&mut lab, 1500, seq);
    assert!(lab.step().is_empty());
    complain_of_tcp(&mut lab, 68, seq);
    assert_eq!(lab.step()[0].packet, 552);
}

#[test]
fn a_router_that_does_not_say_how_much_gets_the_next_usual_size() {
    let mut lab = ends(false);
    lab.connect();
    lab.serve(&bytes(1460));
    lab.step();
    // The quoted packet claims 1020 bytes.
    let seq = lab.theirs(0);
    complain_of_tcp(&mut lab, 0, seq);
    assert_eq!(lab.step()[0].packet, 1006);
    assert_eq!((plateau(65_535), plateau(1500), plateau(1006), plateau(0)), (32_000, 1492, 552, 552));
}

#[test]
fn ipv4_datagrams_that_may_not_fit_everywhere_may_be_fragmented() {
    let mut lab = ends(false);
    open_udp(&mut lab);
    let flags = |packet: &[u8]| (packet[6] >> 5, u16::from_be_bytes([packet[4], packet[5]]));
    assert_eq!(flags(&answer(&mut lab, 1252)[0]), (2, 0));
    let (may, ident) = flags(&answer(&mut lab, 1253)[0]);
    assert_eq!(may, 0);
    assert_eq!(flags(&answer(&mut lab, 1253)[0]), (0, ident.wrapping_add(1)));
    // A narrower link behind the guest has been heard of.
    complain_of_udp(&mut lab, 600);
    assert_eq!(flags(&answer(&mut lab, 573)[0]).0, 0);
    assert_eq!(flags(&answer(&mut lab, 572)[0]), (2, 0));
    assert_eq!(answer(&mut lab, 1400).len(), 1, "the router cuts it, not we");
    lab.pass(ms(601_000));
    open_udp(&mut lab);
    assert_eq!(flags(&answer(&mut lab, 1252)[0]), (2, 0), "after ten minutes it may have widened");
}

#[test]
fn each_segment_of_a_train_has_its_own_identification() {
    let mut config = config();
    config.device = crate::device::Capabilities { checksum: true, tso4: true, tso6: true, uso: true };
    let mut lab = Lab::with(config);
    lab.datagram(b"teaches the MAC address");
    lab.step();
    let client = crate::upstream::Client {
        address: "192.0.2.9:9".parse().unwrap(),
        at: "192.0.2.1:53".parse().unwrap(),
    };
    let train = crate::upstream::Forwarded {
        client,
        guest: lab.guest,
        payload: &[7; 4000],
        segment: 1300,
        meta: crate::upstream::Meta::default(),
    };
    for _ in 0..2 {
        lab.engine.accept_udp(lab.now, &train, &mut lab.link).unwrap();
    }
    let idents: Vec<_> =
        lab.link.frames.iter().map(|(_, frame)| u16::from_be_bytes([frame[18], frame[19]])).collect();
    assert_eq!(idents.len(), 2);
    assert_eq!(idents[1], idents[0].wrapping_add(4));
    assert!(lab.link.frames.iter().all(|(_, frame)| frame[20] >> 5 == 0));
}

#[test]
fn ipv6_datagrams_are_cut_for_the_way() {
    let mut lab = ends(true);
    open_udp(&mut lab);
    assert_eq!(answer(&mut lab, 1400).len(), 1);
    lab.guest.set_port(9);
    complain_of_udp(&mut lab, 1300);
    lab.guest.set_port(40_000);
    complain_of_udp(&mut lab, 1279);
    assert_eq!(answer(&mut lab, 1400).len(), 1, "not ours; less than IPv6 has");
    complain_of_udp(&mut lab, 1300);
    let pieces = answer(&mut lab, 1400);
    assert_eq!(pieces.len(), 2);
    assert!(pieces.iter().all(|piece| piece.len() <= 1300));
    assert_eq!(answer(&mut lab, 1252).len(), 1);
}

#[test]
fn broken_complaints_are_survived() {
    for v6 in [false, true] {
        let mut lab = ends(v6);
        open_udp(&mut lab);
        let quoted = quote(lab.server.ip(), lab.guest.ip(), PROTO_UDP, &ports(&lab), 1000);
        let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
        for len in 0..quoted.len() {
            let header = [kind, code, 0, 0, 0, 0, 5, 20];
            lab.packet(&Transport::icmp(lab.guest.is_ipv6(), &header), &quoted[..len]);
        }
        lab.packet(&Transport::icmp(v6, &[kind, code, 0, 0]), &[]);
        assert_eq!(lab.engine.paths.next_timeout(), None, "nothing was learnt");
    }
}

#[test]
fn the_table_is_small_and_forgets_the_eldest() {
    let mut paths = PathMtus::default();
    let address = |n: u32| IpAddr::from(n.to_be_bytes());
    for n in 0..100 {
        paths.learn(Instant::from_micros(n.into()), address(n), 1000);
    }
    assert_eq!(paths.entries.len(), ADDRESSES);
    assert_eq!((paths.toward(address(35), 1500), paths.toward(address(36), 1500)), (1500, 1000));
    paths.learn(Instant::from_micros(200), address(36), 1200);
    assert_eq!(paths.toward(address(36), 1500), 1000, "it never widens by hearsay");
    assert_eq!(paths.toward(address(36), 900), 900);
    assert!(paths.next_timeout() > Some(Instant::ZERO));
}
