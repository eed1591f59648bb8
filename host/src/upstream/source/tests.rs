//! Real sockets in a network namespace of their own, with two TAPs: what leaves is read from there.

use super::*;
use crate::device::{MAX_FRAME, Tap};
use crate::netlink::{Netlink, Request};
use crate::netns::testing::{has_ipv6, with_tun};
use crate::sandbox::caps;
use crate::upstream::Sockets;
use slipway_netstack::FlowId;
use slipway_netstack::upstream::{DeviceId, Errno, Meta, Upstream as _};
use std::net::UdpSocket;
use std::num::NonZeroU32;
use std::time::Duration;

const FLOW: FlowId = FlowId::new(3, 7);
const ETHERNET: usize = 14;

/// Two networks of this host's. The default route leads through the first.
struct Host {
    taps: [Tap; 2],
    devices: [DeviceId; 2],
    sockets: Sockets,
}

impl Host {
    fn new() -> Self {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.interface("lo").unwrap();
        netlink.set_up(&lo).unwrap();
        let mut index = |name: &str, nets: [&str; 2]| {
            let tap = Tap::open(name).unwrap();
            let interface = netlink.interface(name).unwrap();
            for net in nets {
                netlink
                    .run_one(&Request::add_address_at_once(interface.index, net.parse().unwrap()))
                    .unwrap();
            }
            netlink.set_up(&interface).unwrap();
            (tap, DeviceId(NonZeroU32::new(interface.index).unwrap()))
        };
        let (first, of_first) = index("first", ["192.0.2.1/24", "fe80::1/64"]);
        let (second, of_second) = index("second", ["198.51.100.1/24", "fe80::2/64"]);
        let interface = netlink.interface("first").unwrap();
        netlink.add_default_route(&interface, "192.0.2.254".parse().unwrap()).unwrap();
        Self { taps: [first, second], devices: [of_first, of_second], sockets: Sockets::new().unwrap() }
    }

    /// Sends a datagram of a new flow.
    fn send(&mut self, from: Source, to: &str, meta: Meta) -> Result<(), Errno> {
        let to: SocketAddr = to.parse().unwrap();
        self.sockets.close(FLOW);
        self.sockets.udp_open(FLOW, to.ip(), from)?;
        self.sockets.udp_send(FLOW, to, b"hello", 5, meta)
    }

    /// The frames on a TAP that `wanted` accepts.
    fn frames(&mut self, tap: usize, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let (mut buffer, mut found) = (vec![0; MAX_FRAME], Vec::new());
        while let Some((_, len)) = self.taps[tap].read_frame(&mut buffer).unwrap() {
            found.extend(wanted(&buffer[..len]).then(|| buffer[..len].to_vec()));
        }
        found
    }
}

fn by(device: DeviceId) -> Source {
    Source { device: Some(device), ..Source::default() }
}

/// Whether a frame carries what the flow sends.
fn is_ours(frame: &[u8]) -> bool {
    frame.ends_with(b"hello")
}

/// Whether a frame asks for the station with an address that ends so.
fn asks(frame: &[u8], end: &[u8]) -> bool {
    match frame.get(12..ETHERNET) {
        Some([8, 6]) => frame.get(..42).is_some_and(|arp| arp.ends_with(end)),
        Some([0x86, 0xdd]) => frame
            .get(ETHERNET + 40..ETHERNET + 64)
            .is_some_and(|solicitation| solicitation.first() == Some(&135) && solicitation.ends_with(end)),
        _ => false,
    }
}

#[test]
fn a_device_goes_before_the_hosts_routes() {
    with_tun("a_device_goes_before_the_hosts_routes", || {
        let mut host = Host::new();
        let [first, second] = host.devices;
        let asked = |frame: &[u8]| asks(frame, &[203, 0, 113, 9]);
        host.send(by(second), "203.0.113.9:7", Meta::default()).unwrap();
        assert_eq!((host.frames(0, asked).len(), host.frames(1, asked).len()), (0, 1));
        // By the first, the route's router is asked for.
        host.send(by(first), "203.0.113.9:7", Meta::default()).unwrap();
        assert_eq!(host.frames(0, |frame| asks(frame, &[192, 0, 2, 254])).len(), 1);

        host.sockets.tcp_connect(FLOW, "203.0.113.8:80".parse().unwrap(), by(second), 0).unwrap();
        assert_eq!(host.frames(1, |frame| asks(frame, &[203, 0, 113, 8])).len(), 1);
        let gone = by(DeviceId(NonZeroU32::new(4_000).unwrap()));
        assert!(host.send(gone, "203.0.113.9:7", Meta::default()).is_err(), "and not by another one");
        let senseless = by(DeviceId(NonZeroU32::MAX));
        assert!(host.send(senseless, "203.0.113.9:7", Meta::default()).is_err());
        host.sockets.close(FLOW);
        assert_eq!(host.sockets.count(), 0, "whoever fails has no socket");
    });
}

