//! The host of the simulator: sockets as queues, the path behind them, and the servers at its end.
//!
//! [`Host`] implements the engine's [`Upstream`] trait the way a Linux kernel behaves, and **checks the contract**
//! while doing so: a call that the trait forbids is a panic that names the call. So every scenario is also a test of
//! how the engine uses sockets:
//!
//! * a flow opens at most one socket, and no call names a flow whose socket the engine itself closed;
//! * nothing is sent before [`Event::Connected`] or after a shutdown, and a connection is shut down once;
//! * only bytes that were peeked are consumed;
//! * trains of datagrams have segments that fit.
//!
//! Events are edge-triggered. In the strict mode, the default, readiness is told once and then not again until a call
//! said `Empty` (or took less than offered): an engine that forgets what it was told hangs. In the eager mode each
//! arrival is told, as Linux does, and now and then an event comes for a flow that has just ended.
//!
//! TCP: [`tcp`] models send buffer, path and receive buffer with their growth. UDP and echo: [`datagram`].

pub mod datagram;
pub mod tcp;

use crate::rng::Rng;
use core::cmp::Reverse;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use datagram::{DatagramSocket, EchoService, UdpService};
use slipway_netstack::upstream::{
    DatagramError, Empty, Errno, Event, Meta, Peek, Received, Sent, ServiceId, Source, Upstream,
};
use slipway_netstack::{FlowId, Instant};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use tcp::{Conn, Peer, Service};

/// How the host and the path behind it behave.
#[derive(Debug, Clone, Copy)]
pub struct HostConfig {
    /// One way to any server.
    pub delay: Duration,
    /// Bytes per second of each connection's path; `None`: without end.
    pub bandwidth: Option<u64>,
    /// A TCP socket's send buffer.
    pub send_buffer: Buffer,
    /// A TCP socket's receive buffer.
    pub receive_buffer: Buffer,
    /// The server's receive buffer.
    pub peer_buffer: usize,
    /// Tell each arrival, and now and then a stale event.
    pub eager: bool,
    /// Datagrams of one size from one sender are received as a train.
    pub gro: bool,
    /// Calls to connect() for which there is time in a round; `None`: any number.
    pub connects: Option<usize>,
}

/// A buffer that grows with use, as the kernel's do.
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    /// Bytes at first.
    pub initial: usize,
    /// Bytes at most.
    pub max: usize,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            bandwidth: None,
            // net.ipv4.tcp_wmem and tcp_rmem as shipped.
            send_buffer: Buffer { initial: 16 << 10, max: 4 << 20 },
            receive_buffer: Buffer { initial: 128 << 10, max: 6 << 20 },
            peer_buffer: 4 << 20,
            eager: false,
            gro: true,
            connects: None,
        }
    }
}

/// A call that opened a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// For whom.
    pub flow: FlowId,
    /// TCP: where to. Others: any endpoint of the family.
    pub to: SocketAddr,
    /// Local address asked for.
    pub from: Source,
}

/// A datagram or echo request that left the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// By whose socket.
    pub flow: FlowId,
    /// Where to; the port is the sequence number for an echo request.
    pub to: SocketAddr,
    /// Data.
    pub payload: Vec<u8>,
    /// Header fields.
    pub meta: Meta,
}

#[derive(Debug)]
enum Socket {
    Tcp(usize),
    Datagram(DatagramSocket),
}

/// Sockets, path and servers.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    now: Instant,
    rng: Rng,
    services: BTreeMap<SocketAddr, Service>,
    otherwise: Service,
    udp_services: BTreeMap<SocketAddr, UdpService>,
    udp_otherwise: UdpService,
    echo_services: BTreeMap<IpAddr, EchoService>,
    echo_otherwise: EchoService,
    refuse_next: Option<Errno>,
    connects_left: usize,
    sockets: BTreeMap<FlowId, Socket>,
    closed: BTreeSet<FlowId>,
    conns: Vec<Conn>,
    wakes: BinaryHeap<Reverse<(Instant, Wake)>>,
    events: VecDeque<(FlowId, Event)>,
    opened: Vec<Opened>,
    datagrams: Vec<Datagram>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Conn(usize),
    Datagram(FlowId),
}

/// Stands for whoever resolves names for the guest: the service that connections to the DNS address meet.
pub const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 53);

/// Stands for a service of the engine's own process.
#[must_use]
pub const fn within(service: ServiceId) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), service.0)
}

