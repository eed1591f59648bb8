//! ARP and neighbour discovery through the engine.

use crate::raw;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use slipway_netstack::addr::MacAddr;
use testkit::packet::{Arp, Body, ETHERTYPE_ARP, Icmp, ethernet, ethernet_of};
use testkit::raw_guest::RawGuest;
use testkit::upstream::tcp::Script;
use testkit::world::{DNS4, DNS6, ENGINE_MAC, GATEWAY4, GATEWAY6, GUEST_MAC, GUEST4, GUEST6, World};

fn ask(world: &mut World<RawGuest>, wanted: Ipv4Addr) {
    let arp = Arp::request((GUEST_MAC, GUEST4), wanted).emit();
    world.guest.send_frame(
        slipway_netstack::device::Offload::NONE,
        ethernet_of(MacAddr::BROADCAST, GUEST_MAC, ETHERTYPE_ARP, &arp),
    );
}

#[test]
fn gateway_and_dns_address_answer_arp() {
    let mut world = raw();
    for ip in [GATEWAY4, DNS4] {
        ask(&mut world, ip);
        let frame = world.expect_one();
        assert_eq!(frame.dst, GUEST_MAC);
        let Body::Arp(arp) = frame.body else { panic!("{frame:?}") };
        assert_eq!((arp.operation, arp.sender, arp.target), (2, (ENGINE_MAC, ip), (GUEST_MAC, GUEST4)));
    }
}

#[test]
fn nobody_answers_for_the_guest_itself() {
    let mut world = raw();
    // Duplicate address detection (RFC 5227) must find the address free.
    ask(&mut world, GUEST4);
    world.expect_nothing();
}

fn solicit(world: &mut World<RawGuest>, wanted: Ipv6Addr, from: Ipv6Addr) {
    let [.., a, b, c] = wanted.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut body = wanted.octets().to_vec();
    if !from.is_unspecified() {
        body.extend_from_slice(&[1, 1]);
        body.extend_from_slice(&GUEST_MAC.0);
    }
    let mut packet = Icmp { kind: 135, code: 0, word: 0, body }.packet(from.into(), group.into());
    packet.hops = 255;
    let to = MacAddr::for_multicast(group.into());
    let frame = ethernet(to, GUEST_MAC, &packet.emit());
    world.guest.send_frame(slipway_netstack::device::Offload::NONE, frame);
}

#[test]
fn gateway_dns_and_link_local_address_answer_solicitations() {
    let mut world = raw();
    for ip in [GATEWAY6, DNS6, ENGINE_MAC.link_local()] {
        solicit(&mut world, ip, GUEST6);
        let (packet, icmp) = world.expect_icmp();
        assert_eq!((icmp.kind, packet.hops), (136, 255), "{ip}");
        assert_eq!(icmp.body[..16], ip.octets());
        assert_eq!(icmp.body[16..24], [&[2, 1][..], &ENGINE_MAC.0].concat());
        assert_eq!(icmp.word >> 30 & 1, 1, "solicited");
    }
}

#[test]
fn duplicate_address_detection_finds_the_guests_address_free_and_ours_taken() {
    let mut world = raw();
    solicit(&mut world, GUEST6, Ipv6Addr::UNSPECIFIED);
    world.expect_nothing();
    solicit(&mut world, GATEWAY6, Ipv6Addr::UNSPECIFIED);
    let (packet, icmp) = world.expect_icmp();
    // RFC 4861 §7.2.4: to all nodes, not solicited.
    assert_eq!((icmp.kind, packet.dst), (136, "ff02::1".parse::<IpAddr>().unwrap()));
    assert_eq!(icmp.word >> 30 & 1, 0);
}

