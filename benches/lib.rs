//! Bench bodies: the engine between a guest that is a list of frames and a host that takes everything.
//!
//! The bodies are ordinary functions, so that the wall-clock benches (`criterion/`) and those that count instructions
//! (`instructions/`) run the same code. Frames come from the testkit's packet writer, built before the clock starts.
//! The null host accepts every connection and swallows every byte, or offers zeros without end: what is left is the
//! engine itself.

#![forbid(unsafe_code)]

mod crowd;

pub use crowd::Crowd;

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use slipway_netstack::device::vnet::Checksum;
use slipway_netstack::device::{Capabilities, Device, Full, Offload};
use slipway_netstack::upstream::{
    DatagramError, Empty, Errno, Event, Meta, Peek, Received, Sent, Source, Upstream,
};
use slipway_netstack::{Engine, FlowId, Instant};

use testkit::packet::{Ip, Options, Tcp, Udp, ethernet, flag};
use testkit::world::{ENGINE_MAC, GUEST_MAC, GUEST4, engine_config};

const REMOTE: ([u8; 4], u16) = ([198, 51, 100, 1], 80);

/// The least that a connection's window is.
const WINDOW: usize = 65_535;

/// A host that takes everything and, if told so, has zeros to read for ever.
#[derive(Debug, Default)]
pub struct Null {
    /// The flows that were opened.
    pub opened: Vec<FlowId>,
    /// Bytes taken.
    pub taken: usize,
    /// Whether a peek finds data.
    pub source: bool,
}

impl Upstream for Null {
    fn tcp_connect(&mut self, flow: FlowId, _: SocketAddr, _: Source, _: u8) -> Result<(), Errno> {
        self.opened.push(flow);
        Ok(())
    }

    fn tcp_connect_dns(&mut self, flow: FlowId) -> Result<(), Errno> {
        self.opened.push(flow);
        Ok(())
    }

    fn tcp_send(&mut self, _: FlowId, pieces: &[&[u8]]) -> Sent {
        let offered = pieces.iter().map(|piece| piece.len()).sum();
        self.taken += offered;
        Sent::Taken(offered)
    }

    fn tcp_peek(&mut self, _: FlowId, _: usize, into: &mut [u8]) -> Peek {
        if self.source { Peek::Data(into.len()) } else { Peek::Empty }
    }

    fn tcp_send_urgent(&mut self, _: FlowId, _: u8) -> Sent {
        Sent::Taken(1)
    }

    fn tcp_urgent(&mut self, _: FlowId) -> Option<usize> {
        None
    }

    fn tcp_consume(&mut self, _: FlowId, _: usize) {}
    fn tcp_class(&mut self, _: FlowId, _: u8) {}

    fn tcp_shutdown(&mut self, _: FlowId) {}
    fn tcp_keepalive(&mut self, _: FlowId, _: Duration, _: Duration) {}
    fn tcp_reset(&mut self, _: FlowId) {}

    fn udp_open(&mut self, flow: FlowId, _: IpAddr, _: Source) -> Result<(), Errno> {
        self.opened.push(flow);
        Ok(())
    }

    fn udp_send(&mut self, _: FlowId, _: SocketAddr, data: &[u8], _: usize, _: Meta) -> Result<(), Errno> {
        self.taken += data.len();
        Ok(())
    }

    fn udp_receive(&mut self, _: FlowId, _: &mut [u8]) -> Result<Received, Empty> {
        Err(Empty)
    }

