//! Podman as root, with bridge networks: the `netavark` and `aardvark-dns` roles, each with the other half ours or
//! Debian's.
//!
//! Podman runs on a machine of its own (network and mount namespace) with the `vfs` driver, without control groups,
//! and with a directory of helper programs that holds exactly the pair under test.

use std::path::{Path, PathBuf};

use slipway_lab::{Cmd, LIMIT, Machine, Running, built, machine, skip};

const PROGRAMS: &[&str] =
    &["podman", "crun", "conmon", "busybox", "getent", "host", "dnsmasq", "nft", "curl"];
const DEBIAN: &str = "/usr/lib/podman";

/// Podman and the machine it runs on.
struct Engine {
    machine: Machine,
    config: PathBuf,
}

/// Which of the two programs is ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pair {
    /// Both.
    Ours,
    /// The DNS server, driven by Debian's netavark.
    OurDns,
    /// netavark, which drives Debian's DNS server.
    OurNetavark,
}

impl Engine {
    /// Makes it; `None` after saying why the test is skipped.
    fn new(test: &str, pair: Pair) -> Option<Self> {
        let debian = |name: &str| {
            let path = PathBuf::from(DEBIAN).join(name);
            if path.is_file() { Ok(path) } else { Err(format!("{} is not installed", path.display())) }
        };
        let (dns, netavark) = (
            || built("SLIPWAY_AARDVARK_BINARY", "aardvark-dns"),
            || built("SLIPWAY_NETAVARK_BINARY", "netavark"),
        );
        let (netavark, dns) = match pair {
            Pair::Ours => (netavark(), dns()),
            Pair::OurDns => (debian("netavark"), dns()),
            Pair::OurNetavark => (netavark(), debian("aardvark-dns")),
        };
        let (netavark, dns) = match netavark.and_then(|netavark| Ok((netavark, dns?))) {
            Ok(programs) => programs,
            Err(reason) => return skip(test, &reason),
        };
        let machine = machine(test, PROGRAMS)?;
        let config = machine.dir().join("containers");
        let engine = Self { machine, config };
        engine.lay_out(&netavark, &dns);
        Some(engine)
    }

    fn lay_out(&self, netavark: &Path, dns: &Path) {
        let (config, home) = (self.config.display(), self.machine.dir().display());
        for dir in ["helpers", "networks"] {
            std::fs::create_dir_all(self.config.join(dir)).unwrap();
        }
        for (name, program) in [("netavark", netavark), ("aardvark-dns", dns)] {
            std::fs::copy(program, self.config.join("helpers").join(name)).unwrap();
        }
        // Limits that need no right to raise them.
        let containers = format!(
            "[containers]\ncgroups = \"disabled\"\nlog_driver = \"k8s-file\"\n\
             default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
             helper_binaries_dir = [\"{config}/helpers\"]\n\
             [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"{config}/networks\"\n"
        );
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\nrunroot = \"{home}/runroot\"\ngraphroot = \"{home}/graphroot\"\n"
        );
        std::fs::write(self.config.join("containers.conf"), containers).unwrap();
        std::fs::write(self.config.join("storage.conf"), storage).unwrap();
        std::fs::write(self.machine.resolv_conf(), "nameserver 198.51.100.53\n").unwrap();
        let script = "ip address add 198.51.100.53/32 dev lo; mount -t cgroup2 cgroup2 /sys/fs/cgroup";
        let output = self.machine.sh(script).unwrap();
        assert!(output.success(), "{output}");
        let image = crate::image::tar(self.machine.dir(), &["getent", "host"]);
        self.podman(&["import", &image.to_string_lossy(), "localhost/bb"]);
    }

    fn cmd(&self, words: &[&str]) -> Cmd {
        self.machine
            .cmd(["podman"])
            .args(words)
            .env("CONTAINERS_CONF", self.config.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.config.join("storage.conf"))
    }

    /// Runs podman, demands success, gives what it printed.
    fn podman(&self, words: &[&str]) -> String {
        self.cmd(words).ok(LIMIT).unwrap().out()
    }

    /// A container that sleeps.
    fn sleeper(&self, name: &str, options: &[&str]) {
        self.podman(&[&["run", "-d", "--name", name], options, &["localhost/bb", "sleep", "120"]].concat());
    }

    /// A container that serves a page on port 80.
    fn server(&self, name: &str, options: &[&str]) {
        let script = format!("mkdir /w; echo page of {name} > /w/index.html; exec httpd -f -p 80 -h /w");
        self.podman(
            &[&["run", "-d", "--name", name], options, &["localhost/bb", "sh", "-c", &script]].concat(),
        );
    }

    /// A shell script in a container.
    fn exec(&self, name: &str, script: &str) -> slipway_lab::Output {
        self.cmd(&["exec", name, "sh", "-c", script]).run(LIMIT).unwrap()
    }

