//! Podman with networks of the driver `slipway`, and the real uplink: rootless through the rootless-netns, where ports
//! are published by the `rootlessport` role, and as root.
//!
//! A Podman that knows no drivers of others (4.3) is given definitions that the driver completed; our netavark is the
//! driver itself then. Newer ones find it in a directory, and ours or their own netavark starts it.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::json;
use slipway_lab::{HOST4, HOST6, LIMIT, Running, WORLD4, WORLD6};

use crate::podman::{Pair, Podman, User, Version, Whose, Wish};

/// A rootful Podman leaves ports to the driver then.
const NO_RESERVATION: &str = "enable_port_reservation = false";

/// Podman and the user's uplink.
struct Place {
    podman: Podman,
    uplink: Option<Running>,
    socket: PathBuf,
    /// Whether this Podman knows drivers of others.
    knows_drivers: bool,
}

impl Place {
    /// Makes it; `None` after saying why the test is skipped.
    fn new(test: &str, user: User) -> Option<Self> {
        Self::with(test, Wish { user, ..Wish::new(Pair::OURS) })
    }

    fn with(test: &str, wish: Wish) -> Option<Self> {
        let slipway = match slipway_lab::subject() {
            Ok(subject) if subject.is_slipway() => subject.path().to_owned(),
            Ok(_) => {
                println!("SKIP {test}: the original has no uplink");
                return None;
            }
            Err(reason) => return slipway_lab::skip(test, &reason),
        };
        let driver = match slipway_lab::built("SLIPWAY_NETAVARK_BINARY", "netavark") {
            Ok(driver) => driver,
            Err(reason) => return slipway_lab::skip(test, &reason),
        };
        let (user, knows_drivers) = (wish.user, wish.version != Version::Machine);
        let plugins = if knows_drivers { "netavark_plugin_dirs = [\"BIN/plugins\"]" } else { "" };
        let wish = Wish {
            programs: vec![("rootlessport".to_owned(), slipway), ("plugins/slipway".to_owned(), driver)],
            engine: if wish.engine.is_empty() { NO_RESERVATION.to_owned() } else { wish.engine },
            network: plugins.to_owned(),
            ..wish
        };
        let podman = Podman::new(test, &wish)?;
        let runtime = match user {
            User::Ordinary => podman.lab.dir().join("run"),
            User::Root => PathBuf::from("/run"),
        };
        let mut place =
            Self { podman, uplink: None, socket: runtime.join("slipway/uplink.sock"), knows_drivers };
        place.start_uplink();
        Some(place)
    }

    fn start_uplink(&mut self) {
        let slipway = self.podman.lab.program("slipway");
        self.uplink = Some(self.podman.host(&[&slipway, "uplink"]).start().unwrap());
        let socket = self.socket.display();
        self.podman
            .sh(&format!("for i in $(seq 200); do test -S {socket} && exit; sleep 0.05; done; exit 1"));
    }

    /// Ends it, and its workers with it.
    fn stop_uplink(&mut self, signal: Signal) {
        if let Some(mut uplink) = self.uplink.take() {
            uplink.signal(signal);
            uplink.finish(LIMIT).unwrap();
        }
    }

    /// What the uplink says of itself.
    fn shown(&self) -> String {
        self.podman.sh(&format!("{} uplink --show", self.podman.lab.program("slipway")))
    }

    /// Makes a network, or has the driver complete its definition and writes that down for Podman.
    fn network(&self, name: &str, subnets: &[&str], internal: bool) {
        let ipv6 = subnets.iter().any(|subnet| subnet.contains(':'));
        if self.knows_drivers {
            let flags = [(internal, "--internal"), (ipv6, "--ipv6")];
            let flags = flags.into_iter().filter_map(|(given, flag)| given.then_some(flag));
            let subnets = subnets.iter().flat_map(|subnet| ["--subnet", *subnet]);
            let words = ["network", "create", "-d", "slipway"].into_iter().chain(flags).chain(subnets);
            self.podman.run(&words.chain([name]).collect::<Vec<_>>());
            return;
        }
        let id: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        let subnets: Vec<_> = subnets.iter().map(|subnet| json!({ "subnet": subnet })).collect();
        let network = json!({"name": name, "id": format!("{id:0<64}"), "driver": "slipway", "internal": internal,
            "dns_enabled": true, "ipv6_enabled": ipv6, "created": "2024-05-06T07:08:09Z", "subnets": subnets});
        let driver = self.podman.lab.program("plugins/slipway");
        let completed = self.podman.host(&[&driver, "create"]).input(network.to_string());
        let completed = completed.ok(LIMIT).unwrap().out();
        std::fs::write(self.podman.lab.home().join(format!("networks/{name}.json")), completed).unwrap();
    }

