//! A guest that has the host's addresses: who is answered for, where it is found, who gets in, what goes out.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::Offload;
use slipway_netstack::drop_reason::DropReason;
use slipway_netstack::ethernet::neighbour::OnLink;
use slipway_netstack::ip::plan::pasta::{Half, Pasta};
use slipway_netstack::ip::plan::{Carries, Plan};
use slipway_netstack::upstream::Meta;
use testkit::packet::{Arp, Body, ETHERTYPE_ARP, Icmp, Udp, ethernet, ethernet_of, flag};
use testkit::raw_guest::{RawGuest, RawTcp, neighbour_advertisement};
use testkit::upstream::datagram::{EchoService, UdpService};
use testkit::upstream::tcp::Script;
use testkit::world::{ENGINE_MAC, GUEST_MAC, World, WorldConfig};

const OWN4: &str = "192.0.2.7";
const OWN6: &str = "2001:db8::7";
const ROUTER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The gateway's address, and so ours.
const ROUTER6: &str = "fe80::aa";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip<T: core::str::FromStr<Err: core::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn pasta(pinned: bool) -> Pasta {
    Pasta {
        v4: Some(Half {
            addresses: vec![ip("192.0.2.7/24")],
            pinned,
            gateway: Some(ROUTER4),
            ..Half::default()
        }),
        v6: Some(Half {
            addresses: vec![ip("2001:db8::7/64")],
            pinned,
            gateway: Some(ip(ROUTER6)),
            ..Half::default()
        }),
        ..Pasta::default()
    }
}

/// The guest, driven by hand, is the only station.
fn world(of: &Pasta) -> World<RawGuest> {
    let mut config = WorldConfig::default();
    config.engine.plan = Plan::pasta(of);
    config.engine.on_link = OnLink::One { mac: None };
    config.engine.udp.contacted_only = true;
    config.engine.outbound.same_ports = true;
    config.engine.outbound.broadcast = true;
    let mut world = World::raw(config);
    world.guest.answers = false;
    world.host.serve_udp_otherwise(UdpService::Echo);
    world.settle();
    world.take();
    world
}

/// The guest at `mac` asks for `wanted`; whether it is told that we have it.
fn asks_from(world: &mut World<RawGuest>, mac: MacAddr, from: &str, wanted: &str) -> bool {
    match ip::<IpAddr>(wanted) {
        IpAddr::V4(wanted) => {
            let arp = Arp::request((mac, ip(from)), wanted).emit();
            let frame = ethernet_of(MacAddr::BROADCAST, mac, ETHERTYPE_ARP, &arp);
            world.guest.send_frame(Offload::NONE, frame);
        }
        IpAddr::V6(wanted) => {
            let [.., a, b, c] = wanted.octets();
            let low = u16::from_be_bytes([b, c]);
            let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low);
            let mut body = wanted.octets().to_vec();
            if from != "::" {
                body.extend([&[1, 1][..], &mac.0].concat());
            }
            let mut packet = Icmp { kind: 135, code: 0, word: 0, body }.packet(ip(from), group.into());
            packet.hops = 255;
            let to = MacAddr::for_multicast(group.into());
            world.guest.send_frame(Offload::NONE, ethernet(to, mac, &packet.emit()));
        }
    }
    world.settle();
    world.take().iter().any(|frame| match &frame.body {
        Body::Arp(arp) => (arp.operation, arp.sender) == (2, (ENGINE_MAC, ip(wanted))),
        Body::Icmp(_, icmp) => icmp.kind == 136 && icmp.body[16..24] == [&[2, 1][..], &ENGINE_MAC.0].concat(),
        _ => false,
    })
}

fn asks(world: &mut World<RawGuest>, from: &str, wanted: &str) -> bool {
    asks_from(world, GUEST_MAC, from, wanted)
}

#[test]
fn the_guest_finds_us_behind_every_address_but_its_own() {
    let mut world = world(&pasta(true));
    for wanted in ["192.0.2.1", "192.0.2.50", "203.0.113.9", "169.254.1.1"] {
        assert!(asks(&mut world, OWN4, wanted), "{wanted}");
    }
    for wanted in [ROUTER6, "2001:db8::50", "fe80::50", "2001:db8:1::9"] {
        assert!(asks(&mut world, OWN6, wanted), "{wanted}");
    }
    assert!(!asks(&mut world, OWN4, OWN4) && !asks(&mut world, OWN6, OWN6));
    // RFC 5227 §2.1.1, RFC 4862 §5.4: what it wants to have is free, unless it is ours.
    for (blank, free, ours) in [("0.0.0.0", "192.0.2.60", "192.0.2.1"), ("::", "2001:db8::60", ROUTER6)] {
        assert!(!asks(&mut world, blank, free) && asks(&mut world, blank, ours), "{free}");
        // From then on it has it, whoever behind the guest asks: a virtual machine may have a bridge of its own.
        let (other, from) = (MacAddr([2, 0, 0, 0, 0, 0x65]), if blank == "::" { OWN6 } else { OWN4 });
        assert!(!asks_from(&mut world, other, from, free), "{free}");
    }
}

