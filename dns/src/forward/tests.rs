use super::*;
use core::net::IpAddr;

mod fair;
mod trusted;

const CLIENT: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 89, 0, 2));
const MS: fn(u64) -> Duration = Duration::from_millis;

fn servers(n: u8) -> Vec<SocketAddr> {
    (1..=n).map(|last| SocketAddr::from(([198, 51, 100, last], 53))).collect()
}

/// A query for `name`, A, id 0x1234, RD.
fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&crate::zone::wire_name(name).unwrap());
    bytes.extend_from_slice(&[0, 1, 0, 1]);
    bytes
}

/// The answer to a query: flags, rcode, and one address with that TTL.
fn answer(query: &[u8], flags: u8, rcode: u8, ttl: u32) -> Vec<u8> {
    let mut bytes = query.to_vec();
    (bytes[2], bytes[3], bytes[7]) = (0x81 | flags, 0x80 | rcode, 1);
    bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    bytes.extend_from_slice(&ttl.to_be_bytes());
    bytes.extend_from_slice(&[0, 4, 203, 0, 113, 7]);
    bytes
}

struct Bench {
    forwarder: Forwarder<u32>,
    clients: u32,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        Self { forwarder: Forwarder::new(policy, [7; 16]), clients: 0 }
    }

    fn ask(&mut self, now: Duration, transport: Transport, message: &[u8], servers: &[SocketAddr]) {
        self.ask_from(now, (CLIENT, transport), message, servers);
    }

    fn ask_from(
        &mut self,
        now: Duration,
        (source, transport): (IpAddr, Transport),
        message: &[u8],
        servers: &[SocketAddr],
    ) {
        self.clients += 1;
        let client = self.clients;
        self.forwarder.ask(now, Question { client, source, transport, message, servers });
    }

    fn actions(&mut self) -> Vec<Action<u32>> {
        core::iter::from_fn(|| self.forwarder.action()).collect()
    }

    /// The only thing to do, which is to send.
    fn sent(&mut self) -> (AttemptId, SocketAddr, Vec<u8>) {
        let mut actions = self.actions();
        actions.retain(|action| !matches!(action, Action::Close { .. }));
        match actions.as_slice() {
            [Action::SendUdp { attempt, server, message } | Action::SendTcp { attempt, server, message }] => {
                (*attempt, *server, message.clone())
            }
            other => panic!("{other:?}"),
        }
    }

    /// How long the newest attempt of the only question may take.
    fn until(&self) -> Duration {
        self.forwarder.pending.get(0).unwrap().open.last().unwrap().until
    }

    /// Lets time pass, up to and with `until`; what is done meanwhile.
    fn wait(&mut self, until: Duration) -> Vec<Action<u32>> {
        while let Some(deadline) = self.forwarder.deadline().filter(|deadline| *deadline <= until) {
            self.forwarder.timeout(deadline);
        }
        self.forwarder.timeout(until);
        self.actions()
    }

    /// The only thing to do, which is to reply.
    fn replied(&mut self) -> Vec<u8> {
        let mut actions = self.actions();
        actions.retain(|action| !matches!(action, Action::Close { .. }));
        match actions.as_slice() {
            [Action::Reply { message, .. }] => message.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn two_servers_share_five_seconds_and_then_there_is_silence() {
    let mut bench = Bench::new(Policy::aardvark());
    let (list, start) = (servers(2), MS(1000));
    bench.ask(start, Transport::Udp, &query("a.example"), &list);
    let (first, server, _) = bench.sent();
    assert_eq!((server, bench.until()), (list[0], MS(3500)));
    bench.forwarder.timeout(MS(3499));
    assert!(matches!(bench.actions()[..], [Action::Repeat { .. }]));
    bench.forwarder.timeout(MS(3499));
    assert_eq!(bench.actions(), []);
    bench.forwarder.timeout(MS(3500));
    let actions = bench.actions();
    assert_eq!(actions[0], Action::Close { attempt: first });
    assert!(matches!(&actions[1], Action::SendUdp { server, .. } if *server == list[1]), "{actions:?}");
    bench.forwarder.timeout(MS(6000));
    assert!(matches!(bench.actions()[..], [Action::Close { .. }, Action::GiveUp { client: 1 }]));
    assert_eq!((bench.forwarder.deadline(), bench.forwarder.pending()), (None, 0));
    // Nothing is remembered: the first server is asked first again.
    bench.ask(MS(6000), Transport::Udp, &query("a.example"), &list);
    assert_eq!(bench.sent().1, list[0]);
}

#[test]
fn a_datagram_that_may_be_lost_is_repeated_over_its_socket() {
    let mut bench = Bench::new(Policy::aardvark());
    bench.ask(MS(1000), Transport::Udp, &query("a.example"), &servers(3));
    let (attempt, server, sent) = bench.sent();
    for at in [1333, 1666] {
        assert_eq!(bench.forwarder.deadline(), Some(MS(at)));
        bench.forwarder.timeout(MS(at));
        assert_eq!(bench.actions(), [Action::Repeat { attempt, message: sent.clone() }]);
    }
    assert_eq!(bench.forwarder.deadline(), Some(MS(1000) + Duration::from_secs(5) / 3));
    assert_eq!(bench.forwarder.counters().timeouts, 0);
    bench.forwarder.received(MS(1700), attempt, server, &answer(&sent, 0, 0, 300));
    assert_eq!(bench.replied()[3] & 15, 0);
    // A connection looks after what it carries by itself.
    bench.ask(MS(2000), Transport::Tcp, &query("a.example"), &servers(1));
    assert_eq!(bench.forwarder.deadline(), Some(MS(7000)));
}

#[test]
fn what_has_failed_is_not_repeated() {
    let mut bench = Bench::new(Policy::trusted());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &servers(2));
    let (slow, ..) = bench.sent();
    bench.wait(MS(1499));
    bench.forwarder.timeout(MS(1500));
    let (second, ..) = bench.sent();
    bench.forwarder.failed(MS(1600), second, Fault::Refused);
    assert_eq!(bench.actions(), [Action::Close { attempt: second }]);
    // What is waited for is a late answer of the first, as long as the question lasts.
    bench.wait(MS(2000));
    assert_eq!((bench.actions(), bench.forwarder.deadline()), (Vec::new(), Some(MS(5000))));
    assert_eq!(bench.wait(MS(9999)), []);
    assert!(bench.wait(MS(10_000)).contains(&Action::Close { attempt: slow }));
}

#[test]
fn an_answer_is_relayed_with_the_clients_id() {
    let mut bench = Bench::new(Policy::aardvark());
    let asked = query("Mixed.Case.example");
    bench.ask(MS(0), Transport::Tcp, &asked, &servers(1));
    let (attempt, server, sent) = bench.sent();
    assert_eq!(sent[2..], asked[2..]);
    let reply = answer(&sent, 0, 5, 300);
    assert_eq!(bench.forwarder.received(MS(9), attempt, server, &reply), Received::Accepted);
    let relayed = bench.replied();
    assert_eq!((&relayed[..2], &relayed[2..]), (&asked[..2], &reply[2..]));
    assert_eq!(bench.forwarder.received(MS(9), attempt, server, &reply), Received::Stale);
}

#[test]
fn forgeries_are_not_believed_and_the_attempt_goes_on() {
    let mut bench = Bench::new(Policy::aardvark());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &servers(1));
    let (attempt, server, sent) = bench.sent();
    let good = answer(&sent, 0, 0, 300);
    let mut wrong_id = good.clone();
    wrong_id[1] ^= 1;
    let mut wrong_type = good.clone();
    wrong_type[12 + 11 + 1] = 28;
    let other = answer(&[&sent[..2], &query("b.example")[2..]].concat(), 0, 0, 300);
    let mut early = good.clone();
    early.pop();
    let (port, host) = (SocketAddr::new(server.ip(), 54), SocketAddr::from(([198, 51, 100, 9], 53)));
    let forged: [(SocketAddr, &[u8]); 9] = [
        (server, &wrong_id),
        (server, &early),
        (server, &wrong_type),
        (server, &other),
        (server, &sent),
        (server, &[]),
        (server, &[0xff; 700]),
        (port, &good),
        (host, &good),
    ];
    for (from, message) in forged {
        assert_eq!(bench.forwarder.received(MS(1), attempt, from, message), Received::Mismatch);
    }
    assert_eq!((bench.actions(), bench.forwarder.pending()), (Vec::new(), 1));
    assert_eq!(bench.forwarder.counters().mismatches, 9);
    assert_eq!(bench.forwarder.received(MS(2), attempt, server, &good), Received::Accepted);
    assert_eq!(bench.replied()[2..], good[2..]);
}

