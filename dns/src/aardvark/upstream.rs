//! The forwarder's sockets: one for each attempt at a server.
//!
//! Whom to ask, how long to wait and what to say in the end is decided by the [`Forwarder`], which has no socket. Here
//! its actions are carried out: an [`Exchange`] is opened, and closed when the attempt is over.
//!
//! Queries under way are bounded by the policy, and by the descriptors that this process may have. A connection whose
//! messages (of a zone transfer) nobody takes at the moment is not read from: the server has to wait.

use super::slab::{Key, Slab};
use super::token::Source;
use crate::forward::{Action, AttemptId, Counters, Fault, Forwarder, Policy, Question, Received};
use crate::io::exchange::{Exchange, LONGEST, fault};
use crate::message::Transport;
use nix::sys::epoll::EpollFlags;
use slipway_host::epoll::EventSet;
use slipway_host::netlink::{Changes, Monitor};
use slipway_host::random;
use slipway_host::sys::message::Name;
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// Messages read from one socket in one turn. All but one are forged or late.
const ROUNDS: usize = 8;

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
    /// It is not the end: more messages come from this attempt.
    pub(super) part: Option<AttemptId>,
}

/// All queries under way.
#[derive(Debug)]
pub(super) struct Forwards {
    forwarder: Forwarder<Client>,
    sockets: Slab<Exchange>,
    places: HashMap<AttemptId, Key>,
    /// Connections that are not read from, and for which client's sake.
    paused: Vec<(Key, AttemptId)>,
    /// Tells whether the network has changed, if anything is kept.
    network: Option<Monitor>,
    finished: VecDeque<Finished>,
    buffer: Vec<u8>,
}

impl Forwards {
    /// Nothing is under way. `descriptors`: how many this process may have.
    pub(super) fn new(policy: Policy, descriptors: usize) -> io::Result<Self> {
        let mut policy = policy.within(descriptors);
        let network = policy.cache.and_then(|_| Monitor::open().ok());
        // What is kept may be of another network if changes are not told.
        policy.cache = policy.cache.filter(|_| network.is_some());
        Ok(Self {
            forwarder: Forwarder::new(policy, random::bytes()?),
            paused: Vec::new(),
            network,
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
        if let Some(network) = &mut self.network
            && network.changes().map_or(true, Changes::any)
        {
            self.forwarder.forget();
        }
        self.forwarder.ask(now, Question { client, source, transport, message, servers });
        self.act(now, events);
    }

    /// The client of that attempt takes no more for now.
    pub(super) fn pause(&mut self, client: Key, attempt: AttemptId, events: &EventSet) {
        let Some(exchange) = self.places.get(&attempt).and_then(|key| self.sockets.get_mut(*key)) else {
            return;
        };
        if !std::mem::replace(&mut exchange.paused, true) {
            self.listen(attempt, EpollFlags::empty(), events);
            self.paused.push((client, attempt));
        }
    }

    /// Reads on where clients have room again; `has_room` says whether one has, or is gone.
    pub(super) fn go_on(&mut self, now: Duration, events: &EventSet, has_room: impl Fn(Key) -> Option<bool>) {
        let paused = std::mem::take(&mut self.paused);
        for (client, attempt) in paused {
            match has_room(client) {
                Some(false) => self.paused.push((client, attempt)),
                Some(true) => {
                    let exchange = self.places.get(&attempt).and_then(|key| self.sockets.get_mut(*key));
                    if let Some(exchange) = exchange {
                        exchange.paused = false;
                        self.listen(attempt, EpollFlags::EPOLLIN, events);
                    }
                }
                None => self.abandon(attempt, now, events),
            }
        }
    }

    /// The client of that attempt is gone.
    pub(super) fn abandon(&mut self, attempt: AttemptId, now: Duration, events: &EventSet) {
        self.forwarder.failed(now, attempt, Fault::Broken);
        self.act(now, events);
    }

    fn listen(&self, attempt: AttemptId, wanted: EpollFlags, events: &EventSet) {
        let Some(key) = self.places.get(&attempt) else { return };
        let Some(exchange) = self.sockets.get(*key) else { return };
        if let Err(error) = events.modify(exchange.as_fd(), Source::Upstream(key.index()).token(), wanted) {
            log::debug!("{}: {error}", exchange.server);
        }
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
        let mut rounds = 0..ROUNDS;
        while rounds.next().is_some() {
            if exchange.paused {
                // Not because there is something to read: it has failed.
                forwarder.failed(now, attempt, Fault::Broken);
                break;
            }
            match exchange.receive(buffer) {
                Ok(None) => break,
                Ok(Some(message)) => match forwarder.received(now, attempt, server, message) {
                    // All that has been read, and no more in this turn.
                    Received::Part if exchange.has_more() => rounds = 0..ROUNDS,
                    Received::Mismatch if exchange.may_have_more() => {}
                    Received::Mismatch => {
                        forwarder.failed(now, attempt, Fault::Broken);
                        break;
                    }
                    Received::Part | Received::Accepted | Received::Stale => break,
                },
                Err(error) => {
                    log::debug!("{server}: {error}");
                    forwarder.failed(now, attempt, fault(&error));
                    break;
                }
            }
        }
        if writing && !exchange.wants_write() {
            let token = Source::Upstream(index).token();
            if let Err(error) = events.modify(exchange.as_fd(), token, EpollFlags::EPOLLIN) {
                log::debug!("{server}: {error}");
                forwarder.failed(now, attempt, fault(&error));
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
                Action::Part { attempt, client, message } => {
                    self.finished.push_back(Finished { client, reply: Some(message), part: Some(attempt) });
                }
                Action::Reply { client, message } => {
                    self.finished.push_back(Finished { client, reply: Some(message), part: None });
                }
                Action::GiveUp { client } => {
                    self.finished.push_back(Finished { client, reply: None, part: None });
                }
            }
        }
    }

    fn repeat(&mut self, now: Duration, attempt: AttemptId, message: &[u8]) {
        let exchange = self.places.get(&attempt).and_then(|key| self.sockets.get(*key));
        if let Some(exchange) = exchange
            && let Err(error) = exchange.repeat(message)
        {
            log::debug!("{}: {error}", exchange.server);
            self.forwarder.failed(now, attempt, fault(&error));
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
            Ok(None) => self.forwarder.failed(now, attempt, Fault::Ours),
            Err(error) => {
                log::debug!("{server}: {error}");
                self.forwarder.failed(now, attempt, fault(&error));
            }
        }
    }
}
