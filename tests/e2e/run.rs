//! `slipway run`: a command with a network of its own, and what people meet when something is in the way.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use slipway_lab::{Cmd, HOST4, HOST6, LIMIT, Lab, Output, Running, WORLD4, lab};

/// `slipway run` with options and a script for the shell.
fn run(lab: &Lab, options: &[&str], script: &str) -> Cmd {
    lab.host([&lab.program("slipway"), "run"]).args(options).args(["--", "sh", "-c", script])
}

fn done(lab: &Lab, options: &[&str], script: &str) -> Output {
    run(lab, options, script).run(LIMIT).unwrap()
}

#[test]
fn the_commands_status_is_ours() {
    let (lab, _) = lab!(ours "the_commands_status_is_ours", []);
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137)] {
        let output = done(&lab, &[], script);
        assert_eq!(output.code(), code, "{script}: {output}");
    }
    let slipway = lab.program("slipway");
    for (command, code) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
        let output = lab.host([&slipway, "run", "--", command]).run(LIMIT).unwrap();
        assert_eq!(output.code(), code, "{command}: {output}");
        assert!(output.err().contains(command), "{output}");
    }
}

/// Its keeper lives in its user namespace, where it may be root.
#[test]
fn a_command_does_not_trace_those_who_serve_it() {
    let test = "a_command_does_not_trace_those_who_serve_it";
    let (lab, _) = lab!(ours "a_command_does_not_trace_those_who_serve_it", ["strace"]);
    if !lab.by_root() {
        println!("SKIP {test}: without root the lab's user is root of host's user namespace, who may trace");
        return;
    }
    let script = "trace() { timeout 2 strace -e trace=none -p $1 2>&1; }
        sleep 60 & echo itself: $(trace $!); kill $!
        echo keeper: $(trace $PPID)
        read -r _ _ _ slipway _ < /proc/$PPID/stat
        echo network: $(trace $slipway)";
    for options in [&["-q"][..], &["-q", "-r"]] {
        let output = done(&lab, options, script);
        let shown = output.out();
        if !shown.contains("itself: strace: Process") {
            println!("SKIP {test}: nobody traces anybody here: {output}");
            return;
        }
        assert_eq!(shown.matches("Operation not permitted").count(), 2, "{output}");
    }
}

#[test]
fn without_a_command_it_is_the_shell() {
    let (lab, _) = lab!(ours "without_a_command_it_is_the_shell", []);
    let command = lab
        .host([&lab.program("slipway"), "run", "-q"])
        .env("SHELL", "/bin/sh")
        .input("echo typed; exit 3\n");
    let output = command.run(LIMIT).unwrap();
    assert_eq!((output.out().as_str(), output.code()), ("typed\n", 3), "{output}");
}

#[test]
fn input_and_output_pass_through() {
    let (lab, _) = lab!(ours "input_and_output_pass_through", []);
    let output = run(&lab, &["-q"], "cat; echo err >&2").input("abc").run(LIMIT).unwrap();
    assert_eq!(output.out(), "abc", "{output}");
    assert!(output.err().contains("err"), "{output}");
}

#[test]
fn there_are_addresses_routes_and_names() {
    let (lab, _) = lab!(ours "there_are_addresses_routes_and_names", ["dnsmasq", "busybox"]);
    std::fs::write(lab.dir().join("www/index.html"), "fetched\n").unwrap();
    let (_dns, _http) = (lab.dns().unwrap(), lab.http().unwrap());
    let script = "ip address show tap0; ip route; ip -6 route; busybox wget -qO- http://name.test/index.html";
    let output = done(&lab, &[], script);
    let shown = output.out();
    assert!(output.success(), "{output}");
    for expected in
        ["10.0.2.100/24", "mtu 65520", "default via 10.0.2.2", "fd00:", "default via f", "fetched"]
    {
        assert!(shown.contains(expected), "{expected}: {output}");
    }
}

