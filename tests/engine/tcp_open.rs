//! Opening connections from the guest: handshake, options, refusals.

use crate::raw;
use core::time::Duration;
use slipway_netstack::upstream::Errno;
use testkit::packet::{Body, Options, Tcp, flag};
use testkit::raw_guest::{RawTcp, usual_options};
use testkit::upstream::HostConfig;
use testkit::upstream::tcp::{Script, Service};
use testkit::world::{World, WorldConfig};

#[test]
fn the_syn_is_answered_when_the_host_has_connected_and_not_before() {
    let mut config = WorldConfig::default();
    config.host = HostConfig { delay: Duration::from_millis(40), ..config.host };
    let mut world = World::raw(config);
    world.host.serve_otherwise(Script::echo());
    let end = RawTcp::to("192.0.2.1:80");
    end.send(&mut world, &end.syn(usual_options()));
    world.run_for(Duration::from_millis(79));
    world.expect_nothing();
    world.run_for(Duration::from_millis(2));
    let (ip, answer) = world.expect_tcp();
    assert_eq!((ip.src, answer.src), (end.remote.ip(), 80));
    assert!(answer.has(flag::SYN | flag::ACK));
    assert_eq!(answer.ack, end.seq.wrapping_add(1));
}

#[test]
fn options_are_answered_as_offered() {
    let full = Options { timestamps: Some((77, 0)), ..usual_options() };
    for (offer, mtu) in [(full, 1460), (Options::default(), 1460), (usual_options(), 1460)] {
        let mut world = raw();
        world.host.serve_otherwise(Script::echo());
        let end = RawTcp::to("192.0.2.1:80");
        let syn = Tcp { options: offer.clone(), ..end.syn(Options::default()) };
        end.send(&mut world, &syn);
        let (_, answer) = world.expect_tcp();
        let options = answer.options;
        assert_eq!(options.mss, Some(mtu));
        assert_eq!(options.scale.is_some(), offer.scale.is_some());
        assert_eq!(options.sack_permitted, offer.sack_permitted);
        assert_eq!(options.timestamps.map(|(_, echo)| echo), offer.timestamps.map(|(value, _)| value));
        assert!(answer.window > 0, "never scaled in a SYN");
    }
}

#[test]
fn mss_follows_the_mtu() {
    for (mtu, v4, v6) in [(1500, 1460, 1440), (65_520, 65_480, 65_460), (1280, 1240, 1220)] {
        let mut config = WorldConfig::default();
        config.engine.mtu = slipway_netstack::config::Mtu::new(mtu).unwrap();
        let mut world = World::raw(config);
        world.host.serve_otherwise(Script::echo());
        assert_eq!(RawTcp::open(&mut world, "192.0.2.1:80").theirs.mss, Some(v4));
        assert_eq!(RawTcp::open(&mut world, "[2001:db8::1]:80").theirs.mss, Some(v6));
    }
}

#[test]
fn a_refusal_is_a_reset() {
    let mut world = raw();
    let end = RawTcp::to("192.0.2.1:80");
    end.send(&mut world, &end.syn(usual_options()));
    let (_, answer) = world.expect_tcp();
    assert!(answer.has(flag::RST | flag::ACK));
    assert_eq!((answer.ack, answer.seq), (end.seq.wrapping_add(1), 0), "RFC 9293 §3.10.7.1");
    assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0));
}

#[test]
fn other_failures_are_the_icmp_errors_that_they_stand_for() {
    let cases = [
        (Errno::HostUnreachable, (3, 1), (1, 3)),
        (Errno::NetUnreachable, (3, 0), (1, 0)),
        (Errno::Prohibited, (3, 13), (1, 1)),
    ];
    for (errno, v4, v6) in cases {
        for service in [Service::Fail(errno), Service::FailAtOnce(errno)] {
            for (to, expected) in [("192.0.2.1:80", v4), ("[2001:db8::1]:80", v6)] {
                let mut world = raw();
                world.host.serve_otherwise(service.clone());
                let end = RawTcp::to(to);
                end.send(&mut world, &end.syn(usual_options()));
                let (_, error) = world.expect_icmp();
                assert_eq!((error.kind, error.code), expected, "{errno:?}");
                let quoted = error.quoted();
                assert_eq!((quoted.src, quoted.dst), (end.local.ip(), end.remote.ip()));
                assert_eq!(quoted.transport[..4], [0x9c, 0x40, 0, 80], "the ports");
                assert_eq!(quoted.transport[4..8], end.seq.to_be_bytes(), "the kernel checks the number");
                assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0));
            }
        }
    }
}

#[test]
fn a_repeated_syn_is_one_connection() {
    let mut config = WorldConfig::default();
    config.host = HostConfig { delay: Duration::from_secs(1), ..config.host };
    let mut world = World::raw(config);
    world.host.serve_otherwise(Script::echo());
    let end = RawTcp::to("192.0.2.1:80");
    for _ in 0..3 {
        end.send(&mut world, &end.syn(usual_options()));
        world.run_for(Duration::from_millis(500));
    }
    world.run_for(Duration::from_millis(600));
    assert_eq!(world.host.opened().len(), 1);
    assert_eq!(world.take_tcp().len(), 1, "one SYN-ACK");
}

