//! The host's ports, identifiers and time: what one guest takes of them, and what is left for others.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use slipway_netstack::config::PortConfig;
use slipway_netstack::upstream::Errno;
use testkit::packet::{Body, Frame, Icmp, Tcp, Udp, flag};
use testkit::raw_guest::{RawGuest, RawTcp, usual_options};
use testkit::upstream::HostConfig;
use testkit::upstream::datagram::{EchoService, UdpService};
use testkit::upstream::tcp::{Script, Service};
use testkit::world::{World, WorldConfig};

const SERVER: &str = "192.0.2.7:80";

/// A host with 400 ephemeral ports.
fn world(host: HostConfig) -> World<RawGuest> {
    let mut config = WorldConfig { host, ..WorldConfig::default() };
    config.engine.ports = PortConfig { ephemeral: 400, echo: 50 };
    World::raw(config)
}

fn guest(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 2, last], port))
}

fn server() -> SocketAddr {
    SERVER.parse().unwrap()
}

/// A SYN, and what comes back.
fn syn(world: &mut World<RawGuest>, from: SocketAddr, to: SocketAddr) -> Vec<Frame> {
    let conn = RawTcp::new(from, to);
    conn.send(world, &conn.syn(usual_options()));
    world.run_for(Duration::from_millis(1));
    let to_us = |frame: &Frame| !matches!(&frame.body, Body::Tcp(_, tcp) if tcp.dst != from.port());
    world.take().into_iter().filter(to_us).collect()
}

fn opens(frames: &[Frame]) -> bool {
    matches!(frames, [Frame { body: Body::Tcp(_, tcp), .. }] if tcp.has(flag::SYN | flag::ACK))
}

#[test]
fn udp_flows_take_a_quarter_of_the_ports_and_the_unanswered_make_room() {
    let mut world = world(HostConfig::default());
    world.host.serve_udp("192.0.2.9:53", UdpService::Echo);
    let talk = |world: &mut World<RawGuest>, port: u16, to: &str| {
        world.send(&Udp::packet(guest(101, port), to.parse().unwrap(), b"x"));
        world.run_for(Duration::from_millis(1));
        world.take().iter().any(|frame| matches!(&frame.body, Body::Udp(_, udp) if udp.dst == port))
    };
    assert!(talk(&mut world, 4000, "192.0.2.9:53"));
    let early = world.host.opened()[0].flow;
    for port in 10_000..11_000 {
        world.send(&Udp::packet(guest(100, port), server(), b"x"));
        assert!(world.host.open_sockets() <= 100, "{port}");
    }
    assert_eq!(world.host.open_sockets(), 100);
    assert!(world.host.flows().any(|flow| flow == early), "it was answered, and those are not");
    // Neighbours find room, and each keeps its place for as long as the flood needs for all the others.
    assert!(talk(&mut world, 4001, "192.0.2.9:53"));
    for port in 11_000..11_098 {
        world.send(&Udp::packet(guest(100, port), server(), b"x"));
    }
    world.host.take_datagrams();
    assert!(talk(&mut world, 4000, "192.0.2.9:53") && talk(&mut world, 4001, "192.0.2.9:53"));
    // With nothing but answered ones it is the one that has been silent longest.
    for port in 5000..5098 {
        assert!(talk(&mut world, port, "192.0.2.9:53"));
    }
    assert!(talk(&mut world, 4000, "192.0.2.9:53") && talk(&mut world, 6000, "192.0.2.9:53"));
    let kept: Vec<_> = world.engine.flows().map(|flow| flow.guest.port()).collect();
    assert!(kept.contains(&4000) && kept.contains(&6000) && !kept.contains(&4001), "{kept:?}");
    assert_eq!(kept.len(), 100);
}

#[test]
fn echo_flows_take_a_part_of_the_identifiers() {
    let mut world = world(HostConfig::default());
    world.host.serve_echo("192.0.2.9", EchoService::Reply);
    let ping = |world: &mut World<RawGuest>, last: u8, ident: u16, to: &str| {
        let to: IpAddr = to.parse().unwrap();
        let own = guest(last, 0).ip();
        let (IpAddr::V4(own4), IpAddr::V4(_)) = (own, to) else { panic!("IPv4") };
        world.send(&Icmp::echo_request(own4.into(), ident, 1, b"x").packet(own, to));
        world.run_for(Duration::from_millis(1));
        world.take().iter().any(|frame| matches!(&frame.body, Body::Icmp(_, icmp) if icmp.kind == 0))
    };
    for ident in 0..500 {
        ping(&mut world, 100, ident, "192.0.2.7");
        assert!(world.host.open_sockets() <= 50, "{ident}");
    }
    assert!(ping(&mut world, 101, 1, "192.0.2.9"));
}

