//! Stage 5 on the host's side: the real sockets of flows.
//!
//! [`Sockets`] is a table from flow to socket, at the place that the flow's id names; a call with the id of an earlier
//! tenant finds nothing. Each socket is in the epoll set once, edge-triggered, from its opening to its closing, so that
//! a flow costs no system call for being waited for. A descriptor and a few words are all that is kept for each: the
//! buffers are the kernel's.
//!
//! [`Sockets::decode`] turns what epoll says into the engine's events; it alone asks a socket for its error, and only
//! if epoll told of one.
//!
//! A connection is closed by [`Upstream::close`] alone. Those that are left when the table goes, at whatever end of the
//! program that can still run code, are reset.
//!
//! When the host runs out of descriptors, opening says so ([`Errno::Exhausted`]) and nothing else changes; nothing is
//! retried here.

mod ahead;
mod allowance;
pub mod batch;
mod errors;
mod fragmentation;
mod ping;
mod source;
mod tcp;
mod udp;
mod within;

pub use errors::errno;
pub(crate) use errors::fuzz;
pub(crate) use source::bind as bind_source;
pub use tcp::{Peeking, Ways};
pub(crate) use udp::UdpSocket;
pub use within::Stream;

use crate::clock;
use crate::epoll::EventSet;
use crate::token::Token;
use ahead::Ahead;
use allowance::Allowance;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use ping::PingSocket;
use slipway_netstack::upstream::{
    DatagramError, Empty, Errno, Event, Meta, Peek, Received, Sent, ServiceId, Source, Upstream,
};
use slipway_netstack::{FlowId, Instant};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;
use tcp::TcpSocket;

/// The sockets of all flows, and the epoll set that they are in.
#[derive(Debug)]
pub struct Sockets {
    events: EventSet,
    places: Vec<Place>,
    ways: Ways,
    /// What was read ahead of sockets that cannot be peeked at from an offset.
    ahead: Ahead,
    receiver: batch::Receiver,
    /// Flows that send through a socket of somebody else's, by its number: it is open as long as they are here.
    sharing: BTreeSet<(RawFd, FlowId)>,
    /// Which of the flows that lead to the resolver have news.
    bell: within::Bell,
    /// Their streams that nobody has taken yet.
    fresh: VecDeque<(FlowId, Stream)>,
    /// Far ends of flows that lead to services, which nobody has taken yet either.
    clients: VecDeque<ServiceClient>,
    /// Datagrams received since the last [`Sockets::take_datagrams`].
    datagrams: usize,
    /// Time for connect().
    connecting: Allowance,
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    socket: Option<Socket>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpSocket),
    Udp(UdpSocket),
    Ping(PingSocket),
    Within(within::Shared),
}

// 8000 connections are to cost less than 1 KiB each, all told.
const _: () = assert!(size_of::<Place>() <= 48);

impl Socket {
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(socket) => Some(socket.as_fd()),
            Self::Udp(socket) => Some(socket.as_fd()),
            Self::Ping(socket) => Some(socket.as_fd()),
            Self::Within(_) => None,
        }
    }

    /// The address of ours that its peers see.
    fn speaks_from(&self) -> Option<IpAddr> {
        match self {
            Self::Udp(socket) => socket.speaks_from(),
            _ => self.as_fd().and_then(source::of),
        }
    }
}

/// A connection to a service: which one, its flow, and the far end.
pub type ServiceClient = (ServiceId, FlowId, OwnedFd);

/// Connections to the DNS address, and to services, that nobody has taken yet: twice what the engine lets be. They are
/// taken after every round of the event loop.
const MAX_FRESH: usize = 128;

/// Sets on a listening TCP socket what the connections that are accepted from it are to have: once, instead of on each.
pub fn prepare_listener(listener: BorrowedFd<'_>) {
    tcp::prepare(listener);
}

