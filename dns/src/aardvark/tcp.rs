//! Queries over TCP: the connections, and how many of them.
//!
//! A connection costs a place and what its [`Conversation`] holds. There are [`PLACES`]; one source may hold
//! [`PER_SOURCE`] of them. Whoever opens one more loses the connection that has been idle longest, its own first, so a
//! client that opens connections and says nothing shuts out nobody but itself.

use super::slab::{Key, Slab};
use super::token::Source;
use crate::io::conversation::{Conversation, Scratch, Verdict};
use crate::zone::NetworkId;
use nix::sys::epoll::EpollFlags;
use slipway_host::epoll::EventSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// Connections.
const PLACES: usize = 256;
/// Connections of one source.
const PER_SOURCE: usize = 32;

/// One connection.
#[derive(Debug)]
struct Client {
    conversation: Conversation<TcpStream>,
    source: IpAddr,
    network: NetworkId,
    interest: EpollFlags,
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
    scratch: Scratch,
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
            let interest = EpollFlags::EPOLLIN;
            added = events.add(stream.as_fd(), Source::Client(key.index()).token(), interest);
            let conversation = Conversation::new(stream, now);
            added.is_ok().then_some(Client { conversation, source, network, interest })
        });
        added
    }

    /// Drops the connection that has stood still longest, one that waits for us only if all do. Whether there was one.
    pub(super) fn drop_oldest(&mut self, of: Option<IpAddr>) -> bool {
        let all = self.slab.iter().filter(|(_, client)| of.is_none_or(|source| client.source == source));
        let oldest = all.min_by_key(|(_, client)| client.conversation.dispensable()).map(|(key, _)| key);
        oldest.is_some_and(|key| self.slab.remove(key).is_some())
    }

    /// Something happened to the connection in a place.
    pub(super) fn on_event(
        &mut self,
        index: u32,
        now: Duration,
        events: &EventSet,
        mut decide: impl FnMut(Asker, &[u8], &mut Vec<u8>) -> Verdict,
    ) {
        let Some(key) = self.slab.key(index) else { return };
        let Some(client) = self.slab.get_mut(key) else { return };
        let asker = Asker { key, source: client.source, network: client.network };
        let decide = |message: &[u8], reply: &mut Vec<u8>| decide(asker, message, reply);
        let alive = client.conversation.go_on(&mut self.scratch, now, decide);
        self.settle(key, alive, events);
    }

    /// The answer to a query that had to be asked upstream; `None`: there is none. Returns whether messages wait that
    /// had too many before them: then [`Clients::on_event`] is to be called, for the kernel has nothing more to tell.
    pub(super) fn answer(
        &mut self,
        key: Key,
        reply: Option<&[u8]>,
        now: Duration,
        events: &EventSet,
    ) -> bool {
        let Some(client) = self.slab.get_mut(key) else { return false };
        let alive = client.conversation.answer(reply, now);
        self.settle(key, alive, events);
        self.slab.get(key).is_some_and(|client| client.conversation.has_more())
    }

    /// A message of an answer that has more of them. Returns whether more are wanted; `None`: the connection is gone.
    pub(super) fn part(
        &mut self,
        key: Key,
        message: &[u8],
        now: Duration,
        events: &EventSet,
    ) -> Option<bool> {
        let alive = self.slab.get_mut(key)?.conversation.part(message, now);
        self.settle(key, alive, events);
        self.has_room(key)
    }

    /// Whether more of an answer that comes in parts is wanted; `None`: the connection is gone.
    pub(super) fn has_room(&self, key: Key) -> Option<bool> {
        Some(self.slab.get(key)?.conversation.has_room())
    }

    /// The network on which the client of that key asks, if it is still there.
    pub(super) fn network(&self, key: Key) -> Option<NetworkId> {
        self.slab.get(key).map(|client| client.network)
    }

    /// When the first connection has stood still too long.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.slab.iter().filter_map(|(_, client)| client.conversation.deadline()).min()
    }

    /// Time has passed.
    pub(super) fn on_timeout(&mut self, now: Duration) {
        let late = |client: &Client| client.conversation.deadline().is_some_and(|deadline| deadline <= now);
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
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, client.conversation.wants_read());
        interest.set(EpollFlags::EPOLLOUT, client.conversation.wants_write());
        let mut failed = false;
        if alive && interest != client.interest {
            let token = Source::Client(key.index()).token();
            failed = events.modify(client.conversation.stream().as_fd(), token, interest).is_err();
            client.interest = interest;
        }
        if !alive || failed {
            self.slab.remove(key);
        }
    }
}
