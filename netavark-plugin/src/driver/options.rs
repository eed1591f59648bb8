//! Options that several drivers have, made into values.

use super::Request;
use crate::error::{Error, Result};
use crate::spec::{NetAddress, NetInterface, Network, PerNetworkOptions, StatusBlock, validate};
use slipway_host::netlink::Interface;
use slipway_netstack::addr::MacAddr;

/// What every driver of ours reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Common<'a> {
    pub(crate) inside: &'a str,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) mtu: Option<u32>,
    pub(crate) metric: u32,
    pub(crate) default_route: bool,
}

impl<'a> Common<'a> {
    /// `metric`: that of default routes when the network says nothing.
    pub(super) fn of(request: &Request<'a>, metric: u32) -> Result<Self> {
        Self::new(request.network, request.options, metric)
    }

    /// The same from the two halves of a request.
    pub(crate) fn new(network: &Network, own: &'a PerNetworkOptions, metric: u32) -> Result<Self> {
        let options = network.options.as_ref();
        let inside = own.interface_name.as_str();
        if inside.is_empty() {
            return Err(Error::msg("no container interface name given"));
        }
        validate::interface("container", inside)?;
        let no_default_route = validate::option(options, "no_default_route")?.unwrap_or(false);
        Ok(Self {
            inside,
            mac: own.static_mac.as_deref().map(validate::mac).transpose()?,
            // 0 has always meant: find out.
            mtu: validate::option(options, "mtu")?.filter(|mtu| *mtu != 0),
            metric: validate::option(options, "metric")?.unwrap_or(metric),
            default_route: !no_default_route,
        })
    }
}

/// The part of the answer about the interface that was made.
pub(crate) fn status(inside: &Interface, addresses: &[NetAddress]) -> StatusBlock {
    let interface = NetInterface {
        mac_address: inside.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        subnets: Some(addresses.to_vec()),
    };
    StatusBlock {
        dns_search_domains: Some(Vec::new()),
        dns_server_ips: Some(Vec::new()),
        interfaces: Some([(inside.name.clone(), interface)].into_iter().collect()),
    }
}
