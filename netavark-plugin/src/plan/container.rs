//! What the interface inside the container is given, whoever made it.

use super::{Change, Key, On, Op};
use crate::spec::{Ipam, IpamKind, Route, RouteKind};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use slipway_host::netlink::{NewRoute, RouteKind as KernelKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The metric of a configured route that has none of its own. That of the network is for default routes alone.
const ROUTE_METRIC: u32 = 100;

/// No addresses by router advertisement: the ones given are meant to be all. A kernel without IPv6 and a read-only
/// `/proc` will do.
pub(super) fn no_autoconf() -> Op {
    Op::optional(Key::v6(On::Inside, "autoconf"), "0")
}

/// Settings of the container's end of a pair. It works without any of them.
pub(super) fn settings(ipv6: bool) -> impl Iterator<Item = Op> {
    let no_detection = ipv6.then(|| Op::optional(Key::v6(On::Inside, "accept_dad"), "0"));
    let rest = [
        // The kernel's own announcement comes as the interface goes up, when the bridge lets nothing through yet: it is
        // of use when the interface changes later. At setup neighbours are told by [`crate::announce`].
        Op::optional(Key::v4(On::Inside, "arp_notify"), "1"),
        // A container on two networks answers by either.
        Op::optional(Key::v4(On::Inside, "rp_filter"), "2"),
    ];
    [no_autoconf(), ndisc_notify()].into_iter().chain(no_detection).chain(rest)
}

/// The kernel announces an IPv6 address itself when it has found no duplicate of it, which is seconds after a setup
/// where it looks for any. A kernel without IPv6 and a read-only `/proc` will do.
pub(super) fn ndisc_notify() -> Op {
    Op::optional(Key::v6(On::Inside, "ndisc_notify"), "1")
}

/// The container listens to the routers of the link, as any machine on it would: when IPv6 comes from the network. A
/// kernel without it will do, as above: then there is none.
pub(super) fn listen_to_routers(metric: u32, default_route: bool) -> [Op; 6] {
    [
        // 2: also if the container itself forwards.
        Op::optional(Key::v6(On::Inside, "accept_ra"), "2"),
        Op::optional(Key::v6(On::Inside, "autoconf"), "1"),
        Op::optional(Key::v6(On::Inside, "accept_ra_defrtr"), if default_route { "1" } else { "0" }),
        Op::optional(Key::v6(On::Inside, "ra_defrtr_metric"), metric.to_string()),
        // RFC 4429: the container need not wait for seconds until nobody else turned out to have its address.
        Op::optional(Key::v6(On::Inside, "optimistic_dad"), "1"),
        Op::optional(Key::v6(On::Inside, "use_optimistic"), "1"),
    ]
}

/// Addresses, the link, then routes: a gateway must be reachable when its route is made.
pub(super) fn address_and_route(
    ipam: &Ipam,
    metric: u32,
    default_route: bool,
) -> impl Iterator<Item = Op> + use<'_> {
    let addresses = ipam.addresses.iter().map(|address| Op::Address { on: On::Inside, net: address.ipnet });
    let up = Op::change(On::Inside, Change::Up);
    let defaults = [false, true]
        .into_iter()
        .filter(move |_| default_route)
        .filter_map(|ipv6| ipam.default_gateway(ipv6))
        .map(move |gateway| Op::Route(default(gateway, metric)));
    addresses.chain([up]).chain(defaults).chain(routes(ipam).map(Op::Route))
}

/// The routes that teardown has to delete itself: those that do not vanish with the interface.
pub(super) fn forget_routes(ipam: &Ipam) -> impl Iterator<Item = Op> + use<'_> {
    routes(ipam).map(Op::DeleteRoute)
}

/// The configured routes.
fn routes(ipam: &Ipam) -> impl Iterator<Item = NewRoute> + use<'_> {
    let routes = if ipam.kind == IpamKind::None { &[] } else { ipam.routes.as_slice() };
    routes.iter().filter_map(static_route)
}

fn default(gateway: IpAddr, priority: u32) -> NewRoute {
    let destination = if gateway.is_ipv6() {
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0))
    } else {
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0))
    };
    NewRoute { destination, gateway: Some(gateway), priority, kind: KernelKind::Unicast }
}

fn static_route(route: &Route) -> Option<NewRoute> {
    let kind = match route.kind {
        RouteKind::Unicast => KernelKind::Unicast,
        RouteKind::Blackhole => KernelKind::Blackhole,
        RouteKind::Unreachable => KernelKind::Unreachable,
        RouteKind::Prohibit => KernelKind::Prohibit,
        // Refused long before.
        RouteKind::Unknown(_) => return None,
    };
    Some(NewRoute {
        destination: route.destination,
        gateway: route.gateway.filter(|_| kind == KernelKind::Unicast),
        priority: route.metric.unwrap_or(ROUTE_METRIC),
        kind,
    })
}
