//! The shortcut between two real namespaces, under the driver.

use super::*;
use crate::device::{Link, Seqpacket};
use crate::inside::tests::{loopback_up, start_in_new_namespace};
use crate::netlink::{Netlink, Request};
use crate::netns::testing::in_new_namespace;
use crate::upstream::prepare_listener;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use slipway_netstack::Engine;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::Config;
use slipway_netstack::device::Capabilities;
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::slirp::{Ipv4Config, Slirp};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};

/// The guest's own address.
const GUEST: &str = "10.9.9.9";
const PORT: u16 = 8080;

/// A driver in this namespace, a guest's in another.
struct Rig {
    driver: Driver,
    /// The other end of the guest's link.
    guest: OwnedFd,
    door: TcpListener,
}

impl Rig {
    fn new(shortcut: Shortcut) -> Self {
        loopback_up();
        let inside = start_in_new_namespace();
        let add = |inside: &Inside| {
            let lo = inside.ask(|| Netlink::open().unwrap().interface("lo").unwrap().index).unwrap();
            let net = format!("{GUEST}/32").parse().unwrap();
            inside.netlink(vec![Request::add_address(lo, net)]).unwrap().remove(0).unwrap();
        };
        add(&inside);
        let v4 = Ipv4Config::slirp("10.0.2.0/24".parse().unwrap());
        let mac = MacAddr::of_gateway(v4.gateway.into());
        let v4 = Some(Ipv4Config { dns: None, dhcp: None, ..v4 });
        let plan = Plan::slirp(mac, &Slirp { v4, v6: None, host_loopback: true, internal: false });
        let keys = crate::random::keys().unwrap();
        let config = Config { plan, ..Config::new(mac, keys, Capabilities::default()) };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (ours, guest) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let mut driver =
            Driver::new(Engine::new(config), Link::from(Seqpacket::from_owned_fd(ours))).unwrap();
        driver.set_inside(inside, shortcut).unwrap();
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        prepare_listener(door.as_fd());
        Self { driver, guest, door }
    }

    fn public() -> Shortcut {
        let guest = [Some(GUEST.parse().unwrap()), None];
        Shortcut { tcp: true, udp: true, loopback_destination: false, guest }
    }

    /// A listener inside, on an address and [`PORT`].
    fn service(&self, address: &'static str) -> TcpListener {
        let bind = move || TcpListener::bind((address, PORT));
        let service = self.driver.inside().unwrap().ask(bind).unwrap().unwrap();
        service.set_nonblocking(true).unwrap();
        service
    }

    fn turn(&mut self) {
        let soon = clock::now() + Duration::from_millis(1);
        self.driver.turn(Some(soon)).unwrap();
    }

    /// Rounds, ten thousand at most, until there is something.
    fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        for _ in 0..10_000 {
            if let Some(found) = look(self) {
                return found;
            }
            self.turn();
        }
        panic!("{what}");
    }

    fn accepted(&mut self, service: &TcpListener) -> (TcpStream, SocketAddr) {
        let (server, from) = self.until("a connection arrives", |_| service.accept().ok());
        server.set_nonblocking(true).unwrap();
        (server, from)
    }

    /// A client of the door, led across.
    fn client(&mut self) -> TcpStream {
        let client = TcpStream::connect(self.door.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let (accepted, from) = self.door.accept().unwrap();
        let local = accepted.local_addr().unwrap();
        self.driver.splice_tcp(Side::Host, accepted.into(), from, local, PORT).unwrap();
        client
    }

    /// What crosses from one end to the other.
    fn crosses(&mut self, mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8]) {
        from.write_all(bytes).unwrap();
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        self.until("it crosses", |_| {
            if let Ok(count) = to.read(&mut piece) {
                all.extend_from_slice(&piece[..count]);
            }
            (all.len() >= bytes.len()).then_some(())
        });
        assert_eq!(all, bytes);
    }

    /// Whether the engine has sent the guest anything that it knows as TCP.
    fn asks_the_guest(&self) -> bool {
        let mut frame = [0; 2048];
        nix::sys::socket::recv(self.guest.as_raw_fd(), &mut frame, nix::sys::socket::MsgFlags::MSG_DONTWAIT)
            .is_ok()
    }
}

