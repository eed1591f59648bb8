//! Published ports: who the container sees as the client, and that rules do not disturb each other.

use std::time::Duration;

use slipway_lab::{HOST4, HOST6, LIMIT, Running, WORLD4, lab};

use crate::ipv6;

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

/// A connected client hears only whom it asked, so an answer from another address of the host's is lost to it.
#[test]
fn udp_answers_come_from_the_address_that_was_asked() {
    let (lab, _) = lab!(ours "udp_answers_come_from_the_address_that_was_asked", []);
    if slipway_lab::peer().is_none() {
        println!("SKIP udp_answers_come_from_the_address_that_was_asked: slipway-lab-peer is not built");
        return;
    }
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--enable-ipv6", "--api-socket=api.sock"]).unwrap();
    let guest = ipv6(&container);
    slirp.publish("udp", 5000, 9000).unwrap();
    let reply = slirp.api(&format!(
        r#"{{"execute":"add_hostfwd","arguments":{{"proto":"udp","host_addr":"::","host_port":5000,"guest_addr":"{guest}","guest_port":9000}}}}"#
    ));
    assert!(reply.as_ref().is_ok_and(|reply| reply.contains("\"id\"")), "{reply:?}");
    let peer = lab.program("slipway-lab-peer");
    let _v4 = Running::server(container.cmd([&peer, "serve", "0.0.0.0:9000"]), "udp", 9000).unwrap();
    let _v6 = container.cmd([&peer, "serve", &format!("[{guest}]:9000")]).start().unwrap();
    lab.host_root(["ip", "address", "add", "192.0.2.5/24", "dev", "veth0"]).ok(LIMIT).unwrap();
    let link = lab.host(["ip", "-6", "-o", "address", "show", "scope", "link"]).ok(LIMIT).unwrap().out();
    let link = link.split_whitespace().find_map(|word| word.strip_suffix("/64")).unwrap();
    let index = lab.world(["ip", "-o", "link", "show", "dev", "veth0"]).ok(LIMIT).unwrap().out();
    let index = index.split(':').next().unwrap();
    let near = ["127.0.0.5:5000".to_owned(), format!("{HOST4}:5000"), "[::1]:5000".to_owned()];
    let far = [
        format!("{HOST4}:5000"),
        "192.0.2.5:5000".to_owned(),
        format!("[{HOST6}]:5000"),
        format!("[{link}%{index}]:5000"),
    ];
    let asked =
        near.map(|at| (lab.host([&peer, "udp-rr", &at, "0.1"]), at)).into_iter().chain(far.map(|at| {
            let command = lab.world([&peer, "udp-rr", &at, "0.1"]);
            (command, at)
        }));
    for (command, at) in asked {
        let rate = command.run(LIMIT).unwrap();
        assert!(rate.success() && rate.out().trim().parse::<f64>().unwrap() > 10.0, "{at}: {rate}");
    }
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
