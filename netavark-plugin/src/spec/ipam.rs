//! Which addresses, gateways and routes a container gets on a network. Choosing free addresses is the caller's work;
//! here the chosen ones are matched with the network's subnets.
//!
//! The 2.x contract gives each address to the subnet that contains it, several per subnet if need be, and the result
//! follows the order of the subnets. The 1.x contract matched the first with the first, the second with the second.

use super::validate::distinct;
use super::{Compat, NetAddress, Network, PerNetworkOptions, Route, RouteKind};
use crate::error::{Error, Result};
use ipnet::IpNet;
use std::net::IpAddr;

/// Who gives out addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpamKind {
    /// The caller did (`host-local`, or nothing said).
    HostLocal,
    /// A DHCP server on the network will.
    Dhcp,
    /// Nobody.
    None,
}

impl IpamKind {
    /// What the network's `ipam_options` say.
    ///
    /// # Errors
    /// On a word that is not known.
    pub fn of(network: &Network) -> Result<Self> {
        match network.ipam_driver() {
            None | Some("host-local") => Ok(Self::HostLocal),
            Some("dhcp") => Ok(Self::Dhcp),
            Some("none") => Ok(Self::None),
            Some(other) => Err(Error::msg(format!("unsupported ipam driver {other}"))),
        }
    }
}

/// What a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipam {
    /// From whom.
    pub kind: IpamKind,
    /// Its addresses, with the gateway of their subnet.
    pub addresses: Vec<NetAddress>,
    /// The gateways of all subnets, in their order, with the length of the subnet.
    pub gateways: Vec<IpNet>,
    /// More routes.
    pub routes: Vec<Route>,
    /// Whether there is IPv6: any subnet is an IPv6 one. With a DHCP server, whether the network wants it.
    pub ipv6: bool,
}

impl Ipam {
    /// Works it out from the definition and from what was chosen.
    ///
    /// # Errors
    /// When there is nothing chosen, something fits no subnet, subnets overlap, or a route makes no sense.
    pub fn of(network: &Network, options: &PerNetworkOptions, compat: Compat) -> Result<Self> {
        let mut ipam = Self::without_routes(network, options, compat)?;
        if ipam.kind != IpamKind::None {
            ipam.routes = network.routes.clone().unwrap_or_default();
            ipam.routes.iter().try_for_each(check_route)?;
        }
        Ok(ipam)
    }

    /// The same without the configured routes.
    ///
    /// # Errors
    /// As [`Self::of`], but for routes.
    pub fn without_routes(network: &Network, options: &PerNetworkOptions, compat: Compat) -> Result<Self> {
        let kind = IpamKind::of(network)?;
        let mut ipam =
            Self { kind, addresses: Vec::new(), gateways: Vec::new(), routes: Vec::new(), ipv6: false };
        if kind == IpamKind::None {
            return Ok(ipam);
        }
        if kind == IpamKind::Dhcp {
            ipam.ipv6 = network.ipv6_enabled;
            return Ok(ipam);
        }
        let ips = options.static_ips.as_deref().ok_or_else(|| Error::msg("no static ips provided"))?;
        distinct(network.subnets().iter().map(|subnet| &subnet.subnet))?;
        ipam.ipv6 = network.has_ipv6();
        for subnet in network.subnets() {
            if let Some(gateway) = subnet.gateway {
                ipam.gateways.push(with_length_of(gateway, subnet.subnet)?);
            }
        }
        ipam.addresses = match compat {
            Compat::Two => by_subnet(network, ips)?,
            Compat::One => by_position(network, ips)?,
        };
        Ok(ipam)
    }

    /// Whether IPv6 addresses and routes come from the network's routers.
    #[must_use]
    pub fn from_routers(&self) -> bool {
        self.kind == IpamKind::Dhcp && self.ipv6
    }

