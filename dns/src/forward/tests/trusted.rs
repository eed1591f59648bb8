//! What the policy for the stack's own resolvers adds: memory, late answers, the next server on errors, TCP, cache.

use super::*;

const UDP: Transport = Transport::Udp;

/// A new question about `name`; the attempts that begin with it.
fn asked(
    bench: &mut Bench,
    now: Duration,
    name: &str,
    list: &[SocketAddr],
) -> Vec<(AttemptId, SocketAddr, Vec<u8>)> {
    bench.ask(now, UDP, &query(name), list);
    let sent = bench.actions().into_iter().map(|action| match action {
        Action::SendUdp { attempt, server, message } => (attempt, server, message),
        other => panic!("{other:?}"),
    });
    sent.collect()
}

/// An answer without records.
fn bare(query: &[u8], rcode: u8) -> Vec<u8> {
    let mut reply = query.to_vec();
    (reply[2], reply[3]) = (0x81, 0x80 | rcode);
    reply
}

fn replies(actions: &[Action<u32>]) -> Vec<u8> {
    let rcode = |action: &Action<u32>| match action {
        Action::Reply { message, .. } => Some(message[3] & 15),
        _ => None,
    };
    actions.iter().filter_map(rcode).collect()
}

#[test]
fn a_server_is_dead_when_it_missed_its_patience_and_is_tried_beside_the_others() {
    let mut bench = Bench::new(Policy { cache: None, ..Policy::trusted() });
    let list = servers(2);
    let of = |sent: &[(AttemptId, SocketAddr, Vec<u8>)]| -> Vec<SocketAddr> {
        sent.iter().map(|(_, server, _)| *server).collect()
    };
    let answers = |bench: &mut Bench, now, (attempt, server, sent): &(AttemptId, SocketAddr, Vec<u8>)| {
        bench.forwarder.received(now, *attempt, *server, &answer(sent, 0, 0, 9));
        replies(&bench.actions())
    };
    // It costs one question 1.5 seconds, and no other.
    assert_eq!(of(&asked(&mut bench, MS(0), "a.example", &list)), [list[0]]);
    bench.wait(MS(1499));
    bench.forwarder.timeout(MS(1500));
    let second = bench.sent();
    assert_eq!((second.1, answers(&mut bench, MS(1501), &second)), (list[1], vec![0]));
    // It is only slow so far: asked in its place, and the next one along with it.
    let both = asked(&mut bench, MS(1502), "b.example", &list);
    assert_eq!((of(&both), answers(&mut bench, MS(1503), &both[1])), (list.clone(), vec![0]));
    assert!(!bench.forwarder.health.is_dead(UDP, list[0]));
    // The first question's socket was still open, and stays so until its patience ends.
    assert!(bench.wait(MS(5000)).iter().any(|action| matches!(action, Action::Close { .. })));
    assert!(bench.forwarder.health.is_dead(UDP, list[0]));
    for now in [5001, 34_999] {
        let sent = asked(&mut bench, MS(now), "c.example", &list);
        assert_eq!((of(&sent), answers(&mut bench, MS(now), &sent[0])), (list[1..].to_vec(), vec![0]));
    }
    // Then one question tries it, beside the others; another one meanwhile does not.
    let trial = asked(&mut bench, MS(35_000), "d.example", &list);
    assert_eq!((of(&trial), answers(&mut bench, MS(35_000), &trial[1])), (list.clone(), vec![0]));
    assert_eq!(of(&asked(&mut bench, MS(35_001), "e.example", &list)), [list[1]]);
    // The question is answered, and the answer still counts.
    assert_eq!(answers(&mut bench, MS(35_010), &trial[0]), []);
    assert_eq!(of(&asked(&mut bench, MS(35_011), "f.example", &list)), [list[0]]);
    while let Some(deadline) = bench.forwarder.deadline() {
        bench.forwarder.timeout(deadline);
    }
    assert_eq!((bench.forwarder.lingering.len(), bench.forwarder.pending()), (0, 0));
}

#[test]
fn a_server_that_is_silent_about_one_name_is_not_dead() {
    let mut bench = Bench::new(Policy { cache: None, ..Policy::trusted() });
    let list = servers(1);
    let broken = asked(&mut bench, MS(0), "broken.example", &list).remove(0);
    bench.wait(MS(4000));
    let (attempt, server, sent) = asked(&mut bench, MS(4000), "good.example", &list).remove(0);
    bench.forwarder.received(MS(4001), attempt, server, &answer(&sent, 0, 0, 9));
    assert_eq!(replies(&bench.actions()), [0]);
    assert_eq!(replies(&bench.wait(MS(9999))), []);
    assert!(!bench.forwarder.health.is_dead(UDP, list[0]), "it has answered another question meanwhile");
    // Silence ends in SERVFAIL after ten seconds, and not before.
    let actions = bench.wait(MS(10_000));
    assert_eq!(replies(&actions), [2]);
    assert!(actions.contains(&Action::Close { attempt: broken.0 }));
}

