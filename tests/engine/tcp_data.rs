//! Data in both directions: windows, probes, order, options.

use crate::raw;
use core::time::Duration;
use testkit::packet::{Tcp, flag};
use testkit::pattern;
use testkit::raw_guest::{RawGuest, RawTcp, usual_options};
use testkit::upstream::tcp::{Script, Service};
use testkit::upstream::{Buffer, HostConfig};
use testkit::world::{World, WorldConfig};

fn with(service: Service) -> World<RawGuest> {
    let mut world = raw();
    world.host.serve_otherwise(service);
    world
}

#[test]
fn data_is_taken_once_and_in_order_whatever_comes() {
    let mut world = with(Script::manual());
    let end = RawTcp::open(&mut world, "192.0.2.1:80");
    let data = pattern::bytes(1, 0, 10_000);
    let send = |world: &mut World<RawGuest>, from: usize, to: usize| {
        let at = u32::try_from(from).unwrap();
        end.send(world, &end.segment().seq_plus(at).data(&data[from..to]));
    };
    for (from, to) in
        [(0, 1000), (3000, 4000), (2000, 3500), (500, 2500), (0, 100), (3900, 9000), (8000, 10_000)]
    {
        send(&mut world, from, to);
    }
    assert_eq!(world.host.peer(0).data, data);
    let last = world.take_tcp().pop().unwrap();
    assert_eq!(last.ack, end.seq.wrapping_add(10_000));
    assert_eq!(
        last.options.sack,
        [(end.seq + 8000, end.seq + 9000)],
        "the last one was a repeat (RFC 2883 §4)"
    );
}

#[test]
fn gaps_are_told_by_sack_the_latest_first() {
    let mut world = with(Script::manual());
    let end = RawTcp::open(&mut world, "192.0.2.1:80");
    let piece = |n: u32| end.segment().seq_plus(n * 100).data(vec![0; 100]);
    let edge = |n: u32| end.seq.wrapping_add(n * 100);
    for n in [2, 4, 6] {
        end.send(&mut world, &piece(n));
        let (_, ack) = world.expect_tcp();
        assert_eq!(ack.ack, end.seq, "a duplicate acknowledgement at once");
        assert_eq!(ack.options.sack[0], (edge(n), edge(n + 1)), "RFC 2018 §4: the latest first");
    }
    end.send(&mut world, &piece(3));
    let (_, ack) = world.expect_tcp();
    assert_eq!(ack.options.sack, [(edge(2), edge(5)), (edge(6), edge(7))]);
    end.send(&mut world, &piece(0));
    assert_eq!(world.expect_tcp().1.ack, edge(1));
}

#[test]
fn without_sack_permitted_there_is_no_sack() {
    let mut world = with(Script::manual());
    let options = testkit::packet::Options { sack_permitted: false, ..usual_options() };
    let end = RawTcp::open_with(&mut world, RawTcp::to("192.0.2.1:80"), options);
    end.send(&mut world, &end.segment().seq_plus(500).data(vec![0; 100]));
    assert_eq!(world.expect_tcp().1.options.sack, []);
}

#[test]
fn segments_with_data_and_sack_blocks_still_fit_the_mtu() {
    for timestamps in [false, true] {
        let mut world = with(Script::manual());
        let mut end = RawTcp::to("192.0.2.1:80");
        end.clock = timestamps.then_some(5);
        let end = RawTcp::open_with(&mut world, end, usual_options());
        for n in [1, 3, 5] {
            end.send(&mut world, &end.segment().seq_plus(n * 100).data(vec![0; 100]));
        }
        world.take();
        // The device's port checks the length of every frame.
        world.host.peer_send(0, &pattern::bytes(2, 0, 10_000), false);
        world.settle();
        let got: Vec<Tcp> = world.take_tcp();
        assert!(got.iter().any(|s| !s.payload.is_empty() && !s.options.sack.is_empty()), "{timestamps}");
        assert_eq!(got.iter().map(|s| s.payload.len()).sum::<usize>(), 10_000);
    }
}

