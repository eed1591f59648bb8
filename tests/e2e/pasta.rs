//! `pasta`: a namespace gets the host's own network, in the background, and the command line of the original. `passt`:
//! the same for whoever is at the other end of a stream of frames.
//!
//! The lab's *host* is the machine whose addresses and routes the container gets. What other programs check of it by
//! its words stands with its command line (`slirp-compat/src/pasta`), Podman in `podman`; here is what the network
//! does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::machine::Machine;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_host::device::Tap;
use slipway_host::device::vhost_user::{Front, Wish};
use slipway_lab::{Cmd, Container, HOST4, HOST6, LIMIT, Lab, Output, Running, WORLD4, WORLD6, lab, now};
use testkit::pump;

/// No ports at all, and nothing said.
/// The world is the host's gateway here, which would lead to the host's loopback otherwise.
const PLAIN: [&str; 11] =
    ["--config-net", "--no-map-gw", "--quiet", "-t", "none", "-u", "none", "-T", "none", "-U", "none"];

fn pasta(lab: &Lab, words: &[&str]) -> Cmd {
    lab.host([&lab.program("slipway"), "pasta"]).args(words)
}

/// What the foreground process said, and the one that stays, by its PID file.
pub(super) fn started(lab: &Lab, role: &str, words: &[&str], target: &[String]) -> (Output, i32) {
    let file = lab.home().join("pid");
    let start = lab.host([&lab.program("slipway"), role]).args(words);
    let done = start.args(["--pid", &file.to_string_lossy()]).args(target).run(LIMIT).unwrap();
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    (done, written.trim().parse().unwrap_or(0))
}

/// `pasta` for a container; it has to begin, and says nothing.
fn start(lab: &Lab, container: &Container, words: &[&str]) -> Guarded {
    let (done, pid) = started(lab, "pasta", words, &[container.pid().to_string()]);
    assert!(done.success() && done.out().is_empty() && done.err().is_empty(), "{words:?}: {done}");
    assert!(lives(pid), "{pid} is no process");
    Guarded(pid)
}

/// A process that ends with the test.
pub(super) struct Guarded(pub(super) i32);

impl Drop for Guarded {
    fn drop(&mut self) {
        if lives(self.0) {
            let _ = kill(Pid::from_raw(self.0), Signal::SIGTERM);
        }
    }
}

