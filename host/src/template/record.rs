//! What the kernel says of links, addresses, routes and next hops: views of messages, which understand as little as is
//! needed and pass over the rest.
//!
//! Nothing is copied and no length is trusted: a message that is too short for its fixed part is none, and a list of
//! attributes ends at the first that does not fit. Source: rtnetlink(7), Linux `include/uapi/linux/rtnetlink.h`,
//! `include/uapi/linux/if_addr.h`, `include/uapi/linux/nexthop.h`.

use crate::netlink::netfilter::attributes;
use nix::libc;
use slipway_netstack::addr::MacAddr;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of netlink's header.
const HEADER: usize = 16;

/// Attributes of routes that libc does not name.
pub(super) mod rta {
    pub(in super::super) const VIA: u16 = 18;
    pub(in super::super) const ENCAP_TYPE: u16 = 21;
    pub(in super::super) const ENCAP: u16 = 22;
    pub(in super::super) const EXPIRES: u16 = 23;
    pub(in super::super) const PAD: u16 = 24;
    pub(in super::super) const UID: u16 = 25;
    pub(in super::super) const NH_ID: u16 = 30;
}

/// Attributes of next hops.
mod nha {
    pub(super) const ID: u16 = 1;
    pub(super) const GROUP: u16 = 2;
    pub(super) const BLACKHOLE: u16 = 4;
    pub(super) const OIF: u16 = 5;
    pub(super) const GATEWAY: u16 = 6;
}

/// A next hop that does not work (RTNH_F_DEAD).
pub(super) const DEAD: u8 = 1;
/// The gateway is on the link, whatever the addresses say (RTNH_F_ONLINK).
pub(super) const ON_LINK: u8 = 4;
/// An entry of the kernel's memory, no route (RTM_F_CLONED).
const CLONED: u32 = 0x200;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    pub(super) fn number(self) -> u8 {
        let number = if self == Self::V4 { libc::AF_INET } else { libc::AF_INET6 };
        u8::try_from(number).unwrap_or_default()
    }

    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn is_v6(self) -> bool {
        self == Self::V6
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::V4, Self::V6].into_iter().find(|family| family.number() == number)
    }
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The largest packet that it carries, in bytes.
    pub mtu: u32,
    /// Its MAC address; a TUN, for one, has none.
    pub mac: Option<MacAddr>,
    /// Whether it is a loopback interface.
    pub loopback: bool,
}

impl Link {
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let (head, list) = parts::<16>(message)?;
        let [_, _, _, _, a, b, c, d, e, f, g, h, ..] = *head;
        let flags = u32::from_ne_bytes([e, f, g, h]);
        let loopback = flags & libc::IFF_LOOPBACK.cast_unsigned() != 0;
        let index = u32::from_ne_bytes([a, b, c, d]);
        let mut link = Self { index, name: String::new(), mtu: 0, mac: None, loopback };
        for (kind, value) in attributes(list) {
            match kind {
                libc::IFLA_IFNAME => {
                    let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                    link.name = String::from_utf8_lossy(name).into_owned();
                }
                libc::IFLA_MTU => link.mtu = word(value).unwrap_or_default(),
                libc::IFLA_ADDRESS => link.mac = value.try_into().ok().map(MacAddr),
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }
}

/// An address of an interface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address<'a> {
    head: &'a [u8; 8],
    pub(super) list: &'a [u8],
    pub(super) family: Family,
    pub(super) address: IpAddr,
    pub(super) flags: u32,
}

impl<'a> Address<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Option<Self> {
        let (head, list) = parts::<8>(message)?;
        let family = Family::from_number(head[0])?;
        let find = |wanted| attributes(list).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        // On a point-to-point link IFA_ADDRESS is the peer; IFA_LOCAL, where present, is always ours.
        let address = ip(find(libc::IFA_LOCAL).or_else(|| find(libc::IFA_ADDRESS))?)?;
        let flags = find(libc::IFA_FLAGS).and_then(word).unwrap_or_else(|| u32::from(head[2]));
        (Family::of(address) == family).then_some(Self { head, list, family, address, flags })
    }

    pub(super) fn prefix(&self) -> u8 {
        self.head[1]
    }

    pub(super) fn scope(&self) -> u8 {
        self.head[3]
    }

    pub(super) fn interface(&self) -> u32 {
        let [_, _, _, _, a, b, c, d] = *self.head;
        u32::from_ne_bytes([a, b, c, d])
    }

    /// Whether somebody beyond the link and the host may be spoken to from it, now.
    pub(super) fn is_of_use(&self) -> bool {
        self.scope() < libc::RT_SCOPE_LINK
            && self.flags & (libc::IFA_F_DEPRECATED | libc::IFA_F_DADFAILED) == 0
    }
}

/// A route of the main table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) head: &'a [u8; 12],
    pub(super) list: &'a [u8],
    pub(super) family: Family,
}

