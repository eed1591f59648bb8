//! TCP of the simulated host: one connection from the engine's socket to the server's application.
//!
//! Not a TCP: the path loses nothing, so a connection is two queues with delays. What is modelled is what the engine
//! can see and what has hurt its predecessors:
//!
//! * the **send buffer** begins small, holds bytes until the server has acknowledged them, and grows only while
//!   somebody keeps it full (`tcp_sndbuf_expand` in the kernel); it reports room again when a third of it is free;
//! * the **receive buffer** closes the server's window when nobody consumes, and grows with consumption;
//! * closing a socket with unread data resets the connection and takes what was unsent with it.
//!
//! The server is a [`Script`]; what it saw is a [`Peer`].

use super::HostConfig;
use crate::pattern;
use core::net::SocketAddr;
use core::time::Duration;
use slipway_netstack::upstream::{Errno, Event, Peek, Sent};
use slipway_netstack::{FlowId, Instant};
use std::collections::VecDeque;

/// What happens to a connection attempt.
#[derive(Debug, Clone)]
pub enum Service {
    /// It fails after a round trip.
    Fail(Errno),
    /// The call itself fails.
    FailAtOnce(Errno),
    /// Nobody answers until the kernel gives up.
    Silent(Duration),
    /// Somebody accepts and does this.
    Talk(Script),
}

/// What a server does. All counts are bytes.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Sends so many bytes of [`pattern`], then closes its half.
    pub source: Option<u64>,
    /// Seed of the pattern it sends.
    pub source_seed: u64,
    /// Sends back what it receives.
    pub echo: bool,
    /// Checks what it receives against this pattern.
    pub expect: Option<u64>,
    /// Keeps what it receives, for [`Peer::data`].
    pub keep: bool,
    /// Does not read.
    pub stall: bool,
    /// Keeps its half open when the other closes.
    pub stay: bool,
    /// Resets the connection once it has received so much.
    pub reset_after: Option<u64>,
    /// Closes its half once it has received so much, and goes on reading.
    pub finish_after: Option<u64>,
}

impl Script {
    /// Sends back what it receives, closes when the other does.
    #[must_use]
    pub fn echo() -> Service {
        Service::Talk(Self { echo: true, ..Self::default() })
    }

    /// Reads the pattern `seed` to its end.
    #[must_use]
    pub fn sink(seed: u64) -> Service {
        Service::Talk(Self { expect: Some(seed), ..Self::default() })
    }

    /// Sends `len` bytes of the pattern `seed` and closes.
    #[must_use]
    pub fn source(len: u64, seed: u64) -> Service {
        Service::Talk(Self { source: Some(len), source_seed: seed, ..Self::default() })
    }

    /// Keeps what it receives, and does what the test tells it by hand.
    #[must_use]
    pub fn manual() -> Service {
        Service::Talk(Self { keep: true, stay: true, ..Self::default() })
    }
}

/// The server's end of a connection, as its application saw it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The server's address, or the client's for an inbound connection.
    pub address: SocketAddr,
    /// Whose connection.
    pub flow: FlowId,
    /// The connection came about.
    pub connected: bool,
    /// Bytes read.
    pub received: u64,
    /// The bytes, if the script keeps them.
    pub data: Vec<u8>,
    /// The first position where they were wrong.
    pub mismatch: Option<u64>,
    /// End-of-file was read.
    pub finished: bool,
    /// The connection was reset by the host.
    pub reset: bool,
    /// Places of the urgent bytes among those that the host sent.
    pub urgent: Vec<u64>,
    /// Bytes given to its own kernel to send.
    pub sent: u64,
    /// Bytes that the test let the server write by hand, sent or not.
    pub written: u64,
    /// When the last byte was read.
    pub last: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting(Instant, Option<Errno>),
    Open,
    Dead(Errno),
}

#[derive(Debug)]
enum Signal {
    Data(Vec<u8>),
    Fin,
    Rst,
}

/// One direction of the path.
#[derive(Debug, Default)]
struct Wire {
    signals: VecDeque<(Instant, Signal)>,
    /// Nanoseconds.
    free_at: u64,
}

