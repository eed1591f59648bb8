//! Addresses that have moved: a container comes back with its address and another MAC address, or another one has its
//! place.
//!
//! Everybody who spoke with the one before finds it within a second, without waiting for caches to end.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use slipway_lab::{LIMIT, Namespace};

use crate::host;
use crate::place::Host;
use crate::request::{Join, publish, request};

const V4: &str = "10.88.0.1/16";
const V6: &str = "fd10:88::1/64";

/// A second, as somebody means it who says that something works within one.
const SECOND: Duration = Duration::from_secs(1);

/// A machine of the LAN that the host is on, too: 198.51.100.2 and fd51::2, the host has 1.
pub(crate) fn lan(host: &Host) -> Namespace {
    let far = host.container();
    let script = format!(
        "ip link add far0 type veth peer name far1 netns {} && ip link set far0 up \
         && ip address add 198.51.100.1/24 dev far0 && ip address add fd51::1/64 dev far0 nodad",
        far.pid()
    );
    assert!(host.machine.sh(&script).unwrap().success());
    let script = "ip link set lo up && ip link set far1 up && ip address add 198.51.100.2/24 dev far1 \
         && ip address add fd51::2/64 dev far1 nodad && ip route add default via 198.51.100.1 \
         && ip route add default via fd51::1";
    assert!(far.sh(script).unwrap().success());
    far
}

/// Accepts on this port until the namespace's listener is dropped.
pub(crate) fn accept(container: &Namespace, port: u16) -> TcpListener {
    container.within(|| TcpListener::bind(("::", port))).unwrap()
}

/// Connects within a second.
pub(crate) fn connect(to: &str) -> impl FnOnce() -> io::Result<()> + Send {
    let to: SocketAddr = to.parse().unwrap();
    move || TcpStream::connect_timeout(&to, SECOND).map(drop)
}

#[test]
fn a_container_that_comes_back_is_found_at_once() {
    let host = host!(ours "a_container_that_comes_back_is_found_at_once");
    let far = lan(&host);
    let join = || Join::bridge("podman", "podman0", &[V4, V6]);
    let neighbour = host.container();
    host.setup(&neighbour, &request("two", &[join().addresses(&["10.88.0.3", "fd10:88::3"])]));
    let request = publish(request("one", &[join()]), &[("", 8080, 80, "tcp", 1)]);
    for round in 0..3 {
        let container = host.container();
        host.setup(&container, &request);
        let _server = accept(&container, 80);
        for to in ["198.51.100.1:8080", "[fd51::1]:8080"] {
            far.within(connect(to)).unwrap_or_else(|error| panic!("{round}: LAN, {to}: {error}"));
        }
        for to in ["10.88.0.2:80", "[fd10:88::2]:80"] {
            host.machine.within(connect(to)).unwrap_or_else(|error| panic!("{round}: host, {to}: {error}"));
            neighbour.within(connect(to)).unwrap_or_else(|error| panic!("{round}: {to}: {error}"));
        }
        host.teardown(&container, &request);
    }
}

#[test]
fn a_lan_is_told_of_a_macvlan() {
    let host = host!(ours "a_lan_is_told_of_a_macvlan");
    let far = lan(&host);
    if !host
        .machine
        .sh("ip link add probe0 link far0 type macvlan && ip link delete probe0")
        .unwrap()
        .success()
    {
        println!("SKIP a_lan_is_told_of_a_macvlan: the kernel has no macvlan");
        return;
    }
    let join = Join::new("macvlan", "lan", "far0", &["198.51.100.1/24", "fd51::1/64"]);
    let request = request("one", &[join.addresses(&["198.51.100.7", "fd51::7"])]);
    for round in 0..3 {
        let container = host.container();
        host.setup(&container, &request);
        let _server = accept(&container, 80);
        let told = far.within(connect("198.51.100.7:80"));
        told.unwrap_or_else(|error| panic!("{round}: {error}"));
        // As soon as the kernel has found no duplicate, before which nobody can use it.
        let settled = "for i in $(seq 100); do ip -6 address show dev eth0 tentative | grep -q . || break; sleep 0.05; done";
        assert!(container.cmd(["sh", "-c", settled]).run(LIMIT).unwrap().success());
        let told = far.within(connect("[fd51::7]:80"));
        told.unwrap_or_else(|error| panic!("{round}: IPv6: {error}"));
        host.teardown(&container, &request);
    }
}
