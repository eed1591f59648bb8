//! What the policy for the stack's own resolvers adds: memory, late answers, the next server on errors, TCP, cache.

use super::*;

const UDP: Transport = Transport::Udp;

#[test]
fn a_dead_server_is_asked_last_then_tried_and_then_first_again() {
    let mut bench = Bench::new(Policy { cache: None, ..Policy::trusted() });
    let list = servers(2);
    let asks_first = |bench: &mut Bench, now: Duration| {
        bench.ask(now, Transport::Udp, &query("a.example"), &list);
        let (attempt, server, sent) = bench.sent();
        (attempt, server, answer(&sent, 0, 0, 9))
    };
    // It costs one question 1.5 seconds, and no other.
    let (_, server, _) = asks_first(&mut bench, MS(0));
    assert_eq!((server, bench.until()), (list[0], MS(1500)));
    bench.forwarder.timeout(MS(1500));
    let (attempt, server, sent) = bench.sent();
    assert_eq!(server, list[1]);
    bench.forwarder.received(MS(1501), attempt, server, &answer(&sent, 0, 0, 9));
    bench.actions();
    for now in [1502, 31_499] {
        let (attempt, server, reply) = asks_first(&mut bench, MS(now));
        assert_eq!(server, list[1]);
        bench.forwarder.received(MS(now), attempt, server, &reply);
        bench.actions();
    }
    // Then one question tries it; others do not wait for that.
    let (trial, server, reply) = asks_first(&mut bench, MS(31_500));
    assert_eq!(server, list[0]);
    assert_eq!(asks_first(&mut bench, MS(31_501)).1, list[1]);
    bench.forwarder.received(MS(31_510), trial, server, &reply);
    bench.actions();
    assert_eq!(asks_first(&mut bench, MS(31_511)).1, list[0]);
}

#[test]
fn a_server_that_stays_dead_is_left_alone_for_longer() {
    let (mut health, policy, server) = (Health::default(), Policy::trusted(), servers(1)[0]);
    let list = servers(2);
    let mut now = MS(0);
    for wait in [30, 60, 120, 240, 240] {
        health.dead(now, server, UDP, &policy);
        let wait = Duration::from_secs(wait);
        // Questions that were under way fail a little later, which is nothing new.
        health.dead(now + MS(100), server, UDP, &policy);
        assert_eq!(health.order(now + wait - MS(1), UDP, &list, &policy), [list[1], list[0]]);
        now += wait;
        assert_eq!(health.order(now, UDP, &list, &policy), list);
    }
    health.alive(server, UDP);
    assert_eq!(health.order(now, UDP, &list, &policy), list);
    for n in 0..2000u16 {
        health.dead(now, SocketAddr::from(([192, 0, 2, 1], n)), UDP, &policy);
    }
    assert!(health.remembered() <= 256);
    let mut health = Health::default();
    health.dead(now, server, UDP, &Policy::aardvark());
    assert_eq!(health.remembered(), 0);
}

#[test]
fn a_late_answer_counts_where_one_can_trust() {
    let mut bench = Bench::new(Policy::trusted());
    let list = servers(2);
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &list);
    let (first, _, sent) = bench.sent();
    bench.forwarder.timeout(MS(1500));
    let (second, ..) = bench.sent();
    // The last server has what is left of five seconds.
    assert_eq!(bench.until(), MS(5000));
    let reply = answer(&sent, 0, 0, 300);
    assert_eq!(bench.forwarder.received(MS(1600), first, list[0], &reply), Received::Accepted);
    let actions = bench.actions();
    assert!(
        actions.contains(&Action::Close { attempt: first })
            && actions.contains(&Action::Close { attempt: second })
    );
    // With the other policy it does not.
    let mut bench = Bench::new(Policy::aardvark());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &list);
    let (first, _, sent) = bench.sent();
    bench.forwarder.timeout(MS(2500));
    bench.sent();
    let reply = answer(&sent, 0, 0, 300);
    assert_eq!(bench.forwarder.received(MS(2600), first, list[0], &reply), Received::Stale);
}

#[test]
fn the_next_server_is_asked_when_one_says_servfail() {
    let mut bench = Bench::new(Policy::trusted());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &servers(2));
    let (attempt, server, sent) = bench.sent();
    bench.forwarder.received(MS(1), attempt, server, &answer(&sent, 0, 2, 0));
    let (attempt, server, sent) = bench.sent();
    assert_eq!(server, servers(2)[1]);
    bench.forwarder.received(MS(2), attempt, server, &answer(&sent, 0, 5, 0));
    // Nobody knows: what the second said is the last word.
    assert_eq!(bench.replied()[3] & 15, 5);
    // The other policy relays the first word.
    let mut bench = Bench::new(Policy::aardvark());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &servers(2));
    let (attempt, server, sent) = bench.sent();
    bench.forwarder.received(MS(1), attempt, server, &answer(&sent, 0, 2, 0));
    assert_eq!(bench.replied()[3] & 15, 2);
}

