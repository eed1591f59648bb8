//! Closing: FIN, half-close, RST, keepalive, and the bounds on what stays.

use crate::raw;
use core::time::Duration;
use slipway_netstack::upstream::Errno;
use testkit::packet::{Tcp, flag};
use testkit::raw_guest::{RawGuest, RawTcp};
use testkit::upstream::tcp::{Script, Service};
use testkit::world::{World, WorldConfig};

fn open(service: Service) -> (World<RawGuest>, RawTcp) {
    let mut world = raw();
    world.host.serve_otherwise(service);
    let end = RawTcp::open(&mut world, "192.0.2.1:80");
    (world, end)
}

fn gone(world: &World<RawGuest>) -> bool {
    (world.engine.flow_count(), world.host.open_sockets()) == (0, 0)
}

#[test]
fn both_sides_close_and_nothing_is_left() {
    let (mut world, mut end) = open(Script::echo());
    end.send_data(&mut world, b"bye");
    end.send_fin(&mut world);
    for segment in world.take_tcp() {
        end.take_in(&segment);
    }
    assert!(world.host.peer(0).finished);
    end.send_ack(&mut world);
    world.expect_nothing();
    assert!(gone(&world));
    assert!(!world.host.peer(0).reset, "in good order");
}

#[test]
fn the_server_may_close_first_and_still_receive() {
    let (mut world, mut end) = open(Script::manual());
    world.host.peer_send(0, b"hello", true);
    let got = world.take_tcp();
    for segment in &got {
        end.take_in(segment);
    }
    assert!(got.iter().any(|s| s.has(flag::FIN)));
    end.send_ack(&mut world);
    world.run_for(Duration::from_secs(600));
    end.send_data(&mut world, b"still talking");
    world.run_for(Duration::from_millis(10));
    world.take();
    assert_eq!(world.host.peer(0).data, b"still talking");
    end.send_fin(&mut world);
    world.run_for(Duration::from_millis(10));
    assert!(world.host.peer(0).finished && gone(&world));
}

#[test]
fn the_guest_may_close_first_and_still_receive() {
    let (mut world, mut end) = open(Script::manual());
    end.send_fin(&mut world);
    world.run_for(Duration::from_millis(2));
    assert_eq!(world.expect_tcp().1.ack, end.seq, "the FIN is acknowledged");
    assert!(world.host.peer(0).finished);
    world.run_for(Duration::from_secs(3600));
    world.take();
    world.host.peer_send(0, b"late answer", true);
    let got = world.take_tcp();
    assert_eq!(got.iter().flat_map(|s| s.payload.clone()).collect::<Vec<_>>(), b"late answer");
    for segment in &got {
        end.take_in(segment);
    }
    end.send_ack(&mut world);
    for segment in world.take_tcp() {
        end.take_in(&segment);
        end.send_ack(&mut world);
    }
    assert!(gone(&world), "an hour's silence was no reason to cut it");
}

#[test]
fn a_fin_ahead_of_lost_data_waits_for_it() {
    let (mut world, mut end) = open(Script::manual());
    let first = end.segment().data(b"first ");
    end.seq += 6;
    end.send(&mut world, &end.segment().data(b"second").with(flag::FIN));
    assert!(!world.host.peer(0).finished);
    end.send(&mut world, &first);
    let peer = world.host.peer(0);
    assert_eq!((&peer.data[..], peer.finished), (&b"first second"[..], true));
}

#[test]
fn a_lost_fin_of_ours_is_repeated() {
    let (mut world, mut end) = open(Script::manual());
    world.down.lose(0);
    world.host.peer_send(0, &[], true);
    world.expect_nothing();
    world.run_for(Duration::from_secs(2));
    let again = world.take_tcp();
    assert!(again.iter().all(|s| s.has(flag::FIN)) && !again.is_empty(), "{again:?}");
    end.take_in(&again[0]);
    end.send_ack(&mut world);
    world.run_for(Duration::from_secs(10));
    world.expect_nothing();
}

