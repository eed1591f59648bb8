//! Stage 5 of the data path: what the engine asks of host sockets, as one trait and plain data.
//!
//! The engine owns no descriptor. It names a socket by the [`FlowId`] it belongs to; whoever implements
//! [`Upstream`] keeps the table from id to descriptor (the `host` crate: real sockets; the simulator: queues).
//! Calls never block. News travels the other way as [`Event`]s, edge-triggered: readiness is told once when it
//! comes about, and the engine keeps in mind that a socket was readable until a call on it says [`Empty`].
//!
//! Ids may be stale in both directions: an event for a flow that has ended is ignored by the engine, a call for
//! a socket that was closed answers [`Errno::BadSocket`].

use crate::flow::FlowId;
use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU32;
use core::time::Duration;

/// Why the host would not do it; the few that the engine treats differently, and all the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Errno {
    /// ECONNREFUSED: the other host answered with RST, or ICMP port unreachable.
    Refused,
    /// ECONNRESET or EPIPE: the connection was there and is gone.
    Reset,
    /// ETIMEDOUT.
    TimedOut,
    /// EHOSTUNREACH, EHOSTDOWN.
    HostUnreachable,
    /// ENETUNREACH, ENETDOWN, EAFNOSUPPORT, EADDRNOTAVAIL of an address: no way there from this host.
    NetUnreachable,
    /// EADDRNOTAVAIL of connect(): the host has no port left for a connection to there. Nobody out there has said
    /// anything.
    NoPort,
    /// EACCES, EPERM: a local firewall or policy says no.
    Prohibited,
    /// EMSGSIZE: the datagram is larger than the path takes. The MTU is told where the kernel knows it.
    TooBig {
        /// Path MTU in bytes, 0 if unknown.
        mtu: u16,
    },
    /// EMFILE, ENFILE, ENOBUFS, ENOMEM: the host has run out of something.
    Exhausted,
    /// The id names no open socket.
    BadSocket,
    /// Anything else.
    Other,
}

/// There is nothing to read, or no room to write, until the next event for this flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Empty;

/// What peeking into a TCP socket's receive queue found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peek {
    /// This many bytes (at least 1) were copied.
    Data(usize),
    /// Nothing at this offset yet.
    Empty,
    /// The peer has closed its half, and no byte lies at or behind this offset.
    End,
    /// The connection is dead.
    Failed(Errno),
}

/// What became of bytes offered to a TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took this many, perhaps fewer than offered, perhaps none. If fewer, [`Event::Writable`] follows
    /// when there is room again.
    Taken(usize),
    /// The connection is dead.
    Failed(Errno),
}

/// Header fields that travel with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// IPv4 time to live or IPv6 hop limit.
    pub hops: u8,
    /// IPv4 type of service or IPv6 traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// To be sent only: nobody on the way is to fragment it. Whoever finds it too large says so, with the size that
    /// fits.
    pub dont_fragment: bool,
}

impl Default for Meta {
    fn default() -> Self {
        Self { hops: 64, traffic_class: 0, dont_fragment: false }
    }
}

/// A client of a forwarded UDP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its real address: the guest may see another.
    pub address: SocketAddr,
    /// Which of the host's own addresses and ports it sent to, and hears answers from. A client that talks to two
    /// forwarded ports has two conversations, even if both lead to the same port of the guest.
    pub at: SocketAddr,
}

/// What a forwarded UDP port received in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// Who sent it, and where to.
    pub client: Client,
    /// Where the port leads.
    pub guest: SocketAddr,
    /// One datagram, or a train of them.
    pub payload: &'a [u8],
    /// Bytes of each datagram of a train; only the last may be shorter.
    pub segment: usize,
    /// Header fields, as far as the kernel told them.
    pub meta: Meta,
}

/// Datagrams that a UDP or ping socket delivered into the caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the buffer.
    pub len: usize,
    /// The bytes are a train of datagrams of this many bytes each, only the last may be shorter.
    /// Equal to `len` for a single one. Never 0 unless `len` is 0 (an empty datagram).
    pub segment: usize,
    /// Who sent them. For IPv6 the scope id is dropped.
    pub from: SocketAddr,
    /// Header fields, as far as the kernel told them.
    pub meta: Meta,
}