impl Wire {
    fn push(&mut self, now: Instant, config: &HostConfig, signal: Signal) {
        let len = if let Signal::Data(data) = &signal { count(data.len()) } else { 0 };
        let duration = config.bandwidth.map_or(0, |rate| len * 1_000_000_000 / rate);
        self.free_at = self.free_at.max(now.as_micros() * 1000) + duration;
        let at = Instant::from_micros(self.free_at / 1000) + config.delay;
        self.signals.push_back((at, signal));
    }

    fn due(&self, now: Instant) -> Option<&Signal> {
        self.signals.front().filter(|(at, _)| *at <= now).map(|(_, signal)| signal)
    }

    fn next(&self) -> Option<Instant> {
        self.signals.front().map(|(at, _)| *at)
    }
}

/// Numbers that come into force later.
#[derive(Debug, Default)]
struct Later(VecDeque<(Instant, usize)>);

impl Later {
    fn push(&mut self, at: Instant, number: usize) {
        match self.0.back_mut() {
            Some((last, sum)) if *last == at => *sum += number,
            _ => self.0.push_back((at, number)),
        }
    }

    fn take(&mut self, now: Instant) -> usize {
        let mut sum = 0;
        while self.0.front().is_some_and(|(at, _)| *at <= now) {
            sum += self.0.pop_front().map_or(0, |(_, number)| number);
        }
        sum
    }

    fn next(&self) -> Option<Instant> {
        self.0.front().map(|(at, _)| *at)
    }
}

/// A connection: socket, path, server.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) peer: Peer,
    flow: FlowId,
    script: Script,
    state: State,
    /// The engine has closed the socket; the kernel carries on alone.
    orphan: bool,
    broken: Option<Errno>,
    wake: Option<Instant>,
    // Towards the server.
    send_cap: usize,
    unacked: usize,
    wants_room: bool,
    acked: usize,
    was_full: bool,
    shut: bool,
    /// Bytes taken from the engine.
    taken: u64,
    up: Wire,
    acks: Later,
    unread: VecDeque<u8>,
    // Towards the engine.
    receive_cap: usize,
    outstanding: usize,
    queue: VecDeque<u8>,
    peeked: usize,
    /// The last urgent byte that the server wrote, and how many bytes were consumed: places in its stream.
    mark: Option<u64>,
    gone: u64,
    end: bool,
    told: bool,
    down: Wire,
    updates: Later,
    consumed: usize,
    pending: VecDeque<u8>,
    source_left: u64,
    finishing: bool,
    finished: bool,
}

/// The path's largest unit: what GSO carries.
const UNIT: usize = 64 << 10;

/// At most so many bytes from the front of a queue, copied as slices: byte by byte would be half the cost of a
/// simulation.
fn take(queue: &mut VecDeque<u8>, most: usize) -> Vec<u8> {
    let len = most.min(queue.len());
    let (front, back) = queue.as_slices();
    let split = len.min(front.len());
    let taken = [&front[..split], &back[..len - split]].concat();
    queue.drain(..len);
    taken
}

fn count(len: usize) -> u64 {
    u64::try_from(len).expect("a length")
}

impl Conn {
    pub(super) fn connecting(
        flow: FlowId,
        to: SocketAddr,
        service: Service,
        config: &HostConfig,
        now: Instant,
    ) -> Self {
        let (script, after, result) = match service {
            Service::Talk(script) => (script, config.delay * 2, None),
            Service::Fail(errno) | Service::FailAtOnce(errno) => {
                (Script::default(), config.delay * 2, Some(errno))
            }
            Service::Silent(after) => (Script::default(), after, Some(Errno::TimedOut)),
        };
        let mut conn = Self::new(flow, to, script, config);
        conn.state = State::Connecting(now + after, result);
        conn
    }

    pub(super) fn accepted(
        flow: FlowId,
        client: SocketAddr,
        script: Script,
        config: &HostConfig,
        now: Instant,
    ) -> Self {
        let mut conn = Self::new(flow, client, script, config);
        conn.peer.connected = true;
        conn.peer.last = now;
        conn
    }

