//! The ipvlan driver: a child that shares its parent's MAC address, for networks that allow a machine only one.

use super::Request;
use super::child::Child;
use crate::error::{Error, Result};
use crate::plan::ChildKind;
use crate::spec::IpamKind;
use slipway_host::netlink::IpvlanMode;

/// The modes by their names.
const MODES: [(&str, IpvlanMode); 4] =
    [("", IpvlanMode::L2), ("l2", IpvlanMode::L2), ("l3", IpvlanMode::L3), ("l3s", IpvlanMode::L3s)];

/// The driver for one container.
pub(super) fn driver<'a>(request: Request<'a>) -> Child<'a> {
    Child::new(request, kind)
}

fn kind(request: &Request<'_>) -> Result<ChildKind> {
    if IpamKind::of(request.network)? == IpamKind::Dhcp {
        // A DHCP server tells machines apart by their MAC addresses.
        return Err(Error::msg("ipam driver dhcp is not supported with ipvlan"));
    }
    let word = request.network.option("mode").unwrap_or_default();
    let (_, mode) = MODES
        .into_iter()
        .find(|(name, _)| *name == word)
        .ok_or_else(|| Error::msg(format!("invalid ipvlan mode \"{word}\"")))?;
    Ok(ChildKind::Ipvlan(mode))
}
