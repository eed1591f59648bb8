//! The supervisor's loop: clients, signals, descriptors that end, workers that hang up.
//!
//! One epoll set; each watched descriptor has a number that says whose it is. Clients send whole packets, so there is
//! no half of a request to wait for, and a client that says nothing costs a descriptor; beyond [`MAX_CLIENTS`] the one
//! that came first goes. Replies are sent without waiting: a client that does not read them is dropped. What a client
//! has said before it hung up is done all the same.
//!
//! A worker that has ended its service may live on for a moment to deliver what is left. The loop goes on meanwhile; at
//! the end of the uplink it is waited for, when all sockets of ours are closed, unless a second signal comes.

use super::door::Door;
use super::networks::Networks;
use super::ports::Port;
use super::publications::Strings;
use super::starter::Starter;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use slipway_host::driver::raise_descriptor_limit;
use slipway_host::epoll::{EventSet, Events};
use slipway_host::signals::Signals;
use slipway_host::sys::fdpass;
use slipway_host::token::Token;
use slipway_uplink::envelope::{MAX_REQUEST, Refusal, granted};
use slipway_uplink::protocol::Request;
use slipway_uplink::wire::{Joined, Left};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

/// Clients at a time.
const MAX_CLIENTS: usize = 64;
/// How often workers are looked at that are about to end, and how often when the uplink waits for them.
const TIDY: Duration = Duration::from_millis(200);
/// See [`TIDY`].
const TIDY_AT_THE_END: Duration = Duration::from_millis(20);

/// The uplink at work.
#[derive(Debug)]
pub struct Supervisor {
    watched: Watched,
    door: Door,
    signals: Signals,
    /// What counts at the end: signals alone. Made before the sandbox.
    last: EventSet,
    networks: Networks,
    clients: BTreeMap<u32, Client>,
    /// For the moment when there are no others.
    spare: Option<OwnedFd>,
}

/// The epoll set, and whose its numbers are.
#[derive(Debug)]
struct Watched {
    events: EventSet,
    sources: BTreeMap<u32, Source>,
    next: u32,
}

/// Somebody who asks.
#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    /// The container whose ports this one may move; it can do nothing else.
    reload: Option<String>,
}

/// What a number in the epoll set means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Door,
    Signals,
    Client,
    /// The worker of a network.
    Worker(String),
    /// Who starts workers.
    Starter,
    /// The exit descriptor of a container's publication.
    Exit(String),
    /// The socket on which a container's new addresses are told.
    Reload(String),
}

impl Supervisor {
    /// One without networks.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(door: Door, starter: Starter, host_loopback: bool) -> io::Result<Self> {
        let signals = Signals::catch(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
        let mut watched = Watched { events: EventSet::new()?, sources: BTreeMap::new(), next: 0 };
        watched.add(door.as_fd(), Source::Door, EpollFlags::EPOLLIN)?;
        watched.add(signals.as_fd(), Source::Signals, EpollFlags::EPOLLIN)?;
        // Only its end is of interest.
        watched.add(starter.as_fd(), Source::Starter, EpollFlags::EPOLLRDHUP)?;
        let last = EventSet::new()?;
        last.add(signals.as_fd(), Token::Foreign(0), EpollFlags::EPOLLIN)?;
        if let Err(error) = raise_descriptor_limit() {
            log::info!("the limit of open descriptors stays as it is: {error}");
        }
        let networks = Networks::new(starter, host_loopback);
        Ok(Self { watched, door, signals, last, networks, clients: BTreeMap::new(), spare: spare() })
    }