#[test]
fn link_local_addresses_are_those_on_the_devices_link() {
    let name = "link_local_addresses_are_those_on_the_devices_link";
    if !has_ipv6(name) {
        return;
    }
    with_tun(name, || {
        let mut host = Host::new();
        let [_, second] = host.devices;
        let asked = |frame: &[u8]| asks(frame, &[0x12, 0x34]);
        host.send(by(second), "[fe80::1234]:7", Meta::default()).unwrap();
        assert_eq!((host.frames(0, asked).len(), host.frames(1, asked).len()), (0, 1));
        let bound = Source { address: "fe80::2".parse().ok(), ..by(second) };
        let asked = |frame: &[u8]| asks(frame, &[0x12, 0x35]);
        host.sockets.close(FLOW);
        host.sockets.tcp_connect(FLOW, "[fe80::1235]:80".parse().unwrap(), bound, 0).unwrap();
        assert_eq!((host.frames(0, asked).len(), host.frames(1, asked).len()), (0, 1));
        let to = "[fe80::1236]:80".parse().unwrap();
        let nowhere = host.sockets.tcp_connect(FlowId::new(4, 1), to, Source::default(), 0);
        assert!(nowhere.is_err(), "without a device nobody knows where that is");
    });
}

#[test]
fn a_zone_is_for_addresses_of_one_link_and_for_no_others() {
    let name = "a_zone_is_for_addresses_of_one_link_and_for_no_others";
    if !has_ipv6(name) {
        return;
    }
    with_tun(name, || {
        let mut host = Host::new();
        let [first, second] = host.devices;
        let mut counts = |from: Source, to: &str, wanted: &dyn Fn(&[u8]) -> bool| {
            host.send(from, to, Meta::default()).unwrap();
            (host.frames(0, wanted).len(), host.frames(1, wanted).len())
        };
        let within = |zone| Source { zone: Some(zone), ..Source::default() };
        assert_eq!(counts(within(second), "[fe80::1234]:7", &|frame| asks(frame, &[0x12, 0x34])), (0, 1));
        assert_eq!(counts(within(first), "[fe80::1235]:7", &|frame| asks(frame, &[0x12, 0x35])), (1, 0));
        assert_eq!(counts(within(second), "[ff02::fb]:7", &is_ours), (0, 1));
        // The host's routes lead all others through the first.
        assert_eq!(counts(within(second), "203.0.113.9:7", &|frame| asks(frame, &[192, 0, 2, 254])), (1, 0));
        let both = Source { device: Some(first), ..within(second) };
        assert_eq!(counts(both, "[fe80::1236]:7", &|frame| asks(frame, &[0x12, 0x36])), (1, 0));

        let bound = Source { address: "fe80::2".parse().ok(), ..within(second) };
        host.sockets.close(FLOW);
        host.sockets.tcp_connect(FLOW, "[fe80::1237]:80".parse().unwrap(), bound, 0).unwrap();
        let asked = |frame: &[u8]| asks(frame, &[0x12, 0x37]);
        assert_eq!((host.frames(0, asked).len(), host.frames(1, asked).len()), (0, 1));
    });
}

#[test]
fn groups_are_those_on_the_devices_link_and_as_many_hops_away_as_the_guest_says() {
    let name = "groups_are_those_on_the_devices_link_and_as_many_hops_away_as_the_guest_says";
    with_tun(name, || {
        let mut host = Host::new();
        let [_, second] = host.devices;
        let all = [("239.1.2.3:7", ETHERNET + 8), ("[ff02::fb]:7", ETHERNET + 7)];
        for (to, at) in all.into_iter().take(if has_ipv6(name) { 2 } else { 1 }) {
            for hops in [64, 9, 1] {
                host.send(by(second), to, Meta { hops, ..Meta::default() }).unwrap();
                assert_eq!(host.frames(0, is_ours), [[0; 0]; 0], "{to}");
                let found: Vec<_> = host.frames(1, is_ours).iter().map(|frame| frame[at]).collect();
                assert_eq!(found, [hops], "{to}");
            }
        }
    });
}

#[test]
fn everybody_is_spoken_to_by_whoever_may() {
    with_tun("everybody_is_spoken_to_by_whoever_may", || {
        let mut host = Host::new();
        let everybody = "198.51.100.255:7";
        let refused = host.send(Source::default(), everybody, Meta::default());
        assert_eq!((refused, host.frames(1, is_ours).len()), (Err(Errno::Prohibited), 0));
        let may = Source { broadcast: true, ..Source::default() };
        host.send(may, everybody, Meta::default()).unwrap();
        let found = host.frames(1, is_ours);
        assert!(found.len() == 1 && found[0].starts_with(&[0xff; 6]), "{found:?}");
    });
}

#[test]
fn a_port_is_a_wish() {
    with_tun("a_port_is_a_wish", || {
        let mut host = Host::new();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let to = peer.local_addr().unwrap().to_string();
        let mut port_of = |port| {
            let from = Source { port, ..Source::default() };
            host.send(from, &to, Meta::default()).unwrap();
            peer.recv_from(&mut [0; 9]).unwrap().1.port()
        };
        assert_eq!(port_of(40_000), 40_000);
        let taken = UdpSocket::bind("127.0.0.1:40001").unwrap();
        assert!(![0, 40_001].contains(&port_of(40_001)));
        drop(taken);
        assert_eq!(port_of(40_001), 40_001);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let from = Source { address: "127.0.0.7".parse().ok(), port: 40_002, ..Source::default() };
        host.sockets.close(FLOW);
        host.sockets.tcp_connect(FLOW, listener.local_addr().unwrap(), from, 0).unwrap();
        assert_eq!(listener.accept().unwrap().1.to_string(), "127.0.0.7:40002");
        // Those below 1024 are for whoever has the right to them.
        caps::drop_all_but(&[]).unwrap();
        let another = {
            let from = Source { port: 53, ..Source::default() };
            host.send(from, &to, Meta::default()).unwrap();
            peer.recv_from(&mut [0; 9]).unwrap().1.port()
        };
        assert!(another >= 1024, "{another}");
    });
}