#[test]
fn connections_to_one_destination_take_three_quarters_and_leave_room_for_others() {
    let mut world = world(HostConfig::default());
    world.host.serve_otherwise(Script::manual());
    let mut opened = 0;
    for port in 10_000..10_500 {
        let frames = syn(&mut world, guest(100, port), server());
        // Beyond the bound the SYN might as well have been lost: nothing says otherwise.
        assert!(opens(&frames) || frames.is_empty(), "{frames:?}");
        opened += usize::from(!frames.is_empty());
    }
    assert!((240..300).contains(&opened), "{opened} of 300");
    assert!(opens(&syn(&mut world, guest(101, 10_000), server())), "a neighbour gets there");
    assert!(opens(&syn(&mut world, guest(100, 20_000), "192.0.2.7:81".parse().unwrap())), "and he elsewhere");
    // Connections that come from the host's side have no port of ours.
    for port in 0..10 {
        world.accept_tcp(&format!("192.0.2.7:{}", 100 + port), "10.0.2.100:80", Script::manual()).unwrap();
    }
    // What never opened makes room after a while for who comes back.
    world.run_for(Duration::from_secs(3));
    world.take();
    assert!(syn(&mut world, guest(100, 30_000), server()).is_empty());
    world.run_for(Duration::from_millis(10));
    world.take();
    assert!(opens(&syn(&mut world, guest(100, 30_000), server())));
}

#[test]
fn a_destination_for_which_the_host_has_no_port_is_left_alone_for_a_second() {
    let mut world = world(HostConfig::default());
    world.host.serve(SERVER, Service::FailAtOnce(Errno::NoPort));
    world.host.serve_otherwise(Script::manual());
    for port in 10_000..10_050 {
        let frames = syn(&mut world, guest(100, port), server());
        assert!(frames.is_empty(), "nobody has refused anything: {frames:?}");
    }
    let tries = |world: &World<RawGuest>| world.host.opened().iter().filter(|o| o.to == server()).count();
    assert_eq!(tries(&world), 1, "the search is long, and has its answer");
    assert_eq!(world.engine.flow_count(), 0);
    assert!(opens(&syn(&mut world, guest(100, 10_000), "192.0.2.8:80".parse().unwrap())));
    world.run_for(Duration::from_secs(1));
    world.host.serve(SERVER, Script::manual());
    world.take();
    assert!(opens(&syn(&mut world, guest(100, 10_000), server())), "its SYN comes again, and is heard");
}

#[test]
fn connections_wait_for_the_hosts_time_and_guests_take_turns() {
    let mut world = world(HostConfig { connects: Some(1), ..HostConfig::default() });
    world.host.serve_otherwise(Script::manual());
    let from = |world: &mut World<RawGuest>, own: SocketAddr| {
        let conn = RawTcp::new(own, SocketAddr::new("192.0.2.7".parse().unwrap(), own.port()));
        world.guest.send(&conn.syn(usual_options()).packet(conn.local, conn.remote));
    };
    for port in 10_000..10_100 {
        from(&mut world, guest(100, port));
    }
    from(&mut world, guest(101, 20_000));
    // One of those that wait gives up; it has no socket yet.
    world.turn();
    let gone = RawTcp::new(guest(100, 10_050), "192.0.2.7:10050".parse().unwrap());
    let reset = Tcp { seq: gone.seq.wrapping_add(1), ..Tcp::default() }.with(flag::RST);
    world.guest.send(&reset.packet(gone.local, gone.remote));
    world.run_for(Duration::from_millis(50));
    let order: Vec<u16> = world.host.opened().iter().map(|opened| opened.to.port()).collect();
    let place = order.iter().position(|port| *port == 20_000).expect("it is connected");
    assert!(place <= 4, "behind {place} others");
    assert_eq!((order.len(), order.contains(&10_050)), (100, false), "and nobody else is forgotten");
}

#[test]
fn nothing_is_left_of_a_guest_that_has_gone() {
    let mut world = world(HostConfig { connects: Some(1), ..HostConfig::default() });
    world.host.serve_otherwise(Script::manual());
    world.host.serve_udp_otherwise(UdpService::Echo);
    let dial = |world: &mut World<RawGuest>, ports: core::ops::Range<u16>| {
        for port in ports {
            let conn = RawTcp::new(guest(100, port), server());
            world.guest.send(&conn.syn(usual_options()).packet(conn.local, conn.remote));
        }
    };
    dial(&mut world, 10_000..10_010);
    world.run_for(Duration::from_millis(10));
    dial(&mut world, 11_000..11_010);
    world.guest.send(&Udp::packet(guest(100, 4000), server(), b"x"));
    world.accept_tcp("192.0.2.7:5000", "10.0.2.100:80", Script::manual()).unwrap();
    for _ in 0..4 {
        world.turn();
    }
    assert!(world.engine.flow_count() > world.host.open_sockets(), "some wait to be connected");
    let now = world.now();
    world.engine.forget_guests(now, &mut world.host);
    assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0));
    world.run_for(Duration::from_millis(10));
    let told = world.host.peers().filter(|peer| peer.reset).count();
    assert!(told >= 11, "their peers hear of it at once: {told}");
    // The next one is asked where he is, and is served.
    world.guest.answers = false;
    world.take();
    world.accept_tcp("192.0.2.7:5001", "10.0.2.100:80", Script::manual()).unwrap();
    let frames = world.take();
    assert!(matches!(&frames[..], [Frame { body: Body::Arp(arp), .. }] if arp.operation == 1), "{frames:?}");
}
