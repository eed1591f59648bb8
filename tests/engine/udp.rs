//! UDP flows: mapping, trains, timeouts, forwarded ports.

use crate::raw;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use slipway_netstack::device::vnet::{Checksum, GsoKind};
use slipway_netstack::device::{Capabilities, Gso, Offload};
use slipway_netstack::upstream::{Errno, Meta};
use testkit::packet::{Body, Udp, ethernet};
use testkit::pattern;
use testkit::raw_guest::RawGuest;
use testkit::upstream::HostConfig;
use testkit::upstream::datagram::UdpService;
use testkit::world::{ENGINE_MAC, GUEST_MAC, World, WorldConfig};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn echoing() -> World<RawGuest> {
    let mut world = raw();
    world.host.serve_udp_otherwise(UdpService::Echo);
    world
}

#[test]
fn a_datagram_goes_out_and_its_answer_comes_back() {
    for (own, to) in [("10.0.2.100:4000", "192.0.2.1:7"), ("[fd00::64]:4000", "[2001:db8::1]:7")] {
        let mut world = echoing();
        let mut packet = Udp::packet(at(own), at(to), b"hello");
        (packet.hops, packet.traffic_class) = (9, 0x2e << 2);
        world.send(&packet);
        let (ip, udp) = world.expect_udp();
        assert_eq!((SocketAddr::new(ip.src, udp.src), SocketAddr::new(ip.dst, udp.dst)), (at(to), at(own)));
        assert_eq!(udp.payload, b"hello");
        let sent = world.host.take_datagrams();
        // Nobody but its source may fragment an IPv6 packet.
        let meta = Meta { hops: 9, traffic_class: 0x2e << 2, dont_fragment: to.starts_with('[') };
        assert_eq!((sent[0].to, sent[0].meta), (at(to), meta));
    }
}

#[test]
fn empty_datagrams_are_datagrams() {
    let mut world = echoing();
    world.send(&Udp::packet(at("10.0.2.100:4000"), at("192.0.2.1:7"), b""));
    assert_eq!(world.expect_udp().1.payload, b"");
}

#[test]
fn one_guest_port_is_one_socket_whoever_it_talks_to() {
    let mut world = echoing();
    for n in 1..10 {
        world.send(&Udp::packet(at("10.0.2.100:4000"), at(&format!("192.0.2.{n}:7")), &[n]));
        let (ip, udp) = world.expect_udp();
        assert_eq!((ip.src, udp.payload), (format!("192.0.2.{n}").parse::<IpAddr>().unwrap(), vec![n]));
    }
    assert_eq!(world.host.opened().len(), 1, "endpoint-independent mapping (RFC 4787 REQ-1)");
    // And anybody may answer: endpoint-independent filtering.
    let flow = world.host.flows().next().unwrap();
    world.host.inject_datagram(flow, at("203.0.113.9:99"), b"stranger", Meta::default());
    let (ip, udp) = world.expect_udp();
    assert_eq!((ip.src, udp.src, &udp.payload[..]), (at("203.0.113.9:0").ip(), 99, &b"stranger"[..]));
}

#[test]
fn silence_ends_a_flow_when_conntrack_would() {
    for (service, timeout) in [(UdpService::Lose, 30), (UdpService::Echo, 120)] {
        let mut world = raw();
        world.host.serve_udp_otherwise(service);
        world.send(&Udp::packet(at("10.0.2.100:4000"), at("192.0.2.1:7"), b"x"));
        world.run_for(Duration::from_secs(timeout - 1));
        assert_eq!(world.engine.flow_count(), 1, "{service:?}");
        world.run_for(Duration::from_secs(2));
        assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0), "{service:?}");
    }
}

#[test]
fn a_host_that_refuses_sockets_is_no_disaster() {
    let mut world = echoing();
    world.host.refuse_next(Errno::Exhausted);
    world.send(&Udp::packet(at("10.0.2.100:4000"), at("192.0.2.1:7"), b"x"));
    assert_eq!(world.engine.flow_count(), 0);
    world.take();
    world.send(&Udp::packet(at("10.0.2.100:4000"), at("192.0.2.1:7"), b"y"));
    assert_eq!(world.expect_udp().1.payload, b"y");
}

