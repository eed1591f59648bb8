//! Beginnings and ends: leaving, deaths of either side, replacement, strangers.

use super::{START, network, port, stage, start};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use slipway_lab::{HOST4, LIMIT, WORLD4};
use std::path::Path;
use std::time::Duration;

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

/// Whether a process is there, and no zombie.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    let end = slipway_lab::now() + START;
    while !probe() {
        assert!(slipway_lab::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_last_one_to_leave_ends_the_network() {
    let mut stage = stage!("the_last_one_to_leave_ends_the_network");
    let one = stage.with_one();
    let two = stage.station(3);
    assert!(stage.join(&network(), &two));
    assert!(stage.publish(&two, &json!([port("tcp", 8080, 80)])).success());
    let _server = stage.serve(&two);
    assert_eq!(stage.peer_seen(HOST4, 8080), format!("peer={WORLD4}"));
    let worker = stage.worker();
    assert_eq!(stage.leave(&network(), &two), 1);
    assert_eq!(stage.peer_seen(HOST4, 8080), "", "its ports went with it");
    assert_eq!(stage.leave(&network(), &two), 1, "once more is no error");
    assert_eq!(stage.leave(&network(), &one), 0);
    assert!(!stage.netns.sh("ip link show tap0").unwrap().success(), "{}", stage.uplink.stderr());
    eventually("the worker ends", || !lives(worker));
    assert_eq!(stage.leave(&network(), &one), 0);
    assert_eq!(stage.status()["networks"], json!([]));
    // And from the beginning.
    assert!(!stage.join(&network(), &one));
    stage.attach(&network(), "tap0");
    assert!(stage.inside(&one, ["ping", "-c1", "-W5", WORLD4]).run(LIMIT).unwrap().success());
    stage.uplink.signal(Signal::SIGTERM);
    let ended = stage.uplink.finish(START).unwrap().expect("SIGTERM ends it");
    assert!(ended.success() && !stage.socket.exists(), "{ended}");
}

#[test]
fn a_killed_uplink_leaves_nothing_that_stops_the_next() {
    let mut stage = stage!("a_killed_uplink_leaves_nothing_that_stops_the_next");
    let one = stage.with_one();
    assert!(stage.publish(&one, &json!([port("tcp", 8080, 80)])).success());
    let worker = stage.worker();
    stage.uplink.signal(Signal::SIGKILL);
    stage.uplink.finish(START).unwrap().expect("it is dead");
    eventually("the worker ends with it", || !lives(worker));
    assert!(!stage.netns.sh("ip link show tap0").unwrap().success(), "the TAP is gone");
    assert!(stage.socket.exists(), "nobody could remove it");
    stage.uplink = start(&stage.lab, &[]);
    eventually("it answers", || {
        stage.client(&json!({ "execute": "status" }), &[]).run(LIMIT).unwrap().success()
    });
    assert!(!stage.join(&network(), &one));
    stage.attach(&network(), "tap0");
    assert!(stage.publish(&one, &json!([port("tcp", 8080, 80)])).success());
    let _server = stage.serve(&one);
    assert_eq!(stage.peer_seen(HOST4, 8080), format!("peer={WORLD4}"));
}

#[test]
fn an_uplink_whose_starter_is_killed_ends_to_be_started_anew() {
    let mut stage = stage!("an_uplink_whose_starter_is_killed_ends_to_be_started_anew");
    let _one = stage.with_one();
    let worker = stage.worker();
    let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
    let starter = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).unwrap();
    signal(starter.parse().unwrap(), Signal::SIGKILL);
    let ended = stage.uplink.finish(START).unwrap().expect("it cannot go on");
    assert_eq!(ended.code(), 1, "{ended}");
    assert!(ended.err().contains("the process that starts others is gone"), "{ended}");
    assert!(!stage.socket.exists());
    eventually("the worker ends with it", || !lives(worker));
}

#[test]
fn a_worker_that_dies_is_replaced_with_all_its_ports() {
    let stage = stage!("a_worker_that_dies_is_replaced_with_all_its_ports");
    let one = stage.with_one();
    assert!(stage.publish(&one, &json!([port("tcp", 8080, 80)])).success());
    let _server = stage.serve(&one);
    let first = stage.worker();
    // One that has just been born would not be.
    std::thread::sleep(Duration::from_secs(6));
    signal(first, Signal::SIGKILL);
    eventually("another takes over", || {
        let pid = stage.status()["networks"][0]["pid"].as_u64();
        pid.is_some_and(|pid| pid != u64::from(first))
    });
    assert_eq!(stage.peer_seen(HOST4, 8080), format!("peer={WORLD4}"), "{}", stage.uplink.stderr());
    assert!(
        stage
            .inside(&one, ["dig", "+short", "@10.89.0.1", "name2"])
            .run(LIMIT)
            .unwrap()
            .out()
            .contains("10.89.0.2")
    );
}

#[test]
fn a_worker_that_does_not_answer_is_replaced() {
    let stage = stage!("a_worker_that_does_not_answer_is_replaced");
    let one = stage.with_one();
    let two = stage.station(3);
    let first = stage.worker();
    signal(first, Signal::SIGSTOP);
    stage.join(&network(), &two);
    eventually("another takes over", || {
        let pid = stage.status()["networks"][0]["pid"].as_u64();
        pid.is_some_and(|pid| pid != u64::from(first))
    });
    assert!(!lives(first));
    for station in [&one, &two] {
        assert!(stage.inside(station, ["ping", "-c1", "-W5", WORLD4]).run(LIMIT).unwrap().success());
    }
}

#[test]
fn a_deleted_tap_ends_the_network_and_a_new_one_replaces_the_old() {
    let stage = stage!("a_deleted_tap_ends_the_network_and_a_new_one_replaces_the_old");
    let one = stage.with_one();
    assert!(stage.publish(&one, &json!([port("tcp", 8080, 80)])).success());
    let _server = stage.serve(&one);
    stage.attach(&network(), "tap1");
    assert!(!stage.netns.sh("ip link show tap0").unwrap().success(), "the old one was closed");
    assert_eq!(stage.peer_seen(HOST4, 8080), format!("peer={WORLD4}"), "{}", stage.uplink.stderr());
    stage.netns.sh("ip link delete tap1").unwrap();
    eventually("the network ends", || stage.status()["networks"] == json!([]));
    assert_eq!(stage.status()["rules"], json!([]));
    assert!(!stage.join(&network(), &one));
    stage.attach(&network(), "tap2");
    assert!(stage.inside(&one, ["ping", "-c1", "-W5", WORLD4]).run(LIMIT).unwrap().success());
}

#[test]
fn strangers_and_nonsense_get_nothing() {
    let stage = stage!("strangers_and_nonsense_get_nothing");
    let one = stage.with_one();
    // root of the machine is another user.
    let client = stage.lab.program("uplink-client");
    let socket = stage.socket.to_string_lossy().into_owned();
    let status = json!({ "execute": "status" }).to_string();
    let refused = stage.lab.host_root([&client, &socket, &status]).run(LIMIT).unwrap();
    assert!(!refused.success() && refused.err().starts_with("13 this is the uplink of user"), "{refused}");
    for (request, tap, text) in [
        (json!({ "execute": "attach", "arguments": { "network_id": "n1" } }), None, "needs the TAP"),
        (
            json!({ "execute": "attach", "arguments": { "network_id": "nope" } }),
            Some("tap7"),
            "2 no container has joined",
        ),
        (json!({ "execute": "dance" }), None, "none of join"),
        (json!(7), None, "bad request"),
    ] {
        let output = stage.client(&request, tap.as_slice()).run(LIMIT).unwrap();
        assert!(!output.success() && output.err().contains(text), "{request}: {output}");
    }
    // What is no TAP is refused, and the network is served on.
    let door = Path::new(&socket);
    assert!(door.exists());
    assert!(stage.inside(&one, ["ping", "-c1", "-W5", WORLD4]).run(LIMIT).unwrap().success());
}

/// As the plugin does that has waited long enough: it takes back what it has asked for, and goes.
#[test]
fn all_that_was_said_in_haste_is_done() {
    let stage = stage!("all_that_was_said_in_haste_is_done");
    let one = stage.station(2);
    let uplink = stage.uplink.pid();
    signal(uplink, Signal::SIGSTOP);
    let join = json!({ "execute": "join", "arguments": { "network": network(), "container": one.told(&network()) } });
    let leave = json!({ "execute": "leave", "arguments": { "network_id": "n1", "container_id": one.id() } });
    let socket = stage.socket.to_string_lossy().into_owned();
    let client = stage.lab.program("uplink-client");
    let words = [&client, "hasty", &socket, &join.to_string(), &leave.to_string()];
    stage.netns.cmd(words).ok(LIMIT).unwrap();
    signal(uplink, Signal::SIGCONT);
    assert_eq!(stage.status()["networks"], json!([]));
}

/// The sandbox, and what an idle network costs.
#[test]
fn a_worker_is_shut_in_small_and_asleep() {
    let stage = stage!("a_worker_is_shut_in_small_and_asleep");
    let _one = stage.with_one();
    let worker = stage.worker();
    let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    for wanted in ["Name:\tslipway-uplink", "Seccomp:\t2", "NoNewPrivs:\t1", "Threads:\t1"] {
        assert!(status.contains(wanted), "{wanted}: {status}");
    }
    // In a user namespace that owns nothing.
    let owner = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_ne!(owner(worker), owner(stage.uplink.pid()));
    let root = stage.lab.host_root(["ls", &format!("/proc/{worker}/root/")]).ok(LIMIT).unwrap().out();
    assert!(root.contains("etc") && !root.contains("home") && !root.contains("usr"), "{root}");
    // As small as the process of one container in the slirp4netns role.
    let container = stage.lab.container().unwrap();
    let options = ["-c", "--enable-ipv6", "--enable-sandbox", "--enable-seccomp"];
    let slirp = stage.lab.slirp(&container, &options).unwrap();
    let memory = |pid: u32, kind: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(kind)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let both = |kind| (memory(worker, kind), memory(slirp.process.pid(), kind));
    let ((all, its_all), (own, its_own)) = (both("VmRSS:"), both("RssAnon:"));
    println!(
        "resident: worker {all} kB ({own} its own), supervisor {} kB, slirp4netns {its_all} kB ({its_own})",
        memory(stage.uplink.pid(), "VmRSS:")
    );
    // Two thirds of what the worker has more are pages of the executable that it shares with every process of it.
    assert!(all * 2 <= its_all * 3, "{all} kB against {its_all} kB");
    assert!(own <= its_own * 2, "{own} kB against {its_own} kB of its own");
    // Multicast of new interfaces settles first.
    std::thread::sleep(Duration::from_secs(5));
    let switches = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let quiet = |pid: u32| {
        (0..4).any(|_| {
            let before = switches(pid);
            std::thread::sleep(Duration::from_secs(2));
            switches(pid) == before
        })
    };
    assert!(quiet(worker), "the worker wakes up");
    assert!(quiet(stage.uplink.pid()), "the supervisor wakes up");
}
