//! What the firewall is asked for: the rules of a network, and the published ports of one container on it.
//!
//! These are also the contents of the state files, from which the rules are restored after somebody has flushed them.
//! Other versions write them and read ours, so their keys are fixed, newer keys have defaults, and unknown ones are
//! ignored.

use crate::spec::validate::Isolation;
use crate::spec::{Compat, PortMapping};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The port that DNS servers have.
pub const DNS_PORT: u16 = 53;

/// The rules of a bridge network, which all its containers share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct NetworkRules {
    /// Its subnets.
    pub subnets: Option<Vec<IpNet>>,
    /// Its bridge.
    pub bridge_name: String,
    /// Its ID.
    #[serde(default)]
    pub network_id: String,
    /// A hash of its name, for drivers that need short names.
    pub network_hash_name: String,
    /// How far it is closed towards other networks.
    pub isolation: Isolation,
    /// The port of the DNS server.
    pub dns_port: u16,
    /// Whether it has no way out: only the DNS server can be reached.
    #[serde(default)]
    pub internal: bool,
    /// The source address of what goes out; otherwise that of the interface it leaves by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_addr4: Option<Ipv4Addr>,
    /// The same for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_addr6: Option<Ipv6Addr>,
    /// Whose rules are expected.
    #[serde(default = "newest", skip_serializing_if = "is_newest", with = "number")]
    pub compat: Compat,
}

/// The published ports of one container on one network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct PortRules {
    /// The container's ID.
    pub container_id: String,
    /// The network's ID.
    #[serde(default)]
    pub network_id: String,
    /// The ports.
    pub port_mappings: Option<Vec<PortMapping>>,
    /// The network's name.
    pub network_name: String,
    /// A hash of it.
    pub network_hash_name: String,
    /// The container's first IPv4 address.
    pub container_ip_v4: Option<Ipv4Addr>,
    /// The subnet of that.
    pub subnet_v4: Option<Ipv4Net>,
    /// The container's first IPv6 address.
    pub container_ip_v6: Option<Ipv6Addr>,
    /// The subnet of that.
    pub subnet_v6: Option<Ipv6Net>,
    /// The port of the DNS server; when it is not 53, what goes to 53 is sent there.
    pub dns_port: u16,
    /// The addresses of the DNS server.
    pub dns_server_ips: Vec<IpAddr>,
    /// Whether the network has no way out: nothing is published then.
    #[serde(default)]
    pub internal: bool,
    /// Whose rules are expected.
    #[serde(default = "newest", skip_serializing_if = "is_newest", with = "number")]
    pub compat: Compat,
}

impl NetworkRules {
    /// The subnets; none and an empty list are the same.
    #[must_use]
    pub fn subnets(&self) -> &[IpNet] {
        self.subnets.as_deref().unwrap_or_default()
    }
}

impl PortRules {
    /// The ports that are really published.
    #[must_use]
    pub fn ports(&self) -> &[PortMapping] {
        if self.internal { &[] } else { self.port_mappings.as_deref().unwrap_or_default() }
    }

