//! Killed half-way: after SIGKILL at any step of a setup, a teardown from the same request leaves the host as before.
//!
//! `strace` delivers the signal at the n-th call of a kind that changes something; n goes up until the command comes
//! through. It counts each kind by itself, so each is gone through by itself.

use slipway_lab::LIMIT;

use crate::place::{Host, line};
use crate::request::{Join, publish, request};

const CALLS: [&str; 8] = ["sendmsg", "sendto", "write", "mkdir", "unlink", "rename", "setns", "flock"];
const MOST: usize = 200;

fn killed_everywhere(test: &str, command: &str) {
    let Some(host) = Host::fixture(test, &["strace"]) else { return };
    if !host.is_ours() {
        println!("SKIP {test}: the original leaves what it made");
        return;
    }
    let Some(host) = host.with_dns(test) else { return };
    let mut killed = 0;
    for call in CALLS {
        let step = (1..MOST).find(|step| !is_killed(&host, command, call, *step));
        killed += step.unwrap_or_else(|| panic!("{call}: it comes through in the end")) - 1;
    }
    assert!(killed >= 20, "{killed} places");
}

/// Whether `command` is killed at the n-th `call`; either way a teardown leaves nothing.
fn is_killed(host: &Host, command: &str, call: &str, step: usize) -> bool {
    let join =
        Join::bridge("podman", "podman0", &["10.88.0.1/16", "fd10:88::1/64"]).option("isolate", "true");
    let request = publish(
        request("one", &[join.with("dns_enabled", true)]),
        &[("", 8080, 80, "tcp", 1), ("", 9000, 90, "udp", 10)],
    );
    let container = host.container();
    if command == "teardown" {
        host.setup(&container, &request);
    }
    let inject = format!("inject={call}:signal=SIGKILL:when={step}");
    let trace = ["strace", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject];
    let words = host.words(&host.binary, &[command, &container.path()]);
    let traced = host.machine.cmd(trace).args(words).env("DBUS_SYSTEM_BUS_ADDRESS", "");
    let output = traced.input(line(&request)).run(LIMIT).unwrap();
    let ended = host.cmd(&["teardown", &container.path()]).input(line(&request)).run(LIMIT).unwrap();
    // Errors about what was not there yet, or not any more, are expected; leftovers are not.
    assert!(matches!(ended.code(), 0 | 1), "{call} {step}: {ended}");
    let inside = container.sh("ip -o link").unwrap().out();
    assert_eq!(inside.lines().count(), 1, "{call} {step}: {inside}");
    println!("{call} {step}");
    clean_after(host);
    !output.success()
}

fn clean_after(host: &Host) {
    let pid = host.config.join("aardvark-dns/aardvark.pid");
    let end = slipway_lab::now() + LIMIT;
    while pid.exists() && slipway_lab::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    host.is_clean();
}

#[test]
fn a_killed_setup_is_cleaned_up_by_teardown() {
    killed_everywhere("a_killed_setup_is_cleaned_up_by_teardown", "setup");
}

#[test]
fn a_killed_teardown_is_finished_by_the_next() {
    killed_everywhere("a_killed_teardown_is_finished_by_the_next", "teardown");
}
