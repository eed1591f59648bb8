//! smoltcp as the guest: an independent TCP/IP stack, with tasks that keep its sockets busy.
//!
//! A [`Task`] sends a pattern, checks a pattern, or both, and closes when told; it needs no attention from the test.
//! smoltcp's limits are set in `.cargo/config.toml`. What it cannot do (it sends no SACK-based repairs, for
//! example) shows in the figures; they are compared with themselves over time.

use crate::pattern;
use crate::world::{GATEWAY4, GATEWAY6, GUEST_MAC, GUEST4, GUEST6, Guest, World, WorldConfig};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use slipway_netstack::Instant;
use slipway_netstack::device::Offload;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::{dhcpv4, tcp, udp};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// What a TCP socket of the guest is to do, and how far it has come.
#[derive(Debug, Clone, Default)]
pub struct Task {
    /// Sends so many bytes of the pattern `seed`.
    pub send: u64,
    /// Seed of what is sent.
    pub seed: u64,
    /// Closes its half when all is sent.
    pub finish: bool,
    /// Checks what is received against this pattern.
    pub expect: Option<u64>,
    /// Sends back what it receives, instead of a pattern.
    pub echo: bool,
    /// Does not read.
    pub stall: bool,
    /// Bytes given to the socket.
    pub sent: u64,
    /// Bytes read.
    pub received: u64,
    /// Where what was read was wrong first.
    pub mismatch: Option<u64>,
    /// End-of-file was read.
    pub finished: bool,
    /// The connection was established at some time.
    pub established: bool,
    /// When the last byte was read.
    pub last: Instant,
    /// Closed by us.
    closed: bool,
    pending: VecDeque<u8>,
}

impl Task {
    /// Sends `len` bytes of pattern `seed`, closes its half, and reads to the end.
    #[must_use]
    pub fn upload(len: u64, seed: u64) -> Self {
        Self { send: len, seed, finish: true, ..Self::default() }
    }

    /// Reads the pattern `seed` to its end and closes.
    #[must_use]
    pub fn download(seed: u64) -> Self {
        Self { expect: Some(seed), finish: false, ..Self::default() }
    }

    /// Sends `len` bytes of the pattern `seed` to a server that sends them back.
    #[must_use]
    pub fn round_trip(len: u64, seed: u64) -> Self {
        Self { expect: Some(seed), ..Self::upload(len, seed) }
    }

    /// Sends back what it receives.
    #[must_use]
    pub fn echo() -> Self {
        Self { echo: true, ..Self::default() }
    }
}

/// What a DHCP client was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Address and prefix length.
    pub address: String,
    /// The router.
    pub router: Option<Ipv4Addr>,
    /// Nameservers.
    pub dns: Vec<Ipv4Addr>,
}

/// Sizes and habits of the guest's TCP.
#[derive(Debug, Clone, Copy)]
pub struct SmolConfig {
    /// IP MTU of its interface.
    pub mtu: usize,
    /// Bytes of each socket's buffers.
    pub buffer: usize,
    /// CUBIC; otherwise no congestion control at all.
    pub cubic: bool,
}

impl Default for SmolConfig {
    fn default() -> Self {
        Self { mtu: 1500, buffer: 1 << 20, cubic: true }
    }
}

/// The guest.
pub struct SmolGuest {
    config: SmolConfig,
    iface: Interface,
    sockets: SocketSet<'static>,
    device: Queues,
    tasks: BTreeMap<SocketHandle, Task>,
    next_port: u16,
}

impl fmt::Debug for SmolGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmolGuest")
            .field("config", &self.config)
            .field("tasks", &self.tasks)
            .finish_non_exhaustive()
    }
}

fn smol(now: Instant) -> SmolInstant {
    SmolInstant::from_micros(i64::try_from(now.as_micros()).expect("a simulation shorter than ages"))
}

