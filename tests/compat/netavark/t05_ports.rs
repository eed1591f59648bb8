//! Published ports: the rules, and connections that use them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use slipway_lab::{LIMIT, Namespace};

use crate::host;
use crate::place::{Host, error, line};
use crate::request::{Join, id, publish, request, request6};

const V4: &str = "10.88.0.1/16";
const V6: &str = "fd10:88::1/64";

fn bridge() -> Join {
    Join::bridge("podman", "podman0", &[V4])
}

fn dnat(subnet: &str) -> String {
    let prefix: String = id("podman").chars().take(8).collect();
    format!("nv_{prefix}_{subnet}_dnat")
}

/// Says who asked, once for each of so many connections.
fn serve(container: &Namespace, port: u16, connections: usize) -> std::thread::JoinHandle<()> {
    let listener = container.within(|| TcpListener::bind(("::", port))).unwrap();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let Ok((mut stream, from)) = listener.accept() else { return };
            let _ = stream.write_all(from.ip().to_canonical().to_string().as_bytes());
        }
    })
}

/// Connects from the host and gives what the server says.
fn hear(host: &Host, to: &str) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().unwrap();
    host.machine.within(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

#[test]
fn the_rules_of_a_published_port() {
    let host = host!("the_rules_of_a_published_port");
    let container = host.container();
    let ports = [("", 8080, 80, "tcp", 1), ("198.51.100.7", 5000, 50, "udp", 3)];
    let request = publish(request("one", &[bridge()]), &ports);
    host.setup(&container, &request);
    let own = dnat("10_88_0_0_nm16");
    let jumps = [
        format!("tcp dport 8080 jump {own}"),
        format!("ip daddr 198.51.100.7 udp dport 5000-5002 jump {own}"),
    ];
    assert_eq!(host.chain("NETAVARK-HOSTPORT-DNAT"), jumps);
    let rules = host.chain(&own);
    let mark = "jump NETAVARK-HOSTPORT-SETMARK";
    assert_eq!(rules[0], format!("ip saddr 10.88.0.0/16 tcp dport 8080 {mark}"));
    assert_eq!(rules[1], format!("ip saddr 127.0.0.1 tcp dport 8080 {mark}"));
    assert!(
        rules[2].starts_with("tcp dport 8080 ") && rules[2].ends_with("dnat ip to 10.88.0.2:80"),
        "{rules:?}"
    );
    assert_eq!(rules[3], format!("ip saddr 10.88.0.0/16 ip daddr 198.51.100.7 udp dport 5000-5002 {mark}"));
    assert_eq!(rules[4], format!("ip saddr 127.0.0.1 ip daddr 198.51.100.7 udp dport 5000-5002 {mark}"));
    for (rule, number) in rules[5..].iter().zip(0..) {
        assert!(rule.starts_with(&format!("ip daddr 198.51.100.7 udp dport {} ", 5000 + number)), "{rule}");
        assert!(rule.ends_with(&format!("dnat ip to 10.88.0.2:{}", 50 + number)), "{rule}");
    }
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn a_port_is_reached_by_every_address_of_the_host() {
    let host = host!("a_port_is_reached_by_every_address_of_the_host");
    assert!(host.machine.sh("ip address add 198.51.100.7/32 dev lo").unwrap().success());
    let container = host.container();
    let join = Join::bridge("podman", "podman0", &[V4, V6]);
    let request = publish(request("one", &[join]), &[("", 8080, 80, "tcp", 1)]);
    host.setup(&container, &request);
    let ways = ["10.88.0.1:8080", "198.51.100.7:8080", "127.0.0.1:8080", "[fd10:88::1]:8080"];
    let _server = serve(&container, 80, ways.len() + 1);
    for way in ways {
        assert!(
            !hear(&host, way).unwrap_or_else(|error| panic!("{way}: {error}\n{}", host.rules())).is_empty()
        );
    }
    // From the container itself, around the corner. Where bridges hand their frames to the firewall, too, the kernel
    // finds out there that it would send back through the port it came from.
    let _ = host.machine.sh("echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables");
    let own = container.sh("curl -s -m 3 --http0.9 http://10.88.0.1:8080/").unwrap();
    assert!(own.out().contains("10.88.0.1"), "masqueraded: {own}");
    host.teardown(&container, &request);
    assert!(hear(&host, "198.51.100.7:8080").is_err());
    host.is_clean();
}

/// Translated, it would be lost to the host's own programs, and an answer would come from a broadcast address.
#[test]
fn a_broadcast_is_for_the_host_itself() {
    let host = host!("a_broadcast_is_for_the_host_itself");
    let far = host.container();
    let script = format!(
        "ip link add far0 type veth peer name far1 netns {} && ip link set far0 up && ip address add 198.51.100.1/24 brd + dev far0",
        far.pid()
    );
    assert!(host.machine.sh(&script).unwrap().success());
    let script = "ip link set far1 up && ip address add 198.51.100.2/24 brd + dev far1";
    assert!(far.sh(script).unwrap().success());
    let container = host.container();
    host.setup(&container, &publish(request("one", &[bridge()]), &[("", 10600, 10600, "udp", 1)]));
    let listen = || {
        let socket = UdpSocket::bind("0.0.0.0:10600")?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(socket)
    };
    let (own, published) = (host.machine.within(listen).unwrap(), container.within(listen).unwrap());
    let sender = far.within(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    sender.set_broadcast(true).unwrap();
    let mut heard = [0; 16];
    for (to, socket) in [("198.51.100.1", &published), ("198.51.100.255", &own), ("198.51.100.1", &published)]
    {
        sender.send_to(to.as_bytes(), (to, 10600)).unwrap();
        let length = socket.recv(&mut heard).unwrap_or_else(|error| panic!("{to}: {error}"));
        assert_eq!(&heard[..length], to.as_bytes());
    }
}

#[test]
fn a_client_from_afar_keeps_its_address() {
    let host = host!("a_client_from_afar_keeps_its_address");
    let far = host.container();
    let script = format!(
        "ip link add far0 type veth peer name far1 netns {} && ip link set far0 up && ip address add 198.51.100.1/24 dev far0",
        far.pid()
    );
    assert!(host.machine.sh(&script).unwrap().success());
    let script = "ip link set far1 up && ip address add 198.51.100.2/24 dev far1 && ip route add default via 198.51.100.1";
    assert!(far.sh(script).unwrap().success());
    let container = host.container();
    let request = publish(request("one", &[bridge()]), &[("", 8080, 80, "tcp", 1)]);
    host.setup(&container, &request);
    let _server = serve(&container, 80, 1);
    let shown = far.sh("curl -s -m 3 --http0.9 http://198.51.100.1:8080/").unwrap();
    assert_eq!(shown.out(), "198.51.100.2", "{shown}");
    // And the container's own connections carry the host's address.
    let listener = far.within(|| TcpListener::bind("198.51.100.2:9000")).unwrap();
    let seen = std::thread::spawn(move || listener.accept().map(|(_, from)| from.ip().to_string()));
    container
        .within(|| TcpStream::connect_timeout(&"198.51.100.2:9000".parse().unwrap(), Duration::from_secs(3)))
        .unwrap();
    assert_eq!(seen.join().unwrap().unwrap(), "198.51.100.1");
}

#[test]
fn host_addresses_decide_the_family() {
    let host = host!(ours "host_addresses_decide_the_family");
    let container = host.container();
    let ports =
        [("0.0.0.0", 8001, 80, "tcp", 1), ("::", 8002, 80, "tcp", 1), ("fd10:88::1", 8003, 80, "tcp", 1)];
    let join = Join::bridge("podman", "podman0", &[V4, V6]);
    let request = publish(request("one", &[join]), &ports);
    host.setup(&container, &request);
    let (four, six) =
        (host.chain(&dnat("10_88_0_0_nm16")).join("\n"), host.chain(&dnat("fd10-88--_nm64")).join("\n"));
    assert!(four.contains("8001") && !four.contains("8002") && !four.contains("8003"), "{four}");
    assert!(
        !six.contains("8001") && six.contains("8002") && six.contains("ip6 daddr fd10:88::1 tcp dport 8003"),
        "{six}"
    );
    assert!(six.contains("dnat ip6 to [fd10:88::2]:80"), "{six}");
    host.teardown(&container, &request);
    let bad = publish(request6("one", &[bridge()]), &[("localhost", 80, 80, "tcp", 1)]);
    let said = host.refused(&container, &bad);
    assert!(said.contains("invalid host ip \"localhost\" provided for port 80"), "{said}");
}

#[test]
fn ranges_are_reached_at_both_ends() {
    let host = host!("ranges_are_reached_at_both_ends");
    let container = host.container();
    let request = publish(request("one", &[bridge()]), &[("", 20000, 30000, "tcp", 500)]);
    host.setup(&container, &request);
    for (port, inside) in [(20000, 30000), (20250, 30250), (20499, 30499)] {
        let _server = serve(&container, inside, 1);
        assert!(hear(&host, &format!("10.88.0.1:{port}")).is_ok(), "{port}");
    }
    assert!(hear(&host, "10.88.0.1:20500").is_err());
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn two_containers_with_ports_do_not_disturb_each_other() {
    let host = host!("two_containers_with_ports_do_not_disturb_each_other");
    let (one, two) = (host.container(), host.container());
    let first = publish(request("one", &[bridge()]), &[("", 8001, 80, "tcp", 1)]);
    let second = publish(request("two", &[bridge().addresses(&["10.88.0.3"])]), &[("", 8002, 80, "tcp", 1)]);
    host.setup(&one, &first);
    host.setup(&two, &second);
    host.teardown(&one, &first);
    let rules = host.rules();
    assert!(!rules.contains("8001") && rules.contains("8002"), "{rules}");
    let _server = serve(&two, 80, 1);
    assert!(hear(&host, "10.88.0.1:8002").is_ok());
    host.teardown(&two, &second);
    host.is_clean();
}

#[test]
fn a_definition_that_was_spoilt_meanwhile_does_not_keep_ports_open() {
    let host = host!(ours "a_definition_that_was_spoilt_meanwhile_does_not_keep_ports_open");
    let spoilt_route = serde_json::json!([{"destination": "198.51.100.0/24", "route_type": "odd"}]);
    for (spoilt, complaint) in [
        (bridge().option("isolate", "odd"), "invalid isolate option \"odd\""),
        (bridge().option("mtu", "x"), "unable to parse \"mtu\": invalid digit found in string"),
        (bridge().with("routes", spoilt_route), "invalid route type \"odd\""),
    ] {
        let container = host.container();
        let of = |join| publish(request6("one", &[join]), &[("", 8080, 80, "tcp", 1)]);
        let spoilt = of(spoilt);
        assert_eq!(host.refused(&container, &spoilt), complaint);
        host.setup(&container, &of(bridge()));
        let output = host.cmd(&["teardown", &container.path()]).input(line(&spoilt)).run(LIMIT).unwrap();
        assert_eq!(error(&output), complaint);
        host.is_clean();
    }
}

#[test]
fn datagrams_find_a_new_container_at_once() {
    let host = host!(ours "datagrams_find_a_new_container_at_once");
    let client = host.machine.within(|| UdpSocket::bind("127.0.0.1:0")).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let asked = |container: &Namespace| -> bool {
        let server = container.within(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        client.send_to(b"x", "127.0.0.1:5353").unwrap();
        server.recv_from(&mut [0; 16]).is_ok()
    };
    let ports = [("", 5353, 53, "udp", 1)];
    let (one, two) = (host.container(), host.container());
    let first = publish(request("one", &[bridge()]), &ports);
    let second = publish(request("two", &[bridge().addresses(&["10.88.0.3"])]), &ports);
    host.setup(&one, &first);
    assert!(asked(&one));
    host.teardown(&one, &first);
    // The same client, the same port, another container: a connection entry of the old one must not catch it.
    host.setup(&two, &second);
    assert!(asked(&two));
    host.teardown(&two, &second);
}

#[test]
fn the_marks_of_podman_6() {
    let host = host!(ours "the_marks_of_podman_6");
    let container = host.container();
    let request = publish(request6("one", &[bridge()]), &[("", 8080, 80, "tcp", 1)]);
    host.setup(&container, &request);
    let rules = host.chain(&dnat("10_88_0_0_nm16"));
    assert_eq!(rules[2], "tcp dport 8080 ct mark set meta mark | 0x00001000 dnat ip to 10.88.0.2:80");
    assert_eq!(host.chain("FORWARD")[1], "ct mark & 0x00001000 == 0x00001000 accept");
    host.teardown(&container, &request);
    host.is_clean();
}
