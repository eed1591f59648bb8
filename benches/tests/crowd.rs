//! A hundred thousand connections at once: all answer, and none costs more than a kibibyte.
//!
//! One test in a program of its own, because it asks the kernel how much memory this process has. The host side is the
//! bench's null host: what grows is the engine.

use std::net::SocketAddr;

use slipway_benches::{Null, Sink};
use slipway_netstack::device::Offload;
use slipway_netstack::device::vnet::Checksum;
use slipway_netstack::upstream::Event;
use slipway_netstack::{Engine, Instant};
use testkit::packet::{Options, Tcp, ethernet, flag};
use testkit::world::{ENGINE_MAC, GUEST_MAC, GUEST4, engine_config};

const FLOWS: u32 = 100_000;
/// What one connection may cost, all told.
const EACH: usize = 1024;
const VERIFIED: Offload = Offload { checksum: Checksum::Verified, gso: None };

/// One engine and the guest's side of its connections: what the guest acknowledges in each.
struct Crowd {
    engine: Engine,
    host: Null,
    device: Sink,
    acks: Vec<u32>,
}

impl Crowd {
    /// A segment of connection number `at`: 50,000 from as many ports to each of two servers.
    fn send(&mut self, at: usize, tcp: Tcp) {
        let port = u16::try_from(at % 50_000).unwrap() + 10_000;
        let server = u8::try_from(at / 50_000).unwrap();
        let (guest, remote) =
            (SocketAddr::from((GUEST4, port)), SocketAddr::from(([198, 51, 100, server], 80)));
        let tcp = Tcp { window: u16::MAX, ..tcp };
        let frame = ethernet(ENGINE_MAC, GUEST_MAC, &tcp.packet(guest, remote).emit());
        self.engine.on_frame(Instant::ZERO, VERIFIED, &frame, &mut self.host);
    }

    fn drain(&mut self) {
        while self.engine.drain(Instant::ZERO, &mut self.host, &mut self.device) {}
    }

    fn open(&mut self, at: usize) {
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

    /// One byte, which the host takes.
    fn say(&mut self, at: usize, seq: u32) {
        let before = self.host.taken;
        self.send(at, Tcp { seq, ..Tcp::default() }.acking(self.acks[at]).data(b"x"));
        assert_eq!(self.host.taken, before + 1, "connection {at}");
        self.drain();
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn a_hundred_thousand_connections_answer_and_cost_a_kibibyte_each() {
    let count = usize::try_from(FLOWS).unwrap();
    let mut config = engine_config();
    config.max_flows = FLOWS;
    let (host, device) = (Null::default(), Sink::default());
    let mut crowd = Crowd { engine: Engine::new(config), host, device, acks: Vec::with_capacity(count) };
    crowd.open(0);
    let before = resident();
    for at in 1..count {
        crowd.open(at);
    }
    let each = (resident() - before) / count;
    println!("{each} bytes each");
    assert_eq!(crowd.engine.flow_count(), count);
    assert!(each <= EACH, "{each} bytes each");
    for at in 0..count {
        crowd.say(at, 1001);
    }
    assert!((resident() - before) / count <= EACH, "after a second byte");

    for at in (0..count).rev() {
        crowd.send(at, Tcp { seq: 1002, ..Tcp::default() }.with(flag::RST));
    }
    assert_eq!(crowd.engine.flow_count(), 0);
}
