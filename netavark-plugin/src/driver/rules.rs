//! What the firewall is told about a bridge network and a container on it. Setup and teardown work it out from the same
//! document, so that teardown finds exactly what setup made.

use super::Request;
use crate::firewall::{NetworkRules, PortRules};
use crate::spec::validate::Isolation;
use crate::spec::{Ipam, Network};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest as _, Sha512};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many letters of the hash drivers with short names use.
const HASH_LETTERS: usize = 13;

/// Options that concern the firewall alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter {
    pub(super) isolation: Isolation,
    pub(super) outbound4: Option<Ipv4Addr>,
    pub(super) outbound6: Option<Ipv6Addr>,
}

/// The rules of the network.
pub(super) fn network_rules(request: &Request<'_>, bridge: &str, filter: Filter) -> NetworkRules {
    let Network { id, name, subnets, internal, .. } = request.network;
    NetworkRules {
        subnets: subnets.as_ref().map(|subnets| subnets.iter().map(|subnet| subnet.subnet).collect()),
        bridge_name: bridge.to_owned(),
        network_id: id.clone(),
        network_hash_name: short_hash(name),
        isolation: filter.isolation,
        dns_port: request.dns_port,
        internal: *internal,
        outbound_addr4: filter.outbound4,
        outbound_addr6: filter.outbound6,
        compat: request.rules,
    }
}

/// The published ports of the container.
pub(super) fn port_rules(request: &Request<'_>, ipam: &Ipam, dns_servers: &[IpAddr]) -> PortRules {
    let Network { id, name, internal, .. } = request.network;
    let nets = || ipam.addresses.iter().map(|address| address.ipnet);
    let v4 = nets().find_map(|net| if let IpNet::V4(net) = net { Some(net) } else { None });
    let v6 = nets().find_map(|net| if let IpNet::V6(net) = net { Some(net) } else { None });
    PortRules {
        container_id: request.container_id.to_owned(),
        network_id: id.clone(),
        port_mappings: request.port_mappings.map(<[_]>::to_vec),
        network_name: name.clone(),
        network_hash_name: short_hash(name),
        container_ip_v4: v4.as_ref().map(Ipv4Net::addr),
        subnet_v4: v4.map(|net| net.trunc()),
        container_ip_v6: v6.as_ref().map(Ipv6Net::addr),
        subnet_v6: v6.map(|net| net.trunc()),
        dns_port: request.dns_port,
        dns_server_ips: dns_servers.to_vec(),
        internal: *internal,
        compat: request.rules,
    }
}

/// The beginning of the SHA-512 of a network's name, in capital letters.
fn short_hash(name: &str) -> String {
    let digest = Sha512::digest(name);
    let text: String =
        digest.iter().take(HASH_LETTERS.div_ceil(2)).map(|byte| format!("{byte:02X}")).collect();
    text.chars().take(HASH_LETTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_the_default_network_is_the_known_one() {
        assert_eq!(short_hash("podman"), "1D8721804F16F");
    }
}
