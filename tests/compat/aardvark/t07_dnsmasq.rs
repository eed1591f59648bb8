//! dnsmasq as the upstream: slow, dead, truncating, and with a liar in front of it.
//!
//! Each test says what someone in a container sees: the right answer or none, and after how long. With the rules of the
//! original (two servers share five seconds, no memory, silence at the end) and with `AARDVARK_CACHE`.

use std::time::Duration;

use nix::sys::signal::Signal;
use slipway_lab::{Dnsmasq, Output, Relay, Reply, Via, forged, missing, now, skip};

use crate::LIMIT;
use crate::message::{self, A, Message, TXT};
use crate::place::{Daemon, GATEWAY, PODMAN1};

const FIRST: &str = "198.51.100.1";
const SECOND: &str = "198.51.100.2";
const STRANGER: &str = "198.51.100.3";
/// What the servers say, each its own, so that one can tell who was believed; and what a liar says.
const BY_FIRST: [u8; 4] = [203, 0, 113, 1];
const LIE: [u8; 4] = [203, 0, 113, 66];
const FIRST_SAYS: &str = "host-record=a.test,b.test,c.test,203.0.113.1\nhost-record=other.test,203.0.113.66";
const SECOND_SAYS: &str = "host-record=a.test,b.test,c.test,203.0.113.2";

fn fixture(test: &str) -> Option<Daemon> {
    if let Some(program) = missing(&["dnsmasq", "dig", "nft"]) {
        return skip(test, &format!("{program} is not installed (cargo xtask deps)"));
    }
    let daemon = Daemon::fixture(test)?;
    daemon.resolvers(&[FIRST, SECOND]);
    daemon.network("podman1", PODMAN1);
    Some(daemon)
}

macro_rules! fixture {
    ($name:literal) => {
        match fixture($name) {
            Some(daemon) => daemon,
            None => return,
        }
    };
    (ours $name:literal) => {{
        let daemon = fixture!($name);
        if !daemon.is_ours() {
            println!("SKIP {}: the original does otherwise", $name);
            return;
        }
        daemon
    }};
}

impl Daemon {
    /// Starts it with memory of dead servers, cache and SERVFAIL.
    fn start_trusted(&self) {
        let output = self.cmd().env("AARDVARK_CACHE", "1").run(LIMIT).unwrap();
        assert!(output.success(), "{output}");
    }

    fn start_as(&self, trusted: bool) {
        if trusted {
            self.start_trusted();
        } else {
            self.start();
        }
    }

