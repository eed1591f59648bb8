//! What the guest sends.

use super::*;
use crate::config::TcpConfig;
use crate::testing::config;

#[test]
fn data_goes_straight_into_the_socket() {
    let mut lab = Lab::open();
    lab.say(0, 0, b"hello ");
    lab.say(6, 0, b"world");
    assert_eq!(lab.socket().taken, b"hello world");
    assert_eq!(lab.engine.flows().map(|flow| flow.memory).sum::<usize>(), size_of::<super::super::Tcp>());
}

#[test]
fn little_data_is_acknowledged_late_and_rides_on_an_answer() {
    let mut lab = Lab::open();
    lab.say(0, 0, b"request");
    assert!(lab.step().is_empty());
    lab.serve(b"answer");
    let got = lab.step();
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].ack, got[0].payload.as_slice()), (Lab::ours(7), &b"answer"[..]));
    assert!(lab.pass(ms(20)).is_empty(), "nothing is owed any more");

    lab.say(7, 6, b"another");
    let got = lab.pass(ms(20));
    assert_eq!(got.len(), 1);
    assert!(got[0].0 <= ms(2) && acknowledges(&got[0].1, 14));
}

#[test]
fn much_data_is_acknowledged_at_once_and_a_batch_only_once() {
    let mut lab = Lab::open();
    for n in 0..10 {
        lab.say(n * 1000, 0, &bytes(1000));
    }
    let got = lab.step();
    assert!(got.len() == 1 && acknowledges(&got[0], 10_000));
}

#[test]
fn what_the_socket_does_not_take_is_kept_and_the_window_is_the_room_left() {
    let mut lab = Lab::open();
    lab.socket().room = 1000;
    let data = bytes(20_000);
    lab.say(0, 0, &data);
    let got = lab.step();
    assert!(acknowledges(&got[0], 20_000));
    let window = u32::from(got[0].window) << 7;
    assert_eq!(window.div_ceil(128), (65_535u32 - 19_000).div_ceil(128));
    assert_eq!(lab.socket().taken.len(), 1000);
    lab.make_room(5000);
    assert_eq!(lab.socket().taken.len(), 6000);
    lab.make_room(usize::MAX);
    assert_eq!(lab.socket().taken, data);
}

#[test]
fn a_full_socket_of_a_brisk_flow_is_kept_full() {
    let mut lab = Lab::open();
    lab.socket().room = 0;
    let data = bytes(60_000);
    lab.say(0, 0, &data);
    lab.step();
    // The kernel tells of room only when a third is free. Bytes leave the socket meanwhile, and it takes others.
    lab.socket().room = 20_000;
    lab.pass(ms(5));
    assert_eq!(lab.socket().taken, data[..20_000]);
    lab.socket().room = usize::MAX;
    lab.pass(ms(10));
    assert_eq!(lab.socket().taken, data);
}

#[test]
fn a_socket_that_stays_full_is_not_offered_more_for_ever() {
    let mut lab = Lab::open();
    lab.socket().room = 0;
    let data = bytes(60_000);
    lab.say(0, 0, &data);
    lab.pass(ms(100));
    let offers = lab.socket().offers;
    assert!((2..=5).contains(&offers), "{offers}");
    lab.socket().room = 1000;
    lab.pass(ms(5000));
    assert_eq!((lab.socket().offers, lab.socket().taken.len()), (offers, 0), "only the kernel's word counts");
    lab.make_room(1000);
    lab.pass(ms(5000));
    assert!(lab.socket().offers <= 2 * offers);
    lab.make_room(usize::MAX);
    assert_eq!(lab.socket().taken, data);
}

