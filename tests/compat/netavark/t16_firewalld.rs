//! The driver firewalld, with a real one on a bus of its own: names, ports, the host's loopback, and what a reload
//! leaves of them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;
use slipway_lab::{LIMIT, Namespace, Running, now};

use crate::place::Host;
use crate::request::{Join, publish, request};
use crate::t06_dns::{asked, ended};
use crate::t13_others::{greeted, greeting, loopback_by, neighbour};
use crate::t14_own_port::used;

/// How long a daemon in Python, or what waits for it, may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who is root may be and ask whom he likes.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <auth>EXTERNAL</auth>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>"#;

/// A machine with firewalld, as Debian configures it: what is not let in, stays out.
pub(crate) struct Guarded {
    pub(crate) host: Host,
    daemon: Running,
    _bus: Running,
}

impl Guarded {
    pub(crate) fn fixture(test: &str) -> Option<Self> {
        let programs = ["dig", "dbus-daemon", "firewalld", "firewall-cmd"];
        let mut host = Host::fixture(test, &programs)?.with_dns(test)?;
        if !host.is_ours() {
            println!("SKIP {test}: the original does otherwise");
            return None;
        }
        host.environment = vec![
            ("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/dbus/system_bus_socket".to_owned()),
            ("NETAVARK_FW", "firewalld".to_owned()),
        ];
        let file = |name: &str| host.machine.dir().join(name).to_string_lossy().into_owned();
        std::fs::create_dir(file("firewalld")).unwrap();
        std::fs::write(file("bus.conf"), BUS).unwrap();
        assert!(host.machine.sh("mkdir /run/dbus").unwrap().success());
        let option = format!("--config-file={}", file("bus.conf"));
        let mut bus = host.machine.cmd(["dbus-daemon", "--nofork", "--nopidfile", &option]).start().unwrap();
        let there = "test -S /run/dbus/system_bus_socket";
        bus.until(PATIENCE, |_| host.machine.sh(there).unwrap().success()).unwrap();
        let (config, log) = (file("firewalld"), file("firewalld.log"));
        let words = ["firewalld", "--nofork", "--nopid", "--system-config", &config, "--log-file", &log];
        let mut daemon = host.machine.cmd(words).start().unwrap();
        let running = "firewall-cmd --state > /dev/null 2>&1";
        daemon.until(PATIENCE, |_| host.machine.sh(running).unwrap().success()).unwrap();
        Some(Self { host, daemon, _bus: bus })
    }

    /// What firewall-cmd says, or that it does so.
    pub(crate) fn tell(&self, words: &str) -> String {
        let output = self.host.machine.cmd(["sh", "-c", &format!("firewall-cmd {words}")]).ok(PATIENCE);
        output.unwrap().out().trim().to_owned()
    }

    /// The policy of published ports.
    fn published(&self) -> &'static str {
        let any = self.tell("--get-policies").contains("netavark_port_any");
        if any { "netavark_port_any" } else { "netavark_portfwd" }
    }

    /// Nothing of any container or network is left, of either firewall.
    pub(crate) fn is_clean(&mut self) {
        assert_eq!(self.tell("--zone netavark_zone --list-sources"), "");
        for policy in [self.published(), "netavark_host_fwd", "netavark_names"] {
            for what in ["--list-rich-rules", "--list-forward-ports"] {
                assert_eq!(self.tell(&format!("--policy {policy} {what}")), "", "{policy}");
            }
        }
        assert!(self.daemon.ended().unwrap().is_none());
        self.host.is_clean_by(&self.table());
    }

    fn table(&self) -> String {
        self.host.machine.sh("nft list table inet netavark").unwrap().out()
    }
}

