//! Echo, and ICMP errors in both directions.

use crate::raw;
use core::net::IpAddr;
use core::time::Duration;
use slipway_netstack::drop_reason::DropReason;
use slipway_netstack::upstream::Errno;
use testkit::packet::{Icmp, Ip, Udp, protocol};
use testkit::upstream::datagram::{EchoService, UdpService};
use testkit::world::{DNS4, DNS6, ENGINE_MAC, GATEWAY4, GATEWAY6, GUEST_MAC, GUEST4, GUEST6};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn our_own_addresses_answer_echo_themselves() {
    let mut world = raw();
    let pairs: [(IpAddr, IpAddr); 4] = [
        (GUEST4.into(), GATEWAY4.into()),
        (GUEST4.into(), DNS4.into()),
        (GUEST6.into(), GATEWAY6.into()),
        (GUEST6.into(), DNS6.into()),
    ];
    for (own, to) in pairs {
        world.send(&Icmp::echo_request(to, 7, 9, b"some data").packet(own, to));
        let (packet, reply) = world.expect_icmp();
        assert_eq!((packet.src, packet.dst), (to, own));
        assert_eq!(reply.kind, if to.is_ipv4() { 0 } else { 129 });
        assert_eq!((reply.echo(), &reply.body[..]), ((7, 9), &b"some data"[..]));
    }
    assert_eq!(world.host.opened().len(), 0, "no socket was needed");
}

#[test]
fn the_groups_that_we_are_in_answer_echo_from_an_address_of_ours() {
    let mut world = raw();
    let own_local = GUEST_MAC.link_local();
    let router = ENGINE_MAC.link_local();
    let [.., a, b, c] = router.octets();
    let solicited = format!("ff02::1:ff{a:02x}:{b:02x}{c:02x}");
    for group in ["ff02::1", "ff02::2", "ff02::1:ff00:2", "ff02::1:ff00:3", &solicited] {
        for (own, from) in [(own_local, router), (GUEST6, GATEWAY6)] {
            let request = Icmp::echo_request(ip(group), 7, 9, b"x").packet(own.into(), ip(group));
            world.send(&request);
            let (packet, reply) = world.expect_icmp();
            assert_eq!((packet.src, packet.dst, reply.kind), (from.into(), own.into(), 129), "{group}");
            assert_eq!((reply.echo(), &reply.body[..]), ((7, 9), &b"x"[..]));
        }
    }
    for group in ["ff02::5", "ff02::1:ff00:9", "ff05::1"] {
        world.send(&Icmp::echo_request(ip(group), 7, 9, b"x").packet(GUEST6.into(), ip(group)));
        world.expect_nothing();
    }
}

#[test]
fn an_error_comes_from_the_address_that_was_asked() {
    let mut world = raw();
    let router = IpAddr::from(ENGINE_MAC.link_local());
    let own_local = IpAddr::from(GUEST_MAC.link_local());
    // Asked, by whom, and who says that it does not speak SCTP.
    for (to, own, from) in [
        (DNS4.into(), GUEST4.into(), DNS4.into()),
        (ip("192.0.2.1"), GUEST4.into(), GATEWAY4.into()),
        (DNS6.into(), GUEST6.into(), DNS6.into()),
        (ip("2001:db8::1"), GUEST6.into(), GATEWAY6.into()),
        (router, own_local, router),
        (ip("2001:db8::1"), own_local, router),
    ] {
        world.send(&Ip::new(own, to, 132, vec![0; 20]));
        let (packet, error) = world.expect_icmp();
        assert_eq!((packet.src, packet.dst), (from, own), "{to}");
        assert_eq!((error.kind, error.code), if to.is_ipv4() { (3, 2) } else { (4, 1) });
    }
    let port = Udp::packet("[fd00::64]:4000".parse().unwrap(), "[fd00::3]:9".parse().unwrap(), b"x");
    world.send(&port);
    let (packet, error) = world.expect_icmp();
    assert_eq!((packet.src, error.kind, error.code), (DNS6.into(), 1, 4));
}

