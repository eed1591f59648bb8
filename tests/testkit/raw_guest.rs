//! A guest driven by hand: the test sends packets field by field and looks at what comes back.
//!
//! Beside the frames it answers ARP requests and neighbour solicitations for its own addresses by itself, unless told
//! not to, and keeps those, and unsolicited router advertisements, out of what the test sees. [`RawTcp`] is one end of
//! a TCP connection that keeps sequence numbers and nothing else: every segment is the test's decision.

use crate::packet::{Arp, Body, Frame, Icmp, Ip, Options, Tcp, Udp, ethernet, ethernet_of, flag};
use crate::packet::{ETHERTYPE_ARP, len16};
use crate::world::{ENGINE_MAC, GUEST_MAC, GUEST4, GUEST6, Guest, World, WorldConfig};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use slipway_netstack::Instant;
use slipway_netstack::device::Offload;
use std::collections::VecDeque;

/// The guest.
#[derive(Debug)]
pub struct RawGuest {
    /// Whether neighbours' questions are answered.
    pub answers: bool,
    /// Router advertisements to all nodes that were kept from the test.
    pub advertisements: Vec<Frame>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    outbox: VecDeque<(Offload, Vec<u8>)>,
    inbox: VecDeque<Frame>,
}

impl Default for RawGuest {
    fn default() -> Self {
        Self {
            answers: true,
            advertisements: Vec::new(),
            addresses: vec![GUEST4.into(), GUEST6.into(), GUEST_MAC.link_local().into()],
            outbox: VecDeque::new(),
            inbox: VecDeque::new(),
        }
    }
}

impl Guest for RawGuest {
    fn deliver(&mut self, _now: Instant, frame: &[u8]) {
        let frame = Frame::parse(frame);
        if self.answers && self.answer(&frame) {
            return;
        }
        if let Body::Icmp(ip, icmp) = &frame.body
            && icmp.kind == 134
            && ip.dst == IpAddr::from(ALL_NODES)
        {
            self.advertisements.push(frame);
            return;
        }
        self.inbox.push_back(frame);
    }

    fn poll(&mut self, _now: Instant, send: &mut dyn FnMut(Offload, Vec<u8>)) {
        for (offload, frame) in self.outbox.drain(..) {
            send(offload, frame);
        }
    }

    fn next_timeout(&mut self, now: Instant) -> Option<Instant> {
        (!self.outbox.is_empty()).then_some(now)
    }
}

impl RawGuest {
    /// Answers a question for one of its addresses; whether it was one.
    fn answer(&mut self, frame: &Frame) -> bool {
        match &frame.body {
            Body::Arp(arp) if arp.operation == 1 && self.addresses.contains(&arp.target.1.into()) => {
                let reply =
                    Arp { operation: 2, sender: (GUEST_MAC, arp.target.1), target: arp.sender }.emit();
                self.outbox
                    .push_back((Offload::NONE, ethernet_of(arp.sender.0, GUEST_MAC, ETHERTYPE_ARP, &reply)));
                true
            }
            Body::Icmp(ip, icmp) if icmp.kind == 135 => {
                let wanted: [u8; 16] = icmp.body[..16].try_into().expect("a target");
                let wanted = Ipv6Addr::from(wanted);
                if !self.addresses.contains(&wanted.into()) {
                    return false;
                }
                let reply = neighbour_advertisement(wanted, ip.src);
                self.outbox.push_back((Offload::NONE, ethernet(frame.src, GUEST_MAC, &reply.emit())));
                true
            }
            _ => false,
        }
    }

    /// Sends a frame with the next turn.
    pub fn send_frame(&mut self, offload: Offload, frame: Vec<u8>) {
        self.outbox.push_back((offload, frame));
    }

    /// Sends a packet to the engine's MAC address with the next turn.
    pub fn send(&mut self, packet: &Ip) {
        self.send_frame(Offload::NONE, ethernet(ENGINE_MAC, GUEST_MAC, &packet.emit()));
    }

    /// The frames that have arrived.
    pub fn take(&mut self) -> Vec<Frame> {
        self.inbox.drain(..).collect()
    }
}

/// ff02::1.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A solicited advertisement of `own`, overriding, with our link-layer address.
#[must_use]
pub fn neighbour_advertisement(own: Ipv6Addr, to: IpAddr) -> Ip {
    let mut body = own.octets().to_vec();
    body.extend_from_slice(&[2, 1]);
    body.extend_from_slice(&GUEST_MAC.0);
    let mut packet = Icmp { kind: 136, code: 0, word: 0x6000_0000, body }.packet(own.into(), to);
    packet.hops = 255;
    packet
}