/// The last so many are remembered in the records of opened sockets and datagrams.
const RECORD: usize = 4096;

impl Host {
    /// A host with no services: connections are refused, datagrams and echo requests are lost.
    #[must_use]
    pub const fn new(config: HostConfig, seed: u64) -> Self {
        Self {
            config,
            now: Instant::ZERO,
            rng: Rng::new(seed),
            services: BTreeMap::new(),
            otherwise: Service::Fail(Errno::Refused),
            udp_services: BTreeMap::new(),
            udp_otherwise: UdpService::Lose,
            echo_services: BTreeMap::new(),
            echo_otherwise: EchoService::Lose,
            refuse_next: None,
            connects_left: 0,
            sockets: BTreeMap::new(),
            closed: BTreeSet::new(),
            conns: Vec::new(),
            wakes: BinaryHeap::new(),
            events: VecDeque::new(),
            opened: Vec::new(),
            datagrams: Vec::new(),
        }
    }

    // ── what tests set up and look at ──────────────────────────────────────────────────────────────────

    /// Puts a TCP service on `at`.
    pub fn serve(&mut self, at: &str, service: Service) {
        self.services.insert(at.parse().expect("an endpoint"), service);
    }

    /// Puts a TCP service on all other endpoints.
    pub fn serve_otherwise(&mut self, service: Service) {
        self.otherwise = service;
    }

    /// Puts a UDP service on `at`.
    pub fn serve_udp(&mut self, at: &str, service: UdpService) {
        self.udp_services.insert(at.parse().expect("an endpoint"), service);
    }

    /// Puts a UDP service on all other endpoints.
    pub fn serve_udp_otherwise(&mut self, service: UdpService) {
        self.udp_otherwise = service;
    }

    /// Decides what happens to echo requests to `at`.
    pub fn serve_echo(&mut self, at: &str, service: EchoService) {
        self.echo_services.insert(at.parse().expect("an address"), service);
    }

    /// Decides what happens to all other echo requests.
    pub fn serve_echo_otherwise(&mut self, service: EchoService) {
        self.echo_otherwise = service;
    }

    /// The next socket to be opened fails on the spot.
    pub const fn refuse_next(&mut self, errno: Errno) {
        self.refuse_next = Some(errno);
    }

