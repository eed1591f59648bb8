//! Routes: list those of the main table, add and delete.

use super::link::Interface;
use super::socket::{Error, Netlink, Request};
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

/// A route to be made in the main table, or deleted from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRoute {
    /// Where to; a prefix of length 0 is the default route.
    pub destination: IpNet,
    /// Through which router; the kernel finds the interface by it.
    pub gateway: Option<IpAddr>,
    /// Lower is preferred.
    pub priority: u32,
    /// What happens to packets.
    pub kind: RouteKind,
}

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// Drops it in silence.
    Blackhole,
    /// Drops it, and tells the sender that nobody is there.
    Unreachable,
    /// Drops it, and tells the sender that this is forbidden.
    Prohibit,
}

/// The main routing table.
pub const MAIN_TABLE: u32 = 254;

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

impl Request {
    /// Adds a route. It is no error when there is another one to that destination, with another priority or not.
    #[must_use]
    pub fn add_route(route: &NewRoute) -> Self {
        let doing = format!("add a route to {}", route.destination);
        Self::new(doing, RouteNetlinkMessage::NewRoute(new_route(route)), NLM_F_CREATE)
    }

    /// Adds a route through the interface number `index`; without a router, what it leads to is on that link. EEXIST
    /// when there is another one to that destination with that priority.
    #[must_use]
    pub fn add_route_on(route: &NewRoute, index: u32) -> Self {
        let doing = format!("add a route to {} on the interface {index}", route.destination);
        let mut message = new_route(route);
        if route.gateway.is_none() {
            message.header.scope = RouteScope::Link;
        }
        message.attributes.push(RouteAttribute::Oif(index));
        Self::new(doing, RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes a route. ESRCH when there is none like it.
    #[must_use]
    pub fn delete_route(route: &NewRoute) -> Self {
        let doing = format!("delete the route to {}", route.destination);
        Self::new(doing, RouteNetlinkMessage::DelRoute(new_route(route)), 0)
    }
}

fn new_route(route: &NewRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family =
        if route.destination.addr().is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::Static;
    header.scope = RouteScope::Universe;
    header.kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Prohibit => RouteType::Prohibit,
    };
    header.destination_prefix_length = route.destination.prefix_len();
    // The kernel refuses host bits.
    message.attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message.attributes.push(RouteAttribute::Priority(route.priority));
    message
}

pub(super) fn route(message: RouteNetlinkMessage) -> Option<Route> {
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

pub(super) fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