    /// Ends it, if it runs: its ports are free afterwards.
    fn end(&self) {
        if self.pid_file().exists() {
            let pid = self.pid();
            self.signal(Signal::SIGKILL);
            while self.is_alive(pid) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn dig(&self, words: &[&str]) -> Output {
        let common = ["dig", "-b", "10.89.0.2", &format!("@{GATEWAY}"), "+tries=1", "+time=12"];
        self.machine.cmd(common).args(words.iter().copied()).run(LIMIT).unwrap()
    }

    fn dnsmasq(&self, address: &str, lines: &str) -> Dnsmasq {
        Dnsmasq::start(&self.machine.place(), address, lines).unwrap()
    }

    /// A relay in front of the first dnsmasq.
    fn relay(&self, manner: impl Fn(&[u8], &[u8]) -> Vec<Reply> + Send + Sync + 'static) -> (Dnsmasq, Relay) {
        let place = self.machine.place();
        let dnsmasq = Dnsmasq::behind(&place, FIRST, FIRST_SAYS).unwrap();
        (dnsmasq, Relay::start(&place, FIRST, manner).unwrap())
    }

    /// The addresses, over UDP or TCP, and how long that took.
    fn timed(&self, tcp: bool, name: &str) -> (Vec<String>, Duration) {
        let client = self.client("10.89.0.2");
        let start = now();
        let reply = if tcp { client.connect(GATEWAY).ask(name, A) } else { client.ask(GATEWAY, name, A) };
        (reply.addresses(), start.elapsed())
    }
}

/// Whether it took that many milliseconds, and not what another course of things would take: what is at once waits for
/// no server, any other end is told by who answered. Tests share a loaded machine.
#[track_caller]
fn about(took: Duration, millis: u64) {
    let expected = Duration::from_millis(millis);
    let more = Duration::from_millis(if millis <= 50 { 1400 } else { 4000 });
    assert!(took + Duration::from_millis(50) > expected, "{took:?} instead of {expected:?}");
    assert!(took < expected + more, "{took:?} instead of {expected:?}");
}

fn slow(pause: u64) -> impl Fn(&[u8], &[u8]) -> Vec<Reply> {
    move |_, truth| vec![Reply { after: Duration::from_millis(pause), ..Reply::now(truth.to_vec()) }]
}

#[test]
fn a_slow_server_is_waited_for_within_its_share() {
    let daemon = fixture!("a_slow_server_is_waited_for_within_its_share");
    let (_first, _relay) = daemon.relay(slow(1000));
    let second = daemon.dnsmasq(SECOND, SECOND_SAYS);
    daemon.start();
    for tcp in [false, true] {
        let (addresses, took) = daemon.timed(tcp, "a.test");
        assert_eq!(addresses, ["203.0.113.1"], "tcp: {tcp}");
        about(took, 1000);
    }
    assert_eq!(second.asked_at_all(), 0, "in listed order, one after the other");
}

#[test]
fn a_server_slower_than_its_share_is_passed_over() {
    let daemon = fixture!("a_server_slower_than_its_share_is_passed_over");
    let (first, _relay) = daemon.relay(slow(2900));
    let _second = daemon.dnsmasq(SECOND, SECOND_SAYS);
    daemon.start();
    for tcp in [false, true] {
        let (addresses, took) = daemon.timed(tcp, "a.test");
        assert_eq!(addresses, ["203.0.113.2"], "tcp: {tcp}");
        about(took, 2500);
    }
    assert!(first.asked("a.test") >= 2, "no memory");
}

#[test]
fn with_a_memory_a_slow_server_costs_once() {
    let daemon = fixture!(ours "with_a_memory_a_slow_server_costs_once");
    let (_first, _relay) = daemon.relay(slow(2600));
    let second = daemon.dnsmasq(SECOND, SECOND_SAYS);
    daemon.start_trusted();
    let (addresses, took) = daemon.timed(false, "a.test");
    assert_eq!(addresses, ["203.0.113.2"]);
    about(took, 1500);
    for (tcp, name) in [(false, "b.test"), (true, "c.test")] {
        let (addresses, took) = daemon.timed(tcp, name);
        assert_eq!(addresses, ["203.0.113.2"], "tcp: {tcp}");
        about(took, if tcp { 1500 } else { 0 }); // what is slow over one transport may be quick over the other
    }
    assert_eq!(second.asked_at_all(), 3);
}

#[test]
fn a_late_answer_is_better_than_none() {
    let daemon = fixture!(ours "a_late_answer_is_better_than_none");
    let (_first, _relay) = daemon.relay(slow(2200));
    let second = daemon.dnsmasq(SECOND, SECOND_SAYS);
    second.stop();
    daemon.start_trusted();
    for tcp in [false, true] {
        let (addresses, took) = daemon.timed(tcp, if tcp { "a.test" } else { "b.test" });
        assert_eq!(addresses, ["203.0.113.1"], "tcp: {tcp}");
        about(took, 2200);
    }
}

#[test]
fn a_stopped_server_is_passed_over() {
    let daemon = fixture!("a_stopped_server_is_passed_over");
    let first = daemon.dnsmasq(FIRST, FIRST_SAYS);
    let _second = daemon.dnsmasq(SECOND, SECOND_SAYS);
    daemon.start();
    assert_eq!(daemon.timed(false, "a.test").0, ["203.0.113.1"]);
    // TCP connections to it are still made, by the kernel.
    first.stop();
    for tcp in [false, true] {
        let (addresses, took) = daemon.timed(tcp, "a.test");
        assert_eq!(addresses, ["203.0.113.2"], "tcp: {tcp}");
        about(took, 2500);
    }
    first.go_on();
    assert_eq!(daemon.timed(false, "a.test").0, ["203.0.113.1"], "it is asked again at once");
}

#[test]
fn with_a_memory_a_stopped_server_costs_once() {
    let daemon = fixture!(ours "with_a_memory_a_stopped_server_costs_once");
    let first = daemon.dnsmasq(FIRST, FIRST_SAYS);
    let second = daemon.dnsmasq(SECOND, SECOND_SAYS);
    daemon.start_trusted();
    first.stop();
    let (addresses, took) = daemon.timed(true, "a.test");
    assert_eq!(addresses, ["203.0.113.2"]);
    about(took, 1500);
    let (addresses, took) = daemon.timed(true, "b.test");
    assert_eq!(addresses, ["203.0.113.2"]);
    about(took, 0);
    // Now the only one that was left goes: the slow one is asked along with it, and answers.
    second.stop();
    first.go_on();
    let (addresses, took) = daemon.timed(true, "c.test");
    assert_eq!(addresses, ["203.0.113.1"]);
    about(took, 0);
}

#[test]
fn when_all_are_dead_it_is_silence_or_servfail() {
    for trusted in [false, true] {
        let daemon = fixture!(ours "when_all_are_dead_it_is_silence_or_servfail");
        let both = [daemon.dnsmasq(FIRST, FIRST_SAYS), daemon.dnsmasq(SECOND, SECOND_SAYS)];
        daemon.start_as(trusted);
        both.iter().for_each(Dnsmasq::stop);
        for tcp in ["+notcp", "+tcp"] {
            let start = now();
            let patience = if trusted { "+time=12" } else { "+time=7" };
            let output = daemon.dig(&[tcp, patience, "a.test"]);
            if trusted {
                assert!(output.out().contains("status: SERVFAIL"), "{output}");
                about(start.elapsed(), 10_000);
            } else {
                assert!(output.out().contains("no servers could be reached"), "{output}");
            }
        }
    }
}

#[test]
fn routes_that_lead_nowhere_cost_nothing() {
    let daemon = fixture!("routes_that_lead_nowhere_cost_nothing");
    let _second = daemon.dnsmasq(SECOND, SECOND_SAYS);
    let unroutable = ["203.0.113.53", "203.0.113.54", "203.0.113.55"];
    let script = "ip route add blackhole 203.0.113.53; ip route add unreachable 203.0.113.54; \
                  ip route add prohibit 203.0.113.55";
    assert!(daemon.machine.sh(script).unwrap().success());
    for server in unroutable {
        let servers = format!("10.89.0.1\nida 10.89.0.2  one {server},{SECOND}\n");
        daemon.network("podman1", &servers);
        daemon.end();
        daemon.start();
        for tcp in [false, true] {
            let (addresses, took) = daemon.timed(tcp, "a.test");
            assert_eq!(addresses, ["203.0.113.2"], "{server}, tcp: {tcp}");
            about(took, 0);
        }
    }
}

#[test]
fn a_closed_port_costs_nothing_and_a_silent_firewall_its_share() {
    let daemon = fixture!(ours "a_closed_port_costs_nothing_and_a_silent_firewall_its_share");
    let _second = daemon.dnsmasq(SECOND, SECOND_SAYS);
    daemon.start();
    // Nobody listens on the first.
    for tcp in [false, true] {
        let (addresses, took) = daemon.timed(tcp, "a.test");
        assert_eq!(addresses, ["203.0.113.2"], "tcp: {tcp}");
        about(took, 0);
    }
    let rules = format!(
        "add table ip f\nadd chain ip f in {{ type filter hook input priority 0; }}\nadd rule ip f in ip daddr {FIRST} meta l4proto {{ udp, tcp }} th dport 53 drop\n"
    );
    daemon.machine.cmd(["nft", "-f", "-"]).input(rules).ok(LIMIT).unwrap();
    for tcp in [false, true] {
        let (addresses, took) = daemon.timed(tcp, "a.test");
        assert_eq!(addresses, ["203.0.113.2"], "tcp: {tcp}");
        about(took, 2500);
    }
}

/// Twelve strings of 200 bytes: more than `edns-packet-max=` lets pass, less than what clients take.
fn long_text() -> String {
    let text = "x".repeat(200);
    (0..12).map(|number| format!("txt-record=big.test,{number:02}{text}\n")).collect::<String>()
        + "edns-packet-max=1232"
}

#[test]
fn what_is_truncated_is_fetched_over_tcp_by_the_client() {
    let daemon = fixture!("what_is_truncated_is_fetched_over_tcp_by_the_client");
    let first = daemon.dnsmasq(FIRST, &long_text());
    daemon.start();
    for words in [&["+noedns"][..], &["+bufsize=4096"], &["+bufsize=512"]] {
        let output = daemon.dig(&[words, &["+ignore", "big.test", "TXT"]].concat());
        assert!(output.out().contains(" tc"), "the mark is relayed: {output}");
        let output = daemon.dig(&[words, &["+short", "big.test", "TXT"]].concat());
        assert_eq!(output.out().lines().count(), 12, "{words:?}: {output}");
    }
    assert_eq!(first.asked("big.test"), 9);
}

#[test]
fn what_is_truncated_is_fetched_for_a_client_that_has_room() {
    let daemon = fixture!(ours "what_is_truncated_is_fetched_for_a_client_that_has_room");
    let _first = daemon.dnsmasq(FIRST, &long_text());
    daemon.start_trusted();
    let output = daemon.dig(&["+bufsize=4096", "+ignore", "+short", "big.test", "TXT"]);
    assert_eq!(output.out().lines().count(), 12, "one datagram: {output}");
    for words in [&["+noedns"][..], &["+bufsize=512"]] {
        let output = daemon.dig(&[words, &["+ignore", "big.test", "TXT"]].concat());
        assert!(output.out().contains(" tc"), "{output}");
        let output = daemon.dig(&[words, &["+short", "big.test", "TXT"]].concat());
        assert_eq!(output.out().lines().count(), 12, "{words:?}: {output}");
    }
}

#[test]
fn a_truncating_server_without_tcp_costs_little() {
    let daemon = fixture!(ours "a_truncating_server_without_tcp_costs_little");
    let _first = daemon.dnsmasq(FIRST, &format!("{}\n{FIRST_SAYS}", long_text()));
    let rules = "add table ip f\nadd chain ip f in { type filter hook input priority 0; }\n\
                 add rule ip f in ip daddr 198.51.100.1 tcp dport 53 drop\n";
    daemon.machine.cmd(["nft", "-f", "-"]).input(rules).ok(LIMIT).unwrap();
    daemon.resolvers(&[FIRST]);
    daemon.start_trusted();
    let client = daemon.client("10.89.0.2");
    for patience in [1500, 0] {
        let start = now();
        client.send(GATEWAY, &message::query_with_opt(3, "big.test", TXT));
        let reply = client.receive(LIMIT).unwrap();
        assert!(reply.is_truncated(), "what there is, is given: {reply:?}");
        about(start.elapsed(), patience);
    }
    // That it does not speak TCP makes it no worse a server over UDP.
    daemon.end();
    daemon.resolvers(&[FIRST, SECOND]);
    let second = daemon.dnsmasq(SECOND, SECOND_SAYS);
    daemon.start_trusted();
    for (tcp, name, says) in [(true, "a.test", "203.0.113.2"), (false, "b.test", "203.0.113.1")] {
        assert_eq!(daemon.timed(tcp, name).0, [says], "{name}");
    }
    assert_eq!(second.asked_at_all(), 1);
}

/// What it is, whether it is one over UDP only, and how it is made of a query and the truth.
type Lie = (&'static str, bool, fn(&[u8], &[u8]) -> Reply);

/// Ways to lie about an answer whose truth is known.
fn lies() -> Vec<Lie> {
    fn of(bytes: Vec<u8>) -> Reply {
        Reply::now(bytes)
    }
    vec![
        ("another id", false, |_, truth| {
            let mut lie = forged(truth, BY_FIRST, LIE);
            lie[1] ^= 1;
            of(lie)
        }),
        ("another name in the question", false, |_, truth| {
            let mut lie = forged(truth, BY_FIRST, LIE);
            lie[13] ^= 1;
            of(lie)
        }),
        ("another type in the question", false, |query, truth| {
            let mut lie = forged(truth, BY_FIRST, LIE);
            let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
            lie[12 + name + 2] ^= 29;
            of(lie)
        }),
        ("no question", false, |_, truth| {
            let mut lie = forged(truth, BY_FIRST, LIE);
            let name = truth[12..].iter().position(|byte| *byte == 0).unwrap();
            lie[5] = 0;
            lie.drain(12..12 + name + 5);
            of(lie)
        }),
        ("two questions", false, |_, truth| {
            let mut lie = forged(truth, BY_FIRST, LIE);
            lie[5] = 2;
            of(lie)
        }),
        ("the query itself", false, |query, _| of(query.to_vec())),
        ("half a header", false, |_, truth| of(truth[..7].to_vec())),
        ("nothing", false, |_, _| of(Vec::new())),
        ("another port", true, |_, truth| Reply { via: Via::OtherPort, ..of(forged(truth, BY_FIRST, LIE)) }),
        ("another address", true, |_, truth| {
            let via = Via::OtherAddress(STRANGER.parse().unwrap());
            Reply { via, ..of(forged(truth, BY_FIRST, LIE)) }
        }),
    ]
}

#[test]
fn no_lie_is_believed_and_the_truth_behind_it_is() {
    for trusted in [false, true] {
        let daemon = fixture!(ours "no_lie_is_believed_and_the_truth_behind_it_is");
        let (_first, _relay) = daemon.relay(|query, truth| {
            let lies = lies().into_iter().map(|(_, _, lie)| lie(query, truth));
            lies.chain([Reply { after: Duration::from_millis(50), ..Reply::now(truth.to_vec()) }]).collect()
        });
        daemon.start_as(trusted);
        for name in ["a.test", "b.test", "a.test"] {
            let (addresses, took) = daemon.timed(false, name);
            assert_eq!(addresses, ["203.0.113.1"], "{name}");
            about(took, 50);
        }
    }
}

#[test]
fn a_server_that_only_lies_is_a_dead_one() {
    for (name, only_udp, lie) in lies() {
        let daemon = fixture!(ours "a_server_that_only_lies_is_a_dead_one");
        let (_first, _relay) = daemon.relay(move |query, truth| vec![lie(query, truth)]);
        let _second = daemon.dnsmasq(SECOND, SECOND_SAYS);
        daemon.start_trusted();
        let (addresses, took) = daemon.timed(false, "a.test");
        assert_eq!(addresses, ["203.0.113.2"], "{name}");
        about(took, 1500);
        if only_udp {
            continue;
        }
        // A connection on which a lie came is of no more use: the next server is asked at once.
        daemon.end();
        daemon.start_trusted();
        let (addresses, took) = daemon.timed(true, "b.test");
        assert_eq!(addresses, ["203.0.113.2"], "{name}, over TCP");
        about(took, 0);
    }
}

/// The true answer to another question, under the right id: dnsmasq's own words about another name.
#[test]
fn the_answer_to_another_question_is_none() {
    let daemon = fixture!(ours "the_answer_to_another_question_is_none");
    let words = std::sync::Mutex::new(Vec::new());
    let (_first, _relay) = daemon.relay(move |query, truth| {
        let mut words = words.lock().unwrap();
        if Message::read(query).is_some_and(|message| message.name == "other.test") {
            *words = truth.to_vec();
            return vec![Reply::now(truth.to_vec())];
        }
        let mut other = words.clone();
        other[..2].copy_from_slice(&query[..2]);
        let later = Reply { after: Duration::from_millis(50), ..Reply::now(truth.to_vec()) };
        vec![Reply::now(other), later]
    });
    daemon.start_trusted();
    assert_eq!(daemon.timed(false, "other.test").0, ["203.0.113.66"]);
    for _ in 0..2 {
        assert_eq!(daemon.timed(false, "a.test").0, ["203.0.113.1"]);
    }
}

#[test]
fn answers_are_kept_for_their_time_and_no_longer() {
    let daemon = fixture!(ours "answers_are_kept_for_their_time_and_no_longer");
    let lines = "host-record=brief.test,203.0.113.1,2\nhost-record=now.test,203.0.113.1,0\ntxt-record=brief.test,words\nlocal-ttl=2";
    let first = daemon.dnsmasq(FIRST, lines);
    daemon.start_trusted();
    let client = daemon.client("10.89.0.2");
    let ask = |name, kind| client.ask(GATEWAY, name, kind).answers[0].ttl;
    let asked = |name, count: usize| assert_eq!(first.asked(name), count, "{name}");
    assert_eq!(ask("brief.test", A), 2);
    assert!(ask("brief.test", A) <= 2 && ask("Brief.TEST", A) <= 2);
    asked("brief.test", 1);
    // Another type is another answer; and what came over UDP is good for TCP.
    assert_eq!(ask("brief.test", TXT), 2);
    let mut stream = client.connect(GATEWAY);
    assert_eq!(stream.ask("brief.test", A).addresses(), ["203.0.113.1"]);
    asked("brief.test", 2);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(ask("brief.test", A), 1, "its time goes by");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(ask("brief.test", A), 2);
    asked("brief.test", 3);
    // A TTL of zero is for one question.
    assert_eq!((ask("now.test", A), ask("now.test", A)), (0, 0));
    asked("now.test", 2);
    // Without the option nothing is kept.
    daemon.end();
    daemon.start();
    assert_eq!((ask("brief.test", A), ask("brief.test", A)), (2, 2));
    asked("brief.test", 5);
}

#[test]
fn what_does_not_exist_is_not_kept_without_an_authority() {
    let daemon = fixture!(ours "what_does_not_exist_is_not_kept_without_an_authority");
    let first = daemon.dnsmasq(FIRST, FIRST_SAYS);
    daemon.start_trusted();
    for _ in 0..2 {
        assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "none.test", A).rcode(), message::NXDOMAIN);
    }
    assert_eq!(first.asked("none.test"), 2);
}
