//! An engine with very many open connections, for what depends on their number: memory, and finding one among them.

use std::net::SocketAddr;

use slipway_netstack::upstream::Event;
use slipway_netstack::{Engine, Instant};
use testkit::packet::{Options, Tcp, ethernet, flag};
use testkit::world::{ENGINE_MAC, GUEST_MAC, GUEST4, engine_config};

use crate::{Null, Sink, VERIFIED};

/// One engine and the guest's side of its connections.
#[derive(Debug)]
pub struct Crowd {
    /// The engine.
    pub engine: Engine,
    /// Its host.
    pub host: Null,
    device: Sink,
    /// What the guest acknowledges in each connection.
    acks: Vec<u32>,
}

impl Crowd {
    /// An engine with room for `most` connections.
    #[must_use]
    pub fn new(most: u32) -> Self {
        let mut config = engine_config();
        config.max_flows = most;
        let (host, device) = (Null::default(), Sink::default());
        Self { engine: Engine::new(config), host, device, acks: Vec::with_capacity(most as usize) }
    }

    /// A segment of connection number `at`: 10,000 from as many ports to each server, fewer than the host has ports
    /// for.
    fn frame(at: usize, tcp: Tcp) -> Vec<u8> {
        let port = u16::try_from(at % 10_000).unwrap() + 10_000;
        let server = u8::try_from(at / 10_000).unwrap();
        let (guest, remote) =
            (SocketAddr::from((GUEST4, port)), SocketAddr::from(([198, 51, 100, server], 80)));
        let tcp = Tcp { window: u16::MAX, ..tcp };
        ethernet(ENGINE_MAC, GUEST_MAC, &tcp.packet(guest, remote).emit())
    }

    fn send(&mut self, at: usize, tcp: Tcp) {
        self.deliver(&Self::frame(at, tcp));
    }

    /// A frame of the guest.
    pub fn deliver(&mut self, frame: &[u8]) {
        self.engine.on_frame(Instant::ZERO, VERIFIED, frame, &mut self.host);
    }

    fn drain(&mut self) {
        while self.engine.drain(Instant::ZERO, &mut self.host, &mut self.device) {}
    }

    /// Opens the next connection and sends one byte.
    ///
    /// # Panics
    /// When the handshake does not come about.
    pub fn open(&mut self) {
        let at = self.acks.len();
        let options = Options { mss: Some(1460), scale: Some(7), sack_permitted: true, ..Options::default() };
        self.send(at, Tcp { seq: 999, options, ..Tcp::default() }.with(flag::SYN));
        let flow = *self.host.opened.last().unwrap();
        self.engine.on_upstream(Instant::ZERO, flow, Event::Connected, &mut self.host);
        self.drain();
        // Ethernet, IPv4, then the sequence number of the answer to the SYN.
        let number = self.device.last.get(14 + 20 + 4..14 + 20 + 8).unwrap();
        self.acks.push(u32::from_be_bytes(number.try_into().unwrap()).wrapping_add(1));
        self.say(at, 1000);
    }

    /// One byte in connection number `at`, which the host takes.
    ///
    /// # Panics
    /// When it does not.
    pub fn say(&mut self, at: usize, seq: u32) {
        let before = self.host.taken;
        self.send(at, Tcp { seq, ..Tcp::default() }.acking(self.acks[at]).data(b"x"));
        assert_eq!(self.host.taken, before + 1, "connection {at}");
        self.drain();
    }

    /// A bare acknowledgement in connection number `at`: nothing but finding the connection and looking at a header.
    #[must_use]
    pub fn acknowledgement(&self, at: usize) -> Vec<u8> {
        Self::frame(at, Tcp { seq: 1001, ..Tcp::default() }.acking(self.acks[at]))
    }

    /// Connection number `at` is reset.
    pub fn reset(&mut self, at: usize) {
        self.send(at, Tcp { seq: 1002, ..Tcp::default() }.with(flag::RST));
    }
}
