//! What bridges do to others: nobody but the host reaches its loopback by them, and internal ones lead nowhere.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use slipway_lab::{LIMIT, Namespace};

use crate::host;
use crate::place::Host;
use crate::request::{Join, publish, request};

const V4: &str = "10.88.0.1/16";
const V6: &str = "fd10:88::1/64";

/// How long who is not to be heard is listened for.
const SILENCE: Duration = Duration::from_millis(700);

/// Lets a namespace send to 127/8 by its gateway, and take what comes from there.
pub(crate) fn loopback_by(link: &str, gateway: &str) -> String {
    format!(
        "ip address flush dev lo && ip route add 127.0.0.0/8 via {gateway} && \
         echo 1 > /proc/sys/net/ipv4/conf/{link}/route_localnet"
    )
}

fn bridge(gateways: &[&str]) -> Join {
    Join::bridge("podman", "podman0", gateways)
}

/// A neighbour of the host at 198.51.100.2.
pub(crate) fn neighbour(host: &Host) -> Namespace {
    neighbour_in(host, "far", "198.51.100")
}

/// A neighbour at the second address of a network.
fn neighbour_in(host: &Host, link: &str, net: &str) -> Namespace {
    let far = host.container();
    let made = format!(
        "ip link add {link}0 type veth peer name {link}1 netns {} && ip link set {link}0 up && \
         ip address add {net}.1/24 dev {link}0",
        far.pid()
    );
    assert!(host.machine.sh(&made).unwrap().success());
    let theirs = format!(
        "ip link set lo up && ip link set {link}1 up && ip address add {net}.2/24 dev {link}1 && \
         ip route add default via {net}.1"
    );
    assert!(far.sh(&theirs).unwrap().success());
    far
}

/// A way from one place to `address` of another, past the host: it sees half of each connection only.
fn shortcut(host: &Host, from: &Namespace, to: &Namespace, address: &str) {
    let link = format!("ip link add cut0 netns {} type veth peer name cut1 netns {}", from.pid(), to.pid());
    assert!(host.machine.sh(&link).unwrap().success());
    let there = "ip link set cut1 up && ip address add 192.0.2.2/30 dev cut1";
    assert!(to.sh(there).unwrap().success());
    let back = format!(
        "ip link set cut0 up && ip address add 192.0.2.1/30 dev cut0 && ip route add {address} via 192.0.2.2"
    );
    assert!(from.sh(&back).unwrap().success());
    for place in [from, to] {
        let loose = "for conf in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $conf; done";
        assert!(place.sh(loose).unwrap().success());
    }
}

/// Greets whoever connects.
pub(crate) fn greeting(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().take(8) {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(b"hello");
        }
    });
}

/// Whether one is greeted there.
pub(crate) fn greeted(to: &str) -> std::io::Result<bool> {
    let to: SocketAddr = to.parse().unwrap();
    let Ok(mut stream) = TcpStream::connect_timeout(&to, SILENCE) else { return Ok(false) };
    stream.set_read_timeout(Some(SILENCE))?;
    Ok(stream.read(&mut [0; 16]).is_ok_and(|count| count > 0))
}

fn without_the_chain(host: &Host) {
    assert!(host.machine.sh("nft flush chain inet netavark LOOPBACK").unwrap().success());
}

