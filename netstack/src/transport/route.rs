//! Where a destination leads, and what a host-side address looks like to the guest.
//!
//! The guest's network holds three special addresses. The gateway stands for the host: with host loopback allowed it leads
//! to 127.0.0.1 or ::1, and loopback clients of forwarded ports appear as it. Port 53 of the DNS address leads to the host's
//! nameservers; the two may be one. Everything else inside the network is nobody (its stations reach each other without
//! us), everything outside is the world, unless the network is internal: then the world is forbidden like the gateway. Contract: slirp4netns §8. Promise: no rule here lets a guest reach the host's loopback but the gateway's.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::config::Config;
use crate::drop_reason::DropReason;
use crate::engine::Engine;
use crate::ip::Packet;
use crate::ip::problem::Problem;
use crate::within::dns;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where a destination address of the guest leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// To this address on the host's side.
    Upstream(IpAddr),
    /// To the host's nameservers.
    Dns,
    /// To a port of the DNS address that nobody serves.
    Closed,
    /// To the gateway, which must not be used to reach the host, or out of an internal network.
    Forbidden,
    /// To a multicast group, or to all stations.
    Group,
    /// To an address of the guest's own network where nobody lives.
    Nobody,
}

/// Where a flow that the guest begins leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lead {
    /// To this endpoint on the host's side.
    Upstream(SocketAddr),
    /// To the host's nameservers.
    Dns,
    /// To a port of ours that nobody serves: each transport has a way of its own to say so.
    Closed,
}

impl Engine {
    /// Where a flow to `dst` leads that `packet` begins. This is the one door: what may not go there is told here why, if it is to
    /// be told.
    ///
    /// # Errors
    /// It leads nowhere; the guest has been answered.
    pub(crate) fn lead(
        &mut self,
        now: Instant,
        mac: MacAddr,
        packet: &Packet<'_>,
        dst: SocketAddr,
    ) -> Result<Lead, DropReason> {
        match route(&self.config, dst) {
            Route::Upstream(ip) => Ok(Lead::Upstream(SocketAddr::new(ip, dst.port()))),
            Route::Dns => Ok(Lead::Dns),
            Route::Closed => Ok(Lead::Closed),
            Route::Forbidden => {
                self.icmp_error(now, mac, packet.whole, Problem::NetUnreachable);
                Err(DropReason::Forbidden)
            }
            Route::Group => Err(DropReason::Multicast),
            Route::Nobody => Err(DropReason::NoSuchHost),
        }
    }
}

/// Where `dst` leads. The port tells DNS from the rest where gateway and DNS address are one; echo has none, 0.
pub(crate) fn route(config: &Config, dst: SocketAddr) -> Route {
    let to = match dst {
        SocketAddr::V4(dst) => route_v4(config, *dst.ip(), dst.port()),
        SocketAddr::V6(dst) => route_v6(config, *dst.ip(), dst.port()),
    };
    if config.internal && matches!(to, Route::Upstream(_)) { Route::Forbidden } else { to }
}

fn route_v4(config: &Config, dst: Ipv4Addr, port: u16) -> Route {
    let Some(v4) = config.v4 else { return Route::Nobody };
    if Some(dst) == v4.dns && (dst != v4.gateway || port == dns::PORT) {
        return nameserver(port);
    }
    if dst == v4.gateway || dst == Ipv4Addr::BROADCAST {
        return loopback(config, Ipv4Addr::LOCALHOST.into());
    }
    if dst.is_multicast() || dst == v4.network.broadcast() {
        return Route::Group;
    }
    if v4.network.contains(&dst) || dst.is_unspecified() || dst.is_loopback() {
        return Route::Nobody;
    }
    Route::Upstream(dst.into())
}

