//! What each driver has to say about a new network, and what it chooses if that was left open.

use super::names::{interface, is_plain};
use super::{Options, Surroundings, Used, subnets};
use crate::driver::external::Plugin;
use crate::error::{Error, Result};
use crate::spec::validate::{Isolation, option, vlan};
use crate::spec::{Compat, Map, Network};
use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The options of a bridge network. Addresses for outgoing connections are taken, too: setup honours them.
const BRIDGE_OPTIONS: &[&str] = &[
    "mode",
    "mtu",
    "isolate",
    "metric",
    "no_default_route",
    "vrf",
    "vlan",
    "outbound_addr4",
    "outbound_addr6",
];
const MACVLAN_OPTIONS: &[&str] = &["mode", "mtu", "metric", "no_default_route", "bclim"];
const IPVLAN_OPTIONS: &[&str] = &["mode", "mtu", "metric", "no_default_route"];
const MACVLAN_MODES: &[&str] = &["bridge", "private", "vepa", "passthru", "source"];
const IPVLAN_MODES: &[&str] = &["l2", "l3", "l3s"];

/// As many names as are tried for a bridge.
const NAMES_MAX: u32 = 1_000_000;

/// A bridge. Says whether its subnets must be unused: where it shares a link with others, they need not be.
pub(super) fn bridge(
    network: &mut Network,
    used: &Used,
    options: &Options,
    surroundings: &Surroundings<'_>,
) -> Result<bool> {
    translate(network);
    let given = network.options.as_ref();
    known(given, BRIDGE_OPTIONS, "bridge")?;
    let mode = network.option("mode").unwrap_or_default();
    if !["", "managed", "unmanaged"].contains(&mode) {
        return Err(Error::msg(format!("invalid bridge mode \"{mode}\"")));
    }
    common_options(given)?;
    Isolation::from_option(network.option("isolate"), Compat::Two)?;
    let vlan = vlan(given)?;
    option::<Ipv4Addr>(given, "outbound_addr4")?;
    option::<Ipv6Addr>(given, "outbound_addr6")?;
    let alone = vlan.is_none() && mode != "unmanaged";

    match &network.network_interface {
        Some(bridge) if alone && used.interfaces.contains(bridge) => {
            return Err(Error::msg(format!("bridge name {bridge} already in use")));
        }
        Some(bridge) if !is_plain(bridge) => {
            return Err(Error::msg(format!("bridge name {bridge:?} is invalid")));
        }
        Some(_) => {}
        None => network.network_interface = Some(free_name(used, options, surroundings)?),
    }
    if matches!(network.ipam_driver(), None | Some("host-local")) {
        subnets::choose(network, used, options, alone && options.check_used_subnets, surroundings.random)?;
        set_ipam(network, "host-local");
    }
    Ok(alone)
}

/// Options as another engine calls them.
fn translate(network: &mut Network) {
    let Some(options) = &mut network.options else { return };
    if let Some(mtu) = options.shift_remove("com.docker.network.driver.mtu") {
        options.insert("mtu".to_owned(), mtu);
    }
    if let Some(name) = options.shift_remove("com.docker.network.bridge.name") {
        network.network_interface = Some(name);
    }
}

fn free_name(used: &Used, options: &Options, surroundings: &Surroundings<'_>) -> Result<String> {
    let prefix = options
        .default_interface_name
        .as_deref()
        .ok_or_else(|| Error::msg("default_interface_name is needed to choose the bridge's name"))?;
    if !is_plain(prefix) {
        return Err(Error::msg(format!(
            "default_interface_name {prefix:?} cannot begin the name of a bridge"
        )));
    }
    let taken: HashSet<&str> = surroundings
        .interfaces
        .into_iter()
        .flatten()
        .chain(&used.interfaces)
        .chain(used.names.keys())
        .map(String::as_str)
        .collect();
    let free = (1..=NAMES_MAX)
        .map(|number| format!("{prefix}{number}"))
        .find(|name| !taken.contains(name.as_str()))
        .ok_or_else(|| Error::msg(format!("all names from {prefix}1 to {prefix}{NAMES_MAX} are taken")))?;
    interface(&free)?;
    Ok(free)
}

/// Macvlan and ipvlan: on top of a parent interface.
pub(super) fn on_parent(network: &mut Network, surroundings: &Surroundings<'_>) -> Result<()> {
    if let (Some(parent), Some(existing)) = (&network.network_interface, surroundings.interfaces)
        && !existing.contains(parent)
    {
        return Err(Error::msg(format!("parent interface {parent} does not exist")));
    }
    // Names are not served there: the host cannot be reached through its own parent interface.
    network.dns_enabled = false;
    let macvlan = network.driver == "macvlan";
    let subnets = !network.subnets().is_empty();
    match (network.ipam_driver(), subnets) {
        (None, true) => set_ipam(network, "host-local"),
        (None | Some("dhcp"), false) if !macvlan => {
            return Err(Error::msg("ipam driver dhcp is not supported with ipvlan"));
        }
        (None, false) => set_ipam(network, "dhcp"),
        (Some("dhcp"), true) if !macvlan => {
            return Err(Error::msg("ipam driver dhcp is not supported with ipvlan"));
        }
        (Some("dhcp"), true) => return Err(Error::msg("ipam driver dhcp set but subnets are set")),
        (Some("host-local"), false) => {
            let driver = &network.driver;
            return Err(Error::msg(format!("{driver} with the host-local ipam driver needs a subnet")));
        }
        _ => {}
    }
    let given = network.options.as_ref();
    let (options, modes) =
        if macvlan { (MACVLAN_OPTIONS, MACVLAN_MODES) } else { (IPVLAN_OPTIONS, IPVLAN_MODES) };
    known(given, options, &network.driver)?;
    common_options(given)?;
    option::<i32>(given, "bclim")?;
    match network.option("mode") {
        Some(mode) if !modes.contains(&mode) && !mode.is_empty() => {
            Err(Error::msg(format!("invalid {} mode \"{mode}\"", network.driver)))
        }
        _ => Ok(()),
    }
}

/// Somebody else's driver completes its definition itself.
pub(super) fn plugin(network: &Network, surroundings: &Surroundings<'_>) -> Result<Network> {
    let (driver, directories) = (&network.driver, surroundings.plugin_directories);
    let found = Plugin::find(driver, directories).or_else(|| Plugin::own(driver));
    found.map_or_else(
        || {
            Err(Error::msg(if directories.is_empty() {
                "plugin directory not provided".to_owned()
            } else {
                format!("plugin for driver \"{driver}\" not found in plugin directories")
            }))
        },
        |plugin| plugin.create(network),
    )
}

fn common_options(given: Option<&Map<String>>) -> Result<()> {
    option::<u32>(given, "mtu")?;
    option::<u32>(given, "metric")?;
    option::<bool>(given, "no_default_route")?;
    Ok(())
}

fn known(given: Option<&Map<String>>, allowed: &[&str], driver: &str) -> Result<()> {
    match given.into_iter().flat_map(Map::keys).find(|key| !allowed.contains(&key.as_str())) {
        Some(key) => Err(Error::msg(format!("unsupported {driver} network option: {key}"))),
        None => Ok(()),
    }
}

fn set_ipam(network: &mut Network, driver: &str) {
    network.ipam_options.get_or_insert_with(Map::new).insert("driver".to_owned(), driver.to_owned());
}