    /// The servers' ends of all TCP connections so far, in the order in which they were opened.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.conns.iter().map(|conn| &conn.peer)
    }

    /// The server's end of TCP connection number `n`.
    #[must_use]
    pub fn peer(&self, n: usize) -> &Peer {
        &self.conns[n].peer
    }

    /// Lets the server of connection `n` send bytes (and close its half).
    pub fn peer_send(&mut self, n: usize, data: &[u8], finish: bool) {
        self.conns[n].peer_send(data, finish);
        self.wake_conn(n, self.now);
    }

    /// Bytes of connection `n` that the socket still keeps for the engine: the guest has not acknowledged them.
    #[must_use]
    pub fn unacknowledged(&self, n: usize) -> usize {
        self.conns[n].unread()
    }

    /// Lets the server of connection `n` send bytes, the last of them urgent.
    pub fn peer_urge(&mut self, n: usize, data: &[u8]) {
        self.conns[n].peer_send(data, false);
        self.conns[n].peer_urges();
        self.wake_conn(n, self.now);
    }

    /// Lets the server of connection `n` reset it.
    pub fn peer_reset(&mut self, n: usize) {
        self.conns[n].peer_reset(self.now);
        self.wake_conn(n, self.now);
    }

    /// Lets the server of connection `n` read, or stop reading.
    pub fn peer_stall(&mut self, n: usize, stall: bool) {
        self.conns[n].stall(stall);
        self.wake_conn(n, self.now);
    }

    /// Breaks connection `n` as seen from its socket, as a keepalive of the host or a dead route does.
    pub fn break_connection(&mut self, n: usize, errno: Errno) {
        self.conns[n].fail(errno);
        self.wake_conn(n, self.now);
    }

    /// Which sockets were opened, oldest first.
    #[must_use]
    pub fn opened(&self) -> &[Opened] {
        &self.opened
    }

    /// The datagrams and echo requests that left the host since the last call.
    pub fn take_datagrams(&mut self) -> Vec<Datagram> {
        core::mem::take(&mut self.datagrams)
    }

    /// Puts a datagram from `from` into the socket of `flow`, unasked.
    pub fn inject_datagram(&mut self, flow: FlowId, from: SocketAddr, payload: &[u8], meta: Meta) {
        let (now, delay) = (self.now, self.config.delay);
        self.datagram(flow, "inject").arrive(now + delay, from, 0, payload.to_vec(), meta);
        self.wakes.push(Reverse((now + delay, Wake::Datagram(flow))));
    }

    /// Puts a report into the error queue of the socket of `flow`.
    pub fn inject_error(&mut self, flow: FlowId, error: DatagramError) {
        let now = self.now;
        self.datagram(flow, "inject").complain(now, error);
        self.wakes.push(Reverse((now, Wake::Datagram(flow))));
    }

    /// Sockets that the engine has opened and not closed.
    #[must_use]
    pub fn open_sockets(&self) -> usize {
        self.sockets.len()
    }

    /// The flows that have an open socket.
    pub fn flows(&self) -> impl Iterator<Item = FlowId> {
        self.sockets.keys().copied()
    }

    /// The flows that have an open UDP or ping socket.
    pub fn datagram_flows(&self) -> impl Iterator<Item = FlowId> {
        let datagram =
            |(flow, socket): (&FlowId, &Socket)| matches!(socket, Socket::Datagram(_)).then_some(*flow);
        self.sockets.iter().filter_map(datagram)
    }

    /// Whether an event can be sent to `flow`: it has a socket, or had one that the engine closed.
    #[must_use]
    pub fn knows(&self, flow: FlowId) -> bool {
        self.sockets.contains_key(&flow) || self.closed.contains(&flow)
    }

    // ── what the event loop calls ──────────────────────────────────────────────────────────────────────

    /// A connection that a listener accepted: its socket belongs to `flow` from now on, a client behaves like
    /// `service` says.
    ///
    /// # Panics
    /// When the flow has a socket already, or `service` does not talk.
    pub fn attach(&mut self, flow: FlowId, client: SocketAddr, service: Service) {
        let Service::Talk(script) = service else { panic!("an accepted connection talks") };
        self.closed.remove(&flow);
        let index = self.conns.len();
        self.conns.push(Conn::accepted(flow, client, script, &self.config, self.now));
        assert!(self.sockets.insert(flow, Socket::Tcp(index)).is_none(), "{flow:?} has a socket already");
        self.wake_conn(index, self.now);
    }

    /// A UDP socket of a forwarded port: `flow` answers through it.
    pub fn attach_udp(&mut self, flow: FlowId, like: IpAddr) {
        self.closed.remove(&flow);
        let socket = Socket::Datagram(DatagramSocket::new(like.is_ipv4(), false));
        assert!(self.sockets.insert(flow, socket).is_none(), "{flow:?} has a socket already");
    }

    /// Lets everything happen that is due at `now`.
    pub fn advance(&mut self, now: Instant) {
        self.now = now;
        self.connects_left = self.config.connects.unwrap_or(usize::MAX);
        while self.wakes.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((at, wake))) = self.wakes.pop() else { break };
            match wake {
                Wake::Conn(index) => {
                    let conn = &mut self.conns[index];
                    if !conn.is_woken_at(at) {
                        continue; // an earlier one came since
                    }
                    let next = conn.advance(now, &self.config, &mut self.events);
                    if let Some(at) = next {
                        self.wake_conn(index, at);
                    }
                }
                Wake::Datagram(flow) => {
                    if let Some(Socket::Datagram(socket)) = self.sockets.get_mut(&flow) {
                        socket.advance(now, flow, self.config.eager, &mut self.events);
                    }
                }
            }
        }
    }

    /// The next event for the engine. Events of flows that have ended since are left out, except now and then in the
    /// eager mode.
    pub fn next_event(&mut self) -> Option<(FlowId, Event)> {
        while let Some((flow, event)) = self.events.pop_front() {
            if self.sockets.contains_key(&flow) || (self.config.eager && self.rng.chance(500)) {
                return Some((flow, event));
            }
        }
        None
    }

    /// When [`Host::advance`] has something to do next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.events.is_empty() { self.wakes.peek().map(|Reverse((at, _))| *at) } else { Some(self.now) }
    }

    // ── inside ─────────────────────────────────────────────────────────────────────────────────────────

    /// Asks for a turn of connection `index` at `at`, unless an earlier one is asked for already.
    fn wake_conn(&mut self, index: usize, at: Instant) {
        if self.conns[index].wants_wake(at) {
            self.wakes.push(Reverse((at, Wake::Conn(index))));
        }
    }

    fn conn(&mut self, flow: FlowId, call: &str) -> usize {
        match self.sockets.get(&flow) {
            Some(Socket::Tcp(index)) => *index,
            Some(Socket::Datagram(_)) => panic!("{call} on the datagram socket of {flow:?}"),
            None => panic!("{call} on {flow:?}, which has no socket"),
        }
    }

    fn datagram(&mut self, flow: FlowId, call: &str) -> &mut DatagramSocket {
        match self.sockets.get_mut(&flow) {
            Some(Socket::Datagram(socket)) => socket,
            Some(Socket::Tcp(_)) => panic!("{call} on the TCP socket of {flow:?}"),
            None => panic!("{call} on {flow:?}, which has no socket"),
        }
    }

    fn open(&mut self, flow: FlowId, to: SocketAddr, from: Source) -> Result<(), Errno> {
        assert!(!self.sockets.contains_key(&flow), "{flow:?} opens a second socket");
        assert!(from.address.is_none_or(|from| from.is_ipv4() == to.is_ipv4()), "source of the other family");
        if let Some(errno) = self.refuse_next.take() {
            return Err(errno);
        }
        self.closed.remove(&flow);
        if self.opened.len() == RECORD {
            self.opened.remove(0);
        }
        self.opened.push(Opened { flow, to, from });
        Ok(())
    }

    fn gone(&mut self, flow: FlowId) {
        if self.closed.len() == RECORD {
            self.closed.pop_first();
        }
        self.closed.insert(flow);
        if self.config.eager {
            self.events.push_back((flow, Event::Readable));
        }
    }

    fn record(&mut self, flow: FlowId, to: SocketAddr, payload: &[u8], meta: Meta) {
        if self.datagrams.len() < RECORD {
            self.datagrams.push(Datagram { flow, to, payload: payload.to_vec(), meta });
        }
    }
}

