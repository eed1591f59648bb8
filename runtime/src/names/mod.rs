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
//! What was learned holds for the host's network as it was. Whether that has changed is asked of the kernel when
//! somebody asks us, so that a host whose links come and go wakes nobody who is idle.
//!
//! Names that are known here ([`Known`]) are answered without any of that.
//!
//! Tokens: one for each place of an exchange. An event that was under way when its exchange ended finds another one
//! there, or none, and then there is nothing to receive.

mod exchanges;
mod local;
mod servers;
mod streams;

pub use local::{Found, Known, Local};

use exchanges::Exchanges;
use servers::Servers;
use slipway_dns::forward::{Action, AttemptId, Fault, Forwarder, Policy, Question, Received};
use slipway_dns::io::conversation::Verdict;
use slipway_dns::io::exchange::{Exchange, LONGEST, fault};
use slipway_dns::message::Query as DnsQuery;
use slipway_dns::message::Transport;
use slipway_host::driver::{Driver, Interest};
use slipway_host::netlink::{Changes, Monitor};
use slipway_host::random;
use slipway_host::scope::ZonedAddr;
use slipway_host::strerror::words;
use slipway_netstack::within::dns::{Asker, Query};
use slipway_netstack::{FlowId, Instant};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::time::Duration;
use streams::{Peer, Streams};

/// Messages read from one socket in one turn. All but one are forged or late.
const ROUNDS: usize = 8;

/// The resolver behind the DNS address.
#[derive(Debug)]
pub(crate) struct Names {
    sources: Sources,
    /// From the first query on.
    at_work: Option<Box<AtWork>>,
    /// Tells whether the host's links, addresses or routes have changed. At work, the resolver has it.
    network: Option<Monitor>,
    heeds_network: bool,
    policy: Policy,
    tokens: Range<u32>,
}

/// Where answers come from.
#[derive(Debug, Default)]
struct Sources {
    /// In the first place, if there is anything.
    local: Option<Box<dyn Known>>,
    servers: Servers,
}

#[derive(Debug)]
struct AtWork {
    forwarder: Forwarder<Client>,
    network: Option<Monitor>,
    streams: Streams,
    exchanges: Exchanges,
    /// Connections to nameservers that are not read from, and for which client's sake.
    paused: Vec<(FlowId, AttemptId)>,
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
    /// One without servers, in a process that may have so many `descriptors`.
    pub(crate) fn new(tokens: Range<u32>, descriptors: usize) -> Self {
        let policy = policy(descriptors);
        Self {
            sources: Sources::default(),
            at_work: None,
            network: None,
            heeds_network: false,
            policy,
            tokens,
        }
    }

    /// Heeds changes of the network that this process is in. Without that nothing is kept: it might be of another
    /// network.
    pub(crate) fn heed_network(&mut self) {
        // Once: later the filter of system calls would end us.
        if !std::mem::replace(&mut self.heeds_network, true) {
            match Monitor::open() {
                Ok(monitor) => self.network = Some(monitor),
                Err(error) => log::info!("answers of nameservers are not kept: {error}"),
            }
        }
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
    pub(crate) fn set_local(&mut self, local: Box<dyn Known>) {
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
            let Some(at_work) =
                at_work(&mut self.at_work, &mut self.network, (self.policy, self.tokens.start))
            else {
                return;
            };
            let client = Client::Datagram(asker);
            let question = Question { client, source, transport: Transport::Udp, message: &message, servers };
            at_work.heed_network();
            at_work.forwarder.ask(since_start(now), question);
            at_work.act(now, &self.sources, driver);
        }
        while let Some((flow, stream)) = driver.dns_stream() {
            let Some(guest) = driver.guest_of(flow) else { continue };
            let Some(at_work) =
                at_work(&mut self.at_work, &mut self.network, (self.policy, self.tokens.start))
            else {
                return;
            };
            at_work.streams.accept(Peer { flow, source: guest.ip() }, stream, since_start(now));
        }
        if let Some(at_work) = &mut self.at_work {
            let since = since_start(now);
            while let Some(flow) = driver.dns_news() {
                at_work.heed_network();
                let AtWork { streams, forwarder, .. } = &mut **at_work;
                streams.serve(flow, since, |peer, message, out| {
                    ask(forwarder, peer, message, out, &self.sources, since)
                });
            }
            at_work.act(now, &self.sources, driver);
            at_work.go_on(now, &self.sources, driver);
            while let Some(flow) = at_work.streams.excess() {
                driver.reset(flow);
            }
            driver.count_memory(at_work.streams.held());
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
            driver.count_memory(at_work.streams.held());
        }
    }
}

/// How questions are treated in a process that may have so many descriptors.
pub(crate) fn policy(descriptors: usize) -> Policy {
    Policy::trusted().within(descriptors)
}

