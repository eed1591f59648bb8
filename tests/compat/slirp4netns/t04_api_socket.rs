//! The API socket: requests, replies, exact error texts, and what must not stall.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use slipway_lab::{Container, LIMIT, Lab, Slirp, lab};

fn start(lab: &Lab) -> (Container, Slirp) {
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--api-socket=api.sock"]).unwrap();
    (container, slirp)
}

fn add(proto: &str, rest: &str) -> String {
    format!(r#"{{"execute":"add_hostfwd","arguments":{{"proto":"{proto}"{rest}}}}}"#)
}

#[test]
fn a_path_of_108_bytes_is_refused() {
    let (lab, _) = lab!("a_path_of_108_bytes_is_refused", []);
    let container = lab.container().unwrap();
    let path = format!("/tmp/{}", "a".repeat(103));
    let output = lab
        .host([
            &lab.program("slirp4netns"),
            "-c",
            &format!("--api-socket={path}"),
            &container.pid().to_string(),
            "tap0",
        ])
        .run(LIMIT)
        .unwrap();
    assert_eq!(output.code(), 1, "{output}");
    assert!(output.err().contains("the specified API socket path is too long (>= 108)"), "{output}");
}

#[test]
fn add_list_and_remove_round_trip() {
    let (lab, subject) = lab!("add_list_and_remove_round_trip", []);
    let (_container, slirp) = start(&lab);
    let list = r#"{"execute":"list_hostfwd"}"#;
    assert_eq!(
        compact(
            &slirp
                .api(&add("tcp", r#","host_addr":"","host_port":8080,"guest_addr":"","guest_port":80"#))
                .unwrap()
        ),
        r#"{"return":{"id":1}}"#
    );
    assert_eq!(
        compact(
            &slirp
                .api(&add(
                    "udp",
                    r#","host_addr":"127.0.0.1","host_port":8080,"guest_addr":"10.0.2.100","guest_port":53"#
                ))
                .unwrap()
        ),
        r#"{"return":{"id":2}}"#
    );
    let entries = concat!(
        r#"[{"id":1,"proto":"tcp","host_addr":"0.0.0.0","host_port":8080,"guest_addr":"10.0.2.100","guest_port":80},"#,
        r#"{"id":2,"proto":"udp","host_addr":"127.0.0.1","host_port":8080,"guest_addr":"10.0.2.100","guest_port":53}]"#
    );
    let listed: serde_json::Value = serde_json::from_str(&slirp.api(list).unwrap()).unwrap();
    let expected: serde_json::Value = serde_json::from_str(entries).unwrap();
    assert_eq!(listed["entries"], expected, "{listed}");
    if subject.is_slipway() {
        assert_eq!(listed["return"]["entries"], expected, "{listed}");
    }
    let remove =
        |id: u32| slirp.api(&format!(r#"{{"execute":"remove_hostfwd","arguments":{{"id":{id}}}}}"#)).unwrap();
    assert_eq!(compact(&remove(1)), r#"{"return":{}}"#);
    assert_eq!(compact(&remove(1)), r#"{"error":{"desc":"bad request: remove_hostfwd: bad arguments.id"}}"#);
    // Ids are never used again.
    let again = slirp
        .api(&add("tcp", r#","host_addr":"","host_port":8080,"guest_addr":"","guest_port":80"#))
        .unwrap();
    assert_eq!(compact(&again), r#"{"return":{"id":3}}"#);
}

#[test]
fn bad_requests_get_the_exact_texts() {
    let (lab, _) = lab!("bad_requests_get_the_exact_texts", []);
    let (_container, slirp) = start(&lab);
    for (request, desc) in [
        ("bad", "bad request: cannot parse JSON"),
        ("[]", "bad request: json_object() failed"),
        ("{}", "bad request: no execute found"),
        (r#"{"execute":"bad"}"#, "bad request: unknown execute"),
        (
            r#"{"execute":"add_hostfwd","arguments":{"proto":"sctp"}}"#,
            "bad request: add_hostfwd: bad arguments.proto",
        ),
        (
            r#"{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"x","host_port":1,"guest_port":1}}"#,
            "bad request: add_hostfwd: bad arguments.host_addr",
        ),
        (
            r#"{"execute":"add_hostfwd","arguments":{"proto":"tcp","guest_port":1}}"#,
            "bad request: add_hostfwd: bad arguments.host_port",
        ),
        (
            r#"{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_port":8080,"guest_addr":"x","guest_port":1}}"#,
            "bad request: add_hostfwd: bad arguments.guest_addr",
        ),
        (
            r#"{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_port":8080}}"#,
            "bad request: add_hostfwd: bad arguments.guest_port",
        ),
        (
            r#"{"execute":"remove_hostfwd","arguments":{"id":42}}"#,
            "bad request: remove_hostfwd: bad arguments.id",
        ),
    ] {
        let reply = slirp.api(request).unwrap();
        assert_eq!(compact(&reply), format!(r#"{{"error":{{"desc":"{desc}"}}}}"#), "{request}");
    }
    let reply = slirp.api(&"\0".repeat(8192)).unwrap();
    assert_eq!(compact(&reply), r#"{"error":{"desc":"bad request: too large message"}}"#);
}

#[test]
fn a_port_in_use_is_an_error_and_changes_nothing() {
    let (lab, _) = lab!("a_port_in_use_is_an_error_and_changes_nothing", []);
    let (_container, slirp) = start(&lab);
    slirp.publish("tcp", 8080, 80).unwrap();
    let reply = slirp
        .api(&add("tcp", r#","host_addr":"","host_port":8080,"guest_addr":"","guest_port":81"#))
        .unwrap();
    assert_eq!(compact(&reply), r#"{"error":{"desc":"bad request: add_hostfwd: slirp_add_hostfwd failed"}}"#);
    let listed = slirp.api(r#"{"execute":"list_hostfwd"}"#).unwrap();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["entries"].as_array().map(Vec::len), Some(1), "{listed}");
}

#[test]
fn a_missing_proto_is_an_error() {
    let (lab, _) = lab!(ours "a_missing_proto_is_an_error", []);
    let (_container, slirp) = start(&lab);
    let reply = slirp.api(r#"{"execute":"add_hostfwd","arguments":{"host_port":1,"guest_port":1}}"#).unwrap();
    assert_eq!(compact(&reply), r#"{"error":{"desc":"bad request: add_hostfwd: bad arguments.proto"}}"#);
}

#[test]
fn a_silent_client_stalls_nothing() {
    let (lab, _) = lab!(ours "a_silent_client_stalls_nothing", ["ping"]);
    let (container, slirp) = start(&lab);
    let silent: Vec<_> = (0..3).map(|_| UnixStream::connect(slirp.api_path().unwrap()).unwrap()).collect();
    assert!(container.cmd(["ping", "-c1", "-W5", "10.0.2.2"]).run(LIMIT).unwrap().success());
    slirp.publish("tcp", 8081, 81).unwrap();
    drop(silent);
}

#[test]
fn a_request_may_come_in_pieces_without_half_close() {
    let (lab, _) = lab!(ours "a_request_may_come_in_pieces_without_half_close", []);
    let (_container, slirp) = start(&lab);
    let mut socket = UnixStream::connect(slirp.api_path().unwrap()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    for piece in [r#"{"exec"#, r#"ute":"list"#, r#"_hostfwd"}"#] {
        socket.write_all(piece.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    assert!(reply.contains("\"entries\""), "{reply}");
}

#[test]
fn add_hostfwd_takes_ipv6() {
    let (lab, _) = lab!(ours "add_hostfwd_takes_ipv6", ["ncat"]);
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--enable-ipv6", "--api-socket=api.sock"]).unwrap();
    container.sh("for i in $(seq 100); do ip -6 -o address show dev tap0 scope global | grep -q fd00 && break; sleep 0.1; done").unwrap();
    let shown = container.sh("ip -6 -o address show dev tap0 scope global").unwrap().out();
    let guest = shown
        .split_whitespace()
        .find_map(|word| word.strip_suffix("/64"))
        .unwrap_or_else(|| panic!("{shown}"));
    let reply = slirp
        .api(&add(
            "tcp",
            &format!(r#","host_addr":"::","host_port":8080,"guest_addr":"{guest}","guest_port":80"#),
        ))
        .unwrap();
    assert_eq!(compact(&reply), r#"{"return":{"id":1}}"#);
    let server = container.cmd(["ncat", "-6", "-l", "80", "-c", "echo over six"]);
    let mut server = slipway_lab::Running::server(server, "tcp", 80).unwrap();
    let answer = lab.world(["ncat", "-6", "--recv-only", slipway_lab::HOST6, "8080"]).run(LIMIT).unwrap();
    assert_eq!(answer.out(), "over six\n", "{answer} {}", server.stderr());
    server.finish(LIMIT).unwrap();
}

/// The reply without white space, which is not part of the contract.
fn compact(reply: &str) -> String {
    let mut quoted = false;
    reply
        .chars()
        .filter(|c| {
            quoted ^= *c == '"';
            quoted || !c.is_whitespace()
        })
        .collect()
}
