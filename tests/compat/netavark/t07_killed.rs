//! Killed half-way: after SIGKILL at any step of a setup, a teardown from the same request leaves the host as before.
//!
//! `strace` delivers the signal at the n-th system call of a kind that changes something; n goes up until the setup
//! comes through.

use slipway_lab::LIMIT;

use crate::place::{Host, line};
use crate::request::{Join, publish, request};

const CALLS: &str = "sendmsg,sendto,sendmmsg,write,mkdir,mkdirat,unlink,unlinkat,rename,renameat2,setns";
const MOST: usize = 400;

fn killed_everywhere(test: &str, command: &str) {
    let Some(host) = Host::fixture(test, &["strace"]) else { return };
    if !host.is_ours() {
        println!("SKIP {test}: the original leaves what it made");
        return;
    }
    let Some(host) = host.with_dns(test) else { return };
    let join =
        Join::bridge("podman", "podman0", &["10.88.0.1/16", "fd10:88::1/64"]).option("isolate", "true");
    let request = publish(
        request("one", &[join.with("dns_enabled", true)]),
        &[("", 8080, 80, "tcp", 1), ("", 9000, 90, "udp", 10)],
    );
    let mut steps = 0;
    for step in 1..=MOST {
        let container = host.container();
        if command == "teardown" {
            host.setup(&container, &request);
        }
        let inject = format!("inject={CALLS}:signal=SIGKILL:when={step}");
        let trace = ["strace", "-qq", "-o", "/dev/null", "-e", &format!("trace={CALLS}"), "-e", &inject];
        let words = host.words(&host.binary, &[command, &container.path()]);
        let traced = host.machine.cmd(trace).args(words).env("DBUS_SYSTEM_BUS_ADDRESS", "");
        let output = traced.input(line(&request)).run(LIMIT).unwrap();
        let done = output.success();
        let ended = host.cmd(&["teardown", &container.path()]).input(line(&request)).run(LIMIT).unwrap();
        // Errors about what was not there yet, or not any more, are expected; leftovers are not.
        assert!(matches!(ended.code(), 0 | 1), "step {step}: {ended}");
        let inside = container.sh("ip -o link").unwrap().out();
        assert_eq!(inside.lines().count(), 1, "step {step}: {inside}");
        clean_after(&host, step);
        if done {
            steps = step;
            break;
        }
    }
    assert!((10..MOST).contains(&steps), "{steps} steps");
}

fn clean_after(host: &Host, step: usize) {
    let pid = host.config.join("aardvark-dns/aardvark.pid");
    let end = slipway_lab::now() + LIMIT;
    while pid.exists() && slipway_lab::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    println!("step {step}");
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
