//! `gvproxy`: machines on a network of their own, by the command lines that launchers use.
//!
//! The words of its command line and its life are in `compat_gvproxy`, sockets by SSH in `ssh`; here is what the
//! network does.

mod clients;
mod ipv6;

use super::machine::Machine;
use nix::sys::signal::Signal;
use slipway_lab::{Cmd, Container, LIMIT, Lab, LabOptions, Running, WORLD4, built, missing, skip};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// The MAC address that hypervisors give the first machine.
pub(super) const FIRST: &str = "5a:94:ef:e4:0c:ee";

/// Takes what DHCP says, and tells it.
const LEASE: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add $ip/$mask broadcast + dev $interface
ip link set $interface mtu $mtu
ip route add default via $router
echo "$ip/$mask by $router, names $dns in $search, mtu $mtu, $lease s"
"#;

/// A lab with gvproxy and these programs; `None` after saying why the test is skipped.
pub(super) fn lab(test: &str, programs: &[&str]) -> Option<Lab> {
    let made = built("SLIPWAY_GVPROXY_BINARY", "slipway-gvproxy").and_then(|program| {
        if let Some(program) = missing(programs) {
            return Err(format!("{program} is not installed (cargo xtask deps)"));
        }
        let options = LabOptions { programs: vec![("gvproxy".to_owned(), program)], ..LabOptions::default() };
        let lab = Lab::new(&options).map_err(|error| error.to_string())?;
        if lab.by_root() { Ok(lab) } else { Err("only root opens a TAP in the container for it".to_owned()) }
    });
    made.map_or_else(|reason| skip(test, &reason), Some)
}

/// A gvproxy at work on the lab's host.
pub(super) struct Network {
    pub(super) process: Running,
    socket: PathBuf,
}

impl Network {
    /// Starts with the words that Podman uses for QEMU, and these.
    pub(super) fn start(lab: &Lab, words: &[&str]) -> Self {
        let socket = lab.home().join("qemu.sock");
        let address = format!("unix://{}", socket.display());
        let line = lab.host([&lab.program("gvproxy"), "-mtu", "1500", "-listen-qemu", &address]).args(words);
        let mut process = line.start().unwrap();
        process.until(LIMIT, |_| socket.exists()).unwrap();
        Self { process, socket }
    }

    pub(super) fn ends(mut self) {
        let output = self.process.finish(LIMIT).unwrap().expect("it ends");
        assert_eq!(output.code(), 0, "{output}");
        assert!(!self.socket.exists());
    }
}

/// A machine that has asked for its address; what it was told.
pub(super) fn machine(lab: &Lab, network: &Network, mac: Option<&str>) -> (Container, Machine, String) {
    let container = lab.container().unwrap();
    let machine = Machine::attach(&container, &network.socket, mac);
    let script = lab.home().join("lease");
    std::fs::write(&script, LEASE).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let asked =
        container.sh(&format!("busybox udhcpc -i vm0 -n -q -f -t 5 -s {} 2>&1", script.display())).unwrap();
    (container, machine, asked.out())
}

fn shown(container: &Container, script: &str) -> String {
    container.sh(script).unwrap().all()
}

fn ncat(lab: &Lab, port: &str) -> Cmd {
    lab.host(["ncat", "--recv-only", "-w", "5", "127.0.0.1", port])
}