#[test]
fn options_shape_the_network() {
    let (lab, _) = lab!(ours "options_shape_the_network", []);
    let options = ["--mtu", "1400", "--no-ipv6", "--network", "10.7.0.0/24", "--ifname", "net0"];
    let output = done(&lab, &options, "ip address show net0; ip route; ip -6 address show net0 scope global");
    let shown = output.out();
    for expected in ["mtu 1400", "10.7.0.100/24", "default via 10.7.0.2"] {
        assert!(shown.contains(expected), "{expected}: {output}");
    }
    assert!(!shown.contains("fd00:"), "{output}");
}

#[test]
fn one_is_oneself_or_root_inside() {
    let (lab, _) = lab!(ours "one_is_oneself_or_root_inside", []);
    let outside = lab.host(["id", "-u"]).ok(LIMIT).unwrap().out();
    assert_eq!(done(&lab, &["-q"], "id -u").out(), outside);
    assert_eq!(done(&lab, &["-q", "--map-root"], "id -u").out(), "0\n");
}

#[test]
fn a_published_port_is_reached_with_the_clients_address() {
    let (lab, _) = lab!(ours "a_published_port_is_reached_with_the_clients_address", ["ncat"]);
    let script = "for f in 4 6; do ncat -$f -l -k 80 -c 'echo peer=$NCAT_REMOTE_ADDR' & done
                  for i in $(seq 100); do ip -6 route | grep -q ^default && break; sleep 0.05; done
                  echo serving; cat; kill %1 %2";
    let mut command = run(&lab, &["-r", "-p", "8080:80"], script).start().unwrap();
    command.until(LIMIT, |running| running.stdout().contains("serving")).unwrap();
    for (family, at, expected) in [("-4", HOST4, WORLD4), ("-6", HOST6, slipway_lab::WORLD6)] {
        let fetch = format!(
            "for i in $(seq 50); do ncat {family} --recv-only -w 10 {at} 8080 2>/dev/null | grep peer && break; sleep 0.1; done"
        );
        let answer = lab.world(["sh", "-c", &fetch]).run(LIMIT).unwrap();
        assert_eq!(answer.out(), format!("peer={expected}\n"), "{answer}");
    }
    command.stdin.take();
    command.finish(LIMIT).unwrap();
}

#[test]
fn the_hosts_loopback_is_out_of_reach_unless_allowed() {
    let (lab, _) = lab!(ours "the_hosts_loopback_is_out_of_reach_unless_allowed", ["ncat"]);
    let server = lab.host(["ncat", "-l", "127.0.0.1", "8000", "-k", "-c", "echo from loopback"]);
    let _server = Running::server(server, "tcp", 8000).unwrap();
    let ask = "ncat --recv-only -w 5 10.0.2.2 8000";
    assert_eq!(done(&lab, &["-q", "--host-loopback"], ask).out(), "from loopback\n");
    let output = done(&lab, &["-q"], ask);
    assert!(output.out().is_empty() && !output.success(), "{output}");
}

#[test]
fn a_capture_has_the_frames() {
    let (lab, _) = lab!(ours "a_capture_has_the_frames", ["ping"]);
    let file = lab.home().join("trace.pcap");
    let path = file.to_string_lossy().into_owned();
    let output = done(&lab, &["--pcap", &path], "ping -c1 -W5 10.0.2.2");
    assert!(output.success(), "{output}");
    let bytes = std::fs::read(&file).unwrap();
    let magic = u32::from_ne_bytes(bytes[..4].try_into().unwrap());
    assert!(matches!(magic, 0xa1b2_c3d4 | 0xa1b2_3c4d), "{magic:x}");
    // Header, then at least the echo and its answer.
    assert!(bytes.len() > 24 + 2 * (16 + 98), "{} bytes", bytes.len());
}

#[test]
fn name_servers_can_be_chosen() {
    let (lab, _) = lab!(ours "name_servers_can_be_chosen", ["dnsmasq"]);
    lab.set_resolv_conf("nameserver 192.0.2.254\n").unwrap();
    let _dns = lab.dns().unwrap();
    let output = done(&lab, &["-q", "--dns", WORLD4], "cat /etc/resolv.conf; getent ahostsv4 name.test");
    assert!(output.out().contains("nameserver 10.0.2.3") && output.out().contains(WORLD4), "{output}");
}