impl SmolGuest {
    /// A guest with the usual addresses of both families.
    #[must_use]
    pub fn new(config: SmolConfig) -> Self {
        let mut device = Queues { mtu: config.mtu, rx: VecDeque::new(), tx: VecDeque::new() };
        let hardware = HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC.0));
        let mut iface_config = Config::new(hardware);
        iface_config.random_seed = 42;
        let mut iface = Interface::new(iface_config, &mut device, SmolInstant::ZERO);
        iface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(GUEST4.into(), 24)).expect("room");
            addresses.push(IpCidr::new(GUEST6.into(), 64)).expect("room");
            addresses.push(IpCidr::new(GUEST_MAC.link_local().into(), 64)).expect("room");
        });
        iface.routes_mut().add_default_ipv4_route(GATEWAY4).expect("room");
        iface.routes_mut().add_default_ipv6_route(GATEWAY6).expect("room");
        Self {
            config,
            iface,
            sockets: SocketSet::new(Vec::new()),
            device,
            tasks: BTreeMap::new(),
            next_port: 40_000,
        }
    }

    fn tcp_socket(&self) -> tcp::Socket<'static> {
        let buffer = || tcp::SocketBuffer::new(vec![0; self.config.buffer]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        if self.config.cubic {
            socket.set_congestion_control(tcp::CongestionControl::Cubic);
        }
        socket.set_nagle_enabled(false);
        socket
    }

    /// Connects to `to` and does `task`.
    pub fn connect(&mut self, to: SocketAddr, task: Task) -> SocketHandle {
        let mut socket = self.tcp_socket();
        let own = if to.is_ipv4() { IpAddr::from(GUEST4) } else { GUEST6.into() };
        let port = self.next_port;
        self.next_port += 1;
        socket.connect(self.iface.context(), to, SocketAddr::new(own, port)).expect("a fresh socket");
        let handle = self.sockets.add(socket);
        self.tasks.insert(handle, task);
        handle
    }

    /// Accepts one connection on `port` and does `task`.
    pub fn listen(&mut self, port: u16, task: Task) -> SocketHandle {
        let mut socket = self.tcp_socket();
        socket.listen(port).expect("a fresh socket");
        let handle = self.sockets.add(socket);
        self.tasks.insert(handle, task);
        handle
    }

    /// How far a task has come.
    #[must_use]
    pub fn task(&self, handle: SocketHandle) -> &Task {
        &self.tasks[&handle]
    }

    /// To change a task underway.
    pub fn task_mut(&mut self, handle: SocketHandle) -> &mut Task {
        self.tasks.get_mut(&handle).expect("a task")
    }

    /// A TCP socket.
    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// A UDP socket bound to `port`.
    pub fn udp(&mut self, port: u16) -> SocketHandle {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 256], vec![0; 1 << 18]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).expect("a free port");
        self.sockets.add(socket)
    }

    /// Sends a datagram.
    ///
    /// # Panics
    /// When the socket's buffer is full.
    pub fn udp_send(&mut self, handle: SocketHandle, to: SocketAddr, payload: &[u8]) {
        self.sockets.get_mut::<udp::Socket<'static>>(handle).send_slice(payload, to).expect("room");
    }

    /// What the socket has received: source and data.
    pub fn udp_receive(&mut self, handle: SocketHandle) -> Option<(SocketAddr, Vec<u8>)> {
        let (data, meta) = self.sockets.get_mut::<udp::Socket<'static>>(handle).recv().ok()?;
        Some((SocketAddr::new(meta.endpoint.addr.into(), meta.endpoint.port), data.to_vec()))
    }

    /// A DHCP client. It does not configure the interface.
    pub fn dhcp(&mut self) -> SocketHandle {
        self.sockets.add(dhcpv4::Socket::new())
    }

    /// What a DHCP client has been given since the last call.
    pub fn dhcp_lease(&mut self, handle: SocketHandle) -> Option<Lease> {
        match self.sockets.get_mut::<dhcpv4::Socket<'static>>(handle).poll()? {
            dhcpv4::Event::Deconfigured => None,
            dhcpv4::Event::Configured(config) => Some(Lease {
                address: config.address.to_string(),
                router: config.router,
                dns: config.dns_servers.to_vec(),
            }),
        }
    }

    /// Moves bytes between tasks and sockets; whether any moved.
    fn work(&mut self, now: Instant) -> bool {
        let mut moved = false;
        for (handle, task) in &mut self.tasks {
            moved |= task.work(now, self.sockets.get_mut(*handle));
        }
        moved
    }
}