#[test]
fn a_server_that_stays_dead_is_left_alone_for_longer() {
    let (mut health, policy, server) = (Health::default(), Policy::trusted(), servers(1)[0]);
    let list = servers(2);
    let trial = Duration::from_secs(5);
    let order = |health: &mut Health, now| -> Vec<Standing> {
        health.order(now, UDP, &list, trial).iter().map(|server| server.standing).collect()
    };
    let mut now = MS(0);
    for wait in [30, 60, 120, 240, 240] {
        health.refused(now, (server, UDP), &policy);
        let wait = Duration::from_secs(wait);
        // Questions that were under way fail a little later, which is nothing new.
        health.missed(now + MS(100), (server, UDP), now, &policy);
        assert_eq!(order(&mut health, now + wait - MS(1)), [Standing::Fine, Standing::Dead]);
        now += wait;
        assert_eq!(order(&mut health, now), [Standing::Trial, Standing::Fine]);
    }
    health.alive(now, (server, UDP), true, &policy);
    assert_eq!(order(&mut health, now), [Standing::Fine; 2]);
    health.missed(now + trial, (server, UDP), now, &policy);
    assert_eq!(order(&mut health, now + trial), [Standing::Fine; 2], "it was heard meanwhile");
    for n in 0..2000u16 {
        health.refused(now, (SocketAddr::from(([192, 0, 2, 1], n)), UDP), &policy);
        health.alive(now, (SocketAddr::from(([192, 0, 2, 2], n)), UDP), true, &policy);
    }
    assert!(health.remembered() <= 256);
    let mut health = Health::default();
    health.refused(now, (server, UDP), &Policy::aardvark());
    health.alive(now, (server, UDP), true, &Policy::aardvark());
    assert_eq!(health.remembered(), 0);
}

#[test]
fn a_late_answer_counts_where_one_can_trust() {
    // The only server takes seven seconds.
    let mut bench = Bench::new(Policy::trusted());
    let (attempt, server, sent) = asked(&mut bench, MS(0), "a.example", &servers(1)).remove(0);
    bench.wait(MS(6999));
    assert!(bench.forwarder.health.is_dead(UDP, server));
    bench.forwarder.received(MS(7000), attempt, server, &answer(&sent, 0, 0, 300));
    assert_eq!(replies(&bench.actions()), [0]);
    assert!(!bench.forwarder.health.is_dead(UDP, server));
    // With the other policy what is late does not count.
    let mut bench = Bench::new(Policy::aardvark());
    let list = servers(2);
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &list);
    let (first, _, sent) = bench.sent();
    bench.wait(MS(2499));
    bench.forwarder.timeout(MS(2500));
    bench.sent();
    let reply = answer(&sent, 0, 0, 300);
    assert_eq!(bench.forwarder.received(MS(2600), first, list[0], &reply), Received::Stale);
}

/// The first server is slow, the second at once says that there is no such name: the first is right.
#[test]
fn that_there_is_no_such_name_is_not_final_while_an_earlier_server_is_out() {
    let list = servers(2);
    let names = [
        bare as fn(&[u8], u8) -> Vec<u8>,
        |query, _| bare(query, 0),
        |query, _| {
            // Nothing but an alias, for the type that was asked for.
            let mut alias = answer(query, 0, 0, 60);
            let at = query.len() + 3;
            alias[at] = 5;
            alias
        },
    ];
    for negative in names {
        let mut bench = Bench::new(Policy::trusted());
        let (slow, _, asked_first) = asked(&mut bench, MS(0), "cold.example", &list).remove(0);
        bench.wait(MS(1499));
        bench.forwarder.timeout(MS(1500));
        let (attempt, server, sent) = bench.sent();
        bench.forwarder.received(MS(1501), attempt, server, &negative(&sent, 3));
        assert_eq!(replies(&bench.actions()), []);
        bench.forwarder.received(MS(2000), slow, list[0], &answer(&asked_first, 0, 0, 300));
        assert_eq!(replies(&bench.actions()), [0]);
        // And the first is not dead: the next name is its own as well.
        let both = asked(&mut bench, MS(2100), "warm.example", &list);
        let (attempt, server, sent) = both[1].clone();
        bench.forwarder.received(MS(2101), attempt, server, &bare(&sent, 3));
        assert_eq!(replies(&bench.actions()), []);
        let (attempt, server, sent) = both[0].clone();
        bench.forwarder.received(MS(2102), attempt, server, &answer(&sent, 0, 0, 300));
        assert_eq!(replies(&bench.actions()), [0]);
    }
}

