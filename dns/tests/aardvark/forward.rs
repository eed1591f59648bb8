//! What is asked upstream: whom, when, and what is said when nobody answers.

use crate::client::{A, Client, NXDOMAIN, SERVFAIL, Tcp, framed, query, reply, upstream};
use crate::stage::{Stage, eventually, now};
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

const NETWORK: &str = "127.0.1.1\n\
    aaa 127.0.1.10  web\n\
    bbb 127.0.1.11  own 127.0.0.54\n\
    ccc 127.0.1.12  dead 127.0.0.66\n\
    ddd 127.0.1.13  late 127.0.0.66,127.0.0.54\n\
    eee 127.0.1.14  kept 192.0.2.54\n";
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn servers_are_the_containers_or_the_hosts() {
    let Some(stage) = Stage::enter("servers_are_the_containers_or_the_hosts") else { return };
    stage.set_resolv_conf("nameserver 127.0.0.53\n");
    stage.network("a", NETWORK);
    let _threads = (upstream("127.0.0.53", [192, 0, 2, 53]), upstream("127.0.0.54", [192, 0, 2, 54]));
    let daemon = stage.start(&[]);
    let host = Client::new("127.0.1.10", "127.0.1.1");
    let own = Client::new("127.0.1.11", "127.0.1.1");
    for (client, expected) in [(&host, "192.0.2.53"), (&own, "192.0.2.54")] {
        assert_eq!(client.ask("example.org", A).addresses(), [expected]);
        let mut tcp = client.tcp();
        assert_eq!(tcp.ask("example.org", A).addresses(), [expected]);
        assert_eq!(tcp.ask("short", A).addresses(), [expected]);
    }
    assert_eq!(host.ask("unknown.dns.podman", A).rcode(), NXDOMAIN);
    assert_eq!(host.ask("web", A).addresses(), ["127.0.1.10"]);
    let open = fs::read_dir(daemon.proc("fd")).unwrap().count();
    assert!(open < 20, "{open} descriptors: each attempt's socket is closed");
}

#[test]
fn changes_of_resolv_conf_are_followed() {
    let Some(stage) = Stage::enter("changes_of_resolv_conf_are_followed") else { return };
    stage.set_resolv_conf("nameserver 127.0.0.53\n");
    stage.network("a", NETWORK);
    let _threads = (upstream("127.0.0.53", [192, 0, 2, 53]), upstream("127.0.0.54", [192, 0, 2, 54]));
    let _daemon = stage.start(&[]);
    let client = Client::new("127.0.1.10", "127.0.1.1");
    assert_eq!(client.ask("example.org", A).addresses(), ["192.0.2.53"]);
    stage.set_resolv_conf("nameserver 127.0.0.54 # written in place\n");
    let says = |address: &str| client.ask("example.org", A).addresses() == [address];
    assert!(eventually(LIMIT, || says("192.0.2.54")));
    fs::write("/etc/resolv.conf.new", "nameserver 127.0.0.53\n").unwrap();
    fs::rename("/etc/resolv.conf.new", "/etc/resolv.conf").unwrap();
    assert!(eventually(LIMIT, || says("192.0.2.53")), "replaced");
    stage.set_resolv_conf("nameserver fe80::1%nowhere\nnameserver 127.0.0.54\n");
    assert!(eventually(LIMIT, || says("192.0.2.54")), "an interface that is not here is left out");
    stage.set_resolv_conf("nameserver 127.0.0.53\n");
    assert!(eventually(LIMIT, || says("192.0.2.53")));
    stage.set_resolv_conf("nameserver nonsense\nnameserver 127.0.0.54\n");
    assert!(eventually(LIMIT, || says("192.0.2.54")), "nonsense is passed over");
}

#[test]
fn silence_is_passed_on_and_the_next_server_has_its_turn() {
    let Some(stage) = Stage::enter("silence_is_passed_on_and_the_next_server_has_its_turn") else { return };
    stage.set_resolv_conf("nameserver 127.0.0.53\n");
    stage.network("a", NETWORK);
    let _black_holes =
        (UdpSocket::bind("127.0.0.66:53").unwrap(), TcpListener::bind("127.0.0.66:53").unwrap());
    let _threads = upstream("127.0.0.54", [192, 0, 2, 54]);
    let _daemon = stage.start(&[]);
    let start = now();
    let (dead, late) = (Client::new("127.0.1.12", "127.0.1.1"), Client::new("127.0.1.13", "127.0.1.1"));
    dead.send(&query(1, "example.org", A));
    assert_eq!(late.ask("example.org", A).addresses(), ["192.0.2.54"]);
    let took = start.elapsed().as_millis();
    assert!((2500..4900).contains(&took), "{took} ms");
    let again = now();
    assert_eq!(late.tcp().ask("example.org", A).addresses(), ["192.0.2.54"]);
    assert!(again.elapsed().as_millis() >= 2500, "no memory of dead servers");
    assert!(dead.receive(Duration::from_secs(1)).is_none(), "nothing at all");
    assert_eq!(dead.ask("web", A).count(), 1, "and names of ours were never in question");
}

