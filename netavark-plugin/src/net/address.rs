//! Which addresses a new member gets: the ones it asks for, or the lowest free one of each subnet.

use crate::error::{Error, Result};
use crate::spec::Network;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most members that one network may have. Beyond, looking for a free address would take long.
pub(super) const MEMBERS: usize = 4096;

/// `asked`, checked, or an address of each subnet that is not in `taken`.
pub(super) fn choose(network: &Network, asked: &[IpAddr], taken: &BTreeSet<IpAddr>) -> Result<Vec<IpAddr>> {
    let gateways = network.subnets().iter().filter_map(|subnet| subnet.gateway);
    let taken: BTreeSet<IpAddr> = taken.iter().copied().chain(gateways).collect();
    for address in asked {
        let fits = network.subnets().iter().any(|subnet| is_host(subnet.subnet, *address));
        if !fits {
            return Err(Error::msg(format!(
                "{address} is no address for a member of network {}",
                network.name
            )));
        }
        if taken.contains(address) {
            return Err(Error::msg(format!("{address} is taken on network {}", network.name)));
        }
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    network.subnets().iter().map(|subnet| free(subnet.subnet, &taken)).collect()
}

fn free(subnet: IpNet, taken: &BTreeSet<IpAddr>) -> Result<IpAddr> {
    // One of so many is free, for more are never taken: the members, the gateways, the network's own address.
    let tries = MEMBERS + 64;
    let mut address = Some(subnet.network());
    for _ in 0..tries {
        let Some(candidate) = address.filter(|address| subnet.contains(address)) else { break };
        if is_host(subnet, candidate) && !taken.contains(&candidate) {
            return Ok(candidate);
        }
        address = after(candidate);
    }
    Err(Error::msg(format!("subnet {} has no free address left", subnet.trunc())))
}

/// Whether a host can have it: not the network's own address, not the broadcast address of IPv4.
fn is_host(subnet: IpNet, address: IpAddr) -> bool {
    let broadcast = matches!(subnet, IpNet::V4(v4) if IpAddr::V4(v4.broadcast()) == address);
    let narrow = subnet.max_prefix_len() - subnet.prefix_len() <= 1;
    subnet.contains(&address) && (narrow || (address != subnet.network() && !broadcast))
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4).checked_add(1).map(|next| Ipv4Addr::from(next).into()),
        IpAddr::V6(v6) => u128::from(v6).checked_add(1).map(|next| Ipv6Addr::from(next).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(subnets: &[(&str, &str)]) -> Network {
        let subnets: Vec<_> = subnets
            .iter()
            .map(|(subnet, gateway)| format!(r#"{{"subnet":"{subnet}","gateway":"{gateway}"}}"#))
            .collect();
        serde_json::from_str(&format!(
            r#"{{"name":"n","id":"i","driver":"bridge","ipv6_enabled":false,"internal":false,"dns_enabled":false,
                "subnets":[{}]}}"#,
            subnets.join(",")
        ))
        .unwrap()
    }

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_lowest_that_is_free_of_each_subnet() {
        let network = network(&[("198.51.100.0/29", "198.51.100.1"), ("2001:db8::/64", "2001:db8::1")]);
        let none = BTreeSet::new();
        assert_eq!(choose(&network, &[], &none).unwrap(), addresses(&["198.51.100.2", "2001:db8::2"]));
        let taken = addresses(&["198.51.100.2", "198.51.100.3", "2001:db8::2"]).into_iter().collect();
        assert_eq!(choose(&network, &[], &taken).unwrap(), addresses(&["198.51.100.4", "2001:db8::3"]));
        let full =
            addresses(&["198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5", "198.51.100.6"]);
        let error = choose(&network, &[], &full.into_iter().collect()).unwrap_err();
        assert_eq!(error.to_string(), "subnet 198.51.100.0/29 has no free address left");
    }

    #[test]
    fn what_is_asked_for_must_fit_and_be_free() {
        let network = network(&[("198.51.100.0/24", "198.51.100.1")]);
        let taken = addresses(&["198.51.100.9"]).into_iter().collect();
        let asked = addresses(&["198.51.100.200"]);
        assert_eq!(choose(&network, &asked, &taken).unwrap(), asked);
        for bad in
            ["198.51.100.0", "198.51.100.255", "198.51.100.1", "198.51.100.9", "203.0.113.1", "2001:db8::1"]
        {
            assert!(choose(&network, &addresses(&[bad]), &taken).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_ends_of_the_address_space() {
        let network = network(&[("255.255.255.254/31", "255.255.255.254")]);
        assert_eq!(choose(&network, &[], &BTreeSet::new()).unwrap(), addresses(&["255.255.255.255"]));
        let taken = addresses(&["255.255.255.255"]).into_iter().collect();
        assert!(choose(&network, &[], &taken).is_err());
    }
}
