//! Containers that vanished: their processes and their namespace were killed, and nobody has torn them down yet.
//!
//! What they had (a port, a name, an address) is found at their successor, from everywhere, and when the teardown comes
//! at last it changes nothing.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::Value;
use slipway_lab::{LIMIT, Namespace};

use crate::host;
use crate::place::{Host, line};
use crate::request::{Join, publish, request};
use crate::t12_moved::{accept, lan};

const GATEWAYS: [&str; 2] = ["10.88.0.1/16", "fd10:88::1/64"];

fn join(last: u8) -> Join {
    Join::bridge("podman", "podman0", &GATEWAYS)
        .addresses(&[&format!("10.88.0.{last}"), &format!("fd10:88::{last}")])
}

fn with_port(container: &str, join: Join) -> Value {
    publish(request(container, &[join]), &[("", 8080, 80, "tcp", 1), ("", 9000, 90, "udp", 1)])
}

/// Kills the container, and waits until the kernel has taken its interface away.
fn kill(host: &Host, container: Namespace, left: usize) {
    drop(container);
    let ports = || host.machine.sh("ip -o link show type veth | grep -c podman").unwrap().out();
    for _ in 0..500 {
        if ports().trim() == left.to_string() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} ports", ports());
}

/// Teardown of a container that has no namespace any more.
fn late(host: &Host, request: &Value) {
    let output = host.cmd(&["teardown", "/run/netns/gone"]).input(line(request)).run(LIMIT).unwrap();
    assert!(output.success(), "{output}");
}

