//! What the DNS address knows: queries that the engine hands out, resolved by the forwarder of `slipway_dns`.
//!
//! ```text
//!   guest ─▶ engine ─▶ dns_query, dns_stream ─▶ Forwarder ─▶ Exchange: one socket for each attempt at a nameserver
//!   guest ◀─ engine ◀─ dns_answer, the stream ◀─    │    ◀─
//!                                                 cache
//! ```
//! The policy is the trusted one: servers that do not answer are asked last for a while, answers are kept for their
//! TTL, a truncated answer is fetched over TCP for a guest that has room for it, and when nobody answers the guest is
//! told. A query over TCP is treated the same way, only that servers are asked over TCP. What the resolver costs before
//! the first query is nothing: its key is drawn and its buffer made then.
//!
//! Names that are known here ([`Local`]) are answered without any of that.
//!
//! Tokens: one for each place of an exchange. An event that was under way when its exchange ended finds another one
//! there, or none, and then there is nothing to receive.

mod local;
mod servers;
mod streams;

pub(crate) use local::Local;

use local::Found;
use servers::Servers;
use slipway_dns::answer::Transport;
use slipway_dns::forward::{Action, AttemptId, Forwarder, Policy, Question, Received};
use slipway_dns::message::Query as DnsQuery;
use slipway_dns::server::conversation::Verdict;
use slipway_dns::server::exchange::{Exchange, LONGEST};
use slipway_host::driver::{Driver, Interest};
use slipway_host::random;
use slipway_host::words::words;
use slipway_host::zone::ZonedAddr;
use slipway_netstack::within::dns::{Asker, Query};
use slipway_netstack::{FlowId, Instant};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::time::Duration;
use streams::{Peer, Streams};

/// Queries under way. Each has a descriptor, or a few.
pub(crate) const MAX_PENDING: u16 = 128;
/// Messages read from one socket in one turn. All but one are forged or late.
const ROUNDS: usize = 8;

/// The resolver behind the DNS address.
#[derive(Debug)]
pub(crate) struct Names {
    sources: Sources,
    /// From the first query on.
    at_work: Option<Box<AtWork>>,
    tokens: Range<u32>,
}

/// Where answers come from.
#[derive(Debug, Default)]
struct Sources {
    /// In the first place, if there is anything.
    local: Option<Local>,
    servers: Servers,
}

#[derive(Debug)]
struct AtWork {
    forwarder: Forwarder<Client>,
    streams: Streams,
    exchanges: Vec<Option<Exchange>>,
    buffer: Vec<u8>,
    first_token: u32,
}

/// Whom to give an answer.
#[derive(Debug, Clone, Copy)]
enum Client {
    /// A datagram.
    Datagram(Asker),
    /// The connection of this flow.
    Stream(FlowId),
}

impl Names {
    /// One without servers.
    pub(crate) fn new(tokens: Range<u32>) -> Self {
        Self { sources: Sources::default(), at_work: None, tokens }
    }

    /// The nameservers to ask, most preferred first. What was learned from others is forgotten.
    pub(crate) fn set_servers(&mut self, servers: &[ZonedAddr]) {
        self.sources.servers = Servers::new(servers);
        for (server, error) in self.sources.servers.out_of_reach() {
            log::warn!("nameserver {server} is not used for now: {}", words(&error));
        }
        if let Some(at_work) = &mut self.at_work {
            at_work.forwarder.forget();
        }
    }

    /// The names that are known here, from now on.
    pub(crate) fn set_local(&mut self, local: Local) {
        self.sources.local = Some(local);
    }

    pub(crate) fn owns(&self, token: u32) -> bool {
        self.tokens.contains(&token)
    }