/// Sets on a UDP socket of one flow what such sockets have.
///
/// # Errors
/// The kernel's.
pub(crate) fn prepare_datagrams(fd: BorrowedFd<'_>, ipv6: bool) -> Result<(), nix::errno::Errno> {
    udp::prepare(fd, ipv6)
}

/// Two streams that are each other's far end.
///
/// # Errors
/// The kernel's: out of descriptors or memory.
pub fn local_pair() -> Result<(OwnedFd, OwnedFd), nix::errno::Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::Stream, None, flags)
}

impl Sockets {
    /// No sockets yet.
    ///
    /// # Errors
    /// The kernel's: out of descriptors or memory.
    pub fn new() -> io::Result<Self> {
        Self::with_peeking(Ways::probe())
    }

    /// No sockets yet, peeking in the given ways.
    ///
    /// # Errors
    /// The kernel's: out of descriptors or memory.
    pub fn with_peeking(ways: Ways) -> io::Result<Self> {
        Ok(Self {
            events: EventSet::new()?,
            places: Vec::new(),
            ways,
            ahead: Ahead::default(),
            receiver: batch::Receiver::default(),
            sharing: BTreeSet::new(),
            bell: within::Bell::default(),
            fresh: VecDeque::new(),
            clients: VecDeque::new(),
            datagrams: 0,
            connecting: Allowance::default(),
        })
    }

    /// The epoll set.
    #[must_use]
    pub fn events(&self) -> &EventSet {
        &self.events
    }

    /// What `flags`, told by epoll about the socket of `flow`, mean to the engine.
    pub fn decode(&mut self, flow: FlowId, flags: EpollFlags) -> impl Iterator<Item = Event> + use<> {
        let events = match self.get(flow) {
            Some(Socket::Tcp(socket)) => socket.decode(flags),
            Some(Socket::Udp(socket)) => socket.decode(flags),
            Some(Socket::Ping(_)) => PingSocket::decode(flags),
            Some(Socket::Within(_)) | None => [None; 3],
        };
        events.into_iter().flatten()
    }

    /// Closes an accepted connection with a reset: as if nobody had listened.
    pub fn refuse(socket: OwnedFd) {
        tcp::reset(socket);
    }

    /// Makes an accepted connection the socket of `flow`. Its listener was prepared by [`prepare_listener`].
    ///
    /// # Errors
    /// The kernel's: out of watches or memory. The socket is then closed.
    pub fn attach_tcp(&mut self, flow: FlowId, socket: OwnedFd) -> io::Result<()> {
        let socket = TcpSocket::attach(socket, self.ways);
        self.events.add(socket.as_fd(), Token::Flow(flow), tcp::INTEREST)?;
        self.put(flow, Socket::Tcp(socket));
        Ok(())
    }

    /// Makes a stream of AF_UNIX the far end of `flow`.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory. The socket is then closed.
    pub fn attach_local(&mut self, flow: FlowId, socket: OwnedFd) -> io::Result<()> {
        let socket = TcpSocket::local(socket, false);
        self.events.add(socket.as_fd(), Token::Flow(flow), tcp::INTEREST)?;
        self.put(flow, Socket::Tcp(socket));
        Ok(())
    }

    /// The next connection to a service that nobody has taken yet. Its flow may be gone already.
    pub fn take_service_client(&mut self) -> Option<ServiceClient> {
        self.clients.pop_front()
    }

