//! Addresses: list, add, and the first one of an interface.

use super::link::Interface;
use super::socket::{Error, Netlink, Request};
use ipnet::{IpNet, Ipv6Net};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use std::net::IpAddr;

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The interface's number.
    pub interface: u32,
    /// The address, with the length of its prefix.
    pub net: IpNet,
    /// Whether duplicate address detection has not finished, so that it cannot be used yet.
    pub tentative: bool,
    /// Whether duplicate address detection found somebody else who has it.
    pub duplicate: bool,
    /// Whether it is one of those that the kernel makes for privacy and soon replaces (RFC 8981).
    pub temporary: bool,
    /// Whether it is meant for this link only (fe80::/10, 169.254.0.0/16) or this host only.
    pub local: bool,
}

/// For how long an IPv6 address may be used, in seconds; all ones: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// To begin new connections with.
    pub preferred: u32,
    /// At all. The kernel takes the address away afterwards.
    pub valid: u32,
}

impl Netlink {
    /// All addresses of all interfaces, in the kernel's order.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let list =
            self.dump("list the addresses", &RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        Ok(list.into_iter().filter_map(address).collect())
    }

    /// All addresses of the interface with the number `index`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses_of(&mut self, index: u32) -> Result<Vec<Address>, Error> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        let list = self.dump("list the addresses", &RouteNetlinkMessage::GetAddress(message))?;
        // A kernel without strict checking sends them all.
        Ok(list.into_iter().filter_map(address).filter(|address| address.interface == index).collect())
    }

    /// All addresses of another namespace, which has the number `namespace` in this one (IFA_TARGET_NETNSID, Linux
    /// 4.20).
    ///
    /// # Errors
    /// The kernel's: EINVAL when there is none of that number, or the kernel is older; EACCES without CAP_NET_ADMIN
    /// over it.
    pub fn addresses_in(&mut self, namespace: i32) -> Result<Vec<Address>, Error> {
        const TARGET_NAMESPACE: u16 = 10;
        let mut message = AddressMessage::default();
        let number = DefaultNla::new(TARGET_NAMESPACE, namespace.to_ne_bytes().to_vec());
        message.attributes.push(AddressAttribute::Other(number));
        let doing = format!("list the addresses of the namespace {namespace}");
        let list = self.dump(&doing, &RouteNetlinkMessage::GetAddress(message))?;
        Ok(list.into_iter().filter_map(address).collect())
    }

    /// The first address of the interface called `name` in the given family, global ones before those of this host or
    /// link only. Link-local ones of IPv6 are left out: a socket that is bound to one reaches nothing beyond the link.
    ///
    /// # Errors
    /// ENODEV without such an interface, EADDRNOTAVAIL without such an address.
    pub fn first_address(&mut self, name: &str, ipv6: bool) -> Result<IpAddr, Error> {
        let interface = self.interface(name)?;
        let mut found: Vec<_> = self
            .addresses()?
            .into_iter()
            .filter(|a| a.interface == interface.index && a.net.addr().is_ipv6() == ipv6)
            .filter(|a| !matches!(a.net.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local()))
            .collect();
        found.sort_by_key(|address| address.local);
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        found.first().map(|address| address.net.addr()).ok_or_else(|| {
            Error::new(format!("find an {family} address of the interface {name}"), Errno::EADDRNOTAVAIL)
        })
    }

    /// Gives an interface an address, or renews it. An IPv6 address can be used at once: there is nobody else on the
    /// link who could have it, so duplicate address detection is left out.
    ///
    /// # Errors
    /// The kernel's: EACCES when IPv6 is switched off for the interface.
    pub fn add_address(&mut self, interface: &Interface, net: IpNet) -> Result<(), Error> {
        let message = without_detection(new_address(interface.index, net));
        let doing = format!("give the interface {} the address {net}", interface.name);
        self.change(&doing, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }
}

impl Request {
    /// Gives an interface an address that it must not have yet. Whether an IPv6 address waits for duplicate address
    /// detection is the interface's setting (`accept_dad`); even without detection it becomes usable only when a
    /// worker of the kernel gets to it.
    #[must_use]
    pub fn add_address(index: u32, net: IpNet) -> Self {
        Self::new_address(index, net, new_address(index, net))
    }

    /// The same, and an IPv6 address can be bound as soon as this has been answered: nobody looks for duplicates.
    #[must_use]
    pub fn add_address_at_once(index: u32, net: IpNet) -> Self {
        Self::new_address(index, net, without_detection(new_address(index, net)))
    }

    fn new_address(index: u32, net: IpNet, message: AddressMessage) -> Self {
        let doing = format!("give the interface {index} the address {net}");
        Self::new(doing, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Gives an interface an address for a time, or prolongs it. No route comes with it. It can be used while
    /// duplicates of it are looked for, if the interface allows that (`optimistic_dad`).
    #[must_use]
    pub fn lease_address(index: u32, net: Ipv6Net, lifetimes: Lifetimes) -> Self {
        let doing = format!("give the interface {index} the address {net} for {} s", lifetimes.valid);
        let mut message = new_address(index, IpNet::V6(net));
        let mut times = CacheInfo::default();
        (times.ifa_preferred, times.ifa_valid) = (lifetimes.preferred, lifetimes.valid);
        message.attributes.push(AddressAttribute::CacheInfo(times));
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Noprefixroute | AddressFlags::Optimistic));
        Self::new(doing, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes an address from an interface.
    #[must_use]
    pub fn delete_address(index: u32, net: IpNet) -> Self {
        let doing = format!("take the address {net} from the interface {index}");
        Self::new(doing, RouteNetlinkMessage::DelAddress(new_address(index, net)), 0)
    }
}

fn new_address(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message.attributes.push(AddressAttribute::Address(net.addr()));
    match net {
        IpNet::V4(net) => {
            message.header.family = AddressFamily::Inet;
            // RFC 3021: a link of two addresses has no broadcast address; nor has one of a single address.
            if net.prefix_len() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
        }
        IpNet::V6(_) => message.header.family = AddressFamily::Inet6,
    }
    message
}

fn without_detection(mut message: AddressMessage) -> AddressMessage {
    if message.header.family == AddressFamily::Inet6 {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

pub(super) fn address(message: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let mut local = None;
    let mut address = None;
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Address(found) => address = Some(*found),
            AddressAttribute::Flags(all) => flags |= *all,
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the peer; IFA_LOCAL, where present, is always ours.
    Some(Address {
        interface: message.header.index,
        net: IpNet::new(local.or(address)?, message.header.prefix_len).ok()?,
        // RFC 4429: an optimistic one can be used meanwhile.
        tentative: flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic),
        duplicate: flags.contains(AddressFlags::Dadfailed),
        // The bit means something else for IPv4.
        temporary: message.header.family == AddressFamily::Inet6 && flags.contains(AddressFlags::Secondary),
        local: message.header.scope != AddressScope::Universe,
    })
}