#[test]
fn timestamps_are_echoed_and_old_segments_refused() {
    let mut world = with(Script::manual());
    let mut end = RawTcp::to("192.0.2.1:80");
    end.clock = Some(1000);
    let mut end = RawTcp::open_with(&mut world, end, usual_options());
    end.clock = Some(1010);
    end.send_data(&mut world, b"a");
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.expect_tcp().1.options.timestamps.map(|(_, echo)| echo), Some(1010));
    // RFC 7323 §5: protection against wrapped sequence numbers.
    end.send(&mut world, &end.segment().timestamps(900, end.echo).data(b"old"));
    world.run_for(Duration::from_millis(10));
    let (_, ack) = world.expect_tcp();
    assert_eq!((ack.ack, &world.host.peer(0).data[..]), (end.seq, &b"a"[..]));
}

#[test]
fn everything_inside_the_advertised_window_is_kept_when_the_host_takes_nothing() {
    let mut config = WorldConfig::default();
    config.host.send_buffer = Buffer { initial: 4096, max: 4096 };
    config.host.peer_buffer = 4096;
    let mut world = World::raw(config);
    world.host.serve_otherwise(Service::Talk(Script { expect: Some(1), stall: true, ..Script::default() }));
    let mut end = RawTcp::open(&mut world, "192.0.2.1:80");
    let mut sent = 0u64;
    let mut edge = u64::from(end.their_window);
    // Sends as much as permitted, until the window stays shut.
    for _ in 0..20_000 {
        let room = usize::try_from(edge - sent).unwrap().min(1460);
        if room == 0 {
            world.run_for(Duration::from_millis(50));
        } else {
            end.send_data(&mut world, &pattern::bytes(1, sent, room));
            sent += u64::try_from(room).unwrap();
        }
        let acks = world.take_tcp();
        if room == 0 && acks.is_empty() {
            break;
        }
        for ack in acks {
            let acked = sent - u64::from(end.seq.wrapping_sub(ack.ack));
            edge = edge.max(acked + u64::from(end.scaled(&ack)));
        }
    }
    assert_eq!(edge, sent, "the window is shut");
    assert!(sent <= 4 * (4 << 20), "and was bounded: {sent}");
    world.host.peer_stall(0, false);
    world.run_for(Duration::from_secs(5));
    let peer = world.host.peer(0);
    assert_eq!((peer.received, peer.mismatch), (sent, None), "not a byte was thrown away");
    let opened = world.take_tcp();
    assert!(opened.iter().any(|s| end.scaled(s) > 0), "and the guest was told that there is room again");
}

#[test]
fn the_guests_window_is_respected_to_the_byte() {
    let mut world = with(Script::manual());
    let mut end = RawTcp::to("192.0.2.1:80");
    end.window = 5000;
    let options = testkit::packet::Options { scale: None, ..usual_options() };
    let mut end = RawTcp::open_with(&mut world, end, options);
    world.host.peer_send(0, &pattern::bytes(2, 0, 100_000), false);
    let mut received = Vec::new();
    for _ in 0..100 {
        let first = end.ack;
        world.run_for(Duration::from_millis(20));
        for segment in world.take_tcp() {
            let at = segment.seq.wrapping_sub(first);
            assert!(at < 5000 && usize::try_from(at).unwrap() + segment.payload.len() <= 5000);
            if segment.seq == end.ack {
                received.extend_from_slice(&segment.payload);
            }
            end.take_in(&segment);
        }
        end.send_ack(&mut world);
    }
    assert_eq!(received.len(), 100_000);
    assert_eq!(pattern::mismatch(2, 0, &received), None);
}

#[test]
fn a_closed_window_is_probed_and_its_opening_used() {
    let mut world = with(Script::manual());
    let mut end = RawTcp::open(&mut world, "192.0.2.1:80");
    end.window = 0;
    end.send_ack(&mut world);
    world.host.peer_send(0, b"waiting", false);
    world.settle();
    let mut probes = 0;
    for _ in 0..60 {
        world.run_for(Duration::from_secs(1));
        for probe in world.take_tcp() {
            probes += 1;
            assert!(probe.payload.len() <= 1, "{probe:?}");
            end.send_ack(&mut world);
        }
    }
    assert!((3..=40).contains(&probes), "{probes} probes in a minute, with back-off");
    end.window = 1000;
    end.send_ack(&mut world);
    let got: Vec<u8> = world.take_tcp().into_iter().flat_map(|s| s.payload).collect();
    assert_eq!(got, b"waiting");
}

