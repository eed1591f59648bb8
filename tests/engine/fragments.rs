//! Fragments of the guest's: put together within bounds.

use crate::raw;
use core::net::SocketAddr;
use core::time::Duration;
use slipway_netstack::drop_reason::DropReason;
use testkit::packet::{Fragment, Icmp, Ip, Udp};
use testkit::pattern;
use testkit::upstream::datagram::EchoService;
use testkit::world::{GATEWAY4, GATEWAY6, GUEST4, GUEST6};

fn datagram(v6: bool, len: usize) -> (Ip, Vec<u8>) {
    let (own, to) =
        if v6 { ("[fd00::64]:4000", "[2001:db8::1]:7") } else { ("10.0.2.100:4000", "192.0.2.1:7") };
    let payload = pattern::bytes(8, 0, len);
    let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
    (Udp::packet(parse(own), parse(to), &payload), payload)
}

#[test]
fn pieces_in_any_order_become_one_datagram() {
    for v6 in [false, true] {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
            let (packet, payload) = datagram(v6, 5000);
            let pieces = packet.cut(77, 1400);
            let mut world = raw();
            for n in order {
                assert!(world.host.take_datagrams().is_empty(), "not before the last piece");
                world.send(&pieces[n]);
            }
            let sent = world.host.take_datagrams();
            assert_eq!((sent.len(), &sent[0].payload), (1, &payload));
        }
    }
}

#[test]
fn the_largest_datagram_passes() {
    let (packet, payload) = datagram(false, 65_507);
    let mut world = raw();
    for piece in packet.cut(1, 1480) {
        world.send(&piece);
    }
    assert_eq!(world.host.take_datagrams()[0].payload, payload);
}

#[test]
fn a_large_ping_is_answered_whole() {
    let mut world = raw();
    world.host.serve_echo_otherwise(EchoService::Reply);
    let data = pattern::bytes(1, 0, 4000);
    for piece in
        Icmp::echo_request(GUEST4.into(), 1, 1, &data).packet(GUEST4.into(), GATEWAY4.into()).cut(5, 1480)
    {
        world.send(&piece);
    }
    let pieces = world.take();
    assert_eq!(pieces.len(), 3, "the answer is cut again");
}

#[test]
fn what_overlaps_or_exceeds_is_dropped() {
    let (packet, _) = datagram(false, 3000);
    let mut world = raw();
    let pieces = packet.cut(9, 1400);
    world.send(&pieces[0]);
    let overlapping = Ip {
        fragment: Some(Fragment { id: 9, offset: 1392, more: true }),
        payload: vec![0xee; 1400],
        ..packet.clone()
    };
    world.send(&overlapping);
    world.send(&pieces[1]);
    world.send(&pieces[2]);
    // RFC 5722 for IPv6, and RFC 1858 in spirit for IPv4: what overlaps is not to be believed.
    let sent = world.host.take_datagrams();
    assert!(sent.iter().all(|d| !d.payload.contains(&0xee)), "no byte of the overlap is delivered");
    let beyond = Ip { fragment: Some(Fragment { id: 10, offset: 65_528, more: false }), ..packet };
    world.send(&Ip { payload: vec![0; 100], ..beyond });
    assert!(world.engine.counters().dropped_total() > 0);
}

#[test]
fn many_unfinished_datagrams_neither_grow_nor_stop_the_next() {
    let mut world = raw();
    for id in 0..5000 {
        let (packet, _) = datagram(id % 2 == 0, 3000);
        world.send(&packet.cut(id, 1400)[1]);
    }
    assert!(world.engine.counters().dropped(DropReason::Fragment) > 4000, "the oldest gave way");
    let (packet, payload) = datagram(false, 3000);
    for piece in packet.cut(99_999 & 0xffff, 1400) {
        world.send(&piece);
    }
    assert_eq!(world.host.take_datagrams()[0].payload, payload);
}

#[test]
fn a_datagram_that_never_comes_together_is_reported() {
    for v6 in [false, true] {
        let (packet, _) = datagram(v6, 3000);
        let mut world = raw();
        world.send(&packet.cut(3, 1400)[0]);
        world.run_for(Duration::from_secs(61));
        let (_, error) = world.expect_icmp();
        assert_eq!((error.kind, error.code), if v6 { (3, 1) } else { (11, 1) });
        assert_eq!(world.engine.next_timeout().filter(|at| *at < world.now()), None);
    }
}

#[test]
fn hop_by_hop_options_do_not_come_into_their_place_by_fragments() {
    let mut world = raw();
    let request = Icmp::echo_request(GUEST6.into(), 7, 9, &[1; 64]).packet(GUEST6.into(), GATEWAY6.into());
    let mut behind = vec![58, 0, 1, 4, 0, 0, 0, 0];
    behind.extend_from_slice(&request.payload);
    let pieces = Ip::new(GUEST6.into(), GATEWAY6.into(), 0, behind).cut(5, 40);
    assert_eq!(pieces.len(), 2);
    world.send(&pieces[0]);
    let (_, error) = world.expect_icmp();
    assert_eq!((error.kind, error.code, error.word), (4, 1, 40), "the fragment header names them");
    world.send(&pieces[1]);
    world.expect_nothing();
}
