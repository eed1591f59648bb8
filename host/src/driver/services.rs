//! Connections between guests and this very program: those that a guest makes to a service at an address of ours, and
//! those that a service makes into the network. The far end is a stream of AF_UNIX, which can be given to another
//! thread or process, and is served there like any other.
//!
//! Whoever has such an end reads end-of-file when the guest has closed, and also when the guest is gone or has refused.
//! The difference: in the second case nothing can be written any more (EPIPE), in the first it can.

use super::Driver;
use crate::clock;
use crate::upstream::local_pair;
use nix::errno::Errno;
use slipway_netstack::FlowId;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::drop_reason::DropReason;
use slipway_netstack::upstream::{Errno as Failure, Event, ServiceId};
use slipway_netstack::within::dhcp4::KeepError;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// Ports that our connections seem to come from: the kernel's default for its own (net.ipv4.ip_local_port_range).
pub(super) const FIRST_PORT: u16 = 32_768;
const LAST_PORT: u16 = 60_999;

impl Driver {
    /// Connects to `guest`, an address of the network, as from a client on this host's loopback. Returned is our end;
    /// it can be written to at once. When nobody answers there, or refuses, it is closed. Whether somebody has answered
    /// yet, [`Driver::is_open`] tells.
    ///
    /// # Errors
    /// EHOSTUNREACH: no client is led there; ENOBUFS: there are too many flows; the kernel's.
    pub fn dial(&mut self, guest: SocketAddr) -> io::Result<(FlowId, OwnedFd)> {
        let (theirs, ours) = local_pair()?;
        let flow = self.carry(theirs, guest)?;
        Ok((flow, ours))
    }

    /// Whether both ends of a connection are there.
    pub fn is_open(&mut self, flow: FlowId) -> bool {
        self.engine.is_open(flow)
    }

    /// The same for a client that has a stream of AF_UNIX already, `socket`, which the driver owns from now on.
    ///
    /// # Errors
    /// As [`Driver::dial`]; the socket is then closed.
    pub fn carry(&mut self, socket: OwnedFd, guest: SocketAddr) -> io::Result<FlowId> {
        let now = clock::now();
        let port = self.dial_port;
        self.dial_port = if port >= LAST_PORT { FIRST_PORT } else { port + 1 };
        let from: IpAddr =
            if guest.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let flow = self.engine.accept_tcp(now, SocketAddr::new(from, port), guest).map_err(no_way)?;
        self.changed = true;
        self.sockets.attach_local(flow, socket).inspect_err(|_| {
            self.engine.on_upstream(now, flow, Event::Failed(Failure::Exhausted), &mut self.sockets);
        })?;
        Ok(flow)
    }

    /// Connections that guests have made to services since this was asked last: which service, from where, and the far
    /// end. Ask after every round; one that nobody takes is as one that nobody accepts.
    pub fn service_clients(&mut self) -> Vec<(ServiceId, SocketAddr, OwnedFd)> {
        let mut clients = Vec::new();
        while let Some((service, flow, socket)) = self.sockets.take_service_client() {
            // It may have gone by now.
            clients.extend(self.engine.guest_of(flow).map(|guest| (service, guest, socket)));
        }
        clients
    }

    /// Whether there are any.
    #[must_use]
    pub fn has_service_clients(&self) -> bool {
        self.sockets.has_service_clients()
    }

    /// Keeps an address of the network for a station from now on.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub fn keep_address(&mut self, address: Ipv4Addr, station: MacAddr) -> Result<(), KeepError> {
        self.engine.keep_address(clock::now(), address, station)
    }

    /// Who has which address of the network, as far as we assign them; we are among them.
    #[must_use]
    pub fn leases(&self) -> Vec<(IpAddr, MacAddr)> {
        self.engine.leases(clock::now())
    }
}

fn no_way(reason: DropReason) -> io::Error {
    match reason {
        DropReason::NoRoom => Errno::ENOBUFS,
        _ => Errno::EHOSTUNREACH,
    }
    .into()
}
