//! The same without root: a part of this suite once more, started by the lab's ordinary user, who makes a lab of their
//! own in a user namespace; and user namespaces with ranges of ids, as rootless engines make them with newuidmap.

use slipway_lab::{LIMIT, Lab, Running, WORLD4, lab};
use std::time::Duration;

/// What is run again.
const AGAIN: [&str; 5] = [
    "names::a_name_resolves_over_udp_and_tcp",
    "publish::the_clients_address_is_kept",
    "run::a_published_port_is_reached_with_the_clients_address",
    "traffic::every_byte_arrives_at_mtu_1280",
    "traffic::udp_goes_and_comes_back",
];

#[test]
fn the_suite_runs_without_root() {
    let (lab, _) =
        lab!(ours "the_suite_runs_without_root", ["ncat", "dig", "dnsmasq", "busybox", "sha256sum"]);
    if !lab.by_root() {
        println!("SKIP the_suite_runs_without_root: this is a run without root");
        return;
    }
    let suite = std::env::current_exe().unwrap();
    let slipway = slipway_lab::subject().unwrap().path().to_owned();
    for file in [&suite, &slipway] {
        if !lab.host(["test", "-x"]).arg(file).run(LIMIT).unwrap().success() {
            println!(
                "SKIP the_suite_runs_without_root: {} is out of an ordinary user's reach",
                file.display()
            );
            return;
        }
    }
    let output = lab
        .host([suite.as_os_str()])
        .args(["--exact", "--test-threads=1", "--nocapture"])
        .args(AGAIN)
        .env("SLIPWAY_E2E_BINARY", &slipway)
        .env("SLIPWAY_E2E_REQUIRE", "1")
        .run(4 * LIMIT)
        .unwrap();
    assert!(
        output.success() && output.out().contains("5 passed") && !output.out().contains("SKIP"),
        "{output}"
    );
}

/// A shell command in a user namespace that holds the user's whole range of ids, made by newuidmap.
fn in_ranges(lab: &Lab, script: &str) -> slipway_lab::Output {
    let words = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "sh", "-c", script];
    lab.host(words).run(LIMIT).unwrap()
}

#[test]
fn run_works_in_a_user_namespace_with_ranges() {
    let (lab, _) = lab!(ours "run_works_in_a_user_namespace_with_ranges", ["newuidmap", "ncat"]);
    if !lab.by_root() {
        println!(
            "SKIP run_works_in_a_user_namespace_with_ranges: newuidmap needs a user listed in /etc/subuid"
        );
        return;
    }
    let server = lab.world(["ncat", "-l", "-k", "9000", "-c", "echo peer=$NCAT_REMOTE_ADDR"]);
    let _server = Running::server(server, "tcp", 9000).unwrap();
    let slipway = lab.program("slipway");
    let inside = format!("id -u; ncat --recv-only -w 5 {WORLD4} 9000");
    // As the namespace's root, who has ids to give; as one of its ordinary users; and with our own root on top.
    for (before, options, id) in [
        ("", "", "0"),
        ("setpriv --reuid 1000 --regid 1000 --clear-groups", "", "1000"),
        ("setpriv --reuid 1000 --regid 1000 --clear-groups", "--map-root", "0"),
    ] {
        let script = format!("{before} {slipway} run --quiet {options} -- sh -c '{inside}'");
        let output = in_ranges(&lab, &script);
        let peer = format!("peer={}\n", slipway_lab::HOST4);
        assert_eq!(output.out(), format!("{id}\n{peer}"), "{script}: {output}");
    }
}

/// The guest's namespace has ranges of its own, and its processes are users of it, as in a rootless container.
#[test]
fn a_container_with_ranges_is_served() {
    let (lab, _) = lab!("a_container_with_ranges_is_served", ["newuidmap", "ncat"]);
    if !lab.by_root() {
        println!("SKIP a_container_with_ranges_is_served: newuidmap needs a user listed in /etc/subuid");
        return;
    }
    let server = lab.world(["ncat", "-l", "-k", "9000", "-c", "echo peer=$NCAT_REMOTE_ADDR"]);
    let _server = Running::server(server, "tcp", 9000).unwrap();
    let fetch =
        format!("setpriv --reuid 1000 --regid 1000 --clear-groups ncat --recv-only -w 5 {WORLD4} 9000");
    for sandbox in [&[][..], &["--enable-sandbox", "--enable-seccomp"]] {
        let script =
            format!("ip link set lo up; echo ready; read go; id -u; cat /proc/self/uid_map | wc -l; {fetch}");
        let words = ["unshare", "--user", "--map-root-user", "--map-auto", "--net", "sh", "-c", &script];
        let mut container = lab.host(words).start().unwrap();
        container.until(LIMIT, |running| running.stdout().contains("ready")).unwrap();
        let options = [&["-c"][..], sandbox].concat();
        let _slirp = lab.slirp_at(&options, &[&container.pid().to_string(), "tap0"]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        std::io::Write::write_all(container.stdin.as_mut().unwrap(), b"go\n").unwrap();
        let ended = container.finish(LIMIT).unwrap().expect("it ends");
        assert_eq!(ended.out(), format!("ready\n0\n2\npeer={}\n", slipway_lab::HOST4), "{ended}");
    }
}
