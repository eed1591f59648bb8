//! What a container may not reach, and what the process may not do.

use std::time::Duration;

use slipway_lab::{Container, GATEWAY4, HOST4, LIMIT, Lab, NAMESERVER4, Running, WORLD4, lab};

/// A server on the host's loopback that answers one line, and whether the container gets it.
fn loopback_answer(lab: &Lab, container: &Container) -> slipway_lab::Output {
    let server = lab.host(["ncat", "-l", "127.0.0.1", "8000", "-k", "-c", "echo from loopback"]);
    let _server = Running::server(server, "tcp", 8000).unwrap();
    container.cmd(["ncat", "--recv-only", "-w", "5", GATEWAY4, "8000"]).run(LIMIT).unwrap()
}

#[test]
fn the_gateway_is_the_hosts_loopback() {
    let (lab, _) = lab!("the_gateway_is_the_hosts_loopback", ["ncat"]);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c"]).unwrap();
    let answer = loopback_answer(&lab, &container);
    assert_eq!(answer.out(), "from loopback\n", "{answer}");
}

#[test]
fn disable_host_loopback_makes_it_unreachable() {
    let (lab, _) = lab!("disable_host_loopback_makes_it_unreachable", ["ncat"]);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--disable-host-loopback"]).unwrap();
    let answer = loopback_answer(&lab, &container);
    assert!(!answer.success() && answer.out().is_empty(), "{answer}");
    assert!(answer.err().contains("Network is unreachable"), "{answer}");
}

#[test]
fn disable_host_loopback_holds_for_ipv6() {
    let (lab, _) = lab!("disable_host_loopback_holds_for_ipv6", ["ncat"]);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--enable-ipv6", "--disable-host-loopback"]).unwrap();
    container
        .sh("for i in $(seq 100); do ip -6 route show default | grep -q via && break; sleep 0.1; done")
        .unwrap();
    let server = lab.host(["ncat", "-6", "-l", "::1", "8000", "-k", "-c", "echo from loopback"]);
    let _server = Running::server(server, "tcp", 8000).unwrap();
    let answer = container.cmd(["ncat", "-6", "-w", "3", slipway_lab::GATEWAY6, "8000"]).run(LIMIT).unwrap();
    assert!(!answer.success() && answer.out().is_empty(), "{answer}");
}

#[test]
fn disable_dns_times_out() {
    let (lab, _) = lab!("disable_dns_times_out", ["ncat"]);
    let _dns = lab.dns().unwrap();
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--disable-dns"]).unwrap();
    let answer = container.cmd(["ncat", "-v", "-w", "1", NAMESERVER4, "53"]).run(LIMIT).unwrap();
    assert!(!answer.success(), "{answer}");
    assert!(
        answer.err().to_lowercase().contains("timed out") || answer.err().contains("TIMEOUT"),
        "{answer}"
    );
}

#[test]
fn outbound_address_is_the_source() {
    let (lab, _) = lab!("outbound_address_is_the_source", ["ncat"]);
    lab.host_root(["ip", "address", "add", "192.0.2.77/24", "dev", "veth0"]).ok(LIMIT).unwrap();
    let source = |option: &str, target: &str, place: &str| {
        let container = lab.container().unwrap();
        let _slirp = lab.slirp(&container, &["-c", option]).unwrap();
        let words = ["ncat", "-4", "-l", "-k", "8000", "-c", "echo peer=$NCAT_REMOTE_ADDR"];
        let server = if place == "world" { lab.world(words) } else { lab.host(words) };
        let _server = Running::server(server, "tcp", 8000).unwrap();
        container.cmd(["ncat", "--recv-only", "-w", "5", target, "8000"]).run(LIMIT).unwrap()
    };
    for (option, target, place, expected) in [
        ("--outbound-addr=192.0.2.77", WORLD4, "world", "192.0.2.77"),
        ("--outbound-addr=veth0", WORLD4, "world", HOST4),
        ("--outbound-addr=127.0.0.1", GATEWAY4, "host", "127.0.0.1"),
        ("--outbound-addr=lo", GATEWAY4, "host", "127.0.0.1"),
        ("--outbound-addr=192.0.2.77", GATEWAY4, "host", "192.0.2.77"),
    ] {
        let answer = source(option, target, place);
        assert_eq!(answer.out(), format!("peer={expected}\n"), "{option} to {target}: {answer}");
    }
}

