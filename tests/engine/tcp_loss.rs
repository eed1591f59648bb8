//! Loss towards the guest: what is repeated, when, and how often.

use crate::raw;
use core::time::Duration;
use testkit::packet::Tcp;
use testkit::pattern;
use testkit::raw_guest::{RawGuest, RawTcp};
use testkit::upstream::tcp::Script;
use testkit::world::World;

/// A connection on which the server has sent `len` bytes in segments of 1460, none acknowledged.
fn sent(len: usize) -> (World<RawGuest>, RawTcp, Vec<Tcp>) {
    let mut world = raw();
    world.host.serve_otherwise(Script::manual());
    let mut end = RawTcp::open(&mut world, "192.0.2.1:80");
    // A round trip for the estimator: 2 ms.
    world.host.peer_send(0, b"x", false);
    world.settle();
    world.run_for(Duration::from_millis(2));
    for segment in world.take_tcp() {
        end.take_in(&segment);
    }
    end.send_ack(&mut world);
    world.take();
    world.host.peer_send(0, &pattern::bytes(2, 0, len), false);
    let segments = world.take_tcp();
    (world, end, segments)
}

fn edge(segment: &Tcp) -> u32 {
    segment.seq.wrapping_add(segment.sequence_len())
}

#[test]
fn three_duplicates_repeat_the_first_segment() {
    let (mut world, end, segments) = sent(10 * 1460);
    assert_eq!(segments.len(), 10);
    for _ in 0..2 {
        end.send_ack(&mut world);
        world.expect_nothing();
    }
    end.send_ack(&mut world);
    let repeats = world.take_tcp();
    assert_eq!(repeats.len(), 1, "{repeats:?}");
    assert_eq!((repeats[0].seq, &repeats[0].payload), (segments[0].seq, &segments[0].payload));
}

#[test]
fn sack_repeats_exactly_what_is_missing() {
    let (mut world, end, segments) = sent(20 * 1460);
    // The guest got all but 0, 3 and 7.
    let missing = [0, 3, 7];
    let block = |a: usize, b: usize| (segments[a].seq, edge(&segments[b]));
    end.send(&mut world, &end.segment().sack(&[block(1, 2)]));
    end.send(&mut world, &end.segment().sack(&[block(4, 6), block(1, 2)]));
    end.send(&mut world, &end.segment().sack(&[block(8, 19), block(4, 6), block(1, 2)]));
    let repeats: Vec<u32> = world.take_tcp().iter().map(|s| s.seq).collect();
    let expected: Vec<u32> = missing.iter().map(|n| segments[*n].seq).collect();
    assert_eq!(repeats, expected, "each once, in order");
    end.send(&mut world, &end.segment().acking(edge(&segments[19])));
    world.run_for(Duration::from_secs(1));
    world.expect_nothing();
}

#[test]
fn a_lost_repeat_is_noticed_long_before_the_timeout() {
    let (mut world, mut end, segments) = sent(10 * 1460);
    world.down.lose(0);
    let all_but_first = (segments[1].seq, edge(&segments[9]));
    end.send(&mut world, &end.segment().sack(&[all_but_first]));
    world.expect_nothing();
    world.run_for(Duration::from_millis(60));
    let again = world.take_tcp();
    assert_eq!(again.first().map(|s| s.seq), Some(segments[0].seq), "a probe of the recovery: {again:?}");
    end.ack = edge(&segments[9]);
    end.send_ack(&mut world);
    world.run_for(Duration::from_secs(2));
    world.expect_nothing();
}

#[test]
fn a_lost_tail_is_probed() {
    let (mut world, mut end, segments) = sent(5 * 1460);
    end.ack = edge(&segments[2]);
    end.send_ack(&mut world);
    world.expect_nothing();
    world.run_for(Duration::from_millis(150));
    let probe = world.take_tcp();
    assert_eq!(probe.first().map(|s| s.seq), Some(segments[4].seq), "RFC 8985 §7.3: the last segment");
    end.send(&mut world, &end.segment().sack(&[(segments[4].seq, edge(&segments[4]))]));
    let repeat = world.take_tcp();
    assert_eq!(repeat.first().map(|s| s.seq), Some(segments[3].seq), "its SACK shows what is missing");
}

#[test]
fn silence_is_met_with_patience_and_then_given_up() {
    let (mut world, _, segments) = sent(3 * 1460);
    let mut times = Vec::new();
    let start = world.now();
    world.run_until(Duration::from_secs(7200), |world| {
        for _ in world.guest.take() {
            times.push((world.now() - start).as_millis());
        }
        world.engine.flow_count() == 0
    });
    assert_eq!(world.engine.flow_count(), 0, "given up within two hours");
    assert!((8..60).contains(&times.len()), "{times:?} for {} segments", segments.len());
    let gaps: Vec<u128> = times.windows(2).map(|w| w[1] - w[0]).filter(|gap| *gap > 1).collect();
    assert!(gaps.last() >= gaps.first(), "backing off: {gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= 120_000), "{gaps:?}");
    world.settle();
    assert!(world.host.peer(0).reset, "the server hears of it");
}

#[test]
fn after_a_timeout_the_whole_flight_follows_the_first_answer() {
    let (mut world, mut end, segments) = sent(30 * 1460);
    // All lost. The tail probe and the timeout repeat one segment each.
    world.run_for(Duration::from_millis(600));
    let repeated = world.take_tcp();
    assert!((1..5).contains(&repeated.len()), "carefully: {}", repeated.len());
    assert!(repeated.iter().any(|s| s.seq == segments[0].seq));
    end.ack = edge(&segments[0]);
    end.send_ack(&mut world);
    let rest = world.take_tcp();
    assert!(rest.len() >= 28, "the guest lives: {} segments at once", rest.len());
    assert_eq!(pattern::mismatch(2, 1460, &rest[0].payload), None);
}

#[test]
fn a_guest_that_forgets_what_it_had_sacked_is_served_all_the_same() {
    let (mut world, mut end, segments) = sent(10 * 1460);
    end.send(&mut world, &end.segment().sack(&[(segments[1].seq, edge(&segments[9]))]));
    world.take();
    // It acknowledges the first, and has nothing else after all (RFC 2018 §8).
    end.ack = edge(&segments[0]);
    let mut received = 1460;
    end.send_ack(&mut world);
    world.run_until(Duration::from_secs(20), |world| {
        for frame in world.guest.take() {
            let testkit::packet::Body::Tcp(_, segment) = frame.body else { continue };
            if segment.seq == end.ack {
                received += segment.payload.len();
            }
            end.take_in(&segment);
            world.guest.send(&end.segment().packet(end.local, end.remote));
        }
        received == 10 * 1460
    });
    assert_eq!(received, 10 * 1460);
}

#[test]
fn acknowledgements_of_the_future_and_the_past_do_nothing() {
    let (mut world, end, segments) = sent(3 * 1460);
    let future = end.segment().acking(edge(&segments[2]).wrapping_add(1));
    end.send(&mut world, &future);
    let (_, answer) = world.expect_tcp();
    assert_eq!((answer.ack, answer.payload.len()), (end.seq, 0), "RFC 9293 §3.10.7.4: an ACK back");
    end.send(&mut world, &end.segment().acking(end.ack.wrapping_sub(1)));
    world.expect_nothing();
    assert_eq!(world.engine.flow_count(), 1);
}