/// What an error queue reported about a datagram sent earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramError {
    /// Where the datagram was going.
    pub to: SocketAddr,
    /// What became of it.
    pub error: Errno,
    /// The host or router that complained, if it was not this host.
    pub reporter: Option<IpAddr>,
    /// ICMP or ICMPv6 type and code as received, if the complaint was an ICMP message.
    pub icmp: Option<(u8, u8)>,
    /// Of a ping socket: the sequence number of the request that it is about, if that came back.
    pub sequence: Option<u16>,
}

/// News from a host socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A TCP connect succeeded.
    Connected,
    /// A TCP connect failed, or the established connection broke.
    Failed(Errno),
    /// There is something to read, or the peer has closed its half.
    Readable,
    /// The same, and the peer has marked some of it as urgent: [`Upstream::tcp_urgent`] tells where.
    Urgent,
    /// A TCP socket that had taken less than offered has room again.
    Writable,
    /// A UDP or ping socket has something in its error queue.
    Error,
}

/// An interface of the host's, by its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceId(pub NonZeroU32);

/// A service that this process plays on a port of ours: whoever drives the engine knows which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u16);

/// Where a socket of the host's speaks from. What is left out is the kernel's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Source {
    /// The local address.
    pub address: Option<IpAddr>,
    /// The port it would like to have, of an echo socket the identifier; 0: any. A wish: if that port is taken or not
    /// for us, it gets another.
    pub port: u16,
    /// The interface that everything leaves and arrives by, whatever the host's routes say. Link-local addresses are
    /// those on its link, and groups (multicast) are those there.
    pub device: Option<DeviceId>,
    /// The interface whose link has those addresses and groups, if `device` is left out. Everything else goes by the
    /// host's routes.
    pub zone: Option<DeviceId>,
    /// Whether datagrams may go to everybody on one of the host's networks (broadcast).
    pub broadcast: bool,
}

impl From<Option<IpAddr>> for Source {
    fn from(address: Option<IpAddr>) -> Self {
        Self { address, ..Self::default() }
    }
}

/// The most pieces that are offered to a TCP socket at once.
pub const MAX_PIECES: usize = 64;

/// The host's sockets.
///
/// All methods are non-blocking. TCP sockets send at once what they are given (TCP_NODELAY): whether to
/// wait was the guest's decision.
pub trait Upstream {
    // ── TCP ────────────────────────────────────────────────────────────────────────────────────────────

    /// Whether the host has time for another connect() just now. If not, ask again in a while: at the latest with the
    /// next [`Engine::drain`](crate::Engine::drain).
    fn may_connect(&mut self) -> bool {
        true
    }

    /// Opens a TCP socket for `flow` and starts to connect it; `class` is the traffic class of its packets (DSCP; the
    /// ECN bits are the kernel's). [`Event::Connected`] or [`Event::Failed`] follows.
    ///
    /// # Errors
    /// When it fails on the spot. The flow then has no socket.
    fn tcp_connect(&mut self, flow: FlowId, to: SocketAddr, from: Source, class: u8) -> Result<(), Errno>;

    /// The same for a connection to the DNS address: it leads to whoever resolves names for the guest, in the place of
    /// a socket.
    ///
    /// # Errors
    /// When it fails on the spot. The flow then leads nowhere.
    fn tcp_connect_dns(&mut self, flow: FlowId) -> Result<(), Errno>;

    /// The same for a connection to a service of this process. Whoever has none refuses.
    ///
    /// # Errors
    /// When it fails on the spot. The flow then leads nowhere.
    fn tcp_connect_service(&mut self, flow: FlowId, service: ServiceId) -> Result<(), Errno> {
        let _ = (flow, service);
        Err(Errno::Refused)
    }

    /// Offers the bytes of `pieces`, at most [`MAX_PIECES`], one behind the other.
    fn tcp_send(&mut self, flow: FlowId, pieces: &[&[u8]]) -> Sent;

