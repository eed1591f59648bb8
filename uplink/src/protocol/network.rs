//! Networks and containers as valid types: what a request has told is right, and so is what the uplink tells its
//! workers.

use crate::envelope::{Refusal, shown};
use crate::wire;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// An id or a name has at most this many bytes.
const MAX_TEXT: usize = 256;
/// Names, addresses or servers of one container or network.
const MAX_LIST: usize = 256;
/// The MTU of a network that tells none.
const DEFAULT_MTU: u16 = 1500;
/// RFC 8200 §5: a link of a smaller MTU cannot carry IPv6.
const MIN_MTU_IPV6: u16 = 1280;

/// A network, as an engine can serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::Network", into = "wire::Network")]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The largest packet on it.
    pub mtu: u16,
    /// Whether its gateway answers DNS queries.
    pub dns: bool,
    /// Whether it has no way out.
    pub internal: bool,
    /// IPv4: its prefix, and the gateway's address.
    pub v4: Option<(Ipv4Net, Ipv4Addr)>,
    /// IPv6: its prefix, and the gateway's address.
    pub v6: Option<(Ipv6Net, Ipv6Addr)>,
    /// The nameservers to ask instead of the host's.
    pub servers: Vec<IpAddr>,
}

impl TryFrom<wire::Network> for Network {
    type Error = String;

    fn try_from(wire: wire::Network) -> Result<Self, String> {
        let mut network = Self {
            id: text("network id", wire.id)?,
            name: text("network name", wire.name)?,
            mtu: match wire.mtu.filter(|mtu| *mtu > 0) {
                None => DEFAULT_MTU,
                Some(mtu) => u16::try_from(mtu)
                    .map_err(|_| format!("the MTU {mtu} is too large: {} is the most", u16::MAX))?,
            },
            dns: wire.dns_enabled,
            internal: wire.internal,
            v4: None,
            v6: None,
            servers: list("dns_servers", wire.dns_servers)?,
        };
        let name = &network.name;
        for wire::Subnet { subnet, gateway } in wire.subnets {
            let twice = match (subnet.trunc(), gateway) {
                // Nobody to be: the stations of this subnet have each other and that is all.
                (_, None) => false,
                (IpNet::V4(net), Some(IpAddr::V4(at))) if usable(IpNet::V4(net), at.into()) => {
                    network.v4.replace((net, at)).is_some()
                }
                (IpNet::V6(net), Some(IpAddr::V6(at))) if usable(IpNet::V6(net), at.into()) => {
                    network.v6.replace((net, at)).is_some()
                }
                (net, Some(at)) => return Err(format!("{at} cannot be the gateway of the subnet {net}")),
            };
            if twice {
                return Err(format!("the network {name} has two subnets of one family: give it one of each"));
            }
        }
        if network.v4.is_none() && network.v6.is_none() {
            return Err(format!("the network {name} has no subnet with a gateway"));
        }
        let least = if network.v6.is_some() { MIN_MTU_IPV6 } else { 68 };
        if network.mtu < least {
            return Err(format!(
                "the MTU {} of the network {name} is too small: {least} is the least",
                network.mtu
            ));
        }
        Ok(network)
    }
}

impl From<Network> for wire::Network {
    fn from(network: Network) -> Self {
        let v4 = network.v4.map(|(net, at)| (IpNet::V4(net), IpAddr::V4(at)));
        let v6 = network.v6.map(|(net, at)| (IpNet::V6(net), IpAddr::V6(at)));
        let subnets = v4.into_iter().chain(v6);
        Self {
            id: network.id,
            name: network.name,
            mtu: Some(network.mtu.into()),
            dns_enabled: network.dns,
            internal: network.internal,
            subnets: subnets.map(|(subnet, at)| wire::Subnet { subnet, gateway: Some(at) }).collect(),
            dns_servers: network.servers,
        }
    }
}

impl Network {
    /// Whether `address` lies in one of its subnets.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.is_some_and(|(net, _)| net.contains(&address)),
            IpAddr::V6(address) => self.v6.is_some_and(|(net, _)| net.contains(&address)),
        }
    }
}

