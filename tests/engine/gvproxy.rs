//! The network of gvproxy: several machines, a gateway with services, the host behind an alias, and bounds that harm
//! nobody else.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use slipway_netstack::Config;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::{TcpConfig, UdpConfig};
use slipway_netstack::device::Offload;
use slipway_netstack::drop_reason::DropReason;
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::gvproxy::{Gvproxy, HTTP, Ipv6};
use slipway_netstack::upstream::Errno;
use testkit::packet::{Body, Frame, Icmp, Tcp, Udp, ethernet, flag};
use testkit::raw_guest::{RawGuest, RawTcp, usual_options};
use testkit::upstream::datagram::{EchoService, UdpService};
use testkit::upstream::tcp::{Script, Service};
use testkit::upstream::within;
use testkit::world::{ENGINE_MAC, GUEST_MAC, World, WorldConfig, engine_config};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 254);
/// Where nobody answers.
const HOLE: &str = "203.0.113.1:80";

fn network() -> Gvproxy {
    Gvproxy {
        subnet: "192.168.127.0/24".parse().unwrap(),
        gateway: GATEWAY,
        aliases: vec![HOST],
        nat: vec![(HOST, Ipv4Addr::LOCALHOST)],
        reserved: vec![(Ipv4Addr::new(192, 168, 127, 2), GUEST_MAC)],
        link_local: false,
        preserve_source: false,
        v6: None,
    }
}

fn world_of(of: &Gvproxy) -> World<RawGuest> {
    let tcp = TcpConfig {
        connect_timeout: Some(Duration::from_secs(30)),
        max_in_flight: Some(128),
        ..TcpConfig::default()
    };
    let udp = UdpConfig {
        timeout: Duration::from_secs(90),
        stream_timeout: Duration::from_secs(90),
        contacted_only: true,
    };
    let engine = Config { plan: Plan::gvproxy(of), tcp, udp, ..engine_config() };
    let mut world = World::raw(WorldConfig { engine, ..WorldConfig::default() });
    world.guest.addresses.extend([2, 3].map(|last| IpAddr::from([192, 168, 127, last])));
    world.host.serve(HOLE, Service::Silent(Duration::from_secs(130)));
    world
}

fn world() -> World<RawGuest> {
    world_of(&network())
}

fn guest(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 168, 127, last], port))
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Sends a SYN.
fn syn(world: &mut World<RawGuest>, from: SocketAddr, to: &str) -> RawTcp {
    let conn = RawTcp::new(from, at(to));
    conn.send(world, &conn.syn(usual_options()));
    conn
}

/// What segments `from` has got; others' are passed over.
fn answers(world: &mut World<RawGuest>, from: SocketAddr) -> Vec<Tcp> {
    let of = |frame: Frame| match frame.body {
        Body::Tcp(_, tcp) if tcp.dst == from.port() => Some(tcp),
        _ => None,
    };
    world.take().into_iter().filter_map(of).collect()
}

fn opens(world: &mut World<RawGuest>, from: SocketAddr, to: &str) -> bool {
    let _ = syn(world, from, to);
    world.run_for(Duration::from_millis(1));
    answers(world, from).iter().any(|segment| segment.has(flag::SYN | flag::ACK))
}

fn is_refused(world: &mut World<RawGuest>, from: SocketAddr, to: &str) -> bool {
    let _ = syn(world, from, to);
    answers(world, from).iter().any(|segment| segment.has(flag::RST))
}

fn ping(world: &mut World<RawGuest>, to: &str) -> Vec<(IpAddr, Icmp)> {
    let request = Icmp { kind: 8, code: 0, word: 0x0007_0001, body: b"data".to_vec() };
    world.send(&request.packet(guest(2, 0).ip(), to.parse().unwrap()));
    world.run_for(Duration::from_secs(6));
    let of = |frame: Frame| match frame.body {
        Body::Icmp(ip, icmp) => Some((ip.src, icmp)),
        _ => None,
    };
    world.take().into_iter().filter_map(of).collect()
}