#[test]
fn a_lost_syn_ack_is_repeated() {
    let mut world = raw();
    world.host.serve_otherwise(Script::echo());
    world.down.lose(0);
    let end = RawTcp::to("192.0.2.1:80");
    end.send(&mut world, &end.syn(usual_options()));
    world.expect_nothing();
    world.run_for(Duration::from_millis(1100));
    assert!(world.expect_tcp().1.has(flag::SYN | flag::ACK), "by its own timer");
    end.send(&mut world, &end.syn(usual_options()));
    assert!(world.expect_tcp().1.has(flag::SYN | flag::ACK), "and when the guest asks again");
}

#[test]
fn a_guest_that_gives_up_takes_the_host_connection_with_it() {
    let mut config = WorldConfig::default();
    config.host = HostConfig { delay: Duration::from_secs(1), ..config.host };
    let mut world = World::raw(config);
    world.host.serve_otherwise(Script::echo());
    let end = RawTcp::to("192.0.2.1:80");
    end.send(&mut world, &end.syn(usual_options()));
    let reset = Tcp { seq: end.seq.wrapping_add(1), flags: flag::RST, ..Tcp::default() };
    end.send(&mut world, &reset);
    assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0));
}

#[test]
fn a_guest_that_never_completes_the_handshake_is_forgotten() {
    let mut world = raw();
    world.host.serve_otherwise(Script::manual());
    let end = RawTcp::to("192.0.2.1:80");
    end.send(&mut world, &end.syn(usual_options()));
    world.run_for(Duration::from_secs(3600));
    assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0));
    assert!(world.host.peer(0).reset || world.host.peer(0).finished, "the server is not left alone");
}

#[test]
fn data_that_comes_with_the_last_ack_of_the_handshake_counts() {
    let mut world = raw();
    world.host.serve_otherwise(Script::manual());
    let mut end = RawTcp::to("192.0.2.1:80");
    end.send(&mut world, &end.syn(usual_options()));
    let (_, answer) = world.expect_tcp();
    end.seq += 1;
    end.ack = answer.seq.wrapping_add(1);
    end.send_data(&mut world, b"early");
    assert_eq!(world.host.peer(0).data, b"early");
}

#[test]
fn a_segment_of_no_connection_is_answered_by_reset() {
    let mut world = raw();
    let end = RawTcp { ack: 4242, ..RawTcp::to("192.0.2.1:80") };
    end.send(&mut world, &end.segment().data(b"hello?"));
    let (_, answer) = world.expect_tcp();
    assert_eq!((answer.flags, answer.seq), (flag::RST, 4242));
    end.send(&mut world, &Tcp { flags: flag::RST, seq: 1, ..Tcp::default() });
    world.expect_nothing();
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_the_old() {
    let mut config = WorldConfig::default();
    config.engine.max_flows = 8;
    let mut world = World::raw(config);
    world.host.serve_otherwise(Script::echo());
    let mut first = RawTcp::open(&mut world, "192.0.2.1:80");
    for port in 1..20 {
        let mut end = RawTcp::to("192.0.2.1:80");
        end.local.set_port(1000 + port);
        end.send(&mut world, &end.syn(usual_options()));
    }
    world.take();
    assert_eq!(world.engine.flow_count(), 8);
    first.send_data(&mut world, b"still there");
    let data: Vec<u8> = world.take_tcp().into_iter().flat_map(|s| s.payload).collect();
    assert_eq!(data, b"still there");
}

#[test]
fn a_thousand_connections_answer_in_little_memory() {
    let mut config = WorldConfig::default();
    config.engine.max_flows = 10_000;
    let mut world = World::raw(config);
    world.host.serve_otherwise(Script::echo());
    let mut ends = Vec::new();
    for port in 0..1000 {
        let mut end = RawTcp::to("192.0.2.1:80");
        end.local.set_port(1024 + port);
        ends.push(RawTcp::open_with(&mut world, end, usual_options()));
    }
    for end in &mut ends {
        end.send_data(&mut world, b"ping");
        let answer = world.take_tcp();
        assert_eq!(answer.iter().flat_map(|s| s.payload.clone()).collect::<Vec<_>>(), b"ping");
        for segment in &answer {
            end.take_in(segment);
        }
        end.send_ack(&mut world);
    }
    world.run_for(Duration::from_secs(1));
    let memory: usize = world.engine.flows().map(|flow| flow.memory).sum();
    assert!(memory / 1000 <= 1024, "{} bytes a connection", memory / 1000);
}

#[test]
fn a_source_that_is_no_station_cannot_connect() {
    let mut world = raw();
    world.host.serve_otherwise(Script::echo());
    for own in ["127.0.0.1:4000", "224.0.0.1:4000", "0.0.0.0:4000", "255.255.255.255:4000"] {
        let end = RawTcp::new(own.parse().unwrap(), "192.0.2.1:80".parse().unwrap());
        end.send(&mut world, &end.syn(usual_options()));
    }
    assert_eq!(world.host.opened(), []);
    assert!(world.take().iter().all(|frame| matches!(frame.body, Body::Arp(_))));
}
