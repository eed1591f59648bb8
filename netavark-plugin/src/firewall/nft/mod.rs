//! Rules in the kernel's nf_tables, in the table `inet netavark`, by netlink.

use super::{NetworkRules, PortRules, Saved};
use crate::error::{Error, Result};

pub(super) fn setup(_network: &NetworkRules, _ports: &PortRules) -> Result<()> {
    Err(Error::msg("nftables error: under construction"))
}

pub(super) fn teardown(_network: &NetworkRules, _ports: &PortRules, _complete: bool) -> Result<()> {
    Err(Error::msg("nftables error: under construction"))
}

pub(super) fn restore(_saved: &Saved) -> Result<()> {
    Err(Error::msg("nftables error: under construction"))
}