pub(super) fn lives(pid: i32) -> bool {
    pid > 0 && Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether it has ended within the five seconds that Podman's own tests wait.
pub(super) fn ends(pid: i32) -> bool {
    let until = now() + Duration::from_secs(5);
    while lives(pid) && now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    !lives(pid)
}

pub(super) fn shown(container: &Container, script: &str) -> String {
    container.sh(script).unwrap().out()
}

/// Routes as `ip` shows them, less what belongs to one interface.
fn routes(text: &str) -> Vec<String> {
    let bare = |line: &str| {
        let mut words: Vec<_> = line.split_whitespace().collect();
        for word in ["src", "dev"] {
            if let Some(at) = words.iter().position(|found| *found == word) {
                words.drain(at..(at + 2).min(words.len()));
            }
        }
        words.join(" ")
    };
    let mut lines: Vec<_> = text.lines().filter(|line| !line.starts_with("fe80")).map(bare).collect();
    lines.sort();
    lines
}

#[test]
fn a_namespace_gets_the_hosts_network() {
    let (lab, _) = lab!(ours "a_namespace_gets_the_hosts_network", ["busybox", "ping"]);
    std::fs::write(lab.dir().join("www/index.html"), "fetched\n").unwrap();
    let _server = lab.http().unwrap();
    let container = lab.container().unwrap();
    let _pasta = start(&lab, &container, &PLAIN);
    // Exit 0: addresses can be used, none is tentative.
    let addresses = shown(&container, "ip -o address show");
    assert!(addresses.contains(HOST4) && addresses.contains(HOST6), "{addresses}");
    assert!(!addresses.contains("tentative"), "{addresses}");
    for family in ["-4", "-6"] {
        let of_host = lab.host(["ip", family, "route"]).ok(LIMIT).unwrap().out();
        let of_guest = shown(&container, &format!("ip {family} route"));
        assert_eq!(routes(&of_guest), routes(&of_host), "{family}");
    }
    for at in [WORLD4.to_owned(), format!("[{WORLD6}]")] {
        let page = shown(&container, &format!("busybox wget -qO- http://{at}/index.html"));
        assert_eq!(page, "fetched\n", "{at}");
    }
    let pings = shown(&container, &format!("ping -c 1 -W 5 {WORLD4}; ping -6 -c 1 -W 5 {WORLD6}"));
    assert_eq!(pings.matches(" 0% packet loss").count(), 2, "{pings}");
}

#[test]
fn it_ends_with_its_namespace_and_at_a_signal() {
    let (lab, _) = lab!(ours "it_ends_with_its_namespace_and_at_a_signal", []);
    let mut container = lab.container().unwrap();
    let pasta = start(&lab, &container, &PLAIN);
    container.end();
    assert!(ends(pasta.0), "its namespace is gone");
    let container = lab.container().unwrap();
    let pasta = start(&lab, &container, &PLAIN);
    kill(Pid::from_raw(pasta.0), Signal::SIGTERM).unwrap();
    assert!(ends(pasta.0), "it was told to");
}

#[test]
fn a_failed_start_is_one_line_and_leaves_nobody() {
    let (lab, _) = lab!(ours "a_failed_start_is_one_line_and_leaves_nobody", ["ncat"]);
    let container = lab.container().unwrap();
    let taken = lab.host(["ncat", "-lk", "0.0.0.0", "8080"]);
    let _taken = Running::server(taken, "tcp", 8080).unwrap();
    let none = ["-u", "none", "-T", "none", "-U", "none"];
    for (words, line) in [
        (&["-t", "8080"][..], "Listen failed for HOST TCP port *"),
        (&["-t", "none", "-t", "0"], "attempts to map from port 0"),
        (&["-t", "80", "-t", "80"], "Forwarding configuration conflict"),
        (&["--userns", "/no/such"], "/no/such"),
    ] {
        let words = [&["--config-net", "-q"], words, &none].concat();
        let (done, _) = started(&lab, "pasta", &words, &[container.pid().to_string()]);
        assert_eq!(done.code(), 1, "{words:?}: {done}");
        assert!(done.err().contains(line), "{words:?}: {done}");
    }
    let left = shown(&container, "ip -o link | wc -l");
    assert_eq!(left.trim(), "1", "no interface but loopback is left");
}

/// Whatever step the start is at when its namespace goes, it ends: in words, or as after a start that went well.
#[test]
fn a_namespace_that_vanishes_at_any_step_ends_the_start() {
    let (lab, _) = lab!(ours "a_namespace_that_vanishes_at_any_step_ends_the_start", []);
    let mut failed = 0;
    for step in 0..12 {
        let mut container = lab.container().unwrap();
        let target = container.pid().to_string();
        let (done, pid) = std::thread::scope(|scope| {
            let starting = scope.spawn(|| started(&lab, "pasta", &PLAIN, &[target]));
            std::thread::sleep(Duration::from_millis(5 * step));
            container.end();
            starting.join().unwrap()
        });
        match done.code() {
            0 => assert!(ends(pid), "step {step}: {done}"),
            1 => {
                failed += 1;
                assert!(!done.err().is_empty() && !done.err().contains("panicked"), "step {step}: {done}");
            }
            _ => panic!("step {step}: {done}"),
        }
    }
    assert!(failed > 0, "a process that is not there has no namespace");
}

/// With so few descriptors as can be, it works or says why not.
#[test]
fn without_descriptors_it_says_so() {
    let (lab, _) = lab!(ours "without_descriptors_it_says_so", []);
    let container = lab.container().unwrap();
    let program = lab.program("slipway");
    let mut good = 0;
    for limit in [4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 64] {
        let words = [&["pasta"], &PLAIN[..]].concat().join(" ");
        let file = lab.home().join("pid").to_string_lossy().into_owned();
        let script = format!("ulimit -n {limit}; exec {program} {words} --pid {file} {}", container.pid());
        let done = lab.host(["sh", "-c", &script]).run(LIMIT).unwrap();
        match done.code() {
            0 => {
                good += 1;
                let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
                kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
                assert!(ends(pid), "{limit}");
            }
            1 => assert!(!done.err().is_empty() && !done.err().contains("panicked"), "{limit}: {done}"),
            _ => panic!("{limit}: {done}"),
        }
    }
    assert!(good > 0, "64 descriptors are enough");
}

#[test]
fn ports_lead_in_from_everywhere_and_clients_are_seen() {
    let test = "ports_lead_in_from_everywhere_and_clients_are_seen";
    let (lab, _) = lab!(ours "ports_lead_in_from_everywhere_and_clients_are_seen", ["ncat"]);
    let container = lab.container().unwrap();
    let none = ["-u", "9005", "-T", "none", "-U", "none"];
    let words =
        [&["--config-net", "-q", "-t", "9001-9003:9000-9002", "-t", "127.0.0.1/9010:9000"][..], &none]
            .concat();
    let _pasta = start(&lab, &container, &words);
    let who = "ncat -lk 9000 -c 'echo $NCAT_REMOTE_ADDR'";
    let _server = Running::server(container.cmd(["sh", "-c", who]), "tcp", 9000).unwrap();
    let ask = |from: Cmd| from.run(LIMIT).unwrap();
    let near = |at: &str, port: &str| ask(lab.host(["ncat", "--recv-only", "-w", "5", at, port]));
    let far = |at: &str, port: &str| ask(lab.world(["ncat", "--recv-only", "-w", "5", at, port]));
    // The world's own address, over both families.
    assert!(far(HOST4, "9001").out().contains(WORLD4), "{test}: {}", far(HOST4, "9001"));
    assert!(far(HOST6, "9001").out().contains(WORLD6), "{test}: {}", far(HOST6, "9001"));
    // By the shortcut the guest sees itself.
    assert!(near("127.0.0.1", "9001").out().contains(HOST4), "{}", near("127.0.0.1", "9001"));
    assert!(near("127.0.0.1", "9010").success());
    assert!(!far(HOST4, "9010").success(), "published on loopback alone");
    assert!(!far(HOST4, "9000").success(), "not published");
    // Datagrams, each of which is sent back.
    let peer = lab.program("slipway-lab-peer");
    let echo = Running::server(container.cmd([&peer, "serve", "0.0.0.0:9005"]), "udp", 9005);
    let _echo = echo.unwrap();
    let asked = lab.world([&peer, "udp-rr", &format!("{HOST4}:9005"), "1"]).run(LIMIT).unwrap();
    assert!(asked.success(), "from the world: {asked}");
    let asked = lab.host([&peer, "udp-rr", "127.0.0.1:9005", "1"]).run(LIMIT).unwrap();
    assert!(asked.success(), "by the shortcut: {asked}");
}

#[test]
fn auto_follows_those_who_listen_on_either_side() {
    let (lab, _) = lab!(ours "auto_follows_those_who_listen_on_either_side", ["ncat"]);
    let container = lab.container().unwrap();
    let _pasta = start(&lab, &container, &["--config-net", "-q"]);
    let within = container.cmd(["ncat", "-lk", "0.0.0.0", "7001", "-c", "echo within"]);
    let _within = Running::server(within, "tcp", 7001).unwrap();
    let outside = lab.host(["ncat", "-lk", "127.0.0.1", "7002", "-c", "echo outside"]);
    let _outside = Running::server(outside, "tcp", 7002).unwrap();
    let tries = |port: u16| {
        format!(
            "for i in $(seq 100); do ncat --recv-only -w 5 127.0.0.1 {port} 2>/dev/null && exit; sleep 0.1; done"
        )
    };
    let asked = lab.host(["sh", "-c", &tries(7001)]).run(LIMIT).unwrap();
    assert_eq!(asked.out(), "within\n", "{asked}");
    assert_eq!(shown(&container, &tries(7002)), "outside\n");
}

#[test]
fn names_are_asked_of_the_hosts_servers() {
    let (lab, _) = lab!(ours "names_are_asked_of_the_hosts_servers", ["dnsmasq", "busybox"]);
    let _dns = lab.dns().unwrap();
    let container = lab.container().unwrap();
    let words = [&PLAIN[..], &["--dns-forward", "169.254.1.1"]].concat();
    let _pasta = start(&lab, &container, &words);
    let answer = shown(&container, "busybox nslookup -type=a name.test 169.254.1.1");
    assert!(answer.contains(WORLD4), "{answer}");
}

/// Where nothing travels in packets there is no interface, and no device node is asked for.
#[test]
fn loopback_alone_takes_no_interface() {
    let (lab, _) = lab!(ours "loopback_alone_takes_no_interface", ["ncat"]);
    let container = lab.container().unwrap();
    let words =
        ["-q", "--splice-only", "--config-net", "-t", "7004", "-u", "none", "-T", "7005", "-U", "none"];
    let _pasta = start(&lab, &container, &words);
    assert_eq!(shown(&container, "ip -o link | wc -l").trim(), "1", "loopback");
    let within = container.cmd(["ncat", "-lk", "127.0.0.1", "7004", "-c", "echo within"]);
    let _within = Running::server(within, "tcp", 7004).unwrap();
    let outside = lab.host(["ncat", "-lk", "127.0.0.1", "7005", "-c", "echo outside"]);
    let _outside = Running::server(outside, "tcp", 7005).unwrap();
    let asked = lab.host(["ncat", "--recv-only", "-w", "5", "127.0.0.1", "7004"]).run(LIMIT).unwrap();
    assert_eq!(asked.out(), "within\n", "{asked}");
    assert_eq!(shown(&container, "ncat --recv-only -w 5 127.0.0.1 7005"), "outside\n");
}

/// What RootlessKit starts for Docker: addresses of its own, joined options, the process of its child.
#[test]
fn rootlesskits_words_make_its_network() {
    let (lab, _) = lab!(ours "rootlesskits_words_make_its_network", ["dnsmasq", "busybox", "ncat"]);
    std::fs::write(lab.dir().join("www/index.html"), "fetched\n").unwrap();
    let (_dns, _server) = (lab.dns().unwrap(), lab.http().unwrap());
    let container = lab.container().unwrap();
    let words = "--stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 --netmask=24 \
                 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only --tcp-ports=auto \
                 --udp-ports=auto --host-lo-to-ns-lo";
    let words: Vec<&str> = words.split_whitespace().collect();
    let (done, pid) = started(&lab, "pasta", &words, &[container.pid().to_string()]);
    let _pasta = Guarded(pid);
    assert!(done.success() && lives(pid), "{done}");
    let network = shown(&container, "ip -o -4 address show tap0; ip -4 route");
    assert!(network.contains("10.0.2.100/24") && network.contains("default via 10.0.2.2"), "{network}");
    let page = shown(&container, &format!("busybox wget -qO- http://{WORLD4}/index.html"));
    assert_eq!(page, "fetched\n");
    let answer = shown(&container, "busybox nslookup -type=a name.test 10.0.2.3");
    assert!(answer.contains(WORLD4), "{answer}");
    // A published port of Docker's listens in the namespace, also on its loopback alone.
    let inner = container.cmd(["ncat", "-lk", "127.0.0.1", "7003", "-c", "echo published"]);
    let _inner = Running::server(inner, "tcp", 7003).unwrap();
    let tries =
        "for i in $(seq 100); do ncat --recv-only -w 5 127.0.0.1 7003 2>/dev/null && exit; sleep 0.1; done";
    let asked = lab.host(["sh", "-c", tries]).run(LIMIT).unwrap();
    assert_eq!(asked.out(), "published\n", "{asked}");
}

#[test]
fn a_command_has_a_machine_of_its_own() {
    let (lab, _) = lab!(ours "a_command_has_a_machine_of_its_own", ["ping"]);
    let script = format!(
        "test $(id -u) = 0 && test $$ = 1 && ping -c 1 -W 5 {WORLD4} >/dev/null && hostname | grep -q ^pasta- && exit 7"
    );
    let run =
        |words: &[&str], script: &str| pasta(&lab, words).args(["sh", "-c", script]).run(LIMIT).unwrap();
    let done = run(&["--config-net"], &script);
    assert_eq!(done.code(), 7, "{done}");
    assert!(done.err().is_empty(), "{done}");
    let done = run(
        &["--config-net", "--no-pidns", "-H", "given"],
        "test $$ != 1 && test $(hostname) = given && kill -9 $$",
    );
    assert_eq!(done.code(), 137, "{done}");
    let done = pasta(&lab, &["--config-net", "/no/such/program"]).run(LIMIT).unwrap();
    assert!(!done.success() && done.err().contains("/no/such/program"), "{done}");
}

/// What DHCP tells a machine is what the host's resolv.conf says now.
#[test]
fn a_machine_is_told_the_hosts_nameservers_as_they_change() {
    let test = "a_machine_is_told_the_hosts_nameservers_as_they_change";
    let (lab, _) = lab!(ours "a_machine_is_told_the_hosts_nameservers_as_they_change", ["busybox"]);
    if !lab.by_root() {
        println!("SKIP {test}: only root opens a TAP in the container for it");
        return;
    }
    lab.set_resolv_conf("nameserver 192.0.2.53\nsearch first.test\n").unwrap();
    let socket = lab.home().join("machine");
    let words = ["--quiet", "-4", "-s", &socket.to_string_lossy(), "-t", "none", "-u", "none"];
    let (done, pid) = started(&lab, "passt", &words, &[]);
    let _passt = Guarded(pid);
    assert!(done.success() && lives(pid), "{done}");
    let container = lab.container().unwrap();
    let machine = Machine::attach(&container, &socket, None);
    let script = lab.home().join("told");
    std::fs::write(&script, "#!/bin/sh\n[ \"$1\" = bound ] && echo \"dns $dns search $search\"\nexit 0\n")
        .unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let lease = format!("busybox udhcpc -i vm0 -n -q -f -s {} 2>/dev/null", script.display());
    assert_eq!(shown(&container, &lease), "dns 192.0.2.53 search first.test\n");
    // One that the machine cannot reach has us in its place.
    for (text, told) in [
        (
            "nameserver 192.0.2.54\nnameserver 192.0.2.55\nsearch second.test\n",
            "dns 192.0.2.54 192.0.2.55 search second.test\n",
        ),
        ("nameserver 127.0.0.53\n", &format!("dns {WORLD4} search \n")),
    ] {
        lab.set_resolv_conf(text).unwrap();
        let until = now() + Duration::from_secs(5);
        let mut heard = shown(&container, &lease);
        while heard != told && now() < until {
            heard = shown(&container, &lease);
        }
        assert_eq!(heard, told);
    }
    machine.hang_up();
}

/// The frames of a capture.
fn frames(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    assert_eq!(file[..4], 0xa1b2_c3d4_u32.to_ne_bytes());
    let mut rest = &file[24..];
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(rest.get(8..12)?.try_into().unwrap()) as usize;
        let (frame, behind) = rest[16..].split_at(len);
        rest = behind;
        Some(frame)
    })
}

