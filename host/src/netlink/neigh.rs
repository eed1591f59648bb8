//! Neighbours: who has been seen on a link (ARP and NDP tables).

use super::socket::{Error, Netlink};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use slipway_netstack::addr::MacAddr;
use std::net::IpAddr;

/// An entry of the neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface's number.
    pub interface: u32,
    /// Whose.
    pub address: IpAddr,
    /// Its MAC address, if it was resolved.
    pub mac: Option<MacAddr>,
    /// Whether it has said to be a router (IPv6).
    pub router: bool,
}

impl Netlink {
    /// The neighbour table, both families.
    ///
    /// # Errors
    /// The kernel's.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, Error> {
        let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let list = self.dump("list the neighbours", &message)?;
        Ok(list.into_iter().filter_map(neighbour).collect())
    }
}

pub(super) fn neighbour(message: RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let mut address = None;
    let mut mac = None;
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::V4(found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::V6(found));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok().map(MacAddr),
            _ => {}
        }
    }
    let router = message.header.flags.contains(NeighbourFlags::Router);
    Some(Neighbour { interface: message.header.ifindex, address: address?, mac, router })
}