fn route_v6(config: &Config, dst: Ipv6Addr, port: u16) -> Route {
    let Some(v6) = config.v6 else { return Route::Nobody };
    if Some(dst) == v6.dns && (dst != v6.gateway || port == dns::PORT) {
        return nameserver(port);
    }
    if dst == v6.gateway {
        return loopback(config, Ipv6Addr::LOCALHOST.into());
    }
    if dst.is_multicast() {
        return Route::Group;
    }
    // An IPv4-mapped destination would make an IPv6 socket speak IPv4, past the rules above.
    let nobody = v6.network.contains(&dst)
        || dst.is_unspecified()
        || dst.is_loopback()
        || dst.is_unicast_link_local()
        || dst.to_ipv4_mapped().is_some();
    if nobody { Route::Nobody } else { Route::Upstream(dst.into()) }
}

const fn nameserver(port: u16) -> Route {
    if port == dns::PORT { Route::Dns } else { Route::Closed }
}

const fn loopback(config: &Config, to: IpAddr) -> Route {
    if config.host_loopback { Route::Upstream(to) } else { Route::Forbidden }
}

/// How the guest sees a peer that has `addr` on the host's side.
pub(crate) fn guest_view(config: &Config, addr: IpAddr) -> IpAddr {
    let gateway = match addr {
        IpAddr::V4(_) if config.internal => config.v4.map(|v4| v4.gateway.into()),
        IpAddr::V6(_) if config.internal => config.v6.map(|v6| v6.gateway.into()),
        IpAddr::V4(a) if a.is_loopback() || a.is_unspecified() => config.v4.map(|v4| v4.gateway.into()),
        IpAddr::V6(a) if a.is_loopback() || a.is_unspecified() => config.v6.map(|v6| v6.gateway.into()),
        // Link-local addresses of the host's links mean nothing on the guest's.
        IpAddr::V6(a) if a.is_unicast_link_local() => config.v6.map(|v6| v6.gateway.into()),
        // The client has an address that lies in the guest's own network: answers would never leave it.
        IpAddr::V4(a) => config.v4.filter(|v4| v4.network.contains(&a)).map(|v4| v4.gateway.into()),
        IpAddr::V6(a) => config.v6.filter(|v6| v6.network.contains(&a)).map(|v6| v6.gateway.into()),
    };
    gateway.unwrap_or(addr)
}

/// Whether `addr` is one of ours: echo requests to it are answered here.
pub(crate) fn is_ours(config: &Config, addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => config.v4.is_some_and(|v4| a == v4.gateway || Some(a) == v4.dns),
        IpAddr::V6(a) => {
            config.v6.is_some_and(|v6| a == v6.gateway || Some(a) == v6.dns || a == config.mac.link_local())
        }
    }
}

/// The address of ours that speaks to `src` about what that sent to `dst`.
///
/// RFC 4443 §2.2: the address that was asked, if it is ours; else one that a host would choose, which for a link-local
/// receiver is the link-local one (RFC 6724 §5, rule 2), and otherwise the router's on this link.
pub(crate) fn speaker(config: &Config, src: IpAddr, dst: IpAddr) -> Option<IpAddr> {
    if is_ours(config, dst) {
        return Some(dst);
    }
    match src {
        IpAddr::V4(_) => config.v4.map(|v4| v4.gateway.into()),
        IpAddr::V6(src) if src.is_unicast_link_local() => config.v6.map(|_| config.mac.link_local().into()),
        IpAddr::V6(_) => config.v6.map(|v6| v6.gateway.into()),
    }
}