/// A DHCPACK: UDP from port 67, the magic cookie, option 53.
fn is_lease(frame: &[u8]) -> bool {
    let ack = [53, 1, 5];
    frame.len() > 282 && frame[34..36] == [0, 67] && frame[282..].windows(3).any(|option| option == ack)
}

/// Whoever asks why something does not work finds where packets go, and what became of them.
#[test]
fn a_trace_says_what_a_start_and_a_flow_are() {
    let (lab, _) = lab!(ours "a_trace_says_what_a_start_and_a_flow_are", ["busybox", "ping"]);
    std::fs::write(lab.dir().join("www/index.html"), "fetched\n").unwrap();
    let _server = lab.http().unwrap();
    let container = lab.container().unwrap();
    let log = lab.home().join("trace");
    let words = ["--config-net", "--no-map-gw", "--trace", "-l", &log.to_string_lossy(), "-t", "9001:80"];
    let words =
        [&words[..], &["-u", "none", "-T", "none", "-U", "none", "--dns-forward", "169.254.1.1"]].concat();
    let (done, pid) = started(&lab, "pasta", &words, &[container.pid().to_string()]);
    let _pasta = Guarded(pid);
    assert!(done.success() && lives(pid), "{done}");
    let page = shown(&container, &format!("busybox wget -qO- http://{WORLD4}/index.html"));
    assert_eq!(page, "fetched\n");
    let text = || std::fs::read_to_string(&log).unwrap();
    let until = now() + Duration::from_secs(5);
    while !text().contains(": ends") && now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = text();
    for line in [
        &*format!("IPv4: veth0 is like veth0, addresses {HOST4}/24, gateway {WORLD4}, "),
        "our MAC address is 9a:55:9a:55:9a:55, the MTU 65520",
        "IPv4: the host's loopback is at nowhere, the host at none, names are answered at 169.254.1.1 (",
        "carried: TCP, UDP, echo; answered: ",
        "the host's loopback reaches the guest's own address by the shortcut",
        "TCP [*]:9001  =>  80",
        &*format!("shut in; the process that stays is {pid}"),
        &*format!(": TCP from the guest to {WORLD4}:80"),
        ": ends",
    ] {
        assert!(text.contains(line), "no {line:?}: {text}");
    }
}