    /// Whether there is one.
    pub fn has_service_clients(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Lets `flow` send through a socket that it shares with others, from the address `at` unless that is unspecified.
    /// Its owner alone reads from it and watches it.
    pub fn attach_udp_shared(&mut self, flow: FlowId, socket: Rc<OwnedFd>, at: SocketAddr) {
        self.sharing.insert((socket.as_raw_fd(), flow));
        self.put(flow, Socket::Udp(UdpSocket::shared(socket, at)));
    }

    /// The flows that send through this socket of somebody else's.
    #[must_use]
    pub fn sharing(&self, shared: &Rc<OwnedFd>) -> Vec<FlowId> {
        let fd = shared.as_raw_fd();
        let (first, last) = (FlowId::from_bits(0), FlowId::new(u32::MAX, u32::MAX));
        self.sharing.range((fd, first)..=(fd, last)).map(|(_, flow)| *flow).collect()
    }

    /// The flows whose sockets have one of these addresses at the host's end.
    #[must_use]
    pub fn speaking_from(&self, addresses: &BTreeSet<IpAddr>) -> Vec<FlowId> {
        let speaks = |place: &Place| {
            let local = place.socket.as_ref().and_then(Socket::speaks_from);
            local.is_some_and(|local| addresses.contains(&local))
        };
        let places = (0..).zip(&self.places).filter(|(_, place)| speaks(place));
        places.map(|(index, place)| FlowId::new(index, place.generation)).collect()
    }

    /// The next connection to the DNS address that nobody has taken yet.
    pub fn take_stream(&mut self) -> Option<(FlowId, Stream)> {
        self.fresh.pop_front()
    }

    /// A flow that leads to the resolver, of which the resolver has something to hear: see [`Stream::heard`]. It may be
    /// gone already.
    pub fn news_for_resolver(&mut self) -> Option<FlowId> {
        self.bell.next_for_resolver()
    }

    /// What has happened at the other ends of the flows that lead to the resolver.
    #[must_use]
    pub fn news_from_within(&mut self) -> Vec<(FlowId, Event)> {
        let mut news = Vec::new();
        while let Some(flow) = self.bell.next_for_engine() {
            if let Some(Socket::Within(shared)) = self.get(flow) {
                news.extend(shared.take_events().map(|event| (flow, event)));
            }
        }
        news
    }

    /// How many sockets there are. Counts them one by one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.places.iter().filter(|place| place.socket.is_some()).count()
    }

    /// A round of the event loop begins.
    pub fn begin_round(&mut self, now: Instant) {
        self.connecting.begin_round(now);
    }

    /// A look has found nothing to do for anybody.
    pub fn rest(&mut self) {
        self.connecting.begin_anew();
    }

    /// How many datagrams flows have received since this was asked last.
    pub fn take_datagrams(&mut self) -> usize {
        std::mem::take(&mut self.datagrams)
    }

    fn get(&mut self, flow: FlowId) -> Option<&mut Socket> {
        let place = self.places.get_mut(flow.index())?;
        if place.generation == flow.generation() { place.socket.as_mut() } else { None }
    }

    /// Adds a new socket to the epoll set and the table.
    fn open(&mut self, flow: FlowId, socket: Socket, interest: EpollFlags) -> Result<(), Errno> {
        if let Some(fd) = socket.as_fd() {
            self.events.add(fd, Token::Flow(flow), interest).map_err(|_| Errno::Exhausted)?;
        }
        self.put(flow, socket);
        Ok(())
    }

    fn put(&mut self, flow: FlowId, socket: Socket) {
        let index = flow.index();
        if index >= self.places.len() {
            self.places.resize_with(index + 1, Place::default);
        }
        if let Some(place) = self.places.get_mut(index) {
            *place = Place { generation: flow.generation(), socket: Some(socket) };
        }
    }

    fn take(&mut self, flow: FlowId) -> Option<Socket> {
        let place = self.places.get_mut(flow.index())?;
        let socket = if place.generation == flow.generation() { place.socket.take() } else { None };
        match &socket {
            Some(Socket::Tcp(_)) => self.ahead.forget(flow),
            Some(Socket::Within(shared)) => shared.close(),
            Some(Socket::Udp(shared)) if shared.is_shared() => {
                self.sharing.remove(&(shared.as_fd().as_raw_fd(), flow));
            }
            _ => {}
        }
        socket
    }
}

impl Drop for Sockets {
    /// A connection that is still here was not closed: it is incomplete, and its peer is told so by a reset.
    fn drop(&mut self) {
        for place in self.places.drain(..) {
            if let Some(Socket::Tcp(socket)) = place.socket {
                socket.reset();
            }
        }
    }
}

