//! Which ways lead out of a machine: through which interfaces, and how large a packet each of them takes.
//!
//! That is what the routes say, not a packet's fate: rules that choose tables (ip-rule(8)) are not asked. A route is a
//! way out when its prefix has at most three bits: a default route, the halves by which a VPN goes before one (0/1 and
//! 128/1), what is left of halves around a range that has been left out, and all of IPv6 that is given out (2000::/3).
//! Where a route names a next hop object, that says through which interfaces it leads ([`super::next_hop`]).
//! Routes that end in the machine itself are none, whatever their metric: those of host scope, and those over the
//! loopback interface. Of routes to one destination the kernel uses those of the lowest metric, by all their next hops.
//! Source: rtnetlink(7), Linux `net/ipv4/fib_semantics.c` (`fib_dump_info`), `net/ipv6/route.c` (`rt6_fill_node`).

use super::link::Interface;
use super::next_hop::{self, NextHop};
use super::socket::{Error, Netlink};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHopFlags, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use std::net::IpAddr;

/// The longest prefix of a way out.
const BROAD: u8 = 3;

/// A way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The interface that it leads through.
    pub interface: Interface,
    /// The largest packet, in bytes: what the interface takes, or less if the route says so (RTAX_MTU).
    pub mtu: u32,
}

/// A next hop of a route that leads out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hop {
    length: u8,
    destination: Option<IpAddr>,
    priority: u32,
    through: Through,
    mtu: Option<u32>,
}

/// Through what a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    /// An interface, by its number.
    Interface(u32),
    /// A next hop object, by its own.
    Object(u32),
}

impl Netlink {
    /// All ways out that a routing table has for one family: default routes before narrower ones, and of those to one
    /// destination only the preferred.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ways_out(&mut self, table: u32, ipv6: bool) -> Result<Vec<Way>, Error> {
        let mut hops = self.hops(table, ipv6)?;
        hops.sort_by_key(|hop| (hop.length, hop.destination, hop.priority));
        let mut ways = Vec::new();
        let mut preferred: Option<Hop> = None;
        for hop in hops {
            let same = |other: &Hop| (other.length, other.destination) == (hop.length, hop.destination);
            if preferred.as_ref().is_some_and(|other| same(other) && other.priority < hop.priority) {
                continue;
            }
            let Through::Interface(index) = hop.through else { continue };
            let interface = match self.interface_at(index) {
                Ok(interface) if !interface.loopback => interface,
                Ok(_) => continue,
                // It has gone meanwhile.
                Err(error) if error.errno() == Some(Errno::ENODEV) => continue,
                Err(error) => return Err(error),
            };
            let mtu = hop.mtu.map_or(interface.mtu, |mtu| mtu.min(interface.mtu));
            ways.push(Way { interface, mtu });
            preferred = Some(hop);
        }
        Ok(ways)
    }

    fn hops(&mut self, table: u32, ipv6: bool) -> Result<Vec<Hop>, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.attributes.push(RouteAttribute::Table(table));
        let list = match self.dump("list the routes", &RouteNetlinkMessage::GetRoute(message)) {
            // Nobody has put a route into that table yet.
            Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(Vec::new()),
            list => list?,
        };
        let mut hops: Vec<Hop> = list.into_iter().flat_map(|message| hops(message, table)).collect();
        if hops.iter().any(|hop| matches!(hop.through, Through::Object(_))) {
            let objects = self.next_hops()?;
            hops = hops.into_iter().flat_map(|hop| hop.without_object(&objects)).collect();
        }
        Ok(hops)
    }
}

impl Hop {
    /// One for each interface that the next hop object leads through.
    fn without_object(self, objects: &[NextHop]) -> Vec<Self> {
        let Through::Object(id) = self.through else { return vec![self] };
        let interfaces = next_hop::interfaces(objects, id).into_iter();
        interfaces.map(|index| Self { through: Through::Interface(index), ..self }).collect()
    }
}

/// The next hops that are alive of a route that leads out.
pub(super) fn hops(message: RouteNetlinkMessage, wanted: u32) -> Vec<Hop> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return Vec::new() };
    let header = &message.header;
    if !leads_out(header) {
        return Vec::new();
    }
    let length = header.destination_prefix_length;
    let mut route = Hop { length, destination: None, priority: 0, through: Through::Interface(0), mtu: None };
    let mut table = u32::from(header.table);
    let (mut interfaces, mut object) = (Vec::new(), None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => route.destination = super::route::plain(address),
            RouteAttribute::Priority(priority) => route.priority = *priority,
            RouteAttribute::Metrics(list) => {
                route.mtu = list.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::Oif(index) if !header.flags.contains(RouteFlags::Dead) => interfaces.push(*index),
            RouteAttribute::MultiPath(list) => {
                let alive = list.iter().filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead));
                interfaces.extend(alive.map(|hop| hop.interface_index));
            }
            RouteAttribute::NhId(id) => object = Some(Through::Object(*id)),
            _ => {}
        }
    }
    if table != wanted {
        return Vec::new();
    }
    // The route's own words, where it has any: without asking, and of a moment with the rest.
    let through: Vec<_> = match object {
        Some(object) if interfaces.is_empty() => vec![object],
        _ => interfaces.into_iter().map(Through::Interface).collect(),
    };
    through.into_iter().map(|through| Hop { through, ..route }).collect()
}