#[test]
fn a_machine_configures_itself_and_another_may_come() {
    let test = "a_machine_configures_itself_and_another_may_come";
    let (lab, _) = lab!(ours "a_machine_configures_itself_and_another_may_come", ["busybox", "ncat", "ping"]);
    if !lab.by_root() {
        println!("SKIP {test}: only root opens a TAP in the container for it");
        return;
    }
    std::fs::write(lab.dir().join("www/index.html"), "fetched\n").unwrap();
    let _server = lab.http().unwrap();
    let socket = lab.home().join("machine");
    let path = socket.to_string_lossy().into_owned();
    let pcap = lab.home().join("pcap");
    let recorded = pcap.to_string_lossy().into_owned();
    let words = ["--quiet", "--no-map-gw", "-s", &path, "-t", "8080:80", "--pcap", &recorded];
    let (done, pid) = started(&lab, "passt", &words, &[]);
    let passt = Guarded(pid);
    assert!(done.success() && done.err().is_empty() && lives(passt.0), "{done}");
    // A path where somebody answers is refused, and this one goes on.
    let (again, _) = started(&lab, "passt", &["--quiet", "-s", &path], &[]);
    assert_eq!((again.code(), again.err()), (1, format!("Socket path {path} already in use\n")), "{again}");
    for round in 0..2 {
        let container = lab.container().unwrap();
        let machine = Machine::attach(&container, &socket, None);
        // One that comes meanwhile is sent away.
        let mut second = UnixStream::connect(&socket).unwrap();
        assert_eq!(second.read(&mut [0; 1]).unwrap(), 0, "round {round}");
        let lease = "busybox udhcpc -i vm0 -n -q -f -s /bin/true 2>&1 | tail -1";
        let leased = shown(&container, lease);
        assert!(leased.contains(HOST4), "round {round}: {leased}");
        let configure = format!("ip address add {HOST4}/24 dev vm0; ip route add default via {WORLD4}");
        shown(&container, &configure);
        let page = shown(
            &container,
            &format!("busybox wget -qO- http://{WORLD4}/index.html; ping -c 1 -W 5 {WORLD4}"),
        );
        assert!(page.starts_with("fetched\n") && page.contains(" 0% packet loss"), "round {round}: {page}");
        let who = container.cmd(["ncat", "-lk", "0.0.0.0", "80", "-c", "echo of the machine"]);
        let _who = Running::server(who, "tcp", 80).unwrap();
        let asked = lab.world(["ncat", "--recv-only", "-w", "5", HOST4, "8080"]).run(LIMIT).unwrap();
        assert_eq!(asked.out(), "of the machine\n", "round {round}: {asked}");
        machine.hang_up();
    }
    assert!(lives(passt.0));
    // The frames of both are in one file: a lease was given to each.
    let acknowledged = frames(&std::fs::read(&pcap).unwrap()).filter(|frame| is_lease(frame)).count();
    assert_eq!(acknowledged, 2);
    // A length that no frame has ends the connection, not the process.
    let mut hostile = UnixStream::connect(&socket).unwrap();
    hostile.write_all(&u32::MAX.to_be_bytes()).unwrap();
    assert_eq!(hostile.read(&mut [0; 64]).map_or(0, |count| count % 64), 0);
    assert!(lives(passt.0));
}

