//! From the host's addresses and routes to what the guest's interface is given: attribute by attribute.
//!
//! A copy is the kernel's own bytes, less what stands in two tables: what would be wrong in the guest, or what only the
//! kernel says. Attributes that neither this code nor this project has heard of are kept, for the kernel that told them
//! understands them. Numbers of interfaces are left zero, and their places noted: when the copy is made there is no
//! interface yet.
//!
//! A route over several next hops keeps those that lead through the template's interface: the gateways of other links
//! are no neighbours of the guest's. How a packet is wrapped for a tunnel (RTA_ENCAP) stays the host's business, which
//! does it to what the guest sends.

use super::record::{Address, Family, Hop, Nexthops, ON_LINK, Route, ip, rta, word};
use crate::netlink::netfilter::{Attributes, attributes};
use ipnet::{IpNet, Ipv6Net};
use nix::libc;
use std::fmt;
use std::net::IpAddr;

/// Attributes of addresses that are not copied.
const ADDRESS_STRIPPED: [(u16, &str); 4] = [
    (libc::IFA_LABEL, "names the host's interface"),
    (libc::IFA_CACHEINFO, "what runs out on the host is renewed there; in the guest nobody would"),
    (libc::IFA_FLAGS, "written anew"),
    (TARGET_NAMESPACE, "only in answers"),
];

/// IFA_TARGET_NETNSID.
const TARGET_NAMESPACE: u16 = 10;

/// Flags of addresses that are copied: whether a route comes with it is how the host's routes are to be read. All
/// others are states, or would have the kernel make further addresses.
const ADDRESS_FLAGS: u32 = libc::IFA_F_NOPREFIXROUTE;

/// Attributes of routes and of their next hops that are not copied.
const ROUTE_STRIPPED: [(u16, &str); 12] = [
    (libc::RTA_IIF, "only in answers about one packet"),
    (libc::RTA_PREFSRC, "may be an address that the guest has not got"),
    (libc::RTA_PROTOINFO, "only in answers"),
    (libc::RTA_CACHEINFO, "when it expires, and how often it was used"),
    (libc::RTA_MARK, "only in answers about one packet"),
    (libc::RTA_MFC_STATS, "counters"),
    (rta::ENCAP_TYPE, "the host wraps"),
    (rta::ENCAP, "the host wraps"),
    (rta::EXPIRES, "what runs out on the host is renewed there; in the guest nobody would"),
    (rta::PAD, "nothing"),
    (rta::UID, "only in answers about one packet"),
    (rta::NH_ID, "the guest has no such object: where it leads is written out"),
];

/// An address or a route to be added, in the kernel's bytes but for the number of the interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    body: Vec<u8>,
    /// Where the interface's number goes.
    places: Vec<usize>,
    /// Whether it was the host's; else somebody has asked for it.
    copied: bool,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Address,
    Route,
}

impl Change {
    /// An address that the command line asks for, or the guest has where there is no template.
    pub(super) fn address(net: IpNet) -> Self {
        let mut body = Attributes::default();
        let flags = address_flags(Family::of(net.addr()), 0);
        body.head(&address_head(net, libc::RT_SCOPE_UNIVERSE));
        let octets = octets(net.addr());
        body.bytes(libc::IFA_LOCAL, &octets);
        body.bytes(libc::IFA_ADDRESS, &octets);
        // RFC 3021: a link of two addresses has no broadcast address; nor has one of a single address.
        if let IpNet::V4(v4) = net
            && v4.prefix_len() < 31
        {
            body.bytes(libc::IFA_BROADCAST, &v4.broadcast().octets());
        }
        body.bytes(libc::IFA_FLAGS, &flags.to_ne_bytes());
        Self { body: body.as_bytes().to_vec(), places: vec![4], copied: false, what: What::Address }
    }

    /// The address that the kernel has made for the link, to be marked as one that is never looked for.
    pub(super) fn link_local(net: Ipv6Net) -> Self {
        let mut made = Self::address(IpNet::V6(net));
        if let Some(scope) = made.body.get_mut(3) {
            *scope = libc::RT_SCOPE_LINK;
        }
        made
    }

    /// A copy of the host's.
    pub(super) fn copy_address(address: &Address<'_>, net: IpNet) -> Self {
        let mut body = Attributes::default();
        body.head(&address_head(net, address.scope()));
        for (kind, value) in attributes(address.list) {
            if ADDRESS_STRIPPED.iter().all(|(stripped, _)| *stripped != kind) {
                body.bytes(kind, value);
            }
        }
        let flags = address_flags(address.family, address.flags & ADDRESS_FLAGS);
        body.bytes(libc::IFA_FLAGS, &flags.to_ne_bytes());
        Self { body: body.as_bytes().to_vec(), places: vec![4], copied: true, what: What::Address }
    }