    /// Fetches a page from the machine itself; its server may need a moment.
    fn fetch(&self, from: &str) -> String {
        let script =
            format!("for i in $(seq 20); do curl -sgm 2 http://{from}/index.html && break; sleep 0.1; done");
        self.machine.sh(&script).unwrap().out()
    }

    /// A resolver for names that are no container's.
    fn dns(&self) -> Running {
        let words =
            ["dnsmasq", "--no-daemon", "--no-resolv", "--no-hosts", "--pid-file=", "--bind-interfaces"];
        let options =
            ["--listen-address=198.51.100.53", "--host-record=name.test,198.51.100.80", "--local=/test/"];
        Running::server(self.machine.cmd(words).args(options), "udp", 53).unwrap()
    }

    /// What is left on the machine when no container runs.
    fn is_clean(&self) {
        let links = self.machine.sh("ip -o link").unwrap().out();
        assert_eq!(links.lines().count(), 1, "only lo: {links}");
        let pids = self.machine.sh("cat /run/containers/networks/aardvark-dns/aardvark.pid").unwrap();
        assert!(!pids.success(), "{pids}");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Monitors and the DNS server left the process group of the command that started them.
        let _ = self.cmd(&["rm", "-f", "-a", "-t", "0"]).run(LIMIT);
        let _ = self
            .machine
            .sh("kill $(cat /run/containers/networks/aardvark-dns/aardvark.pid 2>/dev/null) 2>/dev/null");
    }
}

/// Makes the network called "one", which has both families.
const NETWORK_ONE: [&str; 8] =
    ["network", "create", "--subnet", "10.89.7.0/24", "--subnet", "fd89:7::/64", "--ipv6", "one"];

/// Names in every direction: own, other's, alias, both families, reverse, the world's, and none of a network beside.
fn names(engine: &Engine, pair: Pair) {
    let _dns = engine.dns();
    engine.podman(&NETWORK_ONE);
    engine.podman(&["network", "create", "--subnet", "10.89.8.0/24", "two"]);
    engine.podman(&["network", "create", "--internal", "--subnet", "10.89.9.0/24", "inside"]);
    engine.sleeper("both", &["--network", "one,two", "--network-alias", "shared"]);
    engine.sleeper("first", &["--network", "one"]);
    engine.sleeper("second", &["--network", "two"]);
    engine.sleeper("inner", &["--network", "inside"]);
    let found = |from: &str, name: &str| -> Vec<String> {
        let shown = engine.exec(from, &format!("getent ahosts {name}")).out();
        let stream = shown.lines().filter(|line| line.contains("STREAM"));
        let mut found: Vec<_> = stream.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
        found.sort();
        found
    };
    assert_eq!(found("first", "both"), ["10.89.7.2", "fd89:7::2"]);
    assert_eq!(found("first", "shared"), ["10.89.7.2", "fd89:7::2"]);
    assert_eq!(found("first", "both.dns.podman"), ["10.89.7.2", "fd89:7::2"]);
    assert_eq!(found("second", "both"), ["10.89.8.2"]);
    assert_eq!(found("both", "first"), ["10.89.7.3", "fd89:7::3"]);
    assert_eq!(found("both", "second"), ["10.89.8.3"]);
    assert_eq!(found("first", "second"), [""; 0]);
    assert_eq!(found("inner", "inner"), ["10.89.9.2"]);
    assert_eq!(found("first", "name.test"), ["198.51.100.80"]);
    if pair == Pair::Ours {
        // Its resolv.conf may name the machine's own resolver, too; here the network's is asked. Debian's 1.4 does
        // not know the mark of an internal network.
        let shown = engine.exec("inner", "host -t A name.test 10.89.9.1").out();
        assert!(shown.contains("NXDOMAIN"), "{shown}");
    }
    for address in ["10.89.7.2", "fd89:7::2"] {
        let shown = engine.exec("first", &format!("host {address}")).out();
        assert!(shown.contains("pointer both."), "{shown}");
    }
    let reached = engine.exec("first", "ping -c1 -W5 both && ping -6 -c1 -W5 both");
    assert!(reached.success(), "{reached}");
    // A name that comes later and goes again; the reload is not acknowledged.
    engine.sleeper("late", &["--network", "two"]);
    let wait = "for i in $(seq 50); do getent hosts late && exit 0; sleep 0.1; done; exit 1";
    assert!(engine.exec("second", wait).success());
    engine.podman(&["rm", "-f", "-t", "0", "late"]);
    let wait = "for i in $(seq 50); do getent hosts late || exit 0; sleep 0.1; done; exit 1";
    assert!(engine.exec("second", wait).success());
    engine.podman(&["rm", "-f", "-t", "0", "both", "first", "second", "inner"]);
    engine.is_clean();
}