fn leads_out(header: &RouteHeader) -> bool {
    header.destination_prefix_length <= BROAD
        && header.kind == RouteType::Unicast
        && header.scope != RouteScope::Host
}

#[cfg(test)]
mod tests {
    use super::super::next_hop::tests::{make, make_group};
    use super::super::{Kind, MAIN_TABLE, NewLink, Request};
    use super::*;
    use crate::netns::testing::in_new_namespace;
    use netlink_packet_core::NLM_F_CREATE;
    use netlink_packet_route::route::RouteNextHop;
    use std::net::Ipv4Addr;

    /// A route as the kernel is told it.
    fn add(netlink: &mut Netlink, to: (&str, u8), scope: RouteScope, metric: u32, rest: Vec<RouteAttribute>) {
        let to: (IpAddr, u8) = (to.0.parse().unwrap(), to.1);
        let mut message = RouteMessage::default();
        message.header.address_family =
            if to.0.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.scope = scope;
        message.header.kind = RouteType::Unicast;
        message.header.destination_prefix_length = to.1;
        if to.1 > 0 {
            message.attributes.push(RouteAttribute::Destination(to.0.into()));
        }
        message.attributes.push(RouteAttribute::Priority(metric));
        message.attributes.extend(rest);
        netlink.change("add a route", RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE).unwrap();
    }

    /// Two interfaces that are up, with an address each: their numbers, and that of lo.
    fn two(netlink: &mut Netlink) -> [u32; 3] {
        let link = |name, kind| NewLink { name, mtu: None, mac: None, master: None, netns: None, kind };
        let pair = link("w0", Kind::Veth { peer: Box::new(link("w1", Kind::Dummy)) });
        netlink.run_one(&Request::create(&pair)).unwrap();
        let [w0, w1, lo] = ["w0", "w1", "lo"].map(|name| netlink.interface(name).unwrap().index);
        let requests = [
            Request::set_up(w0, true),
            Request::set_up(w1, true),
            Request::set_up(lo, true),
            Request::set_mtu(w1, 1400),
            Request::add_address(w0, "10.7.0.2/24".parse().unwrap()),
            Request::add_address(w1, "10.8.0.2/24".parse().unwrap()),
        ];
        netlink.run(&requests).into_iter().for_each(|result| result.unwrap());
        [w0, w1, lo]
    }

    fn through(gateway: [u8; 4]) -> RouteAttribute {
        RouteAttribute::Gateway(IpAddr::from(gateway).into())
    }

    fn seen(netlink: &mut Netlink, ipv6: bool) -> Vec<(String, u32)> {
        let ways = netlink.ways_out(MAIN_TABLE, ipv6).unwrap();
        ways.into_iter().map(|way| (way.interface.name, way.mtu)).collect()
    }

    #[test]
    fn what_ends_in_the_machine_is_no_way_out() {
        in_new_namespace("what_ends_in_the_machine_is_no_way_out", || {
            let mut netlink = Netlink::open().unwrap();
            let [w0, _, lo] = two(&mut netlink);
            add(&mut netlink, ("0.0.0.0", 0), RouteScope::Host, 1, vec![RouteAttribute::Oif(lo)]);
            add(&mut netlink, ("0.0.0.0", 0), RouteScope::Link, 2, vec![RouteAttribute::Oif(lo)]);
            add(&mut netlink, ("0.0.0.0", 0), RouteScope::Host, 3, vec![RouteAttribute::Oif(w0)]);
            add(&mut netlink, ("::", 0), RouteScope::Universe, 1, vec![RouteAttribute::Oif(lo)]);
            assert_eq!((seen(&mut netlink, false), seen(&mut netlink, true)), (vec![], vec![]));
            add(&mut netlink, ("0.0.0.0", 0), RouteScope::Universe, 9, vec![through([10, 7, 0, 1])]);
            assert_eq!(seen(&mut netlink, false), [("w0".to_owned(), 1500)]);
            add(&mut netlink, ("::", 0), RouteScope::Universe, 9, vec![RouteAttribute::Oif(w0)]);
            assert_eq!(seen(&mut netlink, true), [("w0".to_owned(), 1500)]);
            assert_eq!(netlink.ways_out(4711, false).unwrap(), []);
        });
    }

