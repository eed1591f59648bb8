//! Requests and replies of the uplink's socket, as valid types, without any I/O. The protocol is docs/uplink.md.
//!
//! What is read here comes from programs of the same user, but a container engine copies names and labels of strangers
//! into it, so everything is checked once and is valid afterwards: sizes first, then JSON with serde_json's bound on depth,
//! then one field after another. Unknown keys are passed over, so that either side may be newer. A request that is wrong in
//! one place is refused whole.
//!
//! Limits: one subnet of each family for a network, because the engine has one gateway of each; a port is forwarded to an
//! address of its own family, there is no translation.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use slipway_portfwd::Rule;
use slipway_portfwd::rule::{Ports, Proto};

/// A request has at most this many bytes.
pub const MAX_REQUEST: usize = 64 << 10;
/// An id or a name has at most this many bytes.
const MAX_TEXT: usize = 256;
/// Names, addresses or servers of one container or network.
const MAX_LIST: usize = 256;
/// Mappings of one request.
const MAX_MAPPINGS: usize = 1024;
/// The MTU of a network that tells none.
const DEFAULT_MTU: u16 = 1500;
/// RFC 8200 §5: a link of a smaller MTU cannot carry IPv6.
const MIN_MTU_IPV6: u16 = 1280;

/// Why a client does not get what it wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// One line that says what to do.
    pub text: String,
    /// The kernel's number, where a system call failed.
    pub errno: Option<i32>,
}

impl Refusal {
    /// One that no system call is to blame for.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), errno: None }
    }

    /// For a system call that failed.
    #[must_use]
    pub fn system(doing: &str, error: &std::io::Error) -> Self {
        Self { text: format!("cannot {doing}: {}", crate::words::words(error)), errno: error.raw_os_error() }
    }

    /// As a reply.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self.errno {
            Some(errno) => json!({ "error": self.text, "errno": errno }).to_string(),
            None => json!({ "error": self.text }).to_string(),
        }
    }
}

/// The reply to a request that was carried out.
#[must_use]
pub fn granted(value: &Value) -> String {
    json!({ "return": value }).to_string()
}

/// What a reply says, for those who asked.
///
/// # Errors
/// The refusal, or that it is no reply at all.
pub fn read_reply(bytes: &[u8]) -> Result<Value, Refusal> {
    let mut reply: Value = serde_json::from_slice(bytes)
        .map_err(|error| Refusal::new(format!("the uplink's reply is not JSON: {error}")))?;
    if let Some(text) = reply.get("error").and_then(Value::as_str) {
        let errno = reply.get("errno").and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok());
        return Err(Refusal { text: text.to_owned(), errno });
    }
    reply
        .get_mut("return")
        .map(Value::take)
        .ok_or_else(|| Refusal::new("the uplink's reply has neither \"return\" nor \"error\""))
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A container is on a network from now on.
    Join(Box<(Network, Container)>),
    /// Serve this network; its TAP comes with the message.
    Attach {
        /// The network.
        network: String,
    },
    /// A container has left a network.
    Leave {
        /// The network.
        network: String,
        /// The container.
        container: String,
    },
    /// Forward ports to a container.
    Publish {
        /// The container.
        container: String,
        /// One list for each mapping: a mapping of several protocols is several ports.
        mappings: Vec<Vec<Port>>,
    },
    /// Tell everything.
    Status,
}

/// A message's outer shape.
#[derive(Debug, Deserialize)]
struct Envelope {
    execute: String,
    #[serde(default)]
    arguments: Value,
}

#[derive(Debug, Deserialize)]
struct JoinArguments {
    network: Network,
    container: Container,
}

#[derive(Debug, Deserialize)]
struct AttachArguments {
    network_id: String,
}

#[derive(Debug, Deserialize)]
struct LeaveArguments {
    network_id: String,
    container_id: String,
}

#[derive(Debug, Deserialize)]
struct PublishArguments {
    container_id: String,
    ports: Vec<Mapping>,
}

