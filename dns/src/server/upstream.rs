//! The forwarder's sockets: one for each attempt at a server.
//!
//! Whom to ask, how long to wait and what to say in the end is decided by the [`Forwarder`], which has no socket. Here its
//! actions are carried out: a UDP socket or a TCP connection is opened, connected to the server (so that the kernel drops what
//! comes from elsewhere, and tells when nobody listens there), and closed when the attempt is over. The kernel chooses the
//! port, a new one for each attempt.
//!
//! Queries under way are bounded by the policy, and by the descriptors that this process may have.

use super::slab::{Key, Slab};
use super::token::Source;
use crate::answer::Transport;
use crate::forward::{Action, AttemptId, Counters, Forwarder, Policy, Question, Received};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket};
use slipway_host::epoll::EventSet;
use slipway_host::random;
use slipway_host::sys::message::Name;
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The longest message, with its length in front of it.
const LONGEST: usize = 2 + 65_535;
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

/// An attempt's socket.
#[derive(Debug)]
struct Socket {
    attempt: AttemptId,
    server: SocketAddr,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Udp(UdpSocket),
    Tcp {
        stream: TcpStream,
        /// What is still to be sent.
        output: Vec<u8>,
        /// What has come of the answer.
        input: Vec<u8>,
    },
}

/// All queries under way.
#[derive(Debug)]
pub(super) struct Forwards {
    forwarder: Forwarder<Client>,
    sockets: Slab<Socket>,
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
        let Some(Socket { attempt, server, kind }) = sockets.get_mut(key) else { return };
        match kind {
            Kind::Udp(socket) => {
                for _ in 0..ROUNDS {
                    match socket.recv(buffer) {
                        Ok(len) => {
                            let message = buffer.get(..len).unwrap_or_default();
                            if forwarder.received(now, *attempt, *server, message) != Received::Mismatch {
                                break;
                            }
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(error) => {
                            log::debug!("{server}: {error}");
                            forwarder.failed(now, *attempt);
                            break;
                        }
                    }
                }
            }
            Kind::Tcp { stream, output, input } => {
                let token = Source::Upstream(index).token();
                let outcome = write(stream, output).and_then(|sent_just_now| {
                    if sent_just_now {
                        events.modify(stream.as_fd(), token, EpollFlags::EPOLLIN)?;
                    }
                    read(stream, buffer, input)
                });
                match outcome {
                    Ok(None) => {}
                    Ok(Some(message)) => {
                        if forwarder.received(now, *attempt, *server, message) == Received::Mismatch {
                            forwarder.failed(now, *attempt);
                        }
                    }
                    Err(error) => {
                        log::debug!("{server}: {error}");
                        forwarder.failed(now, *attempt);
                    }
                }
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
                    let opened = open_udp(server, &message).map(Kind::Udp);
                    self.opened(now, events, (attempt, server), opened);
                }
                Action::SendTcp { attempt, server, message } => {
                    let opened = open_tcp(server, &message);
                    self.opened(now, events, (attempt, server), opened);
                }
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

    fn opened(
        &mut self,
        now: Duration,
        events: &EventSet,
        (attempt, server): (AttemptId, SocketAddr),
        opened: io::Result<Kind>,
    ) {
        let added = opened.and_then(|kind| {
            let mut added = Err(io::Error::from(ErrorKind::OutOfMemory));
            let key = self.sockets.insert(|key| {
                let wanted = match kind {
                    Kind::Udp(_) => EpollFlags::EPOLLIN,
                    Kind::Tcp { .. } => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
                };
                added = events.add(kind.fd(), Source::Upstream(key.index()).token(), wanted);
                added.is_ok().then_some(Socket { attempt, server, kind })
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

impl Kind {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Tcp { stream, .. } => stream.as_fd(),
        }
    }
}

fn open(server: SocketAddr, kind: SockType, protocol: SockProtocol) -> io::Result<OwnedFd> {
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, protocol)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(server)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        Err(errno) => Err(errno.into()),
    }
}

fn open_udp(server: SocketAddr, message: &[u8]) -> io::Result<UdpSocket> {
    let socket = UdpSocket::from(open(server, SockType::Datagram, SockProtocol::Udp)?);
    socket.send(message)?;
    Ok(socket)
}

fn open_tcp(server: SocketAddr, message: &[u8]) -> io::Result<Kind> {
    let len = u16::try_from(message.len()).map_err(|_| ErrorKind::InvalidInput)?;
    let stream = TcpStream::from(open(server, SockType::Stream, SockProtocol::Tcp)?);
    let mut output = len.to_be_bytes().to_vec();
    output.extend_from_slice(message);
    Ok(Kind::Tcp { stream, output, input: Vec::new() })
}

/// Sends what is left. `true`: that was the last of it.
fn write(stream: &mut TcpStream, output: &mut Vec<u8>) -> io::Result<bool> {
    while !output.is_empty() {
        match stream.write(output) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => drop(output.drain(..len)),
            // Also while the connection is being made.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if output.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads what has come; the first message when it is whole.
fn read<'i>(
    stream: &mut TcpStream,
    buffer: &mut [u8],
    input: &'i mut Vec<u8>,
) -> io::Result<Option<&'i [u8]>> {
    while input.len() < LONGEST {
        match stream.read(buffer) {
            Ok(0) => break,
            Ok(len) => input.extend_from_slice(buffer.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(whole(input));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if whole(input).is_some() {
            return Ok(whole(input));
        }
    }
    match whole(input) {
        Some(message) => Ok(Some(message)),
        None => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// The message behind its length (RFC 1035 §4.2.2).
fn whole(input: &[u8]) -> Option<&[u8]> {
    let (len, rest) = input.split_first_chunk::<2>()?;
    rest.get(..usize::from(u16::from_be_bytes(*len)))
}
