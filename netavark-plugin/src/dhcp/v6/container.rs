//! The container's side of IPv6: what its interface has by itself, and what a server granted it.
//!
//! A server's address has its lifetimes in the kernel, which ends it when nobody prolongs it. It makes no route: what
//! is on the link is told by the routers (RFC 8415 §21.6, RFC 5942). While duplicates of it are looked for it can be
//! used if the interface allows that (RFC 4429).

use super::message::Leased;
use crate::dhcp::target::Target;
use crate::error::{Error, Errors, Result};
use crate::namespaces::gone;
use ipnet::{IpNet, Ipv6Net};
use nix::errno::Errno;
use slipway_host::netlink::{Lifetimes, Request};
use std::fs;
use std::net::{IpAddr, Ipv6Addr};

/// What an interface has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sight {
    /// Its link-local address, if that can be used.
    pub(super) own: Option<Ipv6Addr>,
    /// Its addresses for the world, as far as nobody else on the link has them.
    pub(super) addresses: Vec<Ipv6Net>,
    /// The routers that its kernel has heard.
    pub(super) routers: Vec<Ipv6Addr>,
}

impl Target {
    /// Whether IPv6 is switched off for the interface.
    pub(in crate::dhcp) fn ipv6_is_off(&self) -> Result<bool> {
        let (place, interface) = self.open()?;
        let path = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", interface.name);
        let value = place.enter(|| fs::read_to_string(path))?;
        Ok(value.map_or_else(
            |error| error.raw_os_error() == Some(Errno::ENOENT as i32),
            |value| value.trim() == "1",
        ))
    }

    /// Looks at the interface.
    pub(super) fn look(&self) -> Result<Sight> {
        let (mut place, interface) = self.open()?;
        let mut sight = Sight::default();
        for address in place.netlink.addresses()? {
            let IpNet::V6(net) = address.net else { continue };
            if address.interface != interface.index || address.duplicate || address.temporary {
                continue;
            }
            if !address.local {
                sight.addresses.push(net);
            } else if !address.tentative && net.addr().is_unicast_link_local() {
                sight.own.get_or_insert_with(|| net.addr());
            }
        }
        for neighbour in place.netlink.neighbours()? {
            if let (true, IpAddr::V6(router)) = (neighbour.router, neighbour.address)
                && neighbour.interface == interface.index
            {
                sight.routers.push(router);
            }
        }
        Ok(sight)
    }

    /// Gives the interface addresses, or prolongs them.
    pub(super) fn give(&self, addresses: &[(Ipv6Net, Leased)]) -> Result<()> {
        let (mut place, interface) = self.open()?;
        let mut errors = Errors::new();
        for (net, leased) in addresses {
            let lifetimes = Lifetimes { preferred: leased.preferred, valid: leased.valid };
            let request = Request::lease_address(interface.index, *net, lifetimes);
            errors.note(place.netlink.run_one(&request).map_err(Error::from));
        }
        errors.finish()
    }

    /// Takes addresses away, as far as they are there.
    pub(super) fn take(&self, addresses: &[Ipv6Net]) -> Result<()> {
        let (mut place, interface) = self.open()?;
        let mut errors = Errors::new();
        for net in addresses {
            let deleted = place.netlink.run_one(&Request::delete_address(interface.index, IpNet::V6(*net)));
            match deleted {
                Err(error) if error.errno() == Some(Errno::EADDRNOTAVAIL) => {}
                deleted => {
                    errors.note(gone(deleted));
                }
            }
        }
        errors.finish()
    }
}