impl Request {
    /// Reads a message.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(message: &[u8]) -> Result<Self, Refusal> {
        if message.len() > MAX_REQUEST {
            return Err(Refusal::new(format!("the request is longer than {MAX_REQUEST} bytes")));
        }
        let bad = |error: serde_json::Error| Refusal::new(format!("bad request: {error}"));
        let Envelope { execute, arguments } = serde_json::from_slice(message).map_err(bad)?;
        match execute.as_str() {
            "join" => {
                let JoinArguments { network, container } = serde_json::from_value(arguments).map_err(bad)?;
                container.fits(&network)?;
                Ok(Self::Join(Box::new((network, container))))
            }
            "attach" => {
                let AttachArguments { network_id } = serde_json::from_value(arguments).map_err(bad)?;
                Ok(Self::Attach { network: network_id })
            }
            "leave" => {
                let LeaveArguments { network_id, container_id } =
                    serde_json::from_value(arguments).map_err(bad)?;
                Ok(Self::Leave { network: network_id, container: container_id })
            }
            "publish" => {
                let PublishArguments { container_id, ports } =
                    serde_json::from_value(arguments).map_err(bad)?;
                if ports.len() > MAX_MAPPINGS {
                    return Err(Refusal::new(format!("more than {MAX_MAPPINGS} port mappings")));
                }
                let mappings =
                    ports.iter().map(Mapping::ports).collect::<Result<_, _>>().map_err(Refusal::new)?;
                Ok(Self::Publish { container: container_id, mappings })
            }
            "status" => Ok(Self::Status),
            other => Err(Refusal::new(format!(
                "bad request: {:?} is none of join, attach, leave, publish, status",
                shown(other)
            ))),
        }
    }
}

/// A network, as an engine can serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireNetwork", into = "WireNetwork")]
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

/// A network as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct WireNetwork {
    id: String,
    name: String,
    #[serde(default)]
    mtu: Option<u16>,
    #[serde(default)]
    dns_enabled: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    subnets: Vec<WireSubnet>,
    #[serde(default)]
    dns_servers: Vec<IpAddr>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireSubnet {
    subnet: IpNet,
    #[serde(default)]
    gateway: Option<IpAddr>,
}

impl TryFrom<WireNetwork> for Network {
    type Error = String;

