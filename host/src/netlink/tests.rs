//! Against the real kernel, in network namespaces of their own. They need privileges or user namespaces, and say so.

use super::socket::parse;
use super::*;
use crate::netns::testing::{in_new_namespace, with_tun};
use ipnet::IpNet;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slipway_netstack::addr::MacAddr;
use std::net::IpAddr;
use std::os::fd::AsFd;

mod links;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn what_is_configured_reads_back() {
    with_tun("what_is_configured_reads_back", || {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.interface("lo").unwrap();
        assert!(lo.loopback && !lo.up);
        netlink.set_up(&lo).unwrap();
        assert!(netlink.interface("lo").unwrap().up);
        assert_eq!(netlink.first_address("lo", false).unwrap(), ip("127.0.0.1"));
        assert_eq!(netlink.first_address("lo", true).unwrap(), ip("::1"));

        let _tap = crate::device::Tap::open("tap7").unwrap();
        let tap = netlink.interface("tap7").unwrap();
        let mac = MacAddr([0x02, 1, 2, 3, 4, 5]);
        netlink.set_mac(&tap, mac).unwrap();
        netlink.set_mtu(&tap, 9000).unwrap();
        netlink.set_up(&tap).unwrap();
        let tap = netlink.interface("tap7").unwrap();
        assert_eq!((tap.up, tap.mtu, tap.mac), (true, 9000, Some(mac)));

        // It has a link-local address by now, which is no source for anything beyond the link.
        assert_eq!(netlink.first_address("tap7", true).unwrap_err().errno(), Some(Errno::EADDRNOTAVAIL));
        netlink.add_address(&tap, net("10.0.2.100/24")).unwrap();
        netlink.add_address(&tap, net("10.0.2.100/24")).unwrap();
        netlink.add_address(&tap, net("fd00::100/64")).unwrap();
        let addresses = netlink.addresses().unwrap();
        let ours: Vec<_> = addresses
            .iter()
            .filter(|a| a.interface == tap.index && !a.local)
            .map(|a| (a.net, a.tentative))
            .collect();
        assert_eq!(ours, [(net("10.0.2.100/24"), false), (net("fd00::100/64"), false)]);
        assert_eq!(netlink.first_address("tap7", true).unwrap(), ip("fd00::100"));

        for gateway in ["10.0.2.2", "fd00::2"] {
            netlink.add_default_route(&tap, ip(gateway)).unwrap();
            netlink.add_default_route(&tap, ip(gateway)).unwrap();
        }
        let routes = netlink.routes().unwrap();
        for gateway in ["10.0.2.2", "fd00::2"] {
            assert!(routes.iter().any(|r| r.gateway == Some(ip(gateway)) && r.destination.prefix_len() == 0));
        }
        netlink.set_down(&tap).unwrap();
        assert!(!netlink.interface("tap7").unwrap().up);
    });
}

#[test]
fn refusals_carry_the_errno_and_say_what_was_being_done() {
    with_tun("refusals_carry_the_errno_and_say_what_was_being_done", || {
        let mut netlink = Netlink::open().unwrap();
        let error = netlink.interface("nowhere").unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENODEV));
        assert_eq!(error.to_string(), "cannot find the interface nowhere: No such device");
        let lo = netlink.interface("lo").unwrap();
        let error = netlink.add_default_route(&lo, ip("10.9.9.9")).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot add the default route via 10.9.9.9 through lo: "),
            "{error}"
        );
        assert_eq!(netlink.first_address("lo", false).unwrap_err().errno(), Some(Errno::EADDRNOTAVAIL));

        let _tap = crate::device::Tap::open("tap8").unwrap();
        let tap = netlink.interface("tap8").unwrap();
        netlink.set_up(&tap).unwrap();
        netlink.add_address(&tap, net("10.0.2.100/24")).unwrap();
        netlink.add_default_route(&tap, ip("10.0.2.2")).unwrap();
        let error = netlink.add_default_route(&tap, ip("10.0.2.3")).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EEXIST));
    });
}

#[test]
fn a_monitor_notices_changes() {
    in_new_namespace("a_monitor_notices_changes", || {
        let mut netlink = Netlink::open().unwrap();
        let mut monitor = Monitor::open().unwrap();
        assert!(!monitor.changes().unwrap().any());
        let lo = netlink.interface("lo").unwrap();
        netlink.set_up(&lo).unwrap();
        let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(1000_u16)).unwrap(), 1);
        let changes = monitor.changes().unwrap();
        assert!(changes.interfaces && changes.addresses);
        assert!(netlink.neighbours().unwrap().is_empty());
    });
}

#[test]
fn hostile_datagrams_are_refused_or_skipped() {
    assert!(parse(&[]).unwrap().is_empty());
    assert!(parse(&[1, 2, 3]).unwrap().is_empty());
    assert!(parse(&8_u32.to_ne_bytes()).is_err(), "shorter than its own header");
    assert!(parse(&u32::MAX.to_ne_bytes()).is_err(), "longer than the datagram");
    // Every type and every cut of a message with attributes that claim to be longer than they are.
    for kind in 0_u16..128 {
        for len in 16_u32..64 {
            let mut bytes = len.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.resize(usize::try_from(len).unwrap(), 0xff);
            let _ = parse(&bytes);
        }
    }
}