/// Whoever accepts next says `word`; asked at `to`.
fn asks(from: &Namespace, container: &Namespace, to: &str) -> Result<(), String> {
    let listener = accept(container, 80);
    let to: SocketAddr = to.parse().unwrap();
    let serving = std::thread::spawn(move || {
        listener.set_nonblocking(true).unwrap();
        for _ in 0..150 {
            if let Ok((mut stream, _)) = listener.accept() {
                return stream.write_all(b"here");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::ErrorKind::TimedOut.into())
    });
    let answer = from.within(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    let served = serving.join().unwrap();
    match (answer, served) {
        (Ok(text), Ok(())) if text == "here" => Ok(()),
        (answer, served) => Err(format!("{to}: {answer:?}, {served:?}")),
    }
}

/// The container has the port, for LAN and neighbour, both families.
fn has_the_port(host: &Host, from: &[&Namespace], container: &Namespace, when: &str) {
    for place in from {
        for to in ["198.51.100.1:8080", "[fd51::1]:8080"] {
            asks(place, container, to).unwrap_or_else(|error| panic!("{when}: {error}\n{}", host.rules()));
        }
    }
}

/// Nothing is left but the LAN, if there was one.
fn clean(host: &Host) {
    let _ = host.machine.sh("ip link delete far0").unwrap();
    host.is_clean();
}

#[test]
fn the_successor_has_the_port() {
    let host = host!(ours "the_successor_has_the_port");
    let far = lan(&host);
    let neighbour = host.container();
    host.setup(&neighbour, &request("n", &[join(9)]));
    // Another address, then the same one.
    for (round, last) in [3, 2].into_iter().enumerate() {
        let (first, second) = (with_port("one", join(2)), with_port("two", join(last)));
        let one = host.container();
        host.setup(&one, &first);
        kill(&host, one, 1);
        let two = host.container();
        host.setup(&two, &second);
        has_the_port(&host, &[&far, &neighbour], &two, &format!("{round}, successor"));
        late(&host, &first);
        has_the_port(&host, &[&far, &neighbour], &two, &format!("{round}, late teardown"));
        host.teardown(&two, &second);
        assert!(!host.rules().contains("8080"), "{}", host.rules());
    }
    host.teardown(&neighbour, &request("n", &[join(9)]));
    clean(&host);
}

#[test]
fn the_successor_has_the_port_without_state_files() {
    let host = host!(ours "the_successor_has_the_port_without_state_files");
    for last in [3, 2] {
        let far = lan(&host);
        let (first, second) = (with_port("one", join(2)), with_port("two", join(last)));
        let one = host.container();
        host.setup(&one, &first);
        kill(&host, one, 0);
        std::fs::remove_dir_all(host.config.join("firewall")).unwrap();
        let two = host.container();
        host.setup(&two, &second);
        has_the_port(&host, &[&far], &two, "successor");
        assert_eq!(host.rules().matches("dnat ip to").count(), 2, "{}", host.rules());
        late(&host, &first);
        has_the_port(&host, &[&far], &two, "late teardown");
        host.teardown(&two, &second);
        clean(&host);
    }
}

#[test]
fn a_container_of_another_network_has_the_port() {
    let host = host!(ours "a_container_of_another_network_has_the_port");
    let far = lan(&host);
    let first = with_port("one", join(2));
    let one = host.container();
    host.setup(&one, &first);
    kill(&host, one, 0);
    let other = Join::bridge("other", "podman1", &["10.89.0.1/16", "fd10:89::1/64"]);
    let second = with_port("two", other);
    let two = host.container();
    host.setup(&two, &second);
    has_the_port(&host, &[&far], &two, "successor");
    // A reload brings nothing of it back.
    assert!(host.machine.sh("nft flush ruleset").unwrap().success());
    assert!(
        host.cmd(&["firewall-reload"]).run(Duration::from_secs(1)).is_err() || host.rules().contains("8080")
    );
    late(&host, &first);
    has_the_port(&host, &[&far], &two, "late teardown");
    host.teardown(&two, &second);
    assert!(!host.rules().contains("8080"), "{}", host.rules());
}

#[test]
fn the_living_keep_their_port_when_one_with_the_same_leaves() {
    let host = host!(ours "the_living_keep_their_port_when_one_with_the_same_leaves");
    let far = lan(&host);
    let (first, second) = (with_port("one", join(2)), with_port("two", join(3)));
    let (one, two) = (host.container(), host.container());
    host.setup(&one, &first);
    host.setup(&two, &second);
    let reload = || {
        assert!(host.machine.sh("nft delete table inet netavark").unwrap().success());
        host.cmd(&["firewall-reload"]).ok(LIMIT).unwrap();
    };
    has_the_port(&host, &[&far], &two, "the newest");
    reload();
    has_the_port(&host, &[&far], &two, "the newest after a reload");
    host.teardown(&one, &first);
    host.setup(&one, &first);
    reload();
    has_the_port(&host, &[&far], &one, "the other one after a reload, when it is the newest");
    host.teardown(&two, &second);
    has_the_port(&host, &[&far], &one, "the one that is left");
    host.setup(&two, &second);
    host.teardown(&one, &first);
    has_the_port(&host, &[&far], &two, "the newest alone");
    host.teardown(&two, &second);
    clean(&host);
}

#[test]
fn the_same_container_starts_again_without_a_teardown() {
    let host = host!(ours "the_same_container_starts_again_without_a_teardown");
    let far = lan(&host);
    let neighbour = host.container();
    host.setup(&neighbour, &request("n", &[join(9)]));
    let one = host.container();
    host.setup(&one, &with_port("one", join(2)));
    kill(&host, one, 1);
    let again = publish(request("one", &[join(3)]), &[("", 8080, 80, "tcp", 1)]);
    let one = host.container();
    host.setup(&one, &again);
    has_the_port(&host, &[&far], &one, "again");
    let rules = host.rules();
    assert!(!rules.contains("9000") && !rules.contains("10.88.0.2:"), "{rules}");
    host.teardown(&one, &again);
    host.teardown(&neighbour, &request("n", &[join(9)]));
    clean(&host);
}

/// The definition has changed meanwhile; what was made goes, not what would be made now.
#[test]
fn a_teardown_goes_by_what_was_made() {
    let host = host!(ours "a_teardown_goes_by_what_was_made");
    let neighbour = host.container();
    host.setup(&neighbour, &request("n", &[join(9)]));
    let one = host.container();
    host.setup(&one, &with_port("one", join(2)));
    let now = Join::bridge("podman", "podman0", &["10.87.0.1/24", "fd10:87::1/64"]);
    host.teardown(&one, &with_port("one", now));
    assert!(!host.rules().contains("8080"), "{}", host.rules());
    host.teardown(&neighbour, &request("n", &[join(9)]));
    clean(&host);
}

/// Peers that keep sending, with the address and the host's port of the one before, but another port inside.
#[test]
fn udp_peers_find_the_successor() {
    let host = host!(ours "udp_peers_find_the_successor");
    let far = lan(&host);
    let peer = far.within(|| UdpSocket::bind("198.51.100.2:0")).unwrap();
    let send = || peer.send_to(b"x", "198.51.100.1:9000").unwrap();
    let first = with_port("one", join(2));
    let one = host.container();
    host.setup(&one, &first);
    let server = one.within(|| UdpSocket::bind("10.88.0.2:90")).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    send();
    server.recv(&mut [0; 8]).unwrap();
    drop(server);
    kill(&host, one, 0);
    let second = publish(request("two", &[join(2)]), &[("", 9000, 91, "udp", 1)]);
    let two = host.container();
    host.setup(&two, &second);
    let server = two.within(|| UdpSocket::bind("10.88.0.2:91")).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    send();
    server.recv(&mut [0; 8]).expect("the successor hears it");
    late(&host, &first);
    send();
    server.recv(&mut [0; 8]).expect("after the late teardown");
}

#[test]
fn a_name_is_the_successors() {
    let Some(host) = Host::fixture("a_name_is_the_successors", &["dig"]) else { return };
    if !host.is_ours() {
        println!("SKIP a_name_is_the_successors: the original answers with the dead");
        return;
    }
    let Some(host) = host.with_dns("a_name_is_the_successors") else { return };
    let named = |join: Join, aliases: &[&str]| {
        join.with("dns_enabled", true)
            .own("aliases", aliases.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    };
    let other = |last: u8| {
        Join::bridge("other", "podman1", &["10.89.0.1/16", "fd10:89::1/64"])
            .addresses(&[&format!("10.89.0.{last}"), &format!("fd10:89::{last}")])
    };
    // It is on both networks, and asks at both servers.
    let neighbour = host.container();
    let joins = [named(join(9), &[]), named(other(9), &[]).own("interface_name", "eth1")];
    host.setup(&neighbour, &request("n", &joins));
    let ask = |server: &str| {
        let lookup = |kind| format!("dig +short +time=1 +tries=2 @{server} web.dns.podman {kind}");
        neighbour.sh(&format!("{}; {}", lookup("A"), lookup("AAAA"))).unwrap().out()
    };
    let becomes = |wanted: &str| {
        let end = slipway_lab::now() + Duration::from_secs(3);
        for server in ["10.88.0.1", "10.89.0.1"] {
            while ask(server) != wanted {
                assert!(slipway_lab::now() < end, "{server}: {}", ask(server));
            }
        }
    };
    let first = request("one", &[named(join(2), &["web"])]);
    let one = host.container();
    host.setup(&one, &first);
    becomes("10.88.0.2\nfd10:88::2\n");
    kill(&host, one, 2);
    let second = request("two", &[named(join(3), &["web"])]);
    let two = host.container();
    host.setup(&two, &second);
    becomes("10.88.0.3\nfd10:88::3\n");
    // The next successor is on the other network.
    kill(&host, two, 2);
    let third = request("three", &[named(other(4), &["web"])]);
    let three = host.container();
    host.setup(&three, &third);
    becomes("10.89.0.4\nfd10:89::4\n");
    late(&host, &first);
    late(&host, &second);
    becomes("10.89.0.4\nfd10:89::4\n");
}