#[test]
fn the_gateway_has_its_services_and_refuses_the_rest() {
    let mut world = world();
    world.host.serve_otherwise(Script::echo());
    assert!(opens(&mut world, guest(2, 1000), "192.168.127.1:80"));
    assert!(opens(&mut world, guest(2, 1001), "192.168.127.1:53"));
    let opened: Vec<_> = world.host.opened().iter().map(|opened| opened.to).collect();
    assert_eq!(opened, [within(HTTP), testkit::upstream::RESOLVER]);
    for port in [1, 22, 67, 81, 1234, 65_535] {
        assert!(
            is_refused(&mut world, guest(2, 2000 + port % 100), &format!("192.168.127.1:{port}")),
            "{port}"
        );
    }
    for port in [80, 1234] {
        world.send(&Udp::packet(guest(2, 3000), SocketAddr::new(GATEWAY.into(), port), b"x"));
        let (ip, icmp) = world.expect_icmp();
        assert_eq!((ip.src, icmp.kind, icmp.code), (IpAddr::from(GATEWAY), 3, 3), "{port}");
    }
    assert_eq!(world.host.opened().len(), 2, "nothing was dialled");
}

#[test]
fn a_connection_to_a_service_carries_both_ways_and_closes() {
    let mut world = world();
    world.host.serve(&within(HTTP).to_string(), Script::echo());
    let own = guest(2, 40_000);
    let mut conn = syn(&mut world, own, "192.168.127.1:80");
    let first = answers(&mut world, own).remove(0);
    (conn.seq, conn.ack) = (conn.seq.wrapping_add(1), first.seq.wrapping_add(1));
    conn.send_data(&mut world, b"POST /services/forwarder/expose");
    conn.send_fin(&mut world);
    let got = answers(&mut world, own);
    let data: Vec<u8> = got.iter().flat_map(|segment| segment.payload.clone()).collect();
    assert_eq!(data, b"POST /services/forwarder/expose");
    assert!(got.iter().any(|segment| segment.has(flag::FIN)));
}

#[test]
fn connections_to_a_service_have_places_and_others_get_theirs() {
    let mut world = world();
    world.host.serve_otherwise(Script::manual());
    assert!(opens(&mut world, guest(3, 900), "192.168.127.1:80"));
    for port in 0..300 {
        assert!(opens(&mut world, guest(2, 10_000 + port), "192.168.127.1:80"));
        assert!(world.engine.flow_count() <= 64, "{port}");
    }
    assert!(opens(&mut world, guest(3, 901), "192.168.127.1:80"));
    let kept = world.engine.flows().filter(|flow| flow.guest.ip() == guest(3, 0).ip()).count();
    assert_eq!(kept, 2, "a neighbour keeps what it had");
    // Names have places of their own.
    assert!(opens(&mut world, guest(2, 902), "192.168.127.1:53"));
    assert_eq!(world.engine.flow_count(), 19, "sixteen while others have some");
}

#[test]
fn the_hosts_alias_is_the_loopback_and_answers_come_from_it() {
    let mut world = world();
    world.host.serve("127.0.0.1:8080", Script::echo());
    world.host.serve_udp("127.0.0.1:53", UdpService::Echo);
    world.host.serve_udp("192.0.2.1:53", UdpService::Echo);
    world.host.serve_udp("127.0.0.1:9", UdpService::Refuse);
    assert!(opens(&mut world, guest(2, 1000), "192.168.127.254:8080"));
    assert!(is_refused(&mut world, guest(2, 1001), "192.168.127.254:8081"), "nobody listens there");
    for (to, kept) in [("192.168.127.254:53", "192.168.127.254"), ("192.0.2.1:53", "192.0.2.1")] {
        world.send(&Udp::packet(guest(2, 1002), at(to), b"x"));
        assert_eq!(world.expect_udp().0.src, kept.parse::<IpAddr>().unwrap());
    }
    // An error looks as if it came from there as well.
    world.send(&Udp::packet(guest(2, 1003), at("192.168.127.254:9"), b"x"));
    let (ip, icmp) = world.expect_icmp();
    assert_eq!((ip.src, icmp.kind, icmp.code), (IpAddr::from(HOST), 3, 3));
    assert_eq!(icmp.body[16..20], HOST.octets(), "it quotes what was sent");
}

/// What was asked last is known exactly; of two addresses that lead to one place the other's answer looks like the
/// first.
#[test]
fn two_addresses_that_lead_to_one_place_answer_as_they_were_asked() {
    let also = Ipv4Addr::new(192, 168, 127, 253);
    let nat = vec![(HOST, Ipv4Addr::LOCALHOST), (also, Ipv4Addr::LOCALHOST)];
    let mut world = world_of(&Gvproxy { nat, aliases: vec![HOST, also], ..network() });
    world.host.serve_udp("127.0.0.1:53", UdpService::Echo);
    for to in [also, HOST, also] {
        world.send(&Udp::packet(guest(2, 1002), SocketAddr::new(to.into(), 53), b"x"));
        assert_eq!(world.expect_udp().0.src, IpAddr::from(to));
    }
}