#[test]
fn a_train_from_the_guest_leaves_as_it_came() {
    let mut config = WorldConfig::default();
    config.host = HostConfig { gro: false, ..config.host };
    let mut world = World::raw(config);
    let payload = pattern::bytes(5, 0, 3500);
    let packet = Udp::packet(at("10.0.2.100:4000"), at("192.0.2.1:7"), &payload);
    let offload = Offload {
        checksum: Checksum::Verified,
        gso: Some(Gso { kind: GsoKind::Udp, size: 1000, header_len: 42 }),
    };
    world.guest.send_frame(offload, ethernet(ENGINE_MAC, GUEST_MAC, &packet.emit()));
    world.expect_nothing();
    let sent = world.host.take_datagrams();
    assert_eq!(sent.iter().map(|d| d.payload.len()).collect::<Vec<_>>(), [1000, 1000, 1000, 500]);
    assert_eq!(sent.into_iter().flat_map(|d| d.payload).collect::<Vec<_>>(), payload);
}

#[test]
fn trains_reach_the_guest_whatever_the_device_can_do() {
    for caps in [
        Capabilities::default(),
        Capabilities { checksum: true, ..Capabilities::default() },
        Capabilities { checksum: true, tso4: true, tso6: true, uso: true },
    ] {
        for to in ["192.0.2.1:7", "[2001:db8::1]:7"] {
            let mut config = WorldConfig::default();
            config.engine.device = caps;
            let mut world = World::raw(config);
            world.host.serve_udp_otherwise(UdpService::Train { count: 50, size: 1200 });
            let own = if to.starts_with('[') { "[fd00::64]:4000" } else { "10.0.2.100:4000" };
            world.send(&Udp::packet(at(own), at(to), b"go"));
            let frames = world.take();
            assert_eq!(frames.len(), 50, "{caps:?}");
            for frame in frames {
                let Body::Udp(_, udp) = frame.body else { panic!("{frame:?}") };
                assert_eq!(udp.payload, pattern::bytes(0, 0, 1200));
            }
        }
    }
}

#[test]
fn a_forwarded_port_is_a_conversation() {
    let mut world = raw();
    let flow = world.accept_udp("192.0.2.7:5000", "10.0.2.100:53", b"question", 8).unwrap();
    let (ip, udp) = world.expect_udp();
    assert_eq!((ip.src, udp.src, udp.dst), (at("192.0.2.7:0").ip(), 5000, 53), "the client is preserved");
    world.send(&Udp::packet(at("10.0.2.100:53"), at("192.0.2.7:5000"), b"answer"));
    let sent = world.host.take_datagrams();
    assert_eq!(
        (sent[0].flow, sent[0].to, &sent[0].payload[..]),
        (flow, at("192.0.2.7:5000"), &b"answer"[..])
    );
    assert_eq!(world.accept_udp("192.0.2.7:5000", "10.0.2.100:53", b"again", 5), Ok(flow));
    assert_eq!(world.expect_udp().1.payload, b"again");
}

#[test]
fn a_client_on_loopback_looks_like_the_gateway() {
    let mut world = raw();
    let flow = world.accept_udp("127.0.0.1:5000", "10.0.2.100:53", b"q", 1).unwrap();
    let (ip, udp) = world.expect_udp();
    assert_eq!((ip.src, udp.src), (at("10.0.2.2:0").ip(), 5000));
    world.send(&Udp::packet(at("10.0.2.100:53"), at("10.0.2.2:5000"), b"a"));
    let sent = world.host.take_datagrams();
    assert_eq!((sent[0].flow, sent[0].to), (flow, at("127.0.0.1:5000")));
}

#[test]
fn datagrams_above_the_mtu_are_fragmented_towards_the_guest() {
    for to in ["192.0.2.1:7", "[2001:db8::1]:7"] {
        let mut world = raw();
        world.host.serve_udp_otherwise(UdpService::Train { count: 1, size: 8000 });
        let own = if to.starts_with('[') { "[fd00::64]:4000" } else { "10.0.2.100:4000" };
        world.send(&Udp::packet(at(own), at(to), b"go"));
        let mut whole = Vec::new();
        for frame in world.take() {
            let Body::Other(ip) = frame.body else { panic!("a fragment expected: {frame:?}") };
            let fragment = ip.fragment.expect("a fragment");
            assert_eq!(usize::from(fragment.offset), whole.len(), "in order");
            whole.extend(ip.payload);
        }
        assert_eq!(whole[8..], pattern::bytes(0, 0, 8000));
    }
}