impl<'a> Route<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Option<Self> {
        let (head, list) = parts::<12>(message)?;
        let route = Self { head, list, family: Family::from_number(head[0])? };
        let table =
            attributes(list).find(|(kind, _)| *kind == libc::RTA_TABLE).and_then(|(_, value)| word(value));
        let main = table.unwrap_or_else(|| head[4].into()) == crate::netlink::MAIN_TABLE;
        // Those of other kinds lead into the host, or nowhere.
        let [.., a, b, c, d] = *head;
        let flags = u32::from_ne_bytes([a, b, c, d]);
        let leads_on = matches!(head[7], libc::RTN_UNICAST | libc::RTN_MULTICAST);
        (main && leads_on && flags & CLONED == 0).then_some(route)
    }

    pub(super) fn is_default(&self) -> bool {
        self.head[1] == 0 && self.head[2] == 0
    }

    /// The flags of its one next hop.
    fn flags(&self) -> u8 {
        // The lowest byte of a word of the host's byte order.
        let [.., a, b, c, d] = *self.head;
        u8::try_from(u32::from_ne_bytes([a, b, c, d]) & 0xff).unwrap_or_default()
    }

    pub(super) fn names_an_object(&self) -> bool {
        attributes(self.list).any(|(kind, _)| kind == rta::NH_ID)
    }

    pub(super) fn stays_on_the_link(&self) -> bool {
        match attributes(self.list).find(|(kind, _)| *kind == libc::RTA_DST).and_then(|(_, value)| ip(value))
        {
            Some(IpAddr::V4(to)) => to.is_link_local(),
            Some(IpAddr::V6(to)) => to.is_unicast_link_local() || to.is_multicast(),
            None => false,
        }
    }

    /// Its next hops. One that is an object of its own is looked up.
    pub(super) fn hops<'b>(&self, nexthops: &'b Nexthops<'b>) -> impl Iterator<Item = Hop<'b>>
    where
        'a: 'b,
    {
        let find =
            |wanted| attributes(self.list).find(move |(kind, _)| *kind == wanted).map(|(_, value)| value);
        let own = find(libc::RTA_OIF).and_then(word).map(|interface| Hop {
            interface,
            flags: self.flags(),
            weight: 0,
            list: self.list,
            gateway: find(libc::RTA_GATEWAY).and_then(ip),
        });
        let several = find(libc::RTA_MULTIPATH).into_iter().flat_map(hops_of);
        let object = match (&own, find(libc::RTA_MULTIPATH), find(rta::NH_ID).and_then(word)) {
            (None, None, Some(id)) => Some(id),
            _ => None,
        };
        own.into_iter().chain(several).chain(object.into_iter().flat_map(|id| nexthops.hops(id)))
    }
}

/// A next hop of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hop<'a> {
    pub(super) interface: u32,
    pub(super) flags: u8,
    /// One less than its weight.
    pub(super) weight: u8,
    /// Its attributes, if they are those of routes.
    pub(super) list: &'a [u8],
    pub(super) gateway: Option<IpAddr>,
}

/// The hops in an RTA_MULTIPATH: struct rtnexthop and attributes each.
fn hops_of(value: &[u8]) -> impl Iterator<Item = Hop<'_>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let [low, high, flags, weight, a, b, c, d] = *rest.first_chunk::<8>()?;
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let list = rest.get(8..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let gateway = attributes(list).find(|(kind, _)| *kind == libc::RTA_GATEWAY);
        let gateway = gateway.and_then(|(_, value)| ip(value));
        Some(Hop { interface: u32::from_ne_bytes([a, b, c, d]), flags, weight, list, gateway })
    })
}

/// Next hops that are objects of their own, by number.
#[derive(Debug, Default)]
pub(super) struct Nexthops<'a> {
    all: BTreeMap<u32, Nexthop<'a>>,
}

#[derive(Debug)]
enum Nexthop<'a> {
    One(Hop<'a>),
    /// struct nexthop_grp each: number, weight, filling.
    Group(&'a [u8]),
}

impl<'a> Nexthops<'a> {
    pub(super) fn new(messages: impl Iterator<Item = &'a [u8]>) -> Self {
        Self { all: messages.filter_map(nexthop).collect() }
    }

    fn hops(&self, id: u32) -> impl Iterator<Item = Hop<'_>> {
        let (one, group) = match self.all.get(&id) {
            Some(Nexthop::One(hop)) => (Some(*hop), &[][..]),
            Some(Nexthop::Group(list)) => (None, *list),
            None => (None, &[][..]),
        };
        let members = group.as_chunks::<8>().0.iter().filter_map(|[a, b, c, d, weight, ..]| {
            // A group has no groups in it.
            match self.all.get(&u32::from_ne_bytes([*a, *b, *c, *d]))? {
                Nexthop::One(hop) => Some(Hop { weight: *weight, ..*hop }),
                Nexthop::Group(_) => None,
            }
        });
        one.into_iter().chain(members)
    }
}

fn nexthop(message: &[u8]) -> Option<(u32, Nexthop<'_>)> {
    let (head, list) = parts::<8>(message)?;
    let [_, _, _, _, a, b, c, d] = *head;
    let flags = u8::try_from(u32::from_ne_bytes([a, b, c, d]) & 0xff).unwrap_or_default();
    let find = |wanted| attributes(list).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let id = find(nha::ID).and_then(word)?;
    if find(nha::BLACKHOLE).is_some() {
        return None;
    }
    if let Some(group) = find(nha::GROUP) {
        return Some((id, Nexthop::Group(group)));
    }
    let interface = find(nha::OIF).and_then(word)?;
    let gateway = find(nha::GATEWAY).and_then(ip);
    Some((id, Nexthop::One(Hop { interface, flags, weight: 0, list: &[], gateway })))
}

/// The fixed part of a message and its attributes.
fn parts<const N: usize>(message: &[u8]) -> Option<(&[u8; N], &[u8])> {
    message.get(HEADER..)?.split_first_chunk::<N>()
}

/// A number of the host's byte order.
pub(super) fn word(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// An address, whose length tells the family.
pub(super) fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = value.try_into().ok().map(|octets: [u8; 4]| IpAddr::V4(Ipv4Addr::from(octets)));
    v4.or_else(|| value.try_into().ok().map(|octets: [u8; 16]| IpAddr::V6(Ipv6Addr::from(octets))))
}