#[test]
fn a_guest_that_only_listens_is_known_by_the_address_that_it_claims() {
    let mut world = raw();
    assert_eq!(world.engine.guest_address(true), None);
    solicit(&mut world, GATEWAY6, Ipv6Addr::UNSPECIFIED);
    world.take();
    assert_eq!(world.engine.guest_address(true), None, "the gateway's address is ours");
    // Without duplicate address detection only the link-local address is heard of.
    solicit(&mut world, ENGINE_MAC.link_local(), "fe80::a:b:c:d".parse().unwrap());
    world.take();
    assert_eq!(world.engine.guest_address(true), Some("fd00::a:b:c:d".parse().unwrap()));
    solicit(&mut world, GUEST6, Ipv6Addr::UNSPECIFIED);
    world.take();
    assert_eq!(world.engine.guest_address(true), Some(GUEST6.into()));
    solicit(&mut world, ENGINE_MAC.link_local(), "fe80::a:b:c:d".parse().unwrap());
    world.take();
    assert_eq!(world.engine.guest_address(true), Some(GUEST6.into()), "a guess replaces no knowledge");
}

#[test]
fn an_unknown_guest_is_asked_for_before_a_connection_reaches_it() {
    for guest in ["10.0.2.100:80", "[fd00::64]:80"] {
        let mut world = raw();
        let client = if guest.starts_with('[') { "[2001:db8::7]:5000" } else { "192.0.2.7:5000" };
        world.accept_tcp(client, guest, Script::echo()).unwrap();
        let (_, syn) = world.expect_tcp();
        assert_eq!(syn.dst, 80, "the guest answered by itself, then came the SYN");
    }
}

#[test]
fn a_silent_guest_costs_its_client_the_connection_and_not_more() {
    let mut world = raw();
    world.guest.answers = false;
    let flow = world.accept_tcp("192.0.2.7:5000", "10.0.2.100:80", Script::manual()).unwrap();
    world.run_for(Duration::from_secs(20));
    let frames = world.take();
    assert!((1..=5).contains(&frames.len()), "{} requests", frames.len());
    assert!(frames.iter().all(|frame| matches!(&frame.body, Body::Arp(arp) if arp.operation == 1)));
    assert!(world.host.peer(0).reset, "the client hears of it");
    assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0), "{flow:?}");
}

#[test]
fn a_datagram_for_a_silent_guest_leaves_no_flow_that_cannot_answer() {
    let mut world = raw();
    world.guest.answers = false;
    let accept = |world: &mut World<RawGuest>| world.accept_udp("192.0.2.7:5000", "10.0.2.100:53", b"x", 1);
    for _ in 0..8 {
        let result = accept(&mut world);
        world.run_for(Duration::from_millis(700));
        assert_eq!(world.engine.flow_count(), world.host.open_sockets(), "{result:?}");
    }
    world.guest.answers = true;
    world.run_for(Duration::from_secs(3));
    world.take();
    accept(&mut world).unwrap();
    let (ip, udp) = world.expect_udp();
    assert_eq!((ip.src, udp.payload), ("192.0.2.7".parse::<IpAddr>().unwrap(), b"x".to_vec()));
}

#[test]
fn who_leaves_takes_his_flows_along_and_nobody_elses() {
    let mut world = raw();
    for client in ["192.0.2.7:5000", "192.0.2.7:5001"] {
        world.accept_tcp(client, "10.0.2.100:80", Script::manual()).unwrap();
    }
    world.accept_udp("192.0.2.7:5000", "10.0.2.100:53", b"x", 1).unwrap();
    world.accept_tcp("[2001:db8::7]:5000", "[fd00::64]:80", Script::manual()).unwrap();
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.engine.flow_count(), 4);
    world.engine.forget_guest(GUEST4.into(), &mut world.host);
    assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (1, 1));
    world.run_for(Duration::from_millis(1));
    assert_eq!([0, 1, 2].map(|n| world.host.peer(n).reset), [true, true, false]);
    // Its next client asks the link anew.
    world.take();
    world.guest.answers = false;
    world.accept_tcp("192.0.2.7:5002", "10.0.2.100:80", Script::manual()).unwrap();
    world.run_for(Duration::from_millis(1));
    assert!(world.take().iter().any(|frame| matches!(&frame.body, Body::Arp(arp) if arp.operation == 1)));
}