/// Whether a station of `net` may have the address `at`.
fn usable(net: IpNet, at: IpAddr) -> bool {
    let edge = at.is_ipv4() && net.prefix_len() < 31 && (at == net.network() || at == net.broadcast());
    let special = at.is_unspecified() || at.is_multicast() || at.is_loopback();
    net.contains(&at) && !edge && !special
}

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::Container", into = "wire::Container")]
pub struct Container {
    /// Its id, the same on all its networks.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is called on this network, name and aliases, in lower case.
    pub names: Vec<String>,
    /// Its IPv4 addresses on this network.
    pub v4: Vec<Ipv4Addr>,
    /// Its IPv6 addresses on this network.
    pub v6: Vec<Ipv6Addr>,
    /// The nameservers to ask for it, if it has its own.
    pub servers: Option<Vec<IpAddr>>,
}

impl TryFrom<wire::Container> for Container {
    type Error = String;

    fn try_from(wire: wire::Container) -> Result<Self, String> {
        let name = text("container name", wire.name)?;
        let mut names: Vec<String> = Vec::new();
        for alias in std::iter::once(name.clone()).chain(list("names", wire.names)?) {
            let alias = text("alias", alias)?.to_ascii_lowercase();
            if !names.contains(&alias) {
                names.push(alias);
            }
        }
        let addresses = list("addresses", wire.addresses)?;
        Ok(Self {
            id: text("container id", wire.id)?,
            name,
            names,
            v4: addresses
                .iter()
                .filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None })
                .collect(),
            v6: addresses
                .iter()
                .filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None })
                .collect(),
            servers: wire
                .dns_servers
                .map(|servers| list("dns_servers", servers))
                .transpose()?
                .filter(|s| !s.is_empty()),
        })
    }
}

impl From<Container> for wire::Container {
    fn from(container: Container) -> Self {
        let addresses = container.addresses().collect();
        let own = container.name.to_ascii_lowercase();
        let names = container.names.into_iter().filter(|name| *name != own).collect();
        Self { id: container.id, name: container.name, names, addresses, dns_servers: container.servers }
    }
}

impl Container {
    /// Its addresses on this network, of both families.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let v4 = self.v4.iter().copied().map(IpAddr::V4);
        v4.chain(self.v6.iter().copied().map(IpAddr::V6))
    }

    /// Its addresses must be those of stations of the network, and not the gateway's. Those of a family that the
    /// network does not serve are nobody's business.
    pub(super) fn fits(&self, network: &Network) -> Result<(), Refusal> {
        for address in self.addresses() {
            let (net, gateway) = match address {
                IpAddr::V4(_) => match network.v4 {
                    Some((net, gateway)) => (IpNet::V4(net), IpAddr::V4(gateway)),
                    None => continue,
                },
                IpAddr::V6(_) => match network.v6 {
                    Some((net, gateway)) => (IpNet::V6(net), IpAddr::V6(gateway)),
                    None => continue,
                },
            };
            if !usable(net, address) || address == gateway {
                return Err(Refusal::new(format!(
                    "{address} is not the address of a container on the network {}: expected one of {net} other than \
                     the gateway {gateway}",
                    network.name
                )));
            }
        }
        Ok(())
    }
}

/// A name or an id: not empty, not endless, and nothing that could end a line or a word of a log.
fn text(what: &str, text: String) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_graphic();
    if text.is_empty() || text.len() > MAX_TEXT || !text.bytes().all(plain) {
        return Err(format!(
            "{:?} is no {what}: expected 1 to {MAX_TEXT} printable ASCII characters",
            shown(&text)
        ));
    }
    Ok(text)
}

fn list<T>(what: &str, list: Vec<T>) -> Result<Vec<T>, String> {
    if list.len() > MAX_LIST { Err(format!("more than {MAX_LIST} entries in {what}")) } else { Ok(list) }
}
