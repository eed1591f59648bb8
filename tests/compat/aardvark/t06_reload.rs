//! Networks that come and go while containers ask.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use slipway_lab::{LIMIT, now};

use crate::daemon;
use crate::message::{A, NXDOMAIN};
use crate::place::{GATEWAY, GATEWAY_B, PODMAN1};

fn eventually(what: &str, probe: impl Fn() -> bool) {
    let end = now() + Duration::from_secs(10);
    while !probe() {
        assert!(now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn networks_come_and_go() {
    let daemon = daemon!("networks_come_and_go");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    daemon.network("podman2", "10.90.0.1\nidc 10.90.0.2  three\n");
    daemon.reload();
    let bound = |address: &str| {
        let shown = daemon.machine.sh("ss -lntu").unwrap().out();
        shown.matches(&format!("{address}:53 ")).count()
    };
    eventually("both sockets of the new network", || bound(GATEWAY_B) == 2);
    assert_eq!(daemon.ask("10.90.0.2", GATEWAY_B, "three", A).addresses(), ["10.90.0.2"]);
    daemon.remove("podman1");
    daemon.reload();
    eventually("the old network's sockets are gone", || bound(GATEWAY) == 0);
    assert_eq!(daemon.ask("10.90.0.2", GATEWAY_B, "three", A).addresses(), ["10.90.0.2"]);
    // The same address under another name.
    daemon.remove("podman2");
    daemon.network("renamed", "10.90.0.1\nidc 10.90.0.2  three\nidd 10.90.0.9  nine\n");
    daemon.reload();
    eventually("served under the new name", || {
        let client = daemon.client("10.90.0.2");
        client.send(GATEWAY_B, &crate::message::query(1, "nine", A));
        client.receive(Duration::from_millis(100)).is_some_and(|reply| reply.addresses() == ["10.90.0.9"])
    });
}

#[test]
fn containers_come_and_go() {
    let daemon = daemon!("containers_come_and_go");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    daemon.network("podman1", &format!("{PODMAN1}ide 10.89.0.5  five\n"));
    daemon.reload();
    daemon.ask_until("10.89.0.2", "five.dns.podman", A, |reply| reply.addresses() == ["10.89.0.5"]);
    daemon.network("podman1", PODMAN1);
    daemon.reload();
    daemon.ask_until("10.89.0.2", "five.dns.podman", A, |reply| reply.rcode() == NXDOMAIN);
}

#[test]
fn it_ends_when_nothing_is_left() {
    let daemon = daemon!("it_ends_when_nothing_is_left");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let pid = daemon.pid();
    daemon.remove("podman1");
    daemon.reload();
    eventually("the process ends", || !daemon.is_alive(pid));
    assert!(!daemon.pid_file().exists());
}

#[test]
fn it_ends_by_sigterm_without_a_word() {
    let daemon = daemon!("it_ends_by_sigterm_without_a_word");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let pid = daemon.pid();
    daemon.signal(Signal::SIGTERM);
    eventually("the process ends", || !daemon.is_alive(pid));
    // The next one that writes a network finds the dead number and starts another.
    assert!(daemon.pid_file().exists());
    daemon.start();
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "one", A).addresses(), ["10.89.0.2"]);
}

#[test]
fn a_half_written_file_does_not_stop_the_others() {
    let daemon = daemon!("a_half_written_file_does_not_stop_the_others");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    daemon.network("podman2", "10.90.0.1\nidc 10.90.0.2");
    daemon.network("podman1", &format!("{PODMAN1}ide 10.89.0.5  five\n"));
    daemon.reload();
    daemon.ask_until("10.89.0.2", "five.dns.podman", A, |reply| reply.addresses() == ["10.89.0.5"]);
    // The writer finishes.
    daemon.network("podman2", "10.90.0.1\nidc 10.90.0.2  three\n");
    daemon.reload();
    eventually("the finished file is served", || {
        let client = daemon.client("10.90.0.2");
        client.send(GATEWAY_B, &crate::message::query(1, "three", A));
        client.receive(Duration::from_millis(100)).is_some_and(|reply| reply.addresses() == ["10.90.0.2"])
    });
}

#[test]
fn an_address_that_cannot_be_bound_later_is_told_only() {
    let daemon = daemon!("an_address_that_cannot_be_bound_later_is_told_only");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    daemon.network("podman2", "203.0.113.1\nidc 203.0.113.2  three\n");
    daemon.network("podman1", &format!("{PODMAN1}ide 10.89.0.5  five\n"));
    daemon.reload();
    daemon.ask_until("10.89.0.2", "five.dns.podman", A, |reply| reply.addresses() == ["10.89.0.5"]);
    assert!(daemon.is_alive(daemon.pid()));
}

/// A network of a thousand containers behind one gateway; `more` names get an extra alias.
fn thousand(more: &str) -> String {
    let mut text = "10.89.0.1\nida 10.89.0.2  one\n".to_owned();
    for number in 0..1000 {
        let (high, low) = (100 + number / 250, 2 + number % 250);
        let _ = writeln!(text, "id{number} 10.{high}.0.{low}  c{number},alias{number}{more}");
    }
    text
}

#[test]
fn a_thousand_containers_are_read_again_without_one_lost_query() {
    let daemon = daemon!("a_thousand_containers_are_read_again_without_one_lost_query");
    daemon.network("podman1", &thousand(""));
    daemon.start();
    let client = daemon.client("10.89.0.2");
    let (stop, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let count = answered.load(Ordering::Relaxed);
                let name = format!("c{}", count % 1000);
                let reply = client.ask(GATEWAY, &name, A);
                assert_eq!(reply.addresses().len(), 1, "{name} after {count}: {reply:?}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 0..25 {
            // As its writers do: a whole new file in place of the old one.
            let more = if round % 2 == 0 { ",even" } else { "" };
            daemon.network(".new", "10.89.0.1\n");
            std::fs::write(daemon.machine.dir().join("new"), thousand(more)).unwrap();
            std::fs::rename(daemon.machine.dir().join("new"), daemon.config().join("podman1")).unwrap();
            daemon.remove(".new");
            let before = answered.load(Ordering::Relaxed);
            daemon.reload();
            // Some while it reads, whatever else the machine does.
            let end = now() + LIMIT;
            while answered.load(Ordering::Relaxed) < before + 4 && !asking.is_finished() && now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        stop.store(true, Ordering::Relaxed);
        asking.join().unwrap();
    });
    assert!(answered.into_inner() >= 25 * 4, "each reload was asked through");
    let reply = daemon.ask_until("10.89.0.2", "even", A, |reply| reply.answers.len() == 1000);
    assert!(!reply.is_truncated());
}