    /// Takes the queries of the last round.
    pub(crate) fn serve(&mut self, now: Instant, driver: &mut Driver) {
        let mut out = Vec::new();
        while let Some(Query { asker, message }) = driver.dns_query() {
            let source = asker.guest.ip();
            let servers = match self.sources.find(source, Transport::Udp, &message, &mut out) {
                Found::Answer => {
                    driver.engine().dns_answer(&asker, &out);
                    continue;
                }
                Found::Nothing => continue,
                Found::Host => self.sources.servers.known(),
                Found::Servers(listed) => listed,
            };
            let Some(at_work) = at_work(&mut self.at_work, self.tokens.start) else { return };
            let client = Client::Datagram(asker);
            let question = Question { client, source, transport: Transport::Udp, message: &message, servers };
            at_work.forwarder.ask(since_start(now), question);
            at_work.act(now, &self.sources, driver);
        }
        while let Some((flow, stream)) = driver.dns_stream() {
            let Some(guest) = driver.guest_of(flow) else { continue };
            let Some(at_work) = at_work(&mut self.at_work, self.tokens.start) else { return };
            at_work.streams.accept(Peer { flow, source: guest.ip() }, stream, since_start(now));
        }
        if let Some(at_work) = &mut self.at_work {
            let AtWork { streams, forwarder, .. } = &mut **at_work;
            let since = since_start(now);
            while let Some(flow) = driver.dns_news() {
                streams.serve(flow, since, |peer, message, out| {
                    ask(forwarder, peer, message, out, &self.sources, since)
                });
            }
            at_work.act(now, &self.sources, driver);
            while let Some(flow) = at_work.streams.excess() {
                driver.reset(flow);
            }
        }
    }

    /// The socket behind a token is ready.
    pub(crate) fn on_ready(&mut self, token: u32, now: Instant, driver: &mut Driver) {
        if let Some(at_work) = &mut self.at_work {
            at_work.on_ready(token, now, &self.sources, driver);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let at_work = self.at_work.as_ref()?;
        let due = [at_work.forwarder.deadline(), at_work.streams.deadline()].into_iter().flatten().min();
        Some(Instant::ZERO + due?)
    }

    pub(crate) fn on_deadline(&mut self, now: Instant, driver: &mut Driver) {
        if let Some(at_work) = &mut self.at_work {
            at_work.forwarder.timeout(since_start(now));
            at_work.act(now, &self.sources, driver);
            at_work.streams.on_deadline(since_start(now));
        }
    }
}

/// The resolver at work.
fn at_work(at_work: &mut Option<Box<AtWork>>, first_token: u32) -> Option<&mut AtWork> {
    if at_work.is_none() {
        match AtWork::new(first_token) {
            Ok(fresh) => *at_work = Some(Box::new(fresh)),
            Err(error) => log::warn!("no names are resolved: {error}"),
        }
    }
    at_work.as_deref_mut()
}

/// A query came over a stream.
fn ask(
    forwarder: &mut Forwarder<Client>,
    Peer { flow, source }: Peer,
    message: &[u8],
    out: &mut Vec<u8>,
    sources: &Sources,
    now: Duration,
) -> Verdict {
    let servers = match sources.find(source, Transport::Tcp, message, out) {
        Found::Answer => return Verdict::Answered,
        Found::Nothing => return Verdict::Close,
        Found::Host => sources.servers.known(),
        Found::Servers(listed) => listed,
    };
    let client = Client::Stream(flow);
    forwarder.ask(now, Question { client, source, transport: Transport::Tcp, message, servers });
    Verdict::Later
}

impl Sources {
    fn find<'a>(
        &'a self,
        source: IpAddr,
        transport: Transport,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Found<'a> {
        match &self.local {
            Some(local) => local.find(source, transport, message, out),
            // What is no query is found out by the forwarder, but on a stream it ends the conversation.
            None if transport == Transport::Tcp && DnsQuery::parse(message).is_err() => Found::Nothing,
            None => Found::Host,
        }
    }
}

impl AtWork {
    fn new(first_token: u32) -> std::io::Result<Self> {
        let bound = usize::from(MAX_PENDING);
        let policy = Policy { max_pending: bound, max_per_source: bound, ..Policy::trusted() };
        Ok(Self {
            forwarder: Forwarder::new(policy, random::bytes()?),
            streams: Streams::default(),
            exchanges: Vec::new(),
            buffer: vec![0; LONGEST],
            first_token,
        })
    }

