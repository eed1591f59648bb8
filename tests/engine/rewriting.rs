//! Which addresses lead where: the gateway stands for the host, and nothing else reaches its loopback.

use crate::raw;
use core::net::{IpAddr, SocketAddr};
use testkit::packet::{Body, Udp, flag};
use testkit::raw_guest::{RawGuest, RawTcp, usual_options};
use testkit::upstream::datagram::UdpService;
use testkit::upstream::tcp::Script;
use testkit::world::{World, WorldConfig, plan};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn closed() -> World<RawGuest> {
    let mut config = WorldConfig::default();
    config.engine.plan = plan(|slirp| slirp.host_loopback = false);
    World::raw(config)
}

#[test]
fn the_gateway_is_the_hosts_loopback() {
    let mut world = raw();
    world.host.serve("127.0.0.1:80", Script::echo());
    world.host.serve("[::1]:80", Script::echo());
    RawTcp::open(&mut world, "10.0.2.2:80");
    RawTcp::open(&mut world, "[fd00::2]:80");
    let opened: Vec<_> = world.host.opened().iter().map(|o| o.to).collect();
    assert_eq!(opened, [at("127.0.0.1:80"), at("[::1]:80")]);
}

#[test]
fn answers_of_the_loopback_come_from_the_gateway() {
    let mut world = raw();
    world.host.serve_udp_otherwise(UdpService::Echo);
    world.send(&Udp::packet(at("10.0.2.100:4000"), at("10.0.2.2:7"), b"x"));
    let (ip, udp) = world.expect_udp();
    assert_eq!(SocketAddr::new(ip.src, udp.src), at("10.0.2.2:7"));
    assert_eq!(world.host.take_datagrams()[0].to, at("127.0.0.1:7"));
}

#[test]
fn switched_off_nothing_reaches_the_loopback() {
    let mut world = closed();
    world.host.serve_otherwise(Script::echo());
    world.host.serve_udp_otherwise(UdpService::Echo);
    for to in ["10.0.2.2:80", "[fd00::2]:80", "255.255.255.255:80"] {
        let end = RawTcp::to(to);
        end.send(&mut world, &end.syn(usual_options()));
        for frame in world.take() {
            match frame.body {
                Body::Tcp(_, segment) => assert!(segment.has(flag::RST), "{to}: {segment:?}"),
                Body::Icmp(_, icmp) => assert!(matches!(icmp.kind, 1 | 3), "{to}: {icmp:?}"),
                other => panic!("{to}: {other:?}"),
            }
        }
        world.send(&Udp::packet(end.local, at(to), b"x"));
        world.take();
    }
    assert!(world.host.opened().iter().all(|o| o.to.port() == 0), "{:?}", world.host.opened());
    assert_eq!(world.host.take_datagrams(), []);
}

#[test]
fn no_other_destination_reaches_the_loopback() {
    for loopback in [true, false] {
        let mut config = WorldConfig::default();
        config.engine.plan = plan(|slirp| slirp.host_loopback = loopback);
        let mut world = World::raw(config);
        world.host.serve_otherwise(Script::echo());
        world.host.serve_udp_otherwise(UdpService::Echo);
        let hostile = [
            "127.0.0.1:80",
            "127.255.255.254:80",
            "0.0.0.0:80",
            "10.0.2.77:80",
            "[::1]:80",
            "[::]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:192.0.2.1]:80",
            "[fe80::1]:80",
            "[fd00::77]:80",
        ];
        for to in hostile {
            let end = RawTcp::to(to);
            end.send(&mut world, &end.syn(usual_options()));
            world.send(&Udp::packet(end.local, at(to), b"x"));
        }
        assert_eq!(
            world.host.opened().iter().filter(|o| o.to.port() != 0).count(),
            0,
            "{:?}",
            world.host.opened()
        );
        assert_eq!(world.host.take_datagrams(), []);
    }
}

#[test]
fn martian_sources_are_not_served() {
    let mut world = raw();
    world.host.serve_udp_otherwise(UdpService::Echo);
    for own in ["127.0.0.1:4000", "0.0.0.0:4000", "224.0.0.1:4000", "255.255.255.255:4000"] {
        world.send(&Udp::packet(at(own), at("192.0.2.1:7"), b"x"));
    }
    assert_eq!(world.host.take_datagrams(), []);
}

#[test]
fn sockets_leave_from_the_address_that_was_asked_for() {
    let mut config = WorldConfig::default();
    config.engine.outbound.v4 = Some("198.51.100.4".parse().unwrap());
    config.engine.outbound.v6 = Some("2001:db8::4".parse().unwrap());
    let mut world = World::raw(config);
    world.host.serve_otherwise(Script::echo());
    RawTcp::open(&mut world, "192.0.2.1:80");
    RawTcp::open(&mut world, "[2001:db8::1]:80");
    world.send(&Udp::packet(at("10.0.2.100:4000"), at("192.0.2.1:7"), b"x"));
    let from: Vec<Option<IpAddr>> = world.host.opened().iter().map(|o| o.from.address).collect();
    let v4 = Some("198.51.100.4".parse().unwrap());
    assert_eq!(from, [v4, Some("2001:db8::4".parse().unwrap()), v4]);
}

#[test]
fn a_family_that_is_switched_off_is_silent() {
    let mut config = WorldConfig::default();
    config.engine.plan.v6 = None;
    let mut world = World::raw(config);
    world.host.serve_udp_otherwise(UdpService::Echo);
    world.send(&Udp::packet(at("[fd00::64]:4000"), at("[2001:db8::1]:7"), b"x"));
    world.expect_nothing();
    assert_eq!(world.host.take_datagrams(), []);
}
