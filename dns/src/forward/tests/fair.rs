//! What happens beyond the bounds, and what comes in many messages.

use super::*;

const UDP: Transport = Transport::Udp;
const TCP: Transport = Transport::Tcp;

fn few(max_pending: usize) -> Policy {
    Policy { max_pending, cache: None, ..Policy::trusted() }
}

fn source(last: u8) -> IpAddr {
    IpAddr::from([10, 89, 0, last])
}

/// What is sent, by name of the question.
fn sent(actions: &[Action<u32>]) -> Vec<(AttemptId, SocketAddr, Vec<u8>)> {
    let sent = actions.iter().filter_map(|action| match action {
        Action::SendUdp { attempt, server, message } => Some((*attempt, *server, message.clone())),
        _ => None,
    });
    sent.collect()
}

fn ended(actions: &[Action<u32>]) -> (Vec<u32>, Vec<u32>) {
    let (mut replied, mut silent) = (Vec::new(), Vec::new());
    for action in actions {
        match action {
            Action::Reply { client, .. } => replied.push(*client),
            Action::GiveUp { client } => silent.push(*client),
            _ => {}
        }
    }
    (replied, silent)
}

#[test]
fn four_hundred_questions_at_once_are_all_answered() {
    let mut bench = Bench::new(few(128));
    for n in 0..400 {
        bench.ask(MS(0), UDP, &query(&format!("n{n}.example")), &servers(1));
    }
    let (mut now, mut answered) = (MS(0), Vec::new());
    let mut under_way = sent(&bench.actions());
    assert_eq!((under_way.len(), bench.forwarder.counters().queued), (128, 272));
    while !under_way.is_empty() {
        now += MS(600);
        let mut next = Vec::new();
        for (attempt, server, message) in under_way {
            bench.forwarder.received(now, attempt, server, &answer(&message, 0, 0, 9));
            let actions = bench.actions();
            let (replied, silent) = ended(&actions);
            assert_eq!(silent, []);
            answered.extend(replied);
            next.extend(sent(&actions));
        }
        under_way = next;
    }
    answered.sort_unstable();
    assert_eq!(answered, (1..=400).collect::<Vec<u32>>());
    assert_eq!(now, MS(2400));
    assert!(bench.forwarder.queue.is_clear());
}

/// One source asks for names whose servers are silent, without end; another one's questions are asked at once.
#[test]
fn a_flood_costs_another_source_nothing() {
    let mut bench = Bench::new(few(16));
    let flood = |bench: &mut Bench, now: u64| {
        let name = format!("n{now}.example");
        bench.ask_from(MS(now), (source(66), UDP), &query(&name), &servers(1));
        bench.actions()
    };
    for now in 0..300 {
        flood(&mut bench, now);
    }
    let mut at = 300;
    for round in 0..8 {
        bench.ask_from(MS(at), (source(2), UDP), &query("good.example"), &servers(1));
        let actions = bench.actions();
        let [(attempt, server, message)] = &sent(&actions)[..] else { panic!("{actions:?}") };
        assert_eq!(ended(&actions), (vec![], vec![]), "the flood's own question waits again");
        bench.forwarder.received(MS(at), *attempt, *server, &answer(message, 0, 0, 9));
        assert_eq!(ended(&bench.actions()).0.len(), 1, "{round}");
        for _ in 0..50 {
            at += 1;
            flood(&mut bench, at);
        }
    }
    assert_eq!(bench.forwarder.pending(), 16, "alone, a source has all places");
}

#[test]
fn two_sources_have_equal_shares_and_nobody_loses_for_it() {
    let mut bench = Bench::new(few(10));
    for last in [2, 3] {
        for n in 0..40 {
            let name = format!("n{n}.example");
            bench.ask_from(MS(0), (source(last), UDP), &query(&name), &servers(1));
        }
    }
    let mut under_way = VecDeque::new();
    let (mut replied, mut now) = (Vec::new(), MS(0));
    loop {
        for action in bench.actions() {
            match action {
                Action::SendUdp { attempt, server, message } => {
                    under_way.push_back((attempt, server, message));
                }
                Action::Close { attempt } => under_way.retain(|(open, ..)| *open != attempt),
                Action::Reply { client, .. } => replied.push(client),
                other => panic!("{other:?}"),
            }
        }
        if replied.len() == 20 {
            let first = replied.iter().filter(|client| **client <= 40).count();
            assert!((5..=15).contains(&first), "{replied:?}");
        }
        let Some((attempt, server, message)) = under_way.pop_front() else { break };
        now += MS(1);
        bench.forwarder.received(now, attempt, server, &answer(&message, 0, 0, 9));
    }
    replied.sort_unstable();
    assert_eq!(replied, (1..=80).collect::<Vec<u32>>());
}

#[test]
fn what_waits_is_bounded_and_the_longest_line_loses_its_oldest() {
    let mut bench = Bench::new(Policy { max_queue: 4000, ..few(1) });
    let mut lost = Vec::new();
    for n in 0..200 {
        bench.ask_from(MS(0), (source(66), UDP), &query(&format!("n{n}.example")), &servers(1));
        lost.extend(ended(&bench.actions()).1);
    }
    assert!(lost.len() > 150 && lost.len() < 199, "{}", lost.len());
    assert_eq!(
        lost,
        (2..=u32::try_from(lost.len()).unwrap() + 1).collect::<Vec<u32>>(),
        "in silence, the oldest first"
    );
    assert_eq!(bench.forwarder.counters().refused, u64::try_from(lost.len()).unwrap());
    for n in 0..3 {
        bench.ask_from(MS(1), (source(2), UDP), &query(&format!("m{n}.example")), &servers(1));
        let (_, silent) = ended(&bench.actions());
        assert!(silent.iter().all(|client| *client <= 200), "{silent:?}");
    }
    // Who has waited longer than anybody would is not asked for any more.
    let silent = ended(&bench.wait(MS(60_000))).1;
    assert!(silent.len() > 1 && bench.forwarder.queue.is_clear());
}

