//! What launchers ask of a whole process who ship their own front: it has its sandbox, and its two halves.

use super::Subject;
use super::life::{Life, until};
use super::t03_guests::ask_packets;
use super::t04_api::request;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use slipway_lab::hand_over;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

const FRONT: [&str; 6] = ["-listen-fd", "unix://@/fd", "-listen", "unix://@/api", "-ssh-port", "-1"];

fn start(ours: &Subject) -> Life {
    let life = Life::begin(ours, &FRONT);
    assert!(until(|| life.at("fd").exists()), "{:?}", life.said());
    life
}

/// A guest's end of a pair whose other end was handed over.
fn guest(life: &Life, kind: SockType) -> OwnedFd {
    let (theirs, guest) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
    assert_eq!(hand_over(&life.at("fd"), &[theirs.as_fd()]).unwrap(), "OK\n");
    guest
}

#[test]
fn sockets_that_are_handed_over_are_guests_one_after_the_other() {
    let Some(ours) = Subject::ours("sockets_that_are_handed_over_are_guests_one_after_the_other") else {
        return;
    };
    let mut life = start(&ours);
    // Each has the station of the one before, as a machine has that is started again.
    for kind in [SockType::Datagram, SockType::SeqPacket, SockType::Datagram, SockType::Datagram] {
        ask_packets(&guest(&life, kind));
    }
    assert!(life.child.try_wait().unwrap().is_none(), "it stays: {:?}", life.said());
    life.tell(Signal::SIGTERM);
    assert_eq!(life.ended(), Some(0));
    assert_eq!(life.files(), ["log"]);
}

#[test]
fn what_is_no_guests_socket_is_refused_with_a_word() {
    let Some(ours) = Subject::ours("what_is_no_guests_socket_is_refused_with_a_word") else { return };
    let life = start(&ours);
    let (stream, _other) = UnixStream::pair().unwrap();
    let alone = UnixDatagram::unbound().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    for (descriptors, said) in [
        (vec![], "a descriptor is wanted"),
        (vec![stream.as_fd(); 2], "one descriptor is wanted, not 2"),
        (vec![stream.as_fd()], "socket type not supported"),
        (vec![alone.as_fd()], "transport endpoint is not connected"),
        (vec![null.as_fd()], "socket operation on non-socket"),
    ] {
        assert_eq!(hand_over(&life.at("fd"), &descriptors).unwrap(), format!("{said}\n"));
    }
    ask_packets(&guest(&life, SockType::Datagram));
}

#[test]
fn ports_are_waited_for_and_addresses_kept() {
    let Some(ours) = Subject::ours("ports_are_waited_for_and_addresses_kept") else { return };
    let life = start(&ours);
    let api = life.at("api");
    let wait = request(&api, "GET", "/extension/wait_port?ip=192.168.127.2&port=22&timeout=1", "");
    assert_eq!(
        wait,
        (408, "timed out waiting for port to become available on 192.168.127.2:22\n".to_owned())
    );
    let keep = |ip: &str, mac: &str| {
        request(&api, "POST", "/services/dhcp/add", &format!("{{\"ip\":\"{ip}\",\"mac\":\"{mac}\"}}"))
    };
    assert_eq!(keep("192.168.127.7", "52:54:00:12:34:56"), (200, String::new()));
    let leases = request(&api, "GET", "/services/dhcp/leases", "").1;
    assert!(leases.contains("\"192.168.127.7\":\"52:54:00:12:34:56\""), "{leases}");
    let refused = |ip: &str, why: &str| {
        let said = format!("{ip} cannot be kept for 52:54:00:12:34:99: {why}\n");
        assert_eq!(keep(ip, "52:54:00:12:34:99"), (500, said));
    };
    refused("192.168.127.7", "somebody else has it");
    refused("192.168.127.2", "somebody else has it");
    refused("192.168.127.1", "no host of the network can have it");
    refused("10.0.0.1", "no host of the network can have it");
}