#[test]
fn blocked_addresses_refuse_connections_and_swallow_the_rest() {
    let mut world = world();
    world.host.serve_otherwise(Script::echo());
    world.host.serve_udp_otherwise(UdpService::Echo);
    world.host.serve_echo_otherwise(EchoService::Reply);
    assert!(is_refused(&mut world, guest(2, 1000), "169.254.169.254:80"));
    for to in
        ["169.254.169.254:53", "127.0.0.1:53", "255.255.255.255:9", "192.168.127.255:137", "224.0.0.251:5353"]
    {
        world.send(&Udp::packet(guest(2, 1001), at(to), b"x"));
        world.expect_nothing();
    }
    assert!(ping(&mut world, "169.254.169.254").is_empty() && ping(&mut world, "127.0.0.1").is_empty());
    let _ = syn(&mut world, guest(2, 1002), "127.0.0.1:80");
    world.expect_nothing();
    assert!(world.host.opened().is_empty(), "nothing left the host");
    let mut world = world_of(&Gvproxy { link_local: true, ..network() });
    world.host.serve_otherwise(Script::echo());
    assert!(opens(&mut world, guest(2, 1000), "169.254.169.254:80"));
}

#[test]
fn pings_are_real_and_answered_once() {
    let nat = vec![
        (HOST, Ipv4Addr::LOCALHOST),
        (Ipv4Addr::new(192, 168, 127, 253), Ipv4Addr::new(198, 51, 100, 7)),
    ];
    let mut world = world_of(&Gvproxy { nat, ..network() });
    for answering in ["192.0.2.1", "198.51.100.7"] {
        world.host.serve_echo(answering, EchoService::Reply);
    }
    for to in ["192.168.127.1", "192.168.127.254", "192.168.127.253", "192.0.2.1"] {
        let replies = ping(&mut world, to);
        assert_eq!(replies.len(), 1, "{to}");
        assert_eq!((replies[0].0, replies[0].1.kind), (to.parse().unwrap(), 0), "{to}");
    }
    assert!(ping(&mut world, "192.0.2.99").is_empty(), "nobody is there");
    // A machine that is not there does not answer by our mouth.
    assert!(ping(&mut world, "192.168.127.77").is_empty());
}

#[test]
fn clients_look_like_the_gateway_and_are_told_apart() {
    let mut world = world();
    let mut seen = Vec::new();
    for from in ["192.0.2.7:5000", "192.0.2.8:5000", "127.0.0.1:5000", "192.168.127.9:5000"] {
        world.accept_tcp(from, "192.168.127.2:22", Script::manual()).unwrap();
        let (ip, tcp) = world.expect_tcp();
        assert_eq!((ip.src, tcp.flags), (IpAddr::from(GATEWAY), flag::SYN));
        seen.push(tcp.src);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 4, "four connections");
    for (from, payload) in [("192.0.2.7:5000", b"one"), ("192.0.2.8:5000", b"two")] {
        world.accept_udp(from, "192.168.127.2:53", payload, 3).unwrap();
        let (ip, udp) = world.expect_udp();
        assert_eq!((ip.src, udp.payload.as_slice()), (IpAddr::from(GATEWAY), &payload[..]));
        world.send(&Udp::packet(guest(2, 53), SocketAddr::new(GATEWAY.into(), udp.src), payload));
    }
    let sent = world.host.take_datagrams();
    let got: Vec<_> = sent.iter().map(|datagram| (datagram.to, datagram.payload.as_slice())).collect();
    assert_eq!(got, [(at("192.0.2.7:5000"), &b"one"[..]), (at("192.0.2.8:5000"), &b"two"[..])]);
}

#[test]
fn real_clients_are_seen_where_that_is_wanted() {
    let mut world = world_of(&Gvproxy { preserve_source: true, ..network() });
    for (from, seen) in [
        ("192.0.2.7:5000", "192.0.2.7"),
        ("192.0.2.8:5000", "192.0.2.8"),
        ("127.0.0.1:5001", "192.168.127.1"),
        ("192.168.127.3:5002", "192.168.127.1"),
    ] {
        world.accept_tcp(from, "192.168.127.2:22", Script::manual()).unwrap();
        let (ip, tcp) = world.expect_tcp();
        assert_eq!((ip.src, tcp.src), (seen.parse().unwrap(), at(from).port()), "{from}");
        world.accept_udp(from, "192.168.127.2:53", b"x", 1).unwrap();
        assert_eq!(world.expect_udp().0.src, seen.parse::<IpAddr>().unwrap(), "{from}");
    }
}

