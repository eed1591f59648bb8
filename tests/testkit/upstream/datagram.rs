//! UDP and ping sockets of the simulated host, and the servers that answer them.

use core::net::{IpAddr, SocketAddr};
use slipway_netstack::upstream::{DatagramError, Empty, Errno, Event, Meta, Received};
use slipway_netstack::{FlowId, Instant};
use std::collections::VecDeque;

/// What a UDP server does with a datagram.
#[derive(Debug, Clone, Copy)]
pub enum UdpService {
    /// Nothing; it is recorded all the same.
    Lose,
    /// Sends it back.
    Echo,
    /// Sends the answer that this function makes of it.
    Answer(fn(&[u8]) -> Vec<u8>),
    /// Sends this many datagrams of this many bytes of [`crate::pattern`] (seed 0, each from position 0).
    Train {
        /// How many.
        count: usize,
        /// Bytes in each.
        size: usize,
    },
    /// Nobody listens: the error queue says so.
    Refuse,
    /// A router complains.
    Complain {
        /// What the kernel makes of it.
        error: Errno,
        /// The router.
        reporter: IpAddr,
        /// ICMP type and code.
        icmp: (u8, u8),
    },
}

impl UdpService {
    pub(super) fn answer(self, socket: &mut DatagramSocket, at: Instant, to: SocketAddr, payload: &[u8]) {
        let meta = Meta::default();
        match self {
            Self::Lose => {}
            Self::Echo => socket.arrive(at, to, 0, payload.to_vec(), meta),
            Self::Answer(make) => socket.arrive(at, to, 0, make(payload), meta),
            Self::Train { count, size } => {
                for _ in 0..count {
                    socket.arrive(at, to, 0, crate::pattern::bytes(0, 0, size), meta);
                }
            }
            Self::Refuse => {
                let icmp = if to.is_ipv4() { (3, 3) } else { (1, 4) };
                let reporter = Some(to.ip());
                socket.complain(
                    at,
                    DatagramError { to, error: Errno::Refused, reporter, icmp: Some(icmp), sequence: None },
                );
            }
            Self::Complain { error, reporter, icmp } => {
                let (reporter, icmp) = (Some(reporter), Some(icmp));
                socket.complain(at, DatagramError { to, error, reporter, icmp, sequence: None });
            }
        }
    }
}

/// What happens to an echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EchoService {
    /// Nothing.
    Lose,
    /// It is answered.
    Reply,
    /// A router complains.
    Complain {
        /// What the kernel makes of it.
        error: Errno,
        /// The router.
        reporter: IpAddr,
        /// ICMP type and code.
        icmp: (u8, u8),
    },
}

impl EchoService {
    pub(super) fn answer(self, socket: &mut DatagramSocket, at: Instant, to: SocketAddr, data: &[u8]) {
        match self {
            Self::Lose => {}
            Self::Reply => {
                let from = SocketAddr::new(to.ip(), 0);
                socket.arrive(at, from, to.port(), data.to_vec(), Meta::default());
            }
            Self::Complain { error, reporter, icmp } => {
                let (to, sequence) = (SocketAddr::new(to.ip(), 0), Some(to.port()));
                let (reporter, icmp) = (Some(reporter), Some(icmp));
                socket.complain(at, DatagramError { to, error, reporter, icmp, sequence });
            }
        }
    }
}

/// One socket.
#[derive(Debug)]
pub(super) struct DatagramSocket {
    v4: bool,
    ping: bool,
    coming: VecDeque<(Instant, Arrival)>,
    inbox: VecDeque<Message>,
    errors: VecDeque<DatagramError>,
    /// The engine was told that there is something to read and has not found it empty since.
    told: bool,
    told_error: bool,
}

#[derive(Debug)]
enum Arrival {
    Message(Message),
    Error(DatagramError),
}

#[derive(Debug)]
struct Message {
    from: SocketAddr,
    sequence: u16,
    payload: Vec<u8>,
    meta: Meta,
}

/// What fits into the kernel's default receive buffer, roughly; the rest is lost.
const INBOX: usize = 256;

impl DatagramSocket {
    pub(super) const fn new(v4: bool, ping: bool) -> Self {
        Self {
            v4,
            ping,
            coming: VecDeque::new(),
            inbox: VecDeque::new(),
            errors: VecDeque::new(),
            told: false,
            told_error: false,
        }
    }

    pub(super) fn check(&self, to: SocketAddr, ping: bool) {
        assert_eq!(self.v4, to.is_ipv4(), "a datagram to {to} from a socket of the other family");
        assert_eq!(self.ping, ping, "a UDP call on a ping socket, or the reverse");
    }

    pub(super) fn arrive(
        &mut self,
        at: Instant,
        from: SocketAddr,
        sequence: u16,
        payload: Vec<u8>,
        meta: Meta,
    ) {
        self.coming.push_back((at, Arrival::Message(Message { from, sequence, payload, meta })));
    }

    pub(super) fn complain(&mut self, at: Instant, error: DatagramError) {
        self.coming.push_back((at, Arrival::Error(error)));
    }

    pub(super) fn advance(
        &mut self,
        now: Instant,
        flow: FlowId,
        eager: bool,
        events: &mut VecDeque<(FlowId, Event)>,
    ) {
        while self.coming.front().is_some_and(|(at, _)| *at <= now) {
            match self.coming.pop_front() {
                Some((_, Arrival::Message(message))) if self.inbox.len() < INBOX => {
                    self.inbox.push_back(message);
                    if eager || !self.told {
                        self.told = true;
                        events.push_back((flow, Event::Readable));
                    }
                }
                Some((_, Arrival::Error(error))) if self.errors.len() < INBOX => {
                    self.errors.push_back(error);
                    if eager || !self.told_error {
                        self.told_error = true;
                        events.push_back((flow, Event::Error));
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn receive(&mut self, into: &mut [u8], gro: bool) -> Result<(u16, Received), Empty> {
        assert!(into.len() >= 65_535, "a receive buffer of {} bytes", into.len());
        let Some(first) = self.inbox.pop_front() else {
            self.told = false;
            return Err(Empty);
        };
        let (from, meta, segment) = (first.from, first.meta, first.payload.len());
        let mut len = segment;
        into[..len].copy_from_slice(&first.payload);
        let mut count = 1;
        while gro && segment > 0 && count < 64 {
            let fits = |m: &Message| {
                let size = m.payload.len();
                m.from == from && m.meta == meta && (1..=segment).contains(&size) && len + size <= 65_507
            };
            if !self.inbox.front().is_some_and(fits) {
                break;
            }
            let Some(next) = self.inbox.pop_front() else { break };
            let size = next.payload.len();
            into[len..len + size].copy_from_slice(&next.payload);
            len += size;
            count += 1;
            if size < segment {
                break;
            }
        }
        Ok((first.sequence, Received { len, segment, from, meta }))
    }

    pub(super) fn take_error(&mut self) -> Result<DatagramError, Empty> {
        self.errors.pop_front().ok_or_else(|| {
            self.told_error = false;
            Empty
        })
    }
}