    /// Offers one byte that the peer is to be told of out of band (RFC 9293 §3.8.5).
    fn tcp_send_urgent(&mut self, flow: FlowId, byte: u8) -> Sent;

    /// How many bytes behind the first one not yet consumed the last urgent byte lies, if one is in the receive queue.
    /// It is peeked and consumed like any other.
    fn tcp_urgent(&mut self, flow: FlowId) -> Option<usize>;

    /// Copies received bytes into `into`, from `offset` bytes behind the first one not yet consumed,
    /// without consuming them.
    fn tcp_peek(&mut self, flow: FlowId, offset: usize, into: &mut [u8]) -> Peek;

    /// Removes the first `count` bytes from the receive queue; they were all peeked before.
    fn tcp_consume(&mut self, flow: FlowId, count: usize);

    /// The traffic class of the packets that follow is another one.
    fn tcp_class(&mut self, flow: FlowId, class: u8);

    /// Closes our half: the peer reads end-of-file behind the last byte taken.
    fn tcp_shutdown(&mut self, flow: FlowId);

    /// Probes the peer when nothing has come for `idle`, and every `interval` until it answers; whole seconds, 1 at
    /// least. A peer that never does ends the connection: [`Event::Failed`].
    fn tcp_keepalive(&mut self, flow: FlowId, idle: Duration, interval: Duration);

    /// Aborts the connection with RST and closes the socket.
    fn tcp_reset(&mut self, flow: FlowId);

    // ── UDP ────────────────────────────────────────────────────────────────────────────────────────────

    /// Opens an unconnected UDP socket of the family of `like` for `flow`. It receives from anyone; its error queue is
    /// on.
    ///
    /// # Errors
    /// When the host refuses. The flow then has no socket.
    fn udp_open(&mut self, flow: FlowId, like: IpAddr, from: Source) -> Result<(), Errno>;

    /// Sends `payload` to `to`: one datagram, or, when `segment` is shorter than it, a train of datagrams of
    /// `segment` bytes each (the last may be shorter). `segment` is 0 only for an empty payload.
    ///
    /// # Errors
    /// When the host refuses; datagrams that it cannot take just now are lost, as on any network.
    fn udp_send(
        &mut self,
        flow: FlowId,
        to: SocketAddr,
        payload: &[u8],
        segment: usize,
        meta: Meta,
    ) -> Result<(), Errno>;

    /// Receives what is next into `into` (64 KiB at least).
    ///
    /// # Errors
    /// [`Empty`] until the next [`Event::Readable`].
    fn udp_receive(&mut self, flow: FlowId, into: &mut [u8]) -> Result<Received, Empty>;

    /// Takes one report from the error queue of a UDP or ping socket.
    ///
    /// # Errors
    /// [`Empty`] when there is none.
    fn take_error(&mut self, flow: FlowId) -> Result<DatagramError, Empty>;

    // ── echo ───────────────────────────────────────────────────────────────────────────────────────────

    /// Opens a ping socket (SOCK_DGRAM, IPPROTO_ICMP or ICMPV6) of the family of `like` for `flow`.
    ///
    /// # Errors
    /// [`Errno::Prohibited`] when `net.ipv4.ping_group_range` leaves this process out.
    fn ping_open(&mut self, flow: FlowId, like: IpAddr, from: Source) -> Result<(), Errno>;

    /// Sends an echo request with this sequence number and data; the kernel chooses the identifier.
    ///
    /// # Errors
    /// When the host refuses.
    fn ping_send(
        &mut self,
        flow: FlowId,
        to: IpAddr,
        sequence: u16,
        data: &[u8],
        meta: Meta,
    ) -> Result<(), Errno>;

    /// Receives an echo reply: `into` gets its data, the result tells its sequence number beside the rest.
    ///
    /// # Errors
    /// [`Empty`] until the next [`Event::Readable`].
    fn ping_receive(&mut self, flow: FlowId, into: &mut [u8]) -> Result<(u16, Received), Empty>;

    // ── all ────────────────────────────────────────────────────────────────────────────────────────────

    /// Closes the flow's socket in the ordinary way. Bytes already taken are still delivered by the kernel.
    fn close(&mut self, flow: FlowId);
}