#[test]
fn with_the_cache_dead_servers_are_told() {
    let Some(stage) = Stage::enter("with_the_cache_dead_servers_are_told") else { return };
    stage.network("a", NETWORK);
    let ip = |words: &[&str]| assert!(Command::new("ip").args(words).status().unwrap().success());
    ip(&["address", "add", "192.0.2.54/32", "dev", "lo"]);
    let log = stage.dir().join("stats");
    let daemon = stage.start(&["--cache", "--stats", log.to_str().unwrap()]);
    let dead = Client::new("127.0.1.12", "127.0.1.1");
    assert_eq!(dead.ask("example.org", A).rcode(), SERVFAIL, "nobody listens there");
    let _threads = (upstream("127.0.0.54", [192, 0, 2, 54]), upstream("192.0.2.54", [192, 0, 2, 99]));
    // Of a server on the loopback nothing is kept: it is a cache itself.
    let near = Client::new("127.0.1.11", "127.0.1.1");
    let own = Client::new("127.0.1.14", "127.0.1.1");
    for _ in 0..5 {
        assert_eq!(own.ask("example.org", A).addresses(), ["192.0.2.99"]);
        assert_eq!(near.ask("example.org", A).addresses(), ["192.0.2.54"]);
    }
    assert_eq!(own.tcp().ask("example.org", A).addresses(), ["192.0.2.99"]);
    let counted = |text: &str| {
        daemon.signal(nix::sys::signal::Signal::SIGUSR1);
        let read = || fs::read_to_string(&log).unwrap_or_default();
        assert!(eventually(LIMIT, || read().contains(text)), "{}", read());
    };
    counted("cached=5 shared=0 answered=6 ");
    // Another network may have other answers.
    ip(&["address", "add", "192.0.2.55/32", "dev", "lo"]);
    assert_eq!(own.ask("example.org", A).addresses(), ["192.0.2.99"]);
    counted("cached=5 shared=0 answered=7 ");
    assert_eq!(own.ask("example.org", A).addresses(), ["192.0.2.99"]);
    counted("cached=6 shared=0 answered=7 ");
}

#[test]
fn nothing_leaves_when_forwarding_is_off() {
    let Some(stage) = Stage::enter("nothing_leaves_when_forwarding_is_off") else { return };
    stage.set_resolv_conf("nameserver 127.0.0.53\n");
    stage.network("a", NETWORK);
    let _threads = upstream("127.0.0.53", [192, 0, 2, 53]);
    assert!(stage.command(&[]).env("AARDVARK_NO_PROXY", "").status().unwrap().success());
    let _daemon = stage.daemon();
    let client = Client::new("127.0.1.10", "127.0.1.1");
    assert_eq!(client.ask("example.org", A).rcode(), NXDOMAIN);
}

#[test]
fn a_connection_with_much_under_way_is_answered_whole() {
    let Some(stage) = Stage::enter("a_connection_with_much_under_way_is_answered_whole") else { return };
    stage.set_resolv_conf("nameserver 127.0.0.53\n");
    stage.network("a", NETWORK);
    let _threads = upstream("127.0.0.53", [192, 0, 2, 53]);
    let _daemon = stage.start(&[]);
    let mut tcp = Client::new("127.0.1.10", "127.0.1.1").tcp();
    let stream: Vec<u8> = (0..100).flat_map(|id| framed(&query(id, "example.org", A))).collect();
    tcp.0.write_all(&stream).unwrap();
    let mut ids: Vec<u16> = (0..100).map(|_| tcp.receive().expect("an answer").id()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..100).collect::<Vec<u16>>());
}

