//! The daemon's loop: what there is, and what happens to it.
//!
//! A reload reads everything first and then replaces everything at once; queries that arrive meanwhile wait in the
//! kernel and are answered by the new snapshot. What goes wrong in it is told in the log, and what works is served.

use super::args::Options;
use super::listener::{BindError, Listeners};
use super::now;
use super::reload::Directory;
use super::tcp::Clients;
use super::tentative::Tentative;
use super::token::Source;
use super::udp::{self, Udp};
use super::upstream::{Client, Finished, Forwards};
use super::world::{self, Asker, HostError, World, host_servers};
use crate::forward::Policy;
use crate::io::conversation::Verdict;
use crate::message::Transport;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::signal::Signal;
use slipway_host::driver::raise_descriptor_limit;
use slipway_host::epoll::{EventSet, Events};
use slipway_host::resolv_conf::Watcher;
use slipway_host::signals::Signals;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

/// Connections accepted from one listener in one turn.
const ACCEPTS: usize = 16;

/// Why the loop ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// No network is left.
    NothingToServe,
    /// The kernel refuses to wait.
    Failed(io::Error),
}

/// What went wrong when everything was read. At the start any of it is fatal.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("unable to parse config: IO error: {0}")]
    Config(io::Error),
    #[error("failed to get upstream nameservers, dns forwarding will not work: {0}")]
    Nameservers(#[from] HostError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("IO error: {0}")]
    System(#[from] io::Error),
}

/// All that went wrong, a line each.
#[derive(Debug)]
pub(super) struct Problems(Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl<E: Into<Problem>> From<E> for Problems {
    fn from(error: E) -> Self {
        Self(vec![error.into()])
    }
}

/// The daemon.
#[derive(Debug)]
pub(super) struct Server {
    options: Options,
    events: EventSet,
    signals: Signals,
    /// Of the file that lists the host's servers.
    watcher: Watcher,
    directory: Directory,
    world: World,
    listeners: Listeners,
    udp: Udp,
    clients: Clients,
    forwards: Forwards,
}

impl Server {
    /// Reads everything and binds every socket. `None`: there is nothing to serve.
    pub(super) fn start(options: &Options, signals: Signals) -> Result<Option<Self>, Problems> {
        let descriptors = raise_limit();
        // With either, answers claim recursion: the name's contract, whatever stands behind.
        let trusted = Policy { claim_recursion: true, ..Policy::trusted() };
        let policy = if options.cache { trusted } else { Policy::aardvark() };
        let events = EventSet::new()?;
        events.add(signals.as_fd(), Source::Signals.token(), EpollFlags::EPOLLIN)?;
        // Watched before it is read, so that no change falls between the two.
        let watcher = Watcher::open(&options.resolv_conf);
        if let Some(fd) = watcher.fd() {
            events.add(fd, Source::ResolvConf.token(), EpollFlags::EPOLLIN)?;
        }
        let mut server = Self {
            options: options.clone(),
            events,
            signals,
            watcher,
            directory: Directory::new(&options.config, world::settings(options)),
            world: World::new(options.log_queries),
            listeners: Listeners::default(),
            udp: Udp::default(),
            clients: Clients::default(),
            forwards: Forwards::new(policy, descriptors)?,
        };
        let (something, problems) = server.reload(Tentative::Await);
        match problems {
            _ if !something => Ok(None),
            Problems(list) if list.is_empty() => Ok(Some(server)),
            problems => Err(problems),
        }
    }

    /// Reads everything again. Whether there is anything to serve, and what went wrong.
    fn reload(&mut self, tentative: Tentative) -> (bool, Problems) {
        let fresh = match self.directory.read() {
            Ok(fresh) => fresh,
            // It may be there again next time; what is served stays.
            Err(error) => return (true, Problem::Config(error).into()),
        };
        let something = fresh.networks().any(|(_, network)| !network.listen().is_empty());
        if !something {
            return (false, Problems(Vec::new()));
        }
        let renumber = self.world.replace(fresh);
        self.clients.renumber(renumber);
        let mut problems: Vec<Problem> = Vec::new();
        match host_servers(&self.options.resolv_conf) {
            Ok(servers) => self.follow_host(servers),
            Err(error) => problems.push(error.into()),
        }
        let Self { listeners, world, options, events, .. } = self;
        let unbound = listeners.follow(world.snapshot(), options, tentative, now(), events);
        problems.extend(unbound.into_iter().map(Problem::from));
        (true, Problems(problems))
    }

    fn follow_host(&mut self, servers: Vec<SocketAddr>) {
        if self.world.set_host(servers) {
            // A cached answer may be what only the old ones say.
            self.forwards.forget();
        }
    }

    /// Serves until there is nothing left to serve.
    pub(super) fn run(&mut self) -> Ended {
        let mut found = Events::default();
        loop {
            let deadlines = [self.listeners.deadline(), self.clients.deadline(), self.forwards.deadline()];
            let deadline = deadlines.into_iter().flatten().min();
            if let Err(error) = self.events.wait(&mut found, deadline.map(|at| at.saturating_sub(now()))) {
                return Ended::Failed(error);
            }
            let now = now();
            for at in 0.. {
                let Some((token, _)) = found.get(at) else { break };
                if let Some(source) = token.and_then(Source::of)
                    && !self.on_event(source, now)
                {
                    return Ended::NothingToServe;
                }
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.listeners.on_timeout(self.world.snapshot(), &self.options, now, &self.events);
                self.clients.on_timeout(now);
                self.forwards.on_timeout(now, &self.events);
            }
            self.deliver(now);
            self.forwards.go_on(now, &self.events, |client| self.clients.has_room(client));
        }
    }

    /// Something happened. `false`: nothing is left to serve.
    fn on_event(&mut self, source: Source, now: Duration) -> bool {
        match source {
            Source::Signals => return self.on_signals(),
            Source::ResolvConf => {
                if self.watcher.changed() {
                    match host_servers(&self.options.resolv_conf) {
                        Ok(servers) => self.follow_host(servers),
                        Err(error) => log::error!("the host's servers stay as they were: {error}"),
                    }
                }
            }
            Source::Udp(index) => self.on_datagrams(index, now),
            Source::Tcp(index) => self.on_connections(index, now),
            Source::Client(index) => self.on_client(index, now),
            Source::Upstream(index) => self.forwards.on_event(index, now, &self.events),
        }
        true
    }

    /// One signal a turn: whoever sends SIGHUP without end must not keep us from answering.
    fn on_signals(&mut self) -> bool {
        match self.signals.next() {
            Ok(Some(Signal::SIGHUP)) => {
                let (something, Problems(problems)) = self.reload(Tentative::Refuse);
                problems.iter().for_each(|problem| log::error!("{problem}"));
                log::debug!("reloaded; {} listeners", self.listeners.len());
                return something;
            }
            Ok(Some(Signal::SIGUSR1)) => {
                self.world.report(&self.forwards.counters(), self.options.stats.as_deref());
            }
            Ok(Some(Signal::SIGUSR2)) => self.world.log_queries = !self.world.log_queries,
            _ => {}
        }
        true
    }

    fn on_datagrams(&mut self, index: u32, now: Duration) {
        let Self { listeners, udp, world, forwards, events, .. } = self;
        let Some((key, listener)) = listeners.at(index) else { return };
        let network = listener.id;
        udp.serve(listener.udp.as_fd(), |name, message, out| {
            let Some(source) = name.decode().map(|address| address.ip()) else { return false };
            let asker = Asker { source, network, transport: Transport::Udp };
            let verdict = world.decide(asker, message, out, |servers| {
                let client = Client::Udp(key, *name);
                forwards.ask(client, (source, Transport::Udp), (message, servers), now, events);
            });
            verdict == Verdict::Answered
        });
    }

    fn on_connections(&mut self, index: u32, now: Duration) {
        let Some((key, listener)) = self.listeners.at(index) else { return };
        for _ in 0..ACCEPTS {
            let error = match listener.tcp.accept() {
                Ok(connection) => match self.clients.accept(connection, listener.id, now, &self.events) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EAGAIN) => return,
                // Out of descriptors or memory: somebody has to go first, or it has to be later.
                Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::ENOSPC) => {
                    log::warn!("accepting on {listener}: {error}");
                    if !self.clients.drop_oldest(None) {
                        listener.mute(key, now, &self.events);
                        return;
                    }
                }
                // About that connection alone (accept(2) passes on errors of the network).
                _ => log::debug!("accepting on {listener}: {error}"),
            }
        }
    }

    fn on_client(&mut self, index: u32, now: Duration) {
        let Self { clients, world, forwards, events, .. } = self;
        clients.on_event(index, now, events, |from, message, out| {
            let asker = Asker { source: from.source, network: from.network, transport: Transport::Tcp };
            world.decide(asker, message, out, |servers| {
                let client = Client::Tcp(from.key);
                forwards.ask(client, (from.source, Transport::Tcp), (message, servers), now, events);
            })
        });
    }

    /// Brings what the forwarder has finished to those who asked.
    fn deliver(&mut self, now: Duration) {
        while let Some(Finished { client, reply, part }) = self.forwards.finished() {
            match client {
                Client::Tcp(key) if part.is_some() => {
                    let (Some(attempt), Some(message)) = (part, reply) else { continue };
                    match self.clients.part(key, &message, now, &self.events) {
                        Some(true) => {}
                        Some(false) => self.forwards.pause(key, attempt, &self.events),
                        None => self.forwards.abandon(attempt, now, &self.events),
                    }
                }
                Client::Udp(key, name) => {
                    let Some(listener) = self.listeners.get(key) else { continue };
                    self.world.finished(listener.id, reply.as_deref());
                    if let Some(reply) = &reply {
                        udp::send(listener.udp.as_fd(), &[(&name, reply)]);
                    }
                }
                Client::Tcp(key) => {
                    let Some(network) = self.clients.network(key) else { continue };
                    self.world.finished(network, reply.as_deref());
                    if self.clients.answer(key, reply.as_deref(), now, &self.events) {
                        self.on_client(key.index(), now);
                    }
                }
            }
        }
    }
}

/// Listeners, clients and queries under way each cost a descriptor, and the usual soft limit is 1024. Returns how many
/// there may be.
fn raise_limit() -> usize {
    raise_descriptor_limit().map_or(USUAL_LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

const USUAL_LIMIT: usize = 1024;