#[test]
fn ids_differ_from_one_attempt_to_the_next() {
    let mut bench = Bench::new(Policy::aardvark());
    let mut ids = BTreeSet::new();
    for _ in 0..100 {
        bench.ask(MS(0), Transport::Udp, &query("a.example"), &servers(1));
        ids.insert(message::id(&bench.sent().2));
    }
    assert!(ids.len() > 95, "{}", ids.len());
    let other = Forwarder::<u32>::new(Policy::aardvark(), [8; 16]).ids.next();
    assert_ne!(Forwarder::<u32>::new(Policy::aardvark(), [7; 16]).ids.next(), other);
}

#[test]
fn of_two_questions_the_first_may_be_answered_alone() {
    let mut bench = Bench::new(Policy::aardvark());
    let mut two = query("a.example");
    two[5] = 2;
    two.extend_from_slice(b"\x01b\x07example\0\0\x01\0\x01");
    bench.ask(MS(0), Transport::Udp, &two, &servers(1));
    let (attempt, server, sent) = bench.sent();
    assert_eq!(sent[2..], two[2..]);
    let mut first = query("a.example");
    first[..2].copy_from_slice(&sent[..2]);
    let mut second = query("b.example");
    second[..2].copy_from_slice(&sent[..2]);
    let reply = |asked: &[u8]| answer(asked, 0, 0, 300);
    assert_eq!(bench.forwarder.received(MS(1), attempt, server, &reply(&second)), Received::Mismatch);
    assert_eq!(bench.forwarder.received(MS(1), attempt, server, &reply(&first)), Received::Accepted);
    assert_eq!(bench.replied()[2..], reply(&first)[2..]);
}

