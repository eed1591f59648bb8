//! The DNS address: relayed by UDP and TCP to the host's nameservers, with failover.

use crate::raw;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use testkit::packet::Udp;
use testkit::raw_guest::{RawGuest, RawTcp};
use testkit::upstream::datagram::UdpService;
use testkit::upstream::tcp::{Script, Service};
use testkit::world::{World, WorldConfig};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn query(world: &mut World<RawGuest>, v6: bool, id: u8) {
    let (own, to) = if v6 { ("[fd00::64]:4000", "[fd00::3]:53") } else { ("10.0.2.100:4000", "10.0.2.3:53") };
    let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
    world.send(&Udp::packet(parse(own), parse(to), &[0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]));
}

fn answer(query: &[u8]) -> Vec<u8> {
    let mut out = query.to_vec();
    out[2] |= 0x80;
    out
}

#[test]
fn queries_go_to_the_first_nameserver_and_answers_come_from_the_dns_address() {
    for v6 in [false, true] {
        let mut world = raw();
        world.engine.set_nameservers(vec![ip("192.0.2.53"), ip("192.0.2.54")]);
        world.host.serve_udp("192.0.2.53:53", UdpService::Answer(answer));
        query(&mut world, v6, 1);
        let (packet, udp) = world.expect_udp();
        assert_eq!(packet.src, if v6 { ip("fd00::3") } else { ip("10.0.2.3") });
        assert_eq!((udp.src, udp.dst, udp.payload[1], udp.payload[2] & 0x80), (53, 4000, 1, 0x80));
    }
}

#[test]
fn a_silent_nameserver_is_left_for_the_next_and_not_asked_first_again() {
    let mut world = raw();
    world.engine.set_nameservers(vec![ip("192.0.2.53"), ip("192.0.2.54"), ip("2001:db8::53")]);
    world.host.serve_udp("[2001:db8::53]:53", UdpService::Answer(answer));
    query(&mut world, false, 1);
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.expect_udp().1.payload[1], 1, "the third, over IPv6, was asked in the end");
    world.host.take_datagrams();
    query(&mut world, false, 2);
    assert_eq!(world.expect_udp().1.payload[1], 2);
    assert_eq!(world.host.take_datagrams()[0].to, "[2001:db8::53]:53".parse().unwrap(), "it was remembered");
}

#[test]
fn a_closed_port_is_left_at_once() {
    let mut world = raw();
    world.engine.set_nameservers(vec![ip("192.0.2.53"), ip("192.0.2.54")]);
    world.host.serve_udp("192.0.2.53:53", UdpService::Refuse);
    world.host.serve_udp("192.0.2.54:53", UdpService::Answer(answer));
    query(&mut world, false, 1);
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.expect_udp().1.payload[1], 1);
}

#[test]
fn no_nameserver_is_no_answer_and_no_leak() {
    let mut world = raw();
    for port in 0..200 {
        let own = SocketAddr::new(ip("10.0.2.100"), 4000 + port);
        world.send(&Udp::packet(own, "10.0.2.3:53".parse().unwrap(), &[0; 12]));
    }
    world.run_for(Duration::from_secs(300));
    assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0));
}

#[test]
fn nameservers_change_while_running() {
    let mut world = raw();
    world.host.serve_udp("192.0.2.53:53", UdpService::Answer(answer));
    world.host.serve_udp("192.0.2.99:53", UdpService::Answer(answer));
    for (n, server) in [(1, "192.0.2.53"), (2, "192.0.2.99")] {
        world.engine.set_nameservers(vec![ip(server)]);
        query(&mut world, false, n);
        world.expect_udp();
        assert_eq!(world.host.take_datagrams()[0].to.ip(), ip(server));
    }
}

#[test]
fn tcp_queries_are_relayed_with_failover() {
    let mut world = raw();
    world.engine.set_nameservers(vec![ip("192.0.2.53"), ip("192.0.2.54")]);
    world.host.serve("192.0.2.54:53", Script::echo());
    let mut conn = RawTcp::open(&mut world, "10.0.2.3:53");
    conn.send_data(&mut world, b"\0\x02hi");
    world.run_for(Duration::from_millis(20));
    let data: Vec<u8> = world.take_tcp().into_iter().flat_map(|s| s.payload).collect();
    assert_eq!(data, b"\0\x02hi");
    let tried: Vec<IpAddr> = world.host.opened().iter().map(|o| o.to.ip()).collect();
    assert_eq!(tried, [ip("192.0.2.53"), ip("192.0.2.54")], "the first refused");
}

#[test]
fn without_dns_address_it_is_an_address_like_any_other() {
    let mut config = WorldConfig::default();
    config.engine.v4 = config.engine.v4.map(|v4| slipway_netstack::config::Ipv4Config { dns: None, ..v4 });
    let mut world = World::raw(config);
    world.engine.set_nameservers(vec![ip("192.0.2.53")]);
    world.host.serve_udp("192.0.2.53:53", UdpService::Answer(answer));
    world.host.serve_otherwise(Service::Fail(slipway_netstack::upstream::Errno::Refused));
    query(&mut world, false, 1);
    assert!(world.host.take_datagrams().iter().all(|d| d.to.ip() != ip("192.0.2.53")), "not relayed");
}