/// Whether `addr` is a group that a router is in on its link (RFC 4291 §2.8): all nodes, all routers, and those that its
/// addresses are solicited by.
pub(crate) fn is_our_group(config: &Config, addr: IpAddr) -> bool {
    const LINK: [u16; 7] = [0xff02, 0, 0, 0, 0, 0, 0];
    let (IpAddr::V6(addr), Some(v6)) = (addr, config.v6) else { return false };
    let own = [Some(v6.gateway), v6.dns, Some(config.mac.link_local())];
    let solicited = |own: Ipv6Addr| {
        let [.., a, b, c] = own.octets();
        u128::from_be_bytes([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
    };
    matches!(addr.segments(), [a, b, c, d, e, f, g, 1 | 2] if [a, b, c, d, e, f, g] == LINK)
        || own.into_iter().flatten().any(|own| solicited(own) == addr.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;

    #[test]
    fn special_addresses_lead_where_the_contract_says() {
        let mut config = config();
        let to = |config: &Config, dst: &str| route(config, SocketAddr::new(dst.parse().unwrap(), 80));
        assert_eq!(to(&config, "10.0.2.2"), Route::Upstream("127.0.0.1".parse().unwrap()));
        assert_eq!(to(&config, "fd00::2"), Route::Upstream("::1".parse().unwrap()));
        assert_eq!((to(&config, "10.0.2.3"), to(&config, "fd00::3")), (Route::Closed, Route::Closed));
        assert_eq!(to(&config, "10.0.2.77"), Route::Nobody);
        assert_eq!(to(&config, "10.0.2.255"), Route::Group);
        assert_eq!(to(&config, "192.0.2.1"), Route::Upstream("192.0.2.1".parse().unwrap()));
        config.host_loopback = false;
        assert_eq!(to(&config, "10.0.2.2"), Route::Forbidden);
        assert_eq!(to(&config, "fd00::2"), Route::Forbidden);
    }

    #[test]
    fn no_other_spelling_reaches_the_hosts_loopback() {
        let config = config();
        for dst in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:10.9.9.9",
            "fe80::1",
        ] {
            assert_eq!(route(&config, SocketAddr::new(dst.parse().unwrap(), 53)), Route::Nobody, "{dst}");
        }
    }

    #[test]
    fn the_gateway_may_be_the_nameserver_too() {
        let mut config = config();
        config.host_loopback = false;
        if let (Some(v4), Some(v6)) = (&mut config.v4, &mut config.v6) {
            (v4.dns, v6.dns) = (Some(v4.gateway), Some(v6.gateway));
        }
        for gateway in ["10.0.2.2", "fd00::2"] {
            let to = |config: &Config, port| route(config, SocketAddr::new(gateway.parse().unwrap(), port));
            assert_eq!(to(&config, 53), Route::Dns);
            assert_eq!(to(&config, 80), Route::Forbidden);
            config.host_loopback = true;
            assert!(matches!(to(&config, 80), Route::Upstream(ip) if ip.is_loopback()));
            assert_eq!(to(&config, 53), Route::Dns);
            config.host_loopback = false;
        }
    }

    #[test]
    fn nothing_leaves_an_internal_network() {
        let config = Config { internal: true, ..config() };
        let to = |dst: &str, port| route(&config, SocketAddr::new(dst.parse().unwrap(), port));
        for dst in ["192.0.2.1", "2001:db8::1", "10.0.2.2", "fd00::2"] {
            assert_eq!(to(dst, 80), Route::Forbidden, "{dst}");
        }
        assert_eq!((to("10.0.2.3", 53), to("fd00::3", 53)), (Route::Dns, Route::Dns));
        assert_eq!(guest_view(&config, "192.0.2.9".parse().unwrap()).to_string(), "10.0.2.2");
        assert_eq!(guest_view(&config, "2001:db8::9".parse().unwrap()).to_string(), "fd00::2");
    }

    #[test]
    fn loopback_clients_appear_as_the_gateway() {
        let config = config();
        let seen = |addr: &str| guest_view(&config, addr.parse().unwrap()).to_string();
        assert_eq!(seen("127.0.0.1"), "10.0.2.2");
        assert_eq!(seen("127.1.2.3"), "10.0.2.2");
        assert_eq!(seen("::1"), "fd00::2");
        assert_eq!(seen("10.0.2.100"), "10.0.2.2");
        assert_eq!(seen("192.0.2.9"), "192.0.2.9");
        assert_eq!(seen("2001:db8::9"), "2001:db8::9");
    }
}
