//! The address plan changes while the link is in use, and who is on the link: many stations, or one.

use crate::raw;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use slipway_netstack::Engine;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::Offload;
use slipway_netstack::drop_reason::DropReason;
use slipway_netstack::ethernet::neighbour::OnLink;
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::slirp::Ipv4Config;
use testkit::guest::Task;
use testkit::link::LinkConfig;
use testkit::packet::{Arp, Body, ETHERTYPE_ARP, Icmp, Udp, ethernet, ethernet_of, flag};
use testkit::raw_guest::{RawGuest, RawTcp, usual_options};
use testkit::upstream::HostConfig;
use testkit::upstream::datagram::{EchoService, UdpService};
use testkit::upstream::tcp::Script;
use testkit::world::{ENGINE_MAC, GATEWAY4, GUEST_MAC, GUEST4, World, WorldConfig, plan};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn readdress<G: testkit::world::Guest>(world: &mut World<G>, plan: Plan) {
    let now = world.now();
    world.engine.readdress(now, plan, &mut world.host);
}

/// 10.0.3.0/24 instead of 10.0.2.0/24; IPv6 stays.
fn elsewhere() -> Plan {
    plan(|slirp| slirp.v4 = Some(Ipv4Config::slirp("10.0.3.0/24".parse().unwrap())))
}

/// The gateway has number 4.
fn moved_gateway() -> Plan {
    plan(|slirp| slirp.v4.as_mut().unwrap().gateway = Ipv4Addr::new(10, 0, 2, 4))
}

fn protocols(engine: &Engine) -> Vec<(&'static str, bool)> {
    let mut all: Vec<_> = engine.flows().map(|flow| (flow.protocol, flow.guest.is_ipv6())).collect();
    all.sort_unstable();
    all
}

#[test]
fn flows_of_an_address_that_is_gone_are_reset_and_others_notice_nothing() {
    let mut world = raw();
    world.host.serve_otherwise(Script::manual());
    world.host.serve_udp_otherwise(UdpService::Echo);
    world.host.serve_echo_otherwise(EchoService::Reply);
    let four = RawTcp::open(&mut world, "192.0.2.1:80");
    let mut six = RawTcp::open(&mut world, "[2001:db8::1]:80");
    for (from, to) in [("10.0.2.100:5", "192.0.2.1:7"), ("[fd00::64]:5", "[2001:db8::1]:7")] {
        world.send(&Udp::packet(at(from), at(to), b"x"));
        let ping = Icmp::echo_request(at(from).ip(), 1, 1, b"x").packet(at(from).ip(), at(to).ip());
        world.send(&ping);
    }
    world.accept_tcp("192.0.2.7:5000", "10.0.2.100:80", Script::manual()).unwrap();
    world.settle();
    world.take();
    let all = protocols(&world.engine);
    assert_eq!(all.len(), 7, "{all:?}");
    readdress(&mut world, elsewhere());
    world.settle();
    assert_eq!(protocols(&world.engine), [("icmp", true), ("tcp", true), ("udp", true)]);
    let mut resets: Vec<_> =
        world.take_tcp().iter().filter(|one| one.has(flag::RST)).map(|one| one.dst).collect();
    resets.sort_unstable();
    assert_eq!(resets, [80, four.local.port()], "the guest's server, and its client");
    let reset: Vec<bool> = world.host.peers().map(|peer| peer.reset).collect();
    assert_eq!(reset, [true, false, true]);
    six.send_data(&mut world, b"still here");
    assert_eq!(world.host.peer(1).data, b"still here");
    assert_eq!(world.host.open_sockets(), 3, "nothing is left of the others");
}

#[test]
fn the_new_addresses_are_there_at_once_and_the_old_ones_gone() {
    let mut world = raw();
    world.settle();
    let said = world.guest.advertisements.len();
    readdress(&mut world, elsewhere());
    world.settle();
    assert_eq!(world.guest.advertisements.len(), said, "IPv6 is as it was");
    let guest = Ipv4Addr::new(10, 0, 3, 100);
    let ask = |world: &mut World<RawGuest>, wanted| {
        world.guest.take();
        let arp = Arp::request((GUEST_MAC, guest), wanted).emit();
        let frame = ethernet_of(MacAddr::BROADCAST, GUEST_MAC, ETHERTYPE_ARP, &arp);
        world.guest.send_frame(Offload::NONE, frame);
        world.settle();
        world.guest.take().len()
    };
    assert_eq!(ask(&mut world, Ipv4Addr::new(10, 0, 3, 2)), 1);
    assert_eq!(ask(&mut world, GATEWAY4), 0, "it is anybody's now");
    world.host.serve_otherwise(Script::manual());
    let end = RawTcp::new(SocketAddr::new(guest.into(), 4000), at("192.0.2.1:80"));
    RawTcp::open_with(&mut world, end, usual_options());
    assert_eq!(world.engine.guest_address(false), Some(guest.into()));
    // Another prefix is told to whoever listens.
    let prefix = "fd05::/64".parse().unwrap();
    readdress(&mut world, plan(|slirp| slirp.v6.as_mut().unwrap().network = prefix));
    world.settle();
    assert_eq!(world.guest.advertisements.len(), said + 1);
}