    fn take_error(&mut self, _: FlowId) -> Result<DatagramError, Empty> {
        Err(Empty)
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

    fn close(&mut self, _: FlowId) {}
}

/// A device that keeps the last frame and counts bytes.
#[derive(Debug, Default)]
pub struct Sink {
    /// The last frame.
    pub last: Vec<u8>,
    /// Bytes of all frames.
    pub bytes: usize,
}

impl Device for Sink {
    fn transmit(&mut self, _: Offload, frame: &[u8]) -> Result<(), Full> {
        self.last.clear();
        self.last.extend_from_slice(black_box(frame));
        self.bytes += frame.len();
        Ok(())
    }
}

/// An engine with one open TCP connection.
#[derive(Debug)]
pub struct Connection {
    /// The engine.
    pub engine: Engine,
    /// Its host.
    pub host: Null,
    /// Its device.
    pub device: Sink,
    flow: FlowId,
    seq: u32,
    ack: u32,
}

fn guest() -> SocketAddr {
    SocketAddr::from((GUEST4, 40_000))
}

fn frame(ip: &Ip) -> Vec<u8> {
    ethernet(ENGINE_MAC, GUEST_MAC, &ip.emit())
}

const VERIFIED: Offload = Offload { checksum: Checksum::Verified, gso: None };

impl Connection {
    /// Opens it; `mss` is what the guest announces.
    ///
    /// # Panics
    /// When the handshake does not come about.
    #[must_use]
    pub fn open(mss: u16, device: Capabilities) -> Self {
        let mut config = engine_config();
        config.device = device;
        let mut engine = Engine::new(config);
        let (mut host, mut sink) = (Null::default(), Sink::default());
        let options = Options { mss: Some(mss), scale: Some(10), sack_permitted: true, ..Options::default() };
        let syn = Tcp { seq: 999, window: u16::MAX, options, ..Tcp::default() }.with(flag::SYN);
        engine.on_frame(Instant::ZERO, VERIFIED, &frame(&syn.packet(guest(), REMOTE.into())), &mut host);
        let flow = *host.opened.first().expect("the engine opens a socket");
        engine.on_upstream(Instant::ZERO, flow, Event::Connected, &mut host);
        while engine.drain(Instant::ZERO, &mut host, &mut sink) {}
        // Ethernet, IPv4, then the sequence number. The checksum may be only partial, so no parser is asked.
        let number = sink.last.get(14 + 20 + 4..14 + 20 + 8).expect("an answer to the SYN");
        let answer = u32::from_be_bytes(number.try_into().expect("four bytes"));
        let mut connection =
            Self { engine, host, device: sink, flow, seq: 1000, ack: answer.wrapping_add(1) };
        // The window in the SYN is not scaled; these make the engine tell the real one.
        for frame in connection.frames(4, 1460) {
            connection.deliver(&frame);
        }
        connection.seq += 4 * 1460;
        while connection.engine.drain(Instant::ZERO, &mut connection.host, &mut connection.device) {}
        connection.host.taken = 0;
        connection
    }

    fn segment(&self, payload: &[u8]) -> Vec<u8> {
        let tcp = Tcp { seq: self.seq, window: u16::MAX, ..Tcp::default() }.acking(self.ack).data(payload);
        frame(&tcp.packet(guest(), REMOTE.into()))
    }

    /// The next `count` data frames of the guest, each with `payload` bytes.
    #[must_use]
    pub fn frames(&self, count: u32, payload: u16) -> Vec<Vec<u8>> {
        let data = vec![0x5a; usize::from(payload)];
        let mut end = Self { seq: self.seq, ..Self::blank(self) };
        (0..count)
            .map(|_| {
                let frame = end.segment(&data);
                end.seq = end.seq.wrapping_add(u32::from(payload));
                frame
            })
            .collect()
    }

    fn blank(like: &Self) -> Self {
        Self {
            engine: Engine::new(engine_config()),
            host: Null::default(),
            device: Sink::default(),
            flow: like.flow,
            seq: like.seq,
            ack: like.ack,
        }
    }

    fn deliver(&mut self, frame: &[u8]) {
        self.engine.on_frame(Instant::ZERO, VERIFIED, frame, &mut self.host);
    }

    /// Guest to host: takes the frames in batches, as the event loop does, each within the window that a guest sees.
    pub fn upload(&mut self, frames: &[Vec<u8>]) -> usize {
        let length = frames.first().map_or(1, Vec::len);
        for batch in frames.chunks((WINDOW / length).max(1)) {
            for frame in batch {
                self.deliver(frame);
            }
            while self.engine.drain(Instant::ZERO, &mut self.host, &mut self.device) {}
        }
        self.host.taken
    }

    /// Host to guest: sends until the guest's window is full; gives the bytes of all frames.
    pub fn download(&mut self) -> usize {
        self.host.source = true;
        self.engine.on_upstream(Instant::ZERO, self.flow, Event::Readable, &mut self.host);
        while self.engine.drain(Instant::ZERO, &mut self.host, &mut self.device) {}
        self.device.bytes
    }
}

/// Frames of `count` datagrams from the guest, all from one socket.
#[must_use]
pub fn datagrams(count: usize, payload: usize) -> Vec<Vec<u8>> {
    let data = vec![0x5a; payload];
    vec![frame(&Udp::packet(guest(), REMOTE.into(), &data)); count]
}

/// Carries datagrams to the host; gives the bytes that it took.
pub fn send_datagrams(engine: &mut Engine, host: &mut Null, device: &mut Sink, frames: &[Vec<u8>]) -> usize {
    for batch in frames.chunks(64) {
        for frame in batch {
            engine.on_frame(Instant::ZERO, VERIFIED, frame, host);
        }
        while engine.drain(Instant::ZERO, host, device) {}
    }
    host.taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_really_carried() {
        let mut connection = Connection::open(1460, Capabilities::default());
        let frames = connection.frames(100, 1460);
        assert_eq!(connection.upload(&frames), 146_000);
        let before = connection.device.bytes;
        assert!(connection.download() - before > 1 << 20, "{}", connection.device.bytes);
        let (mut engine, mut host) = (Engine::new(engine_config()), Null::default());
        assert_eq!(
            send_datagrams(&mut engine, &mut host, &mut Sink::default(), &datagrams(100, 1400)),
            140_000
        );
    }
}
