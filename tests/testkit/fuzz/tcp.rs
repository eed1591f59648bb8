//! One TCP connection, both ends doing anything: whatever happens, no byte is lost, doubled, moved or invented.
//!
//! The guest sends a pattern: data at a sequence number is always the pattern's data for it, in whatever pieces, order
//! and repetition; the server sends another. So at every moment
//!
//! * what the server has read is a prefix of the guest's pattern, and the guest gets only bytes of the server's;
//! * the engine never acknowledges what was not sent, and never takes back window that it gave
//!   (RFC 9293 §3.8.6: a receiver should not shrink the window);
//! * nothing is sent beyond the window that the guest gave;
//!
//! and at the end, unless the connection was reset, the server has read all that was acknowledged to the guest.

use super::{BUDGET, afford};
use crate::packet::{Body, Options, Tcp, flag, len16};
use crate::pattern;
use crate::raw_guest::{RawGuest, RawTcp, usual_options};
use crate::upstream::tcp::{Script, Service};
use crate::world::World;
use arbitrary::{Arbitrary, Unstructured};
use core::time::Duration;

#[derive(Debug, Arbitrary)]
struct Setup {
    v6: bool,
    mss: Option<u16>,
    scale: Option<u8>,
    sack: bool,
    timestamps: bool,
    stall: bool,
}

#[derive(Debug, Arbitrary)]
enum Action {
    /// Sends pattern data from `back` bytes before (or `ahead` behind) what was sent furthest.
    Data {
        back: u16,
        ahead: u16,
        len: u16,
        fin: bool,
        psh: bool,
    },
    /// Acknowledges all but the last so many bytes.
    Ack {
        less: u16,
        window: u16,
    },
    /// Duplicate acknowledgement with SACK blocks, relative to what was acknowledged.
    Sack {
        blocks: Vec<(u16, u16)>,
    },
    /// A segment with any flags and sequence numbers near the right ones. No data.
    Odd {
        flags: u8,
        seq: i16,
        ack: i16,
    },
    ServerSend(u16),
    ServerFinish,
    ServerStall(bool),
    Wait(u16),
}

struct Session {
    end: RawTcp,
    /// Our window scale.
    scale: u8,
    /// Sequence number of the first byte of data in each direction.
    our_first: u32,
    their_first: u32,
    /// Furthest sequence number sent, FIN excluded.
    sent: u32,
    fin_at: Option<u32>,
    /// Bytes of theirs in order, from the first on.
    received: u32,
    /// Right edges of the windows, as bytes from the first.
    their_edge: u32,
    our_edge: u32,
    acked: u32,
    reset: bool,
    /// The guest said something that may rightly end the connection.
    abused: bool,
    /// Bytes that both ends may still send.
    budget: usize,
}

/// One open connection, and both ends doing anything; the streams must stay intact.
pub fn tcp_actions(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(setup) = Setup::arbitrary(&mut input) else { return };
    let mut world = super::world();
    let script =
        Script { source_seed: 2, expect: Some(1), stay: true, stall: setup.stall, ..Script::default() };
    world.host.serve_otherwise(Service::Talk(script));
    let mut session = Session::open(&mut world, &setup);
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        let Ok(action) = Action::arbitrary(&mut input) else { break };
        session.act(&mut world, &action);
        world.run_for(Duration::from_millis(1));
        session.look(&mut world);
    }
    session.finish(&mut world);
}

impl Session {
    fn open(world: &mut World<RawGuest>, setup: &Setup) -> Self {
        let remote = if setup.v6 { "[2001:db8::1]:80" } else { "192.0.2.1:80" };
        let mut end = RawTcp::to(remote);
        // Around the wrap of sequence numbers.
        end.seq = 0xffff_f000;
        end.clock = setup.timestamps.then_some(1000);
        let options = Options {
            mss: setup.mss,
            scale: setup.scale.map(|s| s % 20),
            sack_permitted: setup.sack,
            ..usual_options()
        };
        let scale = options.scale.map(|s| s.min(14));
        let end = RawTcp::open_with(world, end, options);
        let scale = if end.theirs.scale.is_some() { scale.unwrap_or(0) } else { 0 };
        Self {
            our_first: end.seq,
            their_first: end.ack,
            sent: 0,
            fin_at: None,
            received: 0,
            their_edge: u32::from(end.their_window),
            our_edge: u32::from(end.window) << scale,
            acked: 0,
            reset: false,
            abused: false,
            budget: BUDGET,
            scale,
            end,
        }
    }