impl Upstream for Host {
    fn may_connect(&mut self) -> bool {
        self.config.connects.is_none() || self.connects_left > 0
    }

    fn tcp_connect(&mut self, flow: FlowId, to: SocketAddr, from: Source, _: u8) -> Result<(), Errno> {
        if !to.ip().is_unspecified() {
            assert!(self.may_connect(), "{flow:?} connects although there is no time for it");
            self.connects_left = self.connects_left.saturating_sub(1);
        }
        self.open(flow, to, from)?;
        let service = self.services.get(&to).unwrap_or(&self.otherwise).clone();
        if let Service::FailAtOnce(errno) = service {
            return Err(errno);
        }
        let index = self.conns.len();
        self.conns.push(Conn::connecting(flow, to, service, &self.config, self.now));
        self.sockets.insert(flow, Socket::Tcp(index));
        self.wake_conn(index, self.now + self.config.delay * 2);
        Ok(())
    }

    fn tcp_connect_dns(&mut self, flow: FlowId) -> Result<(), Errno> {
        self.tcp_connect(flow, RESOLVER, Source::default(), 0)
    }

    fn tcp_connect_service(&mut self, flow: FlowId, service: ServiceId) -> Result<(), Errno> {
        self.tcp_connect(flow, within(service), Source::default(), 0)
    }

    fn tcp_send(&mut self, flow: FlowId, pieces: &[&[u8]]) -> Sent {
        let index = self.conn(flow, "tcp_send");
        let sent = self.conns[index].send(self.now, &self.config, pieces);
        self.wake_conn(index, self.now);
        sent
    }

    fn tcp_send_urgent(&mut self, flow: FlowId, byte: u8) -> Sent {
        let index = self.conn(flow, "tcp_send_urgent");
        let sent = self.conns[index].send_urgent(self.now, &self.config, byte);
        self.wake_conn(index, self.now);
        sent
    }

    fn tcp_urgent(&mut self, flow: FlowId) -> Option<usize> {
        let index = self.conn(flow, "tcp_urgent");
        self.conns[index].urgent()
    }

    fn tcp_peek(&mut self, flow: FlowId, offset: usize, into: &mut [u8]) -> Peek {
        let index = self.conn(flow, "tcp_peek");
        self.conns[index].peek(offset, into)
    }

    fn tcp_consume(&mut self, flow: FlowId, count: usize) {
        let index = self.conn(flow, "tcp_consume");
        self.conns[index].consume(self.now, &self.config, count);
        self.wake_conn(index, self.now);
    }