#[test]
fn outbound_address_must_be_one() {
    let (lab, _) = lab!("outbound_address_must_be_one", []);
    let container = lab.container().unwrap();
    let pid = container.pid().to_string();
    for option in ["--outbound-addr=nosuchif", "--outbound-addr=300.1.1.1"] {
        let output = lab.host([&lab.program("slirp4netns"), "-c", option, &pid, "tap0"]).run(LIMIT).unwrap();
        assert_eq!(output.code(), 1, "{output}");
        assert!(
            output.err().contains("outbound-addr has to be valid ipv4 address or interface name."),
            "{output}"
        );
    }
}

#[test]
fn outbound_addr6_takes_an_interface() {
    let (lab, _) = lab!(ours "outbound_addr6_takes_an_interface", ["ncat"]);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--enable-ipv6", "--outbound-addr6=veth0"]).unwrap();
    container
        .sh("for i in $(seq 100); do ip -6 route show default | grep -q via && break; sleep 0.1; done")
        .unwrap();
    let server = lab.world(["ncat", "-6", "-l", "-k", "8000", "-c", "echo peer=$NCAT_REMOTE_ADDR"]);
    let _server = Running::server(server, "tcp", 8000).unwrap();
    let answer = container
        .cmd(["ncat", "-6", "--recv-only", "-w", "5", slipway_lab::WORLD6, "8000"])
        .run(LIMIT)
        .unwrap();
    assert_eq!(answer.out(), format!("peer={}\n", slipway_lab::HOST6), "{answer}");
}

/// The process itself: `Lab::slirp` starts it by exec, so its handle is its process.
#[test]
fn the_sandbox_shows_etc_and_run_only() {
    let (lab, _) = lab!("the_sandbox_shows_etc_and_run_only", []);
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--enable-sandbox"]).unwrap();
    let pid = slirp.process.pid();
    let names = |path: &str| {
        lab.host_root(["ls", "-1", path])
            .run(LIMIT)
            .unwrap()
            .out()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let root = names(&format!("/proc/{pid}/root/"));
    assert!(root.contains(&"etc".to_owned()) && root.contains(&"run".to_owned()), "{root:?}");
    for hidden in ["home", "root", "var", "usr", "proc", "dev", "sys"] {
        assert!(!root.contains(&hidden.to_owned()), "{hidden} is visible: {root:?}");
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caps = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|hex| u64::from_str_radix(hex.trim(), 16).unwrap())
    };
    const NET_BIND_SERVICE: u64 = 1 << 10;
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapBnd:"] {
        assert_eq!(caps(set).unwrap() & !NET_BIND_SERVICE, 0, "{set} in {status}");
    }
    assert_eq!(caps("CapEff:"), Some(NET_BIND_SERVICE));
    assert_eq!(caps("CapAmb:"), Some(0));
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(container.cmd(["ping", "-c1", "-W5", GATEWAY4]).run(LIMIT).unwrap().success());
}

/// The user who started it may look at what the sandbox has left, as ever; nobody else has a hold on its user
/// namespace.
#[test]
fn the_user_may_look_into_the_sandbox() {
    let (lab, _) = lab!("the_user_may_look_into_the_sandbox", []);
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--enable-sandbox", "--enable-seccomp"]).unwrap();
    let root = format!("/proc/{}/root", slirp.process.pid());
    let looked = lab.host(["ls", &root]).run(LIMIT).unwrap();
    if looked.err().contains("Permission denied") && restricts_namespaces() {
        println!("SKIP the_user_may_look_into_the_sandbox: nobody may make user namespaces here");
        return;
    }
    let left = looked.out();
    assert!(["etc", "run"].iter().all(|name| left.lines().any(|line| line == *name)), "{looked}");
    assert!(
        !["home", "root", "usr", "var"].iter().any(|name| left.lines().any(|line| line == *name)),
        "{looked}"
    );
    assert_eq!(slirp.exit().unwrap(), 0);
}

/// Where no user namespace can be filled, the container's is joined: nothing that the sandbox can do without ends the
/// program.
#[test]
fn a_read_only_proc_does_not_stop_the_sandbox() {
    let (lab, _) = lab!("a_read_only_proc_does_not_stop_the_sandbox", []);
    if !lab.by_root() {
        println!("SKIP a_read_only_proc_does_not_stop_the_sandbox: needs root");
        return;
    }
    let container = lab.container().unwrap();
    let read_only = "mount --bind /proc /proc && mount -o remount,bind,ro /proc";
    lab.host_root(["sh", "-c", read_only]).ok(LIMIT).unwrap();
    let slirp = lab.slirp(&container, &["-c", "--enable-sandbox", "--enable-seccomp"]).unwrap();
    assert!(container.cmd(["ping", "-c1", "-W5", GATEWAY4]).run(LIMIT).unwrap().success());
    assert_eq!(slirp.exit().unwrap(), 0);
}

