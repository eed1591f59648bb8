//! What the plugin is told at setup and teardown, and what it makes of it: a plan, and what the uplink is told.
//!
//! The callers differ in small things: netavark 1.17 sends `null` for what is absent, 2.x leaves it out. Both are read.

use super::uplink;
use crate::driver::{Common, METRIC};
use crate::error::{Error, Result};
use crate::plan::switch::Switch;
use crate::spec::{Compat, Ipam, IpamKind, Network, PerNetworkOptions, PortMapping, validate};
use serde::Deserialize;
use slipway_uplink::wire::{self, Container};

/// The MTU when the network says nothing: the largest that the stack and the TAP carry.
pub(super) const MTU: u32 = 65520;
/// The least that each family can do with (RFC 791 §3.2, RFC 8200 §5).
const MTU_MIN: u32 = 68;
const MTU_MIN6: u32 = 1280;

/// One container on one network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Call {
    /// The container's ID.
    pub(super) container_id: String,
    /// Its name.
    pub(super) container_name: String,
    /// The ports to publish.
    #[serde(default)]
    pub(super) port_mappings: Option<Vec<PortMapping>>,
    /// The network.
    pub(super) network: Network,
    /// How the container joins it.
    pub(super) network_options: PerNetworkOptions,
}

/// A request that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted<'a> {
    /// What is made here.
    pub(super) plan: Switch<'a>,
    /// The network as the uplink knows it; `None`: it has no gateway, so there is nothing for the uplink to be.
    pub(super) network: Option<wire::Network>,
    /// The container as the uplink knows it.
    pub(super) container: Container,
}

impl Call {
    /// Checks the request. Nothing is touched.
    pub(super) fn parse(&self) -> Result<Wanted<'_>> {
        let Self { network, network_options: options, .. } = self;
        let name = bridge_name(network)?;
        let ipam = Ipam::of(network, options, Compat::Two)?;
        if ipam.kind == IpamKind::Dhcp {
            return Err(dhcp());
        }
        let Common { inside, mac, mtu, metric, default_route } = Common::new(network, options, METRIC)?;
        let mtu = check_mtu(mtu, network)?;
        let container = Container {
            id: self.container_id.clone(),
            name: self.container_name.clone(),
            names: options.aliases.clone().unwrap_or_default(),
            addresses: ipam.addresses.iter().map(|address| address.ipnet.addr()).collect(),
            dns_servers: None,
        };
        let served = !ipam.gateways.is_empty();
        let port = validate::interface("host", options.option("host_interface_name").unwrap_or_default())?;
        let internal = network.internal;
        let plan = Switch { name, internal, mtu, metric, default_route, port, inside, mac, ipam };
        Ok(Wanted { plan, network: served.then(|| told(network, mtu)), container })
    }
}

/// The network in the uplink's words.
fn told(network: &Network, mtu: u32) -> wire::Network {
    let Network { id, name, dns_enabled, internal, .. } = network;
    let subnets = network.subnets().iter();
    wire::Network {
        id: id.clone(),
        name: name.clone(),
        mtu: Some(mtu),
        dns_enabled: *dns_enabled,
        internal: *internal,
        subnets: subnets
            .map(|subnet| wire::Subnet { subnet: subnet.subnet.trunc(), gateway: subnet.gateway })
            .collect(),
        dns_servers: network.network_dns_servers.clone().unwrap_or_default(),
    }
}

/// The bridge's name, without which nothing is found.
pub(super) fn bridge_name(network: &Network) -> Result<&str> {
    let name = network.network_interface.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(Error::msg("no bridge interface name given"));
    }
    validate::interface("bridge", name)
}

pub(super) fn dhcp() -> Error {
    Error::msg("the driver slipway gives out no addresses by dhcp: use the ipam driver host-local")
}

/// The MTU that is asked for, or the usual one.
pub(super) fn check_mtu(asked: Option<u32>, network: &Network) -> Result<u32> {
    let least = if network.has_ipv6() || network.ipv6_enabled { MTU_MIN6 } else { MTU_MIN };
    match asked {
        None => Ok(MTU),
        Some(mtu) if (least..=MTU).contains(&mtu) => Ok(mtu),
        Some(mtu) => Err(Error::msg(format!("mtu must be between {least} and {MTU}, not {mtu}"))),
    }
}

/// For the fuzzer: any bytes as a request. What is accepted is within the limits of what is made from it.
pub fn fuzz(data: &[u8]) {
    super::record::fuzz(data);
    uplink::fuzz(data);
    let Ok(call) = serde_json::from_slice::<Call>(data) else { return };
    // What was not read is not asked for.
    let _ = validate::option::<bool>(call.network.options.as_ref(), "no_default_route");
    let Ok(wanted) = call.parse() else { return };
    assert!((MTU_MIN..=MTU).contains(&wanted.plan.mtu), "the MTU is one that the TAP takes");
    assert!(!wanted.plan.name.is_empty() && !wanted.plan.name.contains('/'), "the name is no way elsewhere");
    assert!(wanted.container.addresses.len() <= call.network_options.ips().len(), "no address is invented");
    for told in wanted.network.iter().flat_map(|network| &network.subnets) {
        assert_eq!(told.subnet, told.subnet.trunc(), "a subnet has no host bits");
    }
    let steps = wanted.plan.setup(None, wanted.network.is_some());
    assert!(!crate::plan::text(&steps).is_empty(), "there is something to do");
}
