//! A container that uses its own published port, by addresses of the host. Where the kernel has bridges hand their
//! frames to the firewall (br_netfilter; Docker and Kubernetes want it), the way there leads back through the port of
//! the bridge that the frame came from.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use slipway_lab::Namespace;

use crate::host;
use crate::place::Host;
use crate::request::{Join, publish, request};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(3));
const WAYS: [&str; 4] = ["10.88.0.1:8080", "198.51.100.7:8080", "[fd10:88::1]:8080", "[fd07::7]:8080"];

/// A server in the container that repeats what it hears, for so many clients.
fn repeat(container: &Namespace, clients: usize) {
    let (tcp, udp) =
        container.within(|| Ok((TcpListener::bind("[::]:80")?, UdpSocket::bind("[::]:80")?))).unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    std::thread::spawn(move || {
        for _ in 0..clients {
            let Ok((mut stream, _)) = tcp.accept() else { return };
            let mut heard = [0; 4];
            if stream.read_exact(&mut heard).is_ok() {
                let _ = stream.write_all(&heard);
            }
        }
    });
    std::thread::spawn(move || {
        let mut heard = [0; 64];
        for _ in 0..clients {
            let Ok((length, from)) = udp.recv_from(&mut heard) else { return };
            let _ = udp.send_to(&heard[..length], from);
        }
    });
}

fn ask_tcp(to: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
    stream.set_read_timeout(PATIENCE)?;
    stream.write_all(b"ping")?;
    let mut heard = vec![0; 4];
    stream.read_exact(&mut heard)?;
    Ok(heard)
}

fn ask_udp(to: SocketAddr) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(PATIENCE)?;
    socket.connect(to)?;
    socket.send(b"ping")?;
    let mut heard = vec![0; 64];
    let length = socket.recv(&mut heard)?;
    heard.truncate(length);
    Ok(heard)
}

/// With and without frames of bridges in the firewall.
fn reaches_itself(test: &str, firewalled: bool) {
    let Some(host) = Host::fixture(test, &[]) else { return };
    if !host.is_ours() {
        println!("SKIP {test}: the original does otherwise");
        return;
    }
    used(test, &host, firewalled);
}

/// By the container itself and by its neighbour.
pub(crate) fn used(test: &str, host: &Host, firewalled: bool) {
    let value = u8::from(firewalled);
    let script = format!(
        "cd /proc/sys/net/bridge && echo {value} > bridge-nf-call-iptables && echo {value} > bridge-nf-call-ip6tables"
    );
    if !host.machine.sh(&script).unwrap().success() {
        println!("SKIP {test}: the kernel has no br_netfilter");
        return;
    }
    let addresses = "ip link set lo up && ip address replace 198.51.100.7/32 dev lo && ip address replace fd07::7/128 dev lo nodad";
    assert!(host.machine.sh(addresses).unwrap().success());
    let (container, neighbour) = (host.container(), host.container());
    let join = || Join::bridge("podman", "podman0", &["10.88.0.1/16", "fd10:88::1/64"]);
    let ports = [("", 8080, 80, "tcp", 1), ("", 8080, 80, "udp", 1)];
    let published = publish(request("one", &[join()]), &ports);
    let two = request("two", &[join().addresses(&["10.88.0.3", "fd10:88::3"])]);
    host.setup(&container, &published);
    host.setup(&neighbour, &two);
    repeat(&container, 2 * WAYS.len());
    for (place, way) in WAYS.into_iter().flat_map(|way| [(&container, way), (&neighbour, way)]) {
        let to: SocketAddr = way.parse().unwrap();
        for (protocol, ask) in [("tcp", ask_tcp as fn(_) -> _), ("udp", ask_udp)] {
            let heard: std::io::Result<Vec<u8>> = place.within(|| ask(to));
            assert_eq!(heard.map_err(|error| error.to_string()), Ok(b"ping".to_vec()), "{protocol} {way}");
        }
    }
    host.teardown(&neighbour, &two);
    host.teardown(&container, &published);
}

#[test]
fn a_container_reaches_its_own_port_with_bridges_in_the_firewall() {
    reaches_itself("a_container_reaches_its_own_port_with_bridges_in_the_firewall", true);
}

#[test]
fn a_container_reaches_its_own_port_without() {
    reaches_itself("a_container_reaches_its_own_port_without", false);
}

/// Frames that lead back cost multicast a copy, so it is for those who need it alone.
#[test]
fn only_who_publishes_hears_itself() {
    let host = host!(ours "only_who_publishes_hears_itself");
    let (one, two) = (host.container(), host.container());
    let join = || Join::bridge("podman", "podman0", &["10.88.0.1/16"]);
    host.setup(&one, &publish(request("one", &[join()]), &[("", 8080, 80, "tcp", 1)]));
    host.setup(&two, &request("two", &[join().addresses(&["10.88.0.3"])]));
    let hairpin = |port: &str| {
        host.ip(&format!("link show {port}"))[0]["linkinfo"]["info_slave_data"]["hairpin"].clone()
    };
    assert_eq!((hairpin("veth0"), hairpin("veth1")), (true.into(), false.into()));
}