    /// The network that most scenes use, with both families.
    fn network_one(&self) {
        self.network("one", &["10.89.7.0/24", "fd89:7::/64"], false);
    }

    /// A container that says who asks it, on port 80.
    fn server(&self, name: &str, options: &[&str]) {
        let script = "mkdir -p /w/cgi-bin; cd /w/cgi-bin
            printf '#!/bin/sh\\necho; echo peer=$REMOTE_ADDR:$REMOTE_PORT\\n' > peer; busybox chmod 755 peer
            exec httpd -f -p 80 -h /w";
        let words = [&["run", "-d", "--name", name], options, &["localhost/bb", "sh", "-c", script]].concat();
        self.podman.run(&words);
    }

    /// Whom the server behind this address saw, asked from world with a port of its own; it may need a moment.
    fn peer(&self, from: &str, local_port: u16) -> String {
        let script = format!(
            "for i in $(seq 20); do
               curl -sgm 2 --local-port {local_port} http://{from}/cgi-bin/peer && break; sleep 0.2; done"
        );
        plain(&self.podman.lab.world(["sh", "-c", &script]).run(LIMIT).unwrap().out())
    }

    /// The same, asked from a container, with no port of its own.
    fn peer_of(&self, name: &str, server: &str) -> String {
        plain(&self.podman.exec(name, &format!("wget -qO- http://{server}/cgi-bin/peer")).out())
    }

    /// Nothing but the uplink is left, and it serves nobody.
    fn is_clean(&self) {
        self.podman.leaves_nothing();
        let records = self.socket.with_file_name("networks");
        assert_eq!(self.podman.sh(&format!("ls -A {}", records.display())), "");
        let shown = self.shown();
        assert!(!shown.contains("10.89."), "{shown}");
    }
}

/// The server listens for both families and writes addresses accordingly.
fn plain(shown: &str) -> String {
    shown.replace("[::ffff:", "").replace(['[', ']'], "")
}

/// Sixteen MiB come in and go out whole: trains of 64 KiB with checksums undone, through bridge and TAP.
fn every_byte_arrives(place: &Place) {
    let lab = &place.podman.lab;
    let (path, digest) = crate::payload(lab, 16);
    std::fs::copy(&path, lab.dir().join("www/blob")).unwrap();
    let fetch = format!("wget -qO /w/blob http://{WORLD4}/blob; busybox sha256sum /w/blob");
    let shown = place.podman.exec("web", &fetch);
    assert!(shown.out().starts_with(&digest), "{shown}");
    let fetch = format!("curl -sgm 20 http://[{HOST6}]:8080/blob | sha256sum");
    let shown = lab.world(["sh", "-c", &fetch]).run(LIMIT).unwrap();
    assert!(shown.out().starts_with(&digest), "{shown}");
}

