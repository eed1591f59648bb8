//! Published ports: who the container sees as the client, and that rules do not disturb each other.

use std::time::Duration;

use slipway_lab::{HOST4, Running, WORLD4};

use crate::{LIMIT, lab};

const SHOW_PEER: &str = "echo peer=$NCAT_REMOTE_ADDR";

#[test]
fn the_clients_address_is_kept() {
    let (lab, _) = lab!("the_clients_address_is_kept", ["ncat"]);
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--api-socket=api.sock"]).unwrap();
    slirp.publish("tcp", 8080, 80).unwrap();
    let server = container.cmd(["ncat", "-4", "-l", "-k", "80", "-c", SHOW_PEER]);
    let _server = Running::server(server, "tcp", 80).unwrap();
    let answer = lab.world(["ncat", "--recv-only", "-w", "10", HOST4, "8080"]).run(LIMIT).unwrap();
    assert_eq!(answer.out(), format!("peer={WORLD4}\n"), "{answer}");
    // The host's own loopback appears as the gateway.
    let answer = lab.host(["ncat", "--recv-only", "-w", "10", "127.0.0.1", "8080"]).run(LIMIT).unwrap();
    assert_eq!(answer.out(), "peer=10.0.2.2\n", "{answer}");
}

#[test]
fn udp_is_published_too() {
    let (lab, _) = lab!("udp_is_published_too", ["ncat"]);
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--api-socket=api.sock"]).unwrap();
    slirp.publish("udp", 5000, 5000).unwrap();
    let server =
        container.cmd(["ncat", "-4", "-u", "-l", "5000", "-c", "read x; echo $x from $NCAT_REMOTE_ADDR"]);
    let _server = Running::server(server, "udp", 5000).unwrap();
    let script = format!("(echo ask; sleep 1) | ncat -u -w 3 {HOST4} 5000");
    let answer = lab.world(["sh", "-c", &script]).run(LIMIT).unwrap();
    assert_eq!(answer.out(), format!("ask from {WORLD4}\n"), "{answer}");
}

#[test]
fn an_established_connection_survives_the_end_of_its_rule() {
    let (lab, _) = lab!("an_established_connection_survives_the_end_of_its_rule", ["ncat"]);
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--api-socket=api.sock"]).unwrap();
    slirp.publish("tcp", 8080, 80).unwrap();
    let server = container.cmd(["ncat", "-l", "80", "-c", "echo hello; read x; echo $x again"]);
    let _server = Running::server(server, "tcp", 80).unwrap();
    let mut client = lab.world(["ncat", "-w", "20", HOST4, "8080"]).start().unwrap();
    client.until(LIMIT, |running| running.stdout().contains("hello")).unwrap();
    let reply = slirp.api(r#"{"execute":"remove_hostfwd","arguments":{"id":1}}"#).unwrap();
    assert!(reply.contains("return"), "{reply}");
    std::thread::sleep(Duration::from_millis(100));
    std::io::Write::write_all(client.stdin.as_mut().unwrap(), b"still\n").unwrap();
    client.until(LIMIT, |running| running.stdout().contains("still again")).unwrap();
    // And nothing listens any more.
    let answer = lab.world(["ncat", "-w", "5", HOST4, "8080"]).run(LIMIT).unwrap();
    assert!(answer.err().contains("refused"), "{answer}");
}

#[test]
fn a_port_nobody_serves_inside_ends_the_connection() {
    let (lab, _) = lab!("a_port_nobody_serves_inside_ends_the_connection", ["ncat"]);
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--api-socket=api.sock"]).unwrap();
    slirp.publish("tcp", 8080, 80).unwrap();
    let mut client = lab.world(["ncat", "--recv-only", "-w", "15", HOST4, "8080"]).start().unwrap();
    let ended = client.finish(LIMIT).unwrap().expect("the client is told");
    assert_eq!(ended.out(), "", "{ended}");
}
