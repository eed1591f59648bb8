//! `rootlessport`, started as Podman starts it: JSON on standard input, descriptors 3 and 4.

use super::{Stage, network, port, script, stage};
use serde_json::{Value, json};
use slipway_lab::{Cmd, HOST4, HOST6, LIMIT, Output, WORLD4, WORLD6};
use std::path::PathBuf;

/// The place of the helper's socket.
fn directory(stage: &Stage) -> PathBuf {
    stage.lab.dir().join("run/libpod/tmp")
}

fn config(stage: &Stage, container: &str, ports: &Value) -> Value {
    json!({
        "Mappings": ports, "NetNSPath": "/run/user/1000/netns/rootless-netns-c0ffee", "ExitFD": 3, "ReadyFD": 4,
        "TmpDir": directory(stage), "ChildIP": "10.89.0.2", "ContainerID": container, "RootlessCNI": true,
    })
}

/// Runs the helper to its end; the exit descriptor is a FIFO whose other side [`conmon`] holds open.
fn helper(stage: &Stage, config: &Value) -> Cmd {
    let home = stage.lab.home();
    let shell = format!(
        "cd {}; rm -f ready; exec {} 3<exit 4>ready",
        home.display(),
        stage.lab.program("rootlessport")
    );
    stage.lab.host(["sh", "-c", &shell]).input(config.to_string())
}

fn ready(stage: &Stage) -> String {
    std::fs::read_to_string(stage.lab.home().join("ready")).unwrap_or_default()
}

/// Keeps the other side of the exit descriptor open, as conmon does, until its input ends.
fn conmon(stage: &Stage) -> slipway_lab::Running {
    let shell = format!(
        "cd {}; mkfifo exit 2>/dev/null; exec 9<>exit; echo held; exec cat",
        stage.lab.home().display()
    );
    let mut holder = stage.lab.host(["sh", "-c", &shell]).start().unwrap();
    holder.until(LIMIT, |running| running.stdout().contains("held")).unwrap();
    holder
}

fn tell_address(stage: &Stage, container: &str, address: &str) -> Output {
    let socket = directory(stage).join("rp").join(container);
    let words =
        [&stage.lab.program("uplink-client"), "raw", &socket.to_string_lossy(), &json!(address).to_string()];
    stage.lab.host(words).run(LIMIT).unwrap()
}

#[test]
fn ports_are_handed_to_the_uplink_and_no_process_stays() {
    let stage = stage!("ports_are_handed_to_the_uplink_and_no_process_stays");
    let one = stage.with_one();
    let mut conmon = conmon(&stage);
    let done = helper(&stage, &config(&stage, "c2", &json!([port("tcp", 8080, 80)]))).run(LIMIT).unwrap();
    assert!(done.success() && ready(&stage) == "1", "{done}{}", stage.uplink.stderr());
    let _server = stage.serve(&one);
    for (host, world) in [(HOST4, WORLD4), (HOST6, WORLD6)] {
        assert_eq!(stage.peer_seen(host, 8080), format!("peer={world}"), "{}", stage.uplink.stderr());
    }
    assert!(directory(&stage).join("rp/c2").exists());
    // The container's end is the ports'.
    conmon.stdin.take();
    conmon.finish(LIMIT).unwrap();
    let mut seen = String::new();
    for _ in 0..50 {
        seen = stage.peer_seen(HOST4, 8080);
        if seen.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(seen, "");
    assert_eq!(stage.status()["rules"], json!([]));
    assert!(!directory(&stage).join("rp/c2").exists());
}

#[test]
fn a_new_address_moves_the_ports() {
    let stage = stage!("a_new_address_moves_the_ports");
    let one = stage.with_one();
    let _conmon = conmon(&stage);
    let done = helper(&stage, &config(&stage, "c2", &json!([port("tcp", 8080, 80)]))).run(LIMIT).unwrap();
    assert!(done.success(), "{done}");
    let _server = stage.serve(&one);
    assert_eq!(tell_address(&stage, "c2", "10.89.0.2").out(), "OK\n");
    // Disconnected: nowhere to go.
    stage.leave(&network(), &one);
    assert_eq!(tell_address(&stage, "c2", "").out(), "OK\n");
    assert_eq!(stage.peer_seen(HOST4, 8080), "");
    // On another network, with another address.
    let other = json!({
        "id": "n2", "name": "other", "dns_enabled": true,
        "subnets": [{ "subnet": "10.90.0.0/24", "gateway": "10.90.0.1" }],
    });
    stage.sh(
        &one,
        "ip address flush dev eth0; ip address add 10.90.0.2/24 dev eth0; ip route add default via 10.90.0.1",
    );
    assert!(!stage.join(&other, &one));
    stage.attach(&other, "tap1");
    assert_eq!(tell_address(&stage, "c2", "10.90.0.2").out(), "OK\n");
    assert_eq!(stage.peer_seen(HOST4, 8080), format!("peer={WORLD4}"), "{}", stage.uplink.stderr());
    let rules = stage.status()["rules"].clone();
    assert_eq!(rules[0]["rule"], "8080:10.90.0.2:80/tcp");
    assert!(tell_address(&stage, "c2", "10.90.0.2").success());
}

#[test]
fn errors_are_told_with_their_errno() {
    let stage = stage!("errors_are_told_with_their_errno");
    let _one = stage.with_one();
    let _conmon = conmon(&stage);
    let other =
        slipway_lab::Running::server(stage.lab.host(["ncat", "-l", "-k", "8080"]), "tcp", 8080).unwrap();
    let failed = helper(&stage, &config(&stage, "c2", &json!([port("tcp", 8080, 80)]))).run(LIMIT).unwrap();
    assert!(failed.code() == 1 && ready(&stage).is_empty(), "{failed}");
    for said in [failed.out(), failed.err()] {
        assert!(said.contains("cannot listen on tcp 0.0.0.0:8080: Address already in use"), "{said}");
    }
    drop(other);
    let nonsense = stage.lab.host([stage.lab.program("rootlessport")]).input("{").run(LIMIT).unwrap();
    assert!(nonsense.code() == 1 && nonsense.err().contains("makes no sense"), "{nonsense}");
}

#[test]
fn other_containers_get_the_real_program() {
    let mut stage = stage!("other_containers_get_the_real_program");
    let _one = stage.with_one();
    let _conmon = conmon(&stage);
    let real = stage.lab.dir().join("bin/real");
    script(
        &real,
        "#!/bin/sh\n[ -e /proc/self/fd/3 ] || exit 9\ncat; printf 2 >&4; echo; echo real; exit 7\n",
    );
    let config = config(&stage, "stranger", &json!([port("tcp", 8080, 80)]));
    let run = |stage: &Stage| {
        let helper = helper(stage, &config).env("SLIPWAY_ROOTLESSPORT", real.clone().into_os_string());
        helper.run(LIMIT).unwrap()
    };
    let told = run(&stage);
    assert!(
        told.code() == 7 && told.out().starts_with(&config.to_string()) && ready(&stage) == "2",
        "{told}"
    );
    // The same without an uplink.
    stage.uplink.signal(nix::sys::signal::Signal::SIGTERM);
    stage.uplink.finish(LIMIT).unwrap();
    let told = run(&stage);
    assert!(told.code() == 7 && told.out().contains("real"), "{told}");
}