impl Upstream for Sockets {
    fn may_connect(&mut self) -> bool {
        self.connecting.is_left()
    }

    fn tcp_connect(&mut self, flow: FlowId, to: SocketAddr, from: Source, class: u8) -> Result<(), Errno> {
        let began = clock::now();
        let connected = TcpSocket::connect(to, from, class, self.ways);
        self.connecting.spend(clock::now() - began);
        match &connected {
            Ok(_) => log::trace!("{flow:?}: TCP from the guest to {to}"),
            Err(errno) => log::debug!("TCP from the guest to {to} is refused: {errno:?}"),
        }
        self.open(flow, Socket::Tcp(connected?), tcp::INTEREST)
    }

    fn tcp_connect_dns(&mut self, flow: FlowId) -> Result<(), Errno> {
        if self.fresh.len() >= MAX_FRESH {
            self.fresh.retain(|(_, stream)| !stream.is_gone());
        }
        if self.fresh.len() >= MAX_FRESH {
            return Err(Errno::Exhausted);
        }
        let (shared, stream) = self.bell.stream(flow);
        self.put(flow, Socket::Within(shared));
        self.fresh.push_back((flow, stream));
        Ok(())
    }

    fn tcp_connect_service(&mut self, flow: FlowId, service: ServiceId) -> Result<(), Errno> {
        if self.clients.len() >= MAX_FRESH {
            return Err(Errno::Exhausted);
        }
        let (ours, theirs) = local_pair().map_err(errno)?;
        self.open(flow, Socket::Tcp(TcpSocket::local(ours, true)), tcp::INTEREST)?;
        self.clients.push_back((service, flow, theirs));
        Ok(())
    }

    fn tcp_send(&mut self, flow: FlowId, pieces: &[&[u8]]) -> Sent {
        match self.get(flow) {
            Some(Socket::Tcp(socket)) => socket.send(pieces),
            Some(Socket::Within(shared)) => shared.send(pieces),
            _ => Sent::Failed(Errno::BadSocket),
        }
    }

    fn tcp_send_urgent(&mut self, flow: FlowId, byte: u8) -> Sent {
        match self.get(flow) {
            Some(Socket::Tcp(socket)) => socket.send_urgent(byte),
            // A resolver has no use for urgency.
            Some(Socket::Within(shared)) => shared.send(&[&[byte]]),
            _ => Sent::Failed(Errno::BadSocket),
        }
    }

    fn tcp_urgent(&mut self, flow: FlowId) -> Option<usize> {
        match self.get(flow) {
            Some(Socket::Tcp(socket)) => socket.urgent(),
            _ => None,
        }
    }

    fn tcp_peek(&mut self, flow: FlowId, offset: usize, into: &mut [u8]) -> Peek {
        let place = self.places.get_mut(flow.index()).filter(|place| place.generation == flow.generation());
        match place.and_then(|place| place.socket.as_mut()) {
            Some(Socket::Tcp(socket)) => socket.peek(flow, &mut self.ahead, offset, into),
            Some(Socket::Within(shared)) => shared.peek(offset, into),
            _ => Peek::Failed(Errno::BadSocket),
        }
    }

    fn tcp_consume(&mut self, flow: FlowId, count: usize) {
        let Some(place) =
            self.places.get_mut(flow.index()).filter(|place| place.generation == flow.generation())
        else {
            return;
        };
        let socket = match &mut place.socket {
            Some(Socket::Tcp(socket)) => socket,
            Some(Socket::Within(shared)) => return shared.consume(count),
            _ => return,
        };
        socket.consume(flow, &mut self.ahead, count);
        if socket.wants_news() {
            // Setting the same interest again makes epoll look again. It can fail only for want of memory.
            let _ = self.events.modify(socket.as_fd(), Token::Flow(flow), tcp::INTEREST);
        }
    }