#[test]
fn who_waits_for_the_same_answer_is_bounded_as_well() {
    let mut bench = Bench::new(Policy { max_queue: 4000, ..Policy::trusted() });
    for _ in 0..500 {
        bench.ask_from(MS(0), (source(66), UDP), &query("a.example"), &servers(1));
    }
    let silent = ended(&bench.actions()).1;
    assert!(silent.len() > 400, "{}", silent.len());
    bench.ask_from(MS(0), (source(2), UDP), &query("a.example"), &servers(1));
    assert!(ended(&bench.actions()).1.iter().all(|client| *client <= 500));
    let (replied, silent) = ended(&bench.wait(MS(60_000)));
    assert_eq!((silent.len(), replied.last()), (0, Some(&501)));
    assert!(bench.forwarder.queue.is_clear());
}

/// A query for a zone, or what has changed in it.
fn transfer(kind: u8) -> Vec<u8> {
    let mut message = query("zone.example");
    let at = message.len() - 3;
    message[at] = kind;
    message
}

/// A message of a transfer: SOA records are numbers, others zero.
fn message(query: &[u8], records: &[u8], with_question: bool) -> Vec<u8> {
    let mut bytes = query[..12].to_vec();
    (bytes[2], bytes[3], bytes[7]) = (0x84, 0, u8::try_from(records.len()).unwrap());
    if with_question {
        bytes.extend_from_slice(&query[12..]);
    } else {
        bytes[5] = 0;
    }
    for serial in records {
        match serial {
            0 => bytes.extend_from_slice(b"\0\0\x01\0\x01\0\0\0\x3c\0\x04\xcb\0\x71\x07"),
            _ => {
                bytes.extend_from_slice(b"\0\0\x06\0\x01\0\0\0\x3c\0\x16\0\0\0\0\0");
                bytes.push(*serial);
                bytes.extend_from_slice(&[0; 16]);
            }
        }
    }
    bytes
}

#[test]
fn a_zone_transfer_passes_to_its_end() {
    for (kind, messages) in [
        (252, &[&[9, 0, 0][..], &[0], &[0, 0], &[0], &[0, 9]][..]),
        (252, &[&[9, 0, 9]]),
        (251, &[&[9], &[8, 0], &[9], &[0, 9]]),
        (251, &[&[9, 7, 0, 8, 0, 8, 0, 9, 0, 9]]),
        (251, &[&[9, 0], &[0, 9]]),
    ] {
        let mut bench = Bench::new(Policy::trusted());
        bench.ask(MS(0), TCP, &transfer(kind), &servers(2));
        let (attempt, server, sent) = bench.sent();
        for (number, records) in messages.iter().enumerate() {
            // Each message has its time.
            let now = MS(4000) + MS(9000) * u32::try_from(number).unwrap();
            assert_eq!(bench.wait(now), [], "nobody else is asked, and it goes on");
            let part = message(&sent, records, number % 2 == 0);
            let received = bench.forwarder.received(now, attempt, server, &part);
            let last = number + 1 == messages.len();
            assert_eq!(received, if last { Received::Accepted } else { Received::Part }, "{kind} {number}");
            let actions = bench.actions();
            let relayed = actions.iter().find_map(|action| match action {
                Action::Part { client: 1, message, .. } if !last => Some(message),
                Action::Reply { client: 1, message } if last => Some(message),
                _ => None,
            });
            let relayed = relayed.expect("the message");
            assert_eq!((&relayed[..2], &relayed[2..]), (&[0x12, 0x34][..], &part[2..]));
        }
        assert_eq!((bench.forwarder.pending(), bench.forwarder.open), (0, 0));
    }
}

#[test]
fn a_transfer_that_breaks_off_ends_in_silence() {
    for breaks in [true, false] {
        let mut bench = Bench::new(Policy::trusted());
        bench.ask(MS(0), TCP, &transfer(252), &servers(2));
        let (attempt, server, sent) = bench.sent();
        bench.forwarder.received(MS(0), attempt, server, &message(&sent, &[9, 0], true));
        assert!(matches!(bench.actions()[..], [Action::Part { .. }]));
        let actions = if breaks {
            bench.forwarder.failed(MS(1), attempt, Fault::Broken);
            bench.actions()
        } else {
            assert_eq!(bench.wait(MS(9_999)), []);
            bench.wait(MS(10_000))
        };
        assert_eq!(ended(&actions), (vec![], vec![1]));
        assert!(bench.forwarder.health.is_fine(TCP, server));
    }
    // Before anything has come, another server may have it; a refusal is told.
    let mut bench = Bench::new(Policy::trusted());
    bench.ask(MS(0), TCP, &transfer(252), &servers(2));
    let (attempt, ..) = bench.sent();
    bench.forwarder.failed(MS(1), attempt, Fault::Broken);
    let (attempt, server, sent) = bench.sent();
    assert_eq!(server, servers(2)[1]);
    let mut refused = sent.clone();
    (refused[2], refused[3]) = (0x84, 5);
    bench.forwarder.received(MS(2), attempt, server, &refused);
    assert_eq!(bench.replied()[3], 5);
}
