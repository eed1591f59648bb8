//! The guest's link-local address, made here instead of by the kernel.
//!
//! The kernel makes one when an interface comes up, and looks for duplicates of it: a second in which nothing can be
//! bound to it, and even where that is switched off (IFF_NOARP, `accept_dad`), the address is tentative until a worker
//! gets to it, which waits behind every namespace that ends on the machine: half a second was seen. An address that is
//! added with IFA_F_NODAD can be used at once. So the kernel is told to make none (IN6_ADDR_GEN_MODE_NONE), the one
//! that it would have made is added, and the setting put back for whoever takes the link down and up again.
//!
//! Source: Linux `net/ipv6/addrconf.c` (`addrconf_addr_gen`, `inet6_set_link_af`), RFC 4291 appendix A.

use super::copy::Change;
use super::record::Family;
use crate::netlink::netfilter::{Attributes, attributes};
use crate::netlink::{Error, List, Netlink, Replay, Request};
use nix::libc;
use slipway_netstack::addr::MacAddr;
use std::net::Ipv6Addr;

/// IFLA_INET6_ADDR_GEN_MODE.
const MODE: u16 = 8;

/// IN6_ADDR_GEN_MODE_NONE: no address is made.
pub(super) const NONE: u8 = 1;

/// How the kernel makes the link-local address of an interface; `None`: it has no IPv6.
pub(super) fn mode(netlink: &mut Netlink, index: u32) -> Result<Option<u8>, Error> {
    netlink.list_raw(List::Links, |mode: &mut Option<u8>, message| {
        // Headers of netlink and of the link, whose number is its second word.
        if message.get(20..24) == Some(&index.to_ne_bytes()) {
            *mode = message.get(32..).and_then(mode_in);
        }
    })
}

fn mode_in(list: &[u8]) -> Option<u8> {
    let within = |list, wanted| attributes(list).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let families = within(list, libc::IFLA_AF_SPEC)?;
    within(within(families, Family::V6.number().into())?, MODE)?.first().copied()
}

/// Has the kernel make it in another way from the next time on.
pub(super) fn set_mode(index: u32, mode: u8) -> Request {
    let body = family_setting(index, Family::V6, |v6| v6.bytes(MODE, &[mode]));
    Request::raw(format!("say how {index} gets its link-local address"), Replay::Link, body)
}

/// A change of what a family has of an interface (IFLA_AF_SPEC).
pub(super) fn family_setting(index: u32, family: Family, write: impl FnOnce(&mut Attributes)) -> Vec<u8> {
    let mut body = Attributes::default();
    // struct ifinfomsg.
    let mut head = [0; 16];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    body.head(&head);
    body.nested(libc::IFLA_AF_SPEC, |families| families.nested(family.number().into(), write));
    body.as_bytes().to_vec()
}

/// The address that goes with a MAC address.
pub(super) fn address(mac: MacAddr) -> Option<Change> {
    // RFC 4291 appendix A: the universal bit is turned, and ff:fe stands in the middle.
    let [a, b, c, d, e, f] = mac.0;
    let address = Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    ipnet::Ipv6Net::new(address, 64).ok().map(Change::link_local)
}