    fn tcp_class(&mut self, flow: FlowId, class: u8) {
        if let Some(Socket::Tcp(socket)) = self.get(flow) {
            socket.set_class(class);
        }
    }

    fn tcp_shutdown(&mut self, flow: FlowId) {
        match self.get(flow) {
            Some(Socket::Tcp(socket)) => socket.shutdown(),
            Some(Socket::Within(shared)) => shared.shutdown(),
            _ => {}
        }
    }

    fn tcp_keepalive(&mut self, flow: FlowId, idle: Duration, interval: Duration) {
        // The resolver is here, and needs no asking.
        if let Some(Socket::Tcp(socket)) = self.get(flow) {
            socket.keepalive(idle, interval);
        }
    }

    fn tcp_reset(&mut self, flow: FlowId) {
        if let Some(Socket::Tcp(socket)) = self.take(flow) {
            log::trace!("{flow:?}: ends with a reset");
            socket.reset();
        }
    }

    fn udp_open(&mut self, flow: FlowId, like: IpAddr, from: Source) -> Result<(), Errno> {
        let socket = UdpSocket::open(like, from)
            .inspect_err(|errno| log::debug!("UDP from the guest, for {like}, is refused: {errno:?}"))?;
        log::trace!("{flow:?}: UDP from the guest, first for {like}");
        self.open(flow, Socket::Udp(socket), udp::INTEREST)
    }

    fn udp_send(
        &mut self,
        flow: FlowId,
        to: SocketAddr,
        payload: &[u8],
        segment: usize,
        meta: Meta,
    ) -> Result<(), Errno> {
        match self.get(flow) {
            Some(Socket::Udp(socket)) => socket.send(to, payload, segment, meta),
            _ => Err(Errno::BadSocket),
        }
    }

    fn udp_receive(&mut self, flow: FlowId, into: &mut [u8]) -> Result<Received, Empty> {
        let place = self.places.get_mut(flow.index()).ok_or(Empty)?;
        match &mut place.socket {
            Some(Socket::Udp(socket)) if place.generation == flow.generation() => {
                let received = socket.receive(&mut self.receiver, into)?;
                self.datagrams += received.len.div_ceil(received.segment.max(1)).max(1);
                Ok(received)
            }
            _ => Err(Empty),
        }
    }

    fn take_error(&mut self, flow: FlowId) -> Result<DatagramError, Empty> {
        match self.get(flow) {
            Some(Socket::Udp(socket)) => socket.take_error(),
            Some(Socket::Ping(socket)) => socket.take_error(),
            _ => Err(Empty),
        }
    }

    fn ping_open(&mut self, flow: FlowId, like: IpAddr, from: Source) -> Result<(), Errno> {
        let socket = PingSocket::open(like, from)
            .inspect_err(|errno| log::debug!("an echo request to {like} is refused: {errno:?}"))?;
        log::trace!("{flow:?}: echo requests from the guest to {like}");
        self.open(flow, Socket::Ping(socket), udp::INTEREST)
    }

    fn ping_send(
        &mut self,
        flow: FlowId,
        to: IpAddr,
        sequence: u16,
        data: &[u8],
        meta: Meta,
    ) -> Result<(), Errno> {
        match self.get(flow) {
            Some(Socket::Ping(socket)) => socket.send(to, sequence, data, meta),
            _ => Err(Errno::BadSocket),
        }
    }

    fn ping_receive(&mut self, flow: FlowId, into: &mut [u8]) -> Result<(u16, Received), Empty> {
        match self.get(flow) {
            Some(Socket::Ping(socket)) => socket.receive(into),
            _ => Err(Empty),
        }
    }

    fn close(&mut self, flow: FlowId) {
        log::trace!("{flow:?}: ends");
        if let Some(fd) = self.take(flow).as_ref().and_then(Socket::as_fd) {
            self.receiver.forget(fd);
        }
    }
}
