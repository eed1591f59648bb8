//! Notices changes of interfaces, addresses and routes (a VPN comes up, a laptop changes its network).
//!
//! What changed is not told in detail: whoever cares reads the new state. A queue that overflowed (ENOBUFS) is
//! therefore just a change of everything.

use super::raw::RawSocket;
use super::socket::{Error, parse};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockProtocol};
use std::os::fd::{AsFd, BorrowedFd};

/// Datagrams taken in one call; the rest keeps the descriptor readable.
const BATCH: usize = 64;

/// Room for one datagram: a message about one interface, address or route. What does not fit counts as a change of
/// everything.
const DATAGRAM_MAX: usize = 32 << 10;

/// The multicast groups of rtnetlink(7): links, and addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x100 | 0x40 | 0x400;

/// Kinds of things that have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// Interfaces came, went or changed.
    pub interfaces: bool,
    /// Addresses came or went.
    pub addresses: bool,
    /// Routes came or went.
    pub routes: bool,
}

impl Changes {
    const ALL: Self = Self { interfaces: true, addresses: true, routes: true };

    /// Whether anything has changed.
    #[must_use]
    pub fn any(self) -> bool {
        self.interfaces || self.addresses || self.routes
    }
}

/// A non-blocking descriptor that is readable when something has changed.
#[derive(Debug)]
pub struct Monitor {
    socket: RawSocket,
}

impl Monitor {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn open() -> Result<Self, Error> {
        let socket = RawSocket::listening(SockProtocol::NetlinkRoute, GROUPS);
        Ok(Self { socket: socket.map_err(|errno| Error::new("watch the network configuration", errno))? })
    }

    /// What has changed since the last call.
    ///
    /// # Errors
    /// The socket's.
    pub fn changes(&mut self) -> Result<Changes, Error> {
        let mut changes = Changes::default();
        let mut datagram = vec![0; DATAGRAM_MAX];
        for _ in 0..BATCH {
            match self.socket.receive(&mut datagram, MsgFlags::empty()) {
                Ok(length) => note(datagram.get(..length).unwrap_or_default(), &mut changes),
                Err(Errno::ENOBUFS | Errno::EMSGSIZE) => changes = Changes::ALL,
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(Error::new("watch the network configuration", errno)),
            }
        }
        Ok(changes)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(super) fn note(datagram: &[u8], changes: &mut Changes) {
    for message in parse(datagram).unwrap_or_default() {
        let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
        match message {
            RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => changes.interfaces = true,
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => {
                changes.addresses = true;
            }
            RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => changes.routes = true,
            _ => {}
        }
    }
}