#[test]
fn nothing_is_left_afterwards() {
    let (lab, _) = lab!(ours "nothing_is_left_afterwards", []);
    assert!(done(&lab, &["-p", "8080:80"], "true").success());
    assert_eq!(processes(&lab), Vec::<String>::new());
    // And the port is free again at once.
    assert!(done(&lab, &["-p", "8080:80"], "true").success());
}

#[test]
fn a_signal_ends_command_and_network() {
    let (lab, _) = lab!(ours "a_signal_ends_command_and_network", []);
    let mut command = run(&lab, &[], "echo started; exec sleep 60").start().unwrap();
    command.until(LIMIT, |running| running.stdout().contains("started")).unwrap();
    let leader = i32::try_from(command.pid()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(leader), Signal::SIGTERM).unwrap();
    // The command itself would have slept for twice as long.
    let ended = command.finish(LIMIT).unwrap().expect("it ends");
    assert_eq!(ended.code(), 143, "{ended}");
    let gone = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        processes(&lab).is_empty()
    });
    assert!(gone, "{:?}", processes(&lab));
}

#[test]
fn what_is_in_the_way_is_said_in_one_line() {
    let (lab, _) = lab!(ours "what_is_in_the_way_is_said_in_one_line", ["ncat"]);
    let one_line = |output: &Output, words: &[&str]| {
        let said = output.err();
        assert!(!output.success(), "{output}");
        assert_eq!(said.lines().count(), 1, "{output}");
        for word in words {
            assert!(said.contains(word), "{word}: {output}");
        }
    };
    let server = lab.host(["ncat", "-l", "-k", "8080"]);
    let _server = Running::server(server, "tcp", 8080).unwrap();
    one_line(&done(&lab, &["-p", "8080:80"], "true"), &["8080", "in use"]);
    if lab.by_root() {
        one_line(&done(&lab, &["-p", "80:80"], "true"), &["80", "ip_unprivileged_port_start"]);
    }
    // Without capabilities: root that may make a network namespace needs no user namespace.
    let none = "echo 0 > /proc/sys/user/max_user_namespaces \
                && exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" run -- true";
    let output =
        lab.host(["unshare", "--user", "--map-root-user", "sh", "-c", none, &lab.program("slipway")]);
    one_line(&output.run(LIMIT).unwrap(), &["user namespace", "max_user_namespaces"]);
    if lab.has_own_tun() {
        lab.host_root(["chmod", "600", "/dev/net/tun"]).ok(LIMIT).unwrap();
        one_line(&done(&lab, &[], "true"), &["/dev/net/tun", "chmod"]);
        lab.host_root(["mount", "-t", "tmpfs", "tmpfs", "/dev/net"]).ok(LIMIT).unwrap();
        one_line(&done(&lab, &[], "true"), &["/dev/net/tun", "modprobe tun"]);
    }
}

/// Command lines of processes that were started from the lab's directory.
fn processes(lab: &Lab) -> Vec<String> {
    let program = lab.program("slipway");
    let mut found = Vec::new();
    for entry in Path::new("/proc").read_dir().unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.starts_with(&program) {
            found.push(line);
        }
    }
    found
}

/// A command that says which signals it gets, and ends with SIGTERM.
const TELLS: &str = "for s in HUP INT QUIT USR1 USR2 ALRM CONT WINCH VTALRM IO PWR RTMIN RTMIN+5 RTMAX; do
    trap \"echo got $s\" $s; done
    trap 'echo got TERM; exit 5' TERM; echo ready; while :; do sleep 0.02; done";

