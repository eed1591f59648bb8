//! Memory that all flows share: what a hole costs, and what happens to whom when the bound is reached.

use super::*;
use crate::testing::config;

/// A lab whose flows may hold `max_held` bytes in all.
fn bounded(max_held: u64) -> Lab {
    let mut config = config();
    config.tcp.max_held = max_held;
    config.max_flows = 10_000;
    Lab::with(config)
}

/// Another connection, of the guest with the last octet `guest`.
fn connect(lab: &mut Lab, guest: u8, port: u16) -> FlowId {
    lab.guest = SocketAddr::from(([10, 0, 2, guest], port));
    lab.connect();
    lab.id
}

/// Makes one of the connections the one under test again.
fn select(lab: &mut Lab, guest: u8, port: u16, id: FlowId, first: u32) {
    lab.guest = SocketAddr::from(([10, 0, 2, guest], port));
    (lab.id, lab.first) = (id, first);
}

/// The guest uploads its bytes from `at` to `end`, as far as they are taken; returns how far that is.
fn upload(lab: &mut Lab, mut at: i64, end: i64) -> i64 {
    let data = bytes(usize::try_from(end).unwrap());
    for _ in 0..1000 {
        let part = at..end.min(at + 10_000);
        lab.say(at, 0, &data[usize::try_from(part.start).unwrap()..usize::try_from(part.end).unwrap()]);
        let acked =
            lab.pass(ms(2)).last().map_or(at, |(_, got)| i64::from(got.ack.wrapping_sub(Lab::ours(0))));
        if acked == at || acked == end {
            return acked;
        }
        at = acked;
    }
    at
}

fn held(lab: &Lab) -> usize {
    let places = lab.engine.flow_count() * size_of::<super::super::Tcp>();
    let all: usize = lab.engine.flows().map(|flow| flow.memory).sum();
    assert_eq!(all - places, lab.engine.tcp.held(), "the account is right");
    lab.engine.tcp.held()
}

#[test]
fn a_byte_at_the_far_edge_of_thousands_of_windows_costs_little() {
    let mut lab = bounded(384 << 20);
    for port in 1..=6500 {
        connect(&mut lab, 100, port);
        lab.say(64_500, 0, b"x");
        assert!(acknowledges(&lab.step()[0], 0));
    }
    assert!(held(&lab) < 1 << 20, "{}", held(&lab));
    // An upload to a reader that pauses blocks, lives, and goes on.
    connect(&mut lab, 100, 7000);
    lab.socket().room = 100_000;
    let at = upload(&mut lab, 0, 3_000_000);
    assert!(at >= 160_000 && lab.lives(), "{at}");
    lab.make_room(usize::MAX);
    assert_eq!(i64::try_from(lab.socket().taken.len()), Ok(at));
    assert!(!lab.step().is_empty(), "the window opens");
}

#[test]
fn the_guest_that_holds_most_forgets_first_and_sack_tells_of_it_no_more() {
    let mut lab = bounded(1 << 20);
    let greedy = connect(&mut lab, 101, 1);
    let first = lab.first;
    for n in 0..6 {
        lab.say(1000 + n * 10_000, 0, &bytes(10_000));
    }
    lab.step();
    for port in 2..=10 {
        connect(&mut lab, 101, port);
        lab.say(1000, 0, &bytes(60_000));
        lab.step();
    }
    assert!((400 << 10..=512 << 10).contains(&held(&lab)), "half at most: {}", held(&lab));
    connect(&mut lab, 102, 1);
    lab.say(1000, 0, &bytes(10_000));
    assert_eq!(lab.step()[0].options.sack[0].map(|range| range.end.0), Some(Lab::ours(11_000)));
    let modest = (lab.id, lab.first);
    // Bytes in order of a third guest need the room.
    for (guest, port) in (1..=8).map(|port| (103, port)).chain((1..=3).map(|port| (104, port))) {
        connect(&mut lab, guest, port);
        lab.socket().room = 0;
        lab.say(0, 0, &bytes(60_000));
        assert!(acknowledges(&lab.step()[0], 60_000), "{guest} {port}");
        assert!(held(&lab) <= 1 << 20);
    }
    assert_eq!(lab.engine.flow_count(), 22, "nobody is reset");
    select(&mut lab, 101, 1, greedy, first);
    lab.say(0, 0, &[]);
    lab.flag(-1, 0, &[], ACK);
    let got = lab.step();
    assert!(got[0].options.sack.iter().all(Option::is_none), "what is forgotten is not told: {got:?}");
    // It is taken when it is repeated.
    let data = bytes(61_000);
    lab.say(0, 0, &data[..1000]);
    for n in 0..6 {
        lab.say(1000 + n * 10_000, 0, &data[usize::try_from(1000 + n * 10_000).unwrap()..][..10_000]);
    }
    assert!(acknowledges(&lab.step()[0], 61_000));
    assert!(lab.socket().taken == data);
    select(&mut lab, 102, 1, modest.0, modest.1);
    lab.say(0, 0, &bytes(1000));
    assert!(acknowledges(&lab.step()[0], 11_000), "who held little kept it");
}