#[test]
fn a_client_of_the_hosts_loopback_comes_out_at_the_guests_address() {
    in_new_namespace("a_client_of_the_hosts_loopback_comes_out_at_the_guests_address", || {
        let mut rig = Rig::new(Rig::public());
        let (public, private) = (rig.service(GUEST), rig.service("127.0.0.1"));
        for _ in 0..40 {
            let client = rig.client();
            let (server, from) = rig.accepted(&public);
            assert_eq!(from.ip().to_string(), GUEST, "as the kernel chooses");
            rig.crosses(&client, &server, b"ask");
            rig.crosses(&server, &client, b"answer");
        }
        assert!(private.accept().is_err(), "what listens on loopback alone is not exposed");
        assert!(!rig.asks_the_guest(), "not a packet");
        rig.until("all are over", |rig| (rig.driver.count_conversations() == 0).then_some(()));
        // With --host-lo-to-ns-lo it is.
        rig.driver.set_shortcut(Shortcut { loopback_destination: true, ..Rig::public() });
        let client = rig.client();
        let (server, _) = rig.accepted(&private);
        rig.crosses(&client, &server, b"ask");
        let conversation = rig.driver.conversations().next().unwrap();
        assert_eq!(conversation.server.to_string(), format!("127.0.0.1:{PORT}"));
        assert_eq!((conversation.side, conversation.client), (Side::Host, client.local_addr().unwrap()));
    });
}

