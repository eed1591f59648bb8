use slipway_host::clock;
use slipway_host::device::{Link, Seqpacket};
use slipway_host::driver::{Driver, Interest, raise_descriptor_limit};
use slipway_netstack::Engine;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::Config;
use slipway_netstack::device::Capabilities;
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::slirp::{Ipv4Config, Slirp};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

pub(crate) fn config() -> Config {
    let v4 = Ipv4Config::slirp("10.0.2.0/24".parse().unwrap());
    let mac = MacAddr::of_gateway(v4.gateway.into());
    let v4 = Some(Ipv4Config { dns: None, dhcp: None, ..v4 });
    Config {
        plan: Plan::slirp(mac, &Slirp { v4, v6: None, host_loopback: true, internal: false }),
        ..Config::new(mac, slipway_host::random::keys().unwrap(), Capabilities::default())
    }
}

/// A driver and the guest's end of its link.
fn driver() -> (Driver, UnixDatagram) {
    let (link, guest) = link();
    (Driver::new(Engine::new(config()), link).unwrap(), guest)
}

/// A link and the guest's end of it.
pub(crate) fn link() -> (Link, UnixDatagram) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (ours, guests) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    (Link::from(Seqpacket::from_owned_fd(ours)), UnixDatagram::from(guests))
}

#[test]
fn foreign_descriptors_are_reported_by_token() {
    let (mut driver, _guest) = driver();
    let (here, mut there) = UnixStream::pair().unwrap();
    driver.watch(here.as_fd(), Interest::READ, 42).unwrap();
    let soon = || Some(clock::now() + Duration::from_millis(200));
    there.write_all(b"x").unwrap();
    for _ in 0..2 {
        let ready = driver.turn(soon()).unwrap();
        assert_eq!(ready.len(), 1, "level-triggered: told until it is read");
        assert_eq!((ready[0].token, ready[0].readable, ready[0].writable), (42, true, false));
        assert!(!ready[0].hangup && !ready[0].error);
    }
    (&here).read_exact(&mut [0]).unwrap();
    driver.modify(here.as_fd(), Interest::BOTH, 43).unwrap();
    let ready = driver.turn(soon()).unwrap();
    assert_eq!((ready[0].token, ready[0].readable, ready[0].writable), (43, false, true));
    driver.modify(here.as_fd(), Interest::NONE, 44).unwrap();
    assert!(driver.turn(soon()).unwrap().is_empty());
    drop(there);
    assert!(driver.turn(soon()).unwrap()[0].hangup, "hang-ups are told whatever the interest");
    driver.unwatch(here.as_fd());
    assert!(driver.turn(soon()).unwrap().is_empty());
}

#[test]
fn a_turn_ends_at_the_deadline_and_not_before() {
    let (mut driver, _guest) = driver();
    driver.turn(Some(clock::now())).unwrap();
    let deadline = clock::now() + Duration::from_millis(30);
    while clock::now() < deadline {
        driver.turn(Some(deadline)).unwrap();
    }
    assert!(clock::now() - deadline < Duration::from_millis(25));
}

#[test]
fn a_flood_of_frames_does_not_keep_others_from_their_turn() {
    let (mut driver, guest) = driver();
    let (here, mut there) = UnixStream::pair().unwrap();
    driver.watch(here.as_fd(), Interest::READ, 1).unwrap();
    let mut sent = 0u64;
    while sent < 1000 && guest.send(&[0xff; 60]).is_ok() {
        sent += 1;
    }
    assert!(sent > 64, "{sent}");
    there.write_all(b"x").unwrap();
    assert_eq!(driver.turn(None).unwrap().len(), 1, "told in the first round");
    for _ in 0..100 {
        driver.turn(Some(clock::now())).unwrap();
    }
    assert_eq!(driver.peek_engine().counters().frames_in, sent, "every frame reached the engine");
}

#[test]
fn small_frames_after_a_sleep_lose_nothing() {
    let (mut driver, guest) = driver();
    driver.turn(Some(clock::now())).unwrap();
    let sender = std::thread::spawn(move || {
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(2));
            guest.send(&[0xff; 60]).unwrap();
            guest.send(&[0xff; 60]).unwrap();
        }
        guest
    });
    let end = clock::now() + Duration::from_secs(5);
    while driver.peek_engine().counters().frames_in < 40 && clock::now() < end {
        driver.turn(Some(end)).unwrap();
    }
    assert_eq!(driver.peek_engine().counters().frames_in, 40);
    sender.join().unwrap();
}

