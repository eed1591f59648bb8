//! What TCP carries beside bytes: keepalive, urgent data.

use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use slipway_lab::{Container, HOST4, LIMIT, Lab, Subject, WORLD4};
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
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

/// What `stream` has: bytes before the mark, the urgent byte read out of band, bytes behind it.
fn out_of_band(stream: &TcpStream) -> (Vec<u8>, u8, Vec<u8>) {
    let mut poll = [nix::poll::PollFd::new(stream.as_fd(), nix::poll::PollFlags::POLLPRI)];
    assert_eq!(nix::poll::poll(&mut poll, 20_000u16), Ok(1), "nothing urgent came");
    let mut urgent = [0];
    assert_eq!(recv(stream.as_raw_fd(), &mut urgent, MsgFlags::MSG_OOB), Ok(1));
    let mut stream = stream;
    let mut before = vec![0; 16];
    let mut got = 0;
    while got < 6 {
        // Reading stops short of the mark.
        got += stream.read(&mut before[got..6]).unwrap();
    }
    before.truncate(got);
    let mut behind = vec![0; 6];
    stream.read_exact(&mut behind).unwrap();
    (before, urgent[0], behind)
}

fn urgent(name: &'static str, published: bool) {
    let Some((lab, subject)) = slipway_lab::fixture(name, &[]) else { return };
    if !lab.by_root() {
        println!("SKIP {name}: the lab is not made by root");
        return;
    }
    let connection = Connection::new((lab, subject), published);
    let ends = [(&connection.guest, &connection.world), (&connection.world, &connection.guest)];
    for _ in 0..3 {
        for (from, to) in ends {
            let say = |bytes: &[u8], flags| assert_eq!(send(from.as_raw_fd(), bytes, flags), Ok(bytes.len()));
            say(b"before", MsgFlags::empty());
            say(b"U", MsgFlags::MSG_OOB);
            say(b"behind", MsgFlags::empty());
            assert_eq!(out_of_band(to), (b"before".to_vec(), b'U', b"behind".to_vec()));
        }
    }
    // In line for who asks for that.
    for (from, mut to) in ends {
        setsockopt(to, sockopt::OobInline, &true).unwrap();
        assert_eq!(send(from.as_raw_fd(), b"ABOR", MsgFlags::MSG_OOB), Ok(4));
        let mut got = [0; 4];
        to.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"ABOR");
    }
}

#[test]
fn urgent_data_is_out_of_band_at_both_ends() {
    urgent("urgent_data_is_out_of_band_at_both_ends", false);
}

#[test]
fn urgent_data_through_a_published_port_is_out_of_band_at_both_ends() {
    urgent("urgent_data_through_a_published_port_is_out_of_band_at_both_ends", true);
}
