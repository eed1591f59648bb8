//! What a lease makes of the interface: MTU, address and routes, and what goes when the lease does.
//!
//! What cannot be set is told, and does not take the rest along: a machine may have a default route of its own. With
//! the next lease it is tried again.

use ipnet::{IpNet, Ipv4Net};
use nix::errno::Errno;
use slipway_host::netlink::{Error, Netlink, NewRoute, Request, RouteKind};
use slipway_netstack::dhcp_client::Lease;
use std::net::Ipv4Addr;

/// RFC 791 §3.1: every link carries packets of this size.
const LEAST_MTU: u16 = 68;

/// What is set on an interface.
#[derive(Debug)]
pub(super) struct Holding {
    index: u32,
    name: String,
    address: Option<Ipv4Net>,
    routes: Vec<Way>,
}

/// Where to, and through which router, if it is not on the link.
type Way = (Ipv4Net, Option<Ipv4Addr>);

impl Holding {
    /// Nothing, yet.
    pub(super) fn new(index: u32, name: &str) -> Self {
        Self { index, name: name.to_owned(), address: None, routes: Vec::new() }
    }

    pub(super) const fn index(&self) -> u32 {
        self.index
    }

    pub(super) const fn is_at(&self, index: u32) -> bool {
        self.index == index
    }

    /// Has the interface be what the lease says.
    pub(super) fn follow(&mut self, lease: &Lease) {
        let routes = ways(lease);
        self.within(|holding, netlink| {
            if let Some(mtu) = lease.mtu.filter(|mtu| *mtu >= LEAST_MTU) {
                told(set_mtu(netlink, &holding.name, mtu));
            }
            let before = holding.address.replace(lease.address);
            let gone = before.filter(|before| *before != lease.address);
            let add = || Request::add_address(holding.index, IpNet::V4(lease.address));
            told(netlink.run_one(&add()));
            if let Some(gone) = gone {
                told(netlink.run_one(&Request::delete_address(holding.index, IpNet::V4(gone))));
                // Of two addresses in one network the later is secondary: the kernel may delete it with the first.
                told(netlink.run_one(&add()));
            }
            let before = std::mem::replace(&mut holding.routes, routes);
            for way in before.iter().filter(|way| !holding.routes.contains(way)) {
                told(netlink.run_one(&Request::delete_route(&route(*way))));
            }
            // With an address the kernel has taken the routes that need it.
            for way in &holding.routes {
                match netlink.run_one(&Request::add_route_on(&route(*way), holding.index)) {
                    Err(error) if !before.contains(way) => log::error!("dhcp error: {error}"),
                    result => told(result),
                }
            }
        });
    }

    /// RFC 2131 §4.4.5: an address whose lease is over is not used any more. The routes through it go with it.
    pub(super) fn give_up(&mut self) {
        let Some(address) = self.address.take() else { return };
        self.routes.clear();
        self.within(|holding, netlink| {
            told(netlink.run_one(&Request::delete_address(holding.index, IpNet::V4(address))));
        });
    }

    fn within(&mut self, work: impl FnOnce(&mut Self, &mut Netlink)) {
        match Netlink::open() {
            Ok(mut netlink) => work(self, &mut netlink),
            Err(error) => log::error!("dhcp error: {error}"),
        }
    }
}

fn set_mtu(netlink: &mut Netlink, name: &str, mtu: u16) -> Result<(), Error> {
    let link = netlink.interface(name)?;
    if link.mtu == u32::from(mtu) { Ok(()) } else { netlink.set_mtu(&link, mtu.into()) }
}

/// RFC 3442: where a server names routes, its routers say nothing.
fn ways(lease: &Lease) -> Vec<Way> {
    if !lease.routes.is_empty() {
        return lease.routes.clone();
    }
    lease.gateways.first().map(|gateway| (Ipv4Net::default(), Some(*gateway))).into_iter().collect()
}

fn route((to, through): Way) -> NewRoute {
    NewRoute {
        destination: IpNet::V4(to),
        gateway: through.map(Into::into),
        priority: 0,
        kind: RouteKind::Unicast,
    }
}

/// What is so already is no error.
fn told(result: Result<(), Error>) {
    match result {
        Err(error) if matches!(error.errno(), Some(Errno::EEXIST | Errno::ESRCH | Errno::EADDRNOTAVAIL)) => {
            log::debug!("{error}");
        }
        Err(error) => log::error!("dhcp error: {error}"),
        Ok(()) => {}
    }
}