    fn try_from(wire: WireNetwork) -> Result<Self, String> {
        let mut network = Self {
            id: text("network id", wire.id)?,
            name: text("network name", wire.name)?,
            mtu: wire.mtu.filter(|mtu| *mtu > 0).unwrap_or(DEFAULT_MTU),
            dns: wire.dns_enabled,
            internal: wire.internal,
            v4: None,
            v6: None,
            servers: list("dns_servers", wire.dns_servers)?,
        };
        let name = &network.name;
        for WireSubnet { subnet, gateway } in wire.subnets {
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

impl From<Network> for WireNetwork {
    fn from(network: Network) -> Self {
        let v4 = network.v4.map(|(net, at)| (IpNet::V4(net), IpAddr::V4(at)));
        let v6 = network.v6.map(|(net, at)| (IpNet::V6(net), IpAddr::V6(at)));
        let subnets = v4.into_iter().chain(v6);
        Self {
            id: network.id,
            name: network.name,
            mtu: Some(network.mtu),
            dns_enabled: network.dns,
            internal: network.internal,
            subnets: subnets.map(|(subnet, at)| WireSubnet { subnet, gateway: Some(at) }).collect(),
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
#[serde(try_from = "WireContainer", into = "WireContainer")]
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

/// A container as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct WireContainer {
    id: String,
    name: String,
    #[serde(default)]
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dns_servers: Option<Vec<IpAddr>>,
}

impl TryFrom<WireContainer> for Container {
    type Error = String;

    fn try_from(wire: WireContainer) -> Result<Self, String> {
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

impl From<Container> for WireContainer {
    fn from(container: Container) -> Self {
        let addresses = container.addresses().collect();
        Self {
            id: container.id,
            name: container.name,
            names: container.names,
            addresses,
            dns_servers: container.servers,
        }
    }
}

impl Container {
    /// Its addresses on this network, of both families.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let v4 = self.v4.iter().copied().map(IpAddr::V4);
        v4.chain(self.v6.iter().copied().map(IpAddr::V6))
    }

    /// Its addresses must be those of stations of the network, and not the gateway's. Those of a family that the network does
    /// not serve are nobody's business.
    fn fits(&self, network: &Network) -> Result<(), Refusal> {
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

/// A port mapping as container engines write it: the JSON of `publish`, and of `rootlessport`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Where the host listens; empty: everywhere.
    #[serde(default)]
    pub host_ip: Option<String>,
    /// The first port of the host.
    pub host_port: u16,
    /// The first port of the container.
    pub container_port: u16,
    /// `tcp` or `udp`, or both with a comma between them; empty: `tcp`.
    #[serde(default)]
    pub protocol: String,
    /// How many ports.
    #[serde(default)]
    pub range: u16,
}

/// Ports of one protocol to be forwarded to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    proto: Proto,
    listen: Option<IpAddr>,
    ports: Ports,
}

impl Mapping {
    /// What it means.
    fn ports(&self) -> Result<Vec<Port>, String> {
        let listen = match self.host_ip.as_deref() {
            None | Some("") => None,
            Some(text) => Some(
                text.parse::<IpAddr>()
                    .map_err(|_| format!("host_ip {:?} is not an IP address", shown(text)))?
                    .to_canonical(),
            ),
        };
        let count = NonZeroU16::new(self.range).unwrap_or(NonZeroU16::MIN);
        let ports = NonZeroU16::new(self.host_port)
            .zip(NonZeroU16::new(self.container_port))
            .and_then(|(host, container)| Ports::run(Some(host), container, count))
            .ok_or_else(|| {
                format!(
                    "{} ports from {} to {}: ports are numbers from 1 to 65535",
                    count, self.host_port, self.container_port
                )
            })?;
        let protocols = if self.protocol.is_empty() { "tcp" } else { &self.protocol };
        let one = |name: &str| match name {
            "tcp" => Ok(Port { proto: Proto::Tcp, listen, ports }),
            "udp" => Ok(Port { proto: Proto::Udp, listen, ports }),
            other => Err(format!("protocol {:?} cannot be forwarded: expected tcp or udp", shown(other))),
        };
        protocols.split(',').take(8).map(|name| one(name.trim())).collect()
    }
}

impl Port {
    /// The rules that lead to a container with these addresses: one for each family that it listens on.
    ///
    /// # Errors
    /// When the container has no address of the family that is listened on.
    pub fn rules(&self, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Result<Vec<Rule>, Refusal> {
        let (v4, v6) = (v4.map(IpAddr::V4), v6.map(IpAddr::V6));
        let targets = match self.listen {
            None => [v4, v6],
            Some(IpAddr::V4(_)) => [v4, None],
            Some(IpAddr::V6(_)) => [v6, None],
        };
        let rules = targets.into_iter().flatten();
        let rules: Vec<_> = rules
            .map(|target| Rule::new(self.proto, self.listen, self.ports, Some(target)))
            .collect::<Result<_, _>>()
            .map_err(|error| Refusal::new(error.to_string()))?;
        match (rules.is_empty(), self.listen) {
            (false, _) => Ok(rules),
            (true, None) => Err(Refusal::new("the container has no address on any network of the uplink")),
            (true, Some(listen)) => Err(Refusal::new(format!(
                "cannot forward {listen}: the container has no {} address on any network of the uplink",
                if listen.is_ipv6() { "IPv6" } else { "IPv4" }
            ))),
        }
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

/// What is repeated of a wrong text.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// What an uplink without networks makes of a message: parser and printers in one call, for fuzzing.
#[must_use]
pub fn dry_run(message: &[u8]) -> String {
    match Request::parse(message) {
        Err(refusal) => refusal.to_json(),
        Ok(Request::Join(join)) => {
            let (network, container) = *join;
            // What goes to a worker and is read there again must be the same.
            let text = json!({ "network": network, "container": container }).to_string();
            let again: Result<JoinArguments, _> = serde_json::from_str(&text);
            debug_assert!(again.is_ok_and(|again| again.network == network && again.container == container));
            text
        }
        Ok(Request::Publish { mappings, .. }) => {
            let (v4, v6) =
                (Some(Ipv4Addr::new(10, 89, 0, 2)), Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)));
            let rules = mappings.iter().flatten().map(|port| port.rules(v4, v6));
            let rules: Result<Vec<_>, _> = rules.collect();
            rules.map_or_else(|refusal| refusal.to_json(), |rules| format!("{rules:?}"))
        }
        Ok(other) => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests;
