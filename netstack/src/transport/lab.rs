//! A laboratory for the tests of this folder: a guest that is a hand writing segments, and host sockets that are
//! queues.
//!
//! Everything is explicit, as in packetdrill: a test sends a segment, lets time pass, and looks at the segments that
//! came out. [`Lab::step`] drains and returns them; [`Lab::pass`] also lets timers run. Numbers are relative: byte 0 is
//! the first one behind the SYN, on either side.

use super::tcp::segment::{Flags, Segment};
use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::config::Config;
use crate::device::vnet::Checksum;
use crate::device::{Device, Full, Gso, Offload};
use crate::engine::Engine;
use crate::flow::FlowId;
use crate::frame::{Envelope, Transport, assemble};
use crate::headers::{ETHERNET_LEN, PROTO_TCP};
use crate::ip::Packet;
use crate::testing::config;
use crate::transport::udp;
use crate::upstream::{DatagramError, Empty, Errno, Event, Meta, Peek, Received, Sent, Source, Upstream};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

pub(crate) const GUEST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// The guest's initial sequence number: close to the wrap, so that every test crosses it.
const GUEST_ISN: u32 = u32::MAX - 2000;

/// Stands for whoever resolves names, in the record of connections.
pub(crate) const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 53);

/// A host socket.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    /// What it took.
    pub(crate) taken: Vec<u8>,
    /// How much more it takes.
    pub(crate) room: usize,
    /// How often it was offered something.
    pub(crate) offers: usize,
    /// What its peer has sent and nobody has consumed.
    pub(crate) queue: VecDeque<u8>,
    /// End-of-file behind it.
    pub(crate) end: bool,
    pub(crate) broken: Option<Errno>,
    /// Places of urgent bytes in what it took.
    pub(crate) urgent: Vec<usize>,
    /// Where in the queue its peer's urgent byte lies.
    pub(crate) mark: Option<usize>,
    pub(crate) shut: bool,
}

/// The host.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) sockets: BTreeMap<FlowId, Socket>,
    /// Connection attempts, in order.
    pub(crate) connects: Vec<(FlowId, SocketAddr)>,
    /// Traffic classes, of those and as they changed.
    pub(crate) classes: Vec<(FlowId, u8)>,
    /// What they meet with.
    pub(crate) refuse: Option<Errno>,
    pub(crate) reset: Vec<FlowId>,
    /// Rhythms of keepalive that sockets were given, in seconds.
    pub(crate) keepalives: Vec<(FlowId, u64, u64)>,
    pub(crate) closed: Vec<FlowId>,
    /// What the last of these was in the end.
    pub(crate) last: Option<Socket>,
    /// The last datagram's header fields.
    pub(crate) meta: Meta,
    /// Datagrams sent: socket, destination, bytes, size of each.
    pub(crate) datagrams: Vec<(FlowId, SocketAddr, Vec<u8>, usize)>,
    pub(crate) refuse_datagrams: Option<Errno>,
    /// Datagrams to be received.
    pub(crate) inbox: VecDeque<(FlowId, SocketAddr, Vec<u8>)>,
    pub(crate) errors: VecDeque<DatagramError>,
}

impl Upstream for Host {
    fn tcp_connect(&mut self, flow: FlowId, to: SocketAddr, _: Source, class: u8) -> Result<(), Errno> {
        self.connects.push((flow, to));
        self.classes.push((flow, class));
        if let Some(errno) = self.refuse {
            return Err(errno);
        }
        self.sockets.insert(flow, Socket { room: usize::MAX, ..Socket::default() });
        Ok(())
    }

    fn tcp_connect_dns(&mut self, flow: FlowId) -> Result<(), Errno> {
        self.tcp_connect(flow, RESOLVER, Source::default(), 0)
    }

