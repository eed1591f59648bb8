//! Queries over TCP: several on a connection (RFC 7766), within bounds.
//!
//! A connection costs a place and the bytes that it has sent of an unfinished message. There are [`PLACES`]; one source
//! may hold [`PER_SOURCE`] of them. Whoever opens one more loses the connection that has been idle longest, its own
//! first, so a client that opens connections and says nothing shuts out nobody but itself.
//!
//! A connection ends when nothing has got further for [`IDLE`] (a whole message received, an answer sent, bytes of an answer
//! taken); single bytes of a message are not getting further. While an upstream server is being asked for it, it waits: the
//! forwarder has bounds of its own. Answers go out as they are found, not in the order of the queries (RFC 7766 §7). A
//! client with [`IN_FLIGHT`] unanswered queries, or one that does not read its answers, is not read from.
//!
//! A message that is no query ends the connection. After the client's end of stream what it asked is still answered.

use super::slab::{Key, Slab};
use super::token::Source;
use crate::zone::NetworkId;
use nix::sys::epoll::EpollFlags;
use slipway_host::epoll::EventSet;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// Connections.
const PLACES: usize = 256;
/// Connections of one source.
const PER_SOURCE: usize = 32;
/// How long a connection may stand still.
const IDLE: Duration = Duration::from_secs(3);
/// Queries of one connection that are being asked upstream.
const IN_FLIGHT: u16 = 16;
/// Answers that a client has not read, in bytes.
const UNREAD: usize = 1 << 17;
/// What is read at a time, and how often in one turn.
const CHUNK: usize = 16 << 10;
const ROUNDS: usize = 4;

/// One connection.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
    source: IpAddr,
    network: NetworkId,
    /// An unfinished message, with its length in front.
    input: Vec<u8>,
    /// Answers, with their lengths in front, of which the first `sent` bytes are gone.
    output: Vec<u8>,
    sent: usize,
    in_flight: u16,
    deadline: Duration,
    /// Nothing more is read; when all is answered, it ends.
    ending: bool,
    interest: EpollFlags,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The answer is there.
    Answered,
    /// The answer comes later.
    Later,
    /// The connection is to be closed.
    Close,
}

/// One who asks over TCP.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    /// The connection.
    pub(super) key: Key,
    /// The client's address.
    pub(super) source: IpAddr,
    /// Where it connected to.
    pub(super) network: NetworkId,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Clients {
    slab: Slab<Client>,
    chunk: Vec<u8>,
    reply: Vec<u8>,
}

impl Clients {
    /// Takes a connection in.
    ///
    /// # Errors
    /// The kernel's; the connection is gone then.
    pub(super) fn accept(
        &mut self,
        (stream, peer): (TcpStream, SocketAddr),
        network: NetworkId,
        now: Duration,
        events: &EventSet,
    ) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        // An answer is complete when it is written.
        let _ = stream.set_nodelay(true);
        let source = peer.ip().to_canonical();
        if self.slab.iter().filter(|(_, client)| client.source == source).count() >= PER_SOURCE {
            self.drop_oldest(Some(source));
        } else if self.slab.len() >= PLACES {
            self.drop_oldest(None);
        }
        let mut added = Ok(());
        self.slab.insert(|key| {
            added = events.add(stream.as_fd(), Source::Client(key.index()).token(), EpollFlags::EPOLLIN);
            added.is_ok().then_some(Client {
                stream,
                source,
                network,
                input: Vec::new(),
                output: Vec::new(),
                sent: 0,
                in_flight: 0,
                deadline: now + IDLE,
                ending: false,
                interest: EpollFlags::EPOLLIN,
            })
        });
        added
    }

    /// Drops the connection that has stood still longest, one that waits for us only if all do. Whether there was one.
    pub(super) fn drop_oldest(&mut self, of: Option<IpAddr>) -> bool {
        let all = self.slab.iter().filter(|(_, client)| of.is_none_or(|source| client.source == source));
        let oldest = all.min_by_key(|(_, client)| (client.in_flight > 0, client.deadline));
        let oldest = oldest.map(|(key, _)| key);
        oldest.is_some_and(|key| self.slab.remove(key).is_some())
    }

    /// Something happened to the connection in a place.
    pub(super) fn on_event(
        &mut self,
        index: u32,
        now: Duration,
        events: &EventSet,
        decide: impl FnMut(Asker, &[u8], &mut Vec<u8>) -> Verdict,
    ) {
        let Some(key) = self.slab.key(index) else { return };
        let Some(client) = self.slab.get_mut(key) else { return };
        self.chunk.resize(CHUNK, 0);
        let alive = client.flush(now) && client.read(key, &mut self.chunk, &mut self.reply, now, decide);
        self.settle(key, alive, events);
    }

    /// The answer to a query that had to be asked upstream; `None`: there is none. Returns whether messages wait that had
    /// too many before them: then [`Clients::on_event`] is to be called, for the kernel has nothing more to tell.
    pub(super) fn answer(
        &mut self,
        key: Key,
        reply: Option<&[u8]>,
        now: Duration,
        events: &EventSet,
    ) -> bool {
        let Some(client) = self.slab.get_mut(key) else { return false };
        client.in_flight = client.in_flight.saturating_sub(1);
        client.deadline = now + IDLE;
        let alive = reply.is_none_or(|reply| client.queue(reply) && client.flush(now));
        self.settle(key, alive, events);
        self.slab.get(key).is_some_and(|client| client.listening() && split(&client.input).is_some())
    }

    /// The network on which the client of that key asks, if it is still there.
    pub(super) fn network(&self, key: Key) -> Option<NetworkId> {
        self.slab.get(key).map(|client| client.network)
    }

    /// When the first connection has stood still too long.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.slab.iter().filter(|(_, client)| client.in_flight == 0).map(|(_, client)| client.deadline).min()
    }

    /// Time has passed.
    pub(super) fn on_timeout(&mut self, now: Duration) {
        let late = |client: &Client| client.in_flight == 0 && client.deadline <= now;
        let gone: Vec<Key> =
            self.slab.iter().filter(|(_, client)| late(client)).map(|(key, _)| key).collect();
        for key in gone {
            self.slab.remove(key);
        }
    }

    /// The networks have other numbers now: `renumber` tells the new one. Connections to one that is gone end.
    pub(super) fn renumber(&mut self, renumber: impl Fn(NetworkId) -> Option<NetworkId>) {
        let mut gone = Vec::new();
        for (key, client) in self.slab.iter_mut() {
            match renumber(client.network) {
                Some(network) => client.network = network,
                None => gone.push(key),
            }
        }
        for key in gone {
            self.slab.remove(key);
        }
    }

    /// After a turn: closes the connection, or says what it is waiting for.
    fn settle(&mut self, key: Key, alive: bool, events: &EventSet) {
        let Some(client) = self.slab.get_mut(key) else { return };
        let done = client.ending && client.in_flight == 0 && client.output.is_empty();
        let interest = client.wanted();
        let mut failed = false;
        if alive && !done && interest != client.interest {
            let token = Source::Client(key.index()).token();
            failed = events.modify(client.stream.as_fd(), token, interest).is_err();
            client.interest = interest;
        }
        if !alive || done || failed {
            self.slab.remove(key);
        }
    }
}