fn waited_for(what: impl Fn() -> bool) -> bool {
    let end = now() + PATIENCE;
    while now() < end {
        if what() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// Containers with names: one in a network with a way out, one in an internal network.
struct Named {
    web: (Namespace, Value),
    inner: (Namespace, Value),
}

impl Named {
    fn new(host: &Host) -> Self {
        let web = Join::bridge("podman", "podman0", &["10.88.0.1/16", "fd10:88::1/64"]);
        let inner = Join::bridge("inner", "podman1", &["10.89.0.1/24"]).with("internal", true);
        let made = |name: &str, join: Join| {
            let made = (host.container(), request(name, &[join.with("dns_enabled", true)]));
            host.setup(&made.0, &made.1);
            made
        };
        Self { web: made("web", web), inner: made("inner", inner) }
    }

    /// Whether both hear the right answers, or both hear none.
    fn hear(&self) -> bool {
        self.hear_from(&["10.88.0.1", "fd10:88::1"])
    }

    /// The same where the first one asks these servers.
    fn hear_from(&self, servers: &[&str]) -> bool {
        let mut heard = Vec::new();
        for tcp in [false, true] {
            for server in servers {
                heard.push(asked(&self.web.0, server, "web.dns.podman", tcp) == "10.88.0.2");
            }
            heard.push(asked(&self.inner.0, "10.89.0.1", "inner.dns.podman", tcp) == "10.89.0.2");
        }
        assert!(heard.iter().all(|one| *one == heard[0]), "{heard:?}");
        heard[0]
    }

    fn leave(&self, host: &Host) {
        for (container, request) in [&self.web, &self.inner] {
            host.teardown(container, request);
        }
    }
}

#[test]
fn names_are_answered_behind_firewalld() {
    let Some(mut guarded) = Guarded::fixture("names_are_answered_behind_firewalld") else { return };
    for port in ["53", "1153"] {
        guarded.host.environment.push(("NETAVARK_DNS_PORT", port.to_owned()));
        let host = &guarded.host;
        let named = Named::new(host);
        assert!(named.hear(), "{port}: {}", host.rules());
        let none = (host.container(), request("none", &[Join::bridge("none", "podman2", &["10.90.0.1/24"])]));
        host.setup(&none.0, &none.1);
        if port == "53" {
            // Only who belongs there.
            assert_eq!(asked(&none.0, "10.88.0.1", "web.dns.podman", false), "");
            // A reload throws them away, and by hand they come back.
            guarded.tell("--reload");
            assert!(!named.hear());
        }
        host.cmd(&["firewall-reload"]).ok(PATIENCE).unwrap();
        assert!(named.hear(), "{port}: {}", host.rules());
        // By itself, too.
        let follower = host.cmd(&["firewalld-reload"]).env("RUST_LOG", "info").start().unwrap();
        let told =
            |times: usize| waited_for(|| follower.stderr().matches("Successfully reloaded").count() >= times);
        assert!(told(1), "{}", follower.stderr());
        guarded.tell("--reload");
        assert!(told(2), "{}", follower.stderr());
        assert!(named.hear(), "{port}: {}", host.rules());
        drop(follower);
        host.teardown(&none.0, &none.1);
        assert!(named.hear());
        named.leave(host);
        ended(host);
        guarded.is_clean();
    }
}

#[test]
fn a_firewalld_without_our_policy_loses_nothing_to_the_reload_that_makes_it() {
    const NAME: &str = "a_firewalld_without_our_policy_loses_nothing_to_the_reload_that_makes_it";
    let Some(mut guarded) = Guarded::fixture(NAME) else { return };
    let host = &guarded.host;
    let named = Named::new(host);
    // So it is where an earlier version has made the others.
    guarded.tell("--permanent --delete-policy netavark_names");
    guarded.tell("--reload");
    host.cmd(&["firewall-reload"]).ok(PATIENCE).unwrap();
    assert!(named.hear());
    guarded.tell("--permanent --delete-policy netavark_names");
    guarded.tell("--reload");
    let third = (host.container(), request("third", &[Join::bridge("third", "podman2", &["10.90.0.1/24"])]));
    host.setup(&third.0, &third.1);
    assert!(named.hear(), "{}", host.rules());
    // Nor is it missed by who goes.
    guarded.tell("--permanent --delete-policy netavark_names");
    guarded.tell("--reload");
    host.teardown(&third.0, &third.1);
    named.leave(host);
    ended(host);
    guarded.tell("--permanent --new-policy netavark_names");
    guarded.tell("--reload");
    guarded.is_clean();
}

#[test]
fn a_published_port_53_takes_no_questions_behind_firewalld() {
    let Some(mut guarded) = Guarded::fixture("a_published_port_53_takes_no_questions_behind_firewalld")
    else {
        return;
    };
    let both: &[_] = &[("0.0.0.0", 53, 53, "udp", 1), ("0.0.0.0", 53, 53, "tcp", 1)];
    let ranges: &[_] = &[("", 40, 40, "udp", 30), ("", 50, 50, "tcp", 10)];
    for (ports, names_first) in [(both, true), (ranges, false)] {
        let host = &guarded.host;
        let join = Join::bridge("other", "podman2", &["10.90.0.1/24"]);
        let hole = (host.container(), publish(request("hole", &[join]), ports));
        let named = if names_first {
            let named = Named::new(host);
            assert!(!guarded.table().contains("NAMES"), "{}", guarded.table());
            host.setup(&hole.0, &hole.1);
            named
        } else {
            host.setup(&hole.0, &hole.1);
            Named::new(host)
        };
        assert!(named.hear(), "{}", host.rules());
        // It is the chain that keeps them, and it comes back.
        assert!(host.machine.sh("nft delete chain inet netavark NAMES").unwrap().success());
        assert!(!named.hear_from(&["10.88.0.1"]), "{}", host.rules());
        host.cmd(&["firewall-reload"]).ok(PATIENCE).unwrap();
        assert!(named.hear(), "{}", host.rules());
        host.teardown(&hole.0, &hole.1);
        assert!(!guarded.table().contains("NAMES"), "{}", guarded.table());
        assert!(named.hear(), "{}", host.rules());
        named.leave(host);
        ended(host);
        guarded.is_clean();
    }
}

#[test]
fn the_loopback_is_closed_behind_firewalld() {
    let Some(mut guarded) = Guarded::fixture("the_loopback_is_closed_behind_firewalld") else { return };
    let host = &guarded.host;
    let far = neighbour(host);
    let container = host.container();
    let join = Join::bridge("podman", "podman0", &["10.88.0.1/16"]);
    let ports = [("127.0.0.1", 8080, 80, "tcp", 1), ("", 8081, 80, "tcp", 1)];
    let request = publish(request("one", &[join]), &ports);
    host.setup(&container, &request);
    // What is let in by firewalld, so that nothing else is in the way.
    guarded.tell("--zone netavark_zone --add-port 9999/tcp");
    guarded.tell("--add-port 8080/tcp");
    greeting(host.machine.within(|| TcpListener::bind("127.0.0.1:9999")).unwrap());
    greeting(container.within(|| TcpListener::bind("0.0.0.0:80")).unwrap());
    let by = |place: &Namespace, to: &str| place.within(|| greeted(to)).unwrap();
    let by_host = |to: &str| host.machine.within(|| greeted(to)).unwrap();
    assert!(by(&far, "198.51.100.1:8081"), "{}", host.rules());
    for (place, link, gateway) in [(&container, "eth0", "10.88.0.1"), (&far, "far1", "198.51.100.1")] {
        let prepared = place.sh(&loopback_by(link, gateway)).unwrap();
        assert!(prepared.success(), "{prepared}");
    }
    let is_closed = || {
        assert!(by_host("127.0.0.1:8080") && by_host("127.0.0.1:8081"), "{}", host.rules());
        assert!(!by(&far, "127.0.0.1:8080") && !by(&far, "127.0.0.1:8081"), "{}", host.rules());
        !by(&container, "127.0.0.1:9999")
    };
    assert!(is_closed(), "{}", host.rules());
    // It comes back with firewalld's.
    assert!(host.machine.sh("nft delete table inet netavark").unwrap().success());
    guarded.tell("--reload");
    host.cmd(&["firewall-reload"]).ok(LIMIT).unwrap();
    guarded.tell("--zone netavark_zone --add-port 9999/tcp");
    assert!(is_closed(), "{}", host.rules());
    assert!(host.machine.sh("nft flush chain inet netavark LOOPBACK").unwrap().success());
    assert!(by(&container, "127.0.0.1:9999"), "{}", host.rules());
    host.teardown(&container, &request);
    assert!(!guarded.table().contains("LOOPBACK"), "{}", guarded.table());
    assert!(host.machine.sh("ip link delete far0").unwrap().success());
    guarded.is_clean();
}

/// Who asks for port 8080, from afar and on the host itself, is led to this container.
fn has_the_port(guarded: &Guarded, far: &Namespace, container: &Namespace, when: &str) {
    let listener = container.within(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    let server = std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let _ = stream.and_then(|mut stream| stream.write_all(b"hello"));
        }
    });
    let rules = || guarded.host.machine.sh("nft list table inet firewalld | grep dnat").unwrap().out();
    assert!(far.within(|| greeted("198.51.100.1:8080")).unwrap(), "{when}: {}", rules());
    let machine = &guarded.host.machine;
    assert!(machine.within(|| greeted("127.0.0.1:8080")).unwrap(), "{when}: {}", rules());
    server.join().unwrap();
}