    fn tcp_send(&mut self, flow: FlowId, pieces: &[&[u8]]) -> Sent {
        let Some(socket) = self.sockets.get_mut(&flow) else { return Sent::Failed(Errno::BadSocket) };
        assert!(!socket.shut, "data behind the end");
        if let Some(errno) = socket.broken {
            return Sent::Failed(errno);
        }
        socket.offers += 1;
        let before = socket.taken.len();
        let room = socket.room;
        socket.taken.extend(pieces.iter().copied().flatten().take(room));
        let count = socket.taken.len() - before;
        socket.room -= count;
        Sent::Taken(count)
    }

    fn tcp_send_urgent(&mut self, flow: FlowId, byte: u8) -> Sent {
        let sent = self.tcp_send(flow, &[&[byte]]);
        if sent == Sent::Taken(1)
            && let Some(socket) = self.sockets.get_mut(&flow)
        {
            socket.urgent.push(socket.taken.len() - 1);
        }
        sent
    }

    fn tcp_urgent(&mut self, flow: FlowId) -> Option<usize> {
        self.sockets.get(&flow)?.mark
    }

    fn tcp_peek(&mut self, flow: FlowId, offset: usize, into: &mut [u8]) -> Peek {
        let Some(socket) = self.sockets.get_mut(&flow) else { return Peek::Failed(Errno::BadSocket) };
        assert!(!into.is_empty(), "a peek into nothing");
        assert!(offset <= socket.queue.len(), "a peek beyond what was ever there");
        // As the kernel does, a peek stops short of the mark.
        let most = socket
            .mark
            .filter(|mark| *mark > offset)
            .map_or(into.len(), |mark| into.len().min(mark - offset));
        let into = &mut into[..most];
        let mut count = 0;
        for (to, from) in into.iter_mut().zip(socket.queue.iter().skip(offset)) {
            *to = *from;
            count += 1;
        }
        match (count, socket.broken) {
            (0, Some(errno)) => Peek::Failed(errno),
            (0, None) if socket.end => Peek::End,
            (0, None) => Peek::Empty,
            _ => Peek::Data(count),
        }
    }

    fn tcp_consume(&mut self, flow: FlowId, count: usize) {
        if let Some(socket) = self.sockets.get_mut(&flow) {
            socket.queue.drain(..count);
            socket.mark = socket.mark.and_then(|mark| mark.checked_sub(count));
        }
    }

    fn tcp_class(&mut self, flow: FlowId, class: u8) {
        self.classes.push((flow, class));
    }

    fn tcp_shutdown(&mut self, flow: FlowId) {
        let socket = self.sockets.get_mut(&flow).unwrap();
        assert!(!socket.shut, "shut twice");
        socket.shut = true;
    }

    fn tcp_keepalive(&mut self, flow: FlowId, idle: Duration, interval: Duration) {
        self.keepalives.push((flow, idle.as_secs(), interval.as_secs()));
    }

    fn tcp_reset(&mut self, flow: FlowId) {
        if self.sockets.remove(&flow).is_some() {
            self.reset.push(flow);
        }
    }

    fn udp_open(&mut self, flow: FlowId, _: IpAddr, _: Source) -> Result<(), Errno> {
        self.sockets.insert(flow, Socket::default());
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
        if !self.sockets.contains_key(&flow) {
            return Err(Errno::BadSocket);
        }
        self.meta = meta;
        self.datagrams.push((flow, to, payload.to_vec(), segment));
        self.refuse_datagrams.map_or(Ok(()), Err)
    }

    fn udp_receive(&mut self, flow: FlowId, into: &mut [u8]) -> Result<Received, Empty> {
        let place = self.inbox.iter().position(|(id, ..)| *id == flow).ok_or(Empty)?;
        let (_, from, bytes) = self.inbox.remove(place).unwrap();
        into[..bytes.len()].copy_from_slice(&bytes);
        Ok(Received { len: bytes.len(), segment: bytes.len(), from, meta: Meta::default() })
    }

    fn take_error(&mut self, _: FlowId) -> Result<DatagramError, Empty> {
        self.errors.pop_front().ok_or(Empty)
    }