#[test]
fn a_truncated_answer_may_end_anywhere() {
    let mut bench = Bench::new(Policy::aardvark());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &servers(1));
    let (attempt, server, sent) = bench.sent();
    let mut cut = answer(&sent, 2, 0, 300);
    cut.truncate(cut.len() - 5);
    assert_eq!(bench.forwarder.received(MS(1), attempt, server, &cut), Received::Accepted);
    assert_eq!(bench.replied()[2..], cut[2..]);
}

#[test]
fn an_error_may_come_without_the_question() {
    let mut bench = Bench::new(Policy::aardvark());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &servers(1));
    let (attempt, server, sent) = bench.sent();
    let bare = [sent[0], sent[1], 0x81, 0x01, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut empty = bare;
    empty[3] = 0;
    assert_eq!(bench.forwarder.received(MS(1), attempt, server, &empty), Received::Mismatch);
    assert_eq!(bench.forwarder.received(MS(1), attempt, server, &bare), Received::Accepted);
    // RD was set, so RA is claimed: the client is not to be told that recursion is not to be had.
    assert_eq!(bench.replied()[..4], [0x12, 0x34, 0x81, 0x81]);
}

#[test]
fn a_refusal_of_the_kernel_leads_to_the_next_server_at_once() {
    let mut bench = Bench::new(Policy::trusted());
    bench.ask(MS(0), Transport::Tcp, &query("a.example"), &servers(2));
    let (first, ..) = bench.sent();
    bench.forwarder.failed(MS(1), first, Fault::Refused);
    let (second, server, _) = bench.sent();
    assert_eq!(server, servers(2)[1]);
    bench.forwarder.failed(MS(1), first, Fault::Refused);
    assert_eq!(bench.actions(), []);
    bench.forwarder.failed(MS(2), second, Fault::Refused);
    let reply = bench.replied();
    assert_eq!((&reply[..4], reply.len()), (&[0x12, 0x34, 0x81, 0x82][..], query("a.example").len()));
    assert_eq!((bench.forwarder.pending(), bench.forwarder.deadline()), (0, None));
}

#[test]
fn without_a_server_or_a_question_nobody_waits() {
    let mut bench = Bench::new(Policy::aardvark());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &[]);
    assert_eq!(bench.actions(), [Action::GiveUp { client: 1 }]);
    bench.ask(MS(0), Transport::Udp, b"no message", &servers(2));
    assert_eq!(bench.actions(), [Action::GiveUp { client: 2 }]);
    let mut bench = Bench::new(Policy::trusted());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &[]);
    assert_eq!(bench.replied()[3] & 15, 2);
}

#[test]
fn a_list_that_is_too_long_is_shortened() {
    let mut bench = Bench::new(Policy::aardvark());
    bench.ask(MS(5000), Transport::Udp, &query("a.example"), &servers(200));
    assert_eq!(bench.forwarder.deadline(), Some(MS(5000) + Duration::from_secs(5) / 64));
}

#[test]
fn names_of_attempts_fit_a_token() {
    let mut bench = Bench::new(Policy::aardvark());
    bench.ask(MS(0), Transport::Udp, &query("a.example"), &servers(1));
    let (attempt, ..) = bench.sent();
    assert_eq!(AttemptId::from_bits(attempt.to_bits()), Some(attempt));
    assert!(attempt.to_bits() < 1 << 56);
    for bits in [u64::MAX, 1 << 56, 7 << 24, 1 << 8, 1] {
        let nobody = AttemptId::from_bits(bits);
        let received = nobody.map(|id| bench.forwarder.received(MS(0), id, servers(1)[0], &[]));
        assert!(matches!(received, None | Some(Received::Stale | Received::Mismatch)));
    }
}