/// What led to the host, and what a client of the host's looked like, is somebody else from now on.
#[test]
fn what_led_to_a_gateway_that_has_moved_ends() {
    let mut world = raw();
    world.host.serve_otherwise(Script::manual());
    RawTcp::open(&mut world, "10.0.2.2:80");
    RawTcp::open(&mut world, "192.0.2.1:80");
    for (client, port) in [("127.0.0.1:5000", 1), ("192.0.2.7:5000", 2)] {
        world.accept_tcp(client, &format!("10.0.2.100:{port}"), Script::manual()).unwrap();
        let (ip, syn) = world.expect_tcp();
        RawTcp::accept(&mut world, &ip, &syn, usual_options());
        world.take();
    }
    readdress(&mut world, moved_gateway());
    world.settle();
    assert_eq!(world.host.peers().map(|peer| peer.reset).collect::<Vec<_>>(), [true, false, true, false]);
    // The same plan again ends nothing, nor does a name server that nobody was talking to.
    readdress(&mut world, moved_gateway());
    assert_eq!(world.engine.flow_count(), 2);
}

#[test]
fn a_guest_may_keep_its_old_address_beside_the_new_one() {
    let mut world = raw();
    world.host.serve_otherwise(Script::manual());
    let mut end = RawTcp::open(&mut world, "192.0.2.1:80");
    let mut both = elsewhere();
    both.v4.as_mut().unwrap().guests.push(GUEST4);
    readdress(&mut world, both);
    end.send_data(&mut world, b"still here");
    assert_eq!((world.host.peer(0).data.as_slice(), world.host.peer(0).reset), (&b"still here"[..], false));
    readdress(&mut world, elsewhere());
    world.settle();
    assert!(world.host.peer(0).reset);
}

/// Plans change all the time, over a link that loses, delays and reorders, while data runs both ways.
#[test]
fn under_load_ended_flows_are_reset_and_the_others_lose_no_byte() {
    const LEN: u64 = 1_500_000;
    let link = LinkConfig { delay: Duration::from_millis(2), loss: 5, reorder: 20, ..LinkConfig::default() };
    let host = HostConfig { bandwidth: Some(4_000_000), ..HostConfig::default() };
    let mut world = World::smol(WorldConfig { link, host, ..WorldConfig::default() });
    world.host.serve("192.0.2.1:1000", Script::sink(1));
    world.host.serve("[2001:db8::1]:1001", Script::source(LEN, 2));
    world.host.serve("192.0.2.1:1002", Script::echo());
    world.host.serve("127.0.0.1:1003", Script::sink(4));
    let mut tasks = vec![
        (world.guest.connect(at("192.0.2.1:1000"), Task::upload(LEN, 1)), 0),
        (world.guest.connect(at("[2001:db8::1]:1001"), Task::download(2)), LEN),
        (world.guest.connect(at("192.0.2.1:1002"), Task::round_trip(LEN, 3)), LEN),
    ];
    let to_host = world.guest.connect(at("10.0.2.2:1003"), Task::upload(100 * LEN, 4));
    tasks.push((world.guest.listen(2000, Task::download(5)), LEN));
    let of_host = world.guest.listen(2001, Task::default());
    world.accept_tcp("192.0.2.7:5000", "10.0.2.100:2000", Script::source(LEN, 5)).unwrap();
    world.accept_tcp("127.0.0.1:5000", "10.0.2.100:2001", Script::manual()).unwrap();
    let plans = [plan(|_| {}), moved_gateway(), plan(|slirp| slirp.host_loopback = false)];
    let (mut changes, mut next) = (0, world.now() + Duration::from_millis(300));
    let done = world.run_until(Duration::from_secs(600), |world| {
        if world.now() >= next {
            changes += 1;
            next = world.now() + Duration::from_millis(7);
            let plan = plans[changes % plans.len()].clone();
            readdress(world, plan);
        }
        tasks.iter().all(|(task, expected)| {
            let task = world.guest.task(*task);
            task.sent == task.send && task.received == *expected && task.finished
        })
    });
    let state: Vec<_> = tasks.iter().map(|(task, _)| world.guest.task(*task).clone()).collect();
    assert!(done && changes > 50, "{changes} changes: {state:#?}");
    assert!(state.iter().all(|task| task.mismatch.is_none()), "{state:#?}");
    for peer in world.host.peers() {
        let ended = peer.address.ip().is_loopback();
        assert_eq!((peer.mismatch, peer.reset), (None, ended), "{peer:?}");
    }
    for ended in [to_host, of_host] {
        assert!(!world.guest.tcp(ended).is_active(), "the guest was told, too");
    }
}

