//! Podman as root, with bridge networks, seen from host itself: the `netavark` and `aardvark-dns` roles, each with the
//! other half ours or Debian's. What world sees of them is in `podman`.

use slipway_lab::Running;

use crate::podman::{Pair, Podman, User, Wish};

/// Makes it; `None` after saying why the test is skipped.
fn on_host(test: &str, pair: Pair) -> Option<Podman> {
    let podman = Podman::new(test, &Wish::new(pair).by(User::Root))?;
    std::fs::write(podman.lab.dir().join("etc/resolv.conf"), "nameserver 198.51.100.53\n").unwrap();
    podman.sh("ip address add 198.51.100.53/32 dev lo");
    Some(podman)
}

/// Fetches a page from host itself; its server may need a moment.
fn fetch(podman: &Podman, from: &str) -> String {
    podman
        .sh(&format!("for i in $(seq 20); do curl -sgm 2 http://{from}/index.html && break; sleep 0.1; done"))
}

/// A resolver for names that are no container's.
fn resolver(podman: &Podman) -> Running {
    let words = ["dnsmasq", "--no-daemon", "--no-resolv", "--no-hosts", "--pid-file=", "--bind-interfaces"];
    let options =
        ["--listen-address=198.51.100.53", "--host-record=name.test,198.51.100.80", "--local=/test/"];
    Running::server(podman.host(&words).args(options), "udp", 53).unwrap()
}

/// Makes the network called "one", which has both families.
const NETWORK_ONE: [&str; 8] =
    ["network", "create", "--subnet", "10.89.7.0/24", "--subnet", "fd89:7::/64", "--ipv6", "one"];

/// Gives every bridge for good the MAC address that it has, as our netavark does. Debian's 1.4 leaves it the lowest one
/// of its ports, which one container in three that comes as the third changes. What is sent to the old one, now a mere
/// port's, the kernel takes for somebody else's (`net/ethernet/eth.c`, PACKET_OTHERHOST) unless the sender is behind
/// that very port; and a neighbour who has just asked for the address goes on so for as long as his cache takes it for
/// good (15 to 45 s), five seconds until it is doubted and three until it is forgotten (`net/core/neighbour.c`). No
/// name server can be heard meanwhile, and names are what is tested here.
fn keep_macs(engine: &Podman) {
    engine.sh(
        "ip -o link show type bridge | sed -E 's/^[0-9]+: ([^:@]+).* link.ether ([0-9a-f:]+).*/\\1 \\2/' \
         | while read -r bridge mac; do ip link set \"$bridge\" address \"$mac\" || exit 1; done",
    );
}