#[test]
fn a_lost_window_update_does_not_stall() {
    let mut world = with(Script::manual());
    let mut end = RawTcp::open(&mut world, "192.0.2.1:80");
    end.window = 0;
    end.send_ack(&mut world);
    world.host.peer_send(0, b"data", false);
    world.settle();
    end.window = 1000;
    world.up.lose(0);
    end.send_ack(&mut world);
    let mut got = Vec::new();
    world.run_until(Duration::from_secs(10), |world| {
        for segment in world.guest.take() {
            let testkit::packet::Body::Tcp(_, segment) = segment.body else { continue };
            if segment.seq == end.ack {
                got.extend_from_slice(&segment.payload);
            }
            end.take_in(&segment);
            world.guest.send(&end.segment().packet(end.local, end.remote));
        }
        got == b"data"
    });
    assert_eq!(got, b"data");
}

#[test]
fn a_guest_that_shrinks_its_window_is_obeyed() {
    let mut world = with(Script::manual());
    let mut end = RawTcp::open(&mut world, "192.0.2.1:80");
    end.window = 10;
    end.send_ack(&mut world);
    world.host.peer_send(0, &[7; 100_000], false);
    world.settle();
    world.run_for(Duration::from_secs(1));
    for segment in world.take_tcp() {
        let reach = segment.seq.wrapping_sub(end.ack) + u32::try_from(segment.payload.len()).unwrap();
        assert!(reach <= (10 << 7) + 1, "{reach}");
    }
}

#[test]
fn small_data_is_acknowledged_soon_and_requests_ride_on_answers() {
    let mut world = with(Script::echo());
    let mut end = RawTcp::open(&mut world, "192.0.2.1:80");
    end.send_data(&mut world, b"request");
    let frames = world.take_tcp();
    assert_eq!(frames.len(), 1, "one frame: answer and acknowledgement: {frames:?}");
    assert_eq!((frames[0].ack, &frames[0].payload[..]), (end.seq, &b"request"[..]));
    // No answer: acknowledged all the same, within the 500 ms of RFC 1122 §4.2.3.2 by far.
    let mut world = with(Script::manual());
    let mut end = RawTcp::open(&mut world, "192.0.2.1:80");
    end.send_data(&mut world, b"request");
    world.run_for(Duration::from_millis(40));
    assert_eq!(world.expect_tcp().1.ack, end.seq);
}

#[test]
fn urgent_data_crosses_both_ways() {
    let mut world = with(Script::manual());
    let mut end = RawTcp::open(&mut world, "192.0.2.1:80");
    let mut segment = end.segment().with(flag::URG).data(b"!urgent");
    segment.urgent = 1;
    end.send(&mut world, &segment);
    end.seq = end.seq.wrapping_add(7);
    world.run_for(Duration::from_millis(100));
    assert_eq!((&world.host.peer(0).data[..], &world.host.peer(0).urgent[..]), (&b"!urgent"[..], &[0][..]));

    world.take_tcp();
    world.host.peer_urge(0, b"ABOR!");
    world.run_for(Duration::from_millis(100));
    let told: Vec<_> = world
        .take_tcp()
        .into_iter()
        .filter(|tcp| !tcp.payload.is_empty())
        .map(|tcp| (tcp.flags & flag::URG != 0, tcp.urgent, tcp.payload))
        .collect();
    assert_eq!(told[..2], [(true, 5, b"ABOR".to_vec()), (true, 1, b"!".to_vec())]);
}

#[test]
fn a_slow_path_fills_and_drains_without_repeats() {
    let mut config = WorldConfig::default();
    config.host = HostConfig { bandwidth: Some(1_000_000), delay: Duration::from_millis(20), ..config.host };
    let mut world = World::smol(config);
    world.host.serve_otherwise(Script::sink(1));
    let to = "192.0.2.1:80".parse().unwrap();
    let task = world.guest.connect(to, testkit::guest::Task::upload(3_000_000, 1));
    let done = world.run_until(Duration::from_secs(60), |world| {
        world.host.peers().next().is_some_and(|peer| peer.finished)
    });
    let peer = world.host.peer(0);
    assert!(done, "{peer:?} {:?}", world.guest.task(task));
    assert_eq!((peer.received, peer.mismatch), (3_000_000, None));
    let sent = world.up.stats().bytes;
    assert!(sent < 3_300_000, "the guest sent {sent} bytes for three million: it repeated some");
}
