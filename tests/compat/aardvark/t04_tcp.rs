//! Streams: many questions on one, and clients that mean no good.

use std::io::Write as _;
use std::time::Duration;

use crate::daemon;
use crate::message::{self, A};
use crate::place::{GATEWAY, GATEWAY6, PODMAN1};

#[test]
fn several_questions_on_one_connection() {
    let daemon = daemon!("several_questions_on_one_connection");
    daemon.network("podman1", "10.89.0.1,fd89::1\nida 10.89.0.2 fd89::2 one,alpha\nidb 10.89.0.3  two\n");
    daemon.start();
    for (source, server) in [("10.89.0.2", GATEWAY), ("fd89::2", GATEWAY6)] {
        let mut stream = daemon.client(source).connect(server);
        for (name, address) in [("one", "10.89.0.2"), ("two", "10.89.0.3"), ("alpha", "10.89.0.2")] {
            assert_eq!(stream.ask(name, A).addresses(), [address]);
        }
    }
}

#[test]
fn questions_may_be_sent_ahead_and_in_pieces() {
    let daemon = daemon!("questions_may_be_sent_ahead_and_in_pieces");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let mut stream = daemon.client("10.89.0.2").connect(GATEWAY);
    for id in 0..20 {
        stream.send(&message::query(id, "one", A));
    }
    let mut ids: Vec<u16> = (0..20).map(|_| stream.receive().id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..20).collect::<Vec<_>>());
    let query = message::query(77, "two", A);
    let frame = [&[0, u8::try_from(query.len()).unwrap()], &query[..]].concat();
    for piece in frame.chunks(5) {
        stream.0.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(stream.receive().addresses(), ["10.89.0.3"]);
}

#[test]
fn one_byte_and_then_nothing_costs_nobody_else() {
    let daemon = daemon!("one_byte_and_then_nothing_costs_nobody_else");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let mut waiting = daemon.client("10.89.0.3").connect(GATEWAY);
    waiting.0.write_all(&[0]).unwrap();
    assert_eq!(daemon.client("10.89.0.2").connect(GATEWAY).ask("one", A).addresses(), ["10.89.0.2"]);
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "two", A).addresses(), ["10.89.0.3"]);
    // Three seconds of patience with a silent client.
    let took = waiting.closed(Duration::from_secs(8)).expect("the daemon drops it");
    assert!(took > Duration::from_secs(1), "{took:?}");
}

#[test]
fn an_idle_connection_is_closed() {
    let daemon = daemon!("an_idle_connection_is_closed");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let mut stream = daemon.client("10.89.0.2").connect(GATEWAY);
    assert_eq!(stream.ask("one", A).addresses(), ["10.89.0.2"]);
    let took = stream.closed(Duration::from_secs(8)).expect("the daemon drops it");
    assert!(took > Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_truncated_frame_does_not_spin() {
    let daemon = daemon!("a_truncated_frame_does_not_spin");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let mut kept = Vec::new();
    for bytes in [&[0, 40, 1, 2, 3][..], &[0], &[0, 0], &[255, 255, 0], &[0, 12, 0, 0]] {
        let mut stream = daemon.client("10.89.0.2").connect(GATEWAY);
        stream.0.write_all(bytes).unwrap();
        stream.0.shutdown(std::net::Shutdown::Write).unwrap();
        kept.push(stream);
    }
    std::thread::sleep(Duration::from_millis(200));
    let before = daemon.ticks();
    std::thread::sleep(Duration::from_secs(2));
    let used = daemon.ticks() - before;
    assert!(used < 10, "{used} hundredths of a second in two seconds");
    drop(kept);
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "one", A).addresses(), ["10.89.0.2"]);
}

#[test]
fn a_malformed_message_ends_its_connection_only() {
    let daemon = daemon!("a_malformed_message_ends_its_connection_only");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let mut good = daemon.client("10.89.0.2").connect(GATEWAY);
    let mut bad = daemon.client("10.89.0.3").connect(GATEWAY);
    bad.send(&[0xff; 40]);
    assert_eq!(good.ask("one", A).addresses(), ["10.89.0.2"]);
    assert!(bad.closed(Duration::from_secs(8)).is_some());
    assert_eq!(daemon.ask("10.89.0.3", GATEWAY, "one", A).addresses(), ["10.89.0.2"]);
}

#[test]
fn hundreds_of_idle_connections_leave_room() {
    let daemon = daemon!("hundreds_of_idle_connections_leave_room");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let client = daemon.client("10.89.0.3");
    let idle: Vec<_> = (0..200).map(|_| client.connect(GATEWAY)).collect();
    assert_eq!(client.ask(GATEWAY, "one", A).addresses(), ["10.89.0.2"]);
    assert_eq!(daemon.client("10.89.0.2").connect(GATEWAY).ask("one", A).addresses(), ["10.89.0.2"]);
    drop(idle);
}