    fn new(flow: FlowId, address: SocketAddr, script: Script, config: &HostConfig) -> Self {
        Self {
            peer: Peer {
                address,
                flow,
                connected: false,
                received: 0,
                data: Vec::new(),
                mismatch: None,
                finished: false,
                reset: false,
                urgent: Vec::new(),
                sent: 0,
                written: 0,
                last: Instant::ZERO,
            },
            flow,
            state: State::Open,
            orphan: false,
            broken: None,
            wake: None,
            send_cap: config.send_buffer.initial,
            unacked: 0,
            wants_room: false,
            acked: 0,
            was_full: false,
            shut: false,
            taken: 0,
            up: Wire::default(),
            acks: Later::default(),
            unread: VecDeque::new(),
            receive_cap: config.receive_buffer.initial,
            outstanding: 0,
            queue: VecDeque::new(),
            peeked: 0,
            mark: None,
            gone: 0,
            end: false,
            told: false,
            down: Wire::default(),
            updates: Later::default(),
            consumed: 0,
            pending: VecDeque::new(),
            source_left: script.source.unwrap_or(0),
            finishing: script.source.is_some(),
            finished: false,
            script,
        }
    }

    pub(super) fn wants_wake(&mut self, at: Instant) -> bool {
        let earlier = self.wake.is_none_or(|wake| at < wake);
        if earlier {
            self.wake = Some(at);
        }
        earlier
    }

    pub(super) fn is_woken_at(&self, at: Instant) -> bool {
        self.wake == Some(at)
    }

    /// Bytes that have arrived and were not taken.
    pub(super) fn unread(&self) -> usize {
        self.queue.len()
    }

    // ── what the test does to the server ───────────────────────────────────────────────────────────────

    pub(super) fn peer_send(&mut self, data: &[u8], finish: bool) {
        if self.finished || self.finishing {
            return;
        }
        self.pending.extend(data);
        self.peer.written += count(data.len());
        self.finishing |= finish;
    }

    /// The last byte written is urgent.
    pub(super) const fn peer_urges(&mut self) {
        self.mark = self.peer.written.checked_sub(1);
    }

    pub(super) fn peer_reset(&mut self, now: Instant) {
        self.pending.clear();
        self.source_left = 0;
        self.down.signals.clear();
        // Delivered with the next advance after the path's delay: the delay of what was cleared does not matter.
        self.down.signals.push_back((now, Signal::Rst));
    }

    pub(super) const fn stall(&mut self, stall: bool) {
        self.script.stall = stall;
    }

    pub(super) const fn fail(&mut self, errno: Errno) {
        self.broken = Some(errno);
    }

    // ── time ───────────────────────────────────────────────────────────────────────────────────────────