    /// The gateway for the default route of a family: the first there is.
    #[must_use]
    pub fn default_gateway(&self, ipv6: bool) -> Option<IpAddr> {
        self.gateways.iter().map(IpNet::addr).find(|gateway| gateway.is_ipv6() == ipv6)
    }
}

fn by_subnet(network: &Network, ips: &[IpAddr]) -> Result<Vec<NetAddress>> {
    let Some(subnets) = &network.subnets else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for subnet in subnets {
        for ip in ips.iter().filter(|ip| subnet.subnet.contains(*ip)) {
            found.push(NetAddress { gateway: subnet.gateway, ipnet: with_length_of(*ip, subnet.subnet)? });
        }
    }
    if found.len() == ips.len() { Ok(found) } else { Err(unmatched(ips.len(), found.len())) }
}

fn by_position(network: &Network, ips: &[IpAddr]) -> Result<Vec<NetAddress>> {
    let subnets = network.subnets();
    if ips.len() < subnets.len() && !ips.is_empty() {
        return Err(unmatched(subnets.len(), ips.len()));
    }
    subnets
        .iter()
        .zip(ips)
        .map(|(subnet, ip)| {
            let ipnet = with_length_of(*ip, subnet.subnet)?;
            Ok(NetAddress { gateway: subnet.gateway, ipnet })
        })
        .collect()
}

fn unmatched(expected: usize, got: usize) -> Error {
    Error::msg(format!("not all static IPs matched a subnet: expected {expected}, got {got}"))
}

fn with_length_of(address: IpAddr, subnet: IpNet) -> Result<IpNet> {
    IpNet::new(address, subnet.prefix_len())
        .map_err(|_| Error::msg(format!("the address {address} does not belong to the subnet {subnet}")))
}