/// Names, the world over both families, and published ports with the client's address and port.
fn names_world_and_ports(place: &Place) {
    let podman = &place.podman;
    std::fs::write(podman.lab.dir().join("www/index.html"), "page of world\n").unwrap();
    let (_dns, _http) = (podman.lab.dns().unwrap(), podman.lab.http().unwrap());
    place.network_one();
    place.server(
        "web",
        &["--network", "one", "--network-alias", "shared", "-p", "8080:80", "-p", "8081:80/tcp"],
    );
    podman.sleeper("client", &["--network", "one"]);
    let shown = podman.exec("client", "ip address show eth0; ip route; cat /etc/resolv.conf").out();
    for part in
        ["mtu 65520", "10.89.7.3/24", "default via 10.89.7.1", "nameserver 10.89.7.1", "search dns.podman"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    for name in ["web", "shared", "web.dns.podman"] {
        assert_eq!(podman.found("client", name), ["10.89.7.2", "fd89:7::2"], "{name}");
    }
    assert_eq!(podman.found("web", "client"), ["10.89.7.3", "fd89:7::3"]);
    assert_eq!(podman.found("client", "name.test"), [WORLD4, WORLD6]);
    for from in ["name.test", WORLD4, &format!("[{WORLD6}]")] {
        let page = podman.exec("client", &format!("wget -qO- http://{from}/index.html"));
        assert_eq!(page.out(), "page of world\n", "{from}: {page}");
    }
    // A neighbour asks directly, the world through the port.
    let seen = place.peer_of("client", "web");
    assert!(["peer=10.89.7.3:", "peer=fd89:7::3:"].iter().any(|peer| seen.starts_with(peer)), "{seen}");
    assert_eq!(place.peer(&format!("{HOST4}:8080"), 40_001), format!("peer={WORLD4}:40001\n"));
    assert_eq!(place.peer(&format!("[{HOST6}]:8080"), 40_002), format!("peer={WORLD6}:40002\n"));
    assert_eq!(place.peer(&format!("{HOST4}:8081"), 40_003), format!("peer={WORLD4}:40003\n"));
    every_byte_arrives(place);
    let shown = place.shown();
    assert!(shown.contains("web") && shown.contains("8080"), "{shown}");
    podman.remove(&["web"]);
    let again = podman.lab.world(["curl", "-sm", "2", &format!("http://{HOST4}:8080/")]);
    assert_eq!(again.run(LIMIT).unwrap().out(), "");
    assert_eq!(podman.found("client", "web"), [""; 0]);
    podman.remove(&["client"]);
    place.is_clean();
}

/// A published UDP port, too, keeps the client's address and port: a server inside the container says who asked.
fn datagrams_keep_the_clients_address(place: &Place) {
    let podman = &place.podman;
    place.network_one();
    podman.sleeper("udp", &["--network", "one", "-p", "5353:53/udp"]);
    let pid = podman.run(&["inspect", "--format", "{{.State.Pid}}", "udp"]).trim().to_owned();
    let serve = |family: &str| {
        let words = ["nsenter", "--target", &pid, "--net", "ncat", family, "-u", "-l", "-k", "53", "-c"];
        let server = podman.lab.host_root(words).arg("read x; echo peer=$NCAT_REMOTE_ADDR:$NCAT_REMOTE_PORT");
        Running::server(server, "udp", 53).unwrap()
    };
    let _servers = [serve("-4"), serve("-6")];
    for (number, (from, client)) in
        [(HOST4, WORLD4), (HOST6, WORLD6), (HOST4, WORLD4)].into_iter().enumerate()
    {
        let port = 40_010 + number;
        let ask = format!("(echo ask; sleep 1) | ncat -u -w 5 -p {port} {from} 5353");
        let shown = podman.lab.world(["sh", "-c", &ask]).run(LIMIT).unwrap();
        assert_eq!(shown.out().lines().next(), Some(&*format!("peer={client}:{port}")), "{shown}");
    }
    podman.remove(&["udp"]);
    place.is_clean();
}

/// The uplink ends and is started again while containers run.
fn uplink_is_started_anew(place: &mut Place, end: Signal) {
    let (_dns, _http) = (place.podman.lab.dns().unwrap(), place.podman.lab.http().unwrap());
    place.network_one();
    place.server("web", &["--network", "one", "-p", "8080:80"]);
    assert_eq!(place.peer(&format!("{HOST4}:8080"), 40_001), format!("peer={WORLD4}:40001\n"));
    place.stop_uplink(end);
    let podman = &place.podman;
    let refused =
        podman.cmd(&["run", "--rm", "--network", "one", "localhost/bb", "true"]).run(LIMIT).unwrap();
    assert!(!refused.success() && refused.err().contains("slipway uplink does not run"), "{refused}");
    assert!(podman.exec("web", "ip address show eth0").out().contains("10.89.7.2/24"), "it goes on");
    place.start_uplink();
    place.podman.sleeper("client", &["--network", "one"]);
    assert_eq!(place.podman.found("client", "web"), ["10.89.7.2", "fd89:7::2"]);
    assert_eq!(place.podman.found("web", "name.test"), [WORLD4, WORLD6]);
    assert_eq!(place.peer(&format!("{HOST4}:8080"), 40_002), format!("peer={WORLD4}:40002\n"));
    // Nobody is in the way of an end.
    place.stop_uplink(Signal::SIGTERM);
    place.podman.remove(&["web", "client"]);
    place.start_uplink();
    place.is_clean();
}

/// Networks of both drivers, and one without a way out.
fn several_networks(place: &Place) {
    let podman = &place.podman;
    let _http = podman.lab.http().unwrap();
    place.network_one();
    place.network("inside", &["10.89.9.0/24"], true);
    podman.run(&["network", "create", "--subnet", "10.89.8.0/24", "bridged"]);
    place.server("web", &["--network", "one,inside", "-p", "8080:80"]);
    podman.sleeper("inner", &["--network", "inside"]);
    podman.sleeper("other", &["--network", "bridged"]);
    assert_eq!(podman.found("inner", "web"), ["10.89.9.2"]);
    let seen = place.peer_of("inner", "web");
    assert!(seen.starts_with("peer=10.89.9.3:"), "{seen}");
    assert!(!podman.exec("inner", "ip route").out().contains("default"));
    assert!(!podman.exec("inner", &format!("nc -w 1 {WORLD4} 80")).success());
    assert!(podman.exec("other", &format!("nc -w 5 {WORLD4} 80 < /dev/null")).success());
    assert_eq!(place.peer(&format!("{HOST4}:8080"), 40_001), format!("peer={WORLD4}:40001\n"));
    podman.run(&["network", "disconnect", "inside", "web"]);
    assert_eq!(podman.found("inner", "web"), [""; 0]);
    podman.run(&["network", "connect", "--ip", "10.89.9.77", "inside", "web"]);
    assert_eq!(podman.found("inner", "web"), ["10.89.9.77"]);
    podman.run(&["network", "reload", "web"]);
    assert_eq!(place.peer(&format!("{HOST4}:8080"), 40_002), format!("peer={WORLD4}:40002\n"));
    podman.remove(&["web", "inner", "other"]);
    place.is_clean();
}

#[test]
fn rootless_names_world_and_ports() {
    let Some(place) = Place::new("rootless_names_world_and_ports", User::Ordinary) else { return };
    names_world_and_ports(&place);
}

#[test]
fn root_names_world_and_ports() {
    let Some(place) = Place::new("root_names_world_and_ports", User::Root) else { return };
    names_world_and_ports(&place);
}

#[test]
fn rootless_datagrams_keep_the_clients_address() {
    let Some(place) = Place::new("rootless_datagrams_keep_the_clients_address", User::Ordinary) else {
        return;
    };
    datagrams_keep_the_clients_address(&place);
}

#[test]
fn root_datagrams_keep_the_clients_address() {
    let Some(place) = Place::new("root_datagrams_keep_the_clients_address", User::Root) else { return };
    datagrams_keep_the_clients_address(&place);
}

#[test]
fn rootless_uplink_is_started_anew() {
    let Some(mut place) = Place::new("rootless_uplink_is_started_anew", User::Ordinary) else { return };
    // Killed, it would leave the socket at which Podman tells of new addresses.
    uplink_is_started_anew(&mut place, Signal::SIGTERM);
}

#[test]
fn root_uplink_is_started_anew() {
    let Some(mut place) = Place::new("root_uplink_is_started_anew", User::Root) else { return };
    uplink_is_started_anew(&mut place, Signal::SIGKILL);
}

#[test]
fn rootless_several_networks() {
    let Some(place) = Place::new("rootless_several_networks", User::Ordinary) else { return };
    several_networks(&place);
}

#[test]
fn root_several_networks() {
    let Some(place) = Place::new("root_several_networks", User::Root) else { return };
    several_networks(&place);
}

#[test]
fn root_podman_5_makes_and_uses_networks() {
    let wish = Wish { version: Version::Five, user: User::Root, ..Wish::new(Pair::OURS) };
    let Some(place) = Place::with("root_podman_5_makes_and_uses_networks", wish) else { return };
    names_world_and_ports(&place);
}

#[test]
fn root_podman_5_with_its_own_netavark() {
    let pair = Pair { netavark: Whose::Stock, dns: Whose::Stock };
    let wish = Wish { version: Version::Five, user: User::Root, ..Wish::new(pair) };
    let Some(place) = Place::with("root_podman_5_with_its_own_netavark", wish) else { return };
    names_world_and_ports(&place);
}

#[test]
fn root_podman_6_makes_and_uses_networks() {
    let wish = Wish { version: Version::Six, user: User::Root, ..Wish::new(Pair::OURS) };
    let Some(place) = Place::with("root_podman_6_makes_and_uses_networks", wish) else { return };
    names_world_and_ports(&place);
}

/// Podman holds ports before or after it asks for the network, which depends on its version: either way one of two
/// finds them taken.
fn podman_holds_the_port(test: &str, version: Version, complaint: &str) {
    let engine = NO_RESERVATION.replace("false", "true");
    let wish = Wish { user: User::Root, version, engine, ..Wish::new(Pair::OURS) };
    let Some(place) = Place::with(test, wish) else { return };
    place.network_one();
    let words = ["run", "--rm", "--network", "one", "-p", "8080:80", "localhost/bb", "true"];
    let refused = place.podman.cmd(&words).run(LIMIT).unwrap();
    let said = refused.err();
    assert!(!refused.success() && said.contains(complaint), "{said}");
    place.is_clean();
}

#[test]
fn root_podman_holds_the_port() {
    let complaint = "cannot listen on the TCP port: listen tcp4 :8080: bind: address already in use";
    podman_holds_the_port("root_podman_holds_the_port", Version::Machine, complaint);
}

#[test]
fn root_podman_5_holds_the_port() {
    let complaint = "set enable_port_reservation=false";
    podman_holds_the_port("root_podman_5_holds_the_port", Version::Five, complaint);
}

#[test]
fn rootless_podman_5_makes_and_uses_networks() {
    let wish = Wish { version: Version::Five, ..Wish::new(Pair::OURS) };
    let Some(place) = Place::with("rootless_podman_5_makes_and_uses_networks", wish) else { return };
    names_world_and_ports(&place);
}

#[test]
fn rootless_podman_6_makes_and_uses_networks() {
    let wish = Wish { version: Version::Six, ..Wish::new(Pair::OURS) };
    let Some(place) = Place::with("rootless_podman_6_makes_and_uses_networks", wish) else { return };
    names_world_and_ports(&place);
}