#[test]
fn a_reset_of_the_guest_reaches_the_server() {
    let (mut world, end) = open(Script::manual());
    end.send(&mut world, &end.segment().with(flag::RST));
    world.expect_nothing();
    assert!(world.host.peer(0).reset && gone(&world));
}

#[test]
fn only_the_exact_number_resets() {
    let (mut world, end) = open(Script::manual());
    // RFC 5961 §3.2: inside the window but not the next number: challenged.
    end.send(&mut world, &Tcp { flags: flag::RST, ..end.segment().seq_plus(100) });
    let (_, challenge) = world.expect_tcp();
    assert_eq!((challenge.flags, challenge.ack), (flag::ACK, end.seq));
    // Outside: nothing.
    end.send(&mut world, &Tcp { flags: flag::RST, ..end.segment().seq_minus(100) });
    end.send(&mut world, &Tcp { flags: flag::RST, ..end.segment().seq_plus(0x4000_0000) });
    world.expect_nothing();
    assert_eq!(world.engine.flow_count(), 1);
}

#[test]
fn a_syn_in_the_middle_is_challenged() {
    let (mut world, end) = open(Script::manual());
    end.send(&mut world, &Tcp { flags: flag::SYN, ..end.segment() });
    let (_, challenge) = world.expect_tcp();
    assert_eq!((challenge.flags, challenge.ack), (flag::ACK, end.seq), "RFC 5961 §4.2");
    assert_eq!(world.engine.flow_count(), 1);
}

#[test]
fn challenges_are_rate_limited() {
    let (mut world, end) = open(Script::manual());
    for n in 0..1000 {
        world
            .guest
            .send(&Tcp { flags: flag::RST, ..end.segment().seq_plus(100 + n) }.packet(end.local, end.remote));
        world.settle();
    }
    let challenges = world.take_tcp().len();
    assert!((1..=20).contains(&challenges), "{challenges} challenges");
}

/// A station that counts its own must not learn what segments of another one's connection met with (RFC 5961 §10).
#[test]
fn one_flows_challenges_are_not_taken_from_anothers() {
    let (mut world, noisy) = open(Script::manual());
    let quiet = RawTcp::open(&mut world, "192.0.2.1:81");
    for n in 0..1000 {
        noisy.send(&mut world, &Tcp { flags: flag::RST, ..noisy.segment().seq_plus(100 + n) });
    }
    world.take();
    for _ in 0..10 {
        quiet.send(&mut world, &Tcp { flags: flag::SYN, ..quiet.segment() });
        assert_eq!(world.expect_tcp().1.ack, quiet.seq, "all of its own are there");
    }
    // And the first has new ones in time.
    world.run_for(Duration::from_secs(6));
    world.take();
    noisy.send(&mut world, &Tcp { flags: flag::RST, ..noisy.segment().seq_plus(100) });
    assert_eq!(world.expect_tcp().1.ack, noisy.seq);
}

#[test]
fn a_reset_of_the_server_reaches_the_guest() {
    let (mut world, end) = open(Script::manual());
    world.host.peer_reset(0);
    world.settle();
    let (_, reset) = world.expect_tcp();
    assert!(reset.has(flag::RST));
    assert_eq!(reset.seq, end.ack, "the number that the guest will believe");
    assert!(gone(&world));
}

#[test]
fn a_broken_connection_is_a_reset_to_the_guest() {
    for errno in [Errno::TimedOut, Errno::HostUnreachable, Errno::Other] {
        let (mut world, _) = open(Script::manual());
        world.host.break_connection(0, errno);
        world.settle();
        assert!(world.expect_tcp().1.has(flag::RST), "{errno:?}");
        assert!(gone(&world));
    }
}