impl Client {
    fn wanted(&self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        if self.listening() {
            flags |= EpollFlags::EPOLLIN;
        }
        if !self.output.is_empty() {
            flags |= EpollFlags::EPOLLOUT;
        }
        flags
    }

    /// Whether more queries are wanted from it.
    fn listening(&self) -> bool {
        !self.ending && self.in_flight < IN_FLIGHT && self.output.len() - self.sent < UNREAD
    }

    /// Reads and answers what has arrived. `false`: the connection is to be closed.
    fn read(
        &mut self,
        key: Key,
        chunk: &mut [u8],
        reply: &mut Vec<u8>,
        now: Duration,
        mut decide: impl FnMut(Asker, &[u8], &mut Vec<u8>) -> Verdict,
    ) -> bool {
        // Messages may be left over from when too much was in flight.
        let mut round = 0;
        loop {
            if !self.messages(key, reply, now, &mut decide) || !self.flush(now) {
                return false;
            }
            if !self.listening() || round == ROUNDS {
                return true;
            }
            round += 1;
            match self.stream.read(chunk) {
                Ok(0) => {
                    self.ending = true;
                    return true;
                }
                Ok(len) => self.input.extend_from_slice(chunk.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Takes the whole messages out of the input. `false`: the connection is to be closed.
    fn messages(
        &mut self,
        key: Key,
        reply: &mut Vec<u8>,
        now: Duration,
        decide: &mut impl FnMut(Asker, &[u8], &mut Vec<u8>) -> Verdict,
    ) -> bool {
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while self.listening()
            && let Some((message, behind)) = split(rest)
        {
            rest = behind;
            self.deadline = now + IDLE;
            let asker = Asker { key, source: self.source, network: self.network };
            match decide(asker, message, reply) {
                Verdict::Answered if !self.queue(reply) => return false,
                Verdict::Answered => {}
                Verdict::Later => self.in_flight += 1,
                Verdict::Close => return false,
            }
        }
        // An idle connection keeps no buffer.
        self.input = rest.to_vec();
        true
    }

    /// Puts an answer behind those that wait. `false`: it is too long for TCP.
    fn queue(&mut self, reply: &[u8]) -> bool {
        let Ok(len) = u16::try_from(reply.len()) else { return false };
        self.output.extend_from_slice(&len.to_be_bytes());
        self.output.extend_from_slice(reply);
        true
    }

    /// Writes what the kernel takes. `false`: the connection is gone.
    fn flush(&mut self, now: Duration) -> bool {
        while let Some(waiting) = self.output.get(self.sent..).filter(|waiting| !waiting.is_empty()) {
            match self.stream.write(waiting) {
                Ok(0) => return false,
                Ok(len) => {
                    self.sent += len;
                    self.deadline = now + IDLE;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.output = Vec::new();
        self.sent = 0;
        true
    }
}

/// The first whole message (RFC 1035 §4.2.2), and what is behind it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}