/// Whether a route can be made at all.
///
/// # Errors
/// When its type is not known, it is an ordinary one without a gateway, another one with one, or its gateway is of the
/// other family.
pub fn check_route(route: &Route) -> Result<()> {
    let (to, kind) = (route.destination, &route.kind);
    if let RouteKind::Unknown(text) = kind {
        return Err(Error::msg(format!("invalid route type \"{text}\"")));
    }
    Err(Error::msg(match route.gateway {
        None if kind.is_unicast() => format!("route {to} requires a gateway for type {kind}"),
        Some(_) if !kind.is_unicast() => format!("route {to} must not have a gateway for type {kind}"),
        Some(gateway) if gateway.is_ipv6() != to.addr().is_ipv6() => {
            format!("route {to} cannot go via {gateway}, an address of the other family")
        }
        _ => return Ok(()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(rest: &str) -> Network {
        let text = format!(
            r#"{{"name":"n","id":"1","driver":"bridge","ipv6_enabled":false,"internal":false,"dns_enabled":false{rest}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn ips(list: &[&str]) -> PerNetworkOptions {
        PerNetworkOptions {
            static_ips: Some(list.iter().map(|text| text.parse().unwrap()).collect()),
            ..Default::default()
        }
    }

    fn nets(ipam: &Ipam) -> Vec<String> {
        ipam.addresses.iter().map(|address| address.ipnet.to_string()).collect()
    }

    const TWO: &str = r#","subnets":[{"subnet":"10.0.0.0/24","gateway":"10.0.0.1"},{"subnet":"fd00::/64"}]"#;

    #[test]
    fn addresses_go_to_the_subnet_that_contains_them() {
        let network = network(TWO);
        let ipam = Ipam::of(&network, &ips(&["fd00::2", "10.0.0.3", "10.0.0.2"]), Compat::Two).unwrap();
        assert_eq!(nets(&ipam), ["10.0.0.3/24", "10.0.0.2/24", "fd00::2/64"]);
        assert_eq!(ipam.gateways, ["10.0.0.1/24".parse::<IpNet>().unwrap()]);
        assert_eq!(ipam.default_gateway(false), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(ipam.default_gateway(true), None);
        assert!(ipam.ipv6);
        let error = Ipam::of(&network, &ips(&["10.0.0.2", "10.0.1.2"]), Compat::Two).unwrap_err();
        assert_eq!(error.to_string(), "not all static IPs matched a subnet: expected 2, got 1");
        assert!(Ipam::of(&network, &ips(&[]), Compat::Two).unwrap().addresses.is_empty());
    }

    #[test]
    fn the_older_contract_matches_by_position() {
        let network = network(TWO);
        let ipam = Ipam::of(&network, &ips(&["10.0.0.3", "fd00::3"]), Compat::One).unwrap();
        assert_eq!(nets(&ipam), ["10.0.0.3/24", "fd00::3/64"]);
        assert!(Ipam::of(&network, &ips(&["10.0.0.3"]), Compat::One).is_err());
        let error = Ipam::of(&network, &ips(&["10.0.0.3", "10.0.0.4"]), Compat::One).unwrap_err();
        assert_eq!(error.to_string(), "the address 10.0.0.4 does not belong to the subnet fd00::/64");
        assert!(Ipam::of(&network, &ips(&["10.0.0.3", "fd00::3", "fd00::4"]), Compat::One).is_ok());
    }

    #[test]
    fn the_driver_decides_whether_there_is_anything() {
        let none = network(&format!(r#"{TWO},"ipam_options":{{"driver":"none"}},"routes":[]"#));
        let ipam = Ipam::of(&none, &PerNetworkOptions::default(), Compat::Two).unwrap();
        assert!(ipam.addresses.is_empty() && ipam.gateways.is_empty());
        let dhcp = network(r#","ipam_options":{"driver":"dhcp"}"#);
        assert_eq!(IpamKind::of(&dhcp).unwrap(), IpamKind::Dhcp);
        let mut both = dhcp.clone();
        both.ipv6_enabled = true;
        let from_routers =
            |network| Ipam::of(network, &PerNetworkOptions::default(), Compat::Two).unwrap().from_routers();
        assert!(from_routers(&both) && !from_routers(&dhcp));
        let odd = network(r#","ipam_options":{"driver":"odd"}"#);
        assert_eq!(IpamKind::of(&odd).unwrap_err().to_string(), "unsupported ipam driver odd");
        let local = network(TWO);
        let error = Ipam::of(&local, &PerNetworkOptions::default(), Compat::Two).unwrap_err();
        assert_eq!(error.to_string(), "no static ips provided");
    }

    #[test]
    fn routes_are_checked() {
        for (route, good) in [
            (r#"{"destination":"10.1.0.0/24","gateway":"10.0.0.1"}"#, true),
            (r#"{"destination":"10.1.0.0/24","route_type":"blackhole"}"#, true),
            (r#"{"destination":"10.1.0.0/24","gateway":"10.0.0.1","route_type":"","metric":3}"#, true),
            (r#"{"destination":"10.1.0.0/24"}"#, false),
            (r#"{"destination":"fd01::/64","gateway":"10.0.0.1"}"#, false),
        ] {
            let route: Route = serde_json::from_str(route).unwrap();
            assert_eq!(check_route(&route).is_ok(), good, "{route:?}");
        }
        // Readable, or nothing could be torn down any more.
        let odd: Route = serde_json::from_str(r#"{"destination":"10.1.0.0/24","route_type":"odd"}"#).unwrap();
        assert_eq!(check_route(&odd).unwrap_err().to_string(), "invalid route type \"odd\"");
        let both =
            network(&format!(r#"{TWO},"routes":[{{"destination":"10.1.0.0/24","route_type":"odd"}}]"#));
        let chosen = ips(&["10.0.0.3", "fd00::3"]);
        assert!(Ipam::of(&both, &chosen, Compat::Two).is_err());
        assert_eq!(Ipam::without_routes(&both, &chosen, Compat::Two).unwrap().addresses.len(), 2);
    }
}
