use super::*;

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1000)
}

fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 2, n])
}

fn frame(n: u8) -> Waiting {
    Waiting { offload: Offload::NONE, frame: vec![n] }
}

#[test]
fn a_reply_releases_the_waiting_frames_in_order() {
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    assert_eq!(cache.lookup(at(0), ip(100)), Lookup::Resolve { ask: true });
    cache.wait(ip(100), frame(1)).unwrap();
    assert_eq!(cache.lookup(at(1), ip(100)), Lookup::Resolve { ask: false });
    cache.wait(ip(100), frame(2)).unwrap();
    assert!(cache.learn(at(2), ip(100), MAC));
    assert_eq!(cache.take_waiting(ip(100)), [frame(1), frame(2)]);
    assert_eq!(cache.lookup(at(3), ip(100)), Lookup::Known(MAC));
    assert_eq!(cache.next_timeout(), None);
    assert!(!cache.learn(at(4), ip(100), MAC), "nothing waits any more");
}

#[test]
fn three_requests_then_unreachable_then_anew() {
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    cache.lookup(at(0), ip(9));
    cache.wait(ip(9), frame(1)).unwrap();
    assert_eq!(cache.next_timeout(), Some(at(1000)));
    assert_eq!(cache.on_timeout(at(999)), None);
    assert_eq!(cache.on_timeout(at(1000)), Some(Due::Ask(ip(9))));
    assert_eq!(cache.on_timeout(at(1000)), None);
    assert_eq!(cache.lookup(at(1500), ip(9)), Lookup::Resolve { ask: false });
    assert_eq!(cache.on_timeout(at(2000)), Some(Due::Ask(ip(9))));
    assert_eq!(cache.on_timeout(at(3000)), Some(Due::GaveUp(ip(9), vec![frame(1)])));
    assert_eq!(cache.next_timeout(), None);
    assert_eq!(cache.lookup(at(3500), ip(9)), Lookup::Unreachable);
    assert_eq!(cache.wait(ip(9), frame(2)), Err(DropReason::Unresolved));
    assert_eq!(cache.lookup(at(4000), ip(9)), Lookup::Resolve { ask: true });
}

#[test]
fn without_waiting_frames_lookups_alone_drive_the_resolution() {
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    let seen: Vec<_> = (0..12).map(|half| cache.lookup(at(half * 500), ip(9))).collect();
    let (ask, hold) = (Lookup::Resolve { ask: true }, Lookup::Resolve { ask: false });
    let round = [ask, hold, ask, hold, ask, hold, Lookup::Unreachable, Lookup::Unreachable];
    assert_eq!(seen[..8], round);
    assert_eq!(seen[8..], round[..4]);
    assert_eq!(cache.next_timeout(), None, "no timer for an address that nobody waits for");
}

#[test]
fn stale_knowledge_is_used_while_it_is_asked_for() {
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    cache.learn(at(0), ip(1), MAC);
    assert_eq!(cache.lookup(at(599_999), ip(1)), Lookup::Known(MAC));
    assert_eq!(cache.lookup(at(600_000), ip(1)), Lookup::Stale(MAC));
    assert_eq!(cache.lookup(at(600_500), ip(1)), Lookup::Known(MAC), "asked a moment ago");
    assert_eq!(cache.lookup(at(601_000), ip(1)), Lookup::Stale(MAC));
    cache.learn(at(601_001), ip(1), MAC);
    assert_eq!(cache.lookup(at(1_201_000), ip(1)), Lookup::Known(MAC), "confirmed");
    // Nobody answers any more.
    for second in 1202..1205 {
        assert_eq!(cache.lookup(at(second * 1000), ip(1)), Lookup::Stale(MAC));
    }
    assert_eq!(cache.lookup(at(1_205_000), ip(1)), Lookup::Resolve { ask: true });
    assert_eq!(cache.peek(ip(1)), None);
}

#[test]
fn packets_confirm_what_is_known() {
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    assert_eq!(cache.seen(at(0), ip(1), MAC), Seen::New);
    for minute in 1..30 {
        assert_eq!(cache.seen(at(minute * 60_000), ip(1), MAC), Seen::There);
    }
    assert_eq!(cache.lookup(at(30 * 60_000), ip(1)), Lookup::Known(MAC));
    // What is waited for may be answered by a packet just as well.
    cache.lookup(at(0), ip(2));
    assert_eq!(cache.seen(at(1), ip(2), MAC), Seen::New);
}

#[test]
fn a_packet_from_where_the_last_one_came_from_confirms_and_no_other_does() {
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    assert!(!cache.confirm(at(0), ip(1), MAC), "nothing is known");
    cache.learn(at(0), ip(1), MAC);
    for minute in 1..30 {
        assert!(cache.confirm(at(minute * 60_000), ip(1), MAC));
    }
    assert_eq!(cache.lookup(at(30 * 60_000), ip(1)), Lookup::Known(MAC));
    assert!(!cache.confirm(at(30 * 60_000), ip(1), MacAddr([2, 0, 0, 0, 0, 66])), "another station");
    assert!(!cache.confirm(at(30 * 60_000), ip(2), MAC), "another address");
    assert_eq!(cache.lookup(at(45 * 60_000), ip(1)), Lookup::Stale(MAC), "neither has confirmed anything");
    cache.forget(ip(1));
    assert!(!cache.confirm(at(45 * 60_000), ip(1), MAC));
}

