//! Reloading: nothing is lost, half-written files do no harm, addresses move.

use crate::client::{A, AAAA, Answer, Client, NXDOMAIN, query};
use crate::stage::{PORT, Stage, eventually, now};
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

/// A network of `count` containers, of which the last is called `last<round>`.
fn big(count: u32, round: u32) -> String {
    let mut text = "127.0.1.1\n".to_owned();
    for at in 0..count {
        let (high, low) = (at / 250, at % 250 + 1);
        let _ = writeln!(text, "{at:064} 10.1.{high}.{low} fd00::{at:x} c{at},{at:012}");
    }
    let _ = writeln!(text, "aaa 127.0.1.10  web,last{round}");
    text
}

#[test]
fn a_thousand_containers_reload_without_a_lost_query() {
    let Some(stage) = Stage::enter("a_thousand_containers_reload_without_a_lost_query") else { return };
    stage.network("a", &big(1000, 0));
    let daemon = stage.start(&[]);
    let client = Client::new("127.0.1.10", "127.0.1.1");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Sixteen under way at any time; each one has to come back.
        let asking = scope.spawn(|| {
            let (mut sent, mut answered) = (0_u32, 0_u32);
            while sent > answered || !done.load(Ordering::Relaxed) {
                while sent - answered < 16 && !done.load(Ordering::Relaxed) {
                    client.send(&query(7, &format!("c{}", sent % 1000), A));
                    sent += 1;
                }
                let Some(answer) = client.receive(LIMIT) else { break };
                assert_eq!(answer.count(), 1);
                answered += 1;
            }
            (sent, answered)
        });
        let other = Client::new("127.0.1.10", "127.0.1.1");
        for round in 1..=30 {
            stage.network("a", &big(1000, round));
            daemon.signal(Signal::SIGHUP);
            let name = format!("last{round}.dns.podman");
            assert!(eventually(LIMIT, || other.ask(&name, A).count() == 1), "round {round}");
        }
        done.store(true, Ordering::Relaxed);
        let (sent, answered) = asking.join().unwrap();
        assert_eq!(sent, answered);
        assert!(sent > 1000, "{sent} were asked");
    });
}

#[test]
fn a_file_that_makes_no_sense_changes_nothing() {
    let Some(stage) = Stage::enter("a_file_that_makes_no_sense_changes_nothing") else { return };
    stage.network("a", "127.0.1.1\naaa 127.0.1.10  web\n");
    stage.network("bad", "127.0.3.1\nhalf 127.0.3.\n");
    let daemon = stage.start(&[]);
    let client = Client::new("127.0.1.10", "127.0.1.1");
    assert_eq!(client.ask("web", A).count(), 1);
    for text in ["", "127.0.1.1\naaa 127.0.1.", "127.0.1.1\naaa 127.0.1.10 ", "\u{0}\u{1}", "127.0"] {
        stage.network("a", text);
        stage.network("b", "127.0.2.1\nbbb 127.0.2.10  other\n");
        daemon.signal(Signal::SIGHUP);
        // The good network shows that the reload is over.
        let mut other = None;
        assert!(eventually(LIMIT, || {
            let asker = Client::new("127.0.2.10", "127.0.2.1");
            asker.send(&query(1, "other", A));
            other = asker.receive(Duration::from_millis(50));
            other.is_some()
        }));
        assert_eq!(client.ask("web", A).count(), 1, "after {text:?}");
        stage.remove("b");
        daemon.signal(Signal::SIGHUP);
        assert!(eventually(LIMIT, || {
            let asker = Client::new("127.0.2.10", "127.0.1.1");
            asker.ask("other.dns.podman", A).rcode() == NXDOMAIN
        }));
    }
    // Gone is gone.
    stage.remove("a");
    daemon.signal(Signal::SIGHUP);
    assert!(daemon.ends_within(LIMIT));
}

#[test]
fn an_address_moves_to_another_network() {
    let Some(stage) = Stage::enter("an_address_moves_to_another_network") else { return };
    stage.network("a", "127.0.1.1\naaa 127.0.1.10  web\n");
    stage.network("keep", "127.0.9.1\nkkk 127.0.9.10  keep\n");
    let daemon = stage.start(&[]);
    let outsider = Client::new("127.0.0.1", "127.0.1.1");
    assert_eq!(outsider.ask("web", A).count(), 1);
    let mut old = outsider.tcp();
    assert_eq!(old.ask("web", A).count(), 1);
    let mut kept = Client::new("127.0.9.10", "127.0.9.1").tcp();
    assert_eq!(kept.ask("keep", A).count(), 1);

    stage.remove("a");
    // In front of the other in the order of names, so that every number changes.
    stage.network("0", "127.0.1.1\nbbb 127.0.1.11  moved\n");
    daemon.signal(Signal::SIGHUP);
    assert!(eventually(LIMIT, || {
        outsider.send(&query(3, "moved.dns.podman", A));
        outsider.receive(Duration::from_millis(200)).is_some_and(|answer: Answer| answer.count() == 1)
    }));
    assert!(old.receive().is_none(), "a connection to a network that is gone ends");
    assert_eq!(kept.ask("keep", A).count(), 1, "one to another network goes on");
}