#[test]
fn the_newest_has_the_port_behind_firewalld() {
    let Some(mut guarded) = Guarded::fixture("the_newest_has_the_port_behind_firewalld") else { return };
    let host = &guarded.host;
    let far = neighbour(host);
    let join = || Join::bridge("podman", "podman0", &["10.88.0.1/16"]);
    let other = Join::bridge("other", "podman2", &["10.90.0.1/24"]);
    let made =
        |name: &str, join: Join, ports: &[_]| (host.container(), publish(request(name, &[join]), ports));
    let port = ("", 8080, 80, "tcp", 1);
    let one = made("one", join(), &[port]);
    let two = made("two", join().addresses(&["10.88.0.3"]), &[port]);
    let three = made("three", other, &[port]);
    let set_up = |it: &(Namespace, Value)| host.setup(&it.0, &it.1);
    let take_down = |it: &(Namespace, Value)| host.teardown(&it.0, &it.1);
    let reload = || {
        guarded.tell("--reload");
        host.cmd(&["firewall-reload"]).ok(PATIENCE).unwrap();
    };
    let _ = (set_up(&one), set_up(&two));
    has_the_port(&guarded, &far, &two.0, "two");
    reload();
    has_the_port(&guarded, &far, &two.0, "two, after a reload");
    take_down(&one);
    let _ = set_up(&one);
    has_the_port(&guarded, &far, &one.0, "one again");
    reload();
    has_the_port(&guarded, &far, &one.0, "one again, after a reload");
    let _ = set_up(&three);
    has_the_port(&guarded, &far, &three.0, "another network");
    // What is left has the order that it had.
    take_down(&three);
    has_the_port(&guarded, &far, &one.0, "one is the newer one");
    take_down(&one);
    has_the_port(&guarded, &far, &two.0, "two is left");
    take_down(&two);
    assert!(host.machine.sh("ip link delete far0").unwrap().success());
    guarded.is_clean();
}

