//! ARP and neighbour discovery through the engine.

use crate::raw;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use slipway_netstack::addr::MacAddr;
use testkit::packet::{Arp, Body, ETHERTYPE_ARP, Frame, Icmp, Ip, Tcp, Udp, ethernet, ethernet_of, flag};
use testkit::raw_guest::{RawGuest, RawTcp, usual_options};
use testkit::upstream::HostConfig;
use testkit::upstream::datagram::{EchoService, UdpService};
use testkit::upstream::tcp::Script;
use testkit::world::{
    DNS4, DNS6, ENGINE_MAC, GATEWAY4, GATEWAY6, GUEST_MAC, GUEST4, GUEST6, World, WorldConfig,
};

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
    world.engine.forget_guest(world.now(), GUEST4.into(), &mut world.host);
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

const FORGER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x66]);

/// A neighbour of the guest sends `packet`, whatever addresses it bears.
fn forge(world: &mut World<RawGuest>, packet: &Ip) {
    let frame = ethernet(ENGINE_MAC, FORGER, &packet.emit());
    world.guest.send_frame(slipway_netstack::device::Offload::NONE, frame);
    world.run_for(Duration::from_millis(1));
}

/// Frames have arrived, and none of them for the forger.
#[track_caller]
fn nothing_for_the_forger(world: &mut World<RawGuest>) -> Vec<Body> {
    let frames = world.take();
    assert!(frames.iter().all(|frame| frame.dst != FORGER), "{frames:#?}");
    frames.into_iter().map(|frame| frame.body).collect()
}

#[test]
fn a_forged_segment_does_not_move_a_connection() {
    // One of an address on the link, and one behind the guest, of which no neighbour cache knows.
    for own in ["10.0.2.100:40000", "172.16.0.9:40000"] {
        let mut world = raw();
        world.host.serve_otherwise(Script::manual());
        let end = RawTcp::new(own.parse().unwrap(), "192.0.2.7:80".parse().unwrap());
        let mut conn = RawTcp::open_with(&mut world, end, usual_options());
        let far = |n: u32| Tcp { seq: conn.seq.wrapping_add(n), ..conn.segment() };
        let forged = [
            far(1 << 30).data(b"x"),
            far(1 << 30),
            conn.segment().acking(conn.ack.wrapping_add(1000)),
            conn.segment().acking(conn.ack.wrapping_sub(1000)),
            far(10).with(flag::RST),
            far(0).with(flag::SYN),
        ];
        for segment in forged {
            forge(&mut world, &segment.packet(conn.local, conn.remote));
            nothing_for_the_forger(&mut world);
            world.host.peer_send(0, b"secret", false);
            world.run_for(Duration::from_millis(1));
            let sent = nothing_for_the_forger(&mut world);
            let segment = sent.iter().find_map(|body| match body {
                Body::Tcp(_, tcp) if tcp.payload == b"secret" => Some(tcp),
                _ => None,
            });
            conn.take_in(segment.unwrap_or_else(|| panic!("{sent:#?}")));
            conn.send_ack(&mut world);
        }
    }
}

#[test]
fn a_connection_that_is_being_made_is_not_taken_over() {
    let mut world = World::raw(WorldConfig {
        host: HostConfig { delay: Duration::from_millis(50), ..HostConfig::default() },
        ..WorldConfig::default()
    });
    world.host.serve_otherwise(Script::manual());
    let conn = RawTcp::new("172.16.0.9:40000".parse().unwrap(), "192.0.2.7:80".parse().unwrap());
    conn.send(&mut world, &conn.syn(usual_options()));
    let other = RawTcp { seq: 77, ..conn.clone() };
    forge(&mut world, &other.syn(usual_options()).packet(conn.local, conn.remote));
    world.run_for(Duration::from_millis(200));
    let bodies = nothing_for_the_forger(&mut world);
    let Some(Body::Tcp(_, answer)) = bodies.first() else { panic!("{bodies:#?}") };
    assert_eq!(answer.ack, conn.seq.wrapping_add(1));
}

#[test]
fn a_forged_source_gets_none_of_its_neighbours_answers() {
    let mut world = raw();
    world.host.serve_udp_otherwise(UdpService::Echo);
    world.host.serve_echo_otherwise(EchoService::Reply);
    let own = |port| SocketAddr::new(GUEST4.into(), port);
    let server: SocketAddr = "192.0.2.7:53".parse().unwrap();
    let (dns, gateway) = (SocketAddr::new(DNS4.into(), 53), IpAddr::from(GATEWAY4));
    world.send(&Udp::packet(own(4000), server, b"mine"));
    world.take();
    // Into a flow that the guest has, into one that it has not, to the servers that the stack plays.
    let ping =
        |to| Icmp { kind: 8, code: 0, word: 7 << 16 | 1, body: b"ping".to_vec() }.packet(GUEST4.into(), to);
    let forged = [
        Udp::packet(own(4000), server, b"forged"),
        Udp::packet(own(4001), server, b"forged"),
        Udp::packet(own(4002), dns, &[0; 12]),
        Udp::packet(own(4003), SocketAddr::new(DNS4.into(), 54), b"x"),
        ping(server.ip()),
        ping(gateway),
    ];
    for packet in &forged {
        forge(&mut world, packet);
        while let Some(query) = world.engine.dns_query() {
            world.engine.dns_answer(&query.asker, b"answer");
        }
        world.run_for(Duration::from_millis(10));
        let bodies = nothing_for_the_forger(&mut world);
        let answers = bodies.iter().filter(|body| !matches!(body, Body::Arp(_))).count();
        assert_eq!(answers, 1, "{packet:?}: {bodies:#?}");
    }
    // A client of a forwarded port is not led there either.
    world.accept_tcp("192.0.2.7:5000", "10.0.2.100:80", Script::manual()).unwrap();
    world.run_for(Duration::from_millis(10));
    assert!(matches!(nothing_for_the_forger(&mut world)[..], [Body::Tcp(..)]));
}

