//! The container's side of a lease: address and default route, set in its network namespace.

use crate::announce;
use crate::dhcp::target::Target;
use crate::error::{Context as _, Errors, Result};
use ipnet::{IpNet, Ipv4Net};
use nix::errno::Errno;
use slipway_host::netlink::{Interface, NewRoute, Request, RouteKind};
use slipway_netstack::dhcp_client::Lease;
use std::net::Ipv4Addr;

impl Target {
    /// The default route that a lease gives it.
    fn default_route(&self, lease: &Lease) -> Option<NewRoute> {
        self.metric.zip(lease.gateways.first()).map(|(metric, gateway)| default_route(*gateway, metric))
    }

    /// Gives the interface what was granted, all of it or nothing.
    pub(in crate::dhcp) fn configure(&self, lease: &Lease) -> Result<()> {
        let (mut place, interface) = self.open()?;
        let netlink = &mut place.netlink;
        // It may be there, when the proxy was restarted meanwhile.
        let added = netlink.run_one(&add(&interface, lease.address));
        let is_new = added.is_ok();
        unless(Errno::EEXIST, added)?;
        let Some(route) = self.default_route(lease) else {
            announce::leased(&place, &interface, lease.address.addr());
            return Ok(());
        };
        let added = unless(Errno::EEXIST, netlink.run_one(&Request::add_route(&route)));
        if added.is_err() && is_new {
            let undo = Request::delete_address(interface.index, IpNet::V4(lease.address));
            if let Err(error) = netlink.run_one(&undo) {
                log::warn!("{error}");
            }
        }
        added.context("add default route")?;
        announce::leased(&place, &interface, lease.address.addr());
        Ok(())
    }

    /// Replaces what `old` granted by what `new` grants; the new address comes before the old one goes. After an error
    /// it may be tried again: what is done already is no error.
    pub(super) fn change(&self, old: &Lease, new: &Lease) -> Result<()> {
        let (mut place, interface) = self.open()?;
        let netlink = &mut place.netlink;
        let mut errors = Errors::new();
        if old.address != new.address {
            let added = unless(Errno::EEXIST, netlink.run_one(&add(&interface, new.address)));
            errors.note(added.context("add new address"));
            let deleted = netlink.run_one(&Request::delete_address(interface.index, IpNet::V4(old.address)));
            errors.note(unless(Errno::EADDRNOTAVAIL, deleted).context("delete old address"));
            // Of two addresses in one network the later is secondary: the kernel deletes it with the first, unless
            // net.ipv4.conf.*.promote_secondaries says otherwise.
            let still_there = unless(Errno::EEXIST, netlink.run_one(&add(&interface, new.address)));
            errors.note(still_there.context("add new address"));
        }
        // With the old address the kernel may have taken the route through the old network.
        if (&old.gateways, old.address) != (&new.gateways, new.address) {
            if let Some(route) = self.default_route(old) {
                let deleted = netlink.run_one(&Request::delete_route(&route));
                errors.note(unless(Errno::ESRCH, deleted).context("delete old default route"));
            }
            if let Some(route) = self.default_route(new) {
                let added = netlink.run_one(&Request::add_route(&route));
                errors.note(unless(Errno::EEXIST, added).context("add new default route"));
            }
        }
        errors.finish()?;
        announce::leased(&place, &interface, new.address.addr());
        Ok(())
    }
}

fn add(interface: &Interface, address: Ipv4Net) -> Request {
    Request::add_address(interface.index, IpNet::V4(address))
}

/// The default route of IPv4 through `gateway`.
pub(crate) fn default_route(gateway: Ipv4Addr, priority: u32) -> NewRoute {
    NewRoute {
        destination: IpNet::V4(Ipv4Net::default()),
        gateway: Some(gateway.into()),
        priority,
        kind: RouteKind::Unicast,
    }
}

/// The result, in which `tolerated` is no error.
fn unless(tolerated: Errno, result: Result<(), slipway_host::netlink::Error>) -> Result<()> {
    match result {
        Err(error) if error.errno() == Some(tolerated) => Ok(()),
        result => Ok(result?),
    }
}