impl World<RawGuest> {
    /// A world with a guest driven by hand.
    #[must_use]
    pub fn raw(config: WorldConfig) -> Self {
        Self::new(config, RawGuest::default())
    }

    /// Sends a packet and runs until all is quiet.
    pub fn send(&mut self, packet: &Ip) {
        self.guest.send(packet);
        self.settle();
    }

    /// Sends a packet and returns what comes back.
    pub fn exchange(&mut self, packet: &Ip) -> Vec<Frame> {
        self.guest.take();
        self.send(packet);
        self.guest.take()
    }

    /// What has arrived by now.
    pub fn take(&mut self) -> Vec<Frame> {
        self.settle();
        self.guest.take()
    }

    /// Nothing has arrived.
    ///
    /// # Panics
    /// When something has.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        let frames = self.take();
        assert!(frames.is_empty(), "unexpected: {frames:#?}");
    }

    /// Exactly one frame has arrived.
    ///
    /// # Panics
    /// When it is another number.
    #[track_caller]
    pub fn expect_one(&mut self) -> Frame {
        let mut frames = self.take();
        assert_eq!(frames.len(), 1, "one frame expected: {frames:#?}");
        frames.remove(0)
    }

    /// Exactly one TCP segment has arrived.
    ///
    /// # Panics
    /// When it is something else.
    #[track_caller]
    pub fn expect_tcp(&mut self) -> (Ip, Tcp) {
        match self.expect_one().body {
            Body::Tcp(ip, tcp) => (ip, tcp),
            other => panic!("a TCP segment expected: {other:#?}"),
        }
    }

    /// Exactly one UDP datagram has arrived.
    ///
    /// # Panics
    /// When it is something else.
    #[track_caller]
    pub fn expect_udp(&mut self) -> (Ip, Udp) {
        match self.expect_one().body {
            Body::Udp(ip, udp) => (ip, udp),
            other => panic!("a UDP datagram expected: {other:#?}"),
        }
    }

    /// Exactly one ICMP message has arrived.
    ///
    /// # Panics
    /// When it is something else.
    #[track_caller]
    pub fn expect_icmp(&mut self) -> (Ip, Icmp) {
        match self.expect_one().body {
            Body::Icmp(ip, icmp) => (ip, icmp),
            other => panic!("an ICMP message expected: {other:#?}"),
        }
    }

    /// The TCP segments among what has arrived; nothing else has.
    ///
    /// # Panics
    /// When something else has.
    #[track_caller]
    pub fn take_tcp(&mut self) -> Vec<Tcp> {
        self.take()
            .into_iter()
            .map(|frame| match frame.body {
                Body::Tcp(_, tcp) => tcp,
                other => panic!("TCP segments expected: {other:#?}"),
            })
            .collect()
    }
}

/// One end of a TCP connection: addresses and sequence numbers.
#[derive(Debug, Clone)]
pub struct RawTcp {
    /// Ours.
    pub local: SocketAddr,
    /// Theirs.
    pub remote: SocketAddr,
    /// The next sequence number that we send.
    pub seq: u32,
    /// The next that we expect.
    pub ack: u32,
    /// The window that we advertise, unscaled.
    pub window: u16,
    /// What the engine said in its SYN.
    pub theirs: Options,
    /// The window field of the engine's last segment of the handshake.
    pub their_window: u16,
    /// Timestamp value we send, if timestamps are in use.
    pub clock: Option<u32>,
    /// Timestamp of theirs to be echoed.
    pub echo: u32,
}

/// What our SYN offers.
#[must_use]
pub fn usual_options() -> Options {
    Options { mss: Some(1460), scale: Some(7), sack_permitted: true, ..Options::default() }
}

