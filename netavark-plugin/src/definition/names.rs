//! Names and IDs: of the network, of its interface, of whoever gives out addresses.

use super::Used;
use crate::error::{Error, Result};
use crate::spec::Network;

/// The longest name that the kernel takes for an interface.
const INTERFACE_MAX: usize = 15;

/// Checks everything that has a name, in the order in which callers expect complaints.
pub(super) fn check(network: &Network, used: &Used) -> Result<()> {
    let name = &network.name;
    if name.is_empty() {
        return Err(Error::msg("Network name must be supplied"));
    }
    if !is_plain(name) {
        return Err(Error::msg(format!(
            "Invalid characters in network name {name:?}: must match [a-zA-Z0-9][a-zA-Z0-9_.-]*"
        )));
    }
    if used.names.contains_key(name) {
        return Err(Error::msg(format!("network already exists {name}")));
    }
    let id = &network.id;
    if id.is_empty() {
        return Err(Error::msg("Network id must be supplied"));
    }
    if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::msg(format!("Network id must be 64 hexadecimal digits, not {id:?}")));
    }
    network.network_interface.as_deref().map_or(Ok(()), interface)?;
    ipam(network)
}

/// Whether a text is made of the characters that are safe in file names, options and listings.
pub(crate) fn is_plain(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Whether the kernel and everybody who prints it can live with an interface's name.
pub(super) fn interface(name: &str) -> Result<()> {
    if name.chars().count() > INTERFACE_MAX {
        let text =
            format!("Interface name {name:?} is too long: the kernel takes {INTERFACE_MAX} characters");
        return Err(Error::msg(text));
    }
    if ["", ".", ".."].contains(&name) {
        return Err(Error::msg(format!("{name:?} cannot be the name of an interface")));
    }
    match name.chars().find(|c| matches!(c, '/' | ':') || c.is_whitespace()) {
        Some(bad) => Err(Error::msg(format!("Interface name {name:?} cannot contain {bad:?}"))),
        None => Ok(()),
    }
}

fn ipam(network: &Network) -> Result<()> {
    match network.ipam_driver() {
        Some("none") if !network.subnets().is_empty() => {
            Err(Error::msg("None ipam driver is set but subnets are given"))
        }
        None | Some("host-local" | "dhcp" | "none") => Ok(()),
        Some(other) => Err(Error::msg(format!("Unsupported ipam driver: {other}"))),
    }
}