#[test]
fn nobody_is_led_out_of_the_network() {
    let mut world = world();
    for to in ["10.0.0.1:80", "192.0.2.1:80", "192.168.127.1:80", "192.168.127.254:80", "127.0.0.1:80"] {
        let refused = world.accept_tcp("192.0.2.7:5000", to, Script::manual());
        assert_eq!(refused, Err(DropReason::Forbidden), "{to}");
        assert_eq!(world.accept_udp("192.0.2.7:5000", to, b"x", 1), Err(DropReason::Forbidden), "{to}");
    }
    world.expect_nothing();
}

#[test]
fn black_holes_stall_nobody() {
    let mut world = world();
    world.host.serve("192.0.2.1:80", Script::echo());
    for port in 0..500 {
        let _ = syn(&mut world, guest(2, 10_000 + port), HOLE);
        assert!(world.host.open_sockets() <= 128, "{port}");
    }
    assert_eq!(world.host.open_sockets(), 112, "and some are left for others");
    assert!(opens(&mut world, guest(3, 900), "192.0.2.1:80"), "another machine is served at once");
    // The very same machine, within a second.
    let own = guest(2, 901);
    let _ = syn(&mut world, own, "192.0.2.1:80");
    let served = world.run_until(Duration::from_secs(1), |world| {
        world.engine.flows().any(|flow| flow.guest == own && flow.state != "connecting")
    });
    assert!(served, "what takes long has made room");
    let refused =
        world.take().iter().any(|frame| matches!(&frame.body, Body::Tcp(_, tcp) if tcp.has(flag::RST)));
    assert!(!refused, "nobody was refused for it");
    world.run_for(Duration::from_secs(60));
    assert!(world.stats().wakeups < 2000, "{} wake-ups", world.stats().wakeups);
}

#[test]
fn a_connection_that_takes_too_long_is_given_up() {
    let mut world = world();
    let own = guest(2, 1000);
    let _ = syn(&mut world, own, HOLE);
    world.run_for(Duration::from_millis(29_900));
    world.expect_nothing();
    let again = RawTcp::new(own, at(HOLE));
    again.send(&mut world, &again.syn(usual_options()));
    world.run_for(Duration::from_millis(200));
    let (ip, icmp) = world.expect_icmp();
    assert_eq!((ip.src, icmp.kind, icmp.code), (IpAddr::from(GATEWAY), 3, 1));
    assert_eq!((world.host.open_sockets(), world.engine.flow_count()), (0, 0));
}

#[test]
fn datagrams_are_remembered_for_90_seconds() {
    let mut world = world();
    world.host.serve_udp_otherwise(UdpService::Lose);
    world.send(&Udp::packet(guest(2, 1000), at("192.0.2.1:53"), b"x"));
    world.run_for(Duration::from_secs(89));
    assert_eq!(world.engine.flow_count(), 1);
    world.run_for(Duration::from_secs(2));
    assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0));
}

/// The host's network is away for minutes, or the process was stopped: what was being connected is forgotten for
/// whoever comes next.
#[test]
fn after_an_outage_the_first_new_connection_is_made_at_once() {
    for stopped in [false, true] {
        let mut world = world();
        world.host.serve_otherwise(Service::Silent(Duration::from_secs(600)));
        let minutes = if stopped { 1 } else { 120 };
        for round in 0..minutes {
            for port in 0..200 {
                let _ = syn(&mut world, guest(2, 10_000 + port), "192.0.2.1:80");
            }
            world.run_for(Duration::from_secs(if stopped { 300 } else { 2 }));
            world.take();
            assert!(world.host.open_sockets() <= 128, "{round}");
        }
        world.host.serve_otherwise(Script::echo());
        let before = world.now();
        let own = guest(2, 900);
        let _ = syn(&mut world, own, "192.0.2.1:443");
        let served = world.run_until(Duration::from_secs(5), |world| {
            world.engine.flows().any(|flow| flow.guest == own && flow.state == "syn-received")
        });
        assert!(served && world.now() - before <= Duration::from_secs(1), "{:?}", world.now() - before);
    }
}