#[test]
fn a_flood_to_a_dead_server_is_bounded() {
    let Some(stage) = Stage::enter("a_flood_to_a_dead_server_is_bounded") else { return };
    stage.set_resolv_conf("nameserver 127.0.0.53\n");
    stage.network("a", NETWORK);
    let _black_hole = UdpSocket::bind("127.0.0.66:53").unwrap();
    let _threads = upstream("127.0.0.53", [192, 0, 2, 53]);
    let daemon = stage.start(&[]);
    let flood = Client::new("127.0.1.12", "127.0.1.1");
    let good = Client::new("127.0.1.10", "127.0.1.1");
    for id in 0..6000 {
        flood.send(&query(id, "example.org", A));
        if id % 100 == 0 {
            assert_eq!(good.ask("web", A).count(), 1);
            assert_eq!(good.ask("example.org", A).count(), 1, "others are still served");
        }
    }
    let open = fs::read_dir(daemon.proc("fd")).unwrap().count();
    assert!((100..2100).contains(&open), "{open} descriptors");
    let few = || fs::read_dir(daemon.proc("fd")).unwrap().count() < 20;
    // Those under way in five seconds, what has waited for them in five more.
    assert!(eventually(Duration::from_secs(13), few), "all are closed in the end");
}

/// Answers one query on each of `connections` connections, each in its own way.
fn odd_server(address: &'static str, ways: Vec<fn(&mut Tcp, &[u8])>) -> std::thread::JoinHandle<()> {
    let listener = TcpListener::bind((address, 53)).unwrap();
    std::thread::spawn(move || {
        for way in ways {
            let mut connection = Tcp(listener.accept().unwrap().0);
            let query = connection.receive().unwrap().0;
            way(&mut connection, &query);
        }
    })
}

#[test]
fn odd_servers_over_tcp() {
    let Some(stage) = Stage::enter("odd_servers_over_tcp") else { return };
    stage.set_resolv_conf("nameserver 127.0.0.53\nnameserver 127.0.0.54\n");
    stage.network("a", NETWORK);
    let in_pieces: fn(&mut Tcp, &[u8]) = |connection, query| {
        for byte in framed(&reply(query, [192, 0, 2, 53])) {
            connection.0.write_all(&[byte]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let hangs_up: fn(&mut Tcp, &[u8]) = |connection, query| {
        connection.0.write_all(&framed(&reply(query, [192, 0, 2, 53]))[..9]).unwrap();
    };
    let of_another: fn(&mut Tcp, &[u8]) = |connection, query| {
        let mut wrong = reply(query, [192, 0, 2, 66]);
        wrong[0] ^= 1;
        connection.send(&wrong);
        let _ = connection.receive();
    };
    let first = odd_server("127.0.0.53", vec![in_pieces, hangs_up, of_another]);
    let _second = upstream("127.0.0.54", [192, 0, 2, 54]);
    let _daemon = stage.start(&[]);
    let mut client = Client::new("127.0.1.10", "127.0.1.1").tcp();
    for expected in ["192.0.2.53", "192.0.2.54", "192.0.2.54"] {
        let start = now();
        assert_eq!(client.ask("example.org", A).addresses(), [expected]);
        assert!(
            start.elapsed() < Duration::from_millis(2400),
            "the next is asked before the first one's share is over"
        );
    }
    first.join().unwrap();
}

#[test]
fn a_forged_answer_is_not_believed() {
    let Some(stage) = Stage::enter("a_forged_answer_is_not_believed") else { return };
    stage.set_resolv_conf("nameserver 127.0.0.53\n");
    stage.network("a", NETWORK);
    let _daemon = stage.start(&[]);
    let server = UdpSocket::bind("127.0.0.53:53").unwrap();
    let stranger = UdpSocket::bind("127.0.0.66:53").unwrap();
    let client = Client::new("127.0.1.10", "127.0.1.1");
    client.send(&query(0x1234, "example.org", A));
    let mut buffer = [0; 4096];
    let (len, from) = server.recv_from(&mut buffer).unwrap();
    let asked = &buffer[..len];
    let good = reply(asked, [192, 0, 2, 53]);
    let forged = reply(asked, [192, 0, 2, 66]);
    let (mut other_id, mut other_name) = (forged.clone(), forged.clone());
    other_id[1] ^= 1;
    other_name[14] ^= 1;
    stranger.send_to(&forged, from).unwrap();
    for wrong in [&other_id[..], &other_name, &forged[..9], asked, b""] {
        server.send_to(wrong, from).unwrap();
    }
    assert!(client.receive(Duration::from_millis(300)).is_none());
    server.send_to(&good, from).unwrap();
    let answer = client.receive(LIMIT).unwrap();
    assert_eq!((answer.id(), answer.addresses()), (0x1234, vec!["192.0.2.53".to_owned()]));
}