#[test]
fn a_container_does_not_reach_the_hosts_loopback_by_its_gateway() {
    let host = host!(ours "a_container_does_not_reach_the_hosts_loopback_by_its_gateway");
    let container = host.container();
    let request = request("one", &[bridge(&[V4])]);
    host.setup(&container, &request);
    greeting(host.machine.within(|| TcpListener::bind("127.0.0.1:9999")).unwrap());
    let server = host.machine.within(|| UdpSocket::bind("0.0.0.0:9998")).unwrap();
    server.set_read_timeout(Some(SILENCE)).unwrap();
    // Such a source would be refused anyway, but for this.
    assert!(host.machine.sh("echo 1 > /proc/sys/net/ipv4/conf/podman0/accept_local").unwrap().success());
    let prepared = container
        .sh(&format!("{} && ip address add 127.0.0.2/32 dev eth0", loopback_by("eth0", "10.88.0.1")))
        .unwrap();
    assert!(prepared.success(), "{prepared}");
    let reaches = || container.within(|| greeted("127.0.0.1:9999")).unwrap();
    let is_heard = || {
        let send = || UdpSocket::bind("127.0.0.2:0")?.send_to(b"x", "10.88.0.1:9998");
        container.within(send).unwrap();
        server.recv_from(&mut [0; 16]).is_ok()
    };
    assert!(!reaches() && !is_heard(), "{}", host.rules());
    // It is the chain that keeps it out.
    without_the_chain(&host);
    assert!(reaches() && is_heard());
    host.teardown(&container, &request);
    assert!(!host.rules().contains("LOOPBACK"), "{}", host.rules());
    host.is_clean();
}