/// A connection to one that serves machines which share their memory, as soon as there is one and it has come to the
/// end of the one before: whoever is hung up on without a word was one too many.
pub(super) fn connected(socket: &Path) -> UnixStream {
    let until = now() + LIMIT;
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            if Front::offered(&stream).is_ok() {
                return stream;
            }
        }
        assert!(now() < until, "nobody is served");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A machine whose memory is shared: a container whose TAP is a card with rings.
pub(super) fn card(
    container: &Container,
    stream: UnixStream,
    wish: Wish,
) -> (std::thread::JoinHandle<()>, UnixStream) {
    let tap = container.within(|| Tap::open("vm0").map_err(std::io::Error::other)).unwrap();
    shown(container, "ip link set lo up; ip link set vm0 mtu 65520 up");
    let held = stream.try_clone().unwrap();
    let carry = move || {
        let mut tap = tap;
        let mut front = pump::card(&tap, stream, wish).unwrap();
        drop(pump::rings(&mut tap, &mut front));
    };
    (std::thread::spawn(carry), held)
}

#[test]
fn a_machine_that_shares_its_memory_has_the_network_both_ways() {
    let test = "a_machine_that_shares_its_memory_has_the_network_both_ways";
    let (lab, _) =
        lab!(ours "a_machine_that_shares_its_memory_has_the_network_both_ways", ["busybox", "ncat", "ping"]);
    if !lab.by_root() {
        println!("SKIP {test}: only root opens a TAP in the container for it");
        return;
    }
    let taken = lab.dir().join("taken");
    let sink = format!("exec ncat -lk 9000 --recv-only >{}", taken.display());
    let _sink = Running::server(lab.world(["sh", "-c", &sink]), "tcp", 9000).unwrap();
    let source = lab.world(["ncat", "-lk", "9001", "-c", "head -c 30000000 /dev/zero"]);
    let _source = Running::server(source, "tcp", 9001).unwrap();
    let socket = lab.home().join("machine");
    let path = socket.to_string_lossy().into_owned();
    let words = ["--vhost-user", "--quiet", "--no-map-gw", "-s", &path, "-t", "8080:80"];
    let (done, pid) = started(&lab, "passt", &words, &[]);
    let passt = Guarded(pid);
    assert!(done.success() && done.err().is_empty() && lives(passt.0), "{done}");
    // With all that can be left to the other side, and with nothing.
    for (wish, sum) in [(Wish::all(), 30_000_000), (Wish::nothing(), 60_000_000)] {
        let container = lab.container().unwrap();
        let (pump, stream) = card(&container, connected(&socket), wish);
        let mut second = UnixStream::connect(&socket).unwrap();
        assert_eq!(second.read(&mut [0; 1]).unwrap(), 0, "one that comes meanwhile is sent away");
        let leased = shown(&container, "busybox udhcpc -i vm0 -n -q -f -s /bin/true 2>&1 | tail -1");
        assert!(leased.contains(HOST4), "{wish:?}: {leased}");
        shown(&container, &format!("ip address add {HOST4}/24 dev vm0; ip route add default via {WORLD4}"));
        let pinged = shown(&container, &format!("ping -c 1 -W 5 {WORLD4}"));
        assert!(pinged.contains(" 0% packet loss"), "{wish:?}: {pinged}");
        shown(&container, &format!("head -c 30000000 /dev/zero | ncat --send-only {WORLD4} 9000"));
        let until = now() + LIMIT;
        while std::fs::metadata(&taken).unwrap().len() < sum && now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(std::fs::metadata(&taken).unwrap().len(), sum, "{wish:?}");
        let fetched = format!("ncat --recv-only {WORLD4} 9001 | wc -c");
        assert_eq!(shown(&container, &fetched).trim(), "30000000", "{wish:?}");
        let who = container.cmd(["ncat", "-lk", "0.0.0.0", "80", "-c", "echo of the machine"]);
        let _who = Running::server(who, "tcp", 80).unwrap();
        let asked = lab.world(["ncat", "--recv-only", "-w", "5", HOST4, "8080"]).run(LIMIT).unwrap();
        assert_eq!(asked.out(), "of the machine\n", "{wish:?}: {asked}");
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        pump.join().unwrap();
    }
    assert!(lives(passt.0));
}
