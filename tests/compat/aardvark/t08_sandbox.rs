//! What the daemon gives up when it is ready, and that it works on all the same.

use std::time::Duration;

use nix::sys::signal::Signal;
use slipway_host::sandbox::seccomp::{Profile, allowed};
use slipway_lab::{hold, now, skip, traced, under_filter, which};

use crate::daemon;
use crate::message::A;
use crate::place::{Daemon, GATEWAY, GATEWAY_B, PODMAN1};
use crate::upstream::Upstream;

fn eventually(what: &str, probe: impl Fn() -> bool) {
    let end = now() + Duration::from_secs(10);
    while !probe() {
        assert!(now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn status(daemon: &Daemon, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} in {text}")).trim_start_matches(':').trim().to_owned()
}

#[test]
fn it_keeps_one_capability_and_its_system_calls() {
    let daemon = daemon!(ours "it_keeps_one_capability_and_its_system_calls");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    eventually("its filter", || status(&daemon, "Seccomp") == "2");
    let bind = format!("{:016x}", 1 << 10);
    for set in ["CapEff", "CapPrm", "CapBnd", "CapInh"] {
        let held = u64::from_str_radix(&status(&daemon, set), 16).unwrap();
        assert_eq!(held & !(1 << 10), 0, "{set}: {held:x} is more than {bind}");
    }
    assert_eq!((status(&daemon, "NoNewPrivs"), status(&daemon, "Seccomp")), ("1".into(), "2".into()));
    // /proc/PID of what cannot be traced belongs to root, whoever it runs as; here both are root.
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "two", A).addresses(), ["10.89.0.3"]);
}

/// Everything that it does in a life: answers, questions to the world, reloads, a resolv.conf that is replaced,
/// counters, the end.
fn life(daemon: &Daemon, stats: &std::path::Path) {
    let upstream = Upstream::with_address(&daemon.machine, "198.51.100.1", "198.51.100.50");
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "two", A).addresses(), ["10.89.0.3"]);
    let client = daemon.client("10.89.0.2");
    let mut stream = client.connect(GATEWAY);
    assert_eq!(stream.ask("two", A).addresses(), ["10.89.0.3"]);
    let _ = (client.ask(GATEWAY, "name.example", A), stream.ask("name.example", A));
    daemon.network("podman2", "10.90.0.1\nidc 10.90.0.2  three\n");
    daemon.reload();
    eventually("the new network", || {
        daemon.machine.sh("ss -lntu").unwrap().out().contains(&format!("{GATEWAY_B}:53 "))
    });
    daemon.resolvers(&["198.51.100.2", "fe80::1%lo"]);
    std::thread::sleep(Duration::from_millis(100));
    daemon.signal(Signal::SIGUSR1);
    eventually("the counters", || std::fs::read_to_string(stats).is_ok_and(|text| text.contains("podman1")));
    drop((upstream, client));
    let pid = daemon.pid();
    for name in ["podman1", "podman2"] {
        daemon.remove(name);
    }
    daemon.reload();
    eventually("the end", || !daemon.is_alive(pid));
    assert!(!daemon.pid_file().exists(), "it removes its pid file");
}

#[test]
fn its_list_of_system_calls_is_what_is_called() {
    const RARE: &[(libc::c_long, &str)] = &[
        (libc::SYS_renameat2, "the C library's rename, where there is no other"),
        #[cfg(not(target_arch = "riscv64"))]
        (libc::SYS_renameat, "the C library's rename, where there is no other"),
        (libc::SYS_getsockopt, "the number of a nameserver's interface, found by its name"),
        (libc::SYS_recvmsg, "the host's network has changed, where answers may be kept"),
    ];
    const TEST: &str = "its_list_of_system_calls_is_what_is_called";
    let daemon = daemon!(ours "its_list_of_system_calls_is_what_is_called");
    if which("strace").is_none() {
        return skip(TEST, "strace is not installed").unwrap_or_default();
    }
    daemon.resolvers(&["198.51.100.1"]);
    daemon.network("podman1", PODMAN1);
    let (trace, stats) = (daemon.machine.dir().join("trace"), daemon.machine.dir().join("counters"));
    let launched =
        daemon.cmd().under(traced(&trace)).env("AARDVARK_STATS", &stats).run(crate::LIMIT).unwrap();
    assert!(launched.success(), "{launched}");
    life(&daemon, &stats);
    hold(&under_filter(&trace), allowed(Profile::Names { report: true }).unwrap(), RARE);
}