#[test]
fn without_neighbour_discovery_nobody_answers() {
    let silent = Pasta { carries: Carries { ndp: false, ..Carries::default() }, ..pasta(true) };
    let mut world = world(&silent);
    assert!(!asks(&mut world, OWN6, ROUTER6) && asks(&mut world, OWN4, "192.0.2.1"));
}

#[test]
fn a_pinned_address_is_displaced_by_nothing_that_comes_along() {
    let mut world = world(&pasta(true));
    asks(&mut world, "10.89.0.2", "192.0.2.1");
    asks(&mut world, "192.0.2.60", "192.0.2.60");
    world.send(&Udp::packet(at("10.89.0.2:5"), at("192.0.2.50:7"), b"x"));
    world.send(&Udp::packet(at("[fd00::2]:5"), at("[2001:db8::50]:7"), b"x"));
    world.settle();
    assert_eq!(world.engine.guest_address(false), Some(ip(OWN4)));
    assert_eq!(world.engine.guest_address(true), Some(ip(OWN6)));
}

#[test]
fn the_guest_is_where_it_says_and_only_else_where_its_packets_come_from() {
    let mut world = world(&pasta(false));
    let at_now = |world: &World<RawGuest>| {
        [false, true].map(|six| world.engine.guest_address(six).unwrap().to_string())
    };
    assert_eq!(at_now(&world), [OWN4, OWN6], "it has said nothing");
    world.send(&Udp::packet(at("192.0.2.61:5"), at("192.0.2.50:7"), b"x"));
    world.send(&Udp::packet(at("[2001:db8::61]:5"), at("[2001:db8::50]:7"), b"x"));
    world.settle();
    assert_eq!(at_now(&world), ["192.0.2.61", "2001:db8::61"]);
    asks(&mut world, "192.0.2.62", "192.0.2.1");
    asks(&mut world, "::", "2001:db8::62");
    assert_eq!(at_now(&world), ["192.0.2.62", "2001:db8::62"]);
    // What passes through it, and what it cannot have.
    for (from, to) in [("10.89.0.2:5", "192.0.2.50:7"), ("[fd00::2]:5", "[2001:db8::50]:7")] {
        world.send(&Udp::packet(at(from), at(to), b"x"));
    }
    asks(&mut world, "192.0.2.1", "192.0.2.60");
    world.settle();
    assert_eq!(at_now(&world), ["192.0.2.62", "2001:db8::62"]);
    // It has moved.
    asks(&mut world, "192.0.2.63", "192.0.2.1");
    world.send(&neighbour_advertisement(ip("2001:db8::63"), ip(ROUTER6)));
    world.settle();
    assert_eq!(at_now(&world), ["192.0.2.63", "2001:db8::63"]);
    // What was assigned to it is its first address once it has it, whatever others it claims.
    asks(&mut world, OWN4, "192.0.2.1");
    asks(&mut world, "::", OWN6);
    asks(&mut world, "192.0.2.64", "192.0.2.1");
    asks(&mut world, "::", "2001:db8::64");
    assert_eq!(at_now(&world), [OWN4, OWN6]);
    let now = world.now();
    world.engine.forget_guests(now, &mut world.host);
    asks(&mut world, "192.0.2.64", "192.0.2.1");
    assert_eq!(at_now(&world), ["192.0.2.64", OWN6], "the next guest is another one");
}