#[test]
fn the_window_closes_and_is_reopened_by_an_update() {
    let mut config = config();
    config.tcp.max_window = 65_535;
    let mut lab = Lab::with(config);
    lab.connect();
    lab.socket().room = 0;
    let data = bytes(65_535);
    for (n, part) in data.chunks(1000).enumerate() {
        lab.say(i64::try_from(n).unwrap() * 1000, 0, part);
    }
    let got = lab.step();
    assert!(acknowledges(got.last().unwrap(), 65_535));
    assert_eq!(got.last().unwrap().window, 0);
    // A probe is answered.
    lab.say(65_534, 0, &[]);
    assert!(acknowledges(&lab.step()[0], 65_535));
    lab.make_room(1000);
    assert!(lab.step().is_empty(), "a silly window is not told");
    lab.make_room(usize::MAX);
    let got = lab.step();
    assert!(acknowledges(&got[0], 65_535) && got[0].window >= 65_535 >> 7, "{got:?}");
    assert_eq!(lab.socket().taken, data);
}

#[test]
fn the_window_grows_while_the_guest_fills_it() {
    let mut lab = Lab::open();
    let (mut at, mut window) = (0, 65_535);
    for _ in 0..2000 {
        let part = bytes(30_000);
        lab.say(at, 0, &part);
        lab.say(at + 30_000, 0, &part);
        at += 60_000;
        window = lab.step().last().map_or(window, |got| u32::from(got.window) << 7);
    }
    assert!(window >= 100_000, "{window}");
    assert!(window <= TcpConfig::default().max_window);
}

#[test]
fn the_pool_bounds_all_windows_together_and_is_given_back() {
    let mut config = config();
    config.tcp.window_pool = 65_535;
    let pool = config.tcp.window_pool;
    let mut lab = Lab::with(config);
    lab.connect();
    for n in 0..100 {
        lab.say(n * 60_000, 0, &bytes(30_000));
        lab.say(n * 60_000 + 30_000, 0, &bytes(30_000));
        let got = lab.step();
        assert!(u32::from(got.last().unwrap().window) << 7 <= 2 * 65_536);
    }
    assert_eq!(lab.engine.tcp.pool, 0);
    lab.flag(6_000_000, 0, &[], RST);
    assert!(!lab.lives());
    assert_eq!(lab.engine.tcp.pool, pool);
}

#[test]
fn data_out_of_order_is_kept_and_told_by_sack() {
    let mut lab = Lab::open();
    let data = bytes(4000);
    lab.say(1000, 0, &data[1000..2000]);
    let got = lab.step();
    assert!(acknowledges(&got[0], 0), "at once");
    assert_eq!(block(&got[0], 0), Some((Lab::ours(1000), Lab::ours(2000))));
    lab.say(3000, 0, &data[3000..]);
    let got = lab.step();
    assert_eq!(block(&got[0], 0), Some((Lab::ours(3000), Lab::ours(4000))), "the latest first");
    assert_eq!(block(&got[0], 1), Some((Lab::ours(1000), Lab::ours(2000))));
    assert!(lab.socket().taken.is_empty());
    lab.say(0, 0, &data[..1000]);
    let got = lab.step();
    assert!(acknowledges(&got[0], 2000), "at once");
    lab.say(1500, 0, &data[1500..3500]); // overlaps on both sides
    let got = lab.step();
    assert!(acknowledges(&got[0], 4000));
    assert_eq!(block(&got[0], 0), Some((Lab::ours(1500), Lab::ours(2000))), "what it repeated");
    assert_eq!(block(&got[0], 1), None);
    assert_eq!(lab.socket().taken, data);
}

/// Block number `n` of a segment.
fn block(got: &Got, n: usize) -> Option<(u32, u32)> {
    got.options.sack[n].map(|range| (range.start.0, range.end.0))
}