    /// The container's addresses with their subnets, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, IpNet)> {
        let v4 = self.container_ip_v4.zip(self.subnet_v4).map(|(a, n)| (IpAddr::V4(a), IpNet::V4(n)));
        let v6 = self.container_ip_v6.zip(self.subnet_v6).map(|(a, n)| (IpAddr::V6(a), IpNet::V6(n)));
        v4.into_iter().chain(v6)
    }

    /// The same without the addresses that `taken` holds for: another container has them now.
    #[must_use]
    pub fn without(mut self, taken: impl Fn(IpAddr) -> bool) -> Self {
        self.container_ip_v4 = self.container_ip_v4.filter(|address| !taken((*address).into()));
        self.container_ip_v6 = self.container_ip_v6.filter(|address| !taken((*address).into()));
        self
    }

    /// Whether one of the container's addresses is such.
    pub fn any_address(&self, such: impl Fn(IpAddr) -> bool) -> bool {
        self.addresses().any(|(address, _)| such(address))
    }

    /// Whether one of them takes what is sent to DNS servers.
    #[must_use]
    pub fn cover_dns(&self) -> bool {
        self.ports().iter().any(|mapping| {
            let more = DNS_PORT.checked_sub(mapping.host_port);
            more.is_some_and(|more| more < mapping.count()) && ["tcp", "udp"].contains(&&*mapping.protocol)
        })
    }

    /// The DNS servers whose port is rewritten: those of a family that the container has.
    pub fn moved_dns_servers(&self) -> impl Iterator<Item = IpAddr> {
        let moved = self.dns_port != DNS_PORT;
        self.dns_server_ips.iter().copied().filter(move |address| {
            let has = if address.is_ipv4() {
                self.container_ip_v4.is_some()
            } else {
                self.container_ip_v6.is_some()
            };
            moved && has
        })
    }
}

/// Files without the key are of the newest generation.
fn newest() -> Compat {
    Compat::Two
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_newest(compat: &Compat) -> bool {
    *compat == newest()
}

/// A generation as a number.
mod number {
    use crate::spec::Compat;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(compat: &Compat, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match compat {
            Compat::One => 1,
            Compat::Two => 2,
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Compat, D::Error> {
        Ok(if u8::deserialize(deserializer)? == 1 { Compat::One } else { super::newest() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 1.17 writes them.
    const OLD_NETWORK: &str = r#"{"subnets":["10.88.0.0/16"],"bridge_name":"podman0","network_id":"2f25",
        "network_hash_name":"1D8721804F16F","isolation":"Never","dns_port":53}"#;
    const OLD_PORTS: &str = r#"{"container_id":"c","network_id":"2f25","port_mappings":null,"network_name":"podman",
        "network_hash_name":"1D8721804F16F","container_ip_v4":"10.88.0.2","subnet_v4":"10.88.0.0/16",
        "container_ip_v6":null,"subnet_v6":null,"dns_port":53,"dns_server_ips":["10.88.0.1"],"later":{}}"#;

    #[test]
    fn old_files_are_read() {
        let network: NetworkRules = serde_json::from_str(OLD_NETWORK).unwrap();
        assert!(!network.internal && network.compat == Compat::Two && network.outbound_addr4.is_none());
        assert_eq!(network.subnets().len(), 1);
        let ports: PortRules = serde_json::from_str(OLD_PORTS).unwrap();
        assert!(ports.ports().is_empty() && !ports.internal);
        assert_eq!(ports.addresses().count(), 1);
        assert_eq!(ports.moved_dns_servers().count(), 0);
    }

    #[test]
    fn what_we_write_has_the_contracted_keys() {
        let network: NetworkRules = serde_json::from_str(OLD_NETWORK).unwrap();
        assert_eq!(
            serde_json::to_string(&network).unwrap(),
            r#"{"subnets":["10.88.0.0/16"],"bridge_name":"podman0","network_id":"2f25","network_hash_name":"1D8721804F16F","isolation":"Never","dns_port":53,"internal":false}"#
        );
        let old = NetworkRules { compat: Compat::One, ..network };
        let text = serde_json::to_string(&old).unwrap();
        assert!(text.ends_with(r#""internal":false,"compat":1}"#), "{text}");
        assert_eq!(serde_json::from_str::<NetworkRules>(&text).unwrap(), old);
    }

    #[test]
    fn a_moved_dns_server_counts_for_its_family() {
        let mut ports: PortRules = serde_json::from_str(OLD_PORTS).unwrap();
        ports.dns_port = 1053;
        ports.dns_server_ips.push("fd00::1".parse().unwrap());
        assert_eq!(ports.moved_dns_servers().collect::<Vec<_>>(), ["10.88.0.1".parse::<IpAddr>().unwrap()]);
    }
}