#[test]
fn a_guest_that_has_moved_is_found_again() {
    let mut world = raw();
    world.host.serve_udp_otherwise(UdpService::Echo);
    let packet = Udp::packet(SocketAddr::new(GUEST4.into(), 4000), "192.0.2.7:53".parse().unwrap(), b"x");
    world.send(&packet);
    world.take();
    world.guest.answers = false;
    // Whoever had the address is silent. The packets of the one who has it now are enough.
    for _ in 0..5 {
        forge(&mut world, &packet);
        world.run_for(Duration::from_secs(1));
    }
    let last = world.take().pop().expect("an answer");
    assert!(last.dst == FORGER && matches!(last.body, Body::Udp(..)), "{last:?}");
}

#[test]
fn clients_of_a_silent_guest_are_not_kept_waiting_by_what_others_say() {
    let mut world = raw();
    world.guest.answers = false;
    for port in 0..200 {
        let client = format!("192.0.2.7:{}", 5000 + port);
        world.accept_tcp(&client, "10.0.2.100:80", Script::manual()).unwrap();
    }
    world.run_for(Duration::from_millis(1));
    let asked = |frames: &[Frame]| {
        frames.iter().filter(|f| matches!(&f.body, Body::Arp(arp) if arp.operation == 1)).count()
    };
    for round in 0..30_u8 {
        let station = (MacAddr([2, 0, 0, 0, 1, round]), Ipv4Addr::new(10, 0, 2, 200));
        let arp = Arp::request(station, station.1).emit();
        let frame = ethernet_of(MacAddr::BROADCAST, station.0, ETHERTYPE_ARP, &arp);
        world.guest.send_frame(slipway_netstack::device::Offload::NONE, frame);
        world.run_for(Duration::from_millis(200));
    }
    assert!(world.host.peers().all(|peer| peer.reset), "after five seconds, whoever spoke meanwhile");
    assert_eq!(world.engine.flow_count(), 0);
    let requests = asked(&world.take());
    assert!(requests <= 8, "{requests} requests");
}

#[test]
fn addresses_beyond_the_network_teach_nothing() {
    let mut world = raw();
    // The guest is known, by its own word.
    ask(&mut world, GATEWAY4);
    solicit(&mut world, GATEWAY6, GUEST6);
    world.take();
    for n in 0..1000_u16 {
        let [high, low] = n.to_be_bytes();
        let station = (FORGER, Ipv4Addr::new(172, 16, high, low));
        let arp = Arp::request(station, GATEWAY4).emit();
        let frame = ethernet_of(MacAddr::BROADCAST, FORGER, ETHERTYPE_ARP, &arp);
        world.guest.send_frame(slipway_netstack::device::Offload::NONE, frame);
        solicit(&mut world, GATEWAY6, Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n + 1));
    }
    world.take();
    world.guest.answers = false;
    for (client, guest) in [("192.0.2.7:5000", "10.0.2.100:80"), ("[2001:db8::7]:5000", "[fd00::64]:80")] {
        world.accept_tcp(client, guest, Script::manual()).unwrap();
        world.expect_tcp();
    }
}

#[test]
fn an_address_beyond_the_network_that_was_asked_for_is_reached() {
    let mut world = raw();
    world.guest.addresses.push("172.16.0.9".parse().unwrap());
    world.accept_tcp("192.0.2.7:5000", "172.16.0.9:80", Script::manual()).unwrap();
    world.expect_tcp();
}

#[test]
fn a_guest_that_only_listens_loses_nothing_when_it_was_not_heard_of_for_long() {
    let mut world = raw();
    world.accept_udp("192.0.2.7:5000", "10.0.2.100:514", b"x", 1).unwrap();
    world.run_for(Duration::from_millis(10));
    world.take();
    world.run_for(Duration::from_secs(700));
    world.guest.answers = false;
    let train = [b'x'; 64 * 100];
    world.accept_udp("192.0.2.7:5000", "10.0.2.100:514", &train, 100).unwrap();
    let frames = world.take();
    let datagrams = frames.iter().filter(|frame| matches!(frame.body, Body::Udp(..))).count();
    assert_eq!(datagrams, 64);
    assert!(
        frames.iter().any(|frame| matches!(&frame.body, Body::Arp(arp) if arp.operation == 1)),
        "it is asked"
    );
}
