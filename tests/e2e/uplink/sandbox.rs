//! What the supervisor gives up, and that it works on all the same.

use super::{START, Stage, network, port, stage};
use serde_json::json;
use slipway_host::sandbox::seccomp::{Profile, allowed};
use slipway_lab::{HOST4, LIMIT, WORLD4, hold, lab, traced_alone, under_filter};
use std::time::Duration;

fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    let end = slipway_lab::now() + START;
    while !probe() {
        assert!(slipway_lab::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_supervisor_has_no_privileges_and_executes_nothing() {
    let stage = stage!("the_supervisor_has_no_privileges_and_executes_nothing");
    let _one = stage.with_one();
    let status = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let supervisor = status(stage.uplink.pid());
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapPrm:\t0000000000000000"] {
        assert!(supervisor.contains(line), "{line}: {supervisor}");
    }
    // The worker is the starter's child, and has the sandbox of workers.
    let worker = status(stage.worker());
    assert!(worker.contains("Seccomp:\t2"), "{worker}");
    assert!(!worker.contains(&format!("PPid:\t{}\n", stage.uplink.pid())), "{worker}");
}

#[test]
fn its_list_of_system_calls_is_what_is_called() {
    const RARE: &[(libc::c_long, &str)] = &[
        (libc::SYS_getsockopt, "who connects: the C library may do without a call"),
        (libc::SYS_bind, "of every program"),
        (libc::SYS_connect, "of every program"),
        (libc::SYS_recvfrom, "of every program"),
        (libc::SYS_sendto, "of every program"),
        (libc::SYS_openat, "a descriptor in reserve, when there are no others"),
        (libc::SYS_ioctl, "clients of a container's socket for new addresses"),
        (libc::SYS_accept4, "of every program"),
        (libc::SYS_getsockname, "a container's socket for new addresses that is to be removed"),
        (libc::SYS_read, "the signal that ends it"),
    ];
    let (lab, _) =
        lab!(ours "its_list_of_system_calls_is_what_is_called", ["strace", "ncat", "dig", "dnsmasq", "ping"]);
    if !lab.by_root() {
        println!("SKIP its_list_of_system_calls_is_what_is_called: needs root for a user of its own");
        return;
    }
    let trace = lab.home().join("trace");
    let mut stage = Stage::under(lab, traced_alone(&trace), &[]);
    let one = stage.with_one();
    assert!(stage.publish(&one, &json!([port("tcp", 8080, 80)])).success());
    let server = stage.serve(&one);
    assert_eq!(stage.peer_seen(HOST4, 8080), format!("peer={WORLD4}"));
    drop(server);
    assert_eq!(stage.leave(&network(), &one), 0);
    stage.uplink.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = stage.uplink.finish(LIMIT).unwrap().expect("SIGTERM ends it");
    assert!(ended.success(), "{ended}");
    eventually("its socket is removed", || !stage.socket.exists());
    hold(&under_filter(&trace), allowed(Profile::Uplink).unwrap(), RARE);
}
