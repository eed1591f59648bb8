//! The allow-list of system calls of a network's process, held against traces of real runs, both ways
//! (`tests/lab/traces.rs`).
//!
//! The work is what containers do: addresses by DHCP and router advertisement, TCP, UDP and echo both ways, names over
//! UDP and TCP while the host's resolv.conf changes, ports published and withdrawn.

mod orders;

use std::collections::BTreeSet;
use std::net::Shutdown;
use std::time::Duration;

use nix::sys::signal::Signal;
use slipway_host::device::vhost_user::Wish;
use slipway_host::sandbox::seccomp::{Profile, allowed};
use slipway_lab::{
    Container, HOST4, LIMIT, Lab, NAMESERVER4, Running, WORLD4, WORLD6, api, hold, lab, traced, under_filter,
};

use crate::ipv6;
use crate::pasta::{card, connected, shown};

/// What no run here need call.
const RARE: &[(libc::c_long, &str)] = &[
    (libc::SYS_ftruncate, "the end of a capture on a full disk"),
    (libc::SYS_sendmmsg, "trains of datagrams that the kernel does not split"),
    (libc::SYS_recvmmsg, "datagrams"),
];

/// What a container, or a machine, does with its network, whose nameserver is there.
fn work(lab: &Lab, container: &Container, nameserver: &str) {
    let dig = ["dig", "+short", "+tries=2", "+time=4", &format!("@{nameserver}"), "name.test"];
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
    work(&lab, &container, NAMESERVER4);
    for id in [1, 2] {
        let remove = format!(r#"{{"execute":"remove_hostfwd","arguments":{{"id":{id}}}}}"#);
        assert_eq!(api(&socket, remove.as_bytes()).unwrap(), r#"{"return":{}}"#);
    }
    slirp.stdin.take();
    let ended = slirp.finish(LIMIT).unwrap().expect("it ends");
    assert!(ended.success(), "{ended}");
    let mut called = under_filter(&trace);
    called.extend(of_a_command(&lab));
    hold(&called, allowed(Profile::Parent).unwrap(), RARE);
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

/// What no run of a machine that shares its memory need call.
const RARE_OF_MEMORY: &[(libc::c_long, &str)] = &[
    (libc::SYS_ftruncate, "the end of a capture on a full disk"),
    (libc::SYS_sendmmsg, "trains of datagrams that the kernel does not split"),
    (libc::SYS_recvmmsg, "datagrams"),
    (libc::SYS_readv, "links whose frames are read"),
    (libc::SYS_writev, "links whose frames are written"),
];

/// Where that machine's names are asked for.
const FORWARDER: &str = "169.254.1.1";

/// A machine that shares its memory (`passt --vhost-user`), and then another.
#[test]
fn the_list_of_a_machine_that_shares_its_memory_is_what_is_called() {
    let test = "the_list_of_a_machine_that_shares_its_memory_is_what_is_called";
    let (lab, _) = lab!(
        ours "the_list_of_a_machine_that_shares_its_memory_is_what_is_called",
        ["strace", "ncat", "dig", "dnsmasq", "ping"]
    );
    if !lab.by_root() {
        println!("SKIP {test}: only root opens a TAP in the container for it");
        return;
    }
    let _servers = servers(&lab);
    let [trace, socket, rules] = ["trace", "machine", "rules"].map(|name| lab.home().join(name));
    let [at, rules] = [&socket, &rules].map(|path| path.to_string_lossy().into_owned());
    let words = ["-f", "-q", "--vhost-user", "--no-map-gw", "-s", &at, "-c", &rules];
    let ports = ["-t", "8080:80", "-u", "8080:80", "--dns-forward", FORWARDER];
    let passt = lab.host(traced(&trace)).args([&lab.program("slipway"), "passt"]);
    let mut passt = passt.args(words).args(ports).start().unwrap();
    for _ in 0..2 {
        let container = lab.container().unwrap();
        let (pump, stream) = card(&container, connected(&socket), Wish::all());
        shown(&container, &format!("ip address add {HOST4}/24 dev vm0; ip route add default via {WORLD4}"));
        ipv6(&container);
        let published = container.cmd(["ncat", "-l", "-k", "80", "-c", "cat"]);
        let published = Running::server(published, "tcp", 80).unwrap();
        for words in [&["ncat", "-w", "2", HOST4, "8080"][..], &["ncat", "-u", "-w", "1", HOST4, "8080"]] {
            lab.world(words.iter().copied()).input("ask\n").run(LIMIT).unwrap();
        }
        drop(published);
        for change in ["--add", "--delete"] {
            let pesto = lab.host([&lab.program("slipway"), "pesto"]).args([change, "-t", "8081:80", &rules]);
            pesto.ok(LIMIT).unwrap();
        }
        work(&lab, &container, FORWARDER);
        stream.shutdown(Shutdown::Both).unwrap();
        pump.join().unwrap();
    }
    passt.signal(Signal::SIGTERM);
    let ended = passt.finish(LIMIT).unwrap().expect("it ends");
    assert!(ended.success(), "{ended}");
    hold(&under_filter(&trace), allowed(Profile::Memory).unwrap(), RARE_OF_MEMORY);
}