/// Nobody closes the loopback to it, so it is not opened.
#[test]
fn without_rules_a_bridge_does_not_open_the_loopback() {
    let mut host = host!(ours "without_rules_a_bridge_does_not_open_the_loopback");
    host.environment.push(("NETAVARK_FW", "none".to_owned()));
    let container = host.container();
    let request = request("one", &[bridge(&[V4])]);
    host.setup(&container, &request);
    greeting(host.machine.within(|| TcpListener::bind("127.0.0.1:9999")).unwrap());
    let prepared = container.sh(&loopback_by("eth0", "10.88.0.1")).unwrap();
    assert!(prepared.success(), "{prepared}");
    let reaches = || container.within(|| greeted("127.0.0.1:9999")).unwrap();
    assert!(!reaches());
    // It would be open.
    let opened = "echo 1 > /proc/sys/net/ipv4/conf/podman0/route_localnet";
    assert!(host.machine.sh(opened).unwrap().success());
    assert!(reaches());
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn a_port_for_the_loopback_is_the_hosts_own() {
    let host = host!(ours "a_port_for_the_loopback_is_the_hosts_own");
    let far = neighbour(&host);
    let container = host.container();
    let request = publish(request("one", &[bridge(&[V4])]), &[("127.0.0.1", 8080, 80, "tcp", 1)]);
    host.setup(&container, &request);
    greeting(container.within(|| TcpListener::bind("0.0.0.0:80")).unwrap());
    let prepared = far.sh(&loopback_by("far1", "198.51.100.1")).unwrap();
    assert!(prepared.success(), "{prepared}");
    let reaches = || far.within(|| greeted("127.0.0.1:8080")).unwrap();
    assert!(host.machine.within(|| greeted("127.0.0.1:8080")).unwrap());
    assert!(!reaches(), "{}", host.rules());
    // It comes back with the other rules.
    assert!(host.machine.sh("nft flush ruleset").unwrap().success());
    host.cmd(&["firewall-reload"]).ok(LIMIT).unwrap();
    assert!(host.machine.within(|| greeted("127.0.0.1:8080")).unwrap());
    assert!(!reaches(), "{}", host.rules());
    without_the_chain(&host);
    assert!(reaches());
    host.teardown(&container, &request);
    assert!(host.machine.sh("ip link delete far0").unwrap().success());
    host.is_clean();
}

#[test]
fn a_port_for_the_loopback_of_ipv6_is_nobody_elses() {
    let host = host!(ours "a_port_for_the_loopback_of_ipv6_is_nobody_elses");
    // Elsewhere the kernel drops what comes in for ::1 before there is any rule.
    if !host.machine.sh("echo 1 > /proc/sys/net/bridge/bridge-nf-call-ip6tables").unwrap().success() {
        println!("SKIP a_port_for_the_loopback_of_ipv6_is_nobody_elses: no br_netfilter");
        return;
    }
    let (server, client) = (host.container(), host.container());
    let published = publish(request("one", &[bridge(&[V4, V6])]), &[("::1", 8080, 80, "udp", 1)]);
    let second = request("two", &[bridge(&[V4, V6]).addresses(&["10.88.0.3", "fd10:88::3"])]);
    host.setup(&server, &published);
    host.setup(&client, &second);
    let socket = server.within(|| UdpSocket::bind("[::]:80")).unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let by_gateway = "ip -6 address del ::1/128 dev lo && \
                      ip -6 route add ::1/128 via fd10:88::1";
    let prepared = client.sh(by_gateway).unwrap();
    assert!(prepared.success(), "{prepared}");
    let reaches = || {
        client.within(|| UdpSocket::bind("[::]:0")?.send_to(b"x", "[::1]:8080")).unwrap();
        socket.recv_from(&mut [0; 16]).is_ok()
    };
    assert!(!reaches(), "{}", host.rules());
    without_the_chain(&host);
    assert!(reaches());
    host.teardown(&client, &second);
    host.teardown(&server, &published);
    host.is_clean();
}

/// Its containers can make themselves routes, and the host may forward for everybody.
#[test]
fn an_internal_network_is_closed_where_the_host_forwards() {
    let host = host!(ours "an_internal_network_is_closed_where_the_host_forwards");
    let far = neighbour(&host);
    let (one, two) = (host.container(), host.container());
    let join = || bridge(&[V4, V6]).with("internal", true);
    let requests =
        [request("one", &[join()]), request("two", &[join().addresses(&["10.88.0.3", "fd10:88::3"])])];
    host.setup(&one, &requests[0]);
    host.setup(&two, &requests[1]);
    let opened = "ip address add fd51::1/64 dev far0 nodad && cd /proc/sys/net && \
                  echo 0 > ipv4/ip_forward && echo 1 > ipv4/ip_forward && echo 1 > ipv6/conf/all/forwarding";
    assert!(host.machine.sh(opened).unwrap().success());
    let theirs = "ip address add fd51::2/64 dev far1 nodad && ip -6 route add default via fd51::1";
    assert!(far.sh(theirs).unwrap().success());
    let routes = "ip route add default via 10.88.0.1 && ip -6 route add default via fd10:88::1";
    assert!(one.sh(routes).unwrap().success());
    let answers = |place: &Namespace, to: &str| {
        place.sh(&format!("ping -c1 -W2 {to} || ping -c1 -W2 {to}")).unwrap().success()
    };
    let pairs = [(&one, "198.51.100.2"), (&one, "fd51::2"), (&far, "10.88.0.2"), (&far, "fd10:88::2")];
    let ways = || pairs.map(|(place, to)| answers(place, to));
    assert_eq!(ways(), [false; 4], "{}", host.rules());
    // What stays on the bridge does not pass by there, and the host is no part of it.
    let _ = host.machine.sh("cd /proc/sys/net/bridge && echo 1 | tee bridge-nf-call-ip{,6}tables");
    for to in ["10.88.0.3", "fd10:88::3", "10.88.0.1", "fd10:88::1"] {
        assert!(answers(&one, to), "{to}: {}", host.rules());
    }
    // It is this table that keeps it closed, and it comes back with the other rules.
    assert!(host.machine.sh("nft delete table inet netavark_internal").unwrap().success());
    assert_eq!(ways(), [true; 4]);
    host.cmd(&["firewall-reload"]).ok(LIMIT).unwrap();
    assert_eq!(ways(), [false; 4], "{}", host.rules());
    host.teardown(&two, &requests[1]);
    assert!(host.rules().contains("netavark_internal"));
    host.teardown(&one, &requests[0]);
    assert!(host.machine.sh("ip link delete far0").unwrap().success());
    host.is_clean();
}

#[test]
fn connections_of_others_that_the_host_sees_half_of_go_on() {
    let host = host!(ours "connections_of_others_that_the_host_sees_half_of_go_on");
    assert!(host.machine.sh("echo 1 > /proc/sys/net/ipv4/ip_forward").unwrap().success());
    let (one, two) = (neighbour(&host), neighbour_in(&host, "oth", "203.0.113"));
    shortcut(&host, &two, &one, "198.51.100.2");
    greeting(two.within(|| TcpListener::bind("0.0.0.0:80")).unwrap());
    let goes_on = || one.within(|| greeted("203.0.113.2:80")).unwrap();
    let container = host.container();
    let request = request("one", &[bridge(&[V4])]);
    host.setup(&container, &request);
    assert!(goes_on(), "{}", host.rules());
    host.teardown(&container, &request);
    assert!(goes_on(), "{}", host.rules());
    // So it was, and so it is no longer as soon as there is another container.
    let everybodys = "nft insert rule inet netavark FORWARD ct state invalid drop";
    assert!(host.machine.sh(everybodys).unwrap().success());
    assert!(!goes_on(), "{}", host.rules());
    host.setup(&container, &request);
    assert!(goes_on(), "{}", host.rules());
    host.teardown(&container, &request);
}

#[test]
fn what_is_invalid_does_not_pass_our_bridges() {
    let host = host!(ours "what_is_invalid_does_not_pass_our_bridges");
    let far = neighbour(&host);
    let container = host.container();
    let request = request("one", &[bridge(&[V4])]);
    host.setup(&container, &request);
    for place in [&far, &container] {
        greeting(place.within(|| TcpListener::bind("0.0.0.0:80")).unwrap());
    }
    let in_by = || far.within(|| greeted("10.88.0.2:80")).unwrap();
    let out_by = || container.within(|| greeted("198.51.100.2:80")).unwrap();
    // With the container's own address, so that the answers can take another way.
    let unchanged = "nft insert rule inet netavark POSTROUTING ip daddr 198.51.100.2 accept";
    assert!(host.machine.sh(unchanged).unwrap().success());
    assert!(in_by() && out_by(), "{}", host.rules());
    shortcut(&host, &container, &far, "198.51.100.2");
    assert!(far.sh("ip route add 10.88.0.2 via 198.51.100.1").unwrap().success());
    assert!(!in_by(), "{}", host.rules());
    assert!(host.machine.sh("nft flush chain inet netavark INVALID").unwrap().success());
    assert!(in_by());
    // The other way round.
    assert!(container.sh("ip route replace 198.51.100.2 via 10.88.0.1").unwrap().success());
    assert!(far.sh("ip route replace 10.88.0.2 via 192.0.2.1").unwrap().success());
    assert!(!out_by(), "{}", host.rules());
    assert!(host.machine.sh("nft flush chain inet netavark FORWARD").unwrap().success());
    assert!(out_by());
    host.teardown(&container, &request);
}

#[test]
fn packets_of_others_that_bear_our_mark_keep_their_source() {
    let host = host!(ours "packets_of_others_that_bear_our_mark_keep_their_source");
    assert!(host.machine.sh("echo 1 > /proc/sys/net/ipv4/ip_forward").unwrap().success());
    let (one, two) = (neighbour(&host), neighbour_in(&host, "oth", "203.0.113"));
    let marks = "nft add table inet mine && \
                 nft 'add chain inet mine c { type filter hook prerouting priority mangle; }' && \
                 nft add rule inet mine c iifname far0 meta mark set 0x2000";
    assert!(host.machine.sh(marks).unwrap().success());
    let container = host.container();
    host.setup(&container, &request("one", &[bridge(&[V4])]));
    let listener = two.within(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    one.within(|| TcpStream::connect_timeout(&"203.0.113.2:80".parse().unwrap(), LIMIT)).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip().to_string(), "198.51.100.2");
}
