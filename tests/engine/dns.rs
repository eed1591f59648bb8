//! The DNS address: queries over UDP handed out, connections led to whoever resolves names.

use crate::raw;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use testkit::packet::{Tcp, Udp, flag};
use testkit::raw_guest::{RawGuest, RawTcp, usual_options};
use testkit::upstream::RESOLVER;
use testkit::upstream::tcp::{Script, Service};
use testkit::world::{World, WorldConfig, plan};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn query(world: &mut World<RawGuest>, v6: bool, id: u8) {
    let (own, to) = if v6 { ("[fd00::64]:4000", "[fd00::3]:53") } else { ("10.0.2.100:4000", "10.0.2.3:53") };
    let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
    world.send(&Udp::packet(parse(own), parse(to), &[0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]));
}

#[test]
fn queries_are_handed_out_and_answers_come_from_the_dns_address() {
    for v6 in [false, true] {
        let mut world = raw();
        query(&mut world, v6, 1);
        world.run_for(Duration::from_millis(10));
        let asked = world.engine.dns_query().unwrap();
        assert_eq!((asked.message[1], asked.asker.guest.port()), (1, 4000));
        // However long that takes: nothing is held meanwhile.
        world.run_for(Duration::from_secs(300));
        assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0));
        world.engine.dns_answer(&asked.asker, b"\0\x01\x81\x80");
        let (packet, udp) = world.expect_udp();
        assert_eq!(packet.src, if v6 { ip("fd00::3") } else { ip("10.0.2.3") });
        assert_eq!((udp.src, udp.dst, udp.payload.as_slice()), (53, 4000, &b"\0\x01\x81\x80"[..]));
    }
}

#[test]
fn questions_that_nobody_takes_are_dropped_and_leak_nothing() {
    let mut world = raw();
    for port in 0..500 {
        let own = SocketAddr::new(ip("10.0.2.100"), 4000 + port);
        world.send(&Udp::packet(own, "10.0.2.3:53".parse().unwrap(), &[0; 1400]));
    }
    world.run_for(Duration::from_secs(300));
    assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0));
    assert!(std::iter::from_fn(|| world.engine.dns_query()).count() < 500);
}

#[test]
fn connections_lead_to_the_resolver() {
    let mut world = raw();
    world.host.serve(&RESOLVER.to_string(), Script::echo());
    let mut conn = RawTcp::open(&mut world, "10.0.2.3:53");
    conn.send_data(&mut world, b"\0\x02hi");
    world.run_for(Duration::from_millis(20));
    let data: Vec<u8> = world.take_tcp().into_iter().flat_map(|s| s.payload).collect();
    assert_eq!(data, b"\0\x02hi");
    assert_eq!(world.host.opened().iter().map(|o| o.to).collect::<Vec<_>>(), [RESOLVER]);
}

/// A connection to the DNS address from `own`, with a query on it; what comes back beside its own segments is passed
/// over.
fn converse(world: &mut World<RawGuest>, own: SocketAddr, complete: bool) -> RawTcp {
    let mut conn = RawTcp::new(own, "10.0.2.3:53".parse().unwrap());
    conn.send(world, &conn.syn(usual_options()));
    world.run_for(Duration::from_millis(1));
    let to_us = |segment: &Tcp| segment.dst == own.port() && segment.has(flag::SYN | flag::ACK);
    let answer = world.take_tcp().into_iter().find(to_us).expect("an answer");
    conn.ack = answer.seq.wrapping_add(1);
    conn.seq = conn.seq.wrapping_add(1);
    if complete {
        conn.send_data(world, b"\0\x02hi");
    }
    conn
}

/// What `conn` is told in answer to its query, now or before.
fn answered(world: &mut World<RawGuest>, conn: &RawTcp) -> bool {
    let data = world.take_tcp().into_iter().filter(|s| s.dst == conn.local.port() && !s.payload.is_empty());
    data.map(|segment| segment.payload).eq([b"\0\x02hi".to_vec()])
}

#[test]
fn conversations_have_64_places_and_others_get_theirs() {
    for complete in [true, false] {
        let mut world = raw();
        world.host.serve(&RESOLVER.to_string(), Script::echo());
        let neighbour = SocketAddr::new(ip("10.0.2.101"), 5000);
        let early = converse(&mut world, neighbour, true);
        assert!(answered(&mut world, &early));
        // None of them acknowledges what it gets.
        for port in 0..1000 {
            converse(&mut world, SocketAddr::new(ip("10.0.2.100"), 20_000 + port), complete);
            assert!(world.engine.flow_count() <= 64, "{port}");
        }
        assert_eq!(world.host.open_sockets(), world.engine.flow_count());
        world.take();
        let late = converse(&mut world, SocketAddr::new(ip("10.0.2.101"), 5001), true);
        assert!(answered(&mut world, &late), "a neighbour finds room");
        let mut early = early;
        (early.seq, early.ack) = (early.seq, early.ack.wrapping_add(4));
        early.send_data(&mut world, b"\0\x02hi");
        assert!(answered(&mut world, &early), "and keeps what it had");
        // Those who had to go were told.
        let gone = world.host.peers().filter(|peer| peer.reset).count();
        assert!(gone >= 1000 - 64, "{gone}");
    }
}

#[test]
fn a_guest_alone_may_have_all_places() {
    let mut world = raw();
    world.host.serve(&RESOLVER.to_string(), Script::echo());
    for port in 0..65 {
        converse(&mut world, SocketAddr::new(ip("10.0.2.100"), 20_000 + port), true);
    }
    world.run_for(Duration::from_millis(10));
    let reset: Vec<usize> = world.host.peers().enumerate().filter(|(_, p)| p.reset).map(|(n, _)| n).collect();
    assert_eq!(reset, [0], "the one that has stood still longest");
    // Places of those that have ended are free.
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.engine.flow_count(), 64);
}

#[test]
fn without_dns_address_it_is_an_address_like_any_other() {
    let mut config = WorldConfig::default();
    config.engine.plan = plan(|slirp| slirp.v4.as_mut().unwrap().dns = None);
    let mut world = World::raw(config);
    world.host.serve_otherwise(Service::Fail(slipway_netstack::upstream::Errno::Refused));
    query(&mut world, false, 1);
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.engine.dns_query(), None);
}
