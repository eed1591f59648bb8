//! The JSON of the uplink's socket, as it is written: what those who ask fill in, and what [`crate::protocol`] makes
//! valid types of. Its own workers are told of networks and containers in the same words.
//!
//! What may be absent may be `null`, which is how Go writes an empty list, and keys that nobody knows are passed over:
//! either side may be newer.

use core::net::IpAddr;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

/// A request.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "execute", content = "arguments", rename_all = "lowercase")]
pub enum Request<'a> {
    /// A container is on a network from now on; the reply is [`Joined`].
    Join {
        /// The network.
        network: &'a Network,
        /// The container.
        container: &'a Container,
    },
    /// Serve this network; its TAP comes with the message.
    Attach {
        /// The network.
        network_id: &'a str,
    },
    /// A container has left a network; the reply is [`Left`].
    Leave {
        /// The network.
        network_id: &'a str,
        /// The container.
        container_id: &'a str,
    },
    /// Forward these ports to a container, all or none.
    Publish {
        /// The container.
        container_id: &'a str,
        /// Its ports.
        ports: &'a [Mapping],
    },
    /// Tell everything.
    Status,
}

/// What is said to `join`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Whether the network is served; if not, its TAP is wanted.
    pub attached: bool,
}

/// What is said to `leave`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The containers that are left on the network.
    pub containers: u64,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The largest packet on it in bytes; 0 and nothing: the usual one.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Whether its gateway answers DNS queries.
    #[serde(default, deserialize_with = "or_default")]
    pub dns_enabled: bool,
    /// Whether it has no way out.
    #[serde(default, deserialize_with = "or_default")]
    pub internal: bool,
    /// Its subnets.
    #[serde(default, deserialize_with = "or_default")]
    pub subnets: Vec<Subnet>,
    /// The nameservers to ask instead of the host's.
    #[serde(default, deserialize_with = "or_default")]
    pub dns_servers: Vec<IpAddr>,
}

/// A subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its addresses.
    pub subnet: IpNet,
    /// The one that is the uplink's.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
}

/// A container on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its id, the same on all its networks.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What else it is called on this network.
    #[serde(default, deserialize_with = "or_default")]
    pub names: Vec<String>,
    /// Its addresses on this network, both families.
    pub addresses: Vec<IpAddr>,
    /// The nameservers to ask for it, if it has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_servers: Option<Vec<IpAddr>>,
}

/// A port mapping as container engines write it: the JSON of `publish`, and of `rootlessport`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Where the host listens, a link-local address with its interface (`fe80::1%eth0`); empty: everywhere.
    #[serde(default)]
    pub host_ip: Option<String>,
    /// The first port of the host.
    pub host_port: u16,
    /// The first port of the container.
    pub container_port: u16,
    /// `tcp` or `udp`, or both with a comma between them; empty: `tcp`.
    #[serde(default, deserialize_with = "or_default")]
    pub protocol: String,
    /// How many ports.
    #[serde(default, deserialize_with = "or_default")]
    pub range: u16,
}

/// `null` is as good as nothing.
///
/// # Errors
/// When it is neither.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
