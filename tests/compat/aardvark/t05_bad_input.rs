//! Datagrams and files that no honest program would write.

use std::time::Duration;

use crate::daemon;
use crate::message::{self, A, header};
use crate::place::{GATEWAY, PODMAN1};

/// xorshift: the same junk in every run.
fn junk(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn hostile_datagrams_harm_nobody() {
    let daemon = daemon!("hostile_datagrams_harm_nobody");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let client = daemon.client("10.89.0.2");
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let whole = message::query(1, "one", A);
    for length in 0..whole.len() {
        client.send(GATEWAY, &whole[..length]);
    }
    for length in [1, 12, 17, 100, 512, 4096, 9000, 60000] {
        let bytes: Vec<u8> = (0..length).map(|_| junk(&mut state).to_le_bytes()[0]).collect();
        client.send(GATEWAY, &bytes);
    }
    // A name that points at itself, one that points forward, and one that never ends.
    for name in [&[0xc0, 12][..], &[0xc0, 255], &[0xc0, 14, 0xc0, 12], &[63; 400]] {
        let mut bytes = header(2, 0x0100, [1, 0, 0, 0]);
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&[0, 1, 0, 1]);
        client.send(GATEWAY, &bytes);
    }
    // Many questions promised; replies instead of queries.
    client.send(GATEWAY, &header(3, 0x0100, [65535, 65535, 65535, 65535]));
    let mut reply = whole.clone();
    reply[2] |= 0x80;
    client.send(GATEWAY, &reply);
    let mut alive = 0;
    for _ in 0..3 {
        let last = daemon.ask("10.89.0.3", GATEWAY, "one", A);
        alive += usize::from(last.addresses() == ["10.89.0.2"]);
    }
    assert_eq!(alive, 3);
    let before = daemon.ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(daemon.ticks() - before < 10);
}

#[test]
fn a_reply_sent_to_it_is_never_answered() {
    let daemon = daemon!(ours "a_reply_sent_to_it_is_never_answered");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let client = daemon.client("10.89.0.2");
    let mut reply = message::query(1, "one", A);
    reply[2] |= 0x80;
    client.send(GATEWAY, &reply);
    // Two servers that answer each other's answers would never stop.
    assert!(client.receive(Duration::from_millis(500)).is_none());
}

#[test]
fn broken_files_are_passed_over() {
    let daemon = daemon!("broken_files_are_passed_over");
    daemon.network("podman1", PODMAN1);
    daemon.network("half", "10.90.0.1\nidc 10.90.0.2  three\nidd 10.90.0.3");
    daemon.network("empty", "");
    daemon.network("headless", "\nidc 10.90.0.2  three\n");
    daemon.network("address", "10.90.0.1\nidc 10.90.0.300  three\n");
    daemon.network("binary", "\u{0}\u{1}\u{2}\n");
    std::fs::write(daemon.config().join("bytes"), [0xff, 0xfe, b'\n']).unwrap();
    std::fs::create_dir(daemon.config().join("directory")).unwrap();
    daemon.start();
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "one", A).addresses(), ["10.89.0.2"]);
    let listens = daemon.machine.sh("ss -lnu").unwrap().out();
    assert!(!listens.contains("10.90.0.1:53"), "{listens}");
}

#[test]
fn empty_lines_between_containers_are_skipped() {
    let daemon = daemon!("empty_lines_between_containers_are_skipped");
    daemon.network("podman1", "10.89.0.1\n\nida 10.89.0.2  one\n\n\nidb 10.89.0.3  two\n");
    daemon.start();
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "two", A).addresses(), ["10.89.0.3"]);
}