impl Task {
    fn work(&mut self, now: Instant, socket: &mut tcp::Socket<'_>) -> bool {
        let before = (self.sent, self.received, self.finished, self.closed);
        self.established |= socket.may_send();
        while !self.stall && socket.can_recv() {
            let take = |data: &mut [u8]| (data.len(), data.to_vec());
            let data = socket.recv(take).expect("it can receive");
            if let (Some(seed), None) = (self.expect, self.mismatch) {
                self.mismatch = pattern::mismatch(seed, self.received, &data);
            }
            self.received += u64::try_from(data.len()).expect("a length");
            self.last = now;
            if self.echo {
                self.pending.extend(data);
            }
        }
        while socket.can_send() {
            let sent = if self.echo {
                let sent = socket.send_slice(self.pending.make_contiguous()).expect("it can send");
                self.pending.drain(..sent);
                sent
            } else {
                let left = usize::try_from(self.send - self.sent).unwrap_or(usize::MAX);
                let (seed, at) = (self.seed, self.sent);
                let give = |room: &mut [u8]| {
                    let len = left.min(room.len());
                    pattern::fill(seed, at, &mut room[..len]);
                    (len, len)
                };
                socket.send(give).expect("it can send")
            };
            if sent == 0 {
                break;
            }
            self.sent += u64::try_from(sent).expect("a length");
        }
        let over = socket.state() == tcp::State::CloseWait && socket.recv_queue() == 0;
        self.finished |= over || (self.established && self.closed && !socket.may_recv());
        let all_sent = if self.echo { self.pending.is_empty() } else { self.sent == self.send };
        let may_close = all_sent && (self.finish || over);
        if self.established && may_close && !self.closed {
            socket.close();
            self.closed = true;
        }
        before != (self.sent, self.received, self.finished, self.closed)
    }
}

impl Guest for SmolGuest {
    fn deliver(&mut self, _now: Instant, frame: &[u8]) {
        self.device.rx.push_back(frame.to_vec());
    }

    fn poll(&mut self, now: Instant, send: &mut dyn FnMut(Offload, Vec<u8>)) {
        loop {
            self.iface.poll(smol(now), &mut self.device, &mut self.sockets);
            if !self.work(now) {
                break;
            }
        }
        for frame in self.device.tx.drain(..) {
            send(Offload::NONE, frame);
        }
    }

    fn next_timeout(&mut self, now: Instant) -> Option<Instant> {
        let at = self.iface.poll_at(smol(now), &self.sockets)?;
        Some(Instant::from_micros(u64::try_from(at.total_micros()).unwrap_or(0)).max(now))
    }
}

impl World<SmolGuest> {
    /// A world with smoltcp as the guest, its MTU that of the link.
    #[must_use]
    pub fn smol(config: WorldConfig) -> Self {
        let mtu = usize::from(config.engine.mtu.bytes());
        Self::new(config, SmolGuest::new(SmolConfig { mtu, ..SmolConfig::default() }))
    }
}

/// smoltcp's device: two queues.
#[derive(Debug)]
struct Queues {
    mtu: usize,
    rx: VecDeque<Vec<u8>>,
    tx: VecDeque<Vec<u8>>,
}

impl phy::Device for Queues {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _now: SmolInstant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.rx.pop_front()?;
        Some((Rx(frame), Tx(&mut self.tx)))
    }

    fn transmit(&mut self, _now: SmolInstant) -> Option<Tx<'_>> {
        // As much as a TAP's queue holds, so that one poll does not send a whole window at once.
        (self.tx.len() < 500).then_some(Tx(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ethernet;
        caps.max_transmission_unit = self.mtu + crate::packet::ETHERNET_LEN;
        caps
    }
}

#[derive(Debug)]
struct Rx(Vec<u8>);

impl phy::RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

#[derive(Debug)]
struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}