mod any_order {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Ask { servers: u8, tcp: bool, name: u8, source: u8 },
        Answer { which: u8, flags: u8, rcode: u8, ttl: u8 },
        Fail { which: u8, fault: Fault },
        Noise { which: u8, bytes: Vec<u8> },
        Wait { ms: u16 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..4, any::<bool>(), 0u8..4, 0u8..3).prop_map(|(servers, tcp, name, source)| Step::Ask {
                servers,
                tcp,
                name,
                source
            }),
            (any::<u8>(), 0u8..4, 0u8..6, 0u8..5).prop_map(|(which, flags, rcode, ttl)| Step::Answer {
                which,
                flags: flags & 2,
                rcode,
                ttl
            }),
            (any::<u8>(), prop_oneof![Just(Fault::Refused), Just(Fault::Broken), Just(Fault::Ours)])
                .prop_map(|(which, fault)| Step::Fail { which, fault }),
            (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(which, bytes)| Step::Noise { which, bytes }),
            (0u16..3000).prop_map(|ms| Step::Wait { ms }),
        ]
    }

    /// Sockets that are open, and how often each client was answered.
    #[derive(Default)]
    struct World {
        open: BTreeMap<AttemptId, (SocketAddr, Vec<u8>)>,
        ended: BTreeMap<u32, u32>,
    }

    impl World {
        fn take(&mut self, bench: &mut Bench) {
            for action in bench.actions() {
                match action {
                    Action::SendUdp { attempt, server, message }
                    | Action::SendTcp { attempt, server, message } => {
                        assert!(self.open.insert(attempt, (server, message)).is_none());
                    }
                    Action::Repeat { attempt, message } => assert_eq!(self.open[&attempt].1, message),
                    Action::Close { attempt } => assert!(self.open.remove(&attempt).is_some()),
                    Action::Reply { client, message } => {
                        assert_eq!(message[..2], [0x12, 0x34]);
                        *self.ended.entry(client).or_default() += 1;
                    }
                    Action::Part { attempt, .. } => assert!(self.open.contains_key(&attempt)),
                    Action::GiveUp { client } => *self.ended.entry(client).or_default() += 1,
                }
            }
        }

        fn pick(&self, which: u8) -> Option<(AttemptId, SocketAddr, Vec<u8>)> {
            let place = usize::from(which) % self.open.len().max(1);
            self.open.iter().nth(place).map(|(id, (server, message))| (*id, *server, message.clone()))
        }
    }

    proptest! {
        /// Every question ends once, every socket is closed once, and in the end nothing is left.
        #[test]
        fn every_question_ends_once(trusted: bool, steps in proptest::collection::vec(step(), 0..80)) {
            let policy = if trusted { Policy::trusted() } else { Policy::aardvark() };
            let mut bench = Bench::new(Policy { max_pending: 6, max_queue: 1500, ..policy });
            let (mut world, mut now) = (World::default(), MS(0));
            for step in steps {
                match step {
                    Step::Ask { servers: count, tcp, name, source } => {
                        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
                        let mut message = query(&format!("n{name}.example"));
                        if name == 3 {
                            // A zone transfer.
                            let at = message.len() - 3;
                            message[at] = 252;
                        }
                        let source = IpAddr::from([10, 89, 0, source]);
                        bench.ask_from(now, (source, transport), &message, &servers(count));
                    }
                    Step::Answer { which, flags, rcode, ttl } => {
                        if let Some((attempt, server, message)) = world.pick(which) {
                            let reply = answer(&message, flags, rcode, ttl.into());
                            let received = bench.forwarder.received(now, attempt, server, &reply);
                            prop_assert!(matches!(received, Received::Accepted | Received::Part));
                        }
                    }
                    Step::Fail { which, fault } => {
                        if let Some((attempt, ..)) = world.pick(which) {
                            bench.forwarder.failed(now, attempt, fault);
                        }
                    }
                    Step::Noise { which, bytes } => {
                        if let Some((attempt, server, _)) = world.pick(which) {
                            bench.forwarder.received(now, attempt, server, &bytes);
                        }
                    }
                    Step::Wait { ms } => {
                        now += MS(ms.into());
                        bench.forwarder.timeout(now);
                        prop_assert!(bench.forwarder.deadline().is_none_or(|deadline| deadline > now));
                    }
                }
                world.take(&mut bench);
                prop_assert!(bench.forwarder.pending() <= 6 && world.open.len() <= 12);
            }
            bench.forwarder.timeout(now + Duration::from_secs(60));
            while let Some(deadline) = bench.forwarder.deadline() {
                bench.forwarder.timeout(deadline.max(now + Duration::from_secs(60)));
            }
            world.take(&mut bench);
            prop_assert!(world.open.is_empty() && bench.forwarder.pending() == 0);
            prop_assert!(bench.forwarder.queue.is_clear() && bench.forwarder.open == 0);
            let ended: Vec<u32> = (1..=bench.clients).map(|client| world.ended[&client]).collect();
            prop_assert!(ended.iter().all(|count| *count == 1), "{:?}", ended);
        }
    }
}