#[test]
fn an_idle_driver_sleeps() {
    let (mut driver, _guest) = driver();
    driver.turn(Some(clock::now())).unwrap();
    let (mut rounds, end) = (0, clock::now() + Duration::from_millis(100));
    while clock::now() < end {
        driver.turn(Some(end)).unwrap();
        rounds += 1;
    }
    assert!(rounds <= 2, "{rounds} rounds in 100 ms of nothing");
}

#[test]
fn the_end_of_the_link_is_told_once_and_the_loop_goes_on_without_it() {
    let (mut driver, guest) = driver();
    let (here, mut there) = UnixStream::pair().unwrap();
    driver.watch(here.as_fd(), Interest::READ, 1).unwrap();
    drop(guest);
    let soon = || Some(clock::now() + Duration::from_millis(50));
    driver.turn(soon()).unwrap();
    assert_eq!(driver.take_loss().unwrap().reason.kind(), std::io::ErrorKind::UnexpectedEof);
    let before = clock::now();
    driver.turn(soon()).unwrap();
    assert!(clock::now() - before >= Duration::from_millis(50), "it sleeps");
    assert!(driver.take_loss().is_none());
    there.write_all(b"x").unwrap();
    assert_eq!(driver.turn(soon()).unwrap().len(), 1, "others are served");

    let (link, guest) = link();
    driver.join_link(link).unwrap();
    guest.send(&[0xff; 60]).unwrap();
    driver.turn(soon()).unwrap();
    assert_eq!(driver.peek_engine().counters().frames_in, 1, "the next guest is heard");
}

#[test]
fn the_next_guest_inherits_no_connection() {
    let (mut driver, _guest) = driver();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, from) = listener.accept().unwrap();
    driver.accept_tcp(OwnedFd::from(socket), from, "10.0.2.100:80".parse().unwrap()).unwrap();
    driver.close_links();
    let (link, _next) = link();
    driver.join_link(link).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(driver.peek_engine().flow_count(), 0);
}

#[test]
fn a_connection_that_the_engine_cannot_take_is_reset() {
    let (mut driver, _guest) = driver();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, from) = listener.accept().unwrap();
    // There is no IPv6 in this engine's configuration.
    let guest = "[2001:db8::1]:80".parse().unwrap();
    assert!(driver.accept_tcp(OwnedFd::from(socket), from, guest).is_err());
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn the_descriptor_limit_is_raised_to_the_hard_one() {
    let limit = raise_descriptor_limit().unwrap();
    assert_eq!(raise_descriptor_limit().unwrap(), limit);
}

/// An ARP request for the gateway's address.
fn arp_request() -> Vec<u8> {
    let mac = [2, 0, 0, 0, 0, 0x64];
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend([10, 0, 2, 100, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    frame
}

#[test]
fn a_link_without_room_is_waited_for() {
    const ASKED: usize = 900;
    let (mut driver, guest) = driver();
    let request = arp_request();
    let mut asked = 0;
    while asked < ASKED {
        asked += usize::from(guest.send(&request).is_ok());
        driver.turn(Some(clock::now())).unwrap();
    }
    driver.turn(Some(clock::now())).unwrap();
    assert!(driver.peek_engine().awaits_link(), "a guest that reads nothing has no room for {ASKED} answers");
    let before = clock::now();
    let mut rounds = 0;
    while clock::now() - before < Duration::from_millis(50) {
        driver.turn(Some(before + Duration::from_millis(50))).unwrap();
        rounds += 1;
    }
    assert!(rounds <= 3, "it sleeps: {rounds} rounds");
    let (mut answers, end) = (0, clock::now() + Duration::from_secs(5));
    while answers < ASKED && clock::now() < end {
        while guest.recv(&mut [0; 2048]).is_ok() {
            answers += 1;
        }
        driver.turn(Some(clock::now() + Duration::from_millis(1))).unwrap();
    }
    assert_eq!(answers, ASKED, "nothing is lost");
    assert!(!driver.peek_engine().awaits_link());
}