#[test]
fn servfail_of_the_last_waits_for_the_slow_first() {
    let mut bench = Bench::new(Policy::trusted());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &servers(2));
    let (slow, first, asked) = bench.sent();
    bench.forwarder.timeout(MS(1500));
    let (attempt, server, sent) = bench.sent();
    let mut refused = answer(&sent, 0, 5, 0);
    refused[7] = 0;
    refused.truncate(query("a.example").len());
    bench.forwarder.received(MS(1600), attempt, server, &refused);
    assert_eq!(bench.actions(), [Action::Close { attempt }]);
    bench.forwarder.received(MS(1700), slow, first, &answer(&asked, 0, 0, 60));
    assert_eq!(bench.replied()[3] & 15, 0);
}

#[test]
fn a_truncated_answer_is_fetched_over_tcp_where_one_can_trust() {
    let list = servers(2);
    let truncated_then = |policy: Policy| {
        let mut bench = Bench::new(policy);
        bench.ask(MS(0), Transport::Udp, &query("a.example"), &list);
        let (attempt, server, sent) = bench.sent();
        bench.forwarder.received(MS(1), attempt, server, &answer(&sent, 2, 0, 60));
        bench
    };
    // Relayed as it is.
    assert_eq!(truncated_then(Policy::aardvark()).replied()[2] & 2, 2);
    // Fetched from the same server, and whole.
    let mut bench = truncated_then(Policy::trusted());
    let actions = bench.actions();
    let Some(Action::SendTcp { attempt, server, message }) = actions.last() else { panic!("{actions:?}") };
    assert_eq!(*server, list[0]);
    bench.forwarder.received(MS(2), *attempt, *server, &answer(message, 0, 0, 60));
    assert_eq!(bench.replied()[2] & 2, 0);
    // Too long for the client: it has to come over TCP itself, which is what the truncated answer says.
    let mut bench = truncated_then(Policy::trusted());
    let (attempt, server, message) = bench.sent();
    let long = [&answer(&message, 0, 0, 60)[..], &[0; 600]].concat();
    bench.forwarder.received(MS(2), attempt, server, &long);
    assert_eq!(bench.replied()[2] & 2, 2);
    // Not to be had over TCP.
    for late in [false, true] {
        let mut bench = truncated_then(Policy::trusted());
        let (attempt, ..) = bench.sent();
        if late {
            let deadline = bench.forwarder.deadline().unwrap();
            bench.forwarder.timeout(deadline);
        } else {
            bench.forwarder.failed(MS(2), attempt);
        }
        assert_eq!(bench.replied()[2] & 2, 2);
        let policy = Policy::trusted();
        assert!(bench.forwarder.health.answers(MS(2), UDP, list[0], &policy), "its datagrams came");
    }
}

#[test]
fn an_answer_is_kept_and_given_again() {
    let mut bench = Bench::new(Policy::trusted());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &servers(2));
    let (attempt, server, sent) = bench.sent();
    bench.forwarder.received(MS(1), attempt, server, &answer(&sent, 0, 0, 60));
    let first = bench.replied();
    bench.ask(MS(10_500), Transport::Udp, &query("A.Example"), &servers(2));
    let again = bench.replied();
    assert_eq!(again[..4], first[..4]);
    assert_eq!(again[again.len() - 10..again.len() - 6], 50u32.to_be_bytes());
    assert_eq!((bench.forwarder.counters().cached, bench.forwarder.counters().answered), (1, 1));
    bench.forwarder.forget();
    bench.ask(MS(10_500), Transport::Udp, &query("a.example"), &servers(2));
    bench.sent();
}