#[test]
fn a_packets_source_does_not_move_an_address_whose_station_answers() {
    const FORGER: MacAddr = MacAddr([2, 0, 0, 0, 0, 66]);
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    cache.learn(at(0), ip(1), MAC);
    for round in 0..100 {
        let now = round * 500;
        let ask = round % 2 == 0;
        assert_eq!(cache.seen(at(now), ip(1), FORGER), Seen::Elsewhere { at: MAC, ask });
        if ask {
            cache.learn(at(now + 1), ip(1), MAC);
            assert_eq!(cache.seen(at(now + 2), ip(1), FORGER), Seen::Elsewhere { at: MAC, ask: false });
        }
    }
    assert_eq!(cache.peek(ip(1)), Some(MAC));
}

#[test]
fn an_address_whose_station_is_silent_moves_after_three_requests() {
    const NEXT: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    cache.learn(at(0), ip(1), MAC);
    let seen: Vec<_> = (0..8).map(|half| cache.seen(at(half * 500), ip(1), NEXT)).collect();
    let (ask, hold) = (Seen::Elsewhere { at: MAC, ask: true }, Seen::Elsewhere { at: MAC, ask: false });
    assert_eq!(seen, [ask, hold, ask, hold, ask, hold, Seen::New, Seen::There]);
    assert_eq!(cache.peek(ip(1)), Some(NEXT));
    // Its own word counts at once.
    cache.learn(at(9000), ip(1), MAC);
    assert_eq!(cache.peek(ip(1)), Some(MAC));
}

#[test]
fn entries_are_found_whatever_was_forgotten_or_pushed_out() {
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    let mac = |n: u16| MacAddr([2, 0, 0, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    let ip = |n: u16| IpAddr::from([10, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    for n in 0..1000 {
        cache.learn(at(n.into()), ip(n), mac(n));
        if n % 7 == 3 {
            cache.forget(ip(n - 1));
        }
    }
    for n in 0..1000 {
        let known = cache.entries.iter().any(|entry| entry.ip == ip(n));
        assert_eq!(cache.peek(ip(n)), known.then_some(mac(n)), "{n}");
    }
    assert_eq!((cache.index.len(), cache.entries.len()), (cache.entries.len(), CAPACITY));
    cache.clear(OnLink::default());
    assert_eq!((cache.peek(ip(999)), cache.index.len()), (None, 0));
}

#[test]
fn the_newest_frames_of_a_neighbour_are_kept() {
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    cache.lookup(at(0), ip(1));
    for n in 0..10 {
        cache.wait(ip(1), frame(n)).unwrap();
    }
    assert_eq!(cache.take_waiting(ip(1)), (2..10).map(frame).collect::<Vec<_>>());
    assert_eq!(cache.take_lost(), 2);
}

#[test]
fn the_total_is_bounded() {
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    for n in 0..8 {
        cache.lookup(at(0), ip(n));
        for k in 0..8 {
            cache.wait(ip(n), frame(k)).unwrap();
        }
    }
    cache.lookup(at(0), ip(8));
    assert_eq!(cache.wait(ip(8), frame(0)), Err(DropReason::NoRoom));
}

#[test]
fn a_flood_of_addresses_evicts_the_least_recently_used_and_spares_waiting_frames() {
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    cache.lookup(at(0), ip(1));
    cache.wait(ip(1), frame(1)).unwrap();
    cache.learn(at(1), ip(2), MAC);
    for n in 0..1000_u32 {
        let flood = IpAddr::from((0x0a01_0000 + n).to_be_bytes());
        cache.learn(at(u64::from(n) + 2), flood, MAC);
        assert_eq!(cache.lookup(at(u64::from(n) + 2), ip(2)), Lookup::Known(MAC), "in use, so it stays");
    }
    assert_eq!(cache.entries.len(), CAPACITY);
    assert_eq!(cache.take_waiting(ip(1)), [frame(1)]);
    assert_eq!(cache.peek(IpAddr::from(0x0a01_0000_u32.to_be_bytes())), None);
}

#[test]
fn who_left_is_forgotten() {
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    cache.learn(at(0), ip(1), MAC);
    cache.learn(at(0), ip(2), MAC);
    cache.forget(ip(1));
    assert_eq!((cache.peek(ip(1)), cache.peek(ip(2))), (None, Some(MAC)));
    assert_eq!(cache.lookup(at(1), ip(1)), Lookup::Resolve { ask: true });
}

#[test]
fn impossible_addresses_teach_nothing() {
    let mut cache = Neighbours::new([5; 16], OnLink::default());
    cache.learn(at(0), ip(1), MacAddr::BROADCAST);
    cache.learn(at(0), ip(1), MacAddr([0; 6]));
    cache.learn(at(0), IpAddr::from([0, 0, 0, 0]), MAC);
    cache.learn(at(0), IpAddr::from([224, 0, 0, 1]), MAC);
    assert!(cache.entries.is_empty());
}