    fn tcp_class(&mut self, _: FlowId, _: u8) {}

    fn tcp_shutdown(&mut self, flow: FlowId) {
        let index = self.conn(flow, "tcp_shutdown");
        self.conns[index].shutdown(self.now, &self.config);
        self.wake_conn(index, self.now);
    }

    fn tcp_keepalive(&mut self, flow: FlowId, idle: Duration, interval: Duration) {
        self.conn(flow, "tcp_keepalive");
        let second = Duration::from_secs(1);
        assert!(idle >= second && interval >= second && idle.subsec_nanos() == 0, "{idle:?}, {interval:?}");
        assert!(
            idle.as_secs() <= 32_767 && interval <= idle,
            "more than the kernel takes: {idle:?}, {interval:?}"
        );
    }

    fn tcp_reset(&mut self, flow: FlowId) {
        let index = self.conn(flow, "tcp_reset");
        self.sockets.remove(&flow);
        self.gone(flow);
        self.conns[index].reset(self.now, &self.config);
        self.wake_conn(index, self.now);
    }

    fn udp_open(&mut self, flow: FlowId, like: IpAddr, from: Source) -> Result<(), Errno> {
        self.open(flow, slipway_netstack::addr::any_endpoint(like), from)?;
        self.sockets.insert(flow, Socket::Datagram(DatagramSocket::new(like.is_ipv4(), false)));
        Ok(())
    }

    fn udp_send(
        &mut self,
        flow: FlowId,
        to: SocketAddr,
        payload: &[u8],
        segment: usize,
        meta: Meta,
    ) -> Result<(), Errno> {
        assert_eq!(segment == 0, payload.is_empty(), "a segment of {segment} of {}", payload.len());
        let service = *self.udp_services.get(&to).unwrap_or(&self.udp_otherwise);
        let (at, socket) = (self.now + self.config.delay * 2, self.datagram(flow, "udp_send"));
        socket.check(to, false);
        if payload.is_empty() {
            service.answer(socket, at, to, payload);
        }
        for one in payload.chunks(segment.max(1)) {
            service.answer(socket, at, to, one);
        }
        self.wakes.push(Reverse((at, Wake::Datagram(flow))));
        if payload.is_empty() {
            self.record(flow, to, payload, meta);
        }
        for one in payload.chunks(segment.max(1)) {
            self.record(flow, to, one, meta);
        }
        Ok(())
    }

    fn udp_receive(&mut self, flow: FlowId, into: &mut [u8]) -> Result<Received, Empty> {
        let gro = self.config.gro;
        self.datagram(flow, "udp_receive").receive(into, gro).map(|(_, received)| received)
    }

    fn take_error(&mut self, flow: FlowId) -> Result<DatagramError, Empty> {
        self.datagram(flow, "take_error").take_error()
    }

    fn ping_open(&mut self, flow: FlowId, like: IpAddr, from: Source) -> Result<(), Errno> {
        self.open(flow, slipway_netstack::addr::any_endpoint(like), from)?;
        self.sockets.insert(flow, Socket::Datagram(DatagramSocket::new(like.is_ipv4(), true)));
        Ok(())
    }

    fn ping_send(
        &mut self,
        flow: FlowId,
        to: IpAddr,
        sequence: u16,
        data: &[u8],
        meta: Meta,
    ) -> Result<(), Errno> {
        let service = *self.echo_services.get(&to).unwrap_or(&self.echo_otherwise);
        let (at, socket) = (self.now + self.config.delay * 2, self.datagram(flow, "ping_send"));
        let to = SocketAddr::new(to, sequence);
        socket.check(to, true);
        service.answer(socket, at, to, data);
        self.wakes.push(Reverse((at, Wake::Datagram(flow))));
        self.record(flow, to, data, meta);
        Ok(())
    }

    fn ping_receive(&mut self, flow: FlowId, into: &mut [u8]) -> Result<(u16, Received), Empty> {
        self.datagram(flow, "ping_receive").receive(into, false)
    }

    fn close(&mut self, flow: FlowId) {
        match self.sockets.remove(&flow) {
            Some(Socket::Tcp(index)) => {
                self.conns[index].close(self.now, &self.config);
                self.wake_conn(index, self.now);
            }
            Some(Socket::Datagram(_)) => {}
            None => panic!("close on {flow:?}, which has no socket"),
        }
        self.gone(flow);
    }
}