#[test]
fn a_machine_is_online_by_podmans_command_line() {
    let test = "a_machine_is_online_by_podmans_command_line";
    let Some(lab) = lab(test, &["busybox", "ncat", "ping", "dnsmasq"]) else { return };
    std::fs::write(lab.dir().join("www/index.html"), "fetched\n").unwrap();
    let (_http, _dns) = (lab.http().unwrap(), lab.dns().unwrap());
    let at = |name: &str| lab.home().join(name).to_string_lossy().into_owned();
    let network =
        Network::start(&lab, &["-ssh-port", "41117", "-pid-file", &at("pid"), "-log-file", &at("log")]);
    let pid = std::fs::read_to_string(at("pid")).unwrap();
    assert_eq!(pid, network.process.pid().to_string());
    let (container, machine, lease) = machine(&lab, &network, Some(FIRST));
    let told = "192.168.127.2/24 by 192.168.127.1, names 192.168.127.1 in";
    assert!(lease.contains(told) && lease.contains("mtu 1500, 3600 s"), "{lease}");
    let name = |name: &str| shown(&container, &format!("busybox nslookup -type=a {name} 192.168.127.1"));
    assert!(name("gateway.containers.internal").contains("Address: 192.168.127.1\n"));
    assert!(name("HOST.docker.internal").contains("Address: 192.168.127.254\n"));
    assert!(name("world.test").contains(&format!("Address: {WORLD4}\n")), "{}", name("world.test"));
    let page = shown(&container, &format!("busybox wget -qO- http://{WORLD4}/index.html"));
    assert_eq!(page, "fetched\n");
    let pings = shown(&container, "ping -c 1 -W 5 192.168.127.1; ping -c 1 -W 5 192.168.127.254");
    assert_eq!(pings.matches(" 0% packet loss").count(), 2, "{pings}");
    // The host's loopback is at its alias, and nowhere else.
    let service = lab.host(["ncat", "-lk", "127.0.0.1", "7007", "-c", "echo of the host"]);
    let _service = Running::server(service, "tcp", 7007).unwrap();
    let reach = |to: &str| shown(&container, &format!("ncat --recv-only -w 2 {to} 7007 2>&1"));
    assert_eq!(reach("192.168.127.254"), "of the host\n");
    assert!(reach("192.168.127.1").contains("refused"), "{}", reach("192.168.127.1"));
    let sshd = container.cmd(["ncat", "-lk", "0.0.0.0", "22", "-c", "echo of the machine"]);
    let _sshd = Running::server(sshd, "tcp", 22).unwrap();
    let asked = ncat(&lab, "41117").run(LIMIT).unwrap();
    assert_eq!(asked.out(), "of the machine\n", "{asked}");
    machine.hang_up();
    network.ends();
    assert!(!PathBuf::from(at("pid")).exists());
    let log = std::fs::read_to_string(at("log")).unwrap();
    assert!(log.contains("level=error msg=\"gvproxy exiting: cannot receive packets from @"), "{log}");
}

#[test]
fn machines_of_one_network_reach_each_other() {
    let test = "machines_of_one_network_reach_each_other";
    let Some(lab) = lab(test, &["busybox", "ncat", "ping"]) else { return };
    let network = Network::start(&lab, &["-ssh-port", "-1"]);
    let (first, one, lease) = machine(&lab, &network, Some(FIRST));
    assert!(lease.contains("192.168.127.2/24"), "{lease}");
    let (second, two, lease) = machine(&lab, &network, None);
    assert!(lease.contains("192.168.127.3/24"), "{lease}");
    let ping = shown(&second, "ping -c 1 -W 5 192.168.127.2");
    assert!(ping.contains(" 0% packet loss"), "{ping}");
    let service = first.cmd(["ncat", "-lk", "0.0.0.0", "80", "-c", "echo of the first"]);
    let _service = Running::server(service, "tcp", 80).unwrap();
    let asked = shown(&second, "ncat --recv-only -w 5 192.168.127.2 80");
    assert_eq!(asked, "of the first\n");
    // One that goes leaves the other alone, and the network; one that comes again has its address.
    two.hang_up();
    let ping = shown(&first, "ping -c 1 -W 5 192.168.127.1");
    assert!(ping.contains(" 0% packet loss"), "{ping}");
    let (third, three, lease) = machine(&lab, &network, None);
    assert!(lease.contains("192.168.127."), "{lease}");
    let ping = shown(&third, "ping -c 1 -W 5 192.168.127.2");
    assert!(ping.contains(" 0% packet loss"), "{ping}");
    one.hang_up();
    three.hang_up();
    network.ends();
}

