//! What the host has: links, addresses, main tables and next hops, as they were at one moment.
//!
//! A snapshot is a value: everything that follows from it is computed without asking the kernel again, and a test or a
//! fuzzer writes one from bytes. It keeps what a template may need and no more, in the kernel's bytes, one message
//! behind the other. A machine that routes for others may have a million routes: [`MEMORY`] bytes of each kind are
//! kept, default routes beyond that too, and whoever reads it is told how many were left out.

use super::record::{Address, Link, Nexthops, Route};
use crate::netlink::{Error, List, Netlink, messages};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Bytes of addresses, of routes of a family, and of next hops that are kept: a hundred thousand routes.
pub(super) const MEMORY: usize = 16 << 20;

/// Twice that for what is wanted most.
const MEMORY_OF_DEFAULTS: usize = 2 * MEMORY;

/// Interfaces that are kept.
const LINKS: usize = 1 << 16;

/// The network configuration of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    links: Vec<Link>,
    addresses: Kept,
    routes: [Kept; 2],
    nexthops: Kept,
}

/// Messages back to back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Kept {
    bytes: Vec<u8>,
    left_out: usize,
}

impl Kept {
    fn push(&mut self, message: &[u8], room: usize) {
        if self.bytes.len() + message.len() > room {
            self.left_out += 1;
            return;
        }
        self.bytes.extend(message);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn messages(&self) -> impl Iterator<Item = &[u8]> {
        messages(&self.bytes).map_while(Result::ok)
    }
}

impl Snapshot {
    /// Asks the kernel, in the namespace of the socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take(netlink: &mut Netlink) -> Result<Self, Error> {
        let links = netlink.list_raw(List::Links, add_link)?;
        let addresses = netlink.list_raw(List::Addresses, add_address)?;
        let v4 = netlink
            .list_raw(List::Routes { ipv6: false }, |kept, message| add_route(kept, message, false))?;
        let v6 =
            netlink.list_raw(List::Routes { ipv6: true }, |kept, message| add_route(kept, message, true))?;
        let mut snapshot = Self { links, addresses, routes: [v4, v6], nexthops: Kept::default() };
        if snapshot.routes().any(|route| route.names_an_object()) {
            snapshot.nexthops =
                netlink.list_raw(List::Nexthops, |kept: &mut Kept, message| kept.push(message, MEMORY))?;
        }
        Ok(snapshot)
    }

    /// One from messages of all kinds, as the kernel might have sent them.
    pub(crate) fn from_messages(datagram: &[u8]) -> Self {
        const NEW_LINK: u16 = 16;
        const NEW_ADDRESS: u16 = 20;
        const NEW_ROUTE: u16 = 24;
        const NEW_NEXTHOP: u16 = 104;
        let mut snapshot = Self::default();
        for message in messages(datagram).map_while(Result::ok) {
            let kind =
                message.get(4..).and_then(|rest| rest.first_chunk()).map(|kind| u16::from_ne_bytes(*kind));
            match kind {
                Some(NEW_LINK) => add_link(&mut snapshot.links, message),
                Some(NEW_ADDRESS) => add_address(&mut snapshot.addresses, message),
                Some(NEW_ROUTE) => {
                    let [v4, v6] = &mut snapshot.routes;
                    add_route(v4, message, false);
                    add_route(v6, message, true);
                }
                Some(NEW_NEXTHOP) => snapshot.nexthops.push(message, MEMORY),
                _ => {}
            }
        }
        snapshot
    }

    pub(super) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    pub(super) fn link_at(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// All addresses that the host has.
    #[must_use]
    pub fn all_addresses(&self) -> BTreeSet<IpAddr> {
        self.addresses().map(|address| address.address).collect()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = Address<'_>> {
        self.addresses.messages().filter_map(Address::parse)
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = Route<'_>> {
        self.routes.iter().flat_map(Kept::messages).filter_map(Route::parse)
    }

    pub(super) fn nexthops(&self) -> Nexthops<'_> {
        Nexthops::new(self.nexthops.messages())
    }

    /// How many addresses, routes and next hops found no room.
    pub(super) fn left_out(&self) -> usize {
        let routes: usize = self.routes.iter().map(|kept| kept.left_out).sum();
        self.addresses.left_out + routes + self.nexthops.left_out
    }
}

fn add_link(links: &mut Vec<Link>, message: &[u8]) {
    if links.len() < LINKS {
        links.extend(Link::parse(message));
    }
}

fn add_address(kept: &mut Kept, message: &[u8]) {
    if Address::parse(message).is_some() {
        kept.push(message, MEMORY);
    }
}

fn add_route(kept: &mut Kept, message: &[u8], ipv6: bool) {
    if let Some(route) = Route::parse(message)
        && route.family.is_v6() == ipv6
    {
        kept.push(message, if route.is_default() { MEMORY_OF_DEFAULTS } else { MEMORY });
    }
}