    /// Does what is due; says when there is more to do.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        config: &HostConfig,
        events: &mut VecDeque<(FlowId, Event)>,
    ) -> Option<Instant> {
        self.wake = None;
        let mut told = Vec::new();
        if let State::Connecting(at, result) = self.state {
            if at > now {
                return Some(at);
            }
            self.state = result.map_or(State::Open, State::Dead);
            self.peer.connected = result.is_none();
            told.push(result.map_or(Event::Connected, Event::Failed));
        }
        if let Some(errno) = self.broken.take() {
            self.state = State::Dead(errno);
            told.push(Event::Failed(errno));
        }
        // What arrives may cause something that is due at once when the path has no delay.
        while self.server_reads(now, config)
            | self.server_writes(now, config)
            | self.arrives(now, config, &mut told)
        {}
        self.room(now, config, &mut told);
        if !self.orphan {
            events.extend(told.into_iter().map(|event| (self.flow, event)));
        }
        // A server that does not read is woken by the test, not by time.
        let up = self.up.next().filter(|at| *at > now);
        [up, self.down.next(), self.acks.next(), self.updates.next()].into_iter().flatten().min()
    }

    fn server_reads(&mut self, now: Instant, config: &HostConfig) -> bool {
        let mut progress = false;
        if !self.script.stall && !self.unread.is_empty() {
            let data = take(&mut self.unread, usize::MAX);
            self.read(now, config, &data);
            progress = true;
        }
        while let Some(signal) = self.up.due(now) {
            if let Signal::Data(data) = signal
                && self.script.stall
                && self.unread.len() + data.len() > config.peer_buffer
            {
                break;
            }
            progress = true;
            match self.up.signals.pop_front() {
                Some((_, Signal::Data(data))) => {
                    self.acks.push(now + config.delay, data.len());
                    if self.script.stall {
                        self.unread.extend(data);
                    } else {
                        self.read(now, config, &data);
                    }
                }
                Some((_, Signal::Fin)) => {
                    self.peer.finished = true;
                    self.finishing |= !self.script.stay;
                }
                Some((_, Signal::Rst)) => {
                    self.peer.reset = true;
                    self.forget_down();
                }
                None => {}
            }
        }
        progress
    }

    fn read(&mut self, now: Instant, config: &HostConfig, data: &[u8]) {
        if let Some(seed) = self.script.expect
            && self.peer.mismatch.is_none()
        {
            self.peer.mismatch = pattern::mismatch(seed, self.peer.received, data);
        }
        if self.script.keep {
            self.peer.data.extend_from_slice(data);
        }
        if self.script.echo {
            self.pending.extend(data);
        }
        self.peer.received += count(data.len());
        self.peer.last = now;
        if self.script.finish_after.is_some_and(|at| self.peer.received >= at) {
            self.finishing = true;
        }
        if self.script.reset_after.is_some_and(|at| self.peer.received >= at) && !self.finished {
            self.finished = true;
            self.forget_down();
            self.down.push(now, config, Signal::Rst);
        }
    }

    fn forget_down(&mut self) {
        self.pending.clear();
        self.source_left = 0;
        self.finishing = false;
        self.down.signals.clear();
    }

    fn server_writes(&mut self, now: Instant, config: &HostConfig) -> bool {
        self.outstanding -= self.updates.take(now);
        let mut progress = false;
        while self.outstanding < self.receive_cap && !self.finished {
            let room = UNIT.min(self.receive_cap - self.outstanding);
            let data = if self.source_left > 0 {
                let len = room.min(usize::try_from(self.source_left).unwrap_or(room));
                self.source_left -= count(len);
                pattern::bytes(self.script.source_seed, self.peer.sent, len)
            } else {
                take(&mut self.pending, room)
            };
            if data.is_empty() {
                break;
            }
            self.peer.sent += count(data.len());
            self.outstanding += data.len();
            self.down.push(now, config, Signal::Data(data));
            progress = true;
        }
        if self.finishing && !self.finished && self.source_left == 0 && self.pending.is_empty() {
            self.finished = true;
            self.down.push(now, config, Signal::Fin);
            progress = true;
        }
        progress
    }

    fn arrives(&mut self, now: Instant, config: &HostConfig, told: &mut Vec<Event>) -> bool {
        let mut progress = false;
        while self.down.due(now).is_some() {
            progress = true;
            let mut readable = false;
            match self.down.signals.pop_front() {
                Some((_, Signal::Data(data))) if self.orphan => {
                    // Nobody can read it any more: the kernel resets the connection.
                    self.outstanding -= data.len();
                    self.forget_down();
                    self.up.push(now, config, Signal::Rst);
                }
                Some((_, Signal::Data(data))) => {
                    self.queue.extend(data);
                    readable = true;
                }
                Some((_, Signal::Fin)) => {
                    self.end = true;
                    readable = true;
                }
                Some((_, Signal::Rst)) => {
                    self.state = State::Dead(Errno::Reset);
                    self.up.signals.clear();
                    told.push(Event::Failed(Errno::Reset));
                }
                None => {}
            }
            if readable && self.urgent().is_some() {
                self.told = true;
                told.push(Event::Urgent);
            } else if readable && (config.eager || !self.told) {
                self.told = true;
                told.push(Event::Readable);
            }
        }
        progress
    }

    fn room(&mut self, now: Instant, config: &HostConfig, told: &mut Vec<Event>) {
        let acked = self.acks.take(now);
        self.unacked -= acked;
        self.acked += acked;
        if self.was_full && self.acked >= self.send_cap / 2 {
            self.send_cap = config.send_buffer.max.min(self.send_cap * 2);
            (self.acked, self.was_full) = (0, false);
        }
        if self.wants_room && self.unacked <= self.send_cap - self.send_cap / 3 {
            self.wants_room = false;
            told.push(Event::Writable);
        }
    }

    // ── the engine's calls ─────────────────────────────────────────────────────────────────────────────

    fn check_connected(&self, call: &str) {
        let connecting = matches!(self.state, State::Connecting(..));
        assert!(!connecting, "{call} on {:?} before it was connected", self.flow);
    }

    pub(super) fn send(&mut self, now: Instant, config: &HostConfig, pieces: &[&[u8]]) -> Sent {
        self.check_connected("tcp_send");
        assert!(!self.shut, "tcp_send on {:?} after tcp_shutdown", self.flow);
        if let State::Dead(errno) = self.state {
            return Sent::Failed(errno);
        }
        let offered = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let taken = offered.min(self.send_cap.saturating_sub(self.unacked));
        let mut left = taken;
        for piece in pieces {
            let part = &piece[..left.min(piece.len())];
            left -= part.len();
            for unit in part.chunks(UNIT) {
                self.up.push(now, config, Signal::Data(unit.to_vec()));
            }
        }
        self.unacked += taken;
        self.taken += count(taken);
        if taken < offered {
            self.wants_room = true;
            self.was_full = true;
        }
        Sent::Taken(taken)
    }

    pub(super) fn send_urgent(&mut self, now: Instant, config: &HostConfig, byte: u8) -> Sent {
        let sent = self.send(now, config, &[&[byte]]);
        if sent == Sent::Taken(1) {
            self.peer.urgent.push(self.taken - 1);
        }
        sent
    }

    pub(super) fn urgent(&self) -> Option<usize> {
        let offset = usize::try_from(self.mark?.checked_sub(self.gone)?).ok()?;
        (offset < self.queue.len()).then_some(offset)
    }

    pub(super) fn peek(&mut self, offset: usize, into: &mut [u8]) -> Peek {
        self.check_connected("tcp_peek");
        assert!(!into.is_empty(), "tcp_peek into nothing");
        let there = self.queue.len();
        assert!(offset <= there, "tcp_peek at {offset} of {:?}, which has {there} bytes", self.flow);
        // As the kernel does: a peek stops short of the urgent byte.
        let end = self.urgent().filter(|mark| *mark > offset).unwrap_or(there);
        let len = into.len().min(end - offset);
        if len == 0 {
            return match (self.state, self.end) {
                (State::Dead(errno), _) => Peek::Failed(errno),
                (_, true) => Peek::End,
                _ => {
                    self.told = false;
                    Peek::Empty
                }
            };
        }
        let (front, back) = self.queue.as_slices();
        let from_front = front.get(offset..).unwrap_or(&[]);
        let split = len.min(from_front.len());
        into[..split].copy_from_slice(&from_front[..split]);
        let skip = offset.saturating_sub(front.len());
        into[split..len].copy_from_slice(&back[skip..skip + len - split]);
        self.peeked = self.peeked.max(offset + len);
        Peek::Data(len)
    }

    pub(super) fn consume(&mut self, now: Instant, config: &HostConfig, count: usize) {
        self.check_connected("tcp_consume");
        assert!(count <= self.peeked, "{:?} consumes {count} bytes of {} peeked", self.flow, self.peeked);
        self.queue.drain(..count);
        self.gone += u64::try_from(count).expect("a length");
        self.peeked -= count;
        self.updates.push(now + config.delay, count);
        self.consumed += count;
        if self.consumed >= self.receive_cap {
            self.consumed = 0;
            self.receive_cap = config.receive_buffer.max.min(self.receive_cap * 2);
        }
    }

    pub(super) fn shutdown(&mut self, now: Instant, config: &HostConfig) {
        self.check_connected("tcp_shutdown");
        assert!(!self.shut, "a second tcp_shutdown on {:?}", self.flow);
        self.shut = true;
        if self.state == State::Open {
            self.up.push(now, config, Signal::Fin);
        }
    }

    pub(super) fn reset(&mut self, now: Instant, config: &HostConfig) {
        self.orphan = true;
        self.up.signals.clear();
        if self.state == State::Open {
            self.up.push(now, config, Signal::Rst);
        }
        self.state = State::Dead(Errno::BadSocket);
        self.drop_queue();
    }

    pub(super) fn close(&mut self, now: Instant, config: &HostConfig) {
        if self.state == State::Open && !self.queue.is_empty() {
            self.reset(now, config);
            return;
        }
        self.orphan = true;
        if self.state == State::Open && !self.shut {
            self.shut = true;
            self.up.push(now, config, Signal::Fin);
        }
        if matches!(self.state, State::Connecting(..)) {
            self.state = State::Dead(Errno::BadSocket);
        }
        self.drop_queue();
    }

    /// The memory of an ended connection is given back: a scenario may open many.
    fn drop_queue(&mut self) {
        self.outstanding -= self.queue.len();
        self.queue = VecDeque::new();
        self.peeked = 0;
    }
}
