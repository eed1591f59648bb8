//! Routes of the main table: list, and add a default route.

use super::link::Interface;
use super::socket::{Error, Netlink};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A unicast route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where to; a prefix of length 0 is the default route.
    pub destination: IpNet,
    /// Through which router; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Through which interface (its number).
    pub interface: Option<u32>,
    /// Lower is preferred.
    pub priority: u32,
}

impl Netlink {
    /// The unicast routes of the main table, both families.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let list = self.dump("list the routes", &RouteNetlinkMessage::GetRoute(message))?;
            routes.extend(list.into_iter().filter_map(route));
        }
        Ok(routes)
    }

    /// Adds the default route through `gateway`. It is no error when exactly that one is there already.
    ///
    /// # Errors
    /// EEXIST when there is another default route; ENETUNREACH when the gateway is not on the link.
    pub fn add_default_route(&mut self, interface: &Interface, gateway: IpAddr) -> Result<(), Error> {
        let mut message = RouteMessage::default();
        message.header.address_family =
            if gateway.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        message.attributes.push(RouteAttribute::Oif(interface.index));
        let doing = format!("add the default route via {gateway} through {}", interface.name);
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        match self.change(&doing, RouteNetlinkMessage::NewRoute(message), flags) {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                let same = self.routes()?.into_iter().any(|route| {
                    route.destination.prefix_len() == 0
                        && route.gateway == Some(gateway)
                        && route.interface == Some(interface.index)
                });
                if same { Ok(()) } else { Err(error) }
            }
            result => result,
        }
    }
}

fn route(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let everything = match header.address_family {
        AddressFamily::Inet => IpNet::V4(Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0).ok()?),
        AddressFamily::Inet6 => IpNet::V6(Ipv6Net::new(Ipv6Addr::UNSPECIFIED, 0).ok()?),
        _ => return None,
    };
    let mut found = Route { destination: everything, gateway: None, interface: None, priority: 0 };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                found.destination = IpNet::new(plain(address)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(address) => found.gateway = plain(address),
            RouteAttribute::Oif(index) => found.interface = Some(*index),
            RouteAttribute::Priority(priority) => found.priority = *priority,
            _ => {}
        }
    }
    Some(found)
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