#[test]
fn a_signal_ends_it_in_the_middle_of_a_transfer() {
    let test = "a_signal_ends_it_in_the_middle_of_a_transfer";
    let Some(lab) = lab(test, &["busybox", "ncat"]) else { return };
    let source = lab.world(["ncat", "-lk", WORLD4, "9000", "-c", "cat /dev/zero"]);
    let _source = Running::server(source, "tcp", 9000).unwrap();
    let network = Network::start(&lab, &["-ssh-port", "-1", "-stay"]);
    let (container, _machine, lease) = machine(&lab, &network, Some(FIRST));
    assert!(lease.contains("192.168.127.2/24"), "{lease}");
    let script = format!(
        "ncat --recv-only {WORLD4} 9000 | head -c 3000000 | wc -c; ncat --recv-only {WORLD4} 9000 >/dev/null"
    );
    let mut transfer = container.cmd(["sh", "-c", &script]).start().unwrap();
    transfer.until(LIMIT, |running| running.stdout().contains("3000000")).unwrap();
    network.process.signal(Signal::SIGTERM);
    network.ends();
}

/// The process that takes orders for the one with this number: it has the same words.
fn control_process(pid: u32) -> u32 {
    let words = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let wanted = words(pid);
    let all = std::fs::read_dir("/proc").unwrap();
    let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // The one that holds keys is its child.
    numbers.filter(|other| *other != pid && words(*other) == wanted).min().expect("there is none")
}

#[test]
fn orders_are_taken_from_machines_and_the_host_and_packets_flow_without() {
    let test = "orders_are_taken_from_machines_and_the_host_and_packets_flow_without";
    let Some(lab) = lab(test, &["busybox", "ncat", "ping", "curl"]) else { return };
    let api = lab.home().join("api.sock");
    let address = format!("unix://{}", api.display());
    let network = Network::start(&lab, &["-ssh-port", "-1", "-listen", &address]);
    let (container, machine, _) = machine(&lab, &network, Some(FIRST));
    let socket = api.to_string_lossy().into_owned();
    let curl = |path: &str| {
        let url = format!("http://gvproxy{path}");
        lab.host(["curl", "-sS", "--max-time", "20", "--unix-socket", &socket, &url])
            .run(LIMIT)
            .unwrap()
            .all()
    };
    let leases = curl("/leases");
    assert!(leases.contains(&format!("\"192.168.127.2\":\"{FIRST}\"")), "{leases}");
    assert!(curl("/cam").contains(FIRST));
    // As Podman does within a machine.
    let post = |path: &str, body: &str| {
        let url = format!("http://192.168.127.1/services/forwarder/{path}");
        shown(&container, &format!("curl -sS --max-time 20 -o - -w '%{{http_code}}' -d '{body}' {url}"))
    };
    assert_eq!(post("expose", r#"{"local":":8080","remote":":80","protocol":"tcp"}"#), "200");
    let twice = post("expose", r#"{"local":":8080","remote":":80","protocol":"tcp"}"#);
    assert_eq!(twice, "proxy already running for tcp on :8080\n500");
    let all = curl("/services/forwarder/all");
    assert!(all.contains(r#"{"local":":8080","remote":"192.168.127.2:80","protocol":"tcp"}"#), "{all}");
    let web = container.cmd(["ncat", "-lk", "0.0.0.0", "80", "-c", "echo of the machine"]);
    let _web = Running::server(web, "tcp", 80).unwrap();
    assert_eq!(ncat(&lab, "8080").run(LIMIT).unwrap().out(), "of the machine\n");
    let control = control_process(network.process.pid());
    let killed = lab.host(["kill", "-KILL", &control.to_string()]).run(LIMIT).unwrap();
    assert_eq!(killed.code(), 0, "{killed}");
    assert_eq!(ncat(&lab, "8080").run(LIMIT).unwrap().out(), "of the machine\n");
    let ping = shown(&container, "ping -c 1 -W 5 192.168.127.1");
    assert!(ping.contains(" 0% packet loss"), "{ping}");
    machine.hang_up();
    network.ends();
    assert!(!api.exists());
}