    /// Serves until a signal says that it is over.
    ///
    /// # Errors
    /// The starter has ended: no network could be served any more, and whoever watches over the uplink starts it anew.
    /// Otherwise the kernel's: out of memory.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::default();
        loop {
            let timeout = (!self.networks.leaving().is_empty()).then_some(TIDY);
            self.watched.events.wait(&mut events, timeout)?;
            let mut at = 0;
            while let Some((token, _)) = events.get(at) {
                at += 1;
                let Some(Token::Foreign(number)) = token else { continue };
                // Gone since, by what another event of this round led to.
                let Some(source) = self.watched.sources.get(&number).cloned() else { continue };
                match source {
                    Source::Signals => {
                        if let Some(signal) = self.signals.next()? {
                            log::info!("{signal}: the uplink ends");
                            return self.end();
                        }
                    }
                    Source::Starter => {
                        self.end()?;
                        return Err(io::Error::other("the process that starts others is gone"));
                    }
                    Source::Door => self.admit(),
                    Source::Client => self.serve(number),
                    Source::Worker(network) => {
                        self.watched.sources.remove(&number);
                        self.networks.bury(&network);
                        self.watch_worker(&network);
                    }
                    Source::Exit(container) => self.exit(&container),
                    Source::Reload(container) => self.admit_reload(&container),
                }
                self.tidy();
            }
            self.networks.leaving().tidy();
        }
    }

    /// The doors first, then the workers, which deliver what is left; a second signal ends that.
    fn end(mut self) -> io::Result<()> {
        self.shut_doors();
        let Self { signals, last, mut networks, watched, door, clients, .. } = self;
        drop((watched, door, clients));
        networks.end_all();
        let mut found = Events::default();
        // Each is killed when it is overdue.
        while !networks.leaving().is_empty() {
            last.wait(&mut found, Some(TIDY_AT_THE_END))?;
            if signals.next()?.is_some() {
                networks.leaving().hurry();
            }
            networks.leaving().tidy();
        }
        Ok(())
    }

    /// A client knocks.
    fn admit(&mut self) {
        match self.door.accept() {
            Ok(Some(socket)) => self.welcome(socket, None),
            Ok(None) => {}
            Err(error) if is_out_of_descriptors(&error) => {
                self.turn_away(&error, |uplink| drop(uplink.door.accept()));
            }
            Err(error) => log::warn!("a client is not let in: {error}"),
        }
    }

    /// Somebody has something to say about a container's addresses.
    fn admit_reload(&mut self, container: &str) {
        let door = self.networks.publication(container).and_then(|publication| publication.door.as_ref());
        match door.map(UnixListener::accept) {
            Some(Ok((socket, _))) if socket.set_nonblocking(true).is_ok() => {
                self.welcome(socket.into(), Some(container.to_owned()));
            }
            Some(Err(error)) if is_out_of_descriptors(&error) => self.turn_away(&error, |uplink| {
                let door = uplink.networks.publication(container).and_then(|it| it.door.as_ref());
                let _ = door.map(UnixListener::accept);
            }),
            _ => {}
        }
    }

    /// No descriptor is left for a client, whose socket would be ready again and again: the spare one lets it in, to be
    /// shown out.
    fn turn_away(&mut self, error: &io::Error, accept: impl FnOnce(&Self)) {
        log::warn!("a client is turned away: {error}");
        self.spare = None;
        accept(self);
        self.spare = spare();
    }

    fn welcome(&mut self, socket: OwnedFd, reload: Option<String>) {
        if self.clients.len() >= MAX_CLIENTS {
            self.drop_oldest();
        }
        if let Ok(number) = self.watched.add(socket.as_fd(), Source::Client, EpollFlags::EPOLLIN) {
            self.clients.insert(number, Client { socket, reload });
        }
    }

    fn drop_oldest(&mut self) {
        // Numbers go up.
        if let Some((&oldest, _)) = self.clients.first_key_value() {
            self.dismiss(oldest);
        }
    }

    fn dismiss(&mut self, number: u32) {
        self.watched.sources.remove(&number);
        self.clients.remove(&number);
    }

    /// One request of a client.
    fn serve(&mut self, number: u32) {
        let Some(client) = self.clients.get(&number) else { return };
        let mut buffer = vec![0; MAX_REQUEST];
        let received = fdpass::receive_all(client.socket.as_fd(), &mut buffer);
        let (reply, last) = match received {
            // The client has left without a reply that was there; what it has said before is still to be read.
            Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let text =
                    format!("the request is longer than {MAX_REQUEST} bytes, or has too many descriptors");
                (Refusal::new(text).to_json(), false)
            }
            Err(_) | Ok((0, _)) => return self.dismiss(number),
            Ok((len, fds)) => {
                let message = buffer.get(..len).unwrap_or_default();
                match client.reload.clone() {
                    Some(container) => (self.reload(&container, message), true),
                    None => {
                        let result = Request::parse(message).and_then(|request| self.obey(request, fds));
                        (result.map_or_else(|refusal| refusal.to_json(), |value| granted(&value)), false)
                    }
                }
            }
        };
        let Some(client) = self.clients.get(&number) else { return };
        let sent = fdpass::send(client.socket.as_fd(), reply.as_bytes(), None);
        // One that has gone may have said more before: that its container leaves, for instance.
        let goes_on = sent.is_ok() || sent.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        if last || !goes_on {
            self.dismiss(number);
        }
    }

    /// Does what is asked.
    fn obey(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Value, Refusal> {
        let mut fds = fds.into_iter();
        match request {
            Request::Join(join) => {
                let (network, container) = *join;
                Ok(json!(Joined { attached: self.networks.join(network, container) }))
            }
            Request::Attach { network } => {
                let tap = fds.next().ok_or_else(|| Refusal::new("attach needs the TAP's descriptor"))?;
                self.networks.attach(&network, tap)?;
                self.watch_worker(&network);
                Ok(json!({}))
            }
            Request::Leave { network, container } => {
                let left = self.networks.leave(&network, &container);
                Ok(json!(Left { containers: u64::try_from(left).unwrap_or(u64::MAX) }))
            }
            Request::Publish { container, mappings } => {
                let mappings = mappings.iter().map(Port::of).collect::<Result<_, _>>()?;
                // What has ended may hold the very ports, and may not have had its turn in the loop yet.
                self.end_the_ended();
                let strings = Strings::new(fds.next(), fds.next())?;
                let ids = self.networks.publish(&container, mappings, strings)?;
                self.watch_publication(&container);
                Ok(json!({ "ids": ids }))
            }
            Request::Status => Ok(self.networks.status()),
        }
    }

    /// A container engine says that a container has this address now. The plugin has said so before, so ports are there
    /// already as a rule.
    fn reload(&mut self, container: &str, message: &[u8]) -> String {
        match serde_json::from_slice::<String>(message) {
            Err(error) => format!("expected the container's address as a JSON string: {error}"),
            Ok(address) => match self.networks.reload(container) {
                Ok(()) => "OK".to_owned(),
                // Disconnected from its last network: the ports are asleep, as they should be.
                Err(_) if address.is_empty() => "OK".to_owned(),
                Err(refusal) => refusal.text,
            },
        }
    }

    fn end_the_ended(&mut self) {
        let ended = |container: &&str| {
            self.networks.publication(container).is_some_and(|publication| publication.has_ended())
        };
        let ended: Vec<_> = self.networks.publishers().filter(ended).map(str::to_owned).collect();
        for container in ended {
            self.networks.unpublish(&container);
        }
    }

    /// Nobody will answer behind them, and nobody else would remove them.
    fn shut_doors(&mut self) {
        let all: Vec<_> = self.networks.publishers().map(str::to_owned).collect();
        all.iter().for_each(|container| self.exit(container));
    }

    /// The container of a publication has ended, and with it the place where the engine tells of new addresses.
    fn exit(&mut self, container: &str) {
        let door = self.networks.publication(container).and_then(|publication| publication.door.as_ref());
        let address = door.and_then(|door| door.local_addr().ok());
        if let Some(path) = address.as_ref().and_then(|address| address.as_pathname())
            && path.is_absolute()
        {
            let _ = std::fs::remove_file(path);
        }
        self.networks.unpublish(container);
    }

    fn watch_worker(&mut self, network: &str) {
        if let Some(process) = self.networks.process(network) {
            // Only its end is of interest.
            self.watched.replace(process.as_fd(), Source::Worker(network.to_owned()), EpollFlags::EPOLLRDHUP);
        }
    }

    fn watch_publication(&mut self, container: &str) {
        let Some(publication) = self.networks.publication(container) else { return };
        if let Some(exit) = &publication.exit {
            self.watched.replace(exit.as_fd(), Source::Exit(container.to_owned()), EpollFlags::empty());
        }
        if let Some(door) = &publication.door {
            self.watched.replace(door.as_fd(), Source::Reload(container.to_owned()), EpollFlags::EPOLLIN);
        }
    }

    /// Forgets the numbers of what is no more.
    fn tidy(&mut self) {
        let networks = &self.networks;
        self.watched.sources.retain(|_, source| match source {
            Source::Exit(container) | Source::Reload(container) => networks.publication(container).is_some(),
            Source::Worker(network) => networks.process(network).is_some(),
            Source::Door | Source::Signals | Source::Starter | Source::Client => true,
        });
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EMFILE as i32)
}

/// A descriptor of no use.
fn spare() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").ok().map(OwnedFd::from)
}

impl Watched {
    /// Watches a descriptor. Closing it is the end of that.
    fn add(&mut self, fd: BorrowedFd<'_>, source: Source, flags: EpollFlags) -> io::Result<u32> {
        let number = self.next;
        self.events.add(fd, Token::Foreign(number), flags)?;
        // Four billion descriptors: at a thousand a second, seven weeks of nothing else.
        self.next = self.next.wrapping_add(1);
        self.sources.insert(number, source);
        Ok(number)
    }

    /// Watches the one descriptor that there is of a kind, whatever was watched before.
    fn replace(&mut self, fd: BorrowedFd<'_>, source: Source, flags: EpollFlags) {
        self.events.remove(fd);
        self.sources.retain(|_, other| *other != source);
        if let Err(error) = self.add(fd, source, flags) {
            log::warn!("a descriptor is not watched: {error}");
        }
    }
}