#[test]
fn every_signal_that_comes_to_us_alone_is_passed_on() {
    let (lab, _) = lab!(ours "every_signal_that_comes_to_us_alone_is_passed_on", ["bash"]);
    let mut command =
        lab.host([&lab.program("slipway"), "run", "-q", "--", "bash", "-c", TELLS]).start().unwrap();
    command.until(LIMIT, |running| running.stdout().contains("ready")).unwrap();
    let pid = command.pid().to_string();
    for name in [
        "HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "CONT", "WINCH", "VTALRM", "IO", "PWR", "RTMIN",
        "RTMIN+5", "RTMAX",
    ] {
        // bash knows the names of the real-time ones.
        lab.host_root(["bash", "-c", &format!("kill -{name} {pid}")]).ok(LIMIT).unwrap();
        let line = format!("got {name}\n");
        command.until(LIMIT, |running| running.stdout().contains(&line)).unwrap();
    }
    lab.host_root(["kill", "-TERM", &pid]).ok(LIMIT).unwrap();
    let ended = command.finish(LIMIT).unwrap().expect("it ends");
    assert_eq!(ended.code(), 5, "{ended}");
    assert_eq!(ended.out().matches("got TERM").count(), 1, "{ended}");
}

#[test]
fn a_signal_while_starting_is_not_lost() {
    let (lab, _) = lab!(ours "a_signal_while_starting_is_not_lost", ["bash"]);
    // Signals of every moment of the start: before there is a child, before the command, after it.
    for delay in 0..12 {
        let script = r#"pause=$1; shift; "$@" & sleep "$pause"; kill -USR1 $!; wait $!"#;
        let output = lab
            .host(["bash", "-c", script, "bash", &format!("{:.3}", f64::from(delay) * 0.005)])
            .args([&lab.program("slipway"), "run", "-q", "--", "sleep", "20"])
            .run(LIMIT)
            .unwrap();
        assert_eq!(output.code(), 128 + Signal::SIGUSR1 as i32, "after {delay}: {output}");
    }
}

#[test]
fn an_end_by_a_real_time_signal_is_told() {
    let (lab, _) = lab!(ours "an_end_by_a_real_time_signal_is_told", ["bash"]);
    let output = lab
        .host([&lab.program("slipway"), "run", "-q", "--", "bash", "-c", "kill -RTMIN+3 $$"])
        .run(LIMIT)
        .unwrap();
    assert_eq!(output.code(), 128 + 37, "{output}");
}

#[test]
fn a_key_of_the_terminal_is_not_passed_on_twice() {
    let (lab, _) = lab!(ours "a_key_of_the_terminal_is_not_passed_on_twice", ["bash", "script"]);
    // script(1) makes a terminal whose foreground group is ours; what it reads is typed there. Octal 003: Ctrl-C.
    // `exec`, or the shell that script(1) starts gets the key, too, and ends with 130 whatever the command did.
    let inner = format!(
        "exec {} run -q -- bash -c 'trap \"echo got INT\" INT; echo ready; for i in $(seq 60); do sleep 0.05; done; exit 4'",
        lab.program("slipway")
    );
    let typed = r#"(sleep 1; printf '\003'; sleep 4) | script -qec "$0" /dev/null"#;
    let output = lab.host(["bash", "-c", typed, &inner]).run(LIMIT).unwrap();
    assert_eq!(output.code(), 4, "{output}");
    assert_eq!(output.out().matches("got INT").count(), 1, "{output}");
}

#[test]
fn a_key_of_the_terminal_reaches_a_command_that_has_left_the_group() {
    let (lab, _) = lab!(ours "a_key_of_the_terminal_reaches_a_command_that_has_left_the_group", ["bash", "script", "setsid"]);
    // It has no terminal any more, and the terminal's foreground group is still ours. Its parent is no group leader, so
    // it is setsid(1) itself that becomes the command.
    let inner = format!(
        "exec {} run -q -- setsid bash -c 'trap \"echo got INT; exit 4\" INT; echo ready; for i in $(seq 60); do sleep 0.05; done'",
        lab.program("slipway")
    );
    let typed = r#"(sleep 1; printf '\003'; sleep 4) | script -qec "$0" /dev/null"#;
    let output = lab.host(["bash", "-c", typed, &inner]).run(LIMIT).unwrap();
    assert_eq!(output.code(), 4, "{output}");
    assert_eq!(output.out().matches("got INT").count(), 1, "{output}");
}