#[test]
fn names_with_debians_netavark() {
    let Some(engine) = Engine::new("names_with_debians_netavark", Pair::OurDns) else { return };
    names(&engine, Pair::OurDns);
}

#[test]
fn names_with_both() {
    let Some(engine) = Engine::new("names_with_both", Pair::Ours) else { return };
    names(&engine, Pair::Ours);
}

#[test]
fn names_with_debians_aardvark() {
    let Some(engine) = Engine::new("names_with_debians_aardvark", Pair::OurNetavark) else { return };
    names(&engine, Pair::OurNetavark);
}

#[test]
fn published_ports_are_reached_and_taken_back() {
    let Some(engine) = Engine::new("published_ports_are_reached_and_taken_back", Pair::Ours) else { return };
    engine.podman(&NETWORK_ONE);
    let ports = ["-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "9000-9009:80-89"];
    engine.server("web", &[&["--network", "one"], &ports[..]].concat());
    for from in
        ["127.0.0.1:8080", "198.51.100.53:8080", "10.89.7.1:8080", "[fd89:7::1]:8080", "127.0.0.1:8081"]
    {
        assert_eq!(engine.fetch(from), "page of web\n", "{from}");
    }
    assert_eq!(engine.fetch("127.0.0.1:9000"), "page of web\n");
    // A neighbour, by name and through the published port.
    engine.sleeper("client", &["--network", "one"]);
    for from in ["web", "10.89.7.1:8080"] {
        let page = engine.exec("client", &format!("wget -qO- http://{from}/index.html")).out();
        assert_eq!(page, "page of web\n", "{from}");
    }
    engine.podman(&["rm", "-f", "-t", "0", "web"]);
    assert_eq!(engine.machine.sh("curl -sm 2 http://198.51.100.53:8080/").unwrap().out(), "");
    let rules = engine.machine.sh("nft list ruleset").unwrap().out();
    assert!(!rules.contains("8080"), "{rules}");
    engine.podman(&["rm", "-f", "-t", "0", "client"]);
    engine.is_clean();
}

#[test]
fn networks_come_and_go_under_a_running_container() {
    let Some(engine) = Engine::new("networks_come_and_go_under_a_running_container", Pair::Ours) else {
        return;
    };
    engine.podman(&["network", "create", "--subnet", "10.89.7.0/24", "one"]);
    engine.podman(&["network", "create", "--subnet", "10.89.8.0/24", "two"]);
    engine.server("web", &["--network", "one:ip=10.89.7.20,mac=02:00:00:00:00:20", "-p", "8080:80"]);
    let shown = engine.exec("web", "ip address show eth0").out();
    assert!(shown.contains("10.89.7.20/24") && shown.contains("02:00:00:00:00:20"), "{shown}");
    engine.sleeper("client", &["--network", "two"]);
    engine.podman(&["network", "connect", "two", "web"]);
    let page = engine
        .exec("client", "for i in 1 2 3 4 5; do wget -qO- http://web/index.html && break; sleep 0.2; done");
    assert_eq!(page.out(), "page of web\n", "{page}");
    engine.podman(&["network", "disconnect", "two", "web"]);
    assert!(!engine.exec("web", "ip address show eth1").success());
    assert_eq!(engine.fetch("198.51.100.53:8080"), "page of web\n");
    // The rules vanish under it, and the administrator asks for them again.
    engine.machine.sh("nft delete table inet netavark || nft flush ruleset").unwrap();
    engine.podman(&["network", "reload", "web"]);
    let shown = engine.exec("web", "ip address show eth0").out();
    assert!(shown.contains("10.89.7.20/24") && shown.contains("02:00:00:00:00:20"), "{shown}");
    assert_eq!(engine.fetch("198.51.100.53:8080"), "page of web\n");
    engine.podman(&["rm", "-f", "-t", "0", "web", "client"]);
    engine.is_clean();
}

#[test]
fn an_internal_network_reaches_nobody_outside() {
    let Some(engine) = Engine::new("an_internal_network_reaches_nobody_outside", Pair::Ours) else { return };
    engine.podman(&["network", "create", "--internal", "--subnet", "10.89.9.0/24", "inside"]);
    engine.sleeper("one", &["--network", "inside"]);
    engine.sleeper("two", &["--network", "inside"]);
    assert!(engine.exec("one", "ping -c1 -W5 two").success());
    assert!(!engine.exec("one", "ip route").out().contains("default"));
    assert!(!engine.exec("one", "ping -c1 -W1 198.51.100.53").success());
    engine.podman(&["rm", "-f", "-t", "0", "one", "two"]);
    engine.is_clean();
}