    fn on_ready(&mut self, token: u32, now: Instant, sources: &Sources, driver: &mut Driver) {
        let place = usize::try_from(token - self.first_token).unwrap_or(usize::MAX);
        let Some(Some(exchange)) = self.exchanges.get_mut(place) else { return };
        let (attempt, server, writing) = (exchange.attempt, exchange.server, exchange.wants_write());
        let now_since = since_start(now);
        for _ in 0..ROUNDS {
            match exchange.receive(&mut self.buffer) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    match self.forwarder.received(now_since, attempt, server, message) {
                        Received::Mismatch if exchange.may_have_more() => continue,
                        Received::Mismatch => self.forwarder.failed(now_since, attempt),
                        Received::Accepted | Received::Stale => {}
                    }
                    break;
                }
                Err(error) => {
                    log::debug!("nameserver {}: {error}", sources.servers.name(server));
                    self.forwarder.failed(now_since, attempt);
                    break;
                }
            }
        }
        if writing
            && !exchange.wants_write()
            && let Err(error) = driver.modify(exchange.as_fd(), Interest::READ, token)
        {
            log::debug!("nameserver {}: {error}", sources.servers.name(server));
            self.forwarder.failed(now_since, attempt);
        }
        self.act(now, sources, driver);
    }

    /// Does what the forwarder wants done.
    fn act(&mut self, now: Instant, sources: &Sources, driver: &mut Driver) {
        while let Some(action) = self.forwarder.action() {
            match action {
                Action::SendUdp { attempt, server, message } => {
                    self.open((attempt, server), Transport::Udp, &message, now, sources, driver);
                }
                Action::SendTcp { attempt, server, message } => {
                    self.open((attempt, server), Transport::Tcp, &message, now, sources, driver);
                }
                Action::Repeat { attempt, message } => {
                    let exchange = self.exchanges.iter().flatten().find(|e| e.attempt == attempt);
                    if let Some(Err(error)) = exchange.map(|exchange| exchange.repeat(&message)) {
                        log::debug!("nameserver: {error}");
                        self.forwarder.failed(since_start(now), attempt);
                    }
                }
                Action::Close { attempt } => {
                    let mut places = self.exchanges.iter_mut();
                    let place = places.find(|place| place.as_ref().is_some_and(|e| e.attempt == attempt));
                    if let Some(exchange) = place.and_then(Option::take) {
                        driver.unwatch(exchange.as_fd());
                    }
                }
                Action::Reply { client: Client::Datagram(asker), message } => {
                    driver.engine().dns_answer(&asker, &message);
                }
                Action::GiveUp { client: Client::Datagram(_) } => {}
                Action::Reply { client: Client::Stream(flow), message } => {
                    self.answer(flow, Some(&message), now, sources);
                }
                Action::GiveUp { client: Client::Stream(flow) } => self.answer(flow, None, now, sources),
            }
        }
    }

    /// What a query over a stream has led to. Another one, which it held up, may follow.
    fn answer(&mut self, flow: FlowId, reply: Option<&[u8]>, now: Instant, sources: &Sources) {
        let Self { streams, forwarder, .. } = self;
        let now = since_start(now);
        streams
            .answer(flow, reply, now, |peer, message, out| ask(forwarder, peer, message, out, sources, now));
    }

    fn open(
        &mut self,
        (attempt, server): (AttemptId, SocketAddr),
        transport: Transport,
        message: &[u8],
        now: Instant,
        sources: &Sources,
        driver: &mut Driver,
    ) {
        let from = driver.peek_engine().config().outbound.toward(server.ip());
        let opened = sources.servers.find(server).and_then(|at| {
            let mut exchange = Exchange::open((attempt, at), transport, from, message)?;
            exchange.server = server;
            let place = self.exchanges.iter().position(Option::is_none).unwrap_or(self.exchanges.len());
            let token = self.first_token.saturating_add(u32::try_from(place).unwrap_or(u32::MAX));
            let interest = if exchange.wants_write() { Interest::BOTH } else { Interest::READ };
            driver.watch(exchange.as_fd(), interest, token)?;
            match self.exchanges.get_mut(place) {
                Some(free) => *free = Some(exchange),
                None => self.exchanges.push(Some(exchange)),
            }
            Ok(())
        });
        if let Err(error) = opened {
            log::debug!("nameserver {}: {error}", sources.servers.name(server));
            self.forwarder.failed(since_start(now), attempt);
        }
    }
}

/// Time as the forwarder wants it.
fn since_start(now: Instant) -> Duration {
    now - Instant::ZERO
}
