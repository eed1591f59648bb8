//! What bridges do to others: nobody but the host reaches its loopback by them.

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
fn loopback_by(link: &str, gateway: &str) -> String {
    format!(
        "ip address flush dev lo && ip route add 127.0.0.0/8 via {gateway} && \
         echo 1 > /proc/sys/net/ipv4/conf/{link}/route_localnet"
    )
}

fn bridge(gateways: &[&str]) -> Join {
    Join::bridge("podman", "podman0", gateways)
}

/// A neighbour of the host at 198.51.100.2.
fn neighbour(host: &Host) -> Namespace {
    let far = host.container();
    let link = format!("ip link add far0 type veth peer name far1 netns {}", far.pid());
    let ours = "ip link set far0 up && ip address add 198.51.100.1/24 dev far0";
    assert!(host.machine.sh(&format!("{link} && {ours}")).unwrap().success());
    let theirs = "ip link set lo up && ip link set far1 up && ip address add 198.51.100.2/24 dev far1";
    assert!(far.sh(theirs).unwrap().success());
    far
}

/// Greets whoever connects.
fn greeting(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().take(8) {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(b"hello");
        }
    });
}

/// Whether one is greeted there.
fn greeted(to: &str) -> std::io::Result<bool> {
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
