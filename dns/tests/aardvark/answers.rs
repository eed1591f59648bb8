//! Who sees which names, asked over real sockets. The rules themselves are tested where they are.

use crate::client::{A, AAAA, Client, NXDOMAIN, PTR, TXT};
use crate::stage::Stage;
use nix::sys::signal::Signal;
use std::time::Duration;

const NET_A: &str = "127.0.1.1\n\
    aaa 127.0.1.10  Web,w\n\
    bbb 127.0.1.11 fd00::11 both,shared\n";
const NET_B: &str = "127.0.2.1\n\
    bbb 127.0.2.11  both,shared\n\
    ccc 127.0.2.12  other,shared\n";

#[test]
fn names_are_those_of_the_askers_networks() {
    let Some(stage) = Stage::enter("names_are_those_of_the_askers_networks") else { return };
    stage.network("a", NET_A);
    stage.network("b%int", NET_B);
    let _daemon = stage.start(&[]);

    let web = Client::new("127.0.1.10", "127.0.1.1");
    assert_eq!(web.ask("web", A).addresses(), ["127.0.1.10"]);
    assert_eq!(web.ask("W.dns.podman", A).addresses(), ["127.0.1.10"]);
    let none = web.ask("web", AAAA);
    assert_eq!((none.rcode(), none.count()), (0, 0));
    assert_eq!(web.ask("both", AAAA).data(), [[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11]]);
    assert_eq!(web.ask("other.dns.podman", A).rcode(), NXDOMAIN, "a name of a network that it is not on");
    assert_eq!(web.ask("11.1.0.127.in-addr.arpa", PTR).count(), 2);

    let both = Client::new("127.0.2.11", "127.0.1.1");
    assert_eq!(both.ask("other", A).addresses(), ["127.0.2.12"], "through the gateway of another network");
    assert_eq!(both.ask("shared", A).addresses(), ["127.0.1.11", "127.0.2.11", "127.0.2.12"]);

    let inside = Client::new("127.0.2.12", "127.0.2.1");
    assert_eq!(inside.ask("example.org", A).rcode(), NXDOMAIN, "an internal network");
    let mut tcp = inside.tcp();
    for _ in 0..3 {
        assert_eq!(tcp.ask("other", A).addresses(), ["127.0.2.12"]);
    }
}

#[test]
fn what_is_no_query_gets_no_answer() {
    let Some(stage) = Stage::enter("what_is_no_query_gets_no_answer") else { return };
    stage.network("a", NET_A);
    let daemon = stage.start(&[]);
    let client = Client::new("127.0.1.10", "127.0.1.1");
    let good = crate::client::query(7, "web", A);
    let answer = client.ask("web", A).0;
    let mut pointers = good[..12].to_vec();
    pointers.extend([0xc0, 12, 0, 1, 0, 1]);
    let junk = (0..=255u8).cycle().take(3000).collect::<Vec<u8>>();
    for bytes in [&good[..11], &good[..20], &[], &answer, &pointers, &junk] {
        client.send(bytes);
    }
    assert!(client.receive(Duration::from_millis(300)).is_none());
    assert_eq!(client.ask("web", A).count(), 1, "and it still serves");
    drop(daemon);
}

#[test]
fn options_beyond_the_contract() {
    let Some(stage) = Stage::enter("options_beyond_the_contract") else { return };
    stage.network(
        "a",
        "127.0.1.1\naaa 127.0.1.10,127.0.1.20,127.0.1.30  web\nbbb 127.0.1.40,127.0.1.50  pair,twin\n",
    );
    let stats = stage.dir().join("stats");
    let daemon = stage.start(&["--strict-names", "--rotate", "--stats", stats.to_str().unwrap()]);
    let client = Client::new("127.0.1.10", "127.0.1.1");
    let text = client.ask("web", TXT);
    assert_eq!((text.rcode(), text.count()), (0, 0), "not asked upstream");
    let mut first: Vec<String> = (0..3).map(|_| client.ask("web", A).addresses()[0].clone()).collect();
    first.sort();
    assert_eq!(first, ["127.0.1.10", "127.0.1.20", "127.0.1.30"]);
    client.send(b"x");
    // As the C library asks, for both families each time, and for one name and another in turn.
    let client_asks = |name: &str| {
        client.ask(name, AAAA);
        client.ask(name, A).addresses()[0].clone()
    };
    let first: Vec<String> = (0..4).map(|n| client_asks(if n % 2 == 0 { "pair" } else { "twin" })).collect();
    assert!(first[0] != first[2] && first[1] != first[3], "{first:?}");

    daemon.signal(Signal::SIGUSR1);
    let read = || std::fs::read_to_string(&stats).unwrap_or_default();
    assert!(crate::stage::eventually(Duration::from_secs(5), || read().ends_with('\n')));
    let expected =
        "network=a udp=13 tcp=0 malformed=1 forwarded=0 unanswered=0 local.NOERROR=12\nupstream asked=0 ";
    assert!(read().starts_with(expected), "{}", read());
}

#[test]
fn a_full_queue_is_answered_whole() {
    let Some(stage) = Stage::enter("a_full_queue_is_answered_whole") else { return };
    stage.network("a", NET_A);
    let daemon = stage.start(&[]);
    let client = Client::new("127.0.1.10", "127.0.1.1");
    daemon.signal(Signal::SIGSTOP);
    for id in 0..150 {
        client.send(&crate::client::query(id, "web", A));
    }
    daemon.signal(Signal::SIGCONT);
    let ids: Vec<u16> =
        (0..150).map(|_| client.receive(Duration::from_secs(5)).expect("an answer").id()).collect();
    assert_eq!(ids, (0..150).collect::<Vec<u16>>());
}

#[test]
fn queries_are_logged_on_demand() {
    let Some(stage) = Stage::enter("queries_are_logged_on_demand") else { return };
    stage.network("a", NET_A);
    stage.network("bad", "nonsense\n");
    let log = stage.log();
    assert!(stage.command(&[]).env("RUST_LOG", "error").status().unwrap().success());
    let daemon = stage.daemon();
    let line = log.line(Duration::from_secs(5)).unwrap();
    assert!(line.starts_with("network bad is left out: "), "{line}");
    let client = Client::new("127.0.1.10", "127.0.1.1");
    client.ask("web", A);
    assert_eq!(log.line(Duration::from_millis(100)), None);
    daemon.signal(Signal::SIGUSR2);
    let mut line = None;
    assert!(crate::stage::eventually(Duration::from_secs(5), || {
        client.ask("Odd\u{7}.dns.podman", A);
        line = log.line(Duration::from_millis(50));
        line.is_some()
    }));
    assert_eq!(line.unwrap(), "query from 127.0.1.10: odd\\007.dns.podman. A: NXDOMAIN");
    daemon.signal(Signal::SIGUSR1);
    let line = log.line(Duration::from_secs(5)).unwrap();
    assert!(line.starts_with("network=a udp="), "{line}");
    let line = log.line(Duration::from_secs(5)).unwrap();
    assert!(line.starts_with("upstream asked=0 "), "{line}");
}
