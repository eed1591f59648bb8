//! What portfwd asks of the event loop, as one trait.
//!
//! The real one is [`Driver`], which owns the engine, the epoll set and the sockets of flows.
//! Tests put a recording stand-in in its place, so that rules, listeners and the API are tested without an engine.

use slipway_host::driver::{Driver, Interest};
use slipway_host::inside::Side;
use slipway_host::splice::Conversation;
use slipway_netstack::drop_reason::DropReason;
use slipway_netstack::listing::FlowInfo;
use slipway_netstack::upstream::Forwarded;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Something under way between the guest, or its namespace, and others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It goes by the guest's link, in packets.
    Link(FlowInfo),
    /// It goes by the shortcut, from socket to socket.
    Shortcut(Conversation),
}

impl Connection {
    /// Its number, from 1 on, in the order of lists: no other has it at the same time.
    #[must_use]
    pub fn id(&self) -> u64 {
        const SHORTCUT: u64 = 1 << 40;
        match self {
            Self::Link(flow) => u64::try_from(flow.id.index()).unwrap_or(SHORTCUT).saturating_add(1),
            Self::Shortcut(conversation) => SHORTCUT | conversation.id,
        }
    }
}

/// An event loop with an engine behind it.
pub trait Forwarder {
    /// Starts watching `fd`; its events carry `token`.
    ///
    /// # Errors
    /// What epoll_ctl says.
    fn watch(&mut self, fd: BorrowedFd<'_>, interest: Interest, token: u32) -> io::Result<()>;

    /// Changes what `fd` is watched for.
    ///
    /// # Errors
    /// What epoll_ctl says.
    fn modify(&mut self, fd: BorrowedFd<'_>, interest: Interest, token: u32) -> io::Result<()>;

    /// Stops watching `fd`, which is about to be closed.
    fn unwatch(&mut self, fd: BorrowedFd<'_>);

    /// Whether the guest's link has this family at all.
    fn family_on(&self, ipv6: bool) -> bool;

    /// The guest's main address of a family, if it is known.
    fn guest_address(&self, ipv6: bool) -> Option<IpAddr>;

    /// Where the guest is for a client at `from`, which may be another of its addresses than the main one of that
    /// family: a link-local client is answered from a link-local address.
    fn guest_address_toward(&self, from: IpAddr) -> Option<IpAddr> {
        self.guest_address(from.is_ipv6())
    }

    /// Carries the connection of `client` on to `guest`.
    ///
    /// # Errors
    /// When no flow can be made. The socket is closed.
    fn accept_tcp(
        &mut self,
        socket: OwnedFd,
        client: SocketAddr,
        guest: SocketAddr,
    ) -> Result<(), DropReason>;

    /// Carries datagrams on to the guest. Its answers leave through `listener`, from the address that the client sent
    /// to.
    ///
    /// # Errors
    /// When no flow can be made. The datagrams are lost.
    fn accept_udp(&mut self, listener: &Rc<OwnedFd>, datagrams: &Forwarded<'_>) -> Result<(), DropReason>;

    /// The UDP socket `listener` is about to be closed: the flows whose answers leave through it end.
    fn release_udp(&mut self, listener: &Rc<OwnedFd>);

    /// What is under way, by id ([`Connection::id`]).
    fn connections(&self) -> Box<dyn Iterator<Item = Connection> + '_> {
        Box::new(std::iter::empty())
    }

    /// Makes a socket on a side of the border: `listen` is run in that side's network namespace, perhaps by another
    /// thread.
    ///
    /// # Errors
    /// What `listen` returns; `Unsupported` where that side is out of reach.
    fn open_listener(
        &mut self,
        side: Side,
        listen: impl FnOnce() -> io::Result<OwnedFd> + Send + 'static,
    ) -> io::Result<OwnedFd> {
        match side {
            Side::Host => listen(),
            Side::Namespace => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether loopback clients of a listener on this side are led across from socket to socket, without a packet, by
    /// [`Forwarder::splice_tcp`] and [`Forwarder::splice_udp`].
    fn shortcut(&self, side: Side) -> bool {
        let _ = side;
        false
    }

    /// Leads the connection of `client`, who came to `local` on `side`, to `port` on the other side.
    ///
    /// # Errors
    /// When there is no room for it. The socket is closed.
    fn splice_tcp(
        &mut self,
        side: Side,
        socket: OwnedFd,
        client: SocketAddr,
        local: SocketAddr,
        port: u16,
    ) -> Result<(), DropReason> {
        let _ = (side, socket, client, local, port);
        Err(DropReason::Forbidden)
    }

    /// The same for datagrams, whose `guest` has nothing but a port. Answers leave through `listener`.
    ///
    /// # Errors
    /// When there is no room for them. The datagrams are lost.
    fn splice_udp(
        &mut self,
        side: Side,
        listener: &Rc<OwnedFd>,
        datagrams: &Forwarded<'_>,
    ) -> Result<(), DropReason> {
        let _ = (side, listener, datagrams);
        Err(DropReason::Forbidden)
    }
}

impl Forwarder for Driver {
    fn watch(&mut self, fd: BorrowedFd<'_>, interest: Interest, token: u32) -> io::Result<()> {
        Self::watch(self, fd, interest, token)
    }

    fn modify(&mut self, fd: BorrowedFd<'_>, interest: Interest, token: u32) -> io::Result<()> {
        Self::modify(self, fd, interest, token)
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        Self::unwatch(self, fd);
    }

    fn family_on(&self, ipv6: bool) -> bool {
        self.peek_engine().config().plan.has(ipv6)
    }

    fn guest_address(&self, ipv6: bool) -> Option<IpAddr> {
        self.peek_engine().guest_address(ipv6)
    }

    fn guest_address_toward(&self, from: IpAddr) -> Option<IpAddr> {
        self.peek_engine().guest_address_toward(from)
    }

    fn accept_tcp(
        &mut self,
        socket: OwnedFd,
        client: SocketAddr,
        guest: SocketAddr,
    ) -> Result<(), DropReason> {
        Self::accept_tcp(self, socket, client, guest).map(drop)
    }

    fn accept_udp(&mut self, listener: &Rc<OwnedFd>, datagrams: &Forwarded<'_>) -> Result<(), DropReason> {
        Self::accept_udp(self, listener, datagrams).map(drop)
    }

    fn release_udp(&mut self, listener: &Rc<OwnedFd>) {
        Self::release_udp(self, listener);
    }

    fn connections(&self) -> Box<dyn Iterator<Item = Connection> + '_> {
        let flows = self.peek_engine().flows().map(Connection::Link);
        Box::new(flows.chain(self.conversations().map(Connection::Shortcut)))
    }

    fn open_listener(
        &mut self,
        side: Side,
        listen: impl FnOnce() -> io::Result<OwnedFd> + Send + 'static,
    ) -> io::Result<OwnedFd> {
        match (side, self.inside()) {
            (Side::Host, _) => listen(),
            (Side::Namespace, Some(inside)) => inside.ask(listen)?,
            (Side::Namespace, None) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn shortcut(&self, side: Side) -> bool {
        self.has_shortcut(side)
    }

    fn splice_tcp(
        &mut self,
        side: Side,
        socket: OwnedFd,
        client: SocketAddr,
        local: SocketAddr,
        port: u16,
    ) -> Result<(), DropReason> {
        Self::splice_tcp(self, side, socket, client, local, port)
    }

    fn splice_udp(
        &mut self,
        side: Side,
        listener: &Rc<OwnedFd>,
        datagrams: &Forwarded<'_>,
    ) -> Result<(), DropReason> {
        Self::splice_udp(self, side, listener, datagrams)
    }
}
