//! Where a flow's socket speaks from: interface, address, port, in the order that the kernel wants them in.
//!
//! **Interface.** SO_BINDTOIFINDEX decides by which interface everything leaves and arrives, also to link-local
//! addresses, which then need no zone, and to groups (so nothing has to be said of IP_MULTICAST_IF). It comes first: a
//! link-local address can be bound only on a known link. An interface that is gone is an error, for whoever asked for
//! one did not mean any other.
//!
//! **Port.** A wish. Another socket of the host's may have it (EADDRINUSE), or it may be for root alone (EACCES; EPERM
//! where a security module says so): then the kernel chooses.

use crate::sys::sockopt::{self, Opt};
use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, bind as bind_to};
use slipway_netstack::addr::any_endpoint;
use slipway_netstack::upstream::Source;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

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
    let at = |port| bind_to(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, port)));
    match at(from.port) {
        Err(Errno::EADDRINUSE | Errno::EACCES | Errno::EPERM) if from.port != 0 => at(0),
        bound => bound,
    }
}

#[cfg(test)]
mod tests;