#[test]
fn ipv6_has_the_same_services() {
    let v6 = Ipv6::of(ENGINE_MAC);
    let mut world = world_of(&Gvproxy { v6: Some(v6), ..network() });
    let own = Ipv6Addr::from_bits(v6.network.network().to_bits() | 2);
    world.guest.addresses.push(own.into());
    world.host.serve_otherwise(Script::echo());
    world.host.serve_udp("[::1]:53", UdpService::Echo);
    world.run_for(Duration::from_millis(10));
    assert!(!world.guest.advertisements.is_empty(), "machines learn of it");
    let (gateway, host, from) = (v6.gateway, v6.host, |port| SocketAddr::new(own.into(), port));
    assert!(opens(&mut world, from(1000), &format!("[{gateway}]:80")));
    assert!(is_refused(&mut world, from(1001), &format!("[{gateway}]:81")));
    assert!(opens(&mut world, from(1002), &format!("[{host}]:8080")));
    assert!(is_refused(&mut world, from(1003), "[fd00:ec2::254]:80"));
    let opened: Vec<_> = world.host.opened().iter().map(|opened| opened.to).collect();
    assert_eq!(opened, [within(HTTP), at("[::1]:8080")]);
    world.send(&Udp::packet(from(1004), SocketAddr::new(host.into(), 53), b"x"));
    assert_eq!(world.expect_udp().0.src, IpAddr::from(host));
    world.accept_tcp("[2001:db8::7]:5000", &format!("[{own}]:22"), Script::manual()).unwrap();
    let (ip, tcp) = world.expect_tcp();
    assert_eq!((ip.src, ip.dst, tcp.flags), (gateway.into(), own.into(), flag::SYN));
}

/// A refusal is a refusal, whatever else waits.
#[test]
fn what_fails_makes_room_at_once() {
    let mut world = world();
    world.host.serve_otherwise(Service::Fail(Errno::Refused));
    for port in 0..2000 {
        assert!(is_refused(&mut world, guest(2, 10_000 + port), "192.0.2.1:80"), "{port}");
    }
    assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0));
}

/// Sends DHCPv6 from a station; the options of the answer, if there is one.
fn ask6(world: &mut World<RawGuest>, mac: MacAddr, message: &[u8]) -> Option<Vec<u8>> {
    let to: SocketAddr = "[ff02::1:2]:547".parse().unwrap();
    let packet = Udp::packet(SocketAddr::new(mac.link_local().into(), 546), to, message);
    let frame = ethernet(MacAddr::for_multicast(to.ip()), mac, &packet.emit());
    world.guest.addresses.push(mac.link_local().into());
    world.guest.send_frame(Offload::NONE, frame);
    world.run_for(Duration::from_millis(1));
    let of = |frame: Frame| match frame.body {
        Body::Udp(_, udp) if udp.dst == 546 => Some(udp.payload[4..].to_vec()),
        _ => None,
    };
    world.take().into_iter().find_map(of)
}

#[test]
fn stations_lease_addresses_of_ipv6_and_are_reached_there() {
    const DUID: [u8; 10] = [0, 3, 0, 1, 9, 9, 9, 9, 9, 9];
    let option = |code: u16, data: &[u8]| {
        let len = u16::try_from(data.len()).unwrap();
        [&code.to_be_bytes()[..], &len.to_be_bytes(), data].concat()
    };
    let solicit = [vec![1, 0, 0, 1], option(1, &DUID), option(14, &[]), option(3, &[0; 12])].concat();
    // Without IPv6 nobody hears it.
    assert_eq!(ask6(&mut world(), GUEST_MAC, &solicit), None);
    let mut world = world_of(&Gvproxy { v6: Some(Ipv6::of(ENGINE_MAC)), ..network() });
    let network = Ipv6::of(ENGINE_MAC).network;
    let other = MacAddr([2, 9, 9, 9, 9, 9]);
    let mut leased = |mac| {
        let options = ask6(&mut world, mac, &solicit).expect("an answer");
        let at = options.windows(4).position(|head| head == [0, 5, 0, 24]).expect("an address");
        Ipv6Addr::from(*options[at + 4..].first_chunk().unwrap())
    };
    let addresses = [GUEST_MAC, other, GUEST_MAC].map(&mut leased);
    assert!(addresses.iter().all(|addr| network.contains(addr)), "{addresses:?}");
    assert!(addresses[0] != addresses[1] && addresses[0] == addresses[2], "{addresses:?}");
    let leases = world.engine.leases(world.now());
    assert!(leases.contains(&(addresses[1].into(), other)), "{leases:?}");
    // A lease is an address of the network: forwards lead there.
    assert!(world.engine.config().plan.is_on_link(addresses[1].into()));
}
