//! The allow-list of system calls, held against traces of real runs, both ways: whatever is called under the filter is on
//! the list (the filter itself sees to that: a call that is not would end the process), and whatever is on the list is
//! called, or stands in [`RARE`] with the reason. So the list cannot grow stale.
//!
//! The work is what containers do: addresses by DHCP and router advertisement, TCP, UDP and echo both ways, names over
//! UDP and TCP while the host's resolv.conf changes, ports published and withdrawn.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use slipway_host::sandbox::seccomp::{Profile, allowed};
use slipway_lab::{Container, HOST4, LIMIT, Lab, NAMESERVER4, Running, WORLD4, WORLD6, api, lab};

use crate::ipv6;

/// What no run here need call.
const RARE: &[(libc::c_long, &str)] = &[
    (libc::SYS_epoll_pwait, "before Linux 5.11 there is no epoll_pwait2"),
    (libc::SYS_sendmmsg, "trains of datagrams that the kernel does not split"),
    (libc::SYS_recvmmsg, "datagrams"),
    (libc::SYS_unlinkat, "the control socket's file; x86-64 has unlink as well"),
    (libc::SYS_newfstatat, "the C library's stat, where it is not statx"),
    (libc::SYS_fstat, "the C library's stat, where it is not statx"),
    (libc::SYS_fcntl, "the standard library's checks of descriptors, in builds with assertions"),
    (libc::SYS_lseek, "reading a file whose size is not told"),
    (libc::SYS_readlinkat, "a resolv.conf behind a symbolic link; x86-64 has readlink as well"),
    (libc::SYS_inotify_rm_watch, "a resolv.conf whose directory changes"),
    (libc::SYS_clock_gettime, "where the clock needs a system call"),
    (libc::SYS_ppoll, "the C library's poll, off x86-64"),
    (libc::SYS_brk, "the allocator"),
    (libc::SYS_munmap, "the allocator"),
    (libc::SYS_mremap, "the allocator"),
    (libc::SYS_madvise, "the allocator"),
    (libc::SYS_mmap, "the allocator"),
    (libc::SYS_mprotect, "the allocator"),
    (libc::SYS_futex, "the C library's locks"),
    (libc::SYS_rseq, "the C library"),
    (libc::SYS_sched_yield, "the standard library's locks"),
    (libc::SYS_getrandom, "the keys of a hash table, with its first use"),
    (libc::SYS_restart_syscall, "the kernel, after a stop"),
    (libc::SYS_rt_sigaction, "abort(3), after a panic"),
    (libc::SYS_rt_sigprocmask, "abort(3), after a panic"),
    (libc::SYS_getpid, "abort(3), after a panic"),
    (libc::SYS_gettid, "abort(3), after a panic"),
    (libc::SYS_tgkill, "abort(3), after a panic"),
    (libc::SYS_rt_sigreturn, "the handler of a stack overflow"),
    (libc::SYS_sigaltstack, "the end of a thread that has a handler"),
];

/// What only x86-64 has, for C libraries that still call it.
#[cfg(target_arch = "x86_64")]
const OLD: &[libc::c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_readlink,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[libc::c_long] = &[];

/// The calls that the traced processes made after each of them had put its filter on.
fn under_filter(trace: &Path) -> BTreeSet<libc::c_long> {
    let text = std::fs::read_to_string(trace).unwrap();
    let mut filtered = BTreeSet::new();
    let mut calls = BTreeSet::new();
    for line in text.lines() {
        // PID [ NUMBER] name(arguments) = result
        let Some((pid, rest)) = line.split_once(char::is_whitespace) else { continue };
        let Some((number, call)) = rest.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("] "))
        else {
            continue;
        };
        if filtered.contains(pid) {
            calls.insert(number.trim().parse().unwrap());
        }
        if call.starts_with("seccomp(") {
            filtered.insert(pid.to_owned());
        }
    }
    assert!(!filtered.is_empty(), "nobody put on a filter:\n{text}");
    calls
}

fn traced(trace: &Path) -> [String; 8] {
    let trace = trace.to_string_lossy();
    ["strace", "-f", "-n", "-qq", "-s", "0", "-o", &trace].map(str::to_owned)
}

