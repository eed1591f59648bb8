//! The interface in the guest: a TAP, which is made when gvproxy is there for the first time, and stays.
//!
//! It is opened with a header before each frame, whose content says nothing as long as frames are asked for finished:
//! a TAP cannot be given one later, when the other end turns out to know what to do with it.

use super::args::Args;
use slipway_host::device::Tap;
use slipway_host::netlink::{self, Netlink};
use slipway_netstack::addr::MacAddr;

/// An attached interface.
#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) tap: Tap,
    /// Its number.
    pub(crate) index: u32,
    /// Its MAC address.
    pub(crate) mac: MacAddr,
}

impl Interface {
    /// Attaches to the interface, or makes it, and brings it up with its MAC address, unless that is somebody else's
    /// business.
    ///
    /// # Errors
    /// In a line.
    pub(crate) fn open(args: &Args) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot create tap device: {error}");
        let mut tap = Tap::open(&args.iface).map_err(|error| failed(&error))?;
        tap.want_finished(true);
        let mut netlink = Netlink::open().map_err(|error| failed(&error))?;
        let mut link = netlink.interface(tap.name()).map_err(|error| failed(&error))?;
        if !args.preexisting {
            let wrong = |why: String| format!("cannot set mac address: {why}");
            bring_up(&mut netlink, &link, &args.mac).map_err(wrong)?;
            link = netlink.interface(tap.name()).map_err(|error| failed(&error))?;
        }
        let mac = link.mac.ok_or_else(|| failed(&"it has no MAC address"))?;
        Ok(Self { tap, index: link.index, mac })
    }
}

fn bring_up(netlink: &mut Netlink, link: &netlink::Interface, mac: &str) -> Result<(), String> {
    if !mac.is_empty() {
        let mac: MacAddr = mac.parse().map_err(|_| format!("address {mac}: invalid MAC address"))?;
        if link.mac != Some(mac) {
            netlink.set_mac(link, mac).map_err(|error| error.to_string())?;
        }
    }
    netlink.set_up(link).map_err(|error| error.to_string())
}
