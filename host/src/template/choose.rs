//! Chooses one family's interface, addresses, gateway and routes.

use super::copy::Change;
use super::record::{Address, DEAD, Family, Link, Nexthops, Route};
use super::snapshot::Snapshot;
use super::{ChooseError, Side, Wish, Wishes};
use ipnet::IpNet;
use nix::libc;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes that the copied routes of a template take at most.
pub(super) const MEMORY: usize = 32 << 20;

/// Local mode: the guest.
const LOCAL_GUEST: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 1);
/// Its prefix.
const LOCAL_PREFIX: u8 = 16;
/// Its gateway.
const LOCAL_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 2);
/// Its gateway over IPv6, and what we are called on the link where the template has no such address.
const LOCAL_GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// RFC 4291 §2.5.1: interface identifiers have 64 bits.
const PREFIX6: u8 = 64;

/// A [`Wish`] of either family.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    family: Family,
    address: Option<IpAddr>,
    prefix: Option<u8>,
    gateway: Option<IpAddr>,
    outbound: Option<&'a str>,
    copy_addresses: bool,
    copy_routes: bool,
}

impl<'a> Asked<'a> {
    pub(super) fn new<A: Copy + Into<IpAddr>>(family: Family, wish: &'a Wish<A>) -> Self {
        Self {
            family,
            address: wish.address.map(Into::into),
            prefix: wish.prefix.filter(|_| !family.is_v6()),
            gateway: wish.gateway.map(Into::into),
            outbound: wish.outbound.as_deref(),
            copy_addresses: wish.copy_addresses,
            copy_routes: wish.copy_routes,
        }
    }

    /// The address asked for, with its prefix; `None` for one that cannot be.
    fn net(&self) -> Option<IpNet> {
        let address = self.address?;
        let prefix = match address {
            IpAddr::V4(v4) => self.prefix.unwrap_or_else(|| class_of(v4)),
            IpAddr::V6(_) => PREFIX6,
        };
        IpNet::new(address, prefix).ok()
    }
}

/// The prefix that an address had before there were prefixes (RFC 791 §3.2).
fn class_of(address: Ipv4Addr) -> u8 {
    match address.octets() {
        [0..=127, ..] => 8,
        [128..=191, ..] => 16,
        [192..=223, ..] => 24,
        _ => 32,
    }
}