#[test]
fn that_there_is_no_such_name_is_final_when_the_earlier_server_is_dead_and_then_not_kept() {
    let mut bench = Bench::new(Policy::trusted());
    let list = servers(2);
    asked(&mut bench, MS(0), "a.example", &list);
    bench.wait(MS(1499));
    bench.forwarder.timeout(MS(1500));
    let (attempt, server, sent) = bench.sent();
    bench.forwarder.received(MS(1501), attempt, server, &bare(&sent, 3));
    assert_eq!(replies(&bench.wait(MS(4999))), []);
    assert_eq!(replies(&bench.wait(MS(5000))), [3]);
    for now in [5001, 5002, 5003] {
        let (attempt, server, sent) = asked(&mut bench, MS(now), "a.example", &list).remove(0);
        assert_eq!(server, list[1]);
        let mut reply = bare(&sent, 3);
        reply[9] = 1;
        reply.extend_from_slice(b"\xc0\x0c\0\x06\0\x01\0\0\0\x3c\0\x16\0\0");
        reply.extend_from_slice(&[0, 0, 0, 60].repeat(5));
        bench.forwarder.received(MS(now), attempt, server, &reply);
        assert_eq!(replies(&bench.actions()), [3], "at once");
    }
    // The first server's word is kept.
    let (attempt, server, sent) = asked(&mut bench, MS(5004), "a.example", &list[1..]).remove(0);
    let mut reply = bare(&sent, 3);
    reply[9] = 1;
    reply.extend_from_slice(b"\xc0\x0c\0\x06\0\x01\0\0\0\x3c\0\x16\0\0");
    reply.extend_from_slice(&[0, 0, 0, 60].repeat(5));
    bench.forwarder.received(MS(5004), attempt, server, &reply);
    assert_eq!(replies(&bench.actions()), [3]);
    bench.ask(MS(5005), UDP, &query("a.example"), &list[1..]);
    assert_eq!(bench.replied()[3] & 15, 3);
}

#[test]
fn an_error_in_hand_is_given_at_once_when_the_others_are_known_dead() {
    let mut bench = Bench::new(Policy { cache: None, ..Policy::trusted() });
    let list = servers(2);
    for (start, took) in [(0, 5000), (6000, 0), (7000, 0), (40_000, 0)] {
        let (attempt, server, sent) = asked(&mut bench, MS(start), "a.example", &list).pop().unwrap();
        let first = server == list[0];
        assert!(first, "{start}");
        bench.forwarder.received(MS(start), attempt, server, &bare(&sent, 5));
        let mut said = replies(&bench.actions());
        if took > 0 {
            assert_eq!(replies(&bench.wait(MS(start + took - 1))), []);
            said = replies(&bench.wait(MS(start + took)));
        }
        assert_eq!(said, [5], "{start}");
    }
}

#[test]
fn refusals_of_all_servers_are_told_at_once() {
    let mut bench = Bench::new(Policy::trusted());
    let list = servers(3);
    for round in 0..3 {
        bench.ask(MS(round), UDP, &query("a.example"), &list);
        for _ in 0..3 {
            let (attempt, ..) = bench.sent();
            bench.forwarder.failed(MS(round), attempt, Fault::Refused);
        }
        assert_eq!(bench.replied()[3] & 15, 2);
    }
    // What we lack ourselves is held against nobody, and ends in silence.
    let mut bench = Bench::new(Policy::trusted());
    bench.ask(MS(0), UDP, &query("a.example"), &list[..1]);
    let (attempt, ..) = bench.sent();
    bench.forwarder.failed(MS(0), attempt, Fault::Ours);
    assert!(matches!(bench.actions()[..], [Action::Close { .. }, Action::GiveUp { client: 1 }]));
    assert!(bench.forwarder.health.is_fine(UDP, list[0]));
}