/// RFC 2883 §4: the guest learns that it repeated for nothing, and takes back what it concluded from a loss.
#[test]
fn a_repeat_is_told_once() {
    let mut lab = Lab::open();
    let data = bytes(6000);
    let told = |from, to| Some((Lab::ours(from), Lab::ours(to)));
    lab.say(0, 0, &data[..1000]);
    lab.step();
    lab.say(0, 0, &data[..1000]);
    let got = lab.step();
    assert_eq!((got.len(), block(&got[0], 0), block(&got[0], 1)), (1, told(0, 1000), None), "all of it");
    assert!(acknowledges(&got[0], 1000));
    lab.say(500, 0, &data[500..1500]);
    assert_eq!(block(&lab.step()[0], 0), told(500, 1000), "a part");
    lab.say(3000, 0, &data[3000..5000]);
    assert_eq!(block(&lab.step()[0], 0), told(3000, 5000), "nothing repeated");
    lab.say(3500, 0, &data[3500..4000]);
    let got = lab.step();
    assert_eq!(
        (block(&got[0], 0), block(&got[0], 1)),
        (told(3500, 4000), told(3000, 5000)),
        "ahead of a gap"
    );
    lab.say(5500, 0, &data[5500..]);
    let got = lab.step();
    assert_eq!((block(&got[0], 0), block(&got[0], 1)), (told(5500, 6000), told(3000, 5000)), "not again");

    // Data to the guest carries the acknowledgement, a segment of its own the repeat.
    lab.serve(&data[..1000]);
    lab.say(0, 0, &data[..1000]);
    let got = lab.step();
    assert_eq!((got.len(), got[0].payload.len(), got[1].payload.len()), (2, 1000, 0));
    assert_eq!((block(&got[0], 0), block(&got[1], 0)), (told(5500, 6000), told(0, 1000)));

    let mut lab = Lab::new();
    lab.scaled = false; // and no SACK
    lab.connect();
    for _ in 0..2 {
        lab.say(0, 0, &data[..1000]);
    }
    assert_eq!(block(&lab.step()[0], 0), None, "it would not understand");
}

#[test]
fn repeats_and_strays_are_acknowledged_and_nothing_else() {
    let mut lab = Lab::open();
    lab.say(0, 0, b"0123456789");
    lab.pass(ms(5));
    lab.say(0, 0, b"0123456789");
    assert!(acknowledges(&lab.step()[0], 10));
    lab.say(5, 0, b"56789abcde"); // half old
    assert!(acknowledges(&lab.step()[0], 15));
    lab.say(200_000, 0, b"beyond the window");
    assert!(acknowledges(&lab.step()[0], 15));
    lab.say(15, 10, b"acknowledges what was never sent");
    assert!(acknowledges(&lab.step()[0], 15));
    assert_eq!(lab.socket().taken, b"0123456789abcde");
}

#[test]
fn old_timestamps_are_not_believed() {
    let mut lab = Lab::new();
    lab.timestamps = true;
    lab.connect();
    let mut segment = lab.segment(0, 0, b"old");
    segment.options[7] = 0; // before the SYN's
    lab.send(&segment);
    assert!(acknowledges(&lab.step()[0], 0));
    segment.options[7] = 9;
    lab.send(&segment);
    let got = lab.pass(ms(5));
    assert!(acknowledges(&got[0].1, 3));
    assert_eq!(got[0].1.options.timestamps.unwrap().echo, 9);
}

#[test]
fn a_keepalive_probe_of_the_guest_is_answered() {
    let mut lab = Lab::open();
    lab.say(0, 0, b"x");
    lab.pass(ms(5));
    lab.say(0, 0, &[]);
    assert!(acknowledges(&lab.step()[0], 1));
}

#[test]
fn rounding_a_window_does_not_make_it_endless() {
    let mut config = config();
    config.tcp.max_window = 65_535;
    let mut lab = Lab::with(config);
    lab.connect();
    lab.socket().room = 0;
    let (mut at, mut edge) = (0, 65_535);
    for _ in 0..400_000 {
        if at >= edge {
            break;
        }
        // One byte at a time, and an acknowledgement for each: the window's granularity is 128.
        lab.say(at, 0, b"x");
        at += 1;
        lab.flag(-1, 0, &[], ACK);
        let got = lab.step();
        let told = at + (i64::from(got.last().unwrap().window) << 7);
        assert!(told + 128 > edge, "taken back: {told} of {edge}");
        edge = edge.max(told);
    }
    assert!(at <= 65_535 + (64 << 10) + 128, "{at} bytes taken in");
    let held = lab.engine.flows().map(|flow| flow.memory).max().unwrap();
    assert!(held <= 260 << 10, "{held}");
    lab.make_room(usize::MAX);
    assert_eq!(lab.socket().taken.len(), usize::try_from(at).unwrap());
}