#[test]
fn a_guest_that_holds_its_share_in_order_is_not_acknowledged_and_nobody_is_reset() {
    let mut lab = bounded(1 << 20);
    let mut flows = Vec::new();
    for port in 1..=30 {
        let id = connect(&mut lab, 101, port);
        lab.socket().room = 0;
        flows.push((port, id, lab.first, upload(&mut lab, 0, 60_000)));
        assert!(held(&lab) <= 512 << 10, "half at most: {}", held(&lab));
    }
    // Another address finds room.
    connect(&mut lab, 102, 1);
    lab.socket().room = 0;
    lab.say(0, 0, &bytes(60_000));
    assert!(acknowledges(&lab.step()[0], 60_000));
    assert!(held(&lab) <= 1 << 20);
    assert_eq!(lab.engine.flow_count(), 31);
    // Readers read: what was refused is taken when it is repeated, and arrives whole.
    assert!(flows.iter().any(|flow| flow.3 == 60_000) && flows.iter().any(|flow| flow.3 == 0));
    for &(port, id, first, at) in &flows {
        select(&mut lab, 101, port, id, first);
        lab.make_room(usize::MAX);
        lab.pass(ms(1100));
        assert_eq!(upload(&mut lab, at, 60_000), 60_000, "{port}");
        assert_eq!(lab.socket().taken.len(), 60_000, "{port}");
        assert!(lab.socket().taken == bytes(60_000), "{port}");
    }
    assert_eq!(lab.engine.flow_count(), 31);
}

#[test]
fn a_new_flow_begins_with_one_segment_when_memory_is_short_and_grows_afterwards() {
    let mut lab = bounded(1 << 20);
    for port in 1..=10 {
        connect(&mut lab, 101, port);
        lab.socket().room = 0;
        lab.say(0, 0, &bytes(60_000));
        lab.step();
    }
    let first = lab.host.connects[0].0;
    lab.guest = "10.0.2.101:2000".parse().unwrap();
    lab.syn();
    lab.event(Event::Connected);
    let got = lab.step();
    assert_eq!((got[0].flags, got[0].window), (SYN | ACK, 1460));
    lab.first = got[0].seq.wrapping_add(1);
    lab.say(0, 0, &bytes(1460));
    let got = lab.pass(ms(5));
    assert!(acknowledges(&got[0].1, 1460), "its reader reads: it needs no memory");
    assert!(u32::from(got[0].1.window) << 7 <= 1460 + 127);
    lab.socket().room = 0;
    lab.say(1460, 0, &bytes(1460));
    let got = lab.step();
    assert!(got.is_empty(), "there is no room: as if the link had lost it. {got:?}");
    lab.id = first;
    lab.make_room(usize::MAX);
    lab.id = lab.host.connects.last().map(|(id, _)| *id).unwrap();
    let got = lab.pass(ms(1100));
    let update = got.iter().find(|(_, got)| got.ack == Lab::ours(1460)).expect("its window opens by itself");
    assert!(update.0 <= ms(1000));
    lab.say(1460, 0, &bytes(1460));
    let got = lab.pass(ms(5));
    let got = &got.last().unwrap().1;
    assert!(acknowledges(got, 2920) && u32::from(got.window) << 7 > 60_000, "{got:?}");
}

#[test]
fn what_is_held_up_looks_again_and_rests_when_it_is_through() {
    let mut lab = bounded(192 << 10);
    let id = connect(&mut lab, 100, 3);
    let first = lab.first;
    for port in 1..=2 {
        connect(&mut lab, 100, port);
        lab.socket().room = 0;
        lab.say(0, 0, &bytes(30_000));
        lab.step();
    }
    select(&mut lab, 100, 3, id, first);
    lab.socket().room = 0;
    for n in 0..6 {
        lab.say(n * 10_000, 0, &bytes(10_000));
    }
    lab.flag(60_000, 0, &[], FIN);
    let got = lab.step();
    assert!(got.last().is_some_and(|got| got.ack == Lab::ours(32 << 10)), "half of the bound: {got:?}");
    lab.pass(ms(60_000));
    lab.make_room(usize::MAX);
    lab.say(30_000, 0, &bytes(30_000));
    assert!(lab.pass(ms(5000)).iter().any(|(_, got)| got.ack == Lab::ours(60_001)), "the end is known still");
    assert!(lab.socket().shut);
    lab.serve_end();
    lab.step();
    lab.say(60_001, 1, &[]);
    lab.step();
    assert!(!lab.lives());
    assert_eq!(held(&lab), 64 << 10, "what the others hold");
    assert!(lab.engine.next_timeout().is_some_and(|at| at > lab.now + ms(60_000)), "nobody is held up");
}
