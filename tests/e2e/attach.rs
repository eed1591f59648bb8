//! `slipway attach`: a network for a namespace that is already there, until it ends.

use slipway_lab::{LIMIT, Lab, Running, WORLD4, lab};

/// Starts `slipway attach` and waits until it is ready; the ready byte comes on standard output.
fn attach(lab: &Lab, words: &[&str]) -> Running {
    let mut process = lab
        .host([&lab.program("slipway"), "attach", "--ready-fd", "1", "--exit-fd", "0"])
        .args(words)
        .start()
        .unwrap();
    process.until(LIMIT, |running| running.stdout().ends_with('1')).unwrap();
    process
}

#[test]
fn a_process_gets_a_network_until_its_namespace_ends() {
    let (lab, _) = lab!(ours "a_process_gets_a_network_until_its_namespace_ends", ["ping"]);
    let mut container = lab.container().unwrap();
    let mut process = attach(&lab, &[&container.pid().to_string()]);
    let shown = container.sh("ip address show tap0; ping -c1 -W5 10.0.2.2").unwrap();
    assert!(shown.success() && shown.out().contains("10.0.2.100/24"), "{shown}");
    container.end();
    let ended = process.finish(LIMIT).unwrap().expect("it ends with its namespace");
    assert_eq!(ended.code(), 0, "{ended}");
}

#[test]
fn a_namespace_is_named_by_its_path() {
    let (lab, _) = lab!(ours "a_namespace_is_named_by_its_path", ["ncat"]);
    let container = lab.container().unwrap();
    let pid = container.pid();
    let userns = format!("/proc/{pid}/ns/user");
    let _process = attach(&lab, &["--userns", &userns, "-p", "8080:80", &format!("/proc/{pid}/ns/net")]);
    let server = container.cmd(["ncat", "-l", "80", "-c", "echo peer=$NCAT_REMOTE_ADDR"]);
    let _server = Running::server(server, "tcp", 80).unwrap();
    let answer =
        lab.world(["ncat", "--recv-only", "-w", "10", slipway_lab::HOST4, "8080"]).run(LIMIT).unwrap();
    assert_eq!(answer.out(), format!("peer={WORLD4}\n"), "{answer}");
}

#[test]
fn a_closed_exit_fd_ends_it() {
    let (lab, _) = lab!(ours "a_closed_exit_fd_ends_it", []);
    let container = lab.container().unwrap();
    let mut process = attach(&lab, &[&container.pid().to_string()]);
    process.stdin.take();
    let ended = process.finish(LIMIT).unwrap().expect("it ends");
    assert_eq!(ended.code(), 0, "{ended}");
    // The namespace is free for the next one.
    let _again = attach(&lab, &[&container.pid().to_string()]);
}

#[test]
fn a_target_that_is_not_there_is_said() {
    let (lab, _) = lab!(ours "a_target_that_is_not_there_is_said", []);
    for target in ["4194304", "/no/such/namespace"] {
        let output = lab.host([&lab.program("slipway"), "attach", target]).run(LIMIT).unwrap();
        assert!(!output.success() && output.err().contains(target), "{output}");
    }
}