#[test]
fn a_container_reaches_its_own_port_behind_firewalld() {
    const NAME: &str = "a_container_reaches_its_own_port_behind_firewalld";
    let Some(mut guarded) = Guarded::fixture(NAME) else { return };
    for firewalled in [true, false] {
        used(NAME, &guarded.host, firewalled);
    }
    assert!(guarded.host.machine.sh("ip address flush dev lo").unwrap().success());
    guarded.is_clean();
}

/// Which port of the container a client of that port of the host meets, by what it is told there.
fn led_to(far: &Namespace, port: u16) -> Option<String> {
    let to = format!("198.51.100.1:{port}").parse().unwrap();
    let said = far.within(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut said = String::new();
        stream.read_to_string(&mut said).map(|_| said)
    });
    said.ok()
}

/// On each of these ports, the container says which it is, and its own name, to whoever connects.
fn tells(container: &Namespace, name: &'static str, ports: std::ops::Range<u16>) {
    for port in ports {
        let listener = container.within(|| TcpListener::bind(("0.0.0.0", port))).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(16) {
                let _ = stream.and_then(|mut stream| stream.write_all(format!("{name} {port}").as_bytes()));
            }
        });
    }
}

#[test]
fn ranges_are_led_port_by_port_behind_firewalld() {
    let Some(mut guarded) = Guarded::fixture("ranges_are_led_port_by_port_behind_firewalld") else { return };
    let host = &guarded.host;
    let far = neighbour(host);
    let made = |name: &str, address: &str, ports: &[_]| {
        let join = Join::bridge("podman", "podman0", &["10.88.0.1/16"]).addresses(&[address]);
        (host.container(), publish(request(name, &[join]), ports))
    };
    // The second range begins in the middle of the first, and lies across the ports that it leads to.
    let one = made("one", "10.88.0.2", &[("", 8080, 8080, "tcp", 5)]);
    let two = made("two", "10.88.0.3", &[("", 8083, 8081, "tcp", 4)]);
    tells(&one.0, "one", 8080..8085);
    tells(&two.0, "two", 8081..8085);
    host.setup(&one.0, &one.1);
    host.setup(&two.0, &two.1);
    let list = || (8080..8088).map(|port| led_to(&far, port).unwrap_or_default()).collect::<Vec<_>>();
    let both = ["one 8080", "one 8081", "one 8082", "two 8081", "two 8082", "two 8083", "two 8084", ""];
    assert_eq!(list(), both);
    guarded.tell("--reload");
    host.cmd(&["firewall-reload"]).ok(PATIENCE).unwrap();
    assert_eq!(list(), both, "after a reload");
    host.teardown(&two.0, &two.1);
    assert_eq!(list(), ["one 8080", "one 8081", "one 8082", "one 8083", "one 8084", "", "", ""]);
    host.teardown(&one.0, &one.1);
    assert!(host.machine.sh("ip link delete far0").unwrap().success());
    guarded.is_clean();
}