#[test]
fn a_server_silent_over_tcp_is_dead_to_tcp_alone() {
    let mut bench = Bench::new(Policy::trusted());
    let list = servers(2);
    bench.ask(MS(0), Transport::Tcp, &query("a.example"), &list);
    let (attempt, server, _) = bench.sent();
    bench.forwarder.failed(MS(0), attempt);
    assert_eq!((server, bench.sent().1), (list[0], list[1]));
    let mut first = |transport, name| {
        bench.ask(MS(1), transport, &query(name), &list);
        bench.sent()
    };
    assert_eq!(first(Transport::Tcp, "b.example").1, list[1]);
    let (attempt, server, sent) = first(Transport::Udp, "c.example");
    assert_eq!(server, list[0]);
    // A truncated answer is not fetched over TCP then, and that it answers over UDP does not bring TCP back.
    bench.forwarder.received(MS(2), attempt, server, &answer(&sent, 0x02, 0, 60));
    assert_eq!(bench.replied()[2] & 0x02, 0x02);
    bench.ask(MS(3), Transport::Tcp, &query("d.example"), &list);
    assert_eq!(bench.sent().1, list[1]);
    // One that is silent over UDP is dead to both.
    let (attempt, ..) = {
        bench.ask(MS(4), Transport::Udp, &query("e.example"), &list[1..]);
        bench.sent()
    };
    bench.forwarder.failed(MS(4), attempt);
    bench.replied();
    bench.ask(MS(40_000), Transport::Tcp, &query("f.example"), &list);
    assert_eq!(bench.sent().1, list[0], "the others' time is over");
}

#[test]
fn a_truncated_answer_waits_for_tcp_no_longer_than_for_a_server() {
    let mut bench = Bench::new(Policy::trusted());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &servers(1));
    let (attempt, server, sent) = bench.sent();
    bench.forwarder.received(MS(100), attempt, server, &answer(&sent, 0x02, 0, 60));
    bench.sent();
    assert_eq!(bench.forwarder.deadline(), Some(MS(1600)));
    bench.forwarder.timeout(MS(1600));
    assert_eq!(bench.replied()[2] & 0x02, 0x02);
}

#[test]
fn the_same_question_is_asked_once_at_a_time() {
    let mut bench = Bench::new(Policy::trusted());
    let list = servers(2);
    bench.ask(MS(0), UDP, &query("a.example"), &list);
    let (attempt, server, sent) = bench.sent();
    for n in 0..99u8 {
        let mut twin = query(if n % 2 == 0 { "A.Example" } else { "a.example" });
        twin[1] = n;
        bench.ask(MS(1), UDP, &twin, &list);
    }
    assert_eq!((bench.actions(), bench.forwarder.pending()), (Vec::new(), 1));
    // Over another transport, to other servers, about another name it is another question.
    bench.ask(MS(1), Transport::Tcp, &query("a.example"), &list);
    bench.ask(MS(1), UDP, &query("a.example"), &list[1..]);
    bench.ask(MS(1), UDP, &query("b.example"), &list);
    assert_eq!(bench.actions().len(), 3);
    bench.forwarder.received(MS(2), attempt, server, &answer(&sent, 0, 0, 60));
    let actions = bench.actions();
    let replies: Vec<&[u8]> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Reply { message, .. } => Some(&message[..]),
            _ => None,
        })
        .collect();
    assert_eq!((actions.len(), replies.len()), (101, 100));
    assert_eq!((replies[0][1], replies[1][1], replies[99][1]), (0x34, 0, 98));
    assert_eq!((&replies[1][13..14], &replies[2][13..14]), (&b"A"[..], &b"a"[..]), "each in its own words");
    // Kept for all.
    bench.ask(MS(3), UDP, &query("a.example"), &list);
    bench.replied();
    let counters = bench.forwarder.counters();
    assert_eq!((counters.shared, counters.answered, counters.cached), (99, 1, 1));
}

#[test]
fn who_waits_with_another_is_told_and_counted_with_him() {
    let mut bench = Bench::new(Policy { max_per_source: 3, ..Policy::trusted() });
    for _ in 0..4 {
        bench.ask(MS(0), UDP, &query("a.example"), &servers(1));
    }
    let actions = bench.actions();
    assert!(matches!(actions[..], [Action::SendUdp { .. }, Action::Reply { client: 4, .. }]), "{actions:?}");
    while let Some(deadline) = bench.forwarder.deadline() {
        bench.forwarder.timeout(deadline);
    }
    let told = bench.actions().iter().filter(|action| matches!(action, Action::Reply { .. })).count();
    assert_eq!((told, bench.forwarder.per_source.len(), bench.forwarder.twins.waiting), (3, 0, 0));
    assert!(bench.forwarder.twins.asked.is_empty());
    // The original's manner keeps nothing, and asks each time.
    let mut bench = Bench::new(Policy::aardvark());
    for _ in 0..3 {
        bench.ask(MS(0), UDP, &query("a.example"), &servers(1));
    }
    assert_eq!(bench.actions().len(), 3);
}