/// What a container does with its network.
fn work(lab: &Lab, container: &Container) {
    let dig = ["dig", "+short", "+tries=2", "+time=4", &format!("@{NAMESERVER4}"), "name.test"];
    let small =
        format!("echo ask | ncat -w 3 {WORLD4} 9000 >/dev/null; echo ask | ncat -u -w 1 {WORLD4} 9000");
    let many = format!("for i in 1 2 3; do head -c 3000000 /dev/zero | ncat --send-only {WORLD4} 9002; done");
    for words in [
        &dig[..],
        &["dig", "+short", "+tcp", dig[4], "name.test"],
        &["ping", "-c1", "-W5", WORLD4],
        &["ping", "-6", "-c1", "-W5", WORLD6],
        &["ncat", "-w", "3", WORLD4, "9"],
        &["sh", "-c", &small],
        &["sh", "-c", &many],
    ] {
        container.cmd(words.iter().copied()).run(LIMIT).unwrap();
    }
    // The host's resolver changes; the old server is no more.
    lab.set_resolv_conf("nameserver 192.0.2.254\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    lab.set_resolv_conf(&format!("nameserver {WORLD4}\n")).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let answer = container.cmd(dig).run(LIMIT).unwrap();
    assert_eq!(answer.out().trim(), WORLD4, "{answer}");
}

fn servers(lab: &Lab) -> Vec<Running> {
    let serve =
        |words: &[&str], protocol| Running::server(lab.world(words.iter().copied()), protocol, 9000).unwrap();
    let sink = lab.world(["ncat", "-l", "-k", "9002", "--recv-only"]);
    vec![
        lab.dns().unwrap(),
        serve(&["ncat", "-l", "-k", "9000", "-c", "cat"], "tcp"),
        serve(&["ncat", "-l", "-k", "-u", "9000", "-c", "cat"], "udp"),
        Running::server(sink, "tcp", 9002).unwrap(),
    ]
}

#[test]
fn the_list_of_system_calls_is_what_is_called() {
    let (lab, _) =
        lab!(ours "the_list_of_system_calls_is_what_is_called", ["strace", "ncat", "dig", "dnsmasq", "ping"]);
    let _servers = servers(&lab);
    let container = lab.container().unwrap();
    let trace = lab.home().join("trace");
    let script = r#"cd "$HOME"; exec "$@" 3>ready"#;
    let options = ["-c", "--enable-ipv6", "--enable-sandbox", "--enable-seccomp", "--api-socket=api.sock"];
    let mut slirp = lab
        .host(["sh", "-c", script, "sh"])
        .args(traced(&trace))
        .arg(lab.program("slirp4netns"))
        .args(["--exit-fd=0", "--ready-fd=3"])
        .args(options)
        .args([&container.pid().to_string(), "tap0"])
        .start()
        .unwrap();
    slirp.until(LIMIT, |_| std::fs::read(lab.home().join("ready")).is_ok_and(|text| text == b"1")).unwrap();
    ipv6(&container);
    let socket = lab.home().join("api.sock");
    for (id, proto) in [(1, "tcp"), (2, "udp")] {
        let add = format!(
            r#"{{"execute":"add_hostfwd","arguments":{{"proto":"{proto}","host_addr":"0.0.0.0","host_port":8080,"guest_addr":"","guest_port":80}}}}"#
        );
        let reply = api(&socket, add.as_bytes()).unwrap();
        assert!(reply.contains(&format!("\"id\":{id}")), "{reply} {}", slirp.stderr());
    }
    let published = container.cmd(["ncat", "-l", "-k", "80", "-c", "cat"]).start().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    for words in [&["ncat", "-w", "2", HOST4, "8080"][..], &["ncat", "-u", "-w", "1", HOST4, "8080"]] {
        lab.world(words.iter().copied()).input("ask\n").run(LIMIT).unwrap();
    }
    drop(published);
    work(&lab, &container);
    for id in [1, 2] {
        let remove = format!(r#"{{"execute":"remove_hostfwd","arguments":{{"id":{id}}}}}"#);
        assert_eq!(api(&socket, remove.as_bytes()).unwrap(), r#"{"return":{}}"#);
    }
    slirp.stdin.take();
    let ended = slirp.finish(LIMIT).unwrap().expect("it ends");
    assert!(ended.success(), "{ended}");
    let mut called = under_filter(&trace);
    called.extend(of_a_command(&lab));
    let list: BTreeSet<_> = allowed(Profile::Parent).unwrap().into_iter().collect();
    let strangers: Vec<_> = called.difference(&list).collect();
    assert!(strangers.is_empty(), "called, and not on the list: {strangers:?}");
    let rare: BTreeSet<_> = RARE.iter().map(|(call, _)| *call).chain(OLD.iter().copied()).collect();
    let stale: Vec<_> = list.difference(&called).filter(|call| !rare.contains(call)).collect();
    assert!(stale.is_empty(), "on the list, and called by nobody: {stale:?}");
    assert!(rare.is_subset(&list), "excused, and not on the list: {:?}", rare.difference(&list));
}

/// The calls of our own `run`, whose filter also lets it wait for its command.
fn of_a_command(lab: &Lab) -> BTreeSet<libc::c_long> {
    let trace = lab.home().join("trace-run");
    let script = format!("(echo ask; sleep 1) | ncat -w 3 {WORLD4} 9000; exit 7");
    let output = lab
        .host(traced(&trace))
        .args([&lab.program("slipway"), "run", "--", "sh", "-c", &script])
        .run(LIMIT)
        .unwrap();
    assert_eq!((output.code(), output.out().as_str()), (7, "ask\n"), "{output}");
    under_filter(&trace)
}