#[test]
fn a_guest_without_a_public_address_is_reached_at_its_link_local_one() {
    let name = "a_guest_without_a_public_address_is_reached_at_its_link_local_one";
    if !crate::netns::testing::has_ipv6(name) {
        return;
    }
    in_new_namespace(name, || {
        let mut rig = Rig::new(Rig::public());
        let local = "[::1]:80".parse().unwrap();
        assert!(rig.driver.across(Proto::Tcp, Side::Host, (local, local), PORT).is_none(), "it has none");
        rig.driver.bypass.as_mut().unwrap().link_local = None;
        let inside = rig.driver.inside().unwrap();
        let lo = inside.ask(|| Netlink::open().unwrap().interface("lo").unwrap().index).unwrap();
        let add = Request::add_address_at_once(lo, "fe80::9/64".parse().unwrap());
        inside.netlink(vec![add]).unwrap().remove(0).unwrap();
        let service = rig.service("::");
        // The kernel makes the way to a new address a little later; what is sent before that is lost.
        let there = SocketAddrV6::new("fe80::9".parse().unwrap(), PORT, 0, lo).into();
        let inside = rig.driver.inside().unwrap();
        let arrives = move || TcpStream::connect_timeout(&there, Duration::from_millis(100)).is_ok();
        assert!((0..100).any(|_| inside.ask(arrives).unwrap()));
        rig.accepted(&service);
        let door = TcpListener::bind("[::1]:0").unwrap();
        let client = TcpStream::connect(door.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let (accepted, from) = door.accept().unwrap();
        let local = accepted.local_addr().unwrap();
        rig.driver.splice_tcp(Side::Host, accepted.into(), from, local, PORT).unwrap();
        let (server, _) = rig.accepted(&service);
        assert_eq!(server.local_addr().unwrap().to_string(), format!("[fe80::9%{lo}]:{PORT}"));
        rig.crosses(&client, &server, b"ask");
    });
}

#[test]
fn a_client_inside_reaches_the_hosts_loopback_and_nothing_else() {
    in_new_namespace("a_client_inside_reaches_the_hosts_loopback_and_nothing_else", || {
        let mut rig = Rig::new(Rig::public());
        let service = TcpListener::bind("127.0.0.5:0").unwrap();
        service.set_nonblocking(true).unwrap();
        let port = service.local_addr().unwrap().port();
        let door = rig.service("127.0.0.5");
        let connect = |from: &'static str| {
            move || {
                let fd = Kind::TcpV4.open().unwrap();
                let any = SocketAddr::new(from.parse().unwrap(), 0);
                nix::sys::socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
                let to: SocketAddr = format!("127.0.0.5:{PORT}").parse().unwrap();
                let _ = connect(fd.as_raw_fd(), &SockaddrStorage::from(to));
                TcpStream::from(fd)
            }
        };
        for from in ["127.0.0.1", "127.0.0.7"] {
            let client = rig.driver.inside().unwrap().ask(connect(from)).unwrap();
            let (accepted, address) = rig.accepted(&door);
            let local = accepted.local_addr().unwrap();
            rig.driver.splice_tcp(Side::Namespace, accepted.into(), address, local, port).unwrap();
            let (server, seen) = rig.accepted(&service);
            assert_eq!(seen.ip().to_string(), from, "loopback addresses are kept");
            rig.crosses(&client, &server, b"ask");
            rig.crosses(&server, &client, b"answer");
        }
        // A client with another address has no business there.
        let mut client = rig.driver.inside().unwrap().ask(connect(GUEST)).unwrap();
        let (accepted, address) = rig.accepted(&door);
        assert_eq!(address.ip().to_string(), GUEST);
        let local = accepted.local_addr().unwrap();
        let refused = rig.driver.splice_tcp(Side::Namespace, accepted.into(), address, local, port);
        assert!(refused.is_err());
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn without_a_socket_inside_clients_go_by_the_link() {
    in_new_namespace("without_a_socket_inside_clients_go_by_the_link", || {
        let mut rig = Rig::new(Rig::public());
        let service = rig.service(GUEST);
        // A thread that hangs is waited for, but not for ever; others are served meanwhile.
        let (release, hold) = std::sync::mpsc::channel::<()>();
        rig.driver.inside().unwrap().post(move || hold.recv().unwrap_or_default()).unwrap();
        let began = clock::now();
        let _slow = rig.client();
        assert!(clock::now() - began < patience(Side::Host), "nothing waits");
        rig.until("it goes by the link", |rig| rig.asks_the_guest().then_some(()));
        assert!(clock::now() - began >= patience(Side::Host));
        drop(release);
        let client = rig.client();
        let (server, _) = rig.accepted(&service);
        rig.crosses(&client, &server, b"by the shortcut again");
        // One that is gone is not waited for at all.
        std::panic::set_hook(Box::new(|_| {}));
        let _ = rig.driver.inside().unwrap().ask(|| panic!("an order fails")).map(|()| 0);
        let used_up = rig.until("sockets are used up", |rig| {
            let _client = rig.client();
            service.accept().is_err().then(|| rig.asks_the_guest() || clock::now() > began)
        });
        assert!(used_up);
    });
}

#[test]
fn where_nobody_listens_and_where_no_way_leads() {
    in_new_namespace("where_nobody_listens_and_where_no_way_leads", || {
        let mut rig = Rig::new(Rig::public());
        let mut client = rig.client();
        let error = rig.until("a reset", |_| match client.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            outcome => Some(outcome),
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionReset);
        // An address that the guest has not got (yet): as without a shortcut.
        let guest = [Some("192.0.2.7".parse().unwrap()), None];
        rig.driver.set_shortcut(Shortcut { guest, ..Rig::public() });
        let _client = rig.client();
        rig.until("it goes by the link", |rig| rig.asks_the_guest().then_some(()));
        // Nor is anything led across that did not come to a loopback address.
        rig.driver.set_shortcut(Rig::public());
        let stranger = "192.0.2.9:7".parse().unwrap();
        let local = rig.door.local_addr().unwrap();
        assert_eq!(rig.driver.across(Proto::Tcp, Side::Host, (stranger, local), 80).map(|_| ()), None);
        assert_eq!(rig.driver.across(Proto::Udp, Side::Namespace, (local, stranger), 80).map(|_| ()), None);
    });
}

#[test]
fn datagrams_cross_both_ways_with_the_clients_port() {
    in_new_namespace("datagrams_cross_both_ways_with_the_clients_port", || {
        let mut rig = Rig::new(Rig::public());
        let patience = Some(Duration::from_secs(10));
        let hosts = UdpSocket::bind("127.0.0.1:0").unwrap();
        let guests = rig.driver.inside().unwrap().ask(|| UdpSocket::bind((GUEST, PORT))).unwrap().unwrap();
        let loops = rig.driver.inside().unwrap().ask(|| UdpSocket::bind("127.0.0.1:0")).unwrap().unwrap();
        let away = rig.driver.inside().unwrap().ask(|| UdpSocket::bind("127.0.0.1:0")).unwrap().unwrap();
        let door = UdpSocket::bind("127.0.0.1:0").unwrap();
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (side, door, client, server) in
            [(Side::Host, &door, &here, &guests), (Side::Namespace, &loops, &away, &hosts)]
        {
            let at = door.local_addr().unwrap();
            let listener = Rc::new(OwnedFd::from(door.try_clone().unwrap()));
            server.set_nonblocking(true).unwrap();
            client.set_nonblocking(true).unwrap();
            door.set_read_timeout(patience).unwrap();
            for round in 0..3_u8 {
                let mut buffer = [0; 64];
                client.send_to(&[round; 5], at).unwrap();
                let (len, address) = door.recv_from(&mut buffer).unwrap();
                let guest = SocketAddr::from(([0; 4], server.local_addr().unwrap().port()));
                let payload = &buffer[..len];
                let client_at = Client { address, at };
                let train =
                    Forwarded { client: client_at, guest, payload, segment: len, meta: Meta::default() };
                rig.driver.splice_udp(side, &listener, &train).unwrap();
                let mut buffer = [0; 64];
                let (len, seen) = rig.until("it arrives", |_| server.recv_from(&mut buffer).ok());
                assert_eq!(buffer[..len], [round; 5]);
                assert_eq!(seen.port(), client.local_addr().unwrap().port(), "{side:?}: the port is kept");
                server.send_to(b"answer", seen).unwrap();
                let (len, from) = rig.until("the answer", |_| client.recv_from(&mut buffer).ok());
                assert_eq!((&buffer[..len], from), (&b"answer"[..], at));
            }
            assert_eq!(rig.driver.count_conversations(), 1);
            rig.driver.release_udp(&listener);
            assert_eq!(rig.driver.count_conversations(), 0);
        }
        assert!(!rig.asks_the_guest(), "not a packet");
    });
}
