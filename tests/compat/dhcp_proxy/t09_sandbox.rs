//! What the proxy gives up, and that it works on all the same.

use nix::sys::signal::Signal;
use slipway_host::sandbox::seccomp::{Profile, allowed};
use slipway_lab::{hold, skip, traced, under_filter, which};

use crate::place::Place;
use crate::{LIMIT, fixture};

#[test]
fn t09_it_keeps_three_capabilities_and_its_system_calls() {
    let place = fixture!("t09_it_keeps_three_capabilities_and_its_system_calls");
    let proxy = place.proxy(&[]);
    let status = || std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    Place::until("its sandbox", || status().contains("Seccomp:\t2"));
    let status = status();
    // CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN.
    let kept: u64 = 1 << 12 | 1 << 13 | 1 << 21;
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        let held = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
        assert_eq!(u64::from_str_radix(held.trim(), 16).unwrap() & !kept, 0, "{set} {held}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

#[test]
fn t09_its_list_of_system_calls_is_what_is_called() {
    const RARE: &[(libc::c_long, &str)] = &[
        (libc::SYS_renameat2, "the C library's rename, where there is no other"),
        #[cfg(not(target_arch = "riscv64"))]
        (libc::SYS_renameat, "the C library's rename, where there is no other"),
        (libc::SYS_readlinkat, "of every program that opens files"),
        (libc::SYS_inotify_add_watch, "of every program that opens files"),
        (libc::SYS_getpeername, "tonic, which tells a service who calls"),
        (libc::SYS_shutdown, "a caller that goes"),
        (libc::SYS_ioctl, "of every program"),
    ];
    const TEST: &str = "t09_its_list_of_system_calls_is_what_is_called";
    let place = fixture!("t09_its_list_of_system_calls_is_what_is_called");
    if which("strace").is_none() {
        return skip(TEST, "strace is not installed").unwrap_or_default();
    }
    place.world_with_ipv6(&["fd00:5::1/64"]);
    let _server = place.server("198.51.100.50", &["--enable-ra", "--dhcp-range=fd00:5::50,fd00:5::50,64,2m"]);
    let trace = place.dir().join("trace");
    let mut proxy = place.proxy_cmd(&[]).under(traced(&trace)).start().unwrap();
    let lease = place.dir().join("nv-proxy.lease");
    proxy.until(LIMIT, |_| lease.exists() && place.socket().exists()).unwrap();
    place.lease("setup", &place.request());
    place.lease("setup", &place.request_v6());
    place.lease("teardown", &place.request());
    proxy.signal(Signal::SIGTERM);
    let ended = proxy.finish(LIMIT).unwrap().expect("SIGTERM ends it");
    assert!(ended.success() && !place.socket().exists(), "{ended}");
    hold(&under_filter(&trace), allowed(Profile::Leases).unwrap(), RARE);
}
