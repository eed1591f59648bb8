//! What TCP carries beside bytes: keepalive, urgent data.

use slipway_lab::{Container, HOST4, LIMIT, Lab, Subject, WORLD4};
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A connection through the stack, from one end and the other; what keeps it alive comes along.
struct Connection {
    lab: Lab,
    _container: Container,
    _slirp: slipway_lab::Slirp,
    guest: TcpStream,
    world: TcpStream,
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::from((address.parse::<Ipv4Addr>().unwrap(), port))
}

impl Connection {
    /// `published`: the guest is the server.
    fn new((lab, _): (Lab, Subject), published: bool) -> Self {
        let container = lab.container().unwrap();
        let options = ["-c", "--mtu=1500", "--enable-seccomp", "--api-socket=api.sock"];
        let slirp = lab.slirp(&container, &options).unwrap();
        let open = |to: SocketAddr| TcpStream::connect_timeout(&to, LIMIT);
        let accept = |listener: TcpListener| -> io::Result<TcpStream> { Ok(listener.accept()?.0) };
        let (guest, world) = if published {
            let listener = container.within(|| TcpListener::bind(at("0.0.0.0", 9000))).unwrap();
            slirp.publish("tcp", 9000, 9000).unwrap();
            let world = lab.within_world(|| open(at(HOST4, 9000))).unwrap();
            (accept(listener).unwrap(), world)
        } else {
            let listener = lab.within_world(|| TcpListener::bind(at(WORLD4, 9000))).unwrap();
            (container.within(|| open(at(WORLD4, 9000))).unwrap(), accept(listener).unwrap())
        };
        for stream in [&guest, &world] {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
        }
        Self { lab, _container: container, _slirp: slirp, guest, world }
    }
}

fn keepalive(name: &'static str, published: bool) {
    let Some((lab, subject)) = slipway_lab::fixture(name, &[]) else { return };
    if !subject.is_slipway() || !lab.by_root() {
        println!("SKIP {name}: not for the original, and only in a lab made by root");
        return;
    }
    let mut connection = Connection::new((lab, subject), published);
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(&connection.guest, sockopt::TcpKeepIdle, &1).unwrap();
    setsockopt(&connection.guest, sockopt::TcpKeepInterval, &1).unwrap();
    setsockopt(&connection.guest, sockopt::TcpKeepCount, &3).unwrap();
    setsockopt(&connection.guest, sockopt::KeepAlive, &true).unwrap();
    // Two probes while the peer lives.
    std::thread::sleep(Duration::from_millis(3500));
    connection.lab.world(["ip", "link", "set", "veth0", "down"]).ok(LIMIT).unwrap();
    let error = connection.guest.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

#[test]
fn a_dead_peer_is_found_in_the_rhythm_of_the_guests_keepalive() {
    keepalive("a_dead_peer_is_found_in_the_rhythm_of_the_guests_keepalive", false);
}

#[test]
fn a_dead_client_of_a_published_port_is_found_in_the_rhythm_of_the_guests_keepalive() {
    keepalive("a_dead_client_of_a_published_port_is_found_in_the_rhythm_of_the_guests_keepalive", true);
}