#[test]
fn a_guest_that_is_leased_its_address_has_it() {
    let mut world = world(&Pasta { dhcp: true, ..pasta(false) });
    asks(&mut world, "192.0.2.62", "192.0.2.1");
    assert_eq!(world.engine.guest_address(false), Some(ip("192.0.2.62")), "as it was before it began anew");
    let mut request = vec![0; 240];
    request[..4].copy_from_slice(&[1, 1, 6, 0]);
    request[28..34].copy_from_slice(&GUEST_MAC.0);
    request[236..].copy_from_slice(&[99, 130, 83, 99]);
    request.extend([&[53, 1, 3, 50, 4][..], &ip::<Ipv4Addr>(OWN4).octets(), &[255]].concat());
    world.send(&Udp::packet(at("0.0.0.0:68"), at("255.255.255.255:67"), &request));
    let (packet, _) = world.expect_udp();
    assert_eq!((packet.src, packet.dst), (ROUTER4.into(), ip(OWN4)));
    assert_eq!(world.engine.guest_address(false), Some(ip(OWN4)));
}

/// Whoever starts a VM may give us its own MAC address for ours.
#[test]
fn a_guest_with_our_mac_address_is_heard_like_any_other() {
    let mut world = world(&pasta(false));
    let link_local = ENGINE_MAC.link_local().to_string();
    assert!(!asks_from(&mut world, ENGINE_MAC, "::", &link_local), "its link-local address is not ours");
    assert!(asks_from(&mut world, ENGINE_MAC, "192.0.2.64", "192.0.2.1"));
    assert!(asks_from(&mut world, ENGINE_MAC, &link_local, ROUTER6));
    assert_eq!(world.engine.guest_address(false), Some(ip("192.0.2.64")));
}

#[test]
fn whoever_is_seen_at_a_link_local_address_gets_to_the_guests_own() {
    let mut world = world(&pasta(true));
    let toward = |world: &World<RawGuest>, from: &str| world.engine.guest_address_toward(ip(from));
    assert_eq!(toward(&world, "::1"), Some(ip(OWN6)), "none is known yet");
    asks(&mut world, "fe80::7", ROUTER6);
    // The host's loopback is the gateway, which is link-local here.
    assert_eq!(toward(&world, "::1"), Some(ip("fe80::7")));
    assert_eq!(toward(&world, "fe80::50"), Some(ip("fe80::7")));
    assert_eq!(toward(&world, "2001:db8::50"), Some(ip(OWN6)));
    assert_eq!(toward(&world, "127.0.0.1"), Some(ip(OWN4)));
    world.accept_tcp("[::1]:5000", "[fe80::7]:80", Script::manual()).unwrap();
    let (packet, syn) = world.expect_tcp();
    assert_eq!((packet.src, packet.dst, syn.flags), (ip(ROUTER6), ip("fe80::7"), flag::SYN));
}

#[test]
fn peers_keep_their_addresses_and_the_hosts_own_are_the_gateway() {
    let mut world = world(&pasta(true));
    asks(&mut world, OWN4, "192.0.2.1");
    for (from, seen) in [("203.0.113.9:5000", "203.0.113.9"), ("192.0.2.7:5000", "192.0.2.1")] {
        world.accept_tcp(from, "192.0.2.7:80", Script::manual()).unwrap();
        world.accept_udp(from, "192.0.2.7:80", b"x", 1).unwrap();
        world.settle();
        let sources = world.take().into_iter().map(|frame| match frame.body {
            Body::Tcp(ip, _) | Body::Udp(ip, _) => ip.src,
            other => panic!("{other:?}"),
        });
        assert_eq!(sources.collect::<Vec<_>>(), [ip::<IpAddr>(seen); 2]);
    }
    let mut tunnel = pasta(true);
    tunnel.v4.as_mut().unwrap().gateway = None;
    let mut world = self::world(&tunnel);
    for from in ["127.0.0.1:5000", "192.0.2.7:5000"] {
        let refused = world.accept_tcp(from, "192.0.2.7:80", Script::manual());
        assert_eq!(refused, Err(DropReason::Forbidden), "nobody could stand for it");
        assert_eq!(world.accept_udp(from, "192.0.2.7:80", b"x", 1), Err(DropReason::Forbidden));
    }
    world.expect_nothing();
}

#[test]
fn only_whom_the_guest_has_sent_to_gets_an_answer_in() {
    for (own, peer, other, stranger) in [
        ("192.0.2.7:4000", "192.0.2.50:7", "192.0.2.50:8", "203.0.113.9:7"),
        ("[2001:db8::7]:4000", "[2001:db8::50]:7", "[2001:db8::50]:8", "[2001:db8:1::9]:7"),
    ] {
        let mut world = world(&pasta(true));
        world.send(&Udp::packet(at(own), at(peer), b"hello"));
        assert_eq!(world.expect_udp().1.payload, b"hello");
        let opened = world.host.opened()[0];
        assert_eq!((opened.from.port, opened.from.broadcast), (4000, true));
        for from in [other, stranger] {
            world.host.inject_datagram(opened.flow, at(from), b"let me in", Meta::default());
            world.settle();
        }
        world.expect_nothing();
        assert_eq!(world.engine.counters().dropped(DropReason::Unsolicited), 2);
        world.send(&Udp::packet(at(own), at(stranger), b"hello"));
        assert_eq!(world.expect_udp().1.payload, b"hello");
        world.host.inject_datagram(opened.flow, at(peer), b"the first one, still", Meta::default());
        assert_eq!(world.expect_udp().1.payload, b"the first one, still");
    }
}