    /// The default route; `None`: everything is on the link. A gateway that no address has on its link is there all the
    /// same.
    pub(super) fn default_route(family: Family, gateway: Option<IpAddr>, on_link: bool) -> Self {
        let mut head = [0; 12];
        head[0] = family.number();
        head[4] = libc::RT_TABLE_MAIN;
        head[5] = libc::RTPROT_STATIC;
        head[6] = if gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
        head[7] = libc::RTN_UNICAST;
        put(&mut head, 8, u32::from(if on_link { ON_LINK } else { 0 }));
        let mut body = Attributes::default();
        body.head(&head);
        if let Some(gateway) = gateway {
            body.bytes(libc::RTA_GATEWAY, &octets(gateway));
        }
        let place = interface(&mut body);
        Self { body: body.as_bytes().to_vec(), places: vec![place], copied: false, what: What::Route }
    }

    /// A copy of the host's route, as far as it leads through `wanted`; `None`: it does not.
    pub(super) fn copy_route(route: &Route<'_>, wanted: u32, nexthops: &Nexthops<'_>) -> Option<Self> {
        let mut head = *route.head;
        let mut hops = route.hops(nexthops).filter(|hop| hop.interface == wanted);
        let first = hops.next()?;
        let second = hops.next();
        let flags = if second.is_none() { first.flags & ON_LINK } else { 0 };
        put(&mut head, 8, u32::from(flags));
        let mut body = Attributes::default();
        body.head(&head);
        for (kind, value) in attributes(route.list) {
            if kind != libc::RTA_OIF && kind != libc::RTA_MULTIPATH && is_kept(kind) {
                body.bytes(kind, value);
            }
        }
        let mut places = Vec::new();
        if let Some(second) = second {
            let list = [first, second].into_iter().chain(hops);
            several(&mut body, &mut places, route.family, list);
        } else {
            // Of a route over one next hop the attributes stand among the route's own, and were copied.
            if first.list != route.list {
                describe(&mut body, route.family, &first);
            }
            places.push(interface(&mut body));
        }
        let copy = Self { body: body.as_bytes().to_vec(), places, copied: true, what: What::Route };
        (!body.overflown()).then_some(copy)
    }

    /// The same address, of which nothing new is to begin: its preferred lifetime is over.
    pub(super) fn deprecated(&self) -> Self {
        // struct ifa_cacheinfo: preferred, valid (for ever), and two times that are only in answers.
        let times = [0, u32::MAX, 0, 0].map(u32::to_ne_bytes);
        self.with(libc::IFA_CACHEINFO, times.as_flattened())
    }

    /// The same route with the address that packets come from.
    pub(super) fn with_source(&self, source: IpAddr) -> Self {
        self.with(libc::RTA_PREFSRC, &octets(source))
    }

    /// The same with one more attribute.
    fn with(&self, kind: u16, value: &[u8]) -> Self {
        let mut list = Attributes::default();
        list.bytes(kind, value);
        let mut changed = self.clone();
        changed.body.extend(list.as_bytes());
        changed
    }

    /// Where a route leads; `None`: everywhere.
    pub(super) fn destination(&self) -> Option<IpNet> {
        let to = self.find(libc::RTA_DST).and_then(ip)?;
        IpNet::new(to, *self.body.get(1)?).ok()
    }

    /// Whether it is a route that the kernel makes by itself for an address that is given.
    pub(super) fn is_the_kernels(&self) -> bool {
        let is_made = self.what == What::Route && self.body.get(5) == Some(&libc::RTPROT_KERNEL);
        is_made && self.find(libc::RTA_PREFSRC).is_none()
    }

    fn find(&self, wanted: u16) -> Option<&[u8]> {
        attributes(self.list()).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }

    /// Whether it was the host's; else the command line has asked for it, or the guest cannot do without.
    pub(super) fn is_copied(&self) -> bool {
        self.copied
    }

