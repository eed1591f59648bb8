//! The definition of a new network, completed and checked, whoever asks: `create`, `slipway net`, the network driver.
//! Nothing is made; the caller writes the result down.
//!
//! ```text
//!   names ──▶ driver's own part ──▶ names or no names ──▶ subnets ──▶ routes ──▶ the moment
//! ```
//! The driver's part chooses what was left open: the bridge's name, free subnets, who gives out addresses. [`complete`]
//! does it all from a [`Surroundings`], so that it can be tried without a system.

mod drivers;
mod names;
mod subnets;

pub(crate) use names::is_plain;

use crate::error::{Error, Result};
use crate::rfc3339;
use crate::spec::ipam::check_route;
use crate::spec::{Map, Network};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use slipway_host::netlink::Netlink;
use std::ffi::OsString;
use std::time::Duration;

/// The request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Request {
    network: Network,
    used: Used,
    options: Options,
}

/// What other networks have taken.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct Used {
    /// Bridges.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) interfaces: Vec<String>,
    /// Networks: name and ID.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) names: Map<String>,
    /// Subnets, of networks and of the host.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) subnets: Vec<IpNet>,
}

/// How to choose what was left open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
struct Options {
    /// Where subnets come from.
    #[serde(default, deserialize_with = "null_is_empty")]
    subnet_pools: Vec<Pool>,
    /// The beginning of a bridge's name.
    #[serde(default)]
    default_interface_name: Option<String>,
    /// Whether a subnet must not be in use.
    #[serde(default)]
    check_used_subnets: bool,
}

/// A pool of subnets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Pool {
    /// All of it.
    pub(crate) base: IpNet,
    /// The length of one subnet's prefix.
    pub(crate) size: u32,
}

/// A list that was never filled is `null` in the caller's language.
fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What the system is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The names of all interfaces; `None` if they cannot be listed.
    pub interfaces: Option<&'a [String]>,
    /// Where plugins are.
    pub plugin_directories: &'a [OsString],
    /// Random bytes for IPv6 subnets.
    pub random: fn() -> [u8; 7],
    /// The time since 1970.
    pub now: Duration,
}

/// Completes the definition of a network that somebody makes by hand. Its subnets must be unused, its bridge is called
/// `prefix` and a number if it has no name.
pub(crate) fn define(network: Network, used: Used, subnet_pools: Vec<Pool>, prefix: &str) -> Result<Network> {
    on_this_host(request(network, used, subnet_pools, prefix), &[])
}

/// The request for [`define`].
pub(crate) fn request(network: Network, used: Used, subnet_pools: Vec<Pool>, prefix: &str) -> Request {
    let default_interface_name = Some(prefix.to_owned());
    let options = Options { subnet_pools, default_interface_name, check_used_subnets: true };
    Request { network, used, options }
}

/// Completes a definition with what this host has.
pub(crate) fn on_this_host(request: Request, plugin_directories: &[OsString]) -> Result<Network> {
    let interfaces: Option<Vec<String>> = Netlink::open()
        .and_then(|mut netlink| netlink.interfaces())
        .inspect_err(|error| log::debug!("interfaces are not checked: {error}"))
        .ok()
        .map(|list| list.into_iter().map(|interface| interface.name).collect());
    complete(
        request,
        &Surroundings {
            interfaces: interfaces.as_deref(),
            plugin_directories,
            random: || slipway_host::random::bytes().unwrap_or_default(),
            now: slipway_host::clock::since_1970(),
        },
    )
}

/// Completes a definition.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn complete(request: Request, surroundings: &Surroundings<'_>) -> Result<Network> {
    let Request { mut network, used, options } = request;
    names::check(&network, &used)?;
    let mut unused = options.check_used_subnets;
    match network.driver.as_str() {
        "bridge" => unused &= drivers::bridge(&mut network, &used, &options, surroundings)?,
        "macvlan" | "ipvlan" => {
            drivers::on_parent(&mut network, surroundings)?;
            unused = false;
        }
        _ => {
            network = drivers::plugin(&network, surroundings)?;
            unused = false;
        }
    }
    if network.ipam_driver() == Some("none") {
        network.dns_enabled = false;
    }
    if network.network_dns_servers.is_some() && !network.dns_enabled {
        return Err(Error::msg("cannot set NetworkDNSServers if DNS is not enabled for the network"));
    }
    subnets::check(&mut network, unused.then_some(&used.subnets))?;
    for route in network.routes.iter().flatten() {
        if route.destination.addr() != route.destination.network() {
            return Err(Error::msg("route destination invalid"));
        }
        check_route(route)?;
    }
    network.created = Some(rfc3339::utc(surroundings.now));
    Ok(network)
}

/// For the fuzzer: completing what was completed changes nothing but the moment.
pub fn fuzz(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<Request>(data) else { return };
    if !["bridge", "macvlan", "ipvlan"].contains(&request.network.driver.as_str()) {
        return;
    }
    let surroundings = nowhere();
    if let Ok(network) = complete(request.clone(), &surroundings) {
        let again = complete(Request { network: network.clone(), ..request }, &surroundings);
        assert_eq!(again.ok(), Some(network), "complete stays complete");
    }
}

/// For the fuzzer: no system at all.
pub(crate) fn nowhere() -> Surroundings<'static> {
    Surroundings {
        interfaces: None,
        plugin_directories: &[],
        random: || [7; 7],
        now: Duration::from_secs(1_800_000_000),
    }
}

#[cfg(test)]
mod tests;