/// A link with one station, whose MAC address is `mac`.
fn one(mac: Option<MacAddr>) -> World<RawGuest> {
    let mut config = WorldConfig::default();
    config.engine.on_link = OnLink::One { mac };
    let mut world = World::raw(config);
    world.guest.answers = false;
    world
}

/// Containers behind the guest's own bridge answer no request on our link.
const BEHIND: &str = "10.89.0.2:80";

#[test]
fn one_station_has_every_address_and_is_asked_for_none() {
    let mut world = one(Some(GUEST_MAC));
    world.accept_tcp("192.0.2.7:5000", BEHIND, Script::manual()).unwrap();
    world.settle();
    let frame = world.expect_one();
    assert_eq!(frame.dst, GUEST_MAC);
    let Body::Tcp(ip, syn) = frame.body else { panic!("{:?}", frame.body) };
    assert_eq!((SocketAddr::new(ip.dst, syn.dst), syn.flags), (at(BEHIND), flag::SYN));
    world.accept_udp("192.0.2.7:5000", BEHIND, b"x", 1).unwrap();
    world.settle();
    assert_eq!(world.expect_one().dst, GUEST_MAC);
}

#[test]
fn one_station_is_known_from_its_first_frame() {
    let mut world = one(None);
    world.settle();
    let asked = world.expect_one();
    let Body::Arp(arp) = asked.body else { panic!("{:?}", asked.body) };
    assert_eq!(arp.target.1, GUEST4, "it is asked for once, before anybody needs it");
    world.accept_tcp("192.0.2.7:5000", BEHIND, Script::manual()).unwrap();
    world.accept_udp("192.0.2.7:5000", "10.89.0.3:80", b"x", 1).unwrap();
    world.settle();
    world.take();
    // Any frame will do, from any address to any.
    let stranger = Udp::packet(at("198.51.100.1:1"), at("10.0.2.77:1"), b"x");
    let other = MacAddr([2, 9, 9, 9, 9, 9]);
    world.guest.send_frame(Offload::NONE, ethernet(other, GUEST_MAC, &stranger.emit()));
    world.settle();
    let frames = world.take();
    assert_eq!(frames.iter().map(|frame| frame.dst).collect::<Vec<_>>(), [GUEST_MAC; 2]);
    assert!(frames.iter().any(|frame| matches!(frame.body, Body::Tcp(..))), "{frames:?}");
    assert_eq!(world.engine.counters().dropped(DropReason::NotForUs), 0);
}

/// As at the start, when a driver's first link is joined, and whenever a guest has gone.
#[test]
fn one_station_is_found_again_when_the_guest_has_gone() {
    for mac in [Some(GUEST_MAC), None] {
        let mut world = one(mac);
        world.settle();
        world.take();
        let now = world.now();
        world.engine.forget_guests(now, &mut world.host);
        if mac.is_some() {
            world.accept_tcp("192.0.2.7:5000", BEHIND, Script::manual()).unwrap();
        }
        world.settle();
        let frame = world.expect_one();
        match (mac, &frame.body) {
            (Some(mac), Body::Tcp(..)) => assert_eq!(frame.dst, mac),
            (None, Body::Arp(arp)) => assert_eq!(arp.target.1, GUEST4, "it is asked for once more"),
            (_, other) => panic!("{other:?}"),
        }
    }
}

/// Whoever starts a VM may give us its own MAC address for ours.
#[test]
fn one_station_may_have_our_address_for_its_own() {
    let mut world = one(None);
    world.host.serve_udp_otherwise(UdpService::Echo);
    world.settle();
    world.take();
    let query = Udp::packet(at("10.0.2.100:5"), at("192.0.2.1:7"), b"x");
    world.guest.send_frame(Offload::NONE, ethernet(ENGINE_MAC, ENGINE_MAC, &query.emit()));
    world.settle();
    assert_eq!(world.expect_one().dst, ENGINE_MAC);
    world.accept_tcp("192.0.2.7:5000", BEHIND, Script::manual()).unwrap();
    world.settle();
    assert_eq!(world.expect_one().dst, ENGINE_MAC);
}

#[test]
fn among_many_stations_frames_for_others_are_theirs() {
    let mut world = raw();
    world.host.serve_udp_otherwise(UdpService::Echo);
    let query = Udp::packet(at("10.0.2.100:5"), at("192.0.2.1:7"), b"x");
    let other = MacAddr([2, 9, 9, 9, 9, 9]);
    world.guest.send_frame(Offload::NONE, ethernet(other, GUEST_MAC, &query.emit()));
    world.settle();
    world.expect_nothing();
    assert_eq!(world.engine.counters().dropped(DropReason::NotForUs), 1);
}
