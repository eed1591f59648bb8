//! Start, ready, end; the ways to name a target.

use std::io::Write as _;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{LIMIT, lab};

#[test]
fn exit_fd_ends_it_and_bytes_do_not() {
    let (lab, _) = lab!("exit_fd_ends_it_and_bytes_do_not", []);
    let container = lab.container().unwrap();
    let mut slirp = lab.slirp(&container, &["-c"]).unwrap();
    slirp.process.stdin.as_mut().unwrap().write_all(b"stay").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(slirp.process.ended().unwrap().is_none(), "{}", slirp.process.stderr());
    assert!(container.cmd(["ping", "-c1", "-W5", "10.0.2.2"]).run(LIMIT).unwrap().success());
    assert_eq!(slirp.exit().unwrap(), 0);
}

#[test]
fn ready_fd_gets_exactly_one_byte() {
    let (lab, _) = lab!("ready_fd_gets_exactly_one_byte", []);
    let container = lab.container().unwrap();
    // Lab::slirp compares the whole file with "1"; look again after a while.
    let _slirp = lab.slirp(&container, &["-c"]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let ready: Vec<_> = std::fs::read_dir(lab.home())
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("ready-"))
        .collect();
    assert_eq!(ready.len(), 1);
    assert_eq!(std::fs::read(ready[0].path()).unwrap(), b"1");
}

#[test]
fn failure_writes_no_ready_byte() {
    let (lab, _) = lab!("failure_writes_no_ready_byte", []);
    let container = lab.container().unwrap();
    let long = "a".repeat(108);
    assert!(lab.slirp(&container, &["-c", &format!("--api-socket={long}")]).is_err());
    for entry in std::fs::read_dir(lab.home()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(std::fs::read(&path).unwrap(), b"", "{}", path.display());
    }
}

#[test]
fn netns_by_path_with_a_user_namespace() {
    let (lab, _) = lab!("netns_by_path_with_a_user_namespace", []);
    let container = lab.container().unwrap();
    let pid = container.pid();
    let slirp = lab
        .slirp_at(
            &["-c", &format!("--userns-path=/proc/{pid}/ns/user"), "--netns-type=path"],
            &[&format!("/proc/{pid}/ns/net"), "tap0"],
        )
        .unwrap();
    let shown = container.cmd(["ip", "-o", "-4", "address", "show", "tap0"]).ok(LIMIT).unwrap().out();
    assert!(shown.contains("10.0.2.100/24"), "{shown}");
    assert_eq!(slirp.exit().unwrap(), 0);
}

#[test]
fn netns_by_path_from_inside_the_user_namespace() {
    let (lab, _) = lab!("netns_by_path_from_inside_the_user_namespace", []);
    let container = lab.container().unwrap();
    let pid = container.pid();
    // Podman's way: the program already is in the user namespace, and only the network namespace is joined.
    let mut process = lab
        .host(["nsenter", "--target", &pid.to_string(), "--user", "--preserve-credentials"])
        .args([&lab.program("slirp4netns"), "-c", "-e", "0", "-r", "1", "--netns-type=path"])
        .args([&format!("/proc/{pid}/ns/net"), "tap0"])
        .start()
        .unwrap();
    process
        .until(LIMIT, |running| running.stdout().contains('1') && running.stdout().ends_with('1'))
        .unwrap();
    let shown = container.cmd(["ip", "-o", "-4", "address", "show", "tap0"]).ok(LIMIT).unwrap().out();
    assert!(shown.contains("10.0.2.100/24"), "{shown}");
}

#[test]
fn an_existing_persistent_tap_is_taken_over() {
    let (lab, _) = lab!("an_existing_persistent_tap_is_taken_over", []);
    let container = lab.container().unwrap();
    container.sh("ip tuntap add name tap0 mode tap && ip link set tap0 up").unwrap();
    let _slirp = lab.slirp(&container, &["--mtu=65520"]).unwrap();
    let set_up = container
        .sh("ip link set tap0 up && ip link set tap0 mtu 65520 && ip address add 10.0.2.100/24 dev tap0 \
             && ip route add default via 10.0.2.2 dev tap0 && ping -c1 -W5 10.0.2.2")
        .unwrap();
    assert!(set_up.success(), "{set_up}");
}

#[test]
fn it_outlives_the_processes_of_the_namespace() {
    let (lab, _) = lab!("it_outlives_the_processes_of_the_namespace", []);
    let mut container = lab.container().unwrap();
    let mut slirp = lab.slirp(&container, &["-c"]).unwrap();
    container.end();
    std::thread::sleep(Duration::from_millis(200));
    assert!(slirp.process.ended().unwrap().is_none(), "{}", slirp.process.stderr());
    assert_eq!(slirp.exit().unwrap(), 0);
}

#[test]
fn sigterm_ends_it_at_once() {
    let (lab, _) = lab!("sigterm_ends_it_at_once", []);
    let container = lab.container().unwrap();
    let mut slirp = lab.slirp(&container, &["-c"]).unwrap();
    let start = slipway_lab::now();
    slirp.process.signal(Signal::SIGTERM);
    assert!(slirp.process.finish(LIMIT).unwrap().is_some());
    // The promise is 100 ms; the rest is room for a machine that builds something else meanwhile.
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_kill_leaves_nothing_that_stops_the_next_start() {
    let (lab, _) = lab!("a_kill_leaves_nothing_that_stops_the_next_start", []);
    let container = lab.container().unwrap();
    for _ in 0..2 {
        let mut slirp = lab.slirp(&container, &["-c", "--api-socket=api.sock"]).unwrap();
        slirp.publish("tcp", 8080, 80).unwrap();
        slirp.process.signal(Signal::SIGKILL);
        slirp.process.finish(LIMIT).unwrap();
        assert!(slirp.api_path().unwrap().exists());
    }
}

#[test]
fn a_missing_tun_device_is_explained() {
    let (lab, subject) = lab!("a_missing_tun_device_is_explained", []);
    if !lab.by_root() {
        println!("SKIP a_missing_tun_device_is_explained: needs root");
        return;
    }
    let container = lab.container().unwrap();
    let pid = container.pid().to_string();
    lab.host_root(["chmod", "600", "/dev/net/tun"]).ok(LIMIT).unwrap();
    let output = lab.host([&lab.program("slirp4netns"), "-c", &pid, "tap0"]).run(LIMIT).unwrap();
    lab.host_root(["chmod", "666", "/dev/net/tun"]).ok(LIMIT).unwrap();
    assert_eq!(output.code(), 1, "{output}");
    let said = output.err();
    assert!(said.contains("/dev/net/tun"), "{output}");
    assert!(said.contains("Permission denied"), "{output}");
    if subject.is_slipway() {
        assert!(said.contains("child failed(1)"), "{output}");
    }
}
