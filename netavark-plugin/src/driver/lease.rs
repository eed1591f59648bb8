//! Addresses from a DHCP server: asked for when the interface is up, given back before it goes.

use super::Request;
use crate::error::{Error, Result};
use crate::namespaces::Places;
use crate::spec::StatusBlock;
use slipway_host::netlink::Interface;

/// Asks for a lease on the network of `host_interface`, and tells of it in `status`.
///
/// # Errors
/// `unable to obtain lease: ...`
pub(super) fn obtain(
    _request: &Request<'_>,
    host_interface: &str,
    _inside: &Interface,
    _status: &mut StatusBlock,
) -> Result<()> {
    Err(Error::msg(format!("unable to obtain lease: no DHCP proxy for {host_interface} in this version")))
}

/// Gives the lease back.
///
/// # Errors
/// When the proxy cannot be asked.
pub(super) fn release(_request: &Request<'_>, host_interface: &str, _places: &mut Places) -> Result<()> {
    log::debug!("no lease to give back on {host_interface}");
    Ok(())
}