/// A connection whose window towards the guest is used up.
fn closed_window() -> Lab {
    let mut config = config();
    config.tcp.max_window = 65_535;
    let mut lab = Lab::with(config);
    lab.connect();
    lab.socket().room = 0;
    lab.say(0, 0, &bytes(65_535)[..40_000]);
    lab.say(40_000, 0, &bytes(25_535));
    assert_eq!(lab.step().last().unwrap().window, 0);
    lab
}

#[test]
fn a_closed_window_stops_data_but_not_acknowledgements() {
    let mut lab = closed_window();
    lab.serve(b"answer");
    lab.step();
    lab.say(65_535, 6, b"!"); // a probe as BSD sends it
    let got = lab.step();
    assert!(acknowledges(&got[0], 65_535), "{got:?}");
    assert!(lab.socket().queue.is_empty(), "RFC 9293 §3.10.7.4: the ACK counts");
    assert!(lab.pass(ms(5000)).is_empty(), "nothing is repeated");
}

#[test]
fn a_closed_window_lets_a_bare_fin_in() {
    let mut lab = closed_window();
    lab.flag(65_535, 0, &[], FIN);
    assert!(acknowledges(&lab.step()[0], 65_536));
    lab.make_room(usize::MAX);
    assert!(lab.socket().shut);
    let mut lab = closed_window();
    lab.flag(65_535, 0, b"!", FIN);
    assert!(acknowledges(&lab.step()[0], 65_535), "but not one behind data");
}

#[test]
fn data_that_reaches_beyond_the_window_is_taken_up_to_it() {
    let mut config = config();
    config.tcp.max_window = 65_535;
    let mut lab = Lab::with(config);
    lab.connect();
    lab.socket().room = 0;
    lab.say(0, 0, &bytes(60_000));
    lab.step();
    lab.say(60_000, 0, &bytes(10_000));
    let got = lab.step();
    let taken = i64::from(got[0].ack.wrapping_sub(Lab::ours(0)));
    assert!((65_535..65_535 + 128).contains(&taken), "{taken}");
    lab.make_room(usize::MAX);
    assert_eq!(i64::try_from(lab.socket().taken.len()).unwrap(), taken);
}

#[test]
fn the_rhythm_of_the_guests_keepalive_is_passed_on() {
    let mut lab = Lab::open();
    lab.say(0, 0, b"x");
    lab.pass(ms(5));
    lab.say(0, 0, b"x");
    lab.pass(ms(14_960));
    assert_eq!(lab.host.keepalives, [], "a repeat is no probe");
    for _ in 0..3 {
        lab.say(0, 0, &[]);
        lab.pass(ms(15_010));
    }
    assert_eq!(lab.host.keepalives, [(lab.id, 15, 15)], "told once");
    lab.pass(ms(284_990));
    lab.say(0, 0, b"x"); // with a byte, as some send it
    assert_eq!(lab.host.keepalives[1..], [(lab.id, 300, 75)], "the guest has changed it");
    lab.pass(ms(1000));
    lab.flag(-1, 0, &[], 0);
    lab.say(0, 0, b"xy");
    assert_eq!(lab.host.keepalives.len(), 2, "not from where a probe comes, not what a probe holds");
}

#[test]
fn a_probe_of_a_closed_window_is_no_keepalive() {
    let mut lab = closed_window();
    for _ in 0..5 {
        lab.pass(ms(3000));
        lab.say(65_534, 0, &[]);
    }
    assert_eq!(lab.host.keepalives, []);
}
