//! Connections: many queries on one, and clients that misbehave.

use crate::client::{A, Client, framed, query};
use crate::stage::{Stage, now};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

const NETWORK: &str = "127.0.1.1\naaa 127.0.1.10  web\nbbb 127.0.1.11  other\n";

#[test]
fn many_queries_in_one_stream_are_all_answered() {
    let Some(stage) = Stage::enter("many_queries_in_one_stream_are_all_answered") else { return };
    stage.network("a", NETWORK);
    let _daemon = stage.start(&[]);
    let mut tcp = Client::new("127.0.1.10", "127.0.1.1").tcp();
    let stream: Vec<u8> = (0..300).flat_map(|id| framed(&query(id, "web", A))).collect();
    // In pieces that end nowhere in particular, and the end of the stream behind the last.
    for piece in stream.chunks(97) {
        tcp.0.write_all(piece).unwrap();
    }
    tcp.0.shutdown(Shutdown::Write).unwrap();
    for id in 0..300 {
        assert_eq!(tcp.receive().map(|answer| answer.id()), Some(id));
    }
    assert!(tcp.receive().is_none(), "then it ends");
}

#[test]
fn a_client_that_says_nothing_is_dropped_and_costs_nothing() {
    let Some(stage) = Stage::enter("a_client_that_says_nothing_is_dropped_and_costs_nothing") else { return };
    stage.network("a", NETWORK);
    let daemon = stage.start(&[]);
    let client = Client::new("127.0.1.10", "127.0.1.1");
    let mut silent = client.tcp();
    let mut one_byte = client.tcp();
    one_byte.0.write_all(&[0]).unwrap();
    let mut cut = client.tcp();
    cut.0.write_all(&framed(&query(1, "web", A))[..20]).unwrap();
    let (start, before) = (now(), daemon.ticks());
    let mut good = client.tcp();
    for _ in 0..4 {
        assert_eq!(good.ask("web", A).count(), 1);
        // Bytes one by one are not getting further.
        let _ = one_byte.0.write_all(&[1]);
        std::thread::sleep(Duration::from_millis(700));
    }
    for connection in [&mut silent, &mut one_byte, &mut cut] {
        assert!(connection.receive().is_none());
    }
    let took = start.elapsed();
    assert!((2900..4500).contains(&took.as_millis()), "{took:?}");
    assert_eq!(good.ask("web", A).count(), 1, "the one that asks goes on");
    assert!(daemon.ticks() - before < 10, "it slept");
}

#[test]
fn nonsense_ends_a_connection_at_once() {
    let Some(stage) = Stage::enter("nonsense_ends_a_connection_at_once") else { return };
    stage.network("a", NETWORK);
    let daemon = stage.start(&[]);
    let client = Client::new("127.0.1.10", "127.0.1.1");
    for bytes in [&[0, 0][..], &[0, 3, 1, 2, 3], &framed(&[0xff; 64])] {
        let mut tcp = client.tcp();
        let start = now();
        tcp.0.write_all(bytes).unwrap();
        assert!(tcp.receive().is_none());
        // Silence would end it after three seconds.
        assert!(start.elapsed() < Duration::from_millis(2900), "{:?}", start.elapsed());
    }
    assert_eq!(client.tcp().ask("web", A).count(), 1);
    drop(daemon);
}

#[test]
fn one_client_cannot_take_all_places() {
    let Some(stage) = Stage::enter("one_client_cannot_take_all_places") else { return };
    stage.network("a", NETWORK);
    let daemon = stage.start(&[]);
    let mut other = Client::new("127.0.1.11", "127.0.1.1").tcp();
    assert_eq!(other.ask("web", A).count(), 1);
    let greedy = Client::new("127.0.1.10", "127.0.1.1");
    let held: Vec<_> = (0..400).map(|_| greedy.tcp()).collect();
    assert_eq!(greedy.tcp().ask("web", A).count(), 1, "a new one of its own takes an old one's place");
    assert_eq!(other.ask("web", A).count(), 1, "the other's is still there");
    let open = std::fs::read_dir(daemon.proc("fd")).unwrap().count();
    assert!(open < 60, "{open} descriptors");
    drop(held);
}

#[test]
fn a_client_that_does_not_read_is_bounded() {
    let Some(stage) = Stage::enter("a_client_that_does_not_read_is_bounded") else { return };
    stage.network("a", NETWORK);
    let daemon = stage.start(&[]);
    let client = Client::new("127.0.1.10", "127.0.1.1");
    let mut tcp = client.tcp();
    tcp.0.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let stream: Vec<u8> = (0..500).flat_map(|id| framed(&query(id, "web", A))).collect();
    let mut sent = 0;
    while sent < 64 << 20 && tcp.0.write_all(&stream).is_ok() {
        sent += stream.len();
    }
    assert!(sent < 64 << 20, "somebody has to say stop");
    let status = std::fs::read_to_string(daemon.proc("status")).unwrap();
    let resident: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    assert!(resident < 16 << 10, "{resident} kB");
    assert_eq!(client.ask("web", A).count(), 1);
    let mut rest = Vec::new();
    let _ = tcp.0.read_to_end(&mut rest);
}

#[test]
fn being_out_of_descriptors_ends_no_listener() {
    let Some(stage) = Stage::enter("being_out_of_descriptors_ends_no_listener") else { return };
    stage.network("a", NETWORK);
    // The hard limit too, for it raises the soft one; and not that of this process, which needs more.
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -n 20; exec \"$@\"", "sh"]).arg(crate::stage::program());
    limited.arg("--config").arg(stage.config()).args(["-p", &crate::stage::PORT.to_string(), "run"]);
    assert!(limited.status().unwrap().success());
    let daemon = stage.daemon();
    let clients: Vec<Client> =
        (20..60).map(|last| Client::new(&format!("127.0.1.{last}"), "127.0.1.1")).collect();
    let held: Vec<_> = clients.iter().map(Client::tcp).collect();
    let before = daemon.ticks();
    let client = Client::new("127.0.1.10", "127.0.1.1");
    assert_eq!(client.tcp().ask("web", A).count(), 1);
    assert_eq!(client.ask("web", A).count(), 1);
    std::thread::sleep(Duration::from_secs(1));
    assert!(daemon.ticks() - before < 30, "it does not spin");
    drop(held);
    assert_eq!(client.tcp().ask("web", A).count(), 1);
}