/// An update is asked of one server, once, and an answer without sections is one (RFC 2136 §3.8).
#[test]
fn other_operations_go_to_one_server_and_may_be_answered_barely() {
    let mut bench = Bench::new(Policy::trusted());
    let list = servers(2);
    let mut update = query("zone.example");
    update[2] = 0x28;
    bench.ask(MS(0), UDP, &update, &list);
    let (attempt, server, sent) = bench.sent();
    assert_eq!(bench.wait(MS(4999)), []);
    let bare = [sent[0], sent[1], 0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut of_a_query = bare;
    of_a_query[2] = 0x80;
    assert_eq!(bench.forwarder.received(MS(4999), attempt, server, &of_a_query), Received::Mismatch);
    assert_eq!(bench.forwarder.received(MS(4999), attempt, server, &bare), Received::Accepted);
    assert_eq!(bench.replied()[..4], [0x12, 0x34, 0xa8, 0]);
    // What the server says of it is final.
    bench.ask(MS(5000), UDP, &update, &list);
    let (attempt, server, sent) = bench.sent();
    let refused = [sent[0], sent[1], 0xa8, 5, 0, 0, 0, 0, 0, 0, 0, 0];
    bench.forwarder.received(MS(5001), attempt, server, &refused);
    assert_eq!(bench.replied()[3], 5);
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
    // The other policy does so too; who is silent then, is waited for as long as for any other.
    for says in [0, 5] {
        let mut bench = Bench::new(Policy::aardvark());
        bench.ask(MS(0), Transport::Udp, &query("a.example"), &servers(2));
        let (attempt, server, sent) = bench.sent();
        bench.forwarder.received(MS(1), attempt, server, &answer(&sent, 0, 2, 0));
        let (attempt, server, sent) = bench.sent();
        assert_eq!(server, servers(2)[1]);
        if says == 0 {
            bench.forwarder.received(MS(2), attempt, server, &answer(&sent, 0, 0, 0));
        } else {
            bench.forwarder.received(MS(2), attempt, server, &answer(&sent, 0, 5, 0));
        }
        assert_eq!(bench.replied()[3] & 15, says);
        bench.ask(MS(10), Transport::Udp, &query("a.example"), &servers(2));
        let (attempt, server, sent) = bench.sent();
        bench.forwarder.received(MS(10), attempt, server, &answer(&sent, 0, 2, 0));
        bench.sent();
        assert_eq!(replies(&bench.wait(MS(2509))), []);
        assert_eq!(replies(&bench.wait(MS(2510))), [2]);
    }
}

#[test]
fn servfail_of_the_last_waits_for_the_slow_first() {
    let mut bench = Bench::new(Policy::trusted());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &servers(2));
    let (slow, first, asked) = bench.sent();
    bench.wait(MS(1499));
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
            bench.forwarder.timeout(MS(1501));
        } else {
            bench.forwarder.failed(MS(2), attempt, Fault::Refused);
        }
        assert_eq!(bench.replied()[2] & 2, 2);
        assert!(bench.forwarder.health.is_fine(UDP, list[0]), "its datagrams came");
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
    bench.forwarder.failed(MS(0), attempt, Fault::Refused);
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
    bench.forwarder.failed(MS(4), attempt, Fault::Refused);
    bench.replied();
    bench.ask(MS(40_000), Transport::Tcp, &query("f.example"), &list);
    let tried = bench.actions().into_iter().filter(|action| matches!(action, Action::SendTcp { .. })).count();
    assert_eq!(tried, 2, "both are on trial");
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
fn who_waits_with_another_is_told_with_him() {
    let mut bench = Bench::new(Policy::trusted());
    for _ in 0..3 {
        bench.ask(MS(0), UDP, &query("a.example"), &servers(1));
    }
    assert_eq!(bench.actions().len(), 1);
    while let Some(deadline) = bench.forwarder.deadline() {
        bench.forwarder.timeout(deadline);
    }
    let told = bench.actions().iter().filter(|action| matches!(action, Action::Reply { .. })).count();
    assert_eq!((told, bench.forwarder.queue.is_clear()), (3, true));
    assert!(bench.forwarder.twins.asked.is_empty());
    // The original's manner keeps nothing, and asks each time.
    let mut bench = Bench::new(Policy::aardvark());
    for _ in 0..3 {
        bench.ask(MS(0), UDP, &query("a.example"), &servers(1));
    }
    assert_eq!(bench.actions().len(), 3);
    // Nor is anything kept of a server that is a cache itself: it knows at once what has changed.
    let near: [SocketAddr; 2] = [servers(1)[0], "127.0.0.53:53".parse().unwrap()];
    let mut bench = Bench::new(Policy::trusted());
    for now in 0..3 {
        let (attempt, server, sent) = asked(&mut bench, MS(now), "a.example", &near).remove(0);
        bench.forwarder.received(MS(now), attempt, server, &answer(&sent, 0, 0, 60));
        bench.replied();
    }
}
