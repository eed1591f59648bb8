//! What launchers ask for who ship their own front.

use super::*;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use slipway_host::sys::fdpass::send_all;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd};

const SSH: &str = "/extension/wait_port?ip=192.168.127.2&port=22";

#[test]
fn a_port_is_waited_for_until_the_guest_takes_a_connection() {
    let office = Office::open(Settings::default());
    let api = office.listen("api", Door::Services);
    assert_eq!(asked(&api, &get(SSH)), (200, String::new()));
    let (guest, mut peer) = office.with(|_, network| network.peers.pop()).unwrap();
    assert_eq!(guest.to_string(), "192.168.127.2:22");
    peer.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(peer.read(&mut [0]).unwrap(), 0, "nothing is sent there");
    // Nobody answers, and then somebody does.
    office.with(|_, network| network.refuse = true);
    let waiting = std::thread::spawn({
        let api = api.clone();
        move || asked(&api, &get(&format!("{SSH}&timeout=60")))
    });
    assert_eq!(
        asked(&api, &get(&format!("{SSH}&timeout=1"))),
        (408, "timed out waiting for port to become available on 192.168.127.2:22\n".to_owned())
    );
    office.with(|_, network| network.refuse = false);
    assert_eq!(waiting.join().unwrap(), (200, String::new()));
    assert_eq!(asked(&api, &get("/extension/wait_port?ip=x")), (400, "invalid ip address: x\n".to_owned()));
    let inside = answer(office.guest("192.168.127.2:1000"), &get(SSH));
    assert_eq!(parts(&inside).0, 404, "guests have no business with each other's ports");
}

/// Many who wait, and many who have gone: they hold up neither others nor themselves for longer than they said.
#[test]
fn whoever_waits_holds_up_nobody() {
    let office = Office::open(Settings::default());
    let api = office.listen("api", Door::Whole);
    office.with(|_, network| network.refuse = true);
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let mut client = UnixStream::connect(&api).unwrap();
            client.write_all(get(&format!("{SSH}&timeout=600")).as_bytes()).unwrap();
            client
        })
        .collect();
    assert_eq!(asked(&api, &get(&format!("{SSH}&timeout=1"))).0, 408);
    assert_eq!(asked(&api, &get("/leases")).0, 200);
    drop(waiting);
    office.with(|_, network| network.refuse = false);
    assert_eq!(asked(&api, &get(SSH)).0, 200);
}

fn hand_over(at: &Path, descriptors: &[BorrowedFd<'_>]) -> String {
    let mut client = UnixStream::connect(at).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    send_all(client.as_fd(), &[0], descriptors).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_descriptor_is_handed_on_and_nothing_else_is_heard_there() {
    let office = Office::open(Settings::default());
    let at = office.listen("fd", Door::Descriptors);
    let pair = || socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let (ours, theirs) = pair();
    assert_eq!(hand_over(&at, &[theirs.as_fd()]), "OK\n");
    let adopted = office.with(|_, network| network.adopted.pop()).unwrap();
    nix::unistd::write(&adopted, b"frame").unwrap();
    let mut frame = [0; 9];
    assert_eq!(nix::unistd::read(&ours, &mut frame), Ok(5));
    assert_eq!(hand_over(&at, &[]), "a descriptor is wanted\n");
    let two = [ours.as_fd(), theirs.as_fd()];
    assert_eq!(hand_over(&at, &two), "one descriptor is wanted, not 2\n");
    assert_eq!(answer(UnixStream::connect(&at).unwrap(), &get("/leases")), "a descriptor is wanted\n");
    // Somebody who says nothing is in nobody's way.
    let _silent = UnixStream::connect(&at).unwrap();
    assert_eq!(hand_over(&at, &[theirs.as_fd()]), "OK\n");
}

#[test]
fn an_address_is_kept_for_a_station() {
    let office = Office::open(Settings::default());
    let api = office.listen("api", Door::Services);
    let keep = |body: &str| asked(&api, &post("/services/dhcp/add", body));
    assert_eq!(keep(r#"{"ip":"192.168.127.7","mac":"52-54-00-12-34-AB"}"#), (200, String::new()));
    let kept = office.with(|_, network| network.kept.pop()).unwrap();
    assert_eq!(kept, (Ipv4Addr::new(192, 168, 127, 7), "52:54:00:12:34:ab".parse().unwrap()));
    for (body, why) in [
        ("", "EOF\n"),
        ("{}", "invalid IP address: \n"),
        (r#"{"ip":"fd00::1","mac":"52:54:00:12:34:ab"}"#, "invalid IP address: fd00::1\n"),
        (r#"{"ip":"192.168.127.7","mac":"5"}"#, "address 5: invalid MAC address\n"),
        (
            r#"{"ip":1}"#,
            "json: cannot unmarshal number into Go struct field LeaseRequest.ip of type string\n",
        ),
    ] {
        assert_eq!(keep(body), (400, why.to_owned()), "{body}");
    }
    assert_eq!(asked(&api, &get("/services/dhcp/add")), (400, "post only\n".to_owned()));
}