/// mDNS and SSDP: the question goes to a group, the answers come from strangers.
#[test]
fn a_question_to_a_group_goes_out_and_lets_anybody_answer() {
    for (own, group, stranger) in [
        ("192.0.2.7:4000", "224.0.0.251:5353", "192.0.2.50:5353"),
        ("192.0.2.7:4000", "192.0.2.255:7", "192.0.2.50:7"),
        ("192.0.2.7:4000", "255.255.255.255:7", "192.0.2.50:7"),
        ("[fe80::7]:4000", "[ff02::fb]:5353", "[fe80::50]:5353"),
    ] {
        let mut world = world(&pasta(true));
        let to = MacAddr::for_multicast(at(group).ip());
        let question = Udp::packet(at(own), at(group), b"who?").emit();
        world.guest.send_frame(Offload::NONE, ethernet(to, GUEST_MAC, &question));
        world.settle();
        world.take();
        let sent = world.host.take_datagrams();
        assert_eq!(sent.iter().map(|datagram| datagram.to).collect::<Vec<_>>(), [at(group)]);
        world.host.inject_datagram(sent[0].flow, at(stranger), b"me", Meta::default());
        let (packet, answer) = world.expect_udp();
        assert_eq!((packet.src, &answer.payload[..]), (at(stranger).ip(), &b"me"[..]), "{group}");
    }
    let mut world = world(&pasta(true));
    let syn = RawTcp::new(at("192.0.2.7:4000"), at("192.0.2.255:80"));
    syn.send(&mut world, &syn.syn(testkit::raw_guest::usual_options()));
    world.expect_nothing();
    assert!(world.host.opened().is_empty(), "no connection goes to a group");
}

#[test]
fn what_is_switched_off_is_not_carried() {
    let mut world =
        world(&Pasta { carries: Carries { tcp: false, udp: false, icmp: false, ndp: true }, ..pasta(true) });
    world.host.serve_echo_otherwise(EchoService::Reply);
    let syn = RawTcp::new(at("192.0.2.7:4000"), at("192.0.2.50:80"));
    syn.send(&mut world, &syn.syn(testkit::raw_guest::usual_options()));
    world.send(&Udp::packet(at("192.0.2.7:4000"), at("192.0.2.50:7"), b"x"));
    for to in ["192.0.2.50", "192.0.2.1"] {
        world.send(&Icmp::echo_request(ip(OWN4), 1, 1, b"x").packet(ip(OWN4), ip(to)));
    }
    world.expect_nothing();
    assert!(world.host.opened().is_empty());
    assert_eq!(world.engine.counters().dropped(DropReason::Forbidden), 4);
    let refused = world.accept_tcp("203.0.113.9:5", "192.0.2.7:80", Script::manual());
    assert_eq!(refused, Err(DropReason::Forbidden));
    let refused = world.accept_udp("203.0.113.9:5", "192.0.2.7:80", b"x", 1);
    assert_eq!(refused, Err(DropReason::Forbidden));
}

#[test]
fn what_a_datagram_means_is_asked_anew_when_the_addresses_are_others() {
    let mut world = world(&pasta(true));
    let send = |world: &mut World<RawGuest>| {
        world.send(&Udp::packet(at("192.0.2.7:4000"), at("192.0.2.1:7"), b"x"));
        world.settle();
        world.take();
        world.host.take_datagrams().into_iter().map(|datagram| datagram.to.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(send(&mut world), ["127.0.0.1:7"]);
    assert_eq!(send(&mut world), ["127.0.0.1:7"]);
    let mut other = pasta(true);
    other.v4.as_mut().unwrap().gateway = Some(ip("192.0.2.254"));
    let now = world.now();
    world.engine.readdress(now, Plan::pasta(&other), &mut world.host);
    assert_eq!(send(&mut world), ["192.0.2.1:7"]);
}