    fn ping_open(&mut self, _: FlowId, _: IpAddr, _: Source) -> Result<(), Errno> {
        Ok(())
    }

    fn ping_send(&mut self, _: FlowId, _: IpAddr, _: u16, _: &[u8], _: Meta) -> Result<(), Errno> {
        Ok(())
    }

    fn ping_receive(&mut self, _: FlowId, _: &mut [u8]) -> Result<(u16, Received), Empty> {
        Err(Empty)
    }

    fn close(&mut self, flow: FlowId) {
        if let Some(socket) = self.sockets.remove(&flow) {
            self.closed.push(flow);
            self.last = Some(socket);
        }
    }
}

/// The link: keeps what is sent.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) frames: Vec<(Offload, Vec<u8>)>,
    /// So many frames are taken, then no more; `None`: all.
    pub(crate) room: Option<usize>,
    /// So many frames are taken and lost.
    pub(crate) lost: usize,
}

impl Link {
    /// The MAC addresses that frames go to.
    pub(crate) fn to(&self) -> impl Iterator<Item = MacAddr> + '_ {
        self.frames.iter().filter_map(|(_, frame)| frame.first_chunk().copied().map(MacAddr))
    }
}

impl Device for Link {
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        if let Some(room) = &mut self.room {
            *room = room.checked_sub(1).ok_or(Full)?;
        }
        if self.lost > 0 {
            self.lost -= 1;
            return Ok(());
        }
        self.frames.push((offload, frame.to_vec()));
        Ok(())
    }
}

/// A segment that the guest received. Numbers as on the wire; [`Lab::theirs`] and [`Lab::ours`] make them relative.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// The urgent pointer, 0 without its flag.
    pub(crate) urgent: u16,
    pub(crate) options: super::tcp::options::Options,
    pub(crate) payload: Vec<u8>,
    pub(crate) gso: Option<Gso>,
    /// Length of the IP packet.
    pub(crate) packet: usize,
}

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

impl Got {
    pub(crate) fn is(&self, flags: u8) -> bool {
        self.flags & !(Flags::PSH.0 | Flags::URG.0) == flags
    }
}

/// A segment of the guest.
#[derive(Debug, Clone)]
pub(crate) struct Send {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// Sent with the flag if it is not 0.
    pub(crate) urgent: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// One engine, one guest, one host.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) engine: Engine,
    pub(crate) host: Host,
    pub(crate) link: Link,
    pub(crate) now: Instant,
    pub(crate) guest: SocketAddr,
    pub(crate) server: SocketAddr,
    /// The flow under test.
    pub(crate) id: FlowId,
    /// Absolute number of the engine's first byte.
    pub(crate) first: u32,
    /// Window shift that the guest offers; `None` offers no options but MSS.
    pub(crate) scaled: bool,
    pub(crate) timestamps: bool,
    /// The traffic class of the guest's packets.
    pub(crate) class: u8,
    /// What the guest's SYN says, if it says anything.
    pub(crate) mss: Option<u16>,
    /// What is not TCP, as whole packets.
    pub(crate) other: Vec<Vec<u8>>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(mut config: Config) -> Self {
        config.plan.advertise = false;
        Self {
            engine: Engine::new(config),
            host: Host::default(),
            link: Link::default(),
            now: Instant::from_micros(1_000_000),
            guest: "10.0.2.100:40000".parse().unwrap(),
            server: "192.0.2.1:80".parse().unwrap(),
            id: FlowId::new(0, 0),
            first: 0,
            scaled: true,
            timestamps: false,
            class: 0,
            mss: Some(1460),
            other: Vec::new(),
        }
    }

    /// A connection opened by the guest.
    pub(crate) fn open() -> Self {
        let mut lab = Self::new();
        lab.connect();
        lab
    }

