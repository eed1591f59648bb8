//! What cannot be done is said, and leaves nothing behind.

use serde_json::{Value, json};
use std::io::Write as _;
use std::os::unix::net::UnixStream;

use crate::fixture;
use crate::place::Place;

fn with(place: &Place, field: &str, value: &Value) -> Value {
    let mut request = place.request();
    request[field] = value.clone();
    request
}

#[test]
fn t03_each_mistake_has_its_words() {
    let place = fixture!("t03_each_mistake_has_its_words");
    let _server = place.server("198.51.100.50", &[]);
    let _proxy = place.proxy(&[]);
    let fifo = place.dir().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let no_device = "Netlink error: No such device (os error 19)";
    for (field, value, text) in [
        (
            "container_mac_addr",
            json!(""),
            "unable to parse mac address : cannot parse integer from empty string",
        ),
        ("container_mac_addr", json!("123"), "unable to parse mac address 123"),
        ("container_mac_addr", json!("aa:bb"), "invalid mac length for address: aa:bb"),
        ("version", json!(7), "invalid protocol version"),
        ("container_iface", json!(""), no_device),
        ("container_iface", json!("veth990"), no_device),
        ("host_iface", json!("veth990"), no_device),
        ("host_iface", json!(""), no_device),
        ("ns_path", json!("/run/netns/missing"), "IO error: No such file or directory (os error 2)"),
        ("ns_path", json!("/dev/null"), "Invalid argument (os error 22)"),
        // Nobody will ever write to it.
        ("ns_path", json!(fifo), "Invalid argument (os error 22)"),
    ] {
        let said = place.refusal(&with(&place, field, &value));
        assert!(said.starts_with("Error: get DHCP lease: ") && said.contains(text), "{field}: {said}");
        assert_eq!(place.cache(), json!({}));
    }
    assert_eq!(place.lease("setup", &place.request())["yiaddr"], "198.51.100.50", "it serves on");
}

#[test]
fn t03_a_network_without_a_server_is_not_waited_for_in_vain() {
    let place = fixture!("t03_a_network_without_a_server_is_not_waited_for_in_vain");
    let proxy = place.proxy(&["-t", "1"]);
    let said = place.refusal(&place.request());
    assert!(said.contains("no DHCP server granted an address on br0 within 1 s"), "{said}");
    assert!(proxy.stderr().contains("no lease for"), "{}", proxy.stderr());
    assert_eq!(place.cache(), json!({}));
}

#[test]
fn t03_a_lease_that_cannot_be_set_is_given_back() {
    let place = fixture!("t03_a_lease_that_cannot_be_set_is_given_back");
    // The router is not on the network: the kernel refuses the route.
    let _server = place.server("198.51.100.50", &["--dhcp-option=3,192.0.2.99"]);
    let _proxy = place.proxy(&[]);
    let said = place.refusal(&place.request());
    assert!(said.contains("Network is unreachable (os error 101)"), "{said}");
    assert_eq!(place.cache(), json!({}));
    assert_eq!(place.in_container("ip -4 address show dev eth0"), "", "the address is gone again");
    Place::until("the server hears of it", || std::fs::read(place.server_leases()).unwrap().is_empty());
}

#[test]
fn t03_noise_on_the_socket_and_on_the_wire_is_borne() {
    let place = fixture!("t03_noise_on_the_socket_and_on_the_wire_is_borne");
    let mut proxy = place.proxy(&[]);
    for noise in
        [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""]
    {
        let mut stream = UnixStream::connect(place.socket()).unwrap();
        // It may hang up before it has read everything.
        let _ = stream.write_all(noise);
    }
    let silent = UnixStream::connect(place.socket()).unwrap();
    let flood = place.world.within(|| {
        let socket = std::net::UdpSocket::bind("198.51.100.1:67")?;
        socket.set_broadcast(true)?;
        Ok(socket)
    });
    let flood = flood.unwrap();
    let mut call = place.client("setup", &place.request()).start().unwrap();
    for len in 0..600_usize {
        let mut message = vec![2, 1, 6, 0, 1, 2, 3, 4];
        message.resize(28, 7);
        message.extend([2, 0, 0, 0, 0, 7]);
        message.resize(message.len() + len, 0x35);
        let _ = flood.send_to(&message, "198.51.100.255:68");
    }
    drop(flood);
    let _server = place.server("198.51.100.50", &[]);
    let output = call.finish(crate::LIMIT).unwrap().unwrap();
    assert!(output.success() && output.out().contains("198.51.100.50"), "{output}");
    assert!(proxy.ended().unwrap().is_none());
    drop(silent);
}