    fn act(&mut self, world: &mut World<RawGuest>, action: &Action) {
        if let Some(clock) = &mut self.end.clock {
            *clock += 1;
        }
        match action {
            Action::Data { back, ahead, len, fin, psh } => self.data(world, *back, *ahead, *len, *fin, *psh),
            Action::Ack { less, window } => {
                let ack = self.received.saturating_sub(u32::from(*less));
                self.our_edge = self.our_edge.max(ack + (u32::from(*window) << self.scale));
                let mut segment = self.end.segment().window(*window);
                segment.ack = self.their_first.wrapping_add(ack);
                self.send(world, segment);
            }
            Action::Sack { blocks } => {
                let edge = |n: u16| self.their_first.wrapping_add(self.received + u32::from(n));
                let blocks: Vec<_> = blocks.iter().take(3).map(|(l, r)| (edge(*l), edge(*r))).collect();
                let segment = self.end.segment().window(self.end.window).sack(&blocks);
                self.our_edge = self.our_edge.max(self.received + (u32::from(segment.window) << self.scale));
                self.send(world, segment);
            }
            Action::Odd { flags, seq, ack } => {
                self.abused = true;
                let mut segment = self.end.segment().window(self.end.window);
                segment.flags = *flags;
                segment.seq = segment.seq.wrapping_add_signed(i32::from(*seq));
                segment.ack = segment.ack.wrapping_add_signed(i32::from(*ack));
                self.our_edge = u32::MAX / 2;
                self.send(world, segment);
            }
            Action::ServerSend(len) => {
                let from = world.host.peer(0).written;
                let data = pattern::bytes(2, from, afford(&mut self.budget, *len));
                world.host.peer_send(0, &data, false);
            }
            Action::ServerFinish => world.host.peer_send(0, &[], true),
            Action::ServerStall(stall) => world.host.peer_stall(0, *stall),
            Action::Wait(ms) => {
                world.run_for(Duration::from_millis(u64::from(*ms)));
            }
        }
    }

    fn data(&mut self, world: &mut World<RawGuest>, back: u16, ahead: u16, len: u16, fin: bool, psh: bool) {
        let from = (self.sent + u32::from(ahead % 4096)).saturating_sub(u32::from(back));
        let len = afford(&mut self.budget, len.min(60_000));
        let mut len = u32::from(len16(len));
        if let Some(end) = self.fin_at {
            len = len.min(end.saturating_sub(from));
        }
        let from = self.fin_at.map_or(from, |end| from.min(end));
        let fin = self.fin_at.map_or(fin, |end| from + len == end);
        let payload = pattern::bytes(1, u64::from(from), usize::try_from(len).expect("small"));
        self.sent = self.sent.max(from + len);
        // Data may have been sent beyond this end before; then it is none.
        let fin = fin && from + len == self.sent;
        let mut segment = self.end.segment().data(payload);
        segment.seq = self.our_first.wrapping_add(from);
        if fin {
            self.fin_at = Some(from + len);
            segment = segment.with(flag::FIN);
        }
        if psh {
            segment = segment.with(flag::PSH);
        }
        self.our_edge = self.our_edge.max(self.received + (u32::from(segment.window) << self.scale));
        self.end.seq = self.our_first.wrapping_add(self.sent + u32::from(self.fin_at == Some(self.sent)));
        self.send(world, segment);
    }

    fn send(&self, world: &mut World<RawGuest>, segment: Tcp) {
        let mut packet = segment.packet(self.end.local, self.end.remote);
        packet.traffic_class = 0;
        drop(segment);
        world.guest.send(&packet);
    }

    /// Checks what the guest got.
    fn look(&mut self, world: &mut World<RawGuest>) {
        for frame in world.guest.take() {
            let Body::Tcp(_, segment) = frame.body else { continue };
            if segment.has(flag::RST) {
                self.reset = true;
            }
            if segment.has(flag::SYN) || self.reset {
                continue;
            }
            self.look_at(&segment);
        }
        let peer = world.host.peer(0);
        assert_eq!(peer.mismatch, None, "the server read bytes that the guest did not send there");
        assert!(peer.received <= u64::from(self.sent), "the server read more than was sent");
    }

    fn look_at(&mut self, segment: &Tcp) {
        let from = segment.seq.wrapping_sub(self.their_first);
        // A keepalive or window probe repeats the byte before.
        let before = from == u32::MAX || (from > u32::MAX / 2 && segment.payload.is_empty());
        if !before {
            let wrong = pattern::mismatch(2, u64::from(from), &segment.payload);
            assert_eq!(wrong, None, "the guest got bytes that the server did not send there: {segment:?}");
            let end = from + u32::from(len16(segment.payload.len()));
            // One byte beyond the window is a probe.
            assert!(
                end <= self.our_edge.saturating_add(1),
                "{end} is beyond the window's edge {}",
                self.our_edge
            );
            if from <= self.received && end > self.received {
                self.received = end;
                self.end.ack = self.their_first.wrapping_add(end);
            }
            if segment.has(flag::FIN) && end == self.received {
                self.end.ack = self.their_first.wrapping_add(end + 1);
            }
        }
        if let Some((value, _)) = segment.options.timestamps {
            self.end.echo = value;
        }
        let acked = segment.ack.wrapping_sub(self.our_first);
        let most = self.sent + u32::from(self.fin_at.is_some());
        assert!(self.abused || acked <= most, "{acked} acknowledged of {most}");
        if acked <= most {
            self.acked = self.acked.max(acked);
        }
        let edge = acked.wrapping_add(self.end.scaled(segment));
        let far = self.their_edge.wrapping_sub(edge);
        assert!(
            far == 0 || far > u32::MAX / 2,
            "the window's edge fell back from {} to {edge}",
            self.their_edge
        );
        self.their_edge = edge;
    }

    fn finish(mut self, world: &mut World<RawGuest>) {
        world.host.peer_stall(0, false);
        for _ in 0..50 {
            world.run_for(Duration::from_millis(200));
            self.look(world);
        }
        let peer = world.host.peer(0);
        let data = self.acked.min(self.sent);
        if !self.reset && !self.abused && !peer.reset {
            assert!(
                peer.received >= u64::from(data),
                "{} of {data} acknowledged bytes arrived",
                peer.received
            );
            assert_eq!(peer.finished, self.fin_at.is_some_and(|at| self.acked > at), "end-of-file");
        }
    }
}