/// Makes sides of a template, and keeps count of their routes.
#[derive(Debug)]
pub(super) struct Chooser<'a> {
    snapshot: &'a Snapshot,
    nexthops: Nexthops<'a>,
    /// The interface that the command line names.
    named: Option<&'a Link>,
    size: usize,
    left_out: usize,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, wishes: &'a Wishes) -> Result<Self, ChooseError> {
        let named = match &wishes.interface {
            Some(name) => Some(snapshot.link(name).ok_or_else(|| ChooseError::Unknown(name.clone()))?),
            None => None,
        };
        let left_out = snapshot.left_out();
        Ok(Self { snapshot, nexthops: snapshot.nexthops(), named, size: 0, left_out })
    }

    /// How many addresses and routes were too many.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    pub(super) fn side(&mut self, asked: &Asked<'_>) -> Result<Side, ChooseError> {
        let outbound = match asked.outbound {
            Some(name) => Some(self.snapshot.link(name).ok_or(ChooseError::Outbound)?),
            None => None,
        };
        let usable =
            |link: &&Link| asked.address.is_some() || self.main_address(asked.family, link).is_some();
        let like = match (self.named, outbound) {
            (Some(named), _) => Some(named).filter(usable),
            (None, Some(outbound)) => Some(Some(outbound).filter(usable).ok_or(ChooseError::Outbound)?),
            (None, None) => self.candidates(asked.family).into_iter().find(usable),
        };
        Ok(match like {
            Some(link) => self.like(asked, link),
            None => local(asked),
        })
    }

    /// Interfaces that lead beyond their links: those of default routes first, in the kernel's order, each once.
    fn candidates(&self, family: Family) -> Vec<&'a Link> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for wants_default in [true, false] {
            let routes = self.snapshot.routes().filter(|route| {
                route.family == family && route.is_default() == wants_default && !route.stays_on_the_link()
            });
            for route in routes {
                let Some(interface) = self.first_hop(&route).filter(|interface| seen.insert(*interface))
                else {
                    continue;
                };
                found.extend(self.snapshot.link_at(interface).filter(|link| !link.loopback));
            }
        }
        found
    }

    /// The interface of a route's first next hop; of the first that works, if any does.
    fn first_hop(&self, route: &Route<'_>) -> Option<u32> {
        let alive = route.hops(&self.nexthops).find(|hop| hop.flags & DEAD == 0);
        alive.or_else(|| route.hops(&self.nexthops).next()).map(|hop| hop.interface)
    }

    fn addresses(&self, family: Family, link: &Link) -> impl Iterator<Item = Address<'a>> {
        let (index, snapshot) = (link.index, self.snapshot);
        snapshot.addresses().filter(move |address| {
            address.family == family && address.interface() == index && address.is_of_use()
        })
    }

    /// The address with the longest prefix, the first of several.
    fn main_address(&self, family: Family, link: &Link) -> Option<Address<'a>> {
        self.addresses(family, link)
            .reduce(|best, other| if other.prefix() > best.prefix() { other } else { best })
    }

    fn like(&mut self, asked: &Asked<'_>, link: &Link) -> Side {
        let (addresses, given) = self.given(asked, link);
        let found = self.gateway(asked.family, link);
        let gateway = asked.gateway.or(found);
        let routes = if asked.gateway.is_some() || !asked.copy_routes {
            vec![default_route(asked.family, gateway, &addresses)]
        } else {
            self.routes(asked.family, link)
        };
        let link_local = asked.family.is_v6().then(|| self.link_local(link).unwrap_or(LOCAL_GATEWAY6));
        Side { interface: Some(link.clone()), addresses, gateway, link_local, given, routes }
    }

    /// The guest's addresses, the main one first.
    fn given(&self, asked: &Asked<'_>, link: &Link) -> (Vec<IpNet>, Vec<Change>) {
        if let Some(net) = asked.net() {
            return (vec![net], vec![Change::address(net)]);
        }
        let Some(main) = self.main_address(asked.family, link) else { return (Vec::new(), Vec::new()) };
        let others = self.addresses(asked.family, link).filter(|other| {
            asked.copy_addresses && (other.address, other.prefix()) != (main.address, main.prefix())
        });
        let first = match asked.prefix.filter(|prefix| *prefix != main.prefix()) {
            Some(prefix) => IpNet::new(main.address, prefix).ok().map(|net| (net, Change::address(net))),
            None => copy(&main),
        };
        first.into_iter().chain(others.filter_map(|other| copy(&other))).unzip()
    }

    /// Where the first default route through the interface leads.
    fn gateway(&self, family: Family, link: &Link) -> Option<IpAddr> {
        let mut routes = self.snapshot.routes().filter(|route| route.family == family && route.is_default());
        let hop =
            routes.find_map(|route| route.hops(&self.nexthops).find(|hop| hop.interface == link.index))?;
        hop.gateway.filter(|gateway| Family::of(*gateway) == family)
    }

    /// RFC 4291 §2.5.6: the interface's own address on its link.
    fn link_local(&self, link: &Link) -> Option<Ipv6Addr> {
        let of_it = |address: &Address<'_>| {
            address.interface() == link.index && address.scope() == libc::RT_SCOPE_LINK
        };
        self.snapshot.addresses().filter(of_it).find_map(|address| match address.address {
            IpAddr::V6(v6) => Some(v6).filter(Ipv6Addr::is_unicast_link_local),
            IpAddr::V4(_) => None,
        })
    }

    /// Copies of the routes through the interface. When memory has run out, the rest is only counted: each might name
    /// an object of thousands of next hops.
    fn routes(&mut self, family: Family, link: &Link) -> Vec<Change> {
        let mut routes = Vec::new();
        for route in self.snapshot.routes().filter(|route| route.family == family) {
            if self.size >= MEMORY {
                self.left_out += 1;
            } else if let Some(copy) = Change::copy_route(&route, link.index, &self.nexthops) {
                self.size += copy.size();
                routes.push(copy);
            }
        }
        routes
    }
}

fn copy(address: &Address<'_>) -> Option<(IpNet, Change)> {
    let net = IpNet::new(address.address, address.prefix()).ok()?;
    Some((net, Change::copy_address(address, net)))
}

/// Without an interface to be like.
fn local(asked: &Asked<'_>) -> Side {
    let v6 = asked.family.is_v6();
    let usual = IpNet::new(IpAddr::V4(LOCAL_GUEST), LOCAL_PREFIX).ok().filter(|_| !v6);
    let addresses: Vec<IpNet> = asked.net().or(usual).into_iter().collect();
    let usual = if v6 { IpAddr::V6(LOCAL_GATEWAY6) } else { IpAddr::V4(LOCAL_GATEWAY) };
    let gateway = Some(asked.gateway.unwrap_or(usual));
    Side {
        interface: None,
        given: addresses.iter().copied().map(Change::address).collect(),
        routes: vec![default_route(asked.family, gateway, &addresses)],
        addresses,
        gateway,
        link_local: v6.then_some(LOCAL_GATEWAY6),
    }
}

/// The only route of a guest whose host's are not copied.
fn default_route(family: Family, gateway: Option<IpAddr>, addresses: &[IpNet]) -> Change {
    let near = |gateway: IpAddr| match gateway {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => true,
        _ => addresses.iter().any(|net| net.contains(&gateway)),
    };
    Change::default_route(family, gateway, gateway.is_some_and(|gateway| !near(gateway)))
}