impl RawTcp {
    /// An end that has not said anything.
    #[must_use]
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local,
            remote,
            seq: 1_000_000,
            ack: 0,
            window: 0xffff,
            theirs: Options::default(),
            their_window: 0,
            clock: None,
            echo: 0,
        }
    }

    /// From a fixed port of the guest to `remote`.
    ///
    /// # Panics
    /// When `remote` is no endpoint.
    #[must_use]
    pub fn to(remote: &str) -> Self {
        let remote: SocketAddr = remote.parse().expect("an endpoint");
        let own = if remote.is_ipv4() { IpAddr::from(GUEST4) } else { GUEST6.into() };
        Self::new(SocketAddr::new(own, 40_000), remote)
    }

    /// The SYN.
    #[must_use]
    pub fn syn(&self, options: Options) -> Tcp {
        let options = Options { timestamps: self.clock.map(|c| (c, 0)), ..options };
        Tcp { seq: self.seq, window: self.window, options, ..Tcp::default() }.with(flag::SYN)
    }

    /// A segment at the present sequence numbers, acknowledging all there is.
    #[must_use]
    pub fn segment(&self) -> Tcp {
        let options = Options { timestamps: self.clock.map(|c| (c, self.echo)), ..Options::default() };
        Tcp { seq: self.seq, window: self.window, options, ..Tcp::default() }.acking(self.ack)
    }

    /// Sends a segment and runs until all is quiet; does not move our sequence numbers.
    pub fn send(&self, world: &mut World<RawGuest>, segment: &Tcp) {
        world.send(&segment.packet(self.local, self.remote));
    }

    /// Sends data and moves our sequence number.
    pub fn send_data(&mut self, world: &mut World<RawGuest>, data: &[u8]) {
        let segment = self.segment().with(flag::PSH).data(data);
        self.seq = self.seq.wrapping_add(u32::from(len16(data.len())));
        self.send(world, &segment);
    }

    /// Sends FIN and moves our sequence number.
    pub fn send_fin(&mut self, world: &mut World<RawGuest>) {
        let segment = self.segment().with(flag::FIN);
        self.seq = self.seq.wrapping_add(1);
        self.send(world, &segment);
    }

    /// Acknowledges everything taken in so far.
    pub fn send_ack(&self, world: &mut World<RawGuest>) {
        self.send(world, &self.segment());
    }

    /// Takes a segment in: if it is the next in order, moves what we expect.
    pub fn take_in(&mut self, segment: &Tcp) {
        if segment.seq == self.ack {
            self.ack = self.ack.wrapping_add(segment.sequence_len());
        }
        if let Some((value, _)) = segment.options.timestamps {
            self.echo = value;
        }
    }

    /// Opens a connection to `remote` with the usual options.
    ///
    /// # Panics
    /// When it does not come about.
    #[track_caller]
    pub fn open(world: &mut World<RawGuest>, remote: &str) -> Self {
        Self::open_with(world, Self::to(remote), usual_options())
    }

    /// Opens a connection from `end` with `options`.
    ///
    /// # Panics
    /// When it does not come about.
    #[track_caller]
    pub fn open_with(world: &mut World<RawGuest>, mut end: Self, options: Options) -> Self {
        let syn = end.syn(options);
        end.send(world, &syn);
        let delay = core::time::Duration::from_secs(5);
        world.run_until(delay, |w| !w.guest.inbox.is_empty());
        let (_, answer) = world.expect_tcp();
        assert!(answer.has(flag::SYN | flag::ACK), "SYN and ACK expected: {answer:?}");
        assert_eq!(answer.ack, end.seq.wrapping_add(1), "acknowledges our SYN");
        end.established(&answer);
        end.send_ack(world);
        world.expect_nothing();
        end
    }

    fn established(&mut self, answer: &Tcp) {
        self.seq = self.seq.wrapping_add(1);
        self.ack = answer.seq.wrapping_add(1);
        self.theirs = answer.options.clone();
        self.their_window = answer.window;
        self.echo = answer.options.timestamps.map_or(0, |(value, _)| value);
    }

    /// Answers the engine's `syn`, which leads to us.
    pub fn accept(world: &mut World<RawGuest>, ip: &Ip, syn: &Tcp, options: Options) -> Self {
        let mut end = Self::new(SocketAddr::new(ip.dst, syn.dst), SocketAddr::new(ip.src, syn.src));
        end.ack = syn.seq.wrapping_add(1);
        end.theirs = syn.options.clone();
        end.their_window = syn.window;
        let answer = end.syn(options).acking(end.ack);
        end.seq = end.seq.wrapping_add(1);
        end.send(world, &answer);
        end
    }

    /// The whole window that a segment of theirs advertises, in bytes.
    #[must_use]
    pub fn scaled(&self, segment: &Tcp) -> u32 {
        let shift = if segment.has(flag::SYN) { 0 } else { self.theirs.scale.unwrap_or(0) };
        u32::from(segment.window) << shift
    }
}