/// The resolver at work.
fn at_work<'a>(
    at_work: &'a mut Option<Box<AtWork>>,
    network: &mut Option<Monitor>,
    (policy, first_token): (Policy, u32),
) -> Option<&'a mut AtWork> {
    if at_work.is_none() {
        match AtWork::new(policy, network.take(), first_token) {
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
    fn new(mut policy: Policy, network: Option<Monitor>, first_token: u32) -> std::io::Result<Self> {
        policy.cache = policy.cache.filter(|_| network.is_some());
        Ok(Self {
            forwarder: Forwarder::new(policy, random::bytes()?),
            network,
            streams: Streams::default(),
            exchanges: Exchanges::default(),
            paused: Vec::new(),
            buffer: vec![0; LONGEST],
            first_token,
        })
    }

    /// Forgets what was learned if the host's network has changed.
    fn heed_network(&mut self) {
        if let Some(network) = &mut self.network
            && network.changes().map_or(true, Changes::any)
        {
            self.forwarder.forget();
        }
    }

    fn on_ready(&mut self, token: u32, now: Instant, sources: &Sources, driver: &mut Driver) {
        let Some(exchange) = self.exchanges.at(token - self.first_token) else { return };
        let (attempt, server, writing) = (exchange.attempt, exchange.server, exchange.wants_write());
        let now_since = since_start(now);
        let mut rounds = 0..ROUNDS;
        while rounds.next().is_some() {
            if exchange.paused {
                // Not because there is something to read: it has failed.
                self.forwarder.failed(now_since, attempt, Fault::Broken);
                break;
            }
            match exchange.receive(&mut self.buffer) {
                Ok(None) => break,
                Ok(Some(message)) => match self.forwarder.received(now_since, attempt, server, message) {
                    // All that has been read, and no more in this turn.
                    Received::Part if exchange.has_more() => rounds = 0..ROUNDS,
                    Received::Mismatch if exchange.may_have_more() => {}
                    Received::Mismatch => {
                        self.forwarder.failed(now_since, attempt, Fault::Broken);
                        break;
                    }
                    Received::Part | Received::Accepted | Received::Stale => break,
                },
                Err(error) => {
                    log::debug!("nameserver {}: {error}", sources.servers.name(server));
                    self.forwarder.failed(now_since, attempt, fault(&error));
                    break;
                }
            }
        }
        if writing
            && !exchange.wants_write()
            && let Err(error) = driver.modify(exchange.as_fd(), Interest::READ, token)
        {
            log::debug!("nameserver {}: {error}", sources.servers.name(server));
            self.forwarder.failed(now_since, attempt, fault(&error));
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
                    let repeated = self.exchanges.of(attempt).map(|(_, exchange)| exchange.repeat(&message));
                    if let Some(Err(error)) = repeated {
                        log::debug!("nameserver: {error}");
                        self.forwarder.failed(since_start(now), attempt, fault(&error));
                    }
                }
                Action::Close { attempt } => {
                    if let Some(exchange) = self.exchanges.remove(attempt) {
                        driver.unwatch(exchange.as_fd());
                    }
                }
                Action::Part { attempt, client: Client::Stream(flow), message } => {
                    match self.streams.part(flow, &message, since_start(now)) {
                        Some(true) => {}
                        Some(false) => self.pause(flow, attempt, driver),
                        None => self.forwarder.failed(since_start(now), attempt, Fault::Broken),
                    }
                }
                // Such answers come over TCP alone.
                Action::Part { client: Client::Datagram(_), .. } => {}
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

    /// The client of that attempt takes no more for now.
    fn pause(&mut self, flow: FlowId, attempt: AttemptId, driver: &mut Driver) {
        let Some((place, exchange)) = self.exchanges.of(attempt) else { return };
        if !std::mem::replace(&mut exchange.paused, true) {
            let token = self.first_token.saturating_add(place);
            if let Err(error) = driver.modify(exchange.as_fd(), Interest::NONE, token) {
                log::debug!("nameserver: {error}");
            }
            self.paused.push((flow, attempt));
        }
    }

    /// Reads on where clients have room again.
    fn go_on(&mut self, now: Instant, sources: &Sources, driver: &mut Driver) {
        for (flow, attempt) in std::mem::take(&mut self.paused) {
            match self.streams.has_room(flow) {
                Some(false) => self.paused.push((flow, attempt)),
                Some(true) => {
                    let Some((place, exchange)) = self.exchanges.of(attempt) else { continue };
                    exchange.paused = false;
                    let token = self.first_token.saturating_add(place);
                    if let Err(error) = driver.modify(exchange.as_fd(), Interest::READ, token) {
                        self.forwarder.failed(since_start(now), attempt, fault(&error));
                    }
                }
                None => self.forwarder.failed(since_start(now), attempt, Fault::Broken),
            }
        }
        self.act(now, sources, driver);
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
        let from = driver.peek_engine().config().outbound.toward(server.ip()).address;
        let opened = sources.servers.find(server).and_then(|at| {
            let mut exchange = Exchange::open((attempt, at), transport, from, message)?;
            exchange.server = server;
            let token = self.first_token.saturating_add(self.exchanges.next_place());
            let interest = if exchange.wants_write() { Interest::BOTH } else { Interest::READ };
            driver.watch(exchange.as_fd(), interest, token)?;
            self.exchanges.insert(exchange);
            Ok(())
        });
        if let Err(error) = opened {
            log::debug!("nameserver {}: {error}", sources.servers.name(server));
            self.forwarder.failed(since_start(now), attempt, fault(&error));
        }
    }
}

/// Time as the forwarder wants it.
fn since_start(now: Instant) -> Duration {
    now - Instant::ZERO
}
