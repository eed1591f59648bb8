//! Where a flow's socket speaks from: interface, address, port, in the order that the kernel wants them in.
//!
//! **Interface.** SO_BINDTOIFINDEX decides by which interface everything leaves and arrives, also to link-local
//! addresses, which then need no zone, and to groups (so nothing has to be said of IP_MULTICAST_IF). It comes first: a
//! link-local address can be bound only on a known link. An interface that is gone is an error, for whoever asked for
//! one did not mean any other.
//!
//! **Zone.** Without an interface for everything, there may be one for addresses that mean something on one link only:
//! link-local ones, and groups of IPv6 of that reach. It goes into the address that a socket is bound to, connects or
//! sends to, and concerns no other address.
//!
//! **Port.** A wish. Another socket of the host's may have it (EADDRINUSE), or it may be for root alone (EACCES; EPERM
//! where a security module says so): then the kernel chooses.

use crate::sys::sockopt::{self, Opt};
use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, bind as bind_to, getsockname};
use slipway_netstack::addr::any_endpoint;
use slipway_netstack::upstream::Source;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// The address that a socket has at its own end; `None` while it has none.
pub(crate) fn of(fd: BorrowedFd<'_>) -> Option<IpAddr> {
    let name = getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok()?;
    let v4 = name.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| name.as_sockaddr_in6().map(|v6| v6.ip().to_canonical())).filter(|ip| !ip.is_unspecified())
}

/// Has a new socket, of the family of `like`, speak from there.
pub(crate) fn bind(fd: BorrowedFd<'_>, like: IpAddr, from: Source) -> Result<(), Errno> {
    if let Some(device) = from.device {
        let index = i32::try_from(device.0.get()).map_err(|_| Errno::ENODEV)?;
        sockopt::set(fd, Opt::BOUND_INTERFACE, index)?;
    }
    if from.broadcast {
        sockopt::set(fd, Opt::BROADCAST, 1)?;
    }
    if from.address.is_none() && from.port == 0 {
        return Ok(());
    }
    let address = from.address.unwrap_or_else(|| any_endpoint(like).ip());
    let zone = zone(from);
    let at = |port| {
        let address = scoped(SocketAddr::new(address, port), zone);
        bind_to(fd.as_raw_fd(), &SockaddrStorage::from(address))
    };
    match at(from.port) {
        Err(Errno::EADDRINUSE | Errno::EACCES | Errno::EPERM) if from.port != 0 => at(0),
        bound => bound,
    }
}

/// The number of the interface on whose link addresses are that need one; 0: not needed, or not known.
pub(super) fn zone(from: Source) -> u32 {
    if from.device.is_some() { 0 } else { from.zone.map_or(0, |zone| zone.0.get()) }
}

/// `address` on the link of `zone`, if it is one that needs that.
pub(super) fn scoped(address: SocketAddr, zone: u32) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if zone != 0 && is_of_one_link(*v6.ip()) => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, zone).into()
        }
        _ => address,
    }
}

/// RFC 4007 §6: link-local addresses, and groups whose scope is a link (RFC 4291 §2.7).
const fn is_of_one_link(ip: Ipv6Addr) -> bool {
    ip.is_unicast_link_local() || matches!(ip.octets(), [0xff, scope, ..] if scope & 0xf == 2)
}

#[cfg(test)]
mod tests;