    /// Its family.
    #[must_use]
    pub fn family(&self) -> Family {
        if self.body.first() == Some(&Family::V6.number()) { Family::V6 } else { Family::V4 }
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn size(&self) -> usize {
        self.body.len() + size_of_val(self.places.as_slice()) + size_of::<Self>()
    }

    /// Fixed part and attributes of the kernel's message, for the interface with that number.
    pub(super) fn body(&self, index: u32) -> Vec<u8> {
        let mut body = self.body.clone();
        for place in &self.places {
            put(&mut body, *place, index);
        }
        body
    }

    /// Its attributes.
    pub(super) fn list(&self) -> &[u8] {
        let head = if self.what == What::Address { 8 } else { 12 };
        self.body.get(head..).unwrap_or_default()
    }
}

/// As ip(8) would say it.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let find = |wanted| self.find(wanted);
        let prefix = self.body.get(1).copied().unwrap_or_default();
        if self.what == What::Address {
            let address = find(libc::IFA_LOCAL).or_else(|| find(libc::IFA_ADDRESS)).and_then(ip);
            return match address {
                Some(address) => write!(f, "the address {address}/{prefix}"),
                None => f.write_str("an address"),
            };
        }
        match find(libc::RTA_DST).and_then(ip) {
            Some(to) => write!(f, "the route to {to}/{prefix}")?,
            None => f.write_str("the default route")?,
        }
        if let Some(gateway) = find(libc::RTA_GATEWAY).and_then(ip) {
            write!(f, " via {gateway}")?;
        }
        match find(libc::RTA_PRIORITY).and_then(word) {
            Some(metric) => write!(f, " metric {metric}"),
            None => Ok(()),
        }
    }
}

/// Whether an attribute of a route is copied.
pub(super) fn is_kept(kind: u16) -> bool {
    ROUTE_STRIPPED.iter().all(|(stripped, _)| *stripped != kind)
}

/// struct ifaddrmsg, whose interface is written later.
fn address_head(net: IpNet, scope: u8) -> [u8; 8] {
    let flags = address_flags(Family::of(net.addr()), 0);
    let low = u8::try_from(flags & 0xff).unwrap_or_default();
    [Family::of(net.addr()).number(), net.prefix_len(), low, scope, 0, 0, 0, 0]
}

/// There is nobody else on the guest's link, so nobody looks for duplicates.
fn address_flags(family: Family, kept: u32) -> u32 {
    if family == Family::V6 { kept | libc::IFA_F_NODAD } else { kept }
}

/// Leaves room for the number of the interface a packet leaves by; returns the place.
fn interface(body: &mut Attributes) -> usize {
    let place = body.as_bytes().len() + 4;
    body.bytes(libc::RTA_OIF, &[0; 4]);
    place
}

/// RTA_MULTIPATH: struct rtnexthop and attributes for each hop.
fn several<'a>(
    body: &mut Attributes,
    places: &mut Vec<usize>,
    family: Family,
    hops: impl Iterator<Item = Hop<'a>>,
) {
    let start = body.as_bytes().len() + 4;
    let mut value = Vec::new();
    for hop in hops {
        let mut list = Attributes::default();
        if hop.list.is_empty() {
            describe(&mut list, family, &hop);
        }
        for (kind, value) in attributes(hop.list) {
            if is_kept(kind) {
                list.bytes(kind, value);
            }
        }
        let length = u16::try_from(8 + list.as_bytes().len()).unwrap_or_default();
        places.push(start + value.len() + 4);
        value.extend(length.to_ne_bytes());
        value.extend([hop.flags & ON_LINK, hop.weight, 0, 0, 0, 0]);
        value.extend(list.as_bytes());
        // Longer than an attribute may be: whoever writes it will see.
        if value.len() > usize::from(u16::MAX) {
            break;
        }
    }
    body.bytes(libc::RTA_MULTIPATH, &value);
}

/// The gateway of a hop that is not written as routes have it.
fn describe(list: &mut Attributes, family: Family, hop: &Hop<'_>) {
    for (kind, value) in attributes(hop.list) {
        if is_kept(kind) {
            list.bytes(kind, value);
        }
    }
    let Some(gateway) = hop.gateway.filter(|_| hop.list.is_empty()) else { return };
    if Family::of(gateway) == family {
        list.bytes(libc::RTA_GATEWAY, &octets(gateway));
        return;
    }
    // RFC 5549: a gateway of the other family. struct rtvia.
    let mut via = u16::from(Family::of(gateway).number()).to_ne_bytes().to_vec();
    via.extend(octets(gateway));
    list.bytes(rta::VIA, &via);
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Writes a number of the host's byte order.
fn put(bytes: &mut [u8], at: usize, number: u32) {
    if let Some(room) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *room = number.to_ne_bytes();
    }
}
