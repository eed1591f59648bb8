//! The forwarder's sockets: one for each attempt at a server.
//!
//! Whom to ask, how long to wait and what to say in the end is decided by the [`Forwarder`], which has no socket. Here its
//! actions are carried out: an [`Exchange`] is opened, and closed when the attempt is over.
//!
//! Queries under way are bounded by the policy, and by the descriptors that this process may have.

use super::exchange::{Exchange, LONGEST};
use super::slab::{Key, Slab};
use super::token::Source;
use crate::answer::Transport;
use crate::forward::{Action, AttemptId, Counters, Forwarder, Policy, Question, Received};
use nix::sys::epoll::EpollFlags;
use slipway_host::epoll::EventSet;
use slipway_host::random;
use slipway_host::sys::message::Name;
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// Messages read from one socket in one turn. All but one are forged or late.
const ROUNDS: usize = 8;
/// Queries under way for each descriptor that this process may have, as a fraction: the rest is for clients and listeners.
const SHARE: (usize, usize) = (1, 2);

/// Whom to give an answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Client {
    /// A datagram from this listener to this address.
    Udp(Key, Name),
    /// This connection.
    Tcp(Key),
}

/// The end of a query.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) client: Client,
    /// `None`: nothing is said.
    pub(super) reply: Option<Vec<u8>>,
}

/// All queries under way.
#[derive(Debug)]
pub(super) struct Forwards {
    forwarder: Forwarder<Client>,
    sockets: Slab<Exchange>,
    places: HashMap<AttemptId, Key>,
    finished: VecDeque<Finished>,
    buffer: Vec<u8>,
}

impl Forwards {
    /// Nothing is under way. `descriptors`: how many this process may have.
    pub(super) fn new(mut policy: Policy, descriptors: usize) -> io::Result<Self> {
        let (part, whole) = SHARE;
        policy.max_pending = policy.max_pending.min(descriptors / whole * part).max(1);
        Ok(Self {
            forwarder: Forwarder::new(policy, random::bytes()?),
            sockets: Slab::default(),
            places: HashMap::new(),
            finished: VecDeque::new(),
            // Pages never written take no memory.
            buffer: vec![0; LONGEST],
        })
    }

    /// Asks `servers`.
    pub(super) fn ask(
        &mut self,
        client: Client,
        (source, transport): (IpAddr, Transport),
        (message, servers): (&[u8], &[SocketAddr]),
        now: Duration,
        events: &EventSet,
    ) {
        self.forwarder.ask(now, Question { client, source, transport, message, servers });
        self.act(now, events);
    }

    /// The host has other servers now.
    pub(super) fn forget(&mut self) {
        self.forwarder.forget();
    }

    /// What happened so far.
    pub(super) fn counters(&self) -> Counters {
        self.forwarder.counters()
    }

    /// When [`Forwards::on_timeout`] is to be called.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.forwarder.deadline()
    }

    /// Time has passed.
    pub(super) fn on_timeout(&mut self, now: Duration, events: &EventSet) {
        self.forwarder.timeout(now);
        self.act(now, events);
    }

    /// Something happened to the socket in a place.
    pub(super) fn on_event(&mut self, index: u32, now: Duration, events: &EventSet) {
        let Self { forwarder, sockets, buffer, .. } = self;
        let Some(key) = sockets.key(index) else { return };
        let Some(exchange) = sockets.get_mut(key) else { return };
        let (attempt, server, writing) = (exchange.attempt, exchange.server, exchange.wants_write());
        for _ in 0..ROUNDS {
            match exchange.receive(buffer) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    if forwarder.received(now, attempt, server, message) != Received::Mismatch {
                        break;
                    }
                    if !exchange.may_have_more() {
                        forwarder.failed(now, attempt);
                        break;
                    }
                }
                Err(error) => {
                    log::debug!("{server}: {error}");
                    forwarder.failed(now, attempt);
                    break;
                }
            }
        }
        if writing && !exchange.wants_write() {
            let token = Source::Upstream(index).token();
            if let Err(error) = events.modify(exchange.as_fd(), token, EpollFlags::EPOLLIN) {
                log::debug!("{server}: {error}");
                forwarder.failed(now, attempt);
            }
        }
        self.act(now, events);
    }

    /// The next query that has come to its end.
    pub(super) fn finished(&mut self) -> Option<Finished> {
        self.finished.pop_front()
    }

    /// Does what the forwarder wants done.
    fn act(&mut self, now: Duration, events: &EventSet) {
        while let Some(action) = self.forwarder.action() {
            match action {
                Action::SendUdp { attempt, server, message } => {
                    let opened = Exchange::open((attempt, server), Transport::Udp, None, &message);
                    self.opened(now, events, (attempt, server), opened);
                }
                Action::SendTcp { attempt, server, message } => {
                    let opened = Exchange::open((attempt, server), Transport::Tcp, None, &message);
                    self.opened(now, events, (attempt, server), opened);
                }
                Action::Repeat { attempt, message } => self.repeat(now, attempt, &message),
                Action::Close { attempt } => {
                    if let Some(key) = self.places.remove(&attempt) {
                        // Closing takes the descriptor out of the set.
                        self.sockets.remove(key);
                    }
                }
                Action::Reply { client, message } => {
                    self.finished.push_back(Finished { client, reply: Some(message) });
                }
                Action::GiveUp { client } => self.finished.push_back(Finished { client, reply: None }),
            }
        }
    }

    fn repeat(&mut self, now: Duration, attempt: AttemptId, message: &[u8]) {
        let exchange = self.places.get(&attempt).and_then(|key| self.sockets.get(*key));
        if let Some(exchange) = exchange
            && let Err(error) = exchange.repeat(message)
        {
            log::debug!("{}: {error}", exchange.server);
            self.forwarder.failed(now, attempt);
        }
    }

    fn opened(
        &mut self,
        now: Duration,
        events: &EventSet,
        (attempt, server): (AttemptId, SocketAddr),
        opened: io::Result<Exchange>,
    ) {
        let added = opened.and_then(|exchange| {
            let mut added = Err(io::Error::from(ErrorKind::OutOfMemory));
            let key = self.sockets.insert(|key| {
                let mut wanted = EpollFlags::EPOLLIN;
                wanted.set(EpollFlags::EPOLLOUT, exchange.wants_write());
                added = events.add(exchange.as_fd(), Source::Upstream(key.index()).token(), wanted);
                added.is_ok().then_some(exchange)
            });
            added.map(|()| key)
        });
        match added {
            Ok(Some(key)) => drop(self.places.insert(attempt, key)),
            Ok(None) => self.forwarder.failed(now, attempt),
            Err(error) => {
                log::debug!("{server}: {error}");
                self.forwarder.failed(now, attempt);
            }
        }
    }
}