#[test]
fn authentication_is_not_skipped() {
    let mut world = raw();
    let request = Icmp::echo_request(GUEST6.into(), 7, 9, b"x").packet(GUEST6.into(), GATEWAY6.into());
    let mut behind = vec![58, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    behind.extend_from_slice(&request.payload);
    world.send(&Ip::new(GUEST6.into(), GATEWAY6.into(), 51, behind));
    let (_, error) = world.expect_icmp();
    assert_eq!((error.kind, error.code, error.word), (4, 1, 6));
}

#[test]
fn the_world_is_pinged_through_a_socket() {
    for (own, to) in [(GUEST4.into(), ip("192.0.2.1")), (GUEST6.into(), ip("2001:db8::1"))] {
        let mut world = raw();
        world.host.serve_echo_otherwise(EchoService::Reply);
        let mut request = Icmp::echo_request(to, 77, 1, b"ping").packet(own, to);
        request.hops = 17;
        world.send(&request);
        let (packet, reply) = world.expect_icmp();
        assert_eq!((packet.src, reply.echo(), &reply.body[..]), (to, (77, 1), &b"ping"[..]));
        let sent = world.host.take_datagrams();
        assert_eq!((sent[0].to.ip(), sent[0].meta.hops), (to, 17), "the TTL travels");
        world.send(&Icmp::echo_request(to, 77, 2, b"ping").packet(own, to));
        assert_eq!(world.expect_icmp().1.echo(), (77, 2));
        assert_eq!(world.host.opened().len(), 1, "one socket for one identifier");
        world.run_for(Duration::from_secs(600));
        assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0), "and it goes away");
    }
}

#[test]
fn a_router_far_away_may_complain_about_a_ping() {
    let mut world = raw();
    let complaint =
        EchoService::Complain { error: Errno::HostUnreachable, reporter: ip("198.51.100.1"), icmp: (11, 0) };
    world.host.serve_echo("192.0.2.1", complaint);
    world.send(&Icmp::echo_request(GUEST4.into(), 7, 3, b"x").packet(GUEST4.into(), ip("192.0.2.1")));
    let (packet, error) = world.expect_icmp();
    assert_eq!((packet.src, error.kind, error.code), (ip("198.51.100.1"), 11, 0), "as traceroute wants it");
    let quoted = error.quoted();
    assert_eq!((quoted.protocol, quoted.src, quoted.dst), (protocol::ICMP, GUEST4.into(), ip("192.0.2.1")));
    assert_eq!((quoted.transport[0], &quoted.transport[4..8]), (8, &[0, 7, 0, 3][..]));
}

#[test]
fn a_closed_udp_port_is_told_with_the_packet_quoted() {
    for (own, to) in [("10.0.2.100:4000", "192.0.2.1:9"), ("[fd00::64]:4000", "[2001:db8::1]:9")] {
        let mut world = raw();
        world.host.serve_udp_otherwise(UdpService::Refuse);
        world.send(&Udp::packet(own.parse().unwrap(), to.parse().unwrap(), b"anybody?"));
        let (_, error) = world.expect_icmp();
        let expected = if to.starts_with('[') { (1, 4) } else { (3, 3) };
        assert_eq!((error.kind, error.code), expected);
        let quoted = error.quoted();
        assert_eq!(quoted.protocol, protocol::UDP);
        assert_eq!(quoted.transport[..4], [0x0f, 0xa0, 0, 9], "the ports");
    }
}

#[test]
fn path_mtu_travels() {
    let mut world = raw();
    let complaint = UdpService::Complain {
        error: Errno::TooBig { mtu: 1280 },
        reporter: ip("198.51.100.1"),
        icmp: (3, 4),
    };
    world.host.serve_udp_otherwise(complaint);
    let from = "10.0.2.100:4000".parse().unwrap();
    world.send(&Udp::packet(from, "192.0.2.1:9".parse().unwrap(), &[0; 1400]));
    let (_, error) = world.expect_icmp();
    assert_eq!((error.kind, error.code, error.word & 0xffff), (3, 4, 1280));
}

#[test]
fn an_unknown_protocol_is_unreachable() {
    let mut world = raw();
    world.send(&Ip::new(GUEST4.into(), ip("192.0.2.1"), 132, vec![0; 20]));
    let (_, error) = world.expect_icmp();
    assert_eq!((error.kind, error.code), (3, 2), "SCTP is not carried");
}

#[test]
fn errors_are_rate_limited() {
    let mut world = raw();
    for _ in 0..2000 {
        world.guest.send(&Ip::new(GUEST4.into(), ip("192.0.2.1"), 132, vec![0; 20]));
    }
    let errors = world.take().len();
    assert!((1..500).contains(&errors), "{errors} errors for 2000 packets");
    assert!(world.engine.counters().dropped(DropReason::RateLimited) > 1000);
}

#[test]
fn no_error_answers_an_error_or_a_broadcast() {
    let mut world = raw();
    let broken = Udp::packet("10.0.2.100:1".parse().unwrap(), "192.0.2.1:2".parse().unwrap(), b"x").emit();
    world.send(&Icmp { kind: 3, code: 3, word: 0, body: broken }.packet(GUEST4.into(), ip("192.0.2.1")));
    world.send(&Ip::new(GUEST4.into(), ip("224.0.0.5"), 132, vec![0; 20]));
    world.send(&Ip::new(GUEST4.into(), ip("10.0.2.255"), 132, vec![0; 20]));
    world.expect_nothing();
}