fn restricts_namespaces() -> bool {
    let setting = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    std::fs::read_to_string(setting).is_ok_and(|text| text.trim() != "0")
}

/// Whoever is in the container's user namespace may be traced by its root.
#[test]
fn root_of_the_container_does_not_trace_us() {
    let (lab, _) = lab!(ours "root_of_the_container_does_not_trace_us", ["strace"]);
    let container = lab.container().unwrap();
    let tracing = |pid: u32| {
        let tracer =
            ["timeout", "2", "strace", "-e", "trace=none", "-p", &pid.to_string()].map(str::to_owned);
        container.cmd(tracer).run(LIMIT).unwrap()
    };
    // It is able to, and allowed to.
    let other = container.cmd(["sleep", "60"]).start().unwrap();
    let attached = tracing(other.pid());
    if !attached.err().contains("attached") {
        println!("SKIP root_of_the_container_does_not_trace_us: nobody traces anybody here: {attached}");
        return;
    }
    for options in [&["-c"][..], &["-c", "--enable-sandbox"], &["-c", "--enable-sandbox", "--enable-seccomp"]]
    {
        let slirp = lab.slirp(&container, options).unwrap();
        let refused = tracing(slirp.process.pid());
        assert!(refused.err().contains("Operation not permitted"), "{options:?}: {refused}");
        assert!(container.cmd(["ping", "-c1", "-W5", GATEWAY4]).run(LIMIT).unwrap().success());
        assert_eq!(slirp.exit().unwrap(), 0);
    }
}

#[test]
fn the_sandbox_leaves_mounts_of_the_host_alone() {
    let (lab, _) = lab!("the_sandbox_leaves_mounts_of_the_host_alone", []);
    if !lab.by_root() {
        println!("SKIP the_sandbox_leaves_mounts_of_the_host_alone: needs root");
        return;
    }
    // In the lab's host, /run becomes a shared mount with a mount below, as systemd has it.
    let set_up = "mount -t tmpfs -o mode=755 tmpfs /run && mount --make-shared /run && mkdir /run/foo && mount -t tmpfs tmpfs /run/foo && touch /run/foo/kept";
    lab.host_root(["sh", "-c", set_up]).ok(LIMIT).unwrap();
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--enable-sandbox"]).unwrap();
    assert!(lab.host_root(["test", "-e", "/run/foo/kept"]).run(LIMIT).unwrap().success());
    assert_eq!(slirp.exit().unwrap(), 0);
    assert!(lab.host_root(["test", "-e", "/run/foo/kept"]).run(LIMIT).unwrap().success());
}

#[test]
fn seccomp_and_sandbox_leave_the_network_working() {
    let (lab, _) = lab!("seccomp_and_sandbox_leave_the_network_working", ["ncat", "dig"]);
    let _dns = lab.dns().unwrap();
    let container = lab.container().unwrap();
    let userns = format!("--userns-path=/proc/{}/ns/user", container.pid());
    let slirp = lab
        .slirp(
            &container,
            &[
                "-c",
                "--enable-seccomp",
                "--enable-sandbox",
                "--enable-ipv6",
                "--api-socket=api.sock",
                &userns,
            ],
        )
        .unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", slirp.process.pid())).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
    slirp.publish("tcp", 8080, 80).unwrap();
    slirp.publish("udp", 8080, 80).unwrap();
    let server = container.cmd(["ncat", "-l", "80", "-c", "echo inside"]);
    let _server = Running::server(server, "tcp", 80).unwrap();
    let answer = lab.world(["ncat", "--recv-only", "-w", "5", HOST4, "8080"]).run(LIMIT).unwrap();
    assert_eq!(answer.out(), "inside\n", "{answer}");
    let name = container.cmd(["dig", "+short", "+tries=2", "+time=3", "name.test"]).run(LIMIT).unwrap();
    assert_eq!(name.out().trim(), WORLD4, "{name}");
    // The nameserver list is followed also behind the sandbox.
    lab.set_resolv_conf(&format!("nameserver {WORLD4}\n# edited\n")).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let name =
        container.cmd(["dig", "+tcp", "+short", "+tries=2", "+time=3", "name.test"]).run(LIMIT).unwrap();
    assert_eq!(name.out().trim(), WORLD4, "{name}");
    assert_eq!(slirp.exit().unwrap(), 0);
}
