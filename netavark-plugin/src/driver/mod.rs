//! Drivers: who connects a container to one network. `bridge`, `macvlan` and `ipvlan` are ours; any other name is a
//! plugin's.
//!
//! All are given the same [`Request`] and hand back the same [`Outcome`]. The commands decide the order: every request
//! is validated before anything is touched, set up in the order of the document, and undone (the failing one included)
//! when one fails. Teardown works from the same request alone and collects what fails.

use crate::spec::{Compat, Network, PerNetworkOptions, PortMapping, StatusBlock};
use std::net::IpAddr;
use std::path::Path;

/// What a driver is told: one container on one network.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The container's ID.
    pub container_id: &'a str,
    /// Its name.
    pub container_name: &'a str,
    /// Its host name, for DHCP.
    pub container_hostname: Option<&'a str>,
    /// The DNS servers of this container alone; `None` when none were given.
    pub container_dns_servers: Option<&'a [IpAddr]>,
    /// The path of its network namespace.
    pub netns_path: &'a Path,
    /// The network.
    pub network: &'a Network,
    /// How the container joins it.
    pub options: &'a PerNetworkOptions,
    /// The ports to publish.
    pub ports: &'a [PortMapping],
    /// Whose defaults are meant.
    pub compat: Compat,
    /// The run directory (`--config`).
    pub config_dir: &'a Path,
    /// Whether this runs inside a rootless network namespace.
    pub rootless: bool,
    /// The port of the DNS server; 53 unless it was moved.
    pub dns_port: u16,
}

/// What a driver hands back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// For the caller.
    pub status: StatusBlock,
    /// For the DNS server, if names are served on the network.
    pub dns: Option<DnsEntry>,
}

/// What the DNS server is told about one container on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsEntry {
    /// The network's name.
    pub network: String,
    /// Whether it has no way out: its names are served, others are not asked for.
    pub internal: bool,
    /// Where the server listens for this network.
    pub listen: Vec<IpAddr>,
    /// Where the names of the outside are asked, for this network.
    pub network_servers: Vec<IpAddr>,
    /// The container's ID.
    pub container_id: String,
    /// The container's addresses, both families.
    pub addresses: Vec<IpAddr>,
    /// Its names: its own, then its aliases.
    pub names: Vec<String>,
    /// Where the names of the outside are asked, for this container.
    pub container_servers: Vec<IpAddr>,
}