#[test]
fn bytes_that_cannot_be_delivered_end_in_a_reset_never_in_a_polite_close() {
    let mut config = WorldConfig::default();
    config.host.send_buffer = testkit::upstream::Buffer { initial: 4096, max: 4096 };
    let mut world = World::raw(config);
    world.host.serve_otherwise(Service::Talk(Script { stall: true, stay: true, ..Script::default() }));
    let mut end = RawTcp::open(&mut world, "192.0.2.1:80");
    for _ in 0..20 {
        end.send_data(&mut world, &[1; 1460]);
    }
    end.send_fin(&mut world);
    world.take();
    world.host.peer_reset(0);
    world.settle();
    assert!(world.take_tcp().iter().any(|s| s.has(flag::RST)), "acknowledged bytes were lost: say so");
    assert!(gone(&world));
}

#[test]
fn simultaneous_close() {
    let (mut world, mut end) = open(Script::manual());
    world.host.peer_send(0, &[], true);
    let (_, fin) = world.expect_tcp();
    assert!(fin.has(flag::FIN));
    // The guest's FIN crosses it.
    end.send_fin(&mut world);
    world.take();
    end.take_in(&fin);
    end.send_ack(&mut world);
    world.settle();
    assert!(gone(&world));
}

#[test]
fn a_repeated_last_fin_is_answered() {
    let (mut world, mut end) = open(Script::echo());
    end.send_fin(&mut world);
    let fin = end.segment().seq_minus(1).with(flag::FIN);
    for segment in world.take_tcp() {
        end.take_in(&segment);
    }
    end.send_ack(&mut world);
    world.expect_nothing();
    end.send(&mut world, &fin);
    let (_, answer) = world.expect_tcp();
    assert!(answer.has(flag::RST), "nobody remembers; harmless to a guest that is done");
}

fn keepalive() -> (World<RawGuest>, RawTcp) {
    let mut config = WorldConfig::default();
    config.engine.tcp.keepalive_idle = Duration::from_secs(60);
    config.engine.tcp.keepalive_interval = Duration::from_secs(10);
    config.engine.tcp.keepalive_probes = 3;
    let mut world = World::raw(config);
    world.host.serve_otherwise(Script::manual());
    let end = RawTcp::open(&mut world, "192.0.2.1:80");
    (world, end)
}

#[test]
fn a_silent_guest_is_probed_and_then_given_up() {
    let (mut world, end) = keepalive();
    world.run_for(Duration::from_secs(59));
    world.expect_nothing();
    world.run_for(Duration::from_secs(2));
    let (_, probe) = world.expect_tcp();
    assert_eq!((probe.seq, probe.payload.len()), (end.ack.wrapping_sub(1), 0));
    world.run_for(Duration::from_secs(60));
    let rest = world.take_tcp();
    assert_eq!(rest.iter().filter(|s| s.has(flag::RST)).count(), 1, "{rest:?}");
    assert_eq!(rest.len(), 3, "two more probes");
    assert!(world.host.peer(0).reset && gone(&world));
}

#[test]
fn a_guest_that_answers_probes_lives_on() {
    let (mut world, end) = keepalive();
    for _ in 0..20 {
        world.run_for(Duration::from_secs(61));
        assert_eq!(world.take_tcp().len(), 1);
        end.send_ack(&mut world);
    }
    assert_eq!(world.engine.flow_count(), 1);
}

#[test]
fn the_guests_own_keepalive_is_answered() {
    let (mut world, end) = open(Script::manual());
    end.send(&mut world, &end.segment().seq_minus(1));
    let (_, answer) = world.expect_tcp();
    assert_eq!((answer.flags, answer.ack), (flag::ACK, end.seq));
}

#[test]
fn half_closed_flows_do_not_live_for_ever() {
    let mut config = WorldConfig::default();
    config.engine.tcp.half_closed_timeout = Duration::from_secs(100);
    let mut world = World::raw(config);
    world.host.serve_otherwise(Script::manual());
    let mut end = RawTcp::open(&mut world, "192.0.2.1:80");
    end.send_fin(&mut world);
    world.run_for(Duration::from_secs(101));
    assert!(gone(&world));
}