/// Names in every direction: own, other's, alias, both families, reverse, the world's, and none of a network beside.
fn names(engine: &Podman, pair: Pair) {
    let _dns = resolver(engine);
    engine.run(&NETWORK_ONE);
    engine.run(&["network", "create", "--subnet", "10.89.8.0/24", "two"]);
    engine.run(&["network", "create", "--internal", "--subnet", "10.89.9.0/24", "inside"]);
    engine.sleeper("both", &["--network", "one,two", "--network-alias", "shared"]);
    engine.sleeper("first", &["--network", "one"]);
    engine.sleeper("second", &["--network", "two"]);
    engine.sleeper("inner", &["--network", "inside"]);
    keep_macs(engine);
    assert_eq!(engine.found("first", "both"), ["10.89.7.2", "fd89:7::2"]);
    assert_eq!(engine.found("first", "shared"), ["10.89.7.2", "fd89:7::2"]);
    assert_eq!(engine.found("first", "both.dns.podman"), ["10.89.7.2", "fd89:7::2"]);
    assert_eq!(engine.found("second", "both"), ["10.89.8.2"]);
    assert_eq!(engine.found("both", "first"), ["10.89.7.3", "fd89:7::3"]);
    assert_eq!(engine.found("both", "second"), ["10.89.8.3"]);
    assert_eq!(engine.found("first", "second"), [""; 0]);
    assert_eq!(engine.found("inner", "inner"), ["10.89.9.2"]);
    assert_eq!(engine.found("first", "name.test"), ["198.51.100.80"]);
    if pair == Pair::OURS {
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
    // A name that comes later and goes again; the reload is not acknowledged. Ask briefly, and again.
    engine.sleeper("late", &["--network", "two"]);
    let wait = "export RES_OPTIONS='timeout:1 attempts:1'; \
                for i in $(seq 20); do getent hosts late && exit 0; sleep 0.1; done; exit 1";
    assert!(engine.exec("second", wait).success());
    engine.remove(&["late"]);
    let wait = "for i in $(seq 50); do getent hosts late || exit 0; sleep 0.1; done; exit 1";
    assert!(engine.exec("second", wait).success());
    engine.remove(&["both", "first", "second", "inner"]);
    engine.leaves_nothing();
}

#[test]
fn names_with_debians_netavark() {
    let Some(engine) = on_host("names_with_debians_netavark", Pair::OUR_DNS) else { return };
    names(&engine, Pair::OUR_DNS);
}

#[test]
fn names_with_both() {
    let Some(engine) = on_host("names_with_both", Pair::OURS) else { return };
    names(&engine, Pair::OURS);
}

#[test]
fn names_with_debians_aardvark() {
    let Some(engine) = on_host("names_with_debians_aardvark", Pair::STOCK_DNS) else { return };
    names(&engine, Pair::STOCK_DNS);
}

#[test]
fn published_ports_are_reached_and_taken_back() {
    let Some(engine) = on_host("published_ports_are_reached_and_taken_back", Pair::OURS) else { return };
    engine.run(&NETWORK_ONE);
    let ports = ["-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "9000-9009:80-89"];
    engine.server("web", &[&["--network", "one"], &ports[..]].concat());
    for from in
        ["127.0.0.1:8080", "198.51.100.53:8080", "10.89.7.1:8080", "[fd89:7::1]:8080", "127.0.0.1:8081"]
    {
        assert_eq!(fetch(&engine, from), "page of web\n", "{from}");
    }
    assert_eq!(fetch(&engine, "127.0.0.1:9000"), "page of web\n");
    // A neighbour, by name and through the published port.
    engine.sleeper("client", &["--network", "one"]);
    for from in ["web", "10.89.7.1:8080"] {
        let page = engine.exec("client", &format!("wget -qO- http://{from}/index.html")).out();
        assert_eq!(page, "page of web\n", "{from}");
    }
    engine.remove(&["web"]);
    assert_eq!(engine.sh("curl -sm 2 http://198.51.100.53:8080/ || :"), "");
    let rules = engine.sh("nft list ruleset");
    assert!(!rules.contains("8080"), "{rules}");
    engine.remove(&["client"]);
    engine.leaves_nothing();
}

#[test]
fn networks_come_and_go_under_a_running_container() {
    let Some(engine) = on_host("networks_come_and_go_under_a_running_container", Pair::OURS) else {
        return;
    };
    engine.run(&["network", "create", "--subnet", "10.89.7.0/24", "one"]);
    engine.run(&["network", "create", "--subnet", "10.89.8.0/24", "two"]);
    engine.server("web", &["--network", "one:ip=10.89.7.20,mac=02:00:00:00:00:20", "-p", "8080:80"]);
    let shown = engine.exec("web", "ip address show eth0").out();
    assert!(shown.contains("10.89.7.20/24") && shown.contains("02:00:00:00:00:20"), "{shown}");
    engine.sleeper("client", &["--network", "two"]);
    engine.run(&["network", "connect", "two", "web"]);
    let page = engine
        .exec("client", "for i in 1 2 3 4 5; do wget -qO- http://web/index.html && break; sleep 0.2; done");
    assert_eq!(page.out(), "page of web\n", "{page}");
    engine.run(&["network", "disconnect", "two", "web"]);
    assert!(!engine.exec("web", "ip address show eth1").success());
    assert_eq!(fetch(&engine, "198.51.100.53:8080"), "page of web\n");
    // The rules vanish under it, and the administrator asks for them again.
    engine.sh("nft delete table inet netavark || nft flush ruleset");
    engine.run(&["network", "reload", "web"]);
    let shown = engine.exec("web", "ip address show eth0").out();
    assert!(shown.contains("10.89.7.20/24") && shown.contains("02:00:00:00:00:20"), "{shown}");
    assert_eq!(fetch(&engine, "198.51.100.53:8080"), "page of web\n");
    engine.remove(&["web", "client"]);
    engine.leaves_nothing();
}

#[test]
fn an_internal_network_reaches_nobody_outside() {
    let Some(engine) = on_host("an_internal_network_reaches_nobody_outside", Pair::OURS) else { return };
    engine.run(&["network", "create", "--internal", "--subnet", "10.89.9.0/24", "inside"]);
    engine.sleeper("one", &["--network", "inside"]);
    engine.sleeper("two", &["--network", "inside"]);
    assert!(engine.exec("one", "ping -c1 -W5 two").success());
    assert!(!engine.exec("one", "ip route").out().contains("default"));
    assert!(!engine.exec("one", "ping -c1 -W1 198.51.100.53").success());
    engine.remove(&["one", "two"]);
    engine.leaves_nothing();
}