#[test]
fn an_address_under_detection_keeps_nobody_from_an_answer() {
    let Some(stage) = Stage::enter_with_ipv6("an_address_under_detection_keeps_nobody_from_an_answer") else {
        return;
    };
    stage.network("a", "127.0.1.1\naaa 127.0.1.10  web\n");
    let daemon = stage.start(&[]);
    let script = "ip link add near type veth peer name far && ip link set near up && ip link set far up &&
        ip address add fd89:7::2/64 dev near nodad && echo 4 > /proc/sys/net/ipv6/conf/near/dad_transmits &&
        ip address add fd89:7::1/64 dev near";
    assert!(Command::new("sh").args(["-c", script]).status().unwrap().success());
    stage.network("b", "fd89:7::1\nbbb  fd89:7::2 other\n");
    daemon.signal(Signal::SIGHUP);
    let (served, late) = (Client::new("127.0.1.10", "127.0.1.1"), Client::new("fd89:7::2", "fd89:7::1"));
    // Detection asks four times, a second each: whoever waited for its end, as at the start, would wait for three.
    assert!(eventually(Duration::from_secs(30), || {
        let start = now();
        assert_eq!(served.ask("web", A).count(), 1);
        assert!(start.elapsed() < Duration::from_millis(2900), "{:?}", start.elapsed());
        late.send(&query(1, "other", AAAA));
        late.receive(Duration::from_millis(20)).is_some_and(|answer| answer.count() == 1)
    }));
}

#[test]
fn an_address_that_is_taken_is_served_once_it_is_free() {
    let Some(stage) = Stage::enter("an_address_that_is_taken_is_served_once_it_is_free") else { return };
    stage.network("a", "127.0.1.1\naaa 127.0.1.10  web\n");
    let log = stage.log();
    let daemon = stage.start(&[]);
    let taken = UdpSocket::bind(("127.0.2.1", PORT)).unwrap();
    stage.network("b", "127.0.2.1\nbbb 127.0.2.10  other\n");
    daemon.signal(Signal::SIGHUP);
    let line = log.line(LIMIT).unwrap();
    assert!(line.starts_with("failed to bind udp listener on 127.0.2.1:"), "{line}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(log.line(Duration::from_millis(1)), None, "said once");
    drop(taken);
    let client = Client::new("127.0.2.10", "127.0.2.1");
    assert!(eventually(LIMIT, || {
        client.send(&query(1, "other", A));
        client.receive(Duration::from_millis(50)).is_some_and(|answer| answer.count() == 1)
    }));
    assert_eq!(log.line(LIMIT).as_deref(), Some("what could not be bound is served now"));
}

#[test]
fn a_reload_is_quick() {
    let Some(stage) = Stage::enter("a_reload_is_quick") else { return };
    stage.network("a", &big(1000, 0));
    let daemon = stage.start(&[]);
    let client = Client::new("127.0.1.10", "127.0.1.1");
    stage.network("a", &big(1000, 1));
    let start = now();
    daemon.signal(Signal::SIGHUP);
    assert!(eventually(LIMIT, || client.ask("last1.dns.podman", A).count() == 1));
    println!("1000 containers: {:?} from the signal to the first new answer", start.elapsed());
}

#[test]
fn hangups_without_end_keep_nobody_from_an_answer() {
    let Some(stage) = Stage::enter("hangups_without_end_keep_nobody_from_an_answer") else { return };
    stage.network("a", &big(1000, 0));
    let daemon = stage.start(&[]);
    let client = Client::new("127.0.1.10", "127.0.1.1");
    let done = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                daemon.signal(Signal::SIGHUP);
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        let start = now();
        let mut asked = 0;
        while start.elapsed() < Duration::from_secs(2) {
            assert_eq!(client.ask("web", A).count(), 1);
            asked += 1;
        }
        done.store(true, Ordering::Relaxed);
        asked
    });
    assert!(asked >= 10, "{asked} answers in two seconds");
}