    pub(crate) fn connect(&mut self) {
        self.syn();
        self.event(Event::Connected);
        let got = self.step();
        assert_eq!(got.len(), 1, "{got:?}");
        assert!(got[0].is(SYN | ACK));
        self.first = got[0].seq.wrapping_add(1);
        self.say(0, 0, &[]);
        assert!(self.step().is_empty());
    }

    /// The guest's SYN.
    pub(crate) fn syn(&mut self) {
        let mss = self.mss.map(u16::to_be_bytes);
        let mut options = mss.map(|[a, b]| vec![2, 4, a, b]).unwrap_or_default();
        if self.scaled {
            options.extend([1, 3, 3, 0, 1, 1, 4, 2]);
        }
        if self.timestamps {
            options.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0]);
        }
        let seq = GUEST_ISN;
        self.send(&Send { seq, ack: 0, flags: SYN, window: 65535, urgent: 0, options, payload: Vec::new() });
        if let Some((id, _)) = self.host.connects.last() {
            self.id = *id;
        }
    }

    /// The absolute number of the guest's byte `n`.
    pub(crate) fn ours(n: i64) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "modulo 2^32")]
        let n = n as u32;
        GUEST_ISN.wrapping_add(1).wrapping_add(n)
    }

    /// The absolute number of the server's byte `n`.
    pub(crate) fn theirs(&self, n: i64) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "modulo 2^32")]
        let n = n as u32;
        self.first.wrapping_add(n)
    }

    /// A plain segment of the guest from its byte `seq`, acknowledging the server's bytes before `ack`.
    pub(crate) fn segment(&self, seq: i64, ack: i64, payload: &[u8]) -> Send {
        let options = if self.timestamps { vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0] } else { Vec::new() };
        Send {
            seq: Self::ours(seq),
            ack: self.theirs(ack),
            flags: ACK,
            window: 65535,
            urgent: 0,
            options,
            payload: payload.to_vec(),
        }
    }

    pub(crate) fn say(&mut self, seq: i64, ack: i64, payload: &[u8]) {
        let segment = self.segment(seq, ack, payload);
        self.send(&segment);
    }

    /// The same with flags added.
    pub(crate) fn flag(&mut self, seq: i64, ack: i64, payload: &[u8], flags: u8) {
        let mut segment = self.segment(seq, ack, payload);
        segment.flags |= flags;
        self.send(&segment);
    }

    /// The same with a window of `window` bytes (the guest's shift is 0).
    pub(crate) fn window(&mut self, seq: i64, ack: i64, window: u16) {
        let mut segment = self.segment(seq, ack, &[]);
        segment.window = window;
        self.send(&segment);
    }

    /// An acknowledgement with SACK blocks.
    pub(crate) fn sack(&mut self, seq: i64, ack: i64, blocks: &[(i64, i64)]) {
        let mut segment = self.segment(seq, ack, &[]);
        let len = u8::try_from(2 + 8 * blocks.len()).unwrap();
        segment.options.extend([1, 1, 5, len]);
        for (start, end) in blocks {
            segment.options.extend(self.theirs(*start).to_be_bytes());
            segment.options.extend(self.theirs(*end).to_be_bytes());
        }
        self.send(&segment);
    }

    pub(crate) fn send(&mut self, segment: &Send) {
        let words = u8::try_from(5 + segment.options.len() / 4).unwrap();
        let mut header = Vec::new();
        header.extend(self.guest.port().to_be_bytes());
        header.extend(self.server.port().to_be_bytes());
        header.extend(segment.seq.to_be_bytes());
        header.extend(segment.ack.to_be_bytes());
        let urg = if segment.urgent > 0 { Flags::URG.0 } else { 0 };
        header.extend([words << 4, segment.flags | urg]);
        header.extend(segment.window.to_be_bytes());
        header.extend([0; 2]);
        header.extend(segment.urgent.to_be_bytes());
        header.extend(&segment.options);
        let transport = Transport::tcp(&header);
        self.packet(&transport, &segment.payload);
    }

    /// A datagram of the guest.
    pub(crate) fn datagram(&mut self, payload: &[u8]) {
        let env = self.envelope();
        let header = udp::header(&env, payload.len());
        self.packet(&Transport::udp(&header), payload);
    }

    fn envelope(&self) -> Envelope {
        let to_mac = self.engine.config().mac;
        Envelope {
            to_mac,
            src: self.guest,
            dst: self.server,
            hops: 64,
            traffic_class: self.class,
            ident: None,
        }
    }

    /// A packet of the guest to the server.
    pub(crate) fn packet(&mut self, transport: &Transport<'_>, payload: &[u8]) {
        let frame = assemble(GUEST_MAC, &self.envelope(), transport, payload);
        self.engine.on_frame(self.now, Offload::NONE, &frame, &mut self.host);
    }

    /// News for the socket of the flow under test.
    pub(crate) fn event(&mut self, event: Event) {
        self.engine.on_upstream(self.now, self.id, event, &mut self.host);
    }

    /// The socket of the flow under test.
    pub(crate) fn socket(&mut self) -> &mut Socket {
        self.host.sockets.get_mut(&self.id).expect("the socket is open")
    }

    /// The server sends.
    pub(crate) fn serve(&mut self, bytes: &[u8]) {
        self.socket().queue.extend(bytes);
        self.event(Event::Readable);
    }

    /// The server closes its half.
    pub(crate) fn serve_end(&mut self) {
        self.socket().end = true;
        self.event(Event::Readable);
    }

    /// The socket takes `room` more bytes.
    pub(crate) fn make_room(&mut self, room: usize) {
        self.socket().room = room;
        self.event(Event::Writable);
    }

    /// The flow under test still exists.
    pub(crate) fn lives(&self) -> bool {
        self.engine.flows().any(|flow| flow.id == self.id)
    }

    pub(crate) fn state(&self) -> &'static str {
        self.engine.flows().find(|flow| flow.id == self.id).map_or("", |flow| flow.state)
    }

    /// Drains; returns the segments that the guest receives.
    pub(crate) fn step(&mut self) -> Vec<Got> {
        let mut turns = 0;
        while self.engine.drain(self.now, &mut self.host, &mut self.link) {
            turns += 1;
            assert!(turns < 10_000, "the engine never comes to rest");
        }
        self.received()
    }

    fn received(&mut self) -> Vec<Got> {
        let mut got = Vec::new();
        for (offload, frame) in self.link.frames.drain(..) {
            let Ok(packet) = Packet::parse(&frame[ETHERNET_LEN..]) else { continue };
            if packet.protocol != PROTO_TCP {
                self.other.push(packet.whole.to_vec());
                continue;
            }
            let checksum =
                if offload.checksum == Checksum::Complete { Checksum::Complete } else { Checksum::Verified };
            let seg = Segment::parse(packet.payload, packet.src, packet.dst, checksum)
                .expect("the engine's segments are well-formed");
            got.push(Got {
                seq: seg.seq.0,
                ack: seg.ack.0,
                flags: seg.flags.0,
                window: seg.window,
                urgent: seg.urgent,
                options: seg.options,
                payload: seg.payload.to_vec(),
                gso: offload.gso,
                packet: packet.whole.len(),
            });
        }
        got
    }

    /// Lets `time` pass, timers and all; returns what the guest receives meanwhile, with the time since the start.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<(Duration, Got)> {
        let (start, end) = (self.now, self.now + time);
        let mut got = Vec::new();
        for _ in 0..100_000 {
            let at = self.now;
            got.extend(self.step().into_iter().map(|g| (at.since(start), g)));
            match self.engine.next_timeout() {
                Some(due) if due <= end => {
                    self.now = self.now.max(due);
                    self.engine.on_timeout(self.now, &mut self.host);
                }
                _ => {
                    self.now = end;
                    return got;
                }
            }
        }
        panic!("timers without end");
    }
}

pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// `len` bytes that tell their place.
pub(crate) fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}
