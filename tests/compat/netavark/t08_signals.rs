//! Signals that must not stop a teardown half-way.

use std::io::Write as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_lab::LIMIT;

use crate::host;
use crate::place::line;
use crate::request::{Join, request};

/// Whether SIGTERM and SIGINT are blocked or ignored.
fn deaf(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        u64::from_str_radix(value.trim(), 16).unwrap_or(0)
    };
    (mask("SigBlk:") | mask("SigIgn:")) & 0x4002 == 0x4002
}

#[test]
fn a_teardown_is_not_interrupted() {
    let host = host!("a_teardown_is_not_interrupted");
    let container = host.container();
    let request = request("one", &[Join::bridge("podman", "podman0", &["10.88.0.1/16"])]);
    host.setup(&container, &request);
    // It waits for its request, and is deaf already.
    let mut teardown = host.cmd(&["teardown", &container.path()]).start().unwrap();
    let pid = Pid::from_raw(i32::try_from(teardown.pid()).unwrap());
    teardown.until(LIMIT, |_| deaf(pid)).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        kill(pid, signal).unwrap();
    }
    let mut stdin = teardown.stdin.take().unwrap();
    stdin.write_all(line(&request).as_bytes()).unwrap();
    drop(stdin);
    let output = teardown.finish(LIMIT).unwrap().unwrap();
    assert!(output.success(), "{output}");
    host.is_clean();
}