    #[test]
    fn all_next_hops_of_the_preferred_route_count() {
        in_new_namespace("all_next_hops_of_the_preferred_route_count", || {
            let mut netlink = Netlink::open().unwrap();
            let [w0, w1, _] = two(&mut netlink);
            let hop = |interface, gateway: [u8; 4]| {
                let mut hop = RouteNextHop::default();
                hop.interface_index = interface;
                hop.attributes.push(RouteAttribute::Gateway(IpAddr::V4(Ipv4Addr::from(gateway)).into()));
                hop
            };
            let both = RouteAttribute::MultiPath(vec![hop(w0, [10, 7, 0, 1]), hop(w1, [10, 8, 0, 1])]);
            let worse =
                |mtu| vec![through([10, 7, 0, 9]), RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])];
            add(&mut netlink, ("0.0.0.0", 0), RouteScope::Universe, 7, worse(1000));
            add(&mut netlink, ("0.0.0.0", 0), RouteScope::Universe, 5, vec![both]);
            let pair = |name: &str, mtu| (name.to_owned(), mtu);
            assert_eq!(seen(&mut netlink, false), [pair("w0", 1500), pair("w1", 1400)]);
            add(&mut netlink, ("0.0.0.0", 0), RouteScope::Universe, 3, worse(1300));
            assert_eq!(seen(&mut netlink, false), [pair("w0", 1300)]);
            add(&mut netlink, ("0.0.0.0", 0), RouteScope::Universe, 2, worse(9000));
            assert_eq!(seen(&mut netlink, false), [pair("w0", 1500)], "the interface takes no more");
        });
    }

    #[test]
    fn next_hops_with_numbers_of_their_own_count() {
        const NAME: &str = "next_hops_with_numbers_of_their_own_count";
        in_new_namespace(NAME, || {
            let mut netlink = Netlink::open().unwrap();
            let [w0, w1, _] = two(&mut netlink);
            make(&mut netlink, 7, false, w0);
            make(&mut netlink, 8, false, w1);
            make(&mut netlink, 10, true, w1);
            make_group(&mut netlink, 9, &[7, 8]);
            let pair = |name: &str, mtu| (name.to_owned(), mtu);
            let by = |id| vec![RouteAttribute::NhId(id)];
            add(&mut netlink, ("0.0.0.0", 0), RouteScope::Universe, 5, by(9));
            add(&mut netlink, ("::", 0), RouteScope::Universe, 5, by(10));
            // With the hops in the route itself, and without.
            for mode in ["1", "0"] {
                std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", mode).unwrap();
                assert_eq!(seen(&mut netlink, false), [pair("w0", 1500), pair("w1", 1400)], "{mode}");
                assert_eq!(seen(&mut netlink, true), [pair("w1", 1400)], "{mode}");
            }
            let narrow = RouteAttribute::Metrics(vec![RouteMetric::Mtu(1300)]);
            add(&mut netlink, ("0.0.0.0", 0), RouteScope::Universe, 3, [by(7), vec![narrow]].concat());
            assert_eq!(seen(&mut netlink, false), [pair("w0", 1300)]);
        });
    }

    #[test]
    fn parts_of_the_world_come_behind_default_routes() {
        in_new_namespace("parts_of_the_world_come_behind_default_routes", || {
            let mut netlink = Netlink::open().unwrap();
            let [w0, w1, _] = two(&mut netlink);
            for half in ["0.0.0.0", "128.0.0.0"] {
                add(&mut netlink, (half, 1), RouteScope::Universe, 100, vec![through([10, 8, 0, 1])]);
            }
            add(&mut netlink, ("64.0.0.0", 4), RouteScope::Universe, 1, vec![through([10, 7, 0, 1])]);
            let pair = |name: &str, mtu| (name.to_owned(), mtu);
            assert_eq!(seen(&mut netlink, false), [pair("w1", 1400), pair("w1", 1400)]);
            add(&mut netlink, ("0.0.0.0", 0), RouteScope::Universe, 900, vec![through([10, 7, 0, 1])]);
            assert_eq!(seen(&mut netlink, false).first(), Some(&pair("w0", 1500)));
            let narrow = vec![RouteAttribute::Oif(w1), RouteAttribute::Metrics(vec![RouteMetric::Mtu(1280)])];
            add(&mut netlink, ("2000::", 3), RouteScope::Universe, 1, narrow);
            assert_eq!(seen(&mut netlink, true), [pair("w1", 1280)]);
            add(&mut netlink, ("8000::", 1), RouteScope::Universe, 1, vec![RouteAttribute::Oif(w0)]);
            assert_eq!(seen(&mut netlink, true), [pair("w0", 1500), pair("w1", 1280)]);
        });
    }
}
